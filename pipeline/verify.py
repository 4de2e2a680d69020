"""Text against transcript: did the take say what it should? Pure.

Knows nothing of engines, recognisers or files. Invariant: a Verdict carries its evidence.
"""

from dataclasses import dataclass

from pipeline.sound.audio import Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What a recogniser heard."""

    text: str
    words: tuple[Word, ...] = ()
