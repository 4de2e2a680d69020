"""File events: does the kernel have enough of them left for us?

The limits of inotify are for each user, and others of the same user (Syncthing, editors) use them too. The
inbox is scanned all the same, so nothing here fails.
"""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.doctor.finding import Finding, Machine, warning, well
from pipeline.mounts import mount_of

MAX_COUNTED_FOLDERS = 200_000
LEAST_WATCHES = 524_288
LEAST_WATCHERS = 512
_KEEP = "/etc/sysctl.d/60-inotify.conf"


def examine(config: Config, here: Machine) -> Iterator[Finding]:
    """What stands in the way of being told of changes."""
    mount = mount_of(os.path.realpath(config.inbox_path), here.mounts)
    if mount.network or not config.intake.events:
        why = f"{mount.filesystem} tells nothing of other machines" if mount.network else "events: false"
        yield well(f"the inbox is scanned, not watched ({why})")
        return
    try:
        watches = int((here.inotify / "max_user_watches").read_text())
        watchers = int((here.inotify / "max_user_instances").read_text())
    except (OSError, ValueError):
        what = "the limits of file events (inotify) cannot be read"
        yield warning(what, "The inbox is scanned all the same; intake.events: false says so for good.")
        return
    yield from _limits(config, here, watches, watchers)


def _limits(config: Config, here: Machine, watches: int, watchers: int) -> Iterator[Finding]:
    folders = _count_folders(config.inbox_path)
    used_watches, used_watchers = in_use(here.processes, os.geteuid())
    what = (
        f"{folders} folders to watch; of {watches} watches and {watchers} watchers that a user may have,"
        f" {used_watches} and {used_watchers} are in use"
    )
    if 2 * folders > watches - used_watches:
        yield warning(what, _raise("max_user_watches", max(LEAST_WATCHES, 4 * (folders + used_watches))))
        return
    try:
        here.watch(config.inbox_path)
    except OSError as error:
        if error.errno == errno.EMFILE:
            yield warning(
                f"no more watchers: {what}",
                _raise("max_user_instances", max(LEAST_WATCHERS, 4 * watchers)),
            )
            return
        if error.errno == errno.ENOSPC:
            limit = max(LEAST_WATCHES, 4 * watches)
            yield warning(f"no more watches: {what}", _raise("max_user_watches", limit))
            return
    yield well(what)


def _raise(name: str, limit: int) -> str:
    return (
        f"echo 'fs.inotify.{name}={limit}' | sudo tee -a {_KEEP} && sudo sysctl --system"
        "\nor set intake.events: false: the inbox is then scanned every second or two."
    )


def _count_folders(inbox: Path) -> int:
    count = 0
    for _, folders, _ in itertools.islice(os.walk(inbox), MAX_COUNTED_FOLDERS):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += 1
    return count


def in_use(processes: Path, uid: int) -> tuple[int, int]:
    """Watches and watchers of a user's processes, as far as they may be looked into (proc(5), fdinfo)."""
    watches = watchers = 0
    for process in processes.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid != uid:
                continue
            for handle in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(handle.readlink()) == "anon_inode:inotify":
                        watchers += 1
                        told = (process / "fdinfo" / handle.name).read_text()
                        watches += sum(line.startswith("inotify ") for line in told.splitlines())
    return watches, watchers
