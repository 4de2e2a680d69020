"""What is done to finished speech before it is written, as ffmpeg filters.

Pure: settings in, filter descriptions out; starts nothing. Invariants: the rate and the timeline stay
(speed alone shortens it, evenly), and the last filter is the ceiling if there is one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MEASURABLE_LUFS = -69.0
"EBU R128's absolute gate is at -70: what measures lower is silence"
LOUDNESS_TOLERANCE_LU = 0.2
MOST_DRIVE_DB = 18.0
_OVERSAMPLING = 4
# A limiter works on samples; the true peak runs between them. At four times the rate it sees it to
# 0.2 dB (ITU-R BS.1770-4 annex 2), and going back to the rate overshoots: by up to 0.7 dB measured,
# in white noise driven 5 dB over the ceiling; in speech by 0.4 dB.
_LIMITER_MARGIN_DB = 0.8
# Leaves sound below the ceiling as it was to -76 dB; ffmpeg's own resampler takes the treble to -37 dB.
_RESAMPLER = "resampler=soxr:precision=20:cutoff=0.98"
_LEAST_YIELD = 0.25
_DENOISE_DB, _NOISE_FLOOR_DB = 10, -45
# afftdn works in windows of three steps of rate // 80 samples and returns sound two steps late.
_DENOISE_STEPS_PER_SECOND, _DENOISE_DELAY_STEPS = 80, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mastering:
    """What is to be done; the default only keeps peaks under the ceiling."""

    speed: float = 1.0
    "tempo, 0.5 to 2; pitch stays"
    denoise: bool = False
    loudness_lufs: float | None = None
    "EBU R128 integrated loudness; None: as it is"
    true_peak_db: float | None = -1.5
    "ceiling, dBTP, before a lossy encoder adds its own; None: what is written keeps it already"


def shaping(mastering: Mastering, rate_hz: int) -> list[str]:
    """Noise and tempo: the filters whose result the loudness is measured on."""
    filters = _denoise(rate_hz) if mastering.denoise else []
    if mastering.speed != 1.0:
        filters.append(f"atempo={mastering.speed:.6f}")
    return filters


def levelling(mastering: Mastering, rate_hz: int, gain_db: float) -> list[str]:
    """One gain for the whole and the true-peak ceiling."""
    gain = [f"volume={gain_db:.3f}dB:precision=float"] if gain_db else []
    ceiling = mastering.true_peak_db
    return [*gain, *(_ceiling(ceiling, rate_hz) if ceiling is not None else [])]


def most_gain_db(mastering: Mastering, true_peak_db: float) -> float:
    """Where more gain only flattens: sound with this true peak would run `MOST_DRIVE_DB` into the ceiling."""
    ceiling = mastering.true_peak_db
    return math.inf if ceiling is None else ceiling - true_peak_db + MOST_DRIVE_DB


def next_gain_db(tried: Sequence[tuple[float, float]], target_lufs: float, most_db: float) -> float:
    """The gain to try next, from the (gain, loudness reached) pairs tried so far, oldest first.

    Below the ceiling loudness follows the gain; above it only a part of each decibel arrives, which
    part the last two tries tell (the secant method).
    """
    gain_db, reached_lufs = tried[-1]
    yield_per_db = 1.0
    if len(tried) > 1 and gain_db != tried[-2][0]:
        yield_per_db = (reached_lufs - tried[-2][1]) / (gain_db - tried[-2][0])
    wanted = gain_db + (target_lufs - reached_lufs) / min(1.0, max(_LEAST_YIELD, yield_per_db))
    return min(wanted, most_db)


def _denoise(rate_hz: int) -> list[str]:
    late = _DENOISE_DELAY_STEPS * (rate_hz // _DENOISE_STEPS_PER_SECOND)
    return [
        f"apad=pad_len={late}",
        f"afftdn=nr={_DENOISE_DB}:nf={_NOISE_FLOOR_DB}:tn=1",
        f"atrim=start_sample={late}",
        "asetpts=N/SR/TB",
    ]


def _ceiling(true_peak_db: float, rate_hz: int) -> list[str]:
    limit = 10 ** ((true_peak_db - _LIMITER_MARGIN_DB) / 20)
    return [
        f"aresample={rate_hz * _OVERSAMPLING}:{_RESAMPLER}",
        f"alimiter=limit={limit:.6f}:attack=5:release=50:level=disabled:latency=1",
        f"aresample={rate_hz}:{_RESAMPLER}",
    ]
