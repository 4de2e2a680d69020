"""What stands in the way of pruning: folders that are not what they were, changes, marks, programs.

Knows roots, marks and descriptors; no rule of retention. Invariant: no link is ever followed and no other
filesystem entered on the way to a file.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.files import display
from pipeline.intake.roots import Role, Root, RootProblem, memory_key, open_root
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.retention import Piece, Pool, Unit

KEEP = ".keep"


class Guards:
    """What is asked before anything goes. Made anew for each run: it remembers who has files open."""

    def __init__(self, ledger: Ledger, layout: Layout) -> None:
        self._roots: dict[Path, Root] = {}
        self._lost: dict[Path, str] = {}
        self._opened: frozenset[str] | None = None
        for role, path in ((Role.INBOX, layout.inbox), (Role.OUTBOX, layout.outbox)):
            expected = ledger.meta(memory_key(role, path))
            try:
                self._roots[path] = open_root(path, role, expected_uuid=expected, leave_marker=False)
            except RootProblem as problem:
                self._lost[path] = f"{problem.message.rstrip('.')}; what is there is left alone"
        pools = {Pool.RESULTS: layout.outbox, Pool.SOURCES: layout.inbox}
        self.refused = tuple((pool, self._lost[path]) for pool, path in pools.items() if path in self._lost)
        "the pools whose folder is not what it was"

    def lost(self, unit: Unit) -> str:
        """Why the folder that it lies in is not the one that it was; empty if it is."""
        if unit.root in self._lost:
            return self._lost[unit.root]
        try:
            if unit.root in self._roots:
                self._roots[unit.root].check()
        except RootProblem as problem:
            return problem.message.rstrip(".")
        return ""

    def obstacle(self, unit: Unit) -> str:
        """Why `unit` may not be removed as it lies there now; empty if it may."""
        if unit.pool in (Pool.CACHE, Pool.WORK):
            return ""
        try:
            with inside(unit.root, unit.folder) as folder:
                return (
                    _kept(unit, folder)
                    or _strangers(unit, folder)
                    or next(filter(None, (self._touched(piece, unit, folder) for piece in unit.pieces)), "")
                )
        except OSError as error:
            return f"its folder cannot be entered without following a link: {error.strerror}"

    def _touched(self, piece: Piece, unit: Unit, folder: int) -> str:
        """Whether it is no longer what we made, or somebody has it open."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        name = display(str(piece.name))
        try:
            descriptor = os.open(piece.name, flags, dir_fd=folder)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{name} cannot be looked at: {error.strerror}"
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != piece.bytes:
                return f"{name} was changed"
            # the times decide nothing: who edits tags may put them back
            if piece.sha256 is not None and _digest(stream) != piece.sha256:
                return f"{name} was changed"
            return f"{name} is open" if self._in_use(descriptor, unit) else ""

    def _in_use(self, descriptor: int, unit: Unit) -> bool:
        if locked(descriptor):
            return True
        root = self._roots.get(unit.root)
        # shares refuse a lease though nobody has the file open
        answer = None if root is not None and root.network else open_elsewhere(descriptor)
        if answer is not None:
            return answer
        if self._opened is None:
            self._opened = opened_files()
        return str(Path(f"/proc/self/fd/{descriptor}").readlink()) in self._opened


@contextlib.contextmanager
def inside(root: Path, folder: PurePosixPath) -> Iterator[int]:
    """A descriptor of `folder` below `root`, reached without links and without leaving the filesystem."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(descriptor).st_dev
        for part in folder.parts:
            if part == "..":
                raise OSError(errno.EINVAL, "the path leads upwards")
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            following = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = following
            if os.fstat(descriptor).st_dev != device:
                raise OSError(errno.EXDEV, "another filesystem is mounted there")
        yield descriptor
    finally:
        os.close(descriptor)


def _kept(unit: Unit, folder: int) -> str:
    """A `.keep` in its folder or above it, or `<file>.keep` beside one of its files."""
    names = [KEEP, f"{unit.stem}{KEEP}", *(f"{piece.name}{KEEP}" for piece in unit.pieces)]
    if any(_there(name, folder) for name in names):
        return "carries a keep mark"
    for above in (unit.folder, *unit.folder.parents):
        if os.path.lexists(unit.root / above / KEEP):
            return f"{display(str(above / KEEP))} keeps everything below it"
    return ""


def _there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _strangers(unit: Unit, folder: int) -> str:
    """A processed drop goes with its folder: so nothing else may lie in there."""
    if unit.pool is not Pool.SOURCES:
        return ""
    ours = {str(piece.name) for piece in unit.pieces}
    for directory, folders, names, here in os.fwalk(dir_fd=folder):
        links = [name for name in folders if stat.S_ISLNK(os.lstat(name, dir_fd=here).st_mode)]
        for name in (*names, *links):
            if str(PurePosixPath(directory, name)) not in ours:
                return f"holds {display(name)}, which is not ours"
    return ""


def _digest(stream: IO[bytes]) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def open_elsewhere(descriptor: int) -> bool | None:
    """Whether anybody else on this machine has the file open; None where the kernel does not tell.

    A write lease is granted only on a file that nobody else has open, on a local disk and to its owner.
    Whoever opens it while we hold the lease makes the kernel send us a signal: SIGURG, which is ignored,
    instead of SIGIO, which kills.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK) else None
    return False


def locked(descriptor: int) -> bool:
    """Whether somebody holds a lock (flock) on the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EWOULDBLOCK)
    return False


def opened_files() -> frozenset[str]:
    """Paths of what the other processes of this machine have open, as far as they may be asked.

    Only their names are read: to look at the files themselves could take for ever.
    """
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        found.add(str(descriptor.readlink()))
    return frozenset(found)
