"""What an examination says, and the machine that it looks at.

Knows no check. Invariant: whatever is not well comes with something to do.
"""

import ctypes
import errno
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.mounts import Mount, read_mounts
from pipeline.prune import look_at_clock
from pipeline.retention import Seen

Level = Literal["ok", "warn", "fail"]
QUERY_SECONDS = 20.0
SLOW_QUERY_SECONDS = 120.0
"for what imports torch from a cold disk"
UNSYNCHRONISED_MICROSECONDS = 16_000_000
"the kernel's own bound on the error of its clock: from here on nothing keeps it right"
_IN_MODIFY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was tried."""

    level: Level
    what: str
    advice: str = ""


def well(what: str) -> Finding:
    """It works."""
    return Finding(level="ok", what=what)


def warning(what: str, advice: str) -> Finding:
    """It works, but somebody should look at it."""
    return Finding(level="warn", what=what, advice=advice)


def failure(what: str, advice: str) -> Finding:
    """The daemon cannot work like this."""
    return Finding(level="fail", what=what, advice=advice)


def installed(package: str) -> str | None:
    """The version of a package by its entry in the index: importing some takes half a minute."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def ask(command: Sequence[str], seconds: float = QUERY_SECONDS) -> str | None:
    """What a program prints, None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        answer = subprocess.run(command, capture_output=True, timeout=seconds, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def ask_slowly(command: Sequence[str]) -> str | None:
    """The same of a program that may take its time."""
    return ask(command, SLOW_QUERY_SECONDS)


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`, and room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 256),
    )


def clock_is_synchronised() -> bool | None:
    """Whether something keeps the clock right, by adjtimex(2) as systemd asks it; None: it cannot be told."""
    time_now = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(time_now)) < 0:
        return None
    return bool(time_now.maxerror < UNSYNCHRONISED_MICROSECONDS)


def try_to_watch(folder: Path) -> None:
    """Ask for one watcher with one watch, and give it back; OSError says which limit is reached."""
    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init1(os.O_CLOEXEC)
    if watcher < 0:
        raise OSError(ctypes.get_errno(), "no more watchers")
    try:
        if libc.inotify_add_watch(watcher, os.fsencode(folder), _IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno() or errno.EIO, "no more watches")
    finally:
        os.close(watcher)


def memory_bytes() -> int:
    """How much memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What surrounds us; tests put something else in its place."""

    python: tuple[int, int] = field(default_factory=lambda: sys.version_info[:2])
    mounts: tuple[Mount, ...] = field(default_factory=read_mounts)
    fstab: Path = Path("/etc/fstab")
    clock: Callable[[], float] = time.time
    clocks: Callable[[], Seen] = look_at_clock
    synchronised: Callable[[], bool | None] = clock_is_synchronised
    inotify: Path = Path("/proc/sys/fs/inotify")
    processes: Path = Path("/proc")
    watch: Callable[[Path], None] = try_to_watch
    touch: Callable[[Path], object] = os.statvfs
    "asks the server itself, where the attributes of a folder may come out of a cache"
    patience_seconds: float = 5.0
    ask: Callable[[Sequence[str]], str | None] = ask
    ask_slowly: Callable[[Sequence[str]], str | None] = ask_slowly
    memory_bytes: int = field(default_factory=memory_bytes)
    "of the processor, all of it"
