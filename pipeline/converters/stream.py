"""A recording of any length through a converter, window by window.

Knows blocks and converters, not files. Invariants: memory is one window, and the result has exactly as
many samples as the recording; neighbouring windows overlap and are cross-faded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.converters.base import Converter, Target
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, Samples
from pipeline.sound.crossfade import Crossfade

LEAST_TAIL_SECONDS = 2.0
"a last window would be too short to convert well below this; it joins the one before"
LENGTH_TOLERANCE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What one window added to the result."""

    index: int
    audio: Audio
    "the next stretch of the result; the last window's ends it"
    start_seconds: float
    "the window in the recording, overlaps included"
    end_seconds: float


def convert_stream(
    blocks: Iterable[Samples],
    converter: Converter,
    target: Target,
    *,
    chunk_seconds: float,
    overlap_seconds: float,
    pitch_shift_semitones: float = 0.0,
) -> Iterator[Converted]:
    """Convert blocks at the converter's rate; the first window also fits the target to the source.

    Raises what the converter raises: a window that fails is never left out or replaced by silence.
    """
    rate_hz = converter.rate_hz
    step = round((chunk_seconds - overlap_seconds) * rate_hz)
    overlap = round(overlap_seconds * rate_hz)
    seam = Crossfade(overlap, "linear")
    fitted: Target | None = None
    for index, (samples, last) in enumerate(
        windows(blocks, step, overlap, round(LEAST_TAIL_SECONDS * rate_hz))
    ):
        source = Audio(samples, rate_hz)
        fitted = converter.fit(target, source) if fitted is None else fitted
        spoken = converter.convert(source, fitted, pitch_shift_semitones=pitch_shift_semitones)
        if index:
            seam.next_stream()
        done = seam.feed(_same_length(spoken, source).samples)
        if last:
            done = np.concatenate((done, seam.finish()))
        start = index * step / rate_hz
        yield Converted(
            index=index, audio=Audio(done, rate_hz), start_seconds=start, end_seconds=start + source.seconds
        )


def windows(
    blocks: Iterable[Samples], step: int, overlap: int, least_tail: int
) -> Iterator[tuple[Samples, bool]]:
    """Cut a stream into windows of `step + overlap` samples, each `step` after the other.

    Each comes with whether it is the last, which is longer rather than leaving a tail of fewer than
    `least_tail` new samples. An empty stream has no windows.
    """
    held = np.zeros(0, dtype=np.float32)
    for block in blocks:
        held = np.concatenate((held, block))
        # Whatever follows, this much leaves a whole tail.
        while len(held) >= step + overlap + least_tail:
            yield held[: step + overlap], False
            held = held[step:]
    if len(held):
        yield held, True


def _same_length(spoken: Audio, source: Audio) -> Audio:
    """`spoken` with exactly the samples of `source`; more than 50 ms off is the converter's fault."""
    missing = len(source.samples) - len(spoken.samples)
    if spoken.rate_hz != source.rate_hz or abs(missing) > LENGTH_TOLERANCE_SECONDS * source.rate_hz:
        raise SynthesisError(
            f"The converter returned {spoken.seconds:.2f} s at {spoken.rate_hz} Hz for {source.seconds:.2f} s"
            f" at {source.rate_hz} Hz.",
            code="conversion_length",
        )
    if missing <= 0:
        return Audio(spoken.samples[: len(source.samples)], source.rate_hz)
    return Audio(np.pad(spoken.samples, (0, missing)), source.rate_hz)
