"""Pruning as it is done: look at what is there, ask `retention` for a plan, carry it out.

Knows the ledger, the layout and the disk. Invariants: only what the ledger says we made is looked at;
each file is looked at again right before it goes; no link is ever followed and no other filesystem
entered; a result's manifest goes first, so that no reader takes half a result for whole.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.config import Retention
from pipeline.files import display
from pipeline.intake.claim import below
from pipeline.jobs.job import Drop, DropState
from pipeline.layout import HIDDEN, Layout
from pipeline.ledger import Ledger
from pipeline.results import Result, ResultFile
from pipeline.retention import Going, Piece, Plan, Pool, Seen, Spared, Unit, clock_problem, plan
from pipeline.synced import missing_ignores, sync_mark
from pipeline.tallies import Tally

CLOCK_FACT = "prune_clock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KEEP = ".keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What pruning did."""

    removed: tuple[Going, ...] = ()
    kept: tuple[Spared, ...] = ()
    "was to go, but something came between"

    @property
    def bytes(self) -> int:
        """What was freed."""
        return sum(item.unit.bytes for item in self.removed)


def rehearse(
    ledger: Ledger,
    layout: Layout,
    rules: Retention,
    *,
    clock: Callable[[], Seen] | None = None,
    more_than_half: bool = False,
) -> Plan:
    """What `apply` would do now. Remembers the clock, changes nothing else."""
    now = (clock or look_at_clock)()
    last = ledger.meta(CLOCK_FACT)
    problem = clock_problem(now, Seen(**json.loads(last)) if last else None)
    ledger.set_meta(CLOCK_FACT, json.dumps(asdict(now)))
    if problem:
        reason = f"{problem}; nothing is removed until the next look agrees with this one"
        return Plan(refused=tuple((pool, reason) for pool in Pool))
    return plan(
        survey(ledger, layout),
        rules,
        now.wall,
        obstacle=obstacle,
        report_only={} if rules.deletes_propagate == "accepted" else synced_pools(layout),
        more_than_half=more_than_half,
    )


def look_at_clock() -> Seen:
    """The machine's clocks."""
    boot = BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else "unknown"
    return Seen(wall=time.time(), uptime=time.clock_gettime(time.CLOCK_BOOTTIME), boot=boot)


def apply(made: Plan, ledger: Ledger) -> Outcome:
    """Carry out a plan, looking at everything once more. What cannot go is told, not raised."""
    removed, kept = [], []
    for item in made.going:
        reason = _superseded(item.unit, ledger) or obstacle(item.unit)
        if not reason:
            try:
                _remove(item.unit)
                _forget(item.unit, ledger)
            except OSError as error:
                reason = f"cannot be removed: {error.strerror}"
        if reason:
            kept.append(Spared(unit=item.unit, reason=reason))
        else:
            removed.append(item)
    outcome = Outcome(removed=tuple(removed), kept=tuple(kept))
    if outcome.bytes:
        ledger.tallies.add(Tally.PRUNED_BYTES, outcome.bytes)
    return outcome


# -- looking -----------------------------------------------------------------------------------


def survey(ledger: Ledger, layout: Layout) -> list[Unit]:
    """Everything that pruning may ever touch; what is already gone is left out."""
    unfinished = ledger.unfinished()
    found = [_result_unit(result, layout, unfinished) for result in ledger.results.all()]
    found += _source_units(ledger, layout)
    found += _work_units(ledger, layout)
    found += _cache_units(layout)
    return [unit for unit in found if unit.pieces or unit.pool is Pool.WORK]


def _result_unit(result: Result, layout: Layout, unfinished: set[str]) -> Unit:
    folder = layout.outbox / result.folder
    manifest = f"{result.stem}.json"
    there = _standing(folder, result.files)
    there.sort(key=lambda file: (file.name != manifest, file.name))
    pieces = tuple(
        Piece(name=PurePosixPath(f.name), bytes=f.bytes, mtime_ns=f.mtime_ns, sha256=f.sha256) for f in there
    )
    return Unit(
        pool=Pool.RESULTS,
        key=result.job_id,
        name=display(str(result.folder / result.stem)),
        root=layout.outbox,
        folder=result.folder,
        pieces=pieces,
        moment=result.published_at or 0.0,
        stem=result.stem,
        busy="a new version of it is being made" if result.job_id in unfinished else "",
    )


def _standing(folder: Path, files: Sequence[ResultFile]) -> list[ResultFile]:
    """The files that are there; of two records of one name (a crash left them) the one that fits."""
    found: dict[str, ResultFile] = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = os.lstat(folder / file.name)
            if file.name not in found or status.st_mtime_ns == file.mtime_ns:
                found[file.name] = file
    return list(found.values())


def _source_units(ledger: Ledger, layout: Layout) -> Iterator[Unit]:
    recordings = ledger.drops_of_kind("vc")
    for drop in ledger.drops_in(DropState.DONE):
        if drop.mode == "move" and drop.location:
            yield Unit(
                pool=Pool.SOURCES,
                key=drop.id,
                name=display(drop.relative),
                root=layout.inbox,
                folder=PurePosixPath(HIDDEN, "done", drop.id),
                pieces=_source_pieces(drop, layout.done(drop.id)),
                moment=drop.claimed_at if drop.ended_at is None else drop.ended_at,
                recording=drop.id in recordings,
            )


def _source_pieces(drop: Drop, folder: Path) -> tuple[Piece, ...]:
    """The dropped file with its hash; of its companions only the ledger's word that they are ours."""
    pieces = []
    for member in drop.members:
        name = below(drop, member)
        with contextlib.suppress(OSError):
            status = os.lstat(folder / name)
            own = member == drop.relative
            pieces.append(
                Piece(
                    name=name,
                    bytes=drop.stamp[1] if own else status.st_size,
                    mtime_ns=drop.stamp[2] if own else None,
                    sha256=drop.sha256 if own else None,
                )
            )
    return tuple(pieces)


def _work_units(ledger: Ledger, layout: Layout) -> Iterator[Unit]:
    for root, place in ((layout.state, layout.work_root), (layout.outbox, layout.publishing_root)):
        for entry in _folders(place):
            job = ledger.job(entry.name)
            if job is not None and job.state.ended:
                yield _work_unit(root, place / entry.name)
    for entry in _folders(layout.spool("any").parent):
        drop = ledger.drop(entry.name)
        if drop is not None and drop.state in (DropState.DONE, DropState.FAILED):
            yield _work_unit(layout.state, layout.spool(drop.id))


def _work_unit(root: Path, place: Path) -> Unit:
    pieces, newest = [], 0.0
    with contextlib.suppress(FileNotFoundError):  # its worker tidied up just now
        newest = os.lstat(place).st_mtime
    for directory, _, names in os.walk(place):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                pieces.append(Piece(name=PurePosixPath(path.relative_to(place)), bytes=status.st_size))
                newest = max(newest, status.st_mtime)
    folder = PurePosixPath(place.relative_to(root))
    return Unit(
        pool=Pool.WORK,
        key=str(folder),
        name=str(folder),
        root=root,
        folder=folder,
        pieces=tuple(pieces),
        moment=newest,
    )


def _cache_units(layout: Layout) -> Iterator[Unit]:
    """A unit is a take: its sheet (removed first, as the rest counts as absent then), sound, transcripts."""
    for shelf in _folders(layout.cache):
        takes: dict[str, list[os.DirEntry[str]]] = {}
        with os.scandir(shelf) as entries:
            for entry in entries:
                takes.setdefault(entry.name.partition(".")[0], []).append(entry)
        for key, files in takes.items():
            yield _take_unit(layout, shelf.name, key, files)


def _take_unit(layout: Layout, shelf: str, key: str, files: list[os.DirEntry[str]]) -> Unit:
    pieces, used = [], 0.0
    for entry in sorted(files, key=lambda entry: (entry.name != f"{key}.json", entry.name)):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            pieces.append(Piece(name=PurePosixPath(entry.name), bytes=status.st_size))
            used = max(used, status.st_mtime)
    return Unit(
        pool=Pool.CACHE,
        key=key,
        name=key[:16],
        root=layout.state,
        folder=PurePosixPath("cache", shelf),
        pieces=tuple(pieces),
        moment=used,
    )


def _folders(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if e.is_dir(follow_symlinks=False)), key=lambda e: e.name)
    except FileNotFoundError:
        return []


# -- synced folders ----------------------------------------------------------------------------


def synced_pools(layout: Layout) -> dict[Pool, str]:
    """The pools whose deletions would spread to other machines, with what to do."""
    found = {}
    outbox, inbox = sync_mark(layout.outbox), sync_mark(layout.inbox)
    if outbox is not None:
        found[Pool.RESULTS] = _spreads(outbox)
    if inbox is not None and HIDDEN in missing_ignores(layout.inbox, inbox):
        found[Pool.SOURCES] = _spreads(inbox)
    return found


def _spreads(mark: Path) -> str:
    return (
        f"{display(mark)} says that this folder is synchronised, so deleting here deletes everywhere; set"
        " retention.deletes_propagate: accepted if that is wanted"
    )


# -- what stands in the way --------------------------------------------------------------------


def obstacle(unit: Unit) -> str:
    """Why `unit` may not be removed as it lies there now; empty if it may."""
    if unit.pool in (Pool.CACHE, Pool.WORK):
        return ""
    try:
        with _inside(unit.root, unit.folder) as folder:
            return (
                _kept(unit, folder)
                or _strangers(unit, folder)
                or next(filter(None, (_changed(piece, folder) for piece in unit.pieces)), "")
            )
    except OSError as error:
        return f"its folder cannot be entered without following a link: {error.strerror}"


@contextlib.contextmanager
def _inside(root: Path, folder: PurePosixPath) -> Iterator[int]:
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
    names = [KEEP, *(f"{piece.name}{KEEP}" for piece in unit.pieces)]
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


def _changed(piece: Piece, folder: int) -> str:
    """Size and time first; the contents decide where only the time differs."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(piece.name, flags, dir_fd=folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{display(str(piece.name))} cannot be looked at: {error.strerror}"
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != piece.bytes:
            return f"{display(str(piece.name))} was changed"
        if piece.mtime_ns not in (None, status.st_mtime_ns) and _digest(stream) != piece.sha256:
            return f"{display(str(piece.name))} was changed"
        return f"{display(str(piece.name))} is open" if in_use(descriptor) else ""


def _digest(stream: IO[bytes]) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def in_use(descriptor: int) -> bool:
    """Whether anybody else has the file open or locked; False where the filesystem cannot tell.

    A write lease is granted only on a file that nobody else has open. Whoever opens it while we hold
    the lease makes the kernel send us a signal: SIGURG, which is ignored, instead of SIGIO, which kills.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EWOULDBLOCK)
    return False


def _superseded(unit: Unit, ledger: Ledger) -> str:
    """What the ledger says now that may differ from what it said when the plan was made."""
    if unit.pool is Pool.RESULTS:
        now = ledger.results.find(unit.folder, unit.stem)
        if now is None or (now.job_id, now.published_at) != (unit.key, unit.moment):
            return "a new version of it was made meanwhile"
    if unit.pool is Pool.SOURCES:
        drop = ledger.drop(unit.key)
        if drop is None or drop.state is not DropState.DONE or not drop.location:
            return "it was moved meanwhile"
    return ""


# -- removing ----------------------------------------------------------------------------------


def _remove(unit: Unit) -> None:
    if unit.pool in (Pool.SOURCES, Pool.WORK):
        with contextlib.suppress(FileNotFoundError), _inside(unit.root, unit.folder.parent) as parent:
            shutil.rmtree(unit.folder.name, dir_fd=parent)
        return
    with _inside(unit.root, unit.folder) as folder:
        for piece in unit.pieces:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(piece.name, dir_fd=folder)


def _forget(unit: Unit, ledger: Ledger) -> None:
    if unit.pool is Pool.RESULTS:
        ledger.results.forget(unit.folder, unit.stem)
    elif unit.pool is Pool.SOURCES:
        ledger.end_drop(unit.key, DropState.DONE, "")
