"""The few file operations that everything else's safety rests on.

Knows the filesystem, not what the files mean. Invariant: after any function here returns, the
named file is either whole or as it was before; no reader ever sees half of one.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

COPY_BLOCK_BYTES = 1 << 20
# "The machine is at fault": full, over quota, read-only, gone, failing.
ENVIRONMENT_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO}
    | {errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.EREMOTEIO}
    | {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOLCK}
)
# Filesystems that cannot fsync a directory or make a hard link answer with one of these.
_UNSUPPORTED_ERRNOS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS})
_NO_LINK_ERRNOS = _UNSUPPORTED_ERRNOS | {errno.EMLINK}


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
    temporary = path.with_name(f".{os.urandom(4).hex()}.voxspool-tmp")
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
    """Copy the bytes of `source` into the new file `target`, durably; a half copy is taken back."""
    with open(source, "rb") as reader, open(target, "xb") as writer:
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
    beside = target.with_name(f".{os.urandom(4).hex()}.voxspool-tmp")
    try:
        copy(source, beside)
        _rename_new(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_dir(target.parent)
    source.unlink()


def _rename_new(source: Path, target: Path) -> None:
    """Rename that fails with FileExistsError if `target` exists.

    link() is the only portable atomic way to refuse; where links are unsupported (exFAT, some
    network shares) the name is looked up first, which leaves a window of microseconds.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK_ERRNOS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        os.rename(source, target)
        return
    os.unlink(source)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's contents."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; never follows a symbolic link, never blocks on a FIFO.

    Raises OSError(ELOOP) for a link and OSError(EINVAL) for anything that is not a regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket: not the machine's fault, as ENXIO is elsewhere
            raise OSError(errno.EINVAL, "not a regular file", str(path)) from error
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
    return (status.st_mode & 0o170000) == 0o100000


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
