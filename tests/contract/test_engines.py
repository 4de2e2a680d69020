"""What every speech engine promises; a new engine joins by one line in MEMBERS."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.engines import LOADERS, load
from pipeline.engines.base import Engine, Utterance, Voice
from pipeline.equipment import BARE, Equipment
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Speech

SENTENCE = "The quick brown fox jumped over the lazy dog, and then it slept."
OTHER = "What? No! Never in a thousand years."
MAX_TRIES = 20
ODD_TEXTS = {
    "one letter": "a",
    "shouting": "WHAT A DAY!!!!!!!!",
    "ssml": '<speak><break time="9999s"/>Hello</speak>',
    "phonemes": "[[h@l'oU]] and [[",
    "percent": "100%s %n %d",
    "newlines": "First line.\n\n\tSecond line.\r\nThird.",
    "NUL inside": "before\0after",
    "control characters": "a\x01b\x02 \x1b[31mred\x7f",
    "lone surrogate": "a \ud800 b",
    "unassigned code points": "a \u0530\u0557 \ue000 \uffff b",
    "emoji": "I 😀 it 👩‍👩‍👧",
    "accents": "Čeština, naïveté, Ångström and e\u0301\u0301\u0301\u0301",
    "right to left": "He said \u202eשלום\u202c twice",
    "other scripts": "漢字 and кириллица",
    "long word": "a" * 600,
    "long digits": "7" * 300,
    "many marks": "wait" + "?!" * 200,
}
SILENT_TEXTS = ["", "   ", "\n\t", "...", "—", "\0\0"]


@dataclass(frozen=True)
class Member:
    """An engine under test, with what is particular to it."""

    name: str
    voice: str = ""
    unknown_voice: str = "nobody-of-that-name"
    unknown_language: str = "xx"
    useless_setting: str = "temperature"
    "a synthesis setting that it ignores"


MEMBERS = [
    Member("espeak"),
    Member("chatterbox", useless_setting="pitch"),
    Member("chatterbox-multilingual", useless_setting="words_per_minute"),
    Member("chatterbox-turbo", useless_setting="cfg_weight"),
]


@pytest.fixture(scope="module", params=MEMBERS, ids=lambda member: member.name)
def member(request: pytest.FixtureRequest) -> Member:
    """Each engine in turn."""
    return request.param


@pytest.fixture(scope="module")
def equipment(member: Member, request: pytest.FixtureRequest) -> Equipment:
    """What it is loaded from: small models with random weights for those that need any."""
    return BARE if member.name == "espeak" else request.getfixturevalue("small_equipment")


@pytest.fixture(scope="module")
def engine(member: Member, equipment: Equipment) -> Iterator[Engine]:
    """The engine, loaded once."""
    loaded = load(member.name, equipment)
    yield loaded
    loaded.close()


def utterance(member: Member, text: str = SENTENCE, *, seed: int = 1, **synthesis: object) -> Utterance:
    """One chunk, spoken with the engine's usual voice."""
    return Utterance(
        text=text,
        voice=Voice(name=member.voice),
        language="en",
        synthesis=Synthesis.model_validate(synthesis),
        seed=seed,
    )


def same(one: Speech, other: Speech) -> bool:
    """Whether two takes are the same to the last sample and word time."""
    return np.array_equal(one.audio.samples, other.audio.samples) and one.words == other.words


def test_every_engine_in_the_table_is_tested() -> None:
    """No engine is offered that did not pass this contract."""
    assert {member.name for member in MEMBERS} == set(LOADERS)


def test_says_what_it_is(engine: Engine, member: Member) -> None:
    """Name, version and device are there for the manifest and the cache key."""
    assert engine.name == member.name
    assert engine.version
    assert engine.device


def test_speaks_finite_sound_at_its_rate(engine: Engine, member: Member) -> None:
    """Samples are finite, within full scale, not silent, and at the rate it declared."""
    audio = engine.speak(utterance(member)).audio
    assert audio.rate_hz == engine.rate_hz
    assert np.isfinite(audio.samples).all()
    assert 0.02 < np.abs(audio.samples).max() <= 1.0


def test_length_is_plausible(engine: Engine, member: Member) -> None:
    """Speech runs at 6 to 30 characters a second."""
    seconds = engine.speak(utterance(member)).audio.seconds
    assert len(SENTENCE) / 30 < seconds < len(SENTENCE) / 6


def test_more_text_takes_longer(engine: Engine, member: Member) -> None:
    """Nothing is dropped from a text twice as long."""
    once = engine.speak(utterance(member)).audio.seconds
    twice = engine.speak(utterance(member, f"{SENTENCE} {SENTENCE}")).audio.seconds
    assert 1.8 < twice / once < 2.5


def test_same_utterance_same_sound(engine: Engine, member: Member) -> None:
    """The same utterance gives the same samples, also after other utterances in between."""
    first = engine.speak(utterance(member))
    engine.speak(utterance(member, OTHER))
    assert same(first, engine.speak(utterance(member)))


def test_another_load_gives_the_same_sound(engine: Engine, member: Member, equipment: Equipment) -> None:
    """What a cache holds from an earlier run is what this run would have made."""
    again = load(member.name, equipment)
    assert same(engine.speak(utterance(member)), again.speak(utterance(member)))
    again.close()


def test_seed_matters_if_and_only_if_it_is_random(engine: Engine, member: Member) -> None:
    """`random` tells the truth about the seed."""
    one, two = (engine.speak(utterance(member, seed=seed)) for seed in (1, 2))
    assert same(one, two) is not engine.random


def test_utterance_is_left_alone(engine: Engine, member: Member) -> None:
    """Speaking changes nothing of what was asked."""
    asked = utterance(member)
    before = dataclasses.replace(asked)
    engine.speak(asked)
    assert asked == before


def test_words_lie_in_order_within_the_sound(engine: Engine, member: Member) -> None:
    """Reported word times rise, do not overlap, lie inside, and name the words of the text."""
    speech = engine.speak(utterance(member))
    if speech.words is None:
        pytest.skip("this engine reports no word times")
    borders = [time for word in speech.words for time in (word.start_seconds, word.end_seconds)]
    assert borders == sorted(borders)
    assert borders[0] >= 0
    assert borders[-1] <= speech.audio.seconds + 1e-6
    assert [word.text for word in speech.words] == SENTENCE.replace(",", "").replace(".", "").split()


def test_first_try_is_what_was_asked(engine: Engine, member: Member) -> None:
    """Try 1 changes nothing."""
    asked = utterance(member)
    assert engine.vary(asked, 1) == asked


def test_no_two_tries_are_alike(engine: Engine, member: Member) -> None:
    """All the tries that a job may ask for differ in what decides the sound, and say the same text."""
    tries = [engine.vary(utterance(member), number) for number in range(1, MAX_TRIES + 1)]
    inputs = {(t.voice.fingerprint, t.synthesis, t.seed if engine.random else 0) for t in tries}
    assert engine.random or len(inputs) == MAX_TRIES
    assert {t.text for t in tries} == {SENTENCE}
    assert {t.language for t in tries} == {"en"}


def test_vary_is_pure(engine: Engine, member: Member) -> None:
    """The same try is the same input, whatever was asked before."""
    assert [engine.vary(utterance(member), n) for n in (3, 2, 3)][::2] == [
        engine.vary(utterance(member), 3)
    ] * 2


def test_tries_sound_unlike_and_can_be_spoken(engine: Engine, member: Member) -> None:
    """A retry gives the checker something new to hear."""
    takes = [engine.speak(engine.vary(utterance(member, seed=n), n)) for n in (1, 2, 3, 7, MAX_TRIES)]
    for at, take in enumerate(takes):
        assert not any(np.array_equal(take.audio.samples, other.audio.samples) for other in takes[:at])


def test_usual_voice_has_no_problem(engine: Engine, member: Member) -> None:
    """What the tests speak with is allowed."""
    assert list(engine.problems(Voice(name=member.voice), "en", Synthesis())) == []


def test_unknown_voice_is_a_sentence(engine: Engine, member: Member) -> None:
    """A voice it does not have is told before work starts, by name."""
    problems = engine.problems(Voice(name=member.unknown_voice), "en", Synthesis())
    assert len(problems) == 1
    assert member.unknown_voice in problems[0]
    assert problems[0].endswith(".")


def test_unknown_language_is_a_sentence(engine: Engine, member: Member) -> None:
    """A language it does not speak is told before work starts, by name."""
    problems = engine.problems(Voice(name=""), member.unknown_language, Synthesis())
    assert len(problems) == 1
    assert member.unknown_language in problems[0]


def test_settings_it_ignores_are_named(engine: Engine, member: Member) -> None:
    """Only what somebody set can be ignored."""
    setting = {member.useless_setting: Synthesis.model_fields[member.useless_setting].default}
    assert list(engine.ignored(Synthesis())) == []
    assert list(engine.ignored(Synthesis.model_validate(setting))) == [member.useless_setting]


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_odd_text_is_spoken(engine: Engine, member: Member, text: str) -> None:
    """Hostile and unusual text is spoken as text: finite sound within 20 s, and the engine lives on."""
    speech = engine.speak(utterance(member, text))
    assert np.isfinite(speech.audio.samples).all()
    assert 0 < speech.audio.seconds < max(20, len(text))


@pytest.mark.parametrize("text", SILENT_TEXTS, ids=repr)
def test_text_without_words_is_an_error(engine: Engine, member: Member, text: str) -> None:
    """Silence is never handed on as speech."""
    with pytest.raises(SynthesisError):
        engine.speak(utterance(member, text))


def test_odd_text_leaves_no_trace(engine: Engine, member: Member) -> None:
    """After odd text the engine speaks as before."""
    before = engine.speak(utterance(member))
    for text in ODD_TEXTS.values():
        engine.speak(utterance(member, text))
    assert same(before, engine.speak(utterance(member)))


def test_loading_and_speaking_print_nothing(
    member: Member, equipment: Equipment, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output and error belong to the daemon."""
    loaded = load(member.name, equipment)
    loaded.speak(utterance(member))
    loaded.problems(Voice(name=member.unknown_voice), "en", Synthesis())
    loaded.close()
    assert capfd.readouterr() == ("", "")


def test_close_may_be_called_twice(member: Member, equipment: Equipment) -> None:
    """Closing is safe on every way out."""
    loaded = load(member.name, equipment)
    loaded.close()
    loaded.close()
