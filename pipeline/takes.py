"""The ladder: take after take of one chunk until enough of them pass, and which one wins.

Pure policy: speaking and checking are done elsewhere. Invariants: no try repeats an earlier one; no take
is made that is not needed; the winner of several passing takes is the shortest, since what follows
the words (breath, noise, repeats) only makes a take longer.
"""

import hashlib
from dataclasses import dataclass, field

from pipeline.engines.base import Utterance
from pipeline.jobs.settings import Takes
from pipeline.sound.audio import Speech
from pipeline.verify import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One take with its evidence."""

    try_number: int
    "1, 2, ..."
    utterance: Utterance
    "what was asked of the engine, seed and settings included"
    speech: Speech
    cached: bool
    "it was spoken earlier and not again now"
    verdict: Verdict | None
    "None: not checked"

    @property
    def passed(self) -> bool:
        """Whether it may be used; an unchecked take may."""
        return self.verdict is None or self.verdict.passed

    @property
    def speech_ends_seconds(self) -> float | None:
        """When its last word ends, where somebody heard that."""
        return None if self.verdict is None else self.verdict.speech_ends_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The take that is used, and how many were made."""

    take: Take
    tries: int


@dataclass(slots=True)
class Ladder:
    """The way of one chunk: try after try until enough have passed or there were too many."""

    wanted: Takes
    takes: list[Take] = field(default_factory=list)
    "in the order of their tries"

    @property
    def next_try(self) -> int:
        """1, 2, ..."""
        return len(self.takes) + 1

    @property
    def ended(self) -> bool:
        """Whether no further take is needed, or allowed."""
        passed = sum(take.passed for take in self.takes)
        return passed >= self.wanted.per_chunk or len(self.takes) >= self.wanted.max_tries

    @property
    def choice(self) -> Choice:
        """What came of it; it may not have passed: see `take.passed`."""
        return Choice(take=best(self.takes), tries=len(self.takes))


def best(takes: list[Take]) -> Take:
    """The shortest passing take; without one, that with the fewest wrong words."""
    passing = [take for take in takes if take.passed]
    if passing:
        return min(passing, key=lambda take: take.speech.audio.seconds)
    return min(takes, key=_wrongness)


def _wrongness(take: Take) -> tuple[bool, float, int, float]:
    verdict = take.verdict
    assert verdict is not None
    silent = not len(take.speech.audio.samples)
    return silent, verdict.word_error_rate, len(verdict.reasons), take.speech.audio.seconds


def derive_seed(job_seed: int, text: str, try_number: int) -> int:
    """The seed of one try: different for each, and the same wherever the sentence stands in the text.

    That is what lets an edited text find its unchanged sentences in the cache.
    """
    digest = hashlib.sha256(f"{job_seed}\0{try_number}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") or 1
