"""Chunks of speech into one stream: trimmed, edges smoothed, pauses between, each with its place.

Knows one chunk at a time, so memory is flat; nothing of text or files. Invariants: trimming only takes
what is far below the chunk's own level, and samples between the faded edges are never changed.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from pipeline.sound.audio import PCM16_FULL_SCALE, Audio, Samples, silence

with warnings.catch_warnings():
    # On import pydub looks for an ffmpeg of its own and warns that there is none; it never needs one here.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment
    from pydub.silence import detect_leading_silence

SILENCE_BELOW_SPEECH_DB = 45.0
"quieter than the chunk's root mean square by this is silence; the f of a word a tenth as loud lies at 42"
KEPT_EDGE_SECONDS = 0.05
"left of the silence at each edge: breath before an onset, the ring of a last sound"
FADE_SECONDS = 0.004
KEPT_TAIL_SECONDS = 0.3
"after the last word as a recogniser times it: its times are right to 0.2 s, and a last sound rings"
TAIL_FADE_SECONDS = 0.05
_FRAME_MS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The next stretch of the result and where the chunk in it stands."""

    audio: Audio
    "the pause before the chunk, then the chunk"
    start_seconds: float
    "where the chunk itself starts in the finished file"
    end_seconds: float


class Joiner:
    """Lays chunks one after the other. `add` each in order and write what it returns."""

    def __init__(self, rate_hz: int, *, trim: bool = True, speed: float = 1.0) -> None:
        """`speed` is what mastering will do later: places are told in the time of the finished file."""
        self._rate_hz = rate_hz
        self._trim = trim
        self._speed = speed
        self._samples = 0
        self._pause = silence(0, rate_hz)

    def add(self, audio: Audio, *, pause_ms: int, speech_ends_seconds: float | None = None) -> Placed:
        """The next chunk, with the pause that follows it if another chunk does.

        What comes well after `speech_ends_seconds`, where that is known, is breath and noise and goes too.
        """
        if audio.rate_hz != self._rate_hz:
            raise ValueError(f"expected {self._rate_hz} Hz, got {audio.rate_hz}")
        if self._trim:
            audio = trim_edges(cut_tail(audio, speech_ends_seconds))
        chunk = fade_edges(audio)
        start = self._samples + len(self._pause.samples)
        self._samples = start + len(chunk.samples)
        stretch = Audio(np.concatenate((self._pause.samples, chunk.samples)), self._rate_hz)
        self._pause = silence(pause_ms / 1000, self._rate_hz)
        return Placed(audio=stretch, start_seconds=self._at(start), end_seconds=self._at(self._samples))

    @property
    def seconds(self) -> float:
        """Length of the finished file so far."""
        return self._at(self._samples)

    def _at(self, samples: int) -> float:
        return samples / self._rate_hz / self._speed


def cut_tail(audio: Audio, speech_ends_seconds: float | None) -> Audio:
    """`audio` up to shortly after the end of its speech, faded out; as it is where that is not known.

    Neural voices may breathe, hiss or mutter on after the last word (resemble-ai/chatterbox issues 48, 288,
    388), as loud as speech, so that the level alone does not tell.
    """
    if speech_ends_seconds is None or audio.seconds <= speech_ends_seconds + KEPT_TAIL_SECONDS:
        return audio
    kept = audio.between(0, speech_ends_seconds + KEPT_TAIL_SECONDS).samples.copy()
    fade = min(len(kept), round(TAIL_FADE_SECONDS * audio.rate_hz))
    kept[len(kept) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return Audio(kept, audio.rate_hz)


def trim_edges(audio: Audio) -> Audio:
    """`audio` without the silence at its edges but for `KEPT_EDGE_SECONDS`; pure silence stays as it is."""
    start, end = sounding(audio)
    kept = round(KEPT_EDGE_SECONDS * audio.rate_hz)
    return Audio(audio.samples[max(0, start - kept) : end + kept], audio.rate_hz)


def sounding(audio: Audio) -> tuple[int, int]:
    """First sample that is not silence and the one after the last; the whole if all of it is silent."""
    peak = float(np.abs(audio.samples).max(initial=0.0))
    if peak == 0.0:
        return 0, len(audio.samples)
    segment = _segment(audio, gain=1 / peak)
    threshold_dbfs = segment.dBFS - SILENCE_BELOW_SPEECH_DB
    lead_ms = detect_leading_silence(segment, threshold_dbfs, _FRAME_MS)
    trail_ms = detect_leading_silence(segment.reverse(), threshold_dbfs, _FRAME_MS)
    return lead_ms * audio.rate_hz // 1000, len(audio.samples) - trail_ms * audio.rate_hz // 1000


def fade_edges(audio: Audio) -> Audio:
    """`audio` with both ends led to zero, half a raised cosine each, so that no join clicks."""
    count = min(round(FADE_SECONDS * audio.rate_hz), len(audio.samples) // 2)
    if count == 0:
        return audio
    ramp = ((1 - np.cos(np.pi * np.arange(count) / count)) / 2).astype(np.float32)
    samples: Samples = audio.samples.copy()
    samples[:count] *= ramp
    samples[-count:] *= ramp[::-1]
    return Audio(samples, audio.rate_hz)


def _segment(audio: Audio, gain: float) -> AudioSegment:
    """A 16-bit copy to look at, at full level whatever the level of `audio`; it is never heard."""
    full = PCM16_FULL_SCALE - 1
    pcm = np.rint(audio.samples * np.float32(gain * full)).astype("<i2")
    return AudioSegment(pcm.tobytes(), frame_rate=audio.rate_hz, sample_width=2, channels=1)
