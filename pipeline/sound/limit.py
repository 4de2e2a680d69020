"""A true-peak ceiling for one chunk of speech, at a fraction of the cost of limiting the stream.

ffmpeg's limiter has to work on the stream at four times its rate. A chunk whose ends are silent can be
limited by itself, and only the few samples near its loudest places need the oversampled look. Pure.
Invariants: what stays under the ceiling is returned as it is; the gain never rises above 1 and moves
over milliseconds, so that no edge is heard.

Method: look-ahead limiter, minimum then mean over a window of the gain that each frame needs; true peak
by windowed-sinc interpolation between samples (ITU-R BS.1770-4, annex 2).
"""

import functools

import numpy as np
import numpy.typing as npt

from pipeline.sound.audio import Audio, Samples

FRAME_SECONDS = 0.001
REACH_FRAMES = 5
"the gain begins to fall and ends rising so many frames from a peak"
# Between samples speech rises at most 6 dB over them; interpolation sees the peak to 0.2 dB.
_LOOK_RATIO = 0.5
_MARGIN_DB = 0.3
_TAPS = 24
_BETWEEN = (0.25, 0.5, 0.75)
# A chunk that is loud all through costs megabytes this way, not hundreds of them.
_PLACES_AT_ONCE = 1 << 14


def limit(audio: Audio, ceiling_db: float) -> Audio:
    """`audio` with its true peak at or under `ceiling_db` (dBTP)."""
    ceiling = 10 ** ((ceiling_db - _MARGIN_DB) / 20)
    level = np.abs(audio.samples)
    loud = level > ceiling * _LOOK_RATIO
    # A peak between samples n and n + 1 stands at n.
    places = np.flatnonzero(loud | np.append(loud[1:], False))
    if len(places) == 0:
        return audio
    peaks = np.maximum(level[places], _peaks_after(audio.samples, places))
    if peaks.max() <= ceiling:
        return audio
    frame = max(1, round(FRAME_SECONDS * audio.rate_hz))
    needed = np.ones(len(audio.samples) // frame + 2)
    for beside in (places, places + 1):
        np.minimum.at(needed, beside // frame, ceiling / np.maximum(peaks, ceiling))
    gain = _smooth(needed)
    centres = (np.arange(len(gain)) + 0.5) * frame
    envelope = np.interp(np.arange(len(audio.samples)), centres, gain).astype(np.float32)
    return Audio(audio.samples * envelope, audio.rate_hz)


def _peaks_after(samples: Samples, places: npt.NDArray[np.intp]) -> Samples:
    """The largest absolute value on the way from each place to the next sample, shape as `places`."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, _TAPS // 2), _TAPS)
    peaks = np.empty(len(places), np.float32)
    for first in range(0, len(places), _PLACES_AT_ONCE):
        block = slice(first, first + _PLACES_AT_ONCE)
        # Row n of the windows starts half a window before sample n; sample n + 1 is the one after the middle.
        np.abs(_kernels() @ windows[places[block] + 1].T).max(axis=0, out=peaks[block])
    return peaks


@functools.cache
def _kernels() -> Samples:
    """Hann-windowed sincs for the points between two samples, shape (points, taps)."""
    offsets = np.arange(-_TAPS // 2 + 1, _TAPS // 2 + 1) - np.array(_BETWEEN)[:, None]
    window = np.cos(np.pi * offsets / (_TAPS + 1)) ** 2
    return np.asarray(np.sinc(offsets) * window, dtype=np.float32)


def _smooth(needed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A gain that is nowhere above what is needed, nor changes faster than over the reach.

    The interpolation between frames looks one frame aside, hence the wider minimum.
    """
    reach = REACH_FRAMES + 1
    padded = np.pad(needed, reach, constant_values=1.0)
    lowest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).min(axis=1)
    weights = np.hanning(2 * REACH_FRAMES + 1)
    padded = np.pad(lowest, REACH_FRAMES, mode="edge")
    smooth: npt.NDArray[np.float64] = np.convolve(padded, weights / weights.sum(), mode="valid")
    return smooth
