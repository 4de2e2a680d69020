"""The embedded engine: voices, retries, word times, and a library that forgets."""

import hashlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.base import Utterance, Voice
from pipeline.engines.espeak import DEFAULT_VARIANT, EspeakEngine, voice_identifier
from pipeline.errors import EnvironmentFailure, InputError, SynthesisError
from pipeline.jobs.settings import Synthesis
from pipeline.sound import espeak_library
from pipeline.sound.audio import Speech

SENTENCE = "The Time Traveller laughed cheerfully, and went on."
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine() -> EspeakEngine:
    """The engine; it holds nothing, so one will do."""
    return EspeakEngine()


def utterance(text: str = SENTENCE, voice: str = "", language: str = "en", **synthesis: object) -> Utterance:
    """One chunk."""
    return Utterance(
        text=text,
        voice=Voice(name=voice),
        language=language,
        synthesis=Synthesis.model_validate(synthesis),
        seed=1,
    )


def digest(speech: Speech) -> str:
    """What stands for the samples."""
    return hashlib.sha256(speech.audio.samples.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "language", "identifier"),
    [
        ("", "en", f"gmw/en-US+{DEFAULT_VARIANT}"),
        ("", "en-US", f"gmw/en-US+{DEFAULT_VARIANT}"),
        ("", "EN-us", f"gmw/en-US+{DEFAULT_VARIANT}"),
        ("", "en-GB", f"gmw/en+{DEFAULT_VARIANT}"),
        ("", "en-AU", f"gmw/en-US+{DEFAULT_VARIANT}"),
        ("", "de", f"gmw/de+{DEFAULT_VARIANT}"),
        ("", "de-AT", f"gmw/de+{DEFAULT_VARIANT}"),
        ("", "fr", f"roa/fr+{DEFAULT_VARIANT}"),
        ("", "pt", f"roa/pt+{DEFAULT_VARIANT}"),
        ("", "pt-BR", f"roa/pt-BR+{DEFAULT_VARIANT}"),
        ("", "zh", f"sit/cmn+{DEFAULT_VARIANT}"),
        ("", "zh-Hans-CN", f"sit/cmn+{DEFAULT_VARIANT}"),
        ("en-gb", "en", "gmw/en"),
        ("en-us+m3", "en", "gmw/en-US+m3"),
        ("de+m3", "en", "gmw/de+m3"),
        ("German", "en", "gmw/de"),
        ("gmw/en-us", "en", "gmw/en-US"),
        ("English (America)+F2", "en", "gmw/en-US+f2"),
        ("+croak", "fr", "roa/fr+croak"),
    ],
)
def test_voices_by_name_and_language(name: str, language: str, identifier: str) -> None:
    """Codes, names, identifiers and variants are found in any case; a region falls back to its language."""
    assert voice_identifier(name, language) == identifier


@pytest.mark.parametrize(
    ("name", "language", "message"),
    [
        ("en-uk", "en", "The engine espeak has no voice en-uk; the nearest it has: en-us, "),
        ("germn", "en", "The engine espeak has no voice germn; the nearest it has: german"),
        ("en+f22", "en", "The engine espeak has no voice variant f22; the nearest it has: f2"),
        ("../../etc/passwd", "en", "The engine espeak has no voice ../../etc/passwd"),
        ("mb-en1", "en", "The engine espeak has no voice mb-en1"),
        ("", "xx", "The engine espeak does not speak xx"),
        ("", "english", "The engine espeak does not speak english; the nearest it has: en-"),
    ],
)
def test_unknown_voices_name_the_nearest(name: str, language: str, message: str) -> None:
    """The error says what is not there and what is near to it."""
    with pytest.raises(InputError) as caught:
        voice_identifier(name, language)
    assert caught.value.message.startswith(message)
    assert caught.value.message.endswith(".")


def test_every_language_and_variant_can_be_loaded() -> None:
    """No voice is offered that the library then refuses."""
    identifiers = [voice.identifier for voice in espeak_library.voices()]
    identifiers += [f"gmw/en-US+{variant}" for variant in espeak_library.variants()]
    assert len(identifiers) > 200
    for identifier in identifiers:
        espeak_library.phonemes(["1"], identifier)


def test_a_recording_to_imitate_is_a_problem(engine: EspeakEngine) -> None:
    """A formant synthesiser cannot imitate, and says so instead of speaking with another voice."""
    voice = Voice(name="narrator", clip=Path("narrator.wav"), clip_sha256="0")
    problems = engine.problems(voice, "en", Synthesis())
    assert len(problems) == 1
    assert "cannot imitate a recording" in problems[0]


def test_rate_and_pitch_are_used(engine: EspeakEngine) -> None:
    """Both settings change the sound, and neither is reported as ignored."""
    usual, slow, high = (
        engine.speak(utterance(**settings)) for settings in ({}, {"words_per_minute": 100}, {"pitch": 80})
    )
    assert slow.audio.seconds > 1.3 * usual.audio.seconds
    assert digest(high) != digest(usual)
    assert engine.ignored(Synthesis(words_per_minute=100, pitch=80)) == []
    assert engine.ignored(Synthesis(top_p=0.5, exaggeration=1.0, pitch=1)) == ["exaggeration", "top_p"]


@pytest.mark.parametrize(
    "between", ["fr", "de+m3", "en-us+croak", "en-us+klatt2", "en-us+whisper", "cmn", "ja"]
)
def test_hidden_state_of_the_library_is_gone(engine: EspeakEngine, between: str) -> None:
    """The library lets pitch flutter and gain run on from call to call; here they begin anew each time."""
    first = digest(engine.speak(utterance()))
    engine.speak(utterance("Something else entirely!", voice=between, words_per_minute=300, pitch=90))
    assert digest(engine.speak(utterance())) == first


@pytest.mark.parametrize("voice", ["en-us+whisper", "en-us+croak", "en-us+klatt3", "de+m7"])
def test_noisy_voices_repeat_too(engine: EspeakEngine, voice: str) -> None:
    """Voices with random breath are the same each time."""
    assert len({digest(engine.speak(utterance(voice=voice))) for _ in range(3)}) == 1


def test_another_process_makes_the_same_sound(engine: EspeakEngine) -> None:
    """A cache may be shared by workers and survives restarts."""
    program = (
        "import hashlib; from pipeline.sound import espeak_library as e;"
        f"print(hashlib.sha256(e.synthesise({SENTENCE!r}, 'gmw/en-US+f2',"
        " words_per_minute=150, pitch=50).pcm).hexdigest())"
    )
    here = espeak_library.synthesise(SENTENCE, "gmw/en-US+f2", words_per_minute=150, pitch=50).pcm
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_threads_wait_for_each_other(engine: EspeakEngine) -> None:
    """Calls from several threads give what they give one after the other."""
    texts = [f"Sentence number {number}, spoken in a crowd." for number in range(12)]
    alone = [digest(engine.speak(utterance(text))) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: digest(engine.speak(utterance(text))), texts))
    assert together == alone


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_library_is_not_resident_between_calls(engine: EspeakEngine) -> None:
    """What is unmapped keeps no state."""
    engine.speak(utterance())
    assert "libespeak" not in Path("/proc/self/maps").read_text()


def test_library_that_cannot_be_loaded_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation pauses the work with a hint and burns no attempt."""
    monkeypatch.setattr("espeakng_loader.get_library_path", lambda: "/nonexistent/libespeak-ng.so")
    with pytest.raises(EnvironmentFailure, match="cannot be loaded") as caught:
        espeak_library.phonemes(["a"], "gmw/en-US")
    assert "pip install" in caught.value.hint


def test_missing_data_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its data the library neither prints nor ends the process: an error is raised."""
    monkeypatch.setattr("espeakng_loader.get_data_path", lambda: str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="did not start"):
        espeak_library.phonemes(["a"], "gmw/en-US")
    monkeypatch.undo()
    assert espeak_library.phonemes(["a"], "gmw/en-US") == ("ˈeɪ",)


@pytest.mark.parametrize(("length", "starts"), [(159, True), (160, False)])
def test_a_path_too_long_for_the_library_is_told(
    monkeypatch: pytest.MonkeyPatch, length: int, starts: bool
) -> None:
    """The library takes fewer than 160 bytes, and says nothing; the hint does."""
    real = espeakng_loader.get_data_path()
    with tempfile.TemporaryDirectory(prefix="v") as base:
        folder = Path(base) / ("x" * (length - len(base) - len("//espeak-ng-data")))
        folder.mkdir()
        data = folder / "espeak-ng-data"
        data.symlink_to(real)
        assert len(str(data)) == length
        monkeypatch.setattr("espeakng_loader.get_data_path", lambda: str(data))
        if starts:
            assert espeak_library.phonemes(["a"], "gmw/en-US")
            return
        with pytest.raises(EnvironmentFailure, match="did not start") as caught:
            espeak_library.phonemes(["a"], "gmw/en-US")
        assert "160 bytes" in caught.value.hint and "shorter" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "literally"),
    [
        ("[[h@l'oU]]", "h at l o u"),
        ("<break time='9s'/> now", "break time 9 s now"),
        ("one\x01two", "one two"),
        ("\x0190S fast", "90S fast"),
    ],
)
def test_markup_and_commands_are_text(engine: EspeakEngine, text: str, literally: str) -> None:
    """Phoneme brackets, tags and embedded commands are read out: no word of them is swallowed or obeyed."""
    seconds = engine.speak(utterance(text)).audio.seconds
    assert 0.8 < seconds / engine.speak(utterance(literally)).audio.seconds < 2.5


def test_a_nul_does_not_end_the_text(engine: EspeakEngine) -> None:
    """What follows a NUL is spoken too."""
    spoken = engine.speak(utterance("before\0after"))
    assert [word.text for word in spoken.words or ()] == ["before", "after"]
    assert spoken.audio.seconds > 1.3 * engine.speak(utterance("before")).audio.seconds


def test_numbers_are_read_out_as_they_are_checked(engine: EspeakEngine) -> None:
    """Money, years and units are spoken as `spoken_words` lists them, not as espeak-ng would by itself."""
    words = engine.speak(utterance("In 1895 it cost $3.50, Dr. Smith.")).words or ()
    assert " ".join(word.text for word in words) == (
        "In eighteen ninety-five it cost three dollars and fifty cents Doctor Smith"
    )


def test_words_of_awkward_text(engine: EspeakEngine) -> None:
    """Quotes and dashes belong to no word; positions count characters, not bytes."""
    words = engine.speak(utterance("“Naïve—café,” said 𝒳… and ‘Weena’ slept—")).words or ()
    assert [word.text for word in words] == ["Naïve", "café", "said", "𝒳", "and", "Weena", "slept"]


def test_words_have_sound_and_pauses_have_none(engine: EspeakEngine) -> None:
    """A word's time holds its sound; the pause after a clause belongs to no word."""
    speech = engine.speak(utterance("Stop here. Then go."))
    words = speech.words or ()
    for word in words:
        part = speech.audio.between(word.start_seconds, word.end_seconds).samples
        assert np.abs(part).max() > 0.02
    pause = speech.audio.between(words[1].end_seconds + 0.01, words[2].start_seconds - 0.01)
    assert pause.seconds > 0.1
    assert np.abs(pause.samples).max() < 0.01


@given(st.integers(80, 450), st.sampled_from(["", "en-us+f3", "en-gb", "de+m3", "+croak"]))
@settings(max_examples=60, deadline=None)
def test_twenty_tries_differ_at_every_rate(rate: int, voice: str) -> None:
    """Also at both ends of the range, and for a voice that is on the ladder, no try repeats another."""
    engine = EspeakEngine()
    asked = utterance(voice=voice, words_per_minute=rate)
    tries = [engine.vary(asked, number) for number in range(1, 21)]
    rates = [t.synthesis.words_per_minute for t in tries]
    sounds = {(voice_identifier(t.voice.name, t.language), t.synthesis.words_per_minute) for t in tries}
    assert len(sounds) == 20
    assert all(80 <= tried <= 450 for tried in rates)


def test_early_tries_keep_the_voice(engine: EspeakEngine) -> None:
    """A listener hears another pace before another person."""
    asked = utterance()
    voices = [voice_identifier(engine.vary(asked, n).voice.name, "en") for n in range(1, 7)]
    assert len(set(voices[:5])) == 1
    assert voices[5] != voices[0]


@pytest.mark.parametrize("number", [0, -1, 26])
def test_tries_off_the_ladder(engine: EspeakEngine, number: int) -> None:
    """Beyond the ladder there is nothing new to try, and that is an error of the caller."""
    with pytest.raises(ValueError, match="try"):
        engine.vary(utterance(), number)


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_speaks_or_says_why_not(text: str) -> None:
    """Whatever the text, there is sound with words in order, or a SynthesisError."""
    try:
        speech = EspeakEngine().speak(utterance(text))
    except SynthesisError as error:
        assert "no sound" in error.message
        return
    starts = [word.start_seconds for word in speech.words or ()]
    assert starts == sorted(starts)
    assert np.isfinite(speech.audio.samples).all()


@pytest.mark.parametrize(
    ("language", "text"),
    [("de", "Guten Morgen, liebe Freunde."), ("fr", "Bonjour à tous."), ("ja", "こんにちは")],
)
def test_other_languages(engine: EspeakEngine, language: str, text: str) -> None:
    """Other languages are spoken by their own voices."""
    assert engine.speak(utterance(text, language=language)).audio.seconds > 0.5
