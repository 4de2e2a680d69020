"""The ledger's SQLite file: one connection, its transactions, and what its errors mean.

Knows no table but `meta`. Invariants: a transaction is all or nothing and takes the write lock at once,
so that what it reads stays true; what the disk refuses is an EnvironmentFailure, our own mistakes are
not hidden as one.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import EnvironmentFailure, LedgerDamaged

SCHEMA = Path(__file__).with_name("ledger.sql")
SCHEMA_VERSION = "1"
BUSY_TIMEOUT_SECONDS = 30.0
"some thousand times what a transaction lasts: who holds the write lock for so long hangs, or is not ours"
WAL_WRITE_LOCK = "120"
"its byte in the -shm file: https://sqlite.org/walformat.html"
# With a full disk SQLite can go on in room that its files have already: it is made at the start, and kept by
# moving what was written from the log into the ledger often. 256 pages last for some 3000 commits.
RESERVE_PAGES = 256
CHECKPOINT_PAGES = 100
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DISK_ERRORS = sqlite3.DatabaseError
# Its subclasses that tell of a mistake of ours, not of the disk.
_OUR_ERRORS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InternalError)


class Database:
    """One connection. Each process, and each thread, opens its own."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Open the file; without `create` one that is not there is an EnvironmentFailure."""
        self._path = path
        self._kept_out_by: int | None = None
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}",
                uri=True,
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
            )
            self._db.row_factory = sqlite3.Row
            # before the first table is made, or it does nothing: freed pages can be given back in small steps
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._db.executescript(SCHEMA.read_text(encoding="utf-8"))
            self._refuse_other_version(path)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        except OSError as error:
            raise EnvironmentFailure(
                f"The ledger {path} cannot be opened: {error.strerror}.",
                hint="Is the disk full or read-only?",
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

    def prove_whole(self) -> None:
        """Read every page once; raises LedgerDamaged if something in it is not as SQLite left it."""
        found = self.damage()
        if found:
            raise _damaged(self._path, found[0])

    def keep_reserve(self) -> None:
        """See that some pages of the files are free, so that a full disk can still be written down."""
        page_bytes, free = self.number("PRAGMA page_size"), self.number("PRAGMA freelist_count")
        log = self._path.with_name(f"{self._path.name}-wal")
        logged = log.stat().st_size // page_bytes if log.exists() else 0
        if min(free, logged) >= RESERVE_PAGES // 2:
            return
        with self.transaction() as db:  # what is free already is used first
            db.execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVE_PAGES * page_bytes,))
        with self.transaction() as db:
            db.execute("DELETE FROM reserve")

    def kept_out_by(self) -> int | None:
        """Process id of who kept us from writing since this was last asked; None if nobody did."""
        holder, self._kept_out_by = self._kept_out_by, None
        return holder

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; one inside another commits with the outer one."""
        if self._db.in_transaction:
            yield self._db
            return
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk makes SQLite roll back by itself
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def question(self) -> Iterator[sqlite3.Connection]:
        """Several reads of one moment, whatever others write meanwhile; nothing may be written."""
        with self._explained():
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """The answer to a question."""
        with self._explained():
            return self._db.execute(statement, values).fetchall()

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

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite says about the disk, in our words."""
        try:
            yield
        except _DISK_ERRORS as error:
            if isinstance(error, _OUR_ERRORS):
                raise
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> EnvironmentFailure:
        number = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if number in _DAMAGE:
            return _damaged(self._path, str(error))
        if number == sqlite3.SQLITE_FULL:
            return EnvironmentFailure(
                f"The ledger {self._path} cannot be written: its disk is full.",
                hint="Make room there. The work then goes on by itself.",
                code="disk_full",
            )
        if number == sqlite3.SQLITE_BUSY:
            self._kept_out_by = holder_of(self._path)
            return held(self._path, self._kept_out_by)
        return EnvironmentFailure(
            f"The ledger {self._path} cannot be used: {error}.",
            hint="Is the disk of the state read-only or failing, or does the file belong to somebody else?",
            code="disk" if number == sqlite3.SQLITE_IOERR else "ledger",
        )


def holder_of(path: Path) -> int | None:
    """Process id of who holds the write lock of a ledger; None if nobody does or the system does not tell
    (Linux does, in /proc/locks: proc_locks(5)).
    """
    try:
        inode = path.with_name(f"{path.name}-shm").stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for fields in map(str.split, lines):
        # such as 1: POSIX ADVISORY WRITE 4711 fe:00:1048602 120 120; one that waits has -> in second place
        if fields[1:2] == ["POSIX"] and fields[3] == "WRITE" and fields[6] == WAL_WRITE_LOCK:
            pid, where = int(fields[4]), fields[5]
            if where.rpartition(":")[2] == str(inode) and pid > 0:  # a process out of sight is told as 0
                return pid
    return None


def held(path: Path, pid: int | None) -> EnvironmentFailure:
    """Somebody hangs amid a change, or sits at an open transaction of `sqlite3`."""
    who = "somebody else" if pid is None else f"process {pid} ({_command_of(pid)})"
    return EnvironmentFailure(
        f"The ledger {path} cannot be written: {who} has kept it locked for {BUSY_TIMEOUT_SECONDS:.0f} s.",
        hint="If it is a worker, the daemon ends it; if not, end it yourself. The work then goes on.",
        code="ledger",
    )


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "gone since"


def _damaged(path: Path, found: str) -> LedgerDamaged:
    name = path.name
    return LedgerDamaged(
        f"The ledger {path} is damaged: {found}.",
        hint=f"Stop Voxspool and keep copies of {path} and {name}-wal. Then bring back a backup, or mend it:"
        f" sqlite3 {name} .recover | sqlite3 mended.db. Without either move {name}, {name}-wal and {name}-shm"
        " away: Voxspool begins a new ledger and puts what it had taken back into the inbox."
        " docs/operations.md, Backups, says what else is lost then.",
    )
