"""The one value in which sound crosses rooms: mono float32 samples with an explicit rate.

Knows numpy, nothing of files, engines or ffmpeg. Invariant: samples are one-dimensional
float32, nominally within [-1, 1], and never NaN or infinite.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
PCM16_FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class Audio:
    """Mono sound."""

    samples: Samples
    "shape (n,), float32, full scale is 1.0"
    rate_hz: int
    "samples per second"

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise ValueError(f"expected mono float32, got {self.samples.shape} {self.samples.dtype}")
        if self.rate_hz <= 0:
            raise ValueError(f"sample rate must be positive, got {self.rate_hz}")

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.rate_hz

    def between(self, start_seconds: float, end_seconds: float) -> "Audio":
        """The part from `start_seconds` to `end_seconds`, clipped to what is there (a view, not a copy)."""
        start = max(0, round(start_seconds * self.rate_hz))
        end = max(start, round(end_seconds * self.rate_hz))
        return Audio(self.samples[start:end], self.rate_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word with the time it was spoken, as an engine reports it or a recogniser heard it."""

    text: str
    start_seconds: float
    "from the start of the audio it belongs to"
    end_seconds: float
    confidence: float | None = None
    "0 to 1 where the source tells one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """Sound that says something: what an engine returned for one utterance."""

    audio: Audio
    words: tuple[Word, ...] | None = None
    "when each word was spoken, where the engine reports it"
    fault: str | None = None
    "why it cannot be right, whatever may be heard in it: another take is needed"


def from_pcm16(pcm: bytes | npt.NDArray[np.int16], rate_hz: int) -> Audio:
    """Audio from signed 16-bit samples."""
    data = np.frombuffer(pcm, dtype="<i2") if isinstance(pcm, bytes) else pcm
    return Audio(data.astype(np.float32) / PCM16_FULL_SCALE, rate_hz)


def to_pcm16(audio: Audio) -> npt.NDArray[np.int16]:
    """Signed 16-bit samples, clipped at full scale; the inverse of `from_pcm16`."""
    scaled = np.rint(audio.samples * PCM16_FULL_SCALE)
    clipped: npt.NDArray[np.int16] = np.clip(scaled, -32768, 32767).astype(np.int16)
    return clipped


def bytes_of(samples: Samples) -> memoryview:
    """The samples as raw little-endian float32, without a copy where they lie in one piece."""
    raw: memoryview = np.ascontiguousarray(samples, dtype="<f4").data
    return raw.cast("B") if len(samples) else memoryview(b"")


def silence(seconds: float, rate_hz: int) -> Audio:
    """Digital silence."""
    return Audio(np.zeros(max(0, round(seconds * rate_hz)), dtype=np.float32), rate_hz)
