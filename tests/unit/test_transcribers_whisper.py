"""What surrounds Whisper: windows, languages, merging, normalising; a scripted model listens."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.equipment import Equipment, Listening
from pipeline.errors import InputError, SynthesisError
from pipeline.sound.audio import Audio, Samples, Speech, Word, silence
from pipeline.transcribers import load
from pipeline.transcribers.whisper import (
    EARLIEST_CUT_SECONDS,
    RATE_HZ,
    WINDOW_SECONDS,
    Heard,
    WhisperTranscriber,
    whispers_code,
    windows,
)


class ScriptedModel:
    """Hears what the script says of each window."""

    version = "scripted 1"
    languages = frozenset({"en", "de", "pt", "no", "zh"})
    batch = 16

    def __init__(self, hears: Callable[[Samples], Heard] = lambda _: Heard(text="word")) -> None:
        self.hears = hears
        self.given: list[tuple[str, list[float]]] = []
        "(language, seconds of each window) of each call"
        self.closed = False

    def hear(self, windows: Sequence[Samples], language: str) -> list[Heard]:
        """The script's answer for each."""
        self.given.append((language, [round(len(window) / RATE_HZ, 2) for window in windows]))
        return [self.hears(window) for window in windows]

    def normalise(self, words: str) -> str:
        """Marks what it was given."""
        return f"<{words}>"

    def close(self) -> None:
        """Remembers it."""
        self.closed = True


def tone(seconds: float, rate_hz: int = RATE_HZ) -> Audio:
    """A steady tone."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    return Audio((0.3 * np.sin(2 * np.pi * 300 * at)).astype(np.float32), rate_hz)


def joined(*parts: Audio) -> Audio:
    """One after the other."""
    return Audio(np.concatenate([part.samples for part in parts]), parts[0].rate_hz)


def heard(text: str, *times: float) -> Heard:
    """Words with these starts, each half a second long."""
    words = zip(text.split(), times, strict=True)
    return Heard(
        text=text, words=tuple(Word(text=w, start_seconds=at, end_seconds=at + 0.5) for w, at in words)
    )


def test_a_short_speech_is_one_window_at_16_khz() -> None:
    """Whatever its rate."""
    model = ScriptedModel()
    transcript = WhisperTranscriber(model).transcribe(Speech(audio=tone(2, 24_000)), "anything", "en")
    assert model.given == [("en", [2.0])]
    assert transcript.text == "word"


def test_long_speech_is_cut_in_its_pauses() -> None:
    """No window is over 30 s, none is cut within a word, nothing is lost."""
    audio = joined(tone(24), silence(0.5, RATE_HZ), tone(27), silence(0.4, RATE_HZ), tone(10))
    cut = list(windows(audio))
    assert [window.start_seconds for window in cut] == pytest.approx([0, 24.25, 51.7], abs=0.3)
    assert sum(len(window.audio.samples) for window in cut) == len(audio.samples)


@given(st.lists(st.floats(0, 40), max_size=4), st.lists(st.floats(0, 3), min_size=4, max_size=4))
def test_windows_cover_everything_that_sounds(sounds: list[float], pauses: list[float]) -> None:
    """In order, without overlap, each short enough; what is left out is silent."""
    parts = [part for s, p in zip(sounds, pauses, strict=False) for part in (tone(s), silence(p, RATE_HZ))]
    audio = joined(*parts, silence(0, RATE_HZ))
    cut = list(windows(audio))
    ends = [window.start_seconds + window.audio.seconds for window in cut]
    covered = np.zeros(len(audio.samples), bool)
    for window, before in zip(cut, [0.0, *ends], strict=False):
        assert window.start_seconds >= before - 1e-3
        assert window.audio.seconds <= WINDOW_SECONDS
        first = round(window.start_seconds * RATE_HZ)
        covered[first : first + len(window.audio.samples)] = True
    left_out = audio.samples[~covered]
    assert np.abs(left_out).sum() / RATE_HZ <= 0.1 * 0.3 + 1e-3


def test_cuts_come_late_enough() -> None:
    """A pause early in a window does not make it short."""
    audio = joined(tone(5), silence(1, RATE_HZ), tone(40))
    assert next(windows(audio)).audio.seconds >= EARLIEST_CUT_SECONDS


def test_times_of_later_windows_are_from_the_start_of_the_speech() -> None:
    """Words of all windows in one row, and the end of the last one for who trims."""
    audio = joined(tone(25), silence(0.5, RATE_HZ), tone(10), silence(2, RATE_HZ))
    model = ScriptedModel(
        lambda window: heard("a b", 1, 20) if len(window) > 20 * RATE_HZ else heard("c d", 1, 9)
    )
    transcript = WhisperTranscriber(model).transcribe(Speech(audio=audio), "", "en")
    assert transcript.text == "a b c d"
    starts = [word.start_seconds for word in transcript.words]
    assert starts == pytest.approx([1, 20, 26.25, 34.25], abs=0.3)
    assert transcript.speech_ends_seconds == transcript.words[-1].end_seconds
    assert transcript.longest_pause_seconds == pytest.approx(0.5, abs=0.05)


def test_rough_times_are_put_in_order() -> None:
    """Whisper may time a word before the one before it, or beyond the sound."""
    model = ScriptedModel(lambda _: heard("a b c", 1, 0.5, 9))
    words = WhisperTranscriber(model).transcribe(Speech(audio=tone(2)), "", "en").words
    starts = [word.start_seconds for word in words]
    assert starts == sorted(starts)
    assert all(word.start_seconds < word.end_seconds <= 2.1 for word in words)


@pytest.mark.parametrize("audio", [silence(0, 24_000), silence(3, 24_000), tone(0.05)])
def test_silence_does_not_reach_the_model(audio: Audio) -> None:
    """A model that is given nothing makes something up."""
    model = ScriptedModel()
    transcript = WhisperTranscriber(model).transcribe(Speech(audio=audio), "anything", "en")
    assert transcript.text == "" and transcript.words == () and transcript.speech_ends_seconds is None
    assert model.given == []


def test_the_expected_text_is_not_looked_at() -> None:
    """No prompt: the transcript is the same whatever is expected."""
    ears = WhisperTranscriber(ScriptedModel())
    speech = Speech(audio=tone(1))
    assert ears.transcribe(speech, "one thing", "en") == ears.transcribe(speech, "another", "en")


def test_language_not_passed() -> None:
    """Chatterbox-TTS-Extended passed no language: here the model is given the job's, as Whisper calls it."""
    model = ScriptedModel()
    ears = WhisperTranscriber(model)
    for language in ("en-GB", "pt-BR", "nb", "zh-Hant-TW", "DE"):
        ears.transcribe(Speech(audio=tone(1)), "", language)
    assert [language for language, _ in model.given] == ["en", "pt", "no", "zh", "de"]


@pytest.mark.parametrize(
    ("language", "code"),
    [("pt-BR", "pt"), ("nb-NO", "no"), ("jv", "jw"), ("fil", "tl"), ("iw", "he"), ("cmn-Hans", "zh")],
)  # fmt: skip
def test_whispers_code(language: str, code: str) -> None:
    """BCP 47 in, Whisper's own list out."""
    assert whispers_code(language) == code


def test_a_language_it_does_not_know_is_refused() -> None:
    """Whatever else is in the batch."""
    ears = WhisperTranscriber(ScriptedModel())
    speech = Speech(audio=tone(1))
    assert not ears.supports("fr") and ears.supports("de-AT")
    with pytest.raises(SynthesisError, match="fr"):
        ears.transcribe_batch([(speech, "en"), (speech, "fr")])


def test_a_batch_is_one_call_for_each_language() -> None:
    """And gives what each would give alone, in order."""
    model = ScriptedModel(lambda window: Heard(text=f"{len(window) / RATE_HZ:.0f}"))
    ears = WhisperTranscriber(model)
    spoken = [
        (Speech(audio=tone(s)), language) for s, language in ((1, "en"), (2, "de"), (70, "en"), (3, "de"))
    ]
    together = ears.transcribe_batch(spoken)
    assert [language for language, _ in model.given] == ["en", "de"]
    assert together == [ears.transcribe(speech, "", language) for speech, language in spoken]
    assert ears.transcribe_batch([]) == []


def test_guards_against_made_up_text_are_noted() -> None:
    """The most suspicious window counts."""
    found = iter((Heard(text="a", no_speech_probability=0.1, compression_ratio=1.0),
                  Heard(text="b b b", no_speech_probability=0.7, compression_ratio=3.456)))  # fmt: skip
    audio = joined(tone(25), silence(0.5, RATE_HZ), tone(10))
    transcript = WhisperTranscriber(ScriptedModel(lambda _: next(found))).transcribe(
        Speech(audio=audio), "", "en"
    )
    assert (transcript.no_speech_probability, transcript.compression_ratio) == (0.7, 3.46)


def test_english_alone_is_normalised() -> None:
    """As words, so that what stands in brackets stays; other languages as they are."""
    ears = WhisperTranscriber(ScriptedModel())
    assert ears.normalise("He paid $2 (twice).", "en-US") == "<he paid two dollars twice>"
    assert ears.normalise("Er zahlte (zweimal).", "de") == "Er zahlte (zweimal)."


def test_closing_closes_the_model() -> None:
    """What is not used is freed (extended issue 40)."""
    model = ScriptedModel()
    WhisperTranscriber(model).close()
    assert model.closed


@pytest.mark.parametrize("backend", ["openai-whisper", "faster-whisper"])
def test_a_missing_package_is_said_so(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to run."""
    for module in ("whisper", "faster_whisper"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("whisper_openai", "whisper_faster"):
        monkeypatch.delitem(sys.modules, f"pipeline.transcribers.{module}", raising=False)
    equipment = Equipment(models=tmp_path, measured=tmp_path, listening=Listening(backend=backend))
    with pytest.raises(InputError, match=f"not installed: {backend}") as caught:
        load("whisper", equipment)
    assert caught.value.code == "recogniser_unavailable" and "pip install" in caught.value.hint
