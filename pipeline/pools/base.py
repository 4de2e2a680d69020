"""What a pool of workers is to the supervisor.

Knows names and exit codes, nothing of jobs. Invariant: a worker that ended is reported once.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker that is no more."""

    worker: str
    exit_code: int
    "negative: the signal that killed it"
    lived_seconds: float


class WorkerPool(Protocol):
    """A number of workers that take jobs from the ledger by themselves."""

    def names(self) -> list[str]:
        """The living."""
        ...

    def name_of(self, pid: int) -> str:
        """Which of the living is this process; empty if none."""
        ...

    def fill(self) -> list[str]:
        """Start workers until there are enough; returns the names of the new ones."""
        ...

    def reap(self) -> list[Ended]:
        """Those that ended since the last call."""
        ...

    def kill(self, worker: str) -> None:
        """End one that hangs, at once."""
        ...

    def stop(self) -> None:
        """Ask all to finish their chunk and end; does not wait."""
        ...

    def kill_all(self) -> None:
        """End all that are left, at once."""
        ...
