"""Taking a dropped file out of the inbox, and bringing it to its last place.

Knows the layout and renames; nothing of what files mean. Invariants: a claim is one rename on one
filesystem; whatever goes wrong, the file is either where it was or whole at its new place; no link that
somebody puts into the inbox or the outbox, at whatever moment, leads a file in or out.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from pipeline import crash
from pipeline.errors import EnvironmentFailure
from pipeline.files import (
    ENVIRONMENT_ERRNOS,
    brief_lock,
    copy,
    display,
    fsync_dir,
    held_folder,
    move_new,
    open_regular,
    sha256_of,
    shown_size,
    stat_is_regular,
)
from pipeline.intake.roots import check_roots
from pipeline.jobs.job import Drop, DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.naming import distinct_name, numbered
from pipeline.outbox import Failure, failed_name, failure_of, remove_stale_notes, write_failure_notes
from pipeline.space import look

Stamp = tuple[int, int, int, int]
SPOOL_MARGIN_BYTES = 16 * 2**20
"must be free beyond a copy that is made for `source: leave`"
# What a disk answers to a name that it cannot hold: Windows' own, undecodable or too long ones.
_NAME_ERRNOS = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG})


class NotReady(Exception):
    """The file cannot be taken now; the text says why. It stays where it is and is looked at again."""


class Gone(Exception):
    """The file is no longer there."""


def stamp_of(path: Path) -> Stamp:
    """Inode, size, mtime and ctime; raises Gone or NotReady."""
    try:
        status = os.lstat(path)
    except FileNotFoundError as error:
        raise Gone from error
    except OSError as error:
        raise NotReady(f"it cannot be looked at: {error.strerror}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def take(layout: Layout, drop: Drop, shared: frozenset[str] = frozenset()) -> tuple[str, Stamp]:
    """Claim every member of `drop`, itself first; returns its SHA-256 and stamp after the claim.

    Members in `shared`, which other job files name too, are copied. A writer that still holds the
    file open goes on writing into it wherever it lies: so it is looked at once more after the claim,
    and put back if it changed.
    """
    if drop.mode == "leave":
        return _copy_to_spool(layout, drop)
    for member in drop.members:
        _bring(layout, drop, member, copy if member in shared else os.rename)
        crash.point("claim.taken")
    try:
        with held_folder(layout.inbox, _room(layout, drop)[1]) as folder:
            return _proven(folder / drop.name, drop.stamp[:3])
    except NotReady:
        put_back(layout, drop)
        raise


def made_durable(layout: Layout, drops: Iterable[Drop]) -> None:
    """The renames of these claims survive a power cut from now on."""
    moved = [drop for drop in drops if drop.mode != "leave"]
    above = {(layout.inbox / drop.relative).parent for drop in moved}
    within = {layout.claimed(drop.id) for drop in moved} | {layout.claimed_root} if moved else set()
    for folder in within | above:
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError
        ):  # taken away since, and nothing to keep
            fsync_dir(folder)


def below(drop: Drop, member: str) -> PurePosixPath:
    """A member's path inside the drop's own folder; parts are spelled as the job file's names are."""
    inside = PurePosixPath(member).relative_to(drop.folder)
    return inside if member == drop.relative else PurePosixPath(unicodedata.normalize("NFC", str(inside)))


def _proven(path: Path, expected: tuple[int, int, int]) -> tuple[str, Stamp]:
    before = _comparable(stamp_of(path), expected)
    try:
        with open_regular(path) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise NotReady(f"it cannot be read: {error.strerror}") from error
    if before[:3] != expected or _comparable(stamp_of(path), expected)[:3] != expected:
        raise NotReady("it changed while it was being taken")
    return digest, before


def _comparable(stamp: Stamp, expected: tuple[int, int, int]) -> Stamp:
    """Without the inode where none is expected: it means nothing on that filesystem."""
    return (stamp[0] if expected[0] else 0, *stamp[1:])


def _room(layout: Layout, drop: Drop) -> tuple[Path, PurePosixPath]:
    """The root, and the folder in it, where a claimed drop's files lie."""
    root = layout.state if drop.mode == "leave" else layout.inbox
    return root, PurePosixPath(layout.source_folder(drop.id, drop.mode).relative_to(root))


def _bring(layout: Layout, drop: Drop, member: str, bring: Callable[[Path, Path], None]) -> None:
    """Bring one member into the drop's folder; raises Gone, NotReady or EnvironmentFailure."""
    source = PurePosixPath(member)
    root, room = _room(layout, drop)
    target = room / below(drop, member)
    try:
        with held_folder(root, target.parent, make=True) as there:
            if os.path.lexists(there / target.name):
                _forget_second_name(layout, source, there / target.name)
                return  # a claim resumed after a crash; another file may lie at `source` by now
            with held_folder(layout.inbox, source.parent) as here:
                bring(here / source.name, there / target.name)
    except FileNotFoundError as error:
        if os.path.lexists(root / target):
            return  # a lost reply of a network filesystem
        raise Gone from error
    except OSError as error:
        raise _refused(error) from error


def _forget_second_name(layout: Layout, source: PurePosixPath, claimed: Path) -> None:
    """A crash while a claim was undone may leave the file under both names: it must not be taken twice."""
    with contextlib.suppress(OSError), held_folder(layout.inbox, source.parent) as here:
        if os.path.samestat(os.lstat(here / source.name), os.lstat(claimed)):
            os.unlink(here / source.name)


def _refused(error: OSError) -> Exception:
    if error.errno == errno.EXDEV:
        return NotReady(
            "it lies on another filesystem than the inbox and cannot be claimed by a rename;"
            " set intake.source to leave, or drop it into the inbox's own filesystem"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotReady(
            f"it cannot be moved: permission denied; give user {os.geteuid()} write access to its folder"
        )
    if error.errno in ENVIRONMENT_ERRNOS:
        return error
    return NotReady(f"it cannot be moved now: {error.strerror}")


def _copy_to_spool(layout: Layout, drop: Drop) -> tuple[str, Stamp]:
    folder = layout.spool(drop.id)
    shutil.rmtree(folder, ignore_errors=True)
    _refuse_what_does_not_fit(layout, drop)
    for member in drop.members:
        _bring(layout, drop, member, copy)
        crash.point("claim.copied")
    try:
        with held_folder(layout.inbox, drop.folder) as original:
            digest, stamp = _proven(original / drop.name, drop.stamp[:3])
    except OSError as error:
        raise _refused(error) from error
    if sha256_of(folder / drop.name) != digest:
        raise NotReady("it changed while it was being copied")
    return digest, stamp


def _refuse_what_does_not_fit(layout: Layout, drop: Drop) -> None:
    """A copy that is too large for the disk waits by itself; smaller ones go first."""
    needed = sum(stamp_of(layout.inbox / member)[1] for member in drop.members)
    free = look(layout.state).bytes
    if needed + SPOOL_MARGIN_BYTES > free:
        raise NotReady(
            f"its copy needs {shown_size(needed)} on the disk of the state, where {shown_size(free)} are free"
        )


def put_back(layout: Layout, drop: Drop) -> None:
    """Undo a claim: every member returns to where it lay, or beside it where that name is taken."""
    folder = layout.source_folder(drop.id, drop.mode)
    if drop.mode != "leave":
        for member in drop.members:
            _return(layout, folder / below(drop, member), PurePosixPath(member))
    shutil.rmtree(folder, ignore_errors=True)


def put_back_orphan(layout: Layout, folder: Path) -> list[str]:
    """A claimed folder that nobody knows: all in it returns to the root of the inbox; names it."""
    inside = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = sorted(str(path.relative_to(folder)) for path in inside)
    for name in names:
        _return(layout, folder / name, PurePosixPath(name))
    shutil.rmtree(folder, ignore_errors=True)
    return names


def _return(layout: Layout, source: Path, original: PurePosixPath) -> None:
    """Back to where it lay; where no folder can be any more, into the inbox itself."""
    if not os.path.lexists(source):
        return
    with contextlib.ExitStack() as held:
        try:
            folder = held.enter_context(held_folder(layout.inbox, original.parent, make=True))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            folder = layout.inbox
        _move_beside(source, folder / original.name)  # a shared reference is there still


def _same_bytes(first: Path, second: Path) -> bool:
    try:
        both = stat_is_regular(os.lstat(first)) and stat_is_regular(os.lstat(second))
        return both and sha256_of(first) == sha256_of(second)
    except OSError:
        return False  # one is not there or cannot be read: they are kept apart


def _move_beside(source: Path, target: Path) -> Path:
    """Move to `target`, or to `target~2`, ... where something else stands there already."""
    for number in range(1, 10_000):
        place = target.with_name(numbered(target.name, number))
        try:
            move_new(source, place)
        except FileExistsError:
            if not _same_bytes(source, place):
                continue
            source.unlink()  # copied before a crash, or the very same came before
        return place
    raise EnvironmentFailure(f"{target.parent} holds too many files called {display(target.name)}.")


def finish_done(layout: Layout, drop: Drop) -> tuple[DropState, str]:
    """The source's last move after success; returns its state and place. Can be repeated."""
    remove_stale_notes(layout, drop)
    if drop.mode == "move":
        target = layout.done(drop.id)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # moved before a crash
            os.rename(layout.claimed(drop.id), target)
        return DropState.DONE, str(target.relative_to(layout.inbox))
    with contextlib.suppress(FileNotFoundError):  # deleted before a crash
        shutil.rmtree(layout.source_folder(drop.id, drop.mode))
    return DropState.DONE, ""


def end_if_complete(layout: Layout, ledger: Ledger, drop_id: str) -> DropState | None:
    """Bring a drop to its last place once all its jobs have ended; None while some have not.

    Raises RootProblem where inbox or outbox is away, or went away meanwhile: then nothing is noted, and all
    of it is done again. What is noted outlives a power cut.
    """
    check_roots(ledger, layout)
    ending = _ending(ledger, drop_id)
    if ending is None:
        return None
    with _brought_near(layout, *ending) as near, brief_lock(layout.state / "sources.lock"):
        ending = _ending(ledger, drop_id)
        if ending is None:  # somebody else was quicker
            return None
        drop, failures = ending
        state, location = (
            finish_failed(layout, drop, failures, near) if failures else finish_done(layout, drop)
        )
        check_roots(ledger, layout)
        _make_end_durable(layout, drop, state, location)
        crash.point("end.moved")
        ledger.end_drop(drop_id, state, location)
        crash.point("end.entered")
        return state


def _ending(ledger: Ledger, drop_id: str) -> tuple[Drop, list[Failure]] | None:
    """The drop and what went wrong with it, if all its jobs have ended and its source has not moved yet."""
    drop, jobs = ledger.drop(drop_id), ledger.jobs_of(drop_id)
    if drop is None or drop.state is not DropState.CLAIMED or not all(job.state.ended for job in jobs):
        return None
    return drop, [failure_of(job) for job in jobs if job.state is not JobState.DONE]


@contextlib.contextmanager
def _brought_near(layout: Layout, drop: Drop, failures: list[Failure]) -> Iterator[Path]:
    """A folder on the outbox's own filesystem from where the drop's files can be renamed into `failed/`.

    That may take a copy, of minutes to a slow share: nobody else has to wait for it.
    """
    claimed = layout.claimed(drop.id)
    if not failures or drop.mode == "leave" or not _crosses(claimed, layout.outbox):
        yield claimed
        return
    near = layout.publishing(f"{drop.id}.{os.getpid()}")
    shutil.rmtree(near, ignore_errors=True)
    try:
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            for member in drop.members:
                inside = below(drop, member)
                if stat_is_regular(os.lstat(claimed / inside)):
                    (near / inside).parent.mkdir(parents=True, exist_ok=True)
                    copy(claimed / inside, near / inside)
        yield near
    finally:
        shutil.rmtree(near, ignore_errors=True)


def _crosses(first: Path, second: Path) -> bool:
    """Whether they lie on different filesystems."""
    try:
        return first.stat().st_dev != second.stat().st_dev
    except FileNotFoundError:
        return False  # moved before a crash


def _make_end_durable(layout: Layout, drop: Drop, state: DropState, location: str) -> None:
    """The renames of a last move are on disk before the ledger says so."""
    folders = [layout.claimed_root] if drop.mode != "leave" else []
    if drop.mode == "move" and state is DropState.DONE:
        folders.append(layout.done_root)
    if state is DropState.FAILED and location:  # each folder on the way may be new
        folders += [layout.outbox / folder for folder in PurePosixPath(location).parents]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # somebody took it away
            fsync_dir(folder)


def finish_failed(
    layout: Layout, drop: Drop, failures: list[Failure], near: Path | None = None
) -> tuple[DropState, str]:
    """The source's last move after a failure, with the notes beside it. Can be repeated.

    `near`: where a copy of what was claimed lies, if that is on another filesystem.
    """
    near = near or layout.claimed(drop.id)
    try:
        place = _move_to_failed(layout, drop, near, drop.name, failures)
    except OSError as error:
        if error.errno not in _NAME_ERRNOS:
            raise
        place = _move_to_failed(layout, drop, near, distinct_name(drop.name), failures)
    if drop.mode == "leave":
        shutil.rmtree(layout.spool(drop.id), ignore_errors=True)
        return DropState.FAILED, ""
    for member in drop.members[1:]:
        _move_member(layout, drop, near, member, place.parent)
    if near != layout.claimed(drop.id):  # the copies are to outlive a power cut before the originals go
        for member in drop.members:
            with contextlib.suppress(FileNotFoundError):
                fsync_dir((layout.outbox / place.parent / below(drop, member)).parent)
    shutil.rmtree(layout.claimed(drop.id), ignore_errors=True)
    return DropState.FAILED, str(place)


def _move_to_failed(
    layout: Layout, drop: Drop, near: Path, name: str, failures: list[Failure]
) -> PurePosixPath:
    """Notes first, then the file; returns its place below the outbox."""
    target = failed_name(layout, drop, name=name)
    place = PurePosixPath(target.relative_to(layout.outbox))
    with held_folder(layout.outbox, place.parent, make=True) as folder:
        write_failure_notes(drop, folder / place.name, failures)
        crash.point("end.noted")
        source = near / drop.name
        if os.path.lexists(source):
            _replace_same(source, folder / place.name)
    return place


def _replace_same(source: Path, target: Path) -> None:
    """`failed_name` only names a target that is free or holds the same bytes, when it looks."""
    try:
        move_new(source, target)
    except FileExistsError:
        if not _same_bytes(source, target):
            raise
        source.unlink()


def _move_member(layout: Layout, drop: Drop, near: Path, member: str, folder: PurePosixPath) -> None:
    claimed, source = (root / below(drop, member) for root in (layout.claimed(drop.id), near))
    place = folder / below(drop, member)
    if os.path.lexists(claimed) and not stat_is_regular(os.lstat(claimed)):
        _return(layout, claimed, PurePosixPath(member))  # a link came in its place at the last moment
        return
    if not os.path.lexists(source):
        return
    with held_folder(layout.outbox, place.parent, make=True) as held:
        try:
            _move_beside(source, held / place.name)
        except OSError as error:
            if error.errno not in _NAME_ERRNOS:
                raise
            _move_beside(source, held / distinct_name(place.name))
