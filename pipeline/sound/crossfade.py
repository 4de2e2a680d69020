"""Streams that overlap, mixed into one.

Pure: blocks of samples in, blocks out. Invariants: memory is one overlap and one block however long the
streams are, and outside the overlaps no sample is changed.
"""

from typing import Literal

import numpy as np

from pipeline.sound.audio import Samples

Curve = Literal["linear", "equal-power"]


def rising(count: int, curve: Curve) -> Samples:
    """Weights from just above 0 to just below 1 for what comes in; what goes out takes them backwards.

    Linear keeps the level of two versions of the same sound, equal power that of unrelated sounds.
    """
    at = (np.arange(count) + 0.5) / max(1, count)
    weights: Samples = (at if curve == "linear" else np.sin(at * np.pi / 2)).astype(np.float32)
    return weights


class Crossfade:
    """Joins streams whose ends overlap by the same number of samples.

    `feed` the blocks of a stream, `next_stream` before those of the next, `finish` at the end.
    """

    def __init__(self, overlap_samples: int, curve: Curve) -> None:
        self._overlap = overlap_samples
        self._curve = curve
        self._held: Samples = np.zeros(0, dtype=np.float32)
        self._going: Samples = self._held
        "what is left of the last stream's end, already faded"
        self._coming: Samples = self._held
        "weights for the head of this stream, as many as are left of `_going`"

    def feed(self, block: Samples) -> Samples:
        """Take the stream's next block and return what is final by now; it may be empty."""
        mixed = self._mix(block)
        joined = np.concatenate((self._held, mixed))
        cut = max(0, len(joined) - self._overlap)
        self._held = joined[cut:]
        return joined[:cut]

    def next_stream(self) -> None:
        """The stream has ended; its end is kept back to overlap with the next one's head."""
        self._refuse_half_mixed()
        self._coming = rising(len(self._held), self._curve)
        self._going = self._held * self._coming[::-1]
        self._held = self._held[:0]

    def finish(self) -> Samples:
        """What was kept back of the last stream."""
        self._refuse_half_mixed()
        rest, self._held = self._held, self._held[:0]
        return rest

    def _mix(self, block: Samples) -> Samples:
        count = min(len(self._going), len(block))
        if count == 0:
            return block
        mixed = block.copy()
        mixed[:count] = mixed[:count] * self._coming[:count] + self._going[:count]
        self._going, self._coming = self._going[count:], self._coming[count:]
        return mixed

    def _refuse_half_mixed(self) -> None:
        if len(self._going):
            raise ValueError("a stream is shorter than the overlap with the one before it")
