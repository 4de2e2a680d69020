"""What every voice converter is, as the rest of the house sees it.

Knows sound; nothing of jobs or files' places. Invariant: output lasts as long as input (to 50 ms)
and a chunk that fails raises, it is never replaced by silence.
"""

from typing import Protocol

from pipeline.sound.audio import Audio


class Target(Protocol):
    """A target voice as its converter measured it; opaque to everyone else."""


class Converter(Protocol):
    """A voice converter, loaded and ready. One call at a time."""

    name: str
    version: str
    device: str
    rate_hz: int
    "sample rate it wants its input in and returns"

    def measure(self, reference: Audio) -> Target:
        """Learn the target voice from a clip; once a job. Raises InputError for a clip it cannot use."""
        ...

    def fit(self, target: Target, source: Audio) -> Target:
        """Fit `target` to the recording that will be converted, given its beginning; once a job.

        Returns `target` itself where the converter needs to know nothing of the source.
        """
        ...

    def convert(self, audio: Audio, target: Target, *, pitch_shift_semitones: float) -> Audio:
        """Speak `audio` with the target voice; raises SynthesisError if it cannot."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
