"""The folders Voxspool works in: on what filesystem each lies, and whether it is still the one we mean.

A lost mount leaves an empty folder that looks right. A marker file with a UUID in each root, and the
device number, tell them apart. Knows nothing of what the folders hold. Invariant: after `Root.check`
returned, the path led to the marked folder a moment ago; otherwise it raised RootProblem.
"""

import contextlib
import errno
import json
import os
import stat
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath

from pipeline.errors import EnvironmentFailure
from pipeline.files import move_new
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.mounts import Mount, mount_of, read_mounts

MARKER_NAME = ".voxspool-root"
_MARKER_LIMIT_BYTES = 4096
_READ_ONLY_ERRNOS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

# Here a folder's own times change with every name in it, so an unchanged folder need not be listed again.
HONEST_FOLDER_TIMES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "zfs", "overlay"})


class RootProblem(EnvironmentFailure):
    """A root is not there, not itself, or cannot be written to; nothing is scanned or published."""

    code = "root"


class Role(StrEnum):
    """What a root is for."""

    INBOX = "inbox"
    OUTBOX = "outbox"
    VOICES = "voices"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What stands in a root's marker file."""

    uuid: str
    role: str
    created: str

    def as_json(self) -> str:
        """The marker as it is written, one line."""
        return json.dumps({"uuid": self.uuid, "role": self.role, "created": self.created}) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root as it was when it was opened. `marker` is None where the inbox is read-only."""

    path: Path
    role: Role
    mount: Mount
    device: int
    inode: int
    marker: Marker | None

    @property
    def network(self) -> bool:
        """Whether it lies on a network filesystem, or one that hides changes as those do."""
        return self.mount.network

    @property
    def watchable(self) -> bool:
        """Whether change events can be relied on as a hint."""
        return not self.mount.unseen

    @property
    def honest_times(self) -> bool:
        """Whether an unchanged folder time means an unchanged set of names."""
        return self.mount.filesystem in HONEST_FOLDER_TIMES

    @property
    def note(self) -> str:
        """What a person should know of this root; empty if there is nothing."""
        if self.marker is None:
            return (
                f"{self.path} is read-only and carries no mark: only its device number tells if it is lost."
            )
        return ""

    def check(self) -> None:
        """Raise RootProblem unless the path still leads to the folder that was opened."""
        status = _status(self.path, self.role)
        if status.st_dev != self.device:
            raise RootProblem(
                f"The {self.role} {self.path} is on another filesystem than before: "
                "something was mounted over it, or unmounted from it.",
                hint="Mount what belongs there. Then start Voxspool again if the problem stays.",
            )
        if self.marker is not None:
            _demand(self.path, self.role, read_marker(self.path), self.marker.uuid)


def memory_key(role: Role, path: Path) -> str:
    """Under which name the ledger remembers a root's mark."""
    return f"root {role} {path}"


def carries_mark(path: Path, role: Role) -> bool:
    """Whether a folder is marked as such a root of somebody's."""
    try:
        marker = read_marker(path)
    except RootProblem:
        return False
    return marker is not None and marker.role == role


def open_root(
    path: Path,
    role: Role,
    *,
    expected_uuid: str | None = None,
    mounts: tuple[Mount, ...] | None = None,
    leave_marker: bool = True,
) -> Root:
    """Open a folder as a root: find its filesystem, read its marker or leave one.

    `expected_uuid` is what the caller remembers of it; without `leave_marker` the folder is not changed.
    Raises RootProblem where the folder is missing, carries another mark, has lost its mark, or cannot
    take one; only an inbox may be read-only.
    """
    real = Path(os.path.realpath(path))
    status = _status(real, role)
    marker = read_marker(real)
    if expected_uuid is not None:
        _demand(real, role, marker, expected_uuid)
    if marker is not None and marker.role != role:
        raise RootProblem(
            f"{real} is marked as Voxspool's {marker.role} and cannot be its {role} as well.",
            hint=f"Give the {role} a folder of its own, or delete {MARKER_NAME} in it if the mark is wrong.",
        )
    known = read_mounts() if mounts is None else mounts
    return Root(
        path=real,
        role=role,
        mount=mount_of(str(real), known),
        device=status.st_dev,
        inode=status.st_ino,
        marker=marker or (_leave_marker(real, role) if leave_marker else None),
    )


def check_roots(ledger: Ledger, layout: Layout) -> None:
    """Raise RootProblem unless state, inbox and outbox carry the marks that they are remembered by.

    What is missing in a folder that is away is not gone: so this is asked before anything is concluded
    from it, and before anything is written to it.
    """
    for role in (Role.STATE, Role.INBOX, Role.OUTBOX):
        check_root(ledger, layout, role)


def check_root(ledger: Ledger, layout: Layout, role: Role) -> None:
    """The same for one of them."""
    path: Path = getattr(layout, role.value)
    check_mark(path, role, ledger.meta(memory_key(role, path)))


def check_mark(path: Path, role: Role, uuid: str | None) -> None:
    """Raise RootProblem unless a folder carries the mark `uuid`; None: it never had one."""
    if uuid is not None:
        _status(path, role)
        _demand(path, role, read_marker(path), uuid)


def _status(path: Path, role: Role) -> os.stat_result:
    """The stat result of a root's folder; RootProblem if there is no folder."""
    try:
        status = path.stat()
    except OSError as error:
        raise RootProblem(
            f"The {role} {path} cannot be reached: {error.strerror}.",
            hint="Create the folder, or mount what belongs there.",
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise RootProblem(f"The {role} {path} is not a folder.", hint="Set another path in config.yaml.")
    return status


def read_marker(path: Path) -> Marker | None:
    """The marker of the folder `path`, None if there is none; RootProblem if it cannot be understood."""
    try:
        with open(path / MARKER_NAME, "rb") as stream:
            values = json.loads(stream.read(_MARKER_LIMIT_BYTES))
        return Marker(
            uuid=str(values["uuid"]), role=str(values["role"]), created=str(values.get("created", ""))
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RootProblem(
            f"The mark {path / MARKER_NAME} cannot be read: {error.strerror}.",
            hint="Look whether the folder is still mounted, and who owns the file.",
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RootProblem(
            f"The mark {path / MARKER_NAME} is damaged.", hint="Delete it if this is the right folder."
        ) from error


def _demand(path: Path, role: Role, marker: Marker | None, expected_uuid: str) -> None:
    """Raise RootProblem unless `marker` is the expected one."""
    if marker is not None and marker.uuid == expected_uuid:
        return
    content = json.dumps({"uuid": expected_uuid, "role": role.value})
    command = f"echo '{content}' > {path / MARKER_NAME}"
    hint = f"Mount it again. If this is the right folder, write the mark: {command}"
    if marker is None:
        raise RootProblem(
            f"The {role} {path} has lost its mark {MARKER_NAME}: it may not be mounted.", hint=hint
        )
    raise RootProblem(f"The {role} {path} carries another mark than before: it is another folder.", hint=hint)


def _leave_marker(path: Path, role: Role) -> Marker | None:
    """Mark a folder on first use; None for an inbox that is read-only."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    marker = Marker(uuid=str(uuid.uuid4()), role=role.value, created=created)
    beside = path / f".{os.urandom(4).hex()}.voxspool-tmp"
    try:
        beside.write_text(marker.as_json(), encoding="utf-8")
        try:
            move_new(beside, path / MARKER_NAME)
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        return read_marker(path)
    except OSError as error:
        if role is Role.INBOX and error.errno in _READ_ONLY_ERRNOS:
            return None
        raise _unwritable(path, error) from error
    return marker


def _unwritable(path: Path, error: OSError) -> RootProblem:
    """Why nothing can be written to a root."""
    return RootProblem(
        f"Nothing can be created, renamed and deleted in {path}: {error.strerror}.",
        hint=f"Voxspool runs as uid {os.geteuid()}, gid {os.getegid()}: give it write access to the folder.",
    )


def probe_writable(path: Path) -> None:
    """Create, rename and delete a hidden file in `path`; RootProblem where one of them fails."""
    try:
        try_writing(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def prove_writable(layout: Layout, folder: PurePosixPath) -> None:
    """Raise the OSError that a result in this subfolder of the outbox, or what is there of it, would meet."""
    there = (layout.outbox / place for place in (folder, *folder.parents))
    try_writing(next((place for place in there if place.is_dir()), layout.outbox))


def try_writing(path: Path) -> None:
    """The same; the OSError is passed on as it is, with the name of the folder."""
    first = path / f".{os.urandom(4).hex()}.voxspool-probe"
    second = first.with_name(first.name + "2")
    try:
        first.write_bytes(b"x")
        os.rename(first, second)
        second.unlink()
    except OSError as error:
        for left in (first, second):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
        error.filename, error.filename2 = str(path), None
        raise
