"""The few file operations that everything else's safety rests on.

Knows the filesystem, not what the files mean. Invariant: after any function here returns, the
named file is either whole or as it was before; no reader ever sees half of one.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath

from pipeline import crash

COPY_BLOCK_BYTES = 1 << 20
# "The machine is at fault": full, over quota, read-only, gone, failing.
ENVIRONMENT_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO}
    | {errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.EREMOTEIO}
    | {errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNABORTED, errno.ECONNRESET}
    | {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOLCK}
)
# Filesystems that cannot fsync a directory or make a hard link answer with one of these.
_UNSUPPORTED_ERRNOS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS})
# rclone's mounts say EIO; where that is meant, what is tried instead of a link says it again
_NO_LINK_ERRNOS = _UNSUPPORTED_ERRNOS | {errno.EMLINK, errno.EIO}


def fsync_dir(path: Path) -> None:
    """Make renames in `path` durable; filesystems that cannot are left as they are."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED_ERRNOS:
            raise
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the contents of `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def atomic_write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` through a hidden neighbour and a rename."""
    temporary = _hidden_beside(path)
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_dir(path.parent)


def _hidden_beside(path: Path) -> Path:
    """A name to build `path` under; always the same, so that what a crash left is taken up and not left."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
    temporary = path.with_name(f".{digest[:8]}.voxspool-tmp")
    temporary.unlink(missing_ok=True)
    return temporary


def link_or_copy(source: Path, target: Path) -> None:
    """Make the new file `target` hold `source`'s bytes, durably; a hard link where that works."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EXDEV and error.errno not in _NO_LINK_ERRNOS:
            raise
        copy(source, target)
    else:
        fsync_file(target)


def copy(source: Path, target: Path) -> None:
    """Copy the bytes of the regular file `source` into the new file `target`, durably.

    A half copy is taken back. Raises OSError as `open_regular` does: a link is not followed, nothing blocks.
    """
    with open_regular(source) as reader, open(target, "xb") as writer:
        try:
            while block := reader.read(COPY_BLOCK_BYTES):
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def move_new(source: Path, target: Path) -> None:
    """Move `source` to `target` without ever replacing a file that is there (FileExistsError).

    Across filesystems the copy is made durable under a hidden name before the source goes.
    """
    try:
        _rename_new(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    beside = _hidden_beside(target)
    try:
        copy(source, beside)
        _rename_new(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_dir(target.parent)
    crash.point("move.copied")
    source.unlink()


def _rename_new(source: Path, target: Path) -> None:
    """Rename that fails with FileExistsError if `target` exists and is another file.

    link() is the only portable atomic way to refuse; where links are unsupported (exFAT, some
    network shares) the name is looked up first, which leaves a window of microseconds.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(os.lstat(source), os.lstat(target)):
            raise  # else a crash came right after the link, and only the unlink is left to do
    except OSError as error:
        if error.errno not in _NO_LINK_ERRNOS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        os.rename(source, target)
        return
    crash.point("move.linked")
    os.unlink(source)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's contents."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def held_folder(root: Path, folder: str | os.PathLike[str] = "", *, make: bool = False) -> Iterator[Path]:
    """The folder `folder` beneath `root`, as a path that goes on meaning this very folder.

    Each step is opened from the one before it and none may be a link (`root` itself may): whoever swaps
    a folder for a link, before or meanwhile, leads nobody out. `make` creates what is missing. Raises
    OSError with the place as people know it; ELOOP for a link, EINVAL for `..` and the like.
    """
    shown = root / folder
    fd = _walk(root, folder, make)
    here = f"/proc/self/fd/{fd}"  # proc(5): this resolves to the open folder itself, wherever it lies by now
    try:
        yield Path(here)
    except OSError as error:
        _show_as(error, here, str(shown))
        raise
    finally:
        os.close(fd)


def _walk(root: Path, folder: str | os.PathLike[str], make: bool) -> int:
    place, steps = root, _steps(root, folder)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for step in steps:
        place /= step
        outer = fd
        try:
            fd = _step(outer, step, make)
        except OSError as error:
            error.filename = str(place)
            raise
        finally:
            os.close(outer)
    return fd


def _steps(root: Path, relative: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names on the way; OSError(EINVAL) if it does not simply lead downward."""
    path = PurePosixPath(relative)
    if path.is_absolute() or any(part == ".." or "\0" in part for part in path.parts):
        raise OSError(errno.EINVAL, "it leads out of its folder", f"{root}/{path}")
    return path.parts


def _step(outer: int, name: str, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=outer)
    try:
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
    except NotADirectoryError as error:
        if stat.S_ISLNK(os.stat(name, dir_fd=outer, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed") from error
        raise


def _show_as(error: OSError, here: str, shown: str) -> None:
    """Call the held folder in an error as people know it."""
    for attribute in ("filename", "filename2"):
        name = getattr(error, attribute)
        if isinstance(name, str) and name.startswith(here):
            setattr(error, attribute, shown + name[len(here) :])


def open_beneath(root: Path, relative: str | os.PathLike[str]) -> BufferedReader:
    """Open the regular file `relative` beneath `root` for reading, without following any link below it.

    Raises OSError as `held_folder` and `open_regular` do.
    """
    steps = _steps(root, relative)
    if not steps:
        raise OSError(errno.EINVAL, "not a regular file", str(root))
    with held_folder(root, PurePosixPath(*steps[:-1])) as folder:
        return open_regular(folder / steps[-1])


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; never follows a symbolic link, never blocks on a FIFO.

    Raises OSError(ELOOP) for a link and OSError(EINVAL) for anything that is not a regular file. Folders on
    the way are not looked at: where others may change them, use `open_beneath`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket: not the machine's fault, as ENXIO is elsewhere
            raise OSError(errno.EINVAL, "not a regular file", str(path)) from error
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed", str(path)) from error
        raise
    try:
        if not stat_is_regular(os.fstat(fd)):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(fd, "rb")
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise


def stat_is_regular(status: os.stat_result) -> bool:
    """Whether a stat result is that of a regular file."""
    return stat.S_ISREG(status.st_mode)


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[bool]:
    """Hold an exclusive flock on `path` for the block; yields False if another process holds it."""
    with open(path, "a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def brief_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on `path` for the block, waiting for it; for work of milliseconds."""
    with open(path, "a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def display(name: str | bytes | os.PathLike[str]) -> str:
    """A file name as it can be shown, logged and stored: undecodable bytes and controls escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fsdecode(name))


def _escaped(character: str) -> str:
    try:
        raw = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that no file name can hold
        return character.encode("unicode_escape").decode()
    return raw.decode("latin-1").encode("unicode_escape").decode()


def shown_size(size_bytes: float) -> str:
    """A size for people, in powers of ten, three digits at most: 312 MB."""
    size = size_bytes
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
