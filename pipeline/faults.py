"""What went wrong, by the code of the error: how often ever, and the last ten of each.

One part of the ledger, so it outlives every restart; knows SQL and no cause. Invariants: the number of a
code only grows; equal faults in a row are one entry that says how often; ten entries of a code are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.database import Database
from pipeline.repeats import lasting

KEPT = 10
MAX_CHARS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that went wrong, once or several times in a row."""

    at: float
    "the last time; seconds since the epoch"
    file: str
    "as it can be shown; empty where it is about no single one"
    message: str
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All that is known of one code."""

    code: str
    count: int
    "how often it happened, ever"
    last: tuple[Fault, ...]
    "the newest first"


class Faults:
    """The ledger's memory of what went wrong."""

    def __init__(self, db: Database, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock

    def add(self, *, code: str, file: str, message: str) -> None:
        """Something went wrong just now."""
        told = lasting(message)[:MAX_CHARS].encode("utf-8", "backslashreplace").decode()
        with self._db.transaction() as db:
            newest = self._db.row(
                "SELECT number, file, message FROM faults WHERE code = ? ORDER BY number DESC LIMIT 1",
                (code,),
            )
            if newest is not None and (newest["file"], newest["message"]) == (file, told):
                db.execute(
                    "UPDATE faults SET number = number + 1, times = times + 1, at = ?"
                    " WHERE code = ? AND number = ?",
                    (self._clock(), code, newest["number"]),
                )
                return
            number = 1 if newest is None else newest["number"] + 1
            db.execute(
                "INSERT INTO faults VALUES (?, ?, 1, ?, ?, ?)", (code, number, self._clock(), file, told)
            )
            db.execute(
                "DELETE FROM faults WHERE code = ? AND number <="
                " (SELECT number FROM faults WHERE code = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (code, code, KEPT),
            )

    def kinds(self) -> list[Kind]:
        """Every code that ever came, the one that came last first."""
        rows = self._db.rows("SELECT * FROM faults ORDER BY code, number DESC")
        by_code: dict[str, list[Fault]] = {}
        counts: dict[str, int] = {}
        for row in rows:
            counts.setdefault(row["code"], row["number"])
            by_code.setdefault(row["code"], []).append(
                Fault(at=row["at"], file=row["file"], message=row["message"], times=row["times"])
            )
        kinds = [Kind(code=code, count=counts[code], last=tuple(last)) for code, last in by_code.items()]
        return sorted(kinds, key=lambda kind: (-kind.last[0].at, kind.code))
