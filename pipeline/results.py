"""Which names in the outbox are ours, and which files stand under them.

One part of the ledger; knows SQL and looks at no disk itself. Invariants: a name belongs to one source at a
time, also on a disk that is blind to case or spelling; a file is entered as ours before it gets its name, so
that after a crash we know our own.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from pipeline.database import Database
from pipeline.errors import EnvironmentFailure
from pipeline.naming import folded

MAX_SUFFIX = 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """A file that we published, as it was when we did."""

    name: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A name in the outbox that is ours."""

    folder: PurePosixPath
    stem: str
    source: str
    index: int
    job_id: str
    files: tuple[ResultFile, ...]
    published_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A name that was free when somebody looked, and what was known of it then."""

    folder: PurePosixPath
    stem: str
    source: str
    index: int
    job_id: str
    earlier: Result | None


MayUse = Callable[[str, Result | None], bool]
"Whether nothing foreign stands on the disk under this name; the earlier result is ours."


class Results:
    """The table of names; `ledger.results` is the way to it."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def look(
        self,
        folder: PurePosixPath,
        stem: str,
        *,
        source: str,
        index: int,
        job_id: str,
        may_use: MayUse,
        but_not: frozenset[str] = frozenset(),
    ) -> Reservation:
        """Find a free name: `stem`, or `stem~2`, `stem~3`, ...; nothing is locked or written.

        A name is free if nobody reserved it, or if the same source did before (a redrop replaces its
        own result), and if `may_use(candidate, earlier)` agrees; `but_not`: stems to pass over, `folded`.
        Raises EnvironmentFailure if no name is left.
        """
        for candidate in _candidates(stem):
            earlier = self.find(folder, candidate)
            if earlier and (earlier.source, earlier.index) != (source, index):
                continue
            if folded(candidate) not in but_not and may_use(candidate, earlier):
                return Reservation(
                    folder=folder, stem=candidate, source=source, index=index, job_id=job_id, earlier=earlier
                )
        raise EnvironmentFailure(f"No free name is left for {stem} in {folder}.", hint="Tidy the outbox.")

    def enter(self, *reservations: Reservation) -> bool:
        """Make them all so; False, and none is, if a name is no longer as it was when looked at."""
        with self._db.transaction() as db:
            if any(self.find(one.folder, one.stem) != one.earlier for one in reservations):
                return False
            for one in reservations:
                _insert(db, one)
        return True

    def reserve(
        self, folder: PurePosixPath, stem: str, *, source: str, index: int, job_id: str, may_use: MayUse
    ) -> str:
        """`look` and `enter`, until both agree; returns the name."""
        while True:
            found = self.look(folder, stem, source=source, index=index, job_id=job_id, may_use=may_use)
            if self.enter(found):
                return found.stem

    def find(self, folder: PurePosixPath, stem: str) -> Result | None:
        """What we know of a name."""
        row = self._db.row("SELECT * FROM results WHERE stem_key = ?", (_key(folder, stem),))
        return None if row is None else _result_from(row)

    def all(self) -> list[Result]:
        """Every published result, oldest first."""
        rows = self._db.rows("SELECT * FROM results WHERE published_at IS NOT NULL ORDER BY published_at")
        return [_result_from(row) for row in rows]

    def plan_files(self, folder: PurePosixPath, stem: str, files: Sequence[ResultFile]) -> None:
        """These files are ours, whether or not the next crash lets all of them be published."""
        with self._db.transaction() as db:
            db.execute(
                "UPDATE results SET files = ? WHERE stem_key = ?", (_to_json(files), _key(folder, stem))
            )

    def publish(self, folder: PurePosixPath, stem: str, files: Sequence[ResultFile]) -> None:
        """These files stand in the outbox under this name now."""
        with self._db.transaction() as db:
            db.execute(
                "UPDATE results SET files = ?, published_at = ? WHERE stem_key = ?",
                (_to_json(files), self._clock(), _key(folder, stem)),
            )

    def forget(self, folder: PurePosixPath, stem: str) -> None:
        """The result was pruned, or never came."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM results WHERE stem_key = ?", (_key(folder, stem),))

    def forget_these(self, results: Iterable[tuple[PurePosixPath, str, str, float]]) -> None:
        """These were pruned: folder, stem, job, moment of publication. A newer one of the name stays."""
        with self._db.transaction() as db:
            db.executemany(
                "DELETE FROM results WHERE stem_key = ? AND job_id = ? AND published_at = ?",
                [(_key(folder, stem), job_id, published) for folder, stem, job_id, published in results],
            )


def _key(folder: PurePosixPath, stem: str) -> str:
    """One for all names that some disk would take for the same, that of the folder included."""
    return folded(str(folder / stem))


def _candidates(stem: str) -> Iterator[str]:
    yield stem
    for number in range(2, MAX_SUFFIX):
        yield f"{stem}~{number}"


def _insert(db: sqlite3.Connection, reservation: Reservation) -> None:
    earlier = reservation.earlier
    db.execute(
        "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(reservation.folder),
            _key(reservation.folder, reservation.stem),
            reservation.stem,
            os.fsencode(reservation.source),
            reservation.index,
            reservation.job_id,
            _to_json(earlier.files if earlier else ()),
            earlier.published_at if earlier else None,
        ),
    )


def _to_json(files: Sequence[ResultFile]) -> str:
    return json.dumps([asdict(file) for file in files])


def _result_from(row: sqlite3.Row) -> Result:
    return Result(
        folder=PurePosixPath(row["folder"]),
        stem=row["stem"],
        source=os.fsdecode(row["source"]),
        index=row["idx"],
        job_id=row["job_id"],
        files=tuple(ResultFile(**file) for file in json.loads(row["files"])),
        published_at=row["published_at"],
    )
