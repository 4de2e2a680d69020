"""What every speech recogniser promises; a new one joins by one line in MEMBERS."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines.base import Engine
from pipeline.equipment import BARE, Equipment
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, Speech, silence
from pipeline.sound.resample import resample
from pipeline.transcribers import LOADERS, load
from pipeline.transcribers.base import Transcriber
from pipeline.verify import Transcript, verify
from tests.models.whisper_samples import closed_equipment, judged, need, say, verdict_on

SENTENCE = "The fire burned brightly, and the soft light caught the bubbles that flashed in our glasses."
OTHER = "My breath came with pain, and I am not a young man any more, as everybody knows."
NUMBERS = "In 1895 Dr. Smith paid $3.50 for 12 eggs."


@dataclass(frozen=True)
class Member:
    """A recogniser under test, with what is particular to it."""

    name: str
    unknown_language: str | None = "de"
    "None for a recogniser that knows every language"
    modules: tuple[str, ...] = ()
    "without which it is not installed"
    equip: Callable[[Path], Equipment] = lambda _folder: BARE
    "lays out its checkpoint in a folder"
    misheard: tuple[object, ...] = ()
    "texts and gains that the checkpoint of the tests, not the recogniser, is too weak for"


MEMBERS = [
    Member("pocketsphinx"),
    Member(
        "whisper",
        unknown_language="tlh",
        modules=("torch", "whisper"),
        equip=closed_equipment,
        misheard=(NUMBERS, 0.05),
    ),
]


@pytest.fixture(scope="module", params=MEMBERS, ids=lambda member: member.name)
def member(request: pytest.FixtureRequest) -> Member:
    """Each recogniser in turn."""
    member: Member = request.param
    need(*member.modules)
    return member


@pytest.fixture(scope="module")
def equipment(member: Member, tmp_path_factory: pytest.TempPathFactory) -> Equipment:
    """What the recogniser is loaded with."""
    return member.equip(tmp_path_factory.mktemp(member.name))


@pytest.fixture(scope="module")
def transcriber(member: Member, equipment: Equipment) -> Iterator[Transcriber]:
    """The recogniser, loaded once."""
    loaded = load(member.name, equipment)
    yield loaded
    loaded.close()


def strong_enough(member: Member, asked: object) -> None:
    """Skip what the checkpoint of the tests is known to mishear."""
    if asked in member.misheard:
        pytest.skip(f"the small trained checkpoint of {member.name} mishears {asked!r}")


def sounding(samples: np.ndarray, rate_hz: int = 22_050) -> Speech:
    """Speech of these samples without word times."""
    return Speech(audio=Audio(samples.astype(np.float32), rate_hz))


def without(speech: Speech, first: int, last: int) -> Speech:
    """The speech with words `first` to `last` cut out of its sound."""
    assert speech.words is not None
    rate = speech.audio.rate_hz
    start, end = (round(speech.words[at].start_seconds * rate) for at in (first, last + 1))
    return Speech(audio=Audio(np.delete(speech.audio.samples, slice(start, end)), rate))


def test_every_recogniser_in_the_table_is_tested() -> None:
    """No recogniser is offered that did not pass this contract."""
    assert {member.name for member in MEMBERS} == set(LOADERS)


def test_says_what_it_is(transcriber: Transcriber, member: Member) -> None:
    """Name, version and threshold are there for the manifest and the cache key."""
    assert transcriber.name == member.name
    assert transcriber.version
    assert 0 <= transcriber.max_word_error_rate <= 0.5


def test_several_at_once_are_heard_as_each_alone(transcriber: Transcriber, engine: Engine) -> None:
    """Long beside short, the same twice, and none at all."""
    texts = ["The river was quiet.", "The fire burned brightly and the soft light caught the glasses."]
    spoken = [(say(engine, text), text) for text in (*texts, texts[0])]
    together = transcriber.transcribe_all(spoken, "en")
    assert together == [transcriber.transcribe(speech, text, "en") for speech, text in spoken]
    assert transcriber.transcribe_all([], "en") == []


@pytest.mark.parametrize("language", ["en", "en-US", "en-GB", "EN-us"])
def test_supports_english(transcriber: Transcriber, language: str) -> None:
    """Every recogniser knows English, whatever its country and case."""
    assert transcriber.supports(language)


def test_unknown_language_is_refused(transcriber: Transcriber, member: Member, engine: Engine) -> None:
    """It neither claims a language it has no model for nor guesses at it."""
    if member.unknown_language is None:
        pytest.skip("this recogniser knows every language")
    assert not transcriber.supports(member.unknown_language)
    with pytest.raises(SynthesisError, match=member.unknown_language):
        transcriber.transcribe(say(engine, SENTENCE), SENTENCE, member.unknown_language)


@pytest.mark.parametrize("text", [SENTENCE, OTHER, NUMBERS, "Hello there.", "Yes.", "Chapter I."])
def test_right_speech_passes(transcriber: Transcriber, member: Member, engine: Engine, text: str) -> None:
    """Long and short, with numbers and without, right speech passes without reasons."""
    strong_enough(member, text)
    verdict = judged(transcriber, say(engine, text), text)
    assert verdict.passed, verdict
    assert verdict.reasons == ()


def test_word_times_of_the_engine_are_not_needed(transcriber: Transcriber, engine: Engine) -> None:
    """An engine that reports no word times is checked all the same."""
    speech = replace(say(engine, SENTENCE), words=None)
    assert judged(transcriber, speech, SENTENCE).passed
    assert not judged(transcriber, without(say(engine, SENTENCE), 4, 7), SENTENCE).passed


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 44_100, 48_000])
def test_rates(transcriber: Transcriber, engine: Engine, rate_hz: int) -> None:
    """Any sample rate will do."""
    audio = resample(say(engine, SENTENCE).audio, rate_hz)
    assert judged(transcriber, Speech(audio=audio), SENTENCE).passed


@pytest.mark.parametrize("gain", [0.05, 0.3, 1.0])
def test_loudness_does_not_matter(
    transcriber: Transcriber, member: Member, engine: Engine, gain: float
) -> None:
    """Quiet speech is heard like loud speech."""
    strong_enough(member, gain)
    audio = say(engine, SENTENCE).audio
    assert judged(transcriber, sounding(audio.samples * gain, audio.rate_hz), SENTENCE).passed


def test_says_what_was_heard_not_what_was_expected(transcriber: Transcriber, engine: Engine) -> None:
    """Other speech is refused, and most of the expected words are not claimed to have been heard."""
    transcript = transcriber.transcribe(say(engine, OTHER), SENTENCE, "en")
    verdict = verify(SENTENCE, transcript, language="en", max_word_error_rate=0.5)
    assert not verdict.passed
    assert verdict.word_error_rate > 0.5


@pytest.mark.parametrize(
    ("expected", "said"),
    [("Yes.", "No."), ("No.", "Yes."), ("Go.", "Stay."), ("Hello there.", "Goodbye."), ("One.", "Seven.")],
)
def test_short_chunks_are_not_taken_on_trust(
    transcriber: Transcriber, engine: Engine, expected: str, said: str
) -> None:
    """With one word expected there is still more than one to hear."""
    assert not judged(transcriber, say(engine, said), expected).passed


@pytest.mark.parametrize("expected", [SENTENCE, "Yes."])
def test_silence_and_noise_do_not_pass(transcriber: Transcriber, expected: str) -> None:
    """No comfort from nothing: empty sound, silence, hum, clicks and noise are refused."""
    random = np.random.default_rng(1)
    time = np.arange(66_150) / 22_050
    clicks = np.zeros(66_150)
    clicks[::5000] = 0.9
    for samples in (
        np.zeros(0),
        np.zeros(1),
        np.zeros(66_150),
        random.normal(0, 1e-5, 66_150),
        random.normal(0, 0.1, 66_150),
        0.3 * np.sin(2 * np.pi * 120 * time),
        clicks,
    ):
        assert not judged(transcriber, sounding(samples), expected).passed


def test_silence_is_heard_as_nothing(transcriber: Transcriber) -> None:
    """The transcript of silence is empty."""
    assert transcriber.transcribe(Speech(audio=silence(2, 22_050)), SENTENCE, "en").text == ""


def test_missing_repeated_and_cut_speech_is_refused(transcriber: Transcriber, engine: Engine) -> None:
    """The faults that generative engines make are found, and named."""
    speech = say(engine, SENTENCE)
    samples, rate = speech.audio.samples, speech.audio.rate_hz
    half = len(samples) // 2
    missing = judged(transcriber, without(speech, 5, 9), SENTENCE)
    repeated = judged(transcriber, sounding(np.concatenate([samples, samples[half:]]), rate), SENTENCE)
    cut = judged(transcriber, sounding(samples[:half], rate), SENTENCE)
    assert not missing.passed
    assert any(reason.startswith("missing") for reason in missing.reasons)
    assert not repeated.passed
    assert not cut.passed
    assert any(reason.startswith("cut off at the end") for reason in cut.reasons)


def test_word_times_lie_within_the_sound(transcriber: Transcriber, engine: Engine) -> None:
    """Where it tells when words were heard, the times rise and lie inside."""
    speech = say(engine, SENTENCE)
    words = transcriber.transcribe(speech, SENTENCE, "en").words
    starts = [word.start_seconds for word in words]
    assert starts == sorted(starts)
    for word in words:
        assert -0.1 <= word.start_seconds < word.end_seconds <= speech.audio.seconds + 0.3
        assert word.confidence is None or 0 <= word.confidence <= 1


def test_same_speech_same_transcript(
    transcriber: Transcriber, member: Member, equipment: Equipment, engine: Engine
) -> None:
    """A kept transcript is what listening again would give, also after other speech and in another load."""
    speech = say(engine, SENTENCE)
    first = transcriber.transcribe(speech, SENTENCE, "en")
    transcriber.transcribe(say(engine, OTHER), OTHER, "en")
    again = load(member.name, equipment)
    assert transcriber.transcribe(speech, SENTENCE, "en") == first
    assert again.transcribe(speech, SENTENCE, "en") == first
    again.close()


def test_transcript_survives_json(transcriber: Transcriber, engine: Engine) -> None:
    """A transcript can be kept in a file and judged later."""
    transcript = transcriber.transcribe(say(engine, SENTENCE), SENTENCE, "en")
    assert Transcript.from_dict(json.loads(json.dumps(transcript.to_dict()))) == transcript


@pytest.mark.parametrize("expected", ["", "...", "漢字", "x" * 500, "( <s> </s> [NOISE] ++"])
def test_odd_expectations(transcriber: Transcriber, engine: Engine, expected: str) -> None:
    """Whatever text is expected, other speech does not pass for it and nothing breaks."""
    transcript = transcriber.transcribe(say(engine, SENTENCE), expected, "en")
    verdict = verify(expected, transcript, language="en", max_word_error_rate=0.5)
    assert (
        not verdict.passed or not verify(SENTENCE, transcript, language="en", max_word_error_rate=0.5).passed
    )


def test_prints_nothing(
    member: Member, equipment: Equipment, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output and error belong to the daemon."""
    speech = say(engine, SENTENCE)
    loaded = load(member.name, equipment)
    loaded.transcribe(speech, SENTENCE, "en")
    loaded.transcribe(Speech(audio=silence(1, 22_050)), SENTENCE, "en")
    loaded.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", [SENTENCE, NUMBERS, "", "(aside)", "He paid $200.", "漢字"])
def test_normalising_twice_is_normalising_once(transcriber: Transcriber, text: str) -> None:
    """Both sides of a comparison take one form, and a text is always the same as itself."""
    once = transcriber.normalise(text, "en")
    assert transcriber.normalise(once, "en") == once
    transcript = Transcript(text=text)
    verdict = verdict_on(transcriber, transcript, text, 0)
    assert verdict.word_error_rate == 0
