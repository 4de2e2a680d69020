"""The recogniser for generated speech: Whisper, which is not told what to expect.

Cuts speech into windows of at most 30 s, lets a model listen to them, and puts together what it heard.
The model is openai-whisper's (`whisper_openai`) or faster-whisper's (`whisper_faster`); this page knows
neither package. Invariants: no prompt, so the transcript owes nothing to the expected text; the job's
language, never a guessed one; greedy decoding, so the same speech gives the same transcript, alone or
in a batch.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from pipeline.equipment import Equipment
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, Samples, Speech, Word
from pipeline.sound.resample import resample
from pipeline.text.spoken import spoken_words
from pipeline.transcribers.base import knows
from pipeline.transcribers.loudness import (
    FRAMES_PER_SECOND,
    is_silent,
    longest_pause,
    loudness,
    sounding,
)
from pipeline.verify import Transcript

RATE_HZ = 16_000
WINDOW_SECONDS = 30.0
EARLIEST_CUT_SECONDS = 20.0
"longer speech is cut where it is softest from here to the window's end"
SHORTEST_SECONDS = 0.1
"less is no word, and too little for the model to lay words over"
_CUT_FRAMES = 15
"of 10 ms, over which softness is measured"

# What the job file calls otherwise than Whisper does (BCP 47 against its own list).
_WHISPERS_CODE = {"nb": "no", "jv": "jw", "fil": "tl", "iw": "he", "cmn": "zh", "in": "id"}
_SHORTEST_WORD_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a model heard in one window."""

    text: str = ""
    words: tuple[Word, ...] = ()
    "times from the start of the window"
    no_speech_probability: float | None = None
    compression_ratio: float | None = None
    "of the text: over 2.4 it repeats itself"


class Model(Protocol):
    """A loaded Whisper of whatever package."""

    version: str
    "package, size and fingerprint of the checkpoint"
    languages: frozenset[str]
    "Whisper's own codes"
    batch: int
    "how many windows it listens to at once"

    def hear(self, windows: Sequence[Samples], language: str) -> list[Heard]:
        """Listen to windows of 16 kHz samples, each at most 30 s; raises SynthesisError."""
        ...

    def normalise(self, words: str) -> str:
        """English words as Whisper's own normaliser writes them."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one speech, short enough for Whisper."""

    start_seconds: float
    audio: Audio


@dataclass(slots=True)
class _Parts:
    """What was heard of one speech so far."""

    audio: Audio
    heard: list[tuple[Window, Heard]] = field(default_factory=list)


class WhisperTranscriber:
    """Whisper behind the Transcriber Protocol."""

    name = "whisper"
    # One word in seven: the base model mishears some one in twenty of clear English, names more often.
    # Whatever the rate, three words in a row or the last two missing refuse a take (`verify`).
    max_word_error_rate = 0.15

    def __init__(self, model: Model) -> None:
        self._model = model
        self.version, self.batch = model.version, model.batch
        other_names = {name for name, code in _WHISPERS_CODE.items() if code in model.languages}
        self.languages = model.languages | other_names

    def supports(self, language: str) -> bool:
        """Whether the checkpoint knows it; one for English alone knows English."""
        return knows(self.languages, language)

    def transcribe(self, speech: Speech, expected: str, language: str) -> Transcript:  # noqa: ARG002
        """Listen; `expected` is not looked at. Raises SynthesisError for a language it does not know."""
        return self.transcribe_batch([(speech, language)])[0]

    def transcribe_all(self, spoken: Sequence[tuple[Speech, str]], language: str) -> list[Transcript]:
        """The windows of all go through the model together; what they should say is not looked at."""
        return self.transcribe_batch([(speech, language) for speech, _ in spoken])

    def transcribe_batch(self, spoken: Sequence[tuple[Speech, str]]) -> list[Transcript]:
        """Listen to several (speech, language) at once; each as if alone."""
        all_parts = [_Parts(resample(speech.audio, RATE_HZ)) for speech, _ in spoken]
        by_language: dict[str, list[tuple[_Parts, Window]]] = defaultdict(list)
        for parts, (_, language) in zip(all_parts, spoken, strict=True):
            if not self.supports(language):
                raise SynthesisError(
                    f"The recogniser {self.version} has no model for the language {language}."
                )
            for window in windows(parts.audio):
                by_language[whispers_code(language)].append((parts, window))
        for code, places in by_language.items():
            found = self._model.hear([window.audio.samples for _, window in places], code)
            for (parts, window), heard in zip(places, found, strict=True):
                parts.heard.append((window, heard))
        return [_transcript(parts) for parts in all_parts]

    def normalise(self, text: str, language: str) -> str:
        """English as Whisper's own normaliser has it: one spelling of colour, `I am` for `I'm`, no `um`.

        It gets words and not the text, since it drops what stands in brackets, which is spoken all the same.
        Other languages stay as they are: there it does nothing but part Indic letters from their vowels.
        """
        if whispers_code(language) != "en":
            return text
        return self._model.normalise(" ".join(spoken_words(text, language)))

    def close(self) -> None:
        """Free the model."""
        self._model.close()


def load(equipment: Equipment) -> WhisperTranscriber:
    """Whisper as the configuration has it; InputError if its package or its checkpoint is not there."""
    if equipment.listening.backend == "faster-whisper":
        from pipeline.transcribers.whisper_faster import FasterWhisper

        return WhisperTranscriber(FasterWhisper(equipment))
    from pipeline.transcribers.whisper_openai import OpenAIWhisper

    return WhisperTranscriber(OpenAIWhisper(equipment))


def whispers_code(language: str) -> str:
    """Whisper's code for a BCP 47 tag: pt for pt-BR, no for nb."""
    primary = language.lower().partition("-")[0]
    return _WHISPERS_CODE.get(primary, primary)


def windows(audio: Audio) -> Iterator[Window]:
    """The speech in windows of at most 30 s, cut where it is softest; those with nothing to hear left out."""
    start = 0.0
    while audio.seconds - start >= SHORTEST_SECONDS:
        end = audio.seconds
        if end - start > WINDOW_SECONDS:
            end = start + _softest(audio.between(start, start + WINDOW_SECONDS))
        window = audio.between(start, end)
        if not is_silent(window):
            yield Window(start, window)
        start = end


def _softest(audio: Audio) -> float:
    """Seconds into a full window at which the sound is softest, late enough for the window to be worth it."""
    frames = loudness(audio)
    energy = np.convolve(frames**2, np.ones(_CUT_FRAMES), mode="same")
    earliest = int(EARLIEST_CUT_SECONDS * FRAMES_PER_SECOND)
    last = len(energy) - _CUT_FRAMES // 2  # beyond it the sum lacks frames
    return (earliest + int(energy[earliest:last].argmin())) / FRAMES_PER_SECOND


def _transcript(parts: _Parts) -> Transcript:
    sounds = sounding(parts.audio)
    words = tuple(_rising(word for window, heard in parts.heard for word in _placed(window, heard)))
    measured = [heard for _, heard in parts.heard]
    return Transcript(
        text=" ".join(heard.text for heard in measured if heard.text),
        words=words,
        sounding_seconds=round(float(sounds.sum()) / FRAMES_PER_SECOND, 2),
        longest_pause_seconds=round(longest_pause(sounds) / FRAMES_PER_SECOND, 2),
        speech_ends_seconds=words[-1].end_seconds if words else None,
        no_speech_probability=_greatest([heard.no_speech_probability for heard in measured]),
        compression_ratio=_greatest([heard.compression_ratio for heard in measured]),
    )


def _placed(window: Window, heard: Heard) -> Iterator[Word]:
    """The words with times from the start of the speech, within the window."""
    for word in heard.words:
        start, end = (
            min(max(0.0, at), window.audio.seconds) for at in (word.start_seconds, word.end_seconds)
        )
        yield replace(
            word, start_seconds=window.start_seconds + start, end_seconds=window.start_seconds + end
        )


def _rising(words: Iterator[Word]) -> Iterator[Word]:
    """No word before the one before it, none without a length: unsure, Whisper times roughly."""
    latest = 0.0
    for word in words:
        latest = max(latest, word.start_seconds)
        end = max(word.end_seconds, latest + _SHORTEST_WORD_SECONDS)
        yield replace(word, start_seconds=round(latest, 2), end_seconds=round(end, 2))


def _greatest(measured: Sequence[float | None]) -> float | None:
    known = [value for value in measured if value is not None]
    return round(max(known), 2) if known else None
