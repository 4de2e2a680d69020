"""`doctor`: try everything that the daemon will need, and say what to do where something is missing.

Looks at folders, disks, clocks, limits and tools by using them as the daemon will; loads no model and
never imports torch. Invariant: it changes nothing that outlasts it, and whatever it finds wrong comes
with advice.
"""

import contextlib
import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.config import Config
from pipeline.errors import VoxspoolError
from pipeline.files import display
from pipeline.intake.ignore import IgnoreList
from pipeline.intake.roots import Mount, RootProblem, mount_of, probe_writable, read_mounts
from pipeline.layout import HIDDEN
from pipeline.retention import EARLIEST_CLOCK, size
from pipeline.synced import SYNCTHING_MARK, missing_ignores, sync_mark

Level = Literal["ok", "warn", "fail"]
OLDEST_PYTHON = (3, 11)
LOW_BYTES, NO_BYTES = 2_000_000_000, 200_000_000
LOW_INODES = 1_000
LARGEST_SKEW_SECONDS = 60.0
QUERY_SECONDS = 20.0
MAX_COUNTED_FOLDERS = 200_000
GPU_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was tried."""

    level: Level
    what: str
    advice: str = ""


def _ask(command: Sequence[str]) -> str | None:
    """What a program prints, None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        answer = subprocess.run(command, capture_output=True, timeout=QUERY_SECONDS, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What surrounds us; tests put something else in its place."""

    python: tuple[int, int] = field(default_factory=lambda: sys.version_info[:2])
    mounts: tuple[Mount, ...] = field(default_factory=read_mounts)
    clock: Callable[[], float] = time.time
    inotify: Path = Path("/proc/sys/fs/inotify")
    ask: Callable[[Sequence[str]], str | None] = _ask


def examine(config: Config, machine: Machine | None = None) -> list[Finding]:
    """Everything, in the order in which one would mend it."""
    here = machine or Machine()
    return [
        *_python(here),
        *_clock(here),
        *_folders(config, here),
        *_limits(config, here),
        *_sync(config),
        *_tools(),
        *_gpu(here),
        *_ignored(config),
    ]


def render(findings: Iterable[Finding]) -> str:
    """Findings as text for a terminal: one line each, the advice below."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:4}  {finding.what}")
        if finding.advice:
            lines += [f"      {line}" for line in finding.advice.splitlines()]
    return "\n".join(lines) + "\n"


def failed(findings: Iterable[Finding]) -> bool:
    """Whether the daemon cannot work like this."""
    return any(finding.level == "fail" for finding in findings)


def _python(here: Machine) -> Iterator[Finding]:
    version = ".".join(map(str, here.python))
    if here.python < OLDEST_PYTHON:
        yield Finding(level="fail", what=f"Python {version}", advice="Install Python 3.11 or newer.")
    else:
        yield Finding(level="ok", what=f"Python {version}")


def _clock(here: Machine) -> Iterator[Finding]:
    now = here.clock()
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < EARLIEST_CLOCK:
        yield Finding(level="fail", what=f"the clock says {shown}", advice="Set it, or start a time service.")
    else:
        yield Finding(level="ok", what=f"the clock says {shown}")


# -- folders -----------------------------------------------------------------------------------


def _folders(config: Config, here: Machine) -> Iterator[Finding]:
    read_only_inbox = config.intake.source == "leave"
    yield from _folder("inbox", config.inbox_path, here, must_write=not read_only_inbox)
    yield from _folder("outbox", config.outbox_path, here)
    yield from _folder("voices", config.voices_path, here, must_write=False)
    yield from _folder("state", config.state_path, here)
    yield from _state_is_local(config.state_path, here)
    yield from _one_filesystem(config.inbox_path, here)
    for name, path in (("outbox", config.outbox_path), ("state", config.state_path)):
        yield from _space(name, path)


def _folder(name: str, path: Path, here: Machine, *, must_write: bool = True) -> Iterator[Finding]:
    shown = f"{name} {display(path)}"
    if not path.is_dir():
        yield _missing(shown, path)
        return
    if not os.access(path, os.R_OK | os.X_OK):
        yield Finding(level="fail", what=f"{shown} cannot be read", advice=_permission_advice(path))
        return
    mount = mount_of(os.path.realpath(path), here.mounts)
    kind = f"{mount.filesystem}, network" if mount.network else mount.filesystem
    if not must_write:
        yield Finding(level="ok", what=f"{shown} can be read ({kind})")
        return
    try:
        probe_writable(path)
    except RootProblem as error:
        yield Finding(level="fail", what=error.message, advice=error.hint)
        return
    yield Finding(level="ok", what=f"{shown} can be written ({kind})")
    yield from _skew(shown, path, here)


def _missing(shown: str, path: Path) -> Finding:
    if os.path.lexists(path):
        return Finding(level="fail", what=f"{shown} is not a folder", advice="Move it away, or name another.")
    above = next(parent for parent in path.parents if parent.exists())
    advice = f"Mount what belongs there, or make it: mkdir -p '{display(path)}'"
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        advice = f"It is made at the first start. If it should be there already: {advice}"
        return Finding(level="warn", what=f"{shown} does not exist yet", advice=advice)
    what = f"{shown} does not exist and cannot be made in {display(above)}"
    return Finding(level="fail", what=what, advice=advice)


def _permission_advice(path: Path) -> str:
    status = path.stat()
    return (
        f"It belongs to uid {status.st_uid}, gid {status.st_gid}; Voxspool runs as uid {os.geteuid()},"
        f" gid {os.getegid()}: give it access."
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
        yield Finding(level="warn", what=what, advice="Let both use the same time service.")


def _state_is_local(path: Path, here: Machine) -> Iterator[Finding]:
    mount = mount_of(os.path.realpath(path), here.mounts)
    if mount.network:
        yield Finding(
            level="fail",
            what=f"state {display(path)} lies on {mount.filesystem}",
            advice="The ledger needs a local disk: name another folder as `state` in config.yaml.",
        )


def _one_filesystem(inbox: Path, here: Machine) -> Iterator[Finding]:
    """A claim is a rename, which cannot cross from one filesystem to another."""
    hidden = inbox / HIDDEN
    if hidden.is_dir() and hidden.stat().st_dev != inbox.stat().st_dev:
        yield Finding(
            level="fail",
            what=f"{display(hidden)} is on another filesystem than the inbox",
            advice="Unmount it: dropped files are claimed by a rename into it.",
        )
    real = os.path.realpath(inbox)
    for mount in here.mounts:
        if mount.point.startswith(f"{real}/") and HIDDEN not in Path(mount.point).parts:
            yield Finding(
                level="warn",
                what=f"{display(mount.point)} in the inbox is a filesystem of its own ({mount.filesystem})",
                advice="What is dropped there cannot be claimed by a rename; set intake.source to leave.",
            )


def _space(name: str, path: Path) -> Iterator[Finding]:
    try:
        disk = os.statvfs(path)
    except OSError:
        return  # told above
    free = disk.f_bavail * disk.f_frsize
    what = f"{size(free)} free for the {name}"
    level: Level = "fail" if free < NO_BYTES else "warn" if free < LOW_BYTES else "ok"
    yield Finding(level=level, what=what, advice="" if level == "ok" else "Make room on that disk.")
    if disk.f_files and disk.f_favail < LOW_INODES:
        what = f"{disk.f_favail} more files fit on the disk of the {name} (inodes)"
        yield Finding(level="warn", what=what, advice="Remove small files there, or use another disk.")


# -- limits and neighbours ---------------------------------------------------------------------


def _limits(config: Config, here: Machine) -> Iterator[Finding]:
    mount = mount_of(os.path.realpath(config.inbox_path), here.mounts)
    if mount.network or not config.intake.events:
        why = f"{mount.filesystem} tells nothing of other machines" if mount.network else "events: false"
        yield Finding(level="ok", what=f"the inbox is scanned, not watched ({why})")
        return
    try:
        watches = int((here.inotify / "max_user_watches").read_text())
        instances = int((here.inotify / "max_user_instances").read_text())
    except (OSError, ValueError):
        what = "the limits of file events (inotify) cannot be read"
        yield Finding(level="warn", what=what, advice="The inbox is scanned all the same.")
        return
    folders = _count_folders(config.inbox_path)
    what = f"{folders} folders to watch, {watches} watches and {instances} watchers allowed a user"
    if 2 * folders > watches:
        advice = (
            f"sudo sysctl fs.inotify.max_user_watches={max(524_288, 4 * folders)}, or intake.events: false."
        )
        yield Finding(level="warn", what=what, advice=advice)
    else:
        yield Finding(level="ok", what=what)


def _count_folders(inbox: Path) -> int:
    count = 0
    for _, folders, _ in os.walk(inbox):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += 1
        if count >= MAX_COUNTED_FOLDERS:
            break
    return count


def _sync(config: Config) -> Iterator[Finding]:
    for name, root in (("inbox", config.inbox_path), ("outbox", config.outbox_path)):
        mark = sync_mark(root)
        if mark is None:
            continue
        what = f"the {name} is synchronised ({display(mark)})"
        missing = missing_ignores(root, mark) if mark.name == SYNCTHING_MARK else ()
        if not missing:
            yield Finding(level="ok", what=what)
        else:
            advice = (
                f"Put these lines at the top of {display(mark.parent / '.stignore')}, so that claimed and"
                " half-made files stay on this machine:\n" + "\n".join(missing)
            )
            yield Finding(level="warn", what=what, advice=advice)
        if config.retention.deletes_propagate is None:
            what = f"old files in the {name} are reported, not removed: deletions would spread"
            advice = "Set retention.deletes_propagate: accepted if that is wanted."
            yield Finding(level="warn", what=what, advice=advice)


# -- tools -------------------------------------------------------------------------------------


def _tools() -> Iterator[Finding]:
    yield _tool("ffmpeg", _ffmpeg)
    yield _tool("espeak-ng", _espeak)
    yield _tool("pocketsphinx", _pocketsphinx)


def _tool(name: str, look: Callable[[], str]) -> Finding:
    try:
        found = look()
    except (ImportError, OSError, VoxspoolError) as error:
        return Finding(
            level="fail",
            what=f"{name} does not work: {error}",
            advice="Install the requirements again: pip install -r requirements-core.txt",
        )
    return Finding(level="ok", what=f"{name} {found}")


def _ffmpeg() -> str:
    from pipeline.sound.ffmpeg import executable, ffmpeg_version

    version = ffmpeg_version()
    if version == "unknown":
        raise OSError(f"{executable()} does not answer")
    return f"{version} ({executable()})"


def _espeak() -> str:
    from pipeline.sound.espeak_library import version

    return version()


def _pocketsphinx() -> str:
    importlib.import_module("pocketsphinx")
    return importlib.metadata.version("pocketsphinx")


def _gpu(here: Machine) -> Iterator[Finding]:
    answer = here.ask(GPU_QUERY)
    if not answer:
        what = "no NVIDIA GPU: the embedded engine needs none, Chatterbox is slow without"
        yield Finding(level="ok", what=what)
        return
    for line in answer.splitlines():
        yield Finding(level="ok", what=f"GPU {line.strip()}")


def _ignored(config: Config) -> Iterator[Finding]:
    try:
        patterns = IgnoreList(config.intake.ignore).effective()
    except VoxspoolError as error:
        yield Finding(level="fail", what=error.message, advice=error.hint or "Change intake.ignore.")
        return
    what = f"{len(patterns)} patterns of names that are no drops, {len(config.intake.ignore)} of them yours"
    yield Finding(level="ok", what=what, advice=_wrapped(display(pattern) for pattern in patterns))


def _wrapped(words: Iterable[str], width: int = 100) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return "\n".join(lines)
