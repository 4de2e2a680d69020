"""Recordings into one: levelled, trimmed, with silences, pauses or cross-fades between them.

Works in two passes, `survey` then `join`, so that parts of any length stream. Knows no files: a part is
its blocks. Invariant: every sample between a part's trimmed edges is in the result, times its one gain.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from pipeline.sound.assemble import FADE_SECONDS, KEPT_EDGE_SECONDS, SILENCE_BELOW_SPEECH_DB
from pipeline.sound.audio import Audio, Samples
from pipeline.sound.crossfade import Crossfade

MAX_GAIN_DB = 12.0
_FRAMES_PER_SECOND = 100
# Frames this far below the mean do not count for the level, as in EBU R128's relative gate.
_GATE_DB = 10.0
_SILENT_POWER = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a first pass over a part found."""

    samples: int
    level_db: float | None
    "gated root mean square, dBFS; None for silence"
    start_sample: int
    "where its sound starts, the kept edge included"
    end_sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One recording and what comes after it."""

    blocks: Iterable[Samples]
    survey: Survey
    trim: bool = True
    gain_db: float = 0.0
    silence_after_ms: int | None = None
    "None: cross-fade into the next part, or join directly"


def survey(blocks: Iterable[Samples], rate_hz: int) -> Survey:
    """Measure a part without keeping it: one number for each 10 ms."""
    frame = rate_hz // _FRAMES_PER_SECOND
    samples, powers, rest = 0, [], np.zeros(0, dtype=np.float32)
    for block in blocks:
        samples += len(block)
        joined = np.concatenate((rest, block))
        whole = len(joined) - len(joined) % frame
        powers.append(_frame_powers(joined[:whole], frame))
        rest = joined[whole:]
    if len(rest):
        powers.append(_frame_powers(rest, len(rest)))
    return _judge(np.concatenate(powers) if powers else np.zeros(0), samples, frame, rate_hz)


def level_gains_db(levels_db: Sequence[float | None]) -> tuple[float, ...]:
    """The gain for each part that brings it to the median level of all, at most `MAX_GAIN_DB` either way."""
    known = [level for level in levels_db if level is not None]
    if not known:
        return (0.0,) * len(levels_db)
    middle = median(known)
    return tuple(
        0.0 if level is None else min(MAX_GAIN_DB, max(-MAX_GAIN_DB, middle - level)) for level in levels_db
    )


def join(parts: Sequence[Part], rate_hz: int, *, crossfade_ms: int = 0) -> Iterator[Audio]:
    """The parts in order as one stream; a cross-fade is never longer than half of a part it touches."""
    wanted = round(crossfade_ms * rate_hz / 1000)
    overlap = min([wanted, *((end - start) // 2 for start, end in map(_edges, parts))])
    seam = Crossfade(overlap, "equal-power")
    for number, part in enumerate(parts):
        for block in _sounding_blocks(part, rate_hz):
            yield Audio(seam.feed(block), rate_hz)
        if number == len(parts) - 1:
            break
        if part.silence_after_ms is None and overlap:
            seam.next_stream()
            continue
        yield Audio(seam.finish(), rate_hz)
        yield Audio(np.zeros(round((part.silence_after_ms or 0) * rate_hz / 1000), np.float32), rate_hz)
    yield Audio(seam.finish(), rate_hz)


def _frame_powers(samples: Samples, frame: int) -> npt.NDArray[np.float64]:
    frames = samples.reshape(-1, frame).astype(np.float64)
    powers: npt.NDArray[np.float64] = np.square(frames).mean(axis=1)
    return powers


def _judge(powers: npt.NDArray[np.float64], samples: int, frame: int, rate_hz: int) -> Survey:
    mean = float(powers.mean()) if len(powers) else 0.0
    if mean < _SILENT_POWER:
        return Survey(samples=samples, level_db=None, start_sample=0, end_sample=samples)
    loud = np.flatnonzero(powers > mean * 10 ** (-SILENCE_BELOW_SPEECH_DB / 10))
    gated = powers[powers > mean * 10 ** (-_GATE_DB / 10)]
    kept = round(KEPT_EDGE_SECONDS * rate_hz)
    return Survey(
        samples=samples,
        level_db=float(10 * np.log10(gated.mean())),
        start_sample=max(0, int(loud[0]) * frame - kept),
        end_sample=min(samples, (int(loud[-1]) + 1) * frame + kept),
    )


def _edges(part: Part) -> tuple[int, int]:
    return (part.survey.start_sample, part.survey.end_sample) if part.trim else (0, part.survey.samples)


def _sounding_blocks(part: Part, rate_hz: int) -> Iterator[Samples]:
    """The part between its edges, at its gain, led in and out so that nothing clicks."""
    start, end = _edges(part)
    gain = np.float32(10 ** (part.gain_db / 20))
    position = 0
    for block in part.blocks:
        first, last = max(start, position), min(end, position + len(block))
        if first < last:
            kept: Samples = block[first - position : last - position] * gain
            yield kept * _edge_weights(first, last, (start, end), rate_hz)
        position += len(block)


def _edge_weights(first: int, last: int, edges: tuple[int, int], rate_hz: int) -> Samples | np.float32:
    """The fades at both edges of a part, for its samples from `first` to `last`."""
    count = round(FADE_SECONDS * rate_hz)
    start, end = edges
    if first >= start + count and last <= end - count:
        return np.float32(1)
    at = np.arange(first, last)
    nearest = np.minimum(np.minimum(at - start, end - 1 - at), count) / count
    weights: Samples = ((1 - np.cos(np.pi * nearest)) / 2).astype(np.float32)
    return weights
