"""What is mounted where, by the kernel's table alone; no folder is ever touched to find out.

A server that does not answer holds up whoever asks anything of a folder on it, for ever. Knows nothing of
what the folders are for. Invariant: nothing here asks a network filesystem.
"""

import contextlib
import errno
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
MOST_LINKS = 40
# Here other hosts may write without the kernel telling us; all of FUSE counts as such.
NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "smb2", "ncpfs", "9p", "virtiofs", "drvfs", "vboxsf", "prl_fs"}
    | {"vmhgfs", "gpfs", "lustre", "ceph", "afs", "coda", "beegfs", "glusterfs", "ocfs2", "gfs2", "davfs"}
    | {"fuse", "acfs", "orangefs", "pvfs2", "hgfs"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    point: str
    filesystem: str
    source: str
    read_only: bool

    @property
    def network(self) -> bool:
        """Whether other hosts may change what lies here unseen."""
        return self.filesystem in NETWORK_FILESYSTEMS or self.filesystem.startswith("fuse.")

    @property
    def unseen(self) -> bool:
        """Whether no event can be relied on to tell of changes, not even as a hint."""
        return self.network or self.filesystem == "unknown"


def _unescaped(text: str) -> str:
    """Undo the octal escapes of mountinfo: blanks, tabs, newlines and backslashes in names."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


@functools.lru_cache(maxsize=2)
def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """The mounts in the order they were made. Format: proc(5); lines that break it are left out."""
    mounts = []
    for line in text.splitlines():
        fields, dash, after = line.partition(" - ")
        left, right = fields.split(" "), after.split(" ")
        if dash and len(left) >= 6 and len(right) >= 2:
            options = left[5].split(",") + (right[2].split(",") if len(right) > 2 else [])
            mount = Mount(
                point=_unescaped(left[4]),
                filesystem=right[0],
                source=_unescaped(right[1]),
                read_only="ro" in options,
            )
            mounts.append(mount)
    return tuple(mounts)


def read_mounts() -> tuple[Mount, ...]:
    """The mounts of this process; none where there is no /proc."""
    with contextlib.suppress(OSError):
        return parse_mountinfo(MOUNTINFO.read_bytes().decode("utf-8", "surrogateescape"))
    return ()


def mount_of(path: str, mounts: tuple[Mount, ...]) -> Mount:
    """The mount that an absolute path without links lies on: the longest prefix, the last of equals."""
    best = Mount(point="", filesystem="unknown", source="", read_only=False)
    for mount in mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(best.point):
            best = mount
    return best


def real_path(path: Path, mounts: tuple[Mount, ...] | None = None) -> Path:
    """An absolute path without links, but for links on network filesystems: to read those is to ask a server.

    Raises OSError (ELOOP) for a ring of links; what is not there stays as it is named.
    """
    known = read_mounts() if mounts is None else mounts
    parts, real, links = list(reversed(path.parts[1:])), Path("/"), 0
    while parts:
        name = parts.pop()
        here = real.parent if name == ".." else real / name
        target = None if mount_of(str(here), known).network else _link(here)
        if target is None:
            real = here
            continue
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        real = Path("/") if target.is_absolute() else real
        parts.extend(part for part in reversed(target.parts) if part != "/")
    return real


def _link(path: Path) -> Path | None:
    """Where a link leads; None if it is none, or cannot be read."""
    try:
        return path.readlink()
    except OSError:
        return None
