"""What the ledger may forget: drops that ended long ago, with their jobs and attempts.

One part of the ledger; knows SQL and looks at no disk: whether a file is still there is for the caller to
say. Invariants: a drop with a job that has not ended, or with a result that is still known, is never
forgotten; how many there were stays known; each step holds the ledger for milliseconds only.
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.database import Database

BATCH = 200
PAGES = 500
"so much is given back to the disk at a time, 2 MB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A drop that has ended, and of whose results none is known any more."""

    drop_id: str
    state: str
    mode: str
    members: tuple[str, ...]
    "relative paths in the inbox, the dropped file first"
    location: str


class History:
    """The ledger's oldest rows."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def moment_of_newest(self, jobs: int) -> float | None:
        """When the drop ended that lies so many jobs back; None if there are not that many."""
        row = self._db.row(
            "SELECT drops.ended_at FROM jobs JOIN drops ON drops.id = jobs.drop_id"
            " WHERE drops.ended_at IS NOT NULL ORDER BY drops.ended_at DESC LIMIT 1 OFFSET ?",
            (jobs,),
        )
        return None if row is None else float(row["ended_at"])

    def before(self, moment: float) -> Iterator[Past]:
        """Drops that ended before, of whose results none is known, oldest first."""
        rows = self._db.rows(
            "SELECT id, state, mode, members, location FROM drops"
            " WHERE state IN ('done', 'failed') AND ended_at < ? AND NOT EXISTS (SELECT 1 FROM jobs"
            "  WHERE drop_id = drops.id AND (state IN ('queued', 'running')"
            "   OR EXISTS (SELECT 1 FROM results WHERE job_id = jobs.id))) ORDER BY ended_at",
            (moment,),
        )
        for row in rows:
            yield Past(
                drop_id=row["id"],
                state=row["state"],
                mode=row["mode"],
                members=tuple(json.loads(row["members"])),
                location=os.fsdecode(row["location"]),
            )

    def forget(self, drop_ids: Iterable[str]) -> int:
        """Forget these drops; returns how many. What may no longer be forgotten by now is left."""
        left, forgotten = iter(drop_ids), 0
        while batch := list(itertools.islice(left, BATCH)):
            forgotten += self._forget(batch)
        if forgotten:
            self._give_back()
        return forgotten

    def forgotten(self, what: str) -> dict[str, int]:
        """Number of forgotten `jobs` by state, or `attempts` by outcome."""
        rows = self._db.rows("SELECT what, sum FROM tallies WHERE what LIKE ?", (f"forgotten {what} %",))
        return {str(row["what"]).rpartition(" ")[2]: int(row["sum"]) for row in rows}

    def _forget(self, drop_ids: list[str]) -> int:
        marks = ", ".join("?" * len(drop_ids))
        gone = (
            f"SELECT id FROM drops WHERE id IN ({marks}) AND state IN ('done', 'failed') AND NOT EXISTS"  # noqa: S608
            " (SELECT 1 FROM jobs WHERE drop_id = drops.id AND (state IN ('queued', 'running')"
            "  OR EXISTS (SELECT 1 FROM results WHERE job_id = jobs.id)))"
        )
        with self._db.transaction() as db:
            found = [row["id"] for row in db.execute(gone, drop_ids)]
            drops = ", ".join("?" * len(found))
            jobs = f"SELECT id FROM jobs WHERE drop_id IN ({drops})"  # noqa: S608 (only question marks)
            for what, source in (
                ("jobs", f"SELECT state AS word FROM jobs WHERE drop_id IN ({drops})"),  # noqa: S608
                ("attempts", f"SELECT outcome AS word FROM attempts WHERE job_id IN ({jobs})"),  # noqa: S608
            ):
                db.execute(
                    "INSERT INTO tallies SELECT ? || word, COUNT(*) FROM"  # noqa: S608
                    f" ({source}) WHERE word IS NOT NULL GROUP BY word"
                    " ON CONFLICT (what) DO UPDATE SET sum = sum + excluded.sum",
                    (f"forgotten {what} ", *found),
                )
            db.execute(f"DELETE FROM attempts WHERE job_id IN ({jobs})", found)  # noqa: S608
            db.execute(f"DELETE FROM jobs WHERE drop_id IN ({drops})", found)  # noqa: S608
            db.execute(f"DELETE FROM drops WHERE id IN ({drops})", found)  # noqa: S608
        return len(found)

    def _give_back(self) -> None:
        """In small steps: a VACUUM would hold the ledger for all of its length."""
        while self._db.give_back(PAGES):
            pass
