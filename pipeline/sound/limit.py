"""A true-peak ceiling for one chunk of speech, at a hundredth of the cost of limiting the whole stream.

ffmpeg's limiter has to work on the stream at four times its rate. A chunk whose ends are silent can be
limited by itself, and only the few samples near its loudest places need the oversampled look. Pure.
Invariants: what stays under the ceiling is returned as it is; the gain never rises above 1 and moves
over milliseconds, so that no edge is heard.

Method: look-ahead limiter, minimum then mean over a window of the gain that each frame needs; true peak
by windowed-sinc interpolation between samples (ITU-R BS.1770-4, annex 2).
"""

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
    loud = np.flatnonzero(np.abs(audio.samples) > ceiling * _LOOK_RATIO)
    if len(loud) == 0:
        return audio
    peaks = _true_peaks(audio.samples, loud)
    over = peaks > ceiling
    if not over.any():
        return audio
    frame = max(1, round(FRAME_SECONDS * audio.rate_hz))
    needed = np.ones(len(audio.samples) // frame + 2)
    np.minimum.at(needed, loud[over] // frame, ceiling / peaks[over])
    gain = _smooth(needed)
    centres = (np.arange(len(gain)) + 0.5) * frame
    envelope = np.interp(np.arange(len(audio.samples)), centres, gain).astype(np.float32)
    return Audio(audio.samples * envelope, audio.rate_hz)


def _true_peaks(samples: Samples, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """The largest absolute value at each place and on the way to its neighbours, shape as `places`."""
    half = _TAPS // 2
    padded = np.pad(samples, half + 1).astype(np.float64)
    offsets, kernels = np.arange(-half + 1, half + 1) + half + 1, _kernels()
    peaks: npt.NDArray[np.float64] = np.abs(samples[places]).astype(np.float64)
    for first in range(0, len(places), _PLACES_AT_ONCE):
        block = slice(first, first + _PLACES_AT_ONCE)
        for start in (places[block] - 1, places[block]):
            between = np.abs(padded[start[:, None] + offsets] @ kernels)
            np.maximum(peaks[block], between.max(axis=1), out=peaks[block])
    return peaks


def _kernels() -> npt.NDArray[np.float64]:
    """Hann-windowed sincs for the points between two samples, shape (taps, points)."""
    offsets = np.arange(-_TAPS // 2 + 1, _TAPS // 2 + 1)[:, None] - np.array(_BETWEEN)
    window = np.cos(np.pi * offsets / (_TAPS + 1)) ** 2
    kernels: npt.NDArray[np.float64] = np.sinc(offsets) * window
    return kernels


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
