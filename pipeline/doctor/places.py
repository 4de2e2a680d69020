"""The folders: are they there, are they the right ones, can they be used as the daemon will use them?

Rights are tried by really creating, renaming and deleting a file, since neither modes nor owners tell what
a file server will say. Invariant: what is created is gone afterwards, whatever happens in between.
"""

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.doctor.finding import Finding, Machine, failure, warning, well
from pipeline.files import display
from pipeline.intake.roots import Role, RootProblem, memory_key, open_root, probe_writable
from pipeline.layout import HIDDEN, Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.mounts import Mount, mount_of

LARGEST_SKEW_SECONDS = 60.0
MAX_FOLDERS = 10_000
MAX_NAMED = 3
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def examine(config: Config, ledger: Ledger | None, here: Machine) -> Iterator[Finding]:
    """What is wrong with the four folders, and with those that Voxspool makes in them."""
    layout = layout_of(config)
    leaves = config.intake.source == "leave"
    yield from _user(layout)
    yield from _folder("inbox", layout.inbox, here, must_write=not leaves)
    yield from _folder("outbox", layout.outbox, here)
    yield from _folder("voices", layout.voices, here, must_write=False)
    yield from _folder("state", layout.state, here)
    yield from _made_by_us(layout, leaves=leaves)
    yield from _marks(layout, ledger)
    yield from _not_mounted(layout, here)
    yield from _state_is_local(layout.state, here)
    yield from _in_memory(layout, here)
    yield from _one_filesystem(layout.inbox, here)
    yield from _measures(config.metrics_path)
    if not leaves:
        yield from _files_can_be_taken(layout.inbox)


def _user(layout: Layout) -> Iterator[Finding]:
    """Rights are those of who asks: so ask as the daemon."""
    with contextlib.suppress(OSError):
        owner = layout.lock_file.stat().st_uid
        if owner != os.geteuid():
            what = f"you are uid {os.geteuid()}, and Voxspool last ran as uid {owner}: rights may differ"
            yield warning(what, f"sudo -u '#{owner}' python3 daemon.py doctor")


def _folder(name: str, path: Path, here: Machine, *, must_write: bool = True) -> Iterator[Finding]:
    shown = f"{name} {display(path)}"
    if not path.is_dir():
        yield _missing(shown, path)
        return
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        yield failure(f"{shown} cannot be read", _rights(path))
        return
    mount = mount_of(os.path.realpath(path), here.mounts)
    kind = f"{mount.filesystem}, network" if mount.network else mount.filesystem
    if not must_write:
        yield well(f"{shown} can be read ({kind})")
        return
    refused = _refused(path, mount)
    if refused is not None:
        yield refused
        return
    yield well(f"{shown} can be written ({kind})")
    yield from _skew(shown, path, here)


def _missing(shown: str, path: Path) -> Finding:
    if os.path.lexists(path):
        return failure(f"{shown} is not a folder", "Move it away, or name another.")
    above = next(parent for parent in path.parents if parent.exists())
    advice = f"Mount what belongs there, or make it: mkdir -p '{display(path)}'"
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK, effective_ids=True):
        advice = f"It is made at the first start. If it should be there already: {advice}"
        return warning(f"{shown} does not exist yet", advice)
    return failure(f"{shown} does not exist and cannot be made in {display(above)}", advice)


def _refused(path: Path, mount: Mount | None = None) -> Finding | None:
    """Try to create, rename and delete a file; what to do depends on what the disk answers."""
    try:
        probe_writable(path)
    except RootProblem as error:
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        return failure(error.message, _to_write_again(number, path, mount))
    return None


def _to_write_again(number: int | None, path: Path, mount: Mount | None) -> str:
    if number == errno.EROFS:
        point = display(mount.point) if mount else display(path)
        return (
            f"It is mounted read-only: sudo mount -o remount,rw '{point}'. If nobody wanted that, the kernel"
            " did it after an error of the disk: look at sudo dmesg first."
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"Make room there: df -h '{display(path)}'; df -i '{display(path)}'; quota"
    if number in (errno.EACCES, errno.EPERM):
        return _rights(path)
    return "Look at sudo dmesg, and whether what is mounted there answers: ls -la"


def _rights(path: Path) -> str:
    status = path.stat()
    return (
        f"It belongs to uid {status.st_uid}, gid {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o};"
        f" Voxspool runs as uid {os.geteuid()}, gid {os.getegid()}:"
        f" sudo chown {os.geteuid()}:{os.getegid()} '{display(path)}', or on a share give that user the right"
        " to create, rename and delete."
    )


def _skew(shown: str, path: Path, here: Machine) -> Iterator[Finding]:
    """A file server's clock against ours: settling and retention compare the two."""
    probe = path / f".{os.urandom(4).hex()}.voxspool-probe"
    try:
        probe.touch()
        theirs = probe.stat().st_mtime
    finally:
        with contextlib.suppress(FileNotFoundError):
            probe.unlink()
    skew = theirs - here.clock()
    if abs(skew) > LARGEST_SKEW_SECONDS:
        direction = "ahead of" if skew > 0 else "behind"
        what = f"the clock of {shown} is {abs(skew):.0f} s {direction} this machine's"
        yield warning(what, "Let both use the same time service: sudo timedatectl set-ntp true on each.")


def _made_by_us(layout: Layout, *, leaves: bool) -> Iterator[Finding]:
    """The folders that the daemon made at its first start may have got another owner since."""
    ours = [layout.failed, layout.publishing_root, layout.cache, layout.logs, layout.work_root]
    ours += [] if leaves else [layout.claimed_root, layout.done_root]
    refused = [found for path in ours if path.is_dir() and (found := _refused(path)) is not None]
    yield from refused
    if not refused and any(path.is_dir() for path in ours):
        yield well("files can be created, renamed and deleted in failed/ and in the folders that are ours")


def _marks(layout: Layout, ledger: Ledger | None) -> Iterator[Finding]:
    """Is each root the folder that the ledger remembers?"""
    for role, path in ((Role.INBOX, layout.inbox), (Role.OUTBOX, layout.outbox)):
        expected = ledger.meta(memory_key(role, path)) if ledger else None
        if expected is None or not path.is_dir():
            continue
        try:
            open_root(path, role, expected_uuid=expected, leave_marker=False)
        except RootProblem as error:
            yield failure(error.message, error.hint)


def _not_mounted(layout: Layout, here: Machine) -> Iterator[Finding]:
    """What /etc/fstab wants to be mounted at or above one of our folders, and is not."""
    wanted = _mount_points(here.fstab)
    mounted = {mount.point for mount in here.mounts}
    paths = {"inbox": layout.inbox, "outbox": layout.outbox, "voices": layout.voices, "state": layout.state}
    for name, path in paths.items():
        for point in (path, *path.parents):
            if str(point) in wanted and str(point) not in mounted:
                what = f"the {name} lies below {display(point)}, which /etc/fstab wants mounted and is not"
                yield failure(what, f"sudo mount '{display(point)}'")


def _mount_points(fstab: Path) -> set[str]:
    with contextlib.suppress(OSError):
        lines = fstab.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
        return {words[1].replace("\\040", " ") for words in fields if len(words) > 1} - {"/", "none", "swap"}
    return set()


def _state_is_local(path: Path, here: Machine) -> Iterator[Finding]:
    mount = mount_of(os.path.realpath(path), here.mounts)
    if mount.network:
        yield failure(
            f"state {display(path)} lies on {mount.filesystem}",
            "The ledger needs a local disk: stop Voxspool, move the folder, and name the new one as `state`"
            " in config.yaml.",
        )


def _in_memory(layout: Layout, here: Machine) -> Iterator[Finding]:
    paths = {"inbox": layout.inbox, "outbox": layout.outbox, "state": layout.state}
    for name, path in paths.items():
        kind = mount_of(os.path.realpath(path), here.mounts).filesystem
        if kind in IN_MEMORY:
            what = f"the {name} {display(path)} lies in memory ({kind}) and is gone after a restart"
            yield warning(what, f"Name a folder on a disk as `{name}` in config.yaml.")


def _one_filesystem(inbox: Path, here: Machine) -> Iterator[Finding]:
    """A claim is a rename, which cannot cross from one filesystem to another."""
    hidden = inbox / HIDDEN
    if hidden.is_dir() and hidden.stat().st_dev != inbox.stat().st_dev:
        yield failure(
            f"{display(hidden)} is on another filesystem than the inbox",
            f"Dropped files are claimed by a rename into it: sudo umount '{display(hidden)}'",
        )
    real = os.path.realpath(inbox)
    for mount in here.mounts:
        if mount.point.startswith(f"{real}/") and HIDDEN not in Path(mount.point).parts:
            yield warning(
                f"{display(mount.point)} in the inbox is a filesystem of its own ({mount.filesystem})",
                "What is dropped there cannot be claimed by a rename; set intake.source to leave.",
            )


def _measures(file: Path | None) -> Iterator[Finding]:
    """Will node_exporter find what we write?"""
    if file is None:
        return
    if file.suffix != ".prom":
        what = f"metrics.file is {display(file.name)}; node_exporter reads only names that end in .prom"
        yield warning(what, "Give it such a name in config.yaml.")
    folder = file.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)):
        what = f"the measures cannot be written to {display(folder)}"
        advice = f"sudo install -d -o {os.geteuid()} '{display(folder)}', or name another in config.yaml."
        yield warning(what, advice)


def _files_can_be_taken(inbox: Path) -> Iterator[Finding]:
    """Whoever makes a subfolder decides on its rights, and a file in it can be read but not taken."""
    locked, sticky = [], []
    for folder in _subfolders(inbox):
        with contextlib.suppress(OSError):
            status = folder.stat()
            if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True) and folder != inbox:
                locked.append(folder)
            if status.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid):
                sticky.append(folder)
    if locked:
        yield failure(f"files cannot be taken from {_named(locked)}", _rights(locked[0]))
    if sticky:
        what = f"only its owner may take a file from {_named(sticky)} (sticky bit)"
        yield failure(what, f"sudo chmod -t '{display(sticky[0])}', and let a shared group write there.")


def _subfolders(inbox: Path) -> Iterator[Path]:
    """The inbox and what is not hidden below it, as far as one wants to wait."""
    for path, folders, _ in itertools.islice(os.walk(inbox), MAX_FOLDERS):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield Path(path)


def _named(folders: list[Path]) -> str:
    more = len(folders) - MAX_NAMED
    return ", ".join(map(display, folders[:MAX_NAMED])) + (f" and {more} more" if more > 0 else "")
