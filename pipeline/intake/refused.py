"""What the machine refused, as a sentence for the person who can mend it.

Knows error numbers, the four roots and what to do about each; decides nothing. Invariant: every sentence
names the root and comes with advice, whichever of our rooms met the error.
"""

import errno
import os
from pathlib import Path

from pipeline.errors import EnvironmentFailure
from pipeline.files import ENVIRONMENT_ERRNOS, display
from pipeline.intake.roots import Role
from pipeline.layout import Layout
from pipeline.space import look

# What we read and write is our own: where we may not, somebody changed the folders.
MACHINE_ERRNOS = ENVIRONMENT_ERRNOS | {errno.EACCES, errno.EPERM}
GOES_ON = "The work then goes on by itself."
# At the start these are waited for; what is denied or missing is for a person to see at once.
HEAL_BY_THEMSELVES = frozenset({"disk_full", "inodes_full", "quota", "read_only", "disk", "share", "machine"})
_SHARE_GONE = frozenset(
    {errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ESHUTDOWN}
    | {errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNABORTED, errno.ECONNRESET}
)
_DISK_FAILS = frozenset({errno.EIO, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV})
_MACHINE_SHORT = {
    errno.ENOMEM: "memory",
    errno.EAGAIN: "processes or memory",
    errno.EMFILE: "open files in this process",
    errno.ENFILE: "open files",
    errno.ENOLCK: "file locks",
}


def refusal(error: OSError, layout: Layout) -> EnvironmentFailure:
    """What happened, where, and what to do."""
    path = _path_of(error, layout)
    role, root = _root_of(path, layout)
    where = f"the {role} {display(root)}" if role else display(path)
    number = error.errno or 0
    if number == errno.ENOSPC:
        return _full(where, root)
    if number == errno.EDQUOT:
        return _failure(
            "quota", f"The disk quota for {where} is used up.", "Free some of it, or have it raised."
        )
    if number == errno.EROFS:
        return read_only(where, root)
    if number in (errno.EACCES, errno.EPERM):
        hint = f"Voxspool runs as uid {os.geteuid()}, gid {os.getegid()}: give it access to the folder."
        return _failure("permission", f"Access to {display(path)} is denied.", hint)
    if number in _DISK_FAILS:
        hint = "Look at the disk and its cable; `dmesg` tells more."
        return _failure("disk", f"The disk of {where} fails ({error.strerror}).", hint)
    if number in _SHARE_GONE:
        hint = f"Look at the server and the network, or mount it anew: {display(root)}."
        return _failure("share", f"The share of {where} does not answer ({error.strerror}).", hint)
    if number in _MACHINE_SHORT:
        what = f"This machine is short of {_MACHINE_SHORT[number]} ({error.strerror})."
        return _failure("machine", what, "See what else runs on it.")
    return EnvironmentFailure(
        f"{display(path)}: {error.strerror or error}.", hint="It is tried again by itself."
    )


def read_only(where: str, root: Path) -> EnvironmentFailure:
    """A root that cannot be written; `where` names it."""
    hint = (
        f"Mount it for writing: mount -o remount,rw {display(root)}. A disk that became so by itself may be"
        " failing; `dmesg` tells."
    )
    return _failure("read_only", f"{_capital(where)} is read-only.", hint)


def _full(where: str, root: Path) -> EnvironmentFailure:
    try:
        free = look(root)
    except OSError:
        free = None
    if free is not None and not free.files:
        what = f"The disk of {where} takes no more files: its inodes are used up."
        return _failure("inodes_full", what, "Make room there by removing small files.")
    return _failure("disk_full", f"The disk of {where} is full.", "Make room there.")


def _failure(code: str, message: str, hint: str) -> EnvironmentFailure:
    return EnvironmentFailure(message, hint=f"{hint} {GOES_ON}", code=code)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _path_of(error: OSError, layout: Layout) -> Path:
    """Of two names, as of a rename, the one that was to be made; the state folder where none is known."""
    name = error.filename2 or error.filename
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else layout.state


def _root_of(path: Path, layout: Layout) -> tuple[Role | None, Path]:
    for role in Role:
        root: Path = getattr(layout, role.value)
        if path == root or root in path.parents:
            return role, root
    return None, path
