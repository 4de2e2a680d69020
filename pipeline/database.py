"""The ledger's SQLite file: one connection, its transactions, and what its errors mean.

Knows no table but `meta`. Invariants: a transaction is all or nothing and takes the write lock at once,
so that what it reads stays true; what the disk refuses is an EnvironmentFailure, our own mistakes are
not hidden as one.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import EnvironmentFailure

SCHEMA = Path(__file__).with_name("ledger.sql")
SCHEMA_VERSION = "1"
BUSY_TIMEOUT_SECONDS = 30.0
_DISK_ERRORS = sqlite3.DatabaseError
# Its subclasses that tell of a mistake of ours, not of the disk.
_OUR_ERRORS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InternalError)


class Database:
    """One connection. Each process, and each thread, opens its own."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            # before the first table is made, or it does nothing: freed pages can be given back in small steps
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(SCHEMA.read_text(encoding="utf-8"))
            self._refuse_other_version(path)
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentFailure(
                f"The ledger {path} cannot be opened: {error}.", hint="Is the disk full or read-only?"
            ) from error

    def _refuse_other_version(self, path: Path) -> None:
        found = self.meta("schema_version")
        if found is None:
            self.set_meta("schema_version", SCHEMA_VERSION)
        elif found != SCHEMA_VERSION:
            raise EnvironmentFailure(
                f"The ledger {path} has schema {found}; this version of Voxspool knows {SCHEMA_VERSION}.",
                hint="Run the version that made it, or move the state folder away.",
            )

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; one inside another commits with the outer one."""
        if self._db.in_transaction:
            yield self._db
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk makes SQLite roll back by itself
                    self._db.execute("ROLLBACK")
                raise
        except _DISK_ERRORS as error:
            if isinstance(error, _OUR_ERRORS):
                raise
            raise _failure(error) from error

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """The answer to a question."""
        try:
            return self._db.execute(statement, values).fetchall()
        except _DISK_ERRORS as error:
            if isinstance(error, _OUR_ERRORS):
                raise
            raise _failure(error) from error

    def number(self, statement: str, values: Sequence[object] = ()) -> int:
        """The single number that the answer is."""
        return int(self.rows(statement, values)[0][0])

    def row(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Row | None:
        """The first row of the answer."""
        return next(iter(self.rows(statement, values)), None)

    def give_back(self, pages: int) -> bool:
        """Give so many unused pages back to the disk; whether there are more to give."""
        before = self.number("PRAGMA freelist_count")
        # what cannot be given now, since somebody else writes for long, is used again or given later
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.executescript(f"PRAGMA incremental_vacuum({pages})")
        return 0 < self.number("PRAGMA freelist_count") < before

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file; empty if it is whole."""
        try:
            told = [str(row[0]) for row in self._db.execute("PRAGMA quick_check")]
        except _DISK_ERRORS as error:
            return [str(error)]
        return [] if told == ["ok"] else told

    def meta(self, key: str) -> str | None:
        """A remembered fact."""
        row = self.row("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _failure(error: sqlite3.Error) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"The ledger cannot be used: {error}.", hint="Is the disk of `state` full, read-only or failing?"
    )
