"""Sums that only grow and outlive a restart: seconds of audio, bytes pruned, files that no event told of.

One part of the ledger; knows SQL and not what the sums are good for (`metrics` does).
"""

from enum import StrEnum

from pipeline.database import Database


class Tally(StrEnum):
    """What is summed up."""

    AUDIO_SECONDS = "audio_seconds"
    "length of everything that was published"
    WORK_SECONDS = "work_seconds"
    "what the workers took for it, from claim to publication"
    PRUNED_BYTES = "pruned_bytes"


class Tallies:
    """The ledger's sums."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, what: Tally, amount: float) -> None:
        """So much more of it."""
        with self._db.transaction() as db:
            db.execute(
                "INSERT INTO tallies VALUES (?, ?) ON CONFLICT (what) DO UPDATE SET sum = sum + excluded.sum",
                (what, amount),
            )

    def sums(self) -> dict[Tally, float]:
        """All of them, those that nothing was added to as zero."""
        found = {row["what"]: row["sum"] for row in self._db.rows("SELECT what, sum FROM tallies")}
        return {what: float(found.get(what, 0.0)) for what in Tally}
