"""How loud sound is from moment to moment, and where it sounds at all: measured besides the words.

Knows numpy and samples. Invariant: nothing depends on how loud the speech is as a whole, silence excepted.
"""

import math
from typing import Any

import numpy as np

from pipeline.sound.audio import Audio, Samples

FRAMES_PER_SECOND = 100
SILENT_AMPLITUDE = 3e-4
"speech whose loudest 10 ms stay below this is silence"
_SPEAKING_PART = 0.1
"of the loudest 10 ms: louder is speech, whose level is the measure of the rest"
_SOUNDING_PART = 0.03
"of the level of speech: softer is a pause"

Sounding = np.ndarray[Any, np.dtype[np.bool_]]


def loudness(audio: Audio) -> Samples:
    """Root mean square of each 10 ms, shape (ceil(seconds * 100),)."""
    step = audio.rate_hz // FRAMES_PER_SECOND
    count = math.ceil(len(audio.samples) / step)
    padded = np.zeros(count * step, dtype=np.float32)
    padded[: len(audio.samples)] = audio.samples
    return np.asarray(np.sqrt(np.mean(padded.reshape(count, step) ** 2, axis=1)), dtype=np.float32)


def is_silent(audio: Audio) -> bool:
    """Whether there is nothing to hear."""
    return len(audio.samples) == 0 or bool(loudness(audio).max() < SILENT_AMPLITUDE)


def speech_level(frames: Samples) -> float:
    """Root mean square over those frames of `loudness` that are speech rather than pause."""
    speaking = frames[frames > _SPEAKING_PART * frames.max()]
    return float(np.sqrt(np.mean(speaking**2)))


def sounding(audio: Audio) -> Sounding:
    """Which 10 ms sound, shape (ceil(seconds * 100),); none of silence."""
    frames = loudness(audio)
    if is_silent(audio):
        return np.zeros(len(frames), dtype=np.bool_)
    return np.asarray(frames > _SOUNDING_PART * speech_level(frames), dtype=np.bool_)


def longest_pause(sounds: Sounding) -> int:
    """Frames of the longest run of silence between two sounds."""
    at = np.flatnonzero(sounds)
    return int(np.diff(at).max()) - 1 if len(at) > 1 else 0
