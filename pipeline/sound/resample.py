"""Change of sample rate by a polyphase windowed-sinc filter, in numpy alone.

For listening, not for the finished sound (ffmpeg does that). Knows samples and rates. Invariant:
the output lasts as long as the input to one sample, and nothing above the lower half-rate folds back.
"""

import functools
import math

import numpy as np
import numpy.typing as npt

from pipeline.sound.audio import Audio, Samples

_ZERO_CROSSINGS = 24
"on each side of the centre; with the Kaiser window below the stop band lies 80 dB down"
_KAISER_BETA = 8.0
_ROLL_OFF = 0.95


def resample(audio: Audio, rate_hz: int) -> Audio:
    """The same sound at `rate_hz`."""
    if audio.rate_hz == rate_hz:
        return audio
    shared = math.gcd(audio.rate_hz, rate_hz)
    up, down = rate_hz // shared, audio.rate_hz // shared
    return Audio(_convert(audio.samples, up, down), rate_hz)


def _convert(samples: Samples, up: int, down: int) -> Samples:
    """Output sample n lies at n * down / up of the input; each phase of that fraction has its own taps."""
    phases = _phases(up, down)
    taps = phases.shape[1]
    padded = np.concatenate([np.zeros(taps, np.float32), samples, np.zeros(taps, np.float32)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    count = math.ceil(len(samples) * up / down)
    output = np.empty(count, dtype=np.float32)
    for first in range(min(up, count)):
        position = first * down
        # Every `up` outputs the phase comes round again and the input has moved on by `down`.
        start = position // up + taps // 2 + 1
        rows = windows[start::down][: len(output[first::up])]
        output[first::up] = rows @ phases[position % up]
    return output


@functools.lru_cache(maxsize=8)
def _phases(up: int, down: int) -> npt.NDArray[np.float32]:
    """Filter taps by phase, shape (up, taps), for input samples in rising order around the output's place."""
    cutoff = _ROLL_OFF * min(1.0, up / down)
    reach = math.ceil(_ZERO_CROSSINGS / cutoff)
    offsets = np.arange(-reach + 1, reach + 1)[None, :] - (np.arange(up) / up)[:, None]
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (offsets / reach) ** 2, 0, None))) / np.i0(_KAISER_BETA)
    taps = cutoff * np.sinc(cutoff * offsets) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), dtype=np.float32)
