"""Change events of the kernel as a hint that a scan is worth while now; never as the truth.

Watches the inbox where it lies on a local filesystem, and rings a bell. What the events told of is kept only
to be compared with what the next scan finds: so their worth is measured, by changes that nobody told of and
by a canary, and where they fail they are set up anew or no longer relied on (`trust`). Knows nothing of what
a scan does. Invariant: whatever goes wrong with the watching, nothing is raised and nothing is lost, since
the scan runs without it: `relied_on` turns false and `status` says why.
"""

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from pipeline.intake.inotify import SelectiveObserver
from pipeline.intake.roots import Root
from pipeline.intake.trust import Trust, Verdict
from pipeline.layout import HIDDEN
from pipeline.mounts import Mount, mount_of, read_mounts

GATHER_SECONDS = 0.05
REBUILD_SECONDS = (1.0, 300.0)
SOUND_SECONDS = 60.0
"a watch that lived for so long was a good one: the next try comes soon again"
STOP_SECONDS = 5.0
CANARY_EVERY_SECONDS = 3600.0
CANARY_PATIENCE_SECONDS = 5.0
# So many changes that only the scan found since the watch was set up, and it failed.
MISSED_ALLOWED = 2
# An event may come later than the scan that found its change.
LATE_SECONDS = 5.0
# More names than this are not kept between two scans; then none is said to have been missed.
MOST_NAMES = 50_000
# Without the "opened" and "closed unwritten" events our own looks at files tell us nothing; without the
# "deleted" ones our claims do not, which look like deletions since the hidden folder is not watched.
_TOLD_OF: list[type[FileSystemEvent]] = [
    *(
        FileCreatedEvent,
        FileMovedEvent,
        FileModifiedEvent,
        FileClosedEvent,
        FileAttribEvent,
    ),
    *(DirCreatedEvent, DirMovedEvent, DirAttribEvent),
]
_WATCHDOG = logging.getLogger("watchdog.observers")


@dataclass(slots=True)
class Counted:
    """What went wrong with events since the start; kept by whoever outlives a `Wakeup`."""

    missed: int = 0
    "changes that a scan found and no event had told of"
    overflows: int = 0
    "times that the kernel or watchdog said that events were lost"
    rebuilds: int = 0
    "times that the watch was set up anew, the first time not counted"


class _Bell(FileSystemEventHandler):
    """Rings for every event on a name that a scan would look at, and remembers the name.

    An exception here would end the observer's thread, so nothing is done but to compare text.
    """

    def __init__(self, root: str, ring: Callable[[], None]) -> None:
        self._prefix, self._ring = root.rstrip("/") + "/", ring
        self._canary = self._prefix + HIDDEN
        self.canary_sang = False
        self.names: set[str] = set()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Ring, unless the name that the event leads to is hidden, as our own folder is."""
        path = os.fsdecode(event.dest_path or event.src_path)
        if path == self._canary:
            self.canary_sang = True
        elif not path.startswith(self._prefix):
            self._ring()
        elif "/." not in path[len(self._prefix) - 1 :]:
            if len(self.names) < MOST_NAMES:
                self.names.add(path[len(self._prefix) :])
            self._ring()


class _Complaints(logging.Handler):
    """Tells when watchdog logs that it lost events."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of one complaint."""
        if "overflow" in record.msg and record.name.endswith("inotify_c"):
            self._note()


class Wakeup:
    """A bell that rings when something changes in `root`.

    `event` is set by the bell and cleared by `wait`. Call `tend` at least every few seconds: it asks the
    canary and sets up again what died; around each scan call `begin_round` and `compare`. With `wanted` false
    nothing is watched.
    """

    def __init__(
        self,
        root: Root,
        *,
        wanted: bool = True,
        counted: Counted | None = None,
        new_observer: Callable[..., SelectiveObserver] = SelectiveObserver,
        mounts: Callable[[], tuple[Mount, ...]] = read_mounts,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root, self._watched = root, wanted and root.watchable
        self._told_why = "" if root.watchable or not wanted else _unwatchable(root.path, root.mount)
        self._new_observer, self._read_mounts = new_observer, mounts
        self._clock, self._sleep = clock, sleep
        self._observer: SelectiveObserver | None = None
        self._bell = _Bell(str(root.path), self._ring)
        self._complaints = _Complaints(self._overflowed)
        self._trust = Trust()
        self._identity = (0, 0)
        self._mounts: tuple[Mount, ...] = ()
        self._why_not = ""
        self._built_at = float("-inf")
        self._retry_at, self._tries = 0.0, 0
        self._canary_at, self._canary_asked_at = float("inf"), float("-inf")
        self._before: set[str] = set()
        self._suspects: dict[str, tuple[float, bool]] = {}
        self._round_at = self._round_before_at = self._unwatched_until = float("-inf")
        self._missed_since_built = 0
        self.counted = counted or Counted()
        self.event = threading.Event()

    # -- for the daemon ------------------------------------------------------------------------

    @property
    def relied_on(self) -> bool:
        """Whether every change is being told of, as far as is known."""
        return self._watched and not self._trust.distrusted and not self._why_broken()

    @property
    def moved(self) -> bool:
        """Whether the root's path leads to another mount than it did, so that it has to be opened anew.

        Until then nothing there is touched: what was mounted over it may not even answer.
        """
        return _place(self._mounts_now()[0]) != _place(self._root.mount)

    @property
    def foreign(self) -> tuple[Mount, ...]:
        """What is mounted below the root and may change unseen: it is scanned, whatever the root is."""
        return tuple(mount for mount in self._mounts if mount.unseen)

    @property
    def status(self) -> str:
        """Why changes are not, or not all, told of, as sentences; empty if all is well."""
        told = [_unwatchable(mount.point, mount) for mount in self.foreign]
        if self._told_why:
            told.insert(0, self._told_why)
        why = self._why() if self._watched else ""
        if why:
            told.append(f"Change events are off, the inbox is scanned instead: {why}.")
        return " ".join(told)

    def start(self) -> None:
        """Begin to watch; where that fails, `status` says why and `tend` tries again."""
        if self._watched:
            _WATCHDOG.addHandler(self._complaints)
        self._build()

    def stop(self) -> None:
        """End the watching; the event keeps its state."""
        _WATCHDOG.removeHandler(self._complaints)
        self._tear_down()

    def tend(self) -> None:
        """Look after the watch: ask the canary, set up anew what died, try again what failed."""
        if not self._watched:
            return
        now = self._clock()
        why = self._why_broken()
        if why:
            if now >= self._retry_at and not self.moved:
                self._rebuild(why)
        elif self._canary_asked_at > float("-inf"):
            self._hear_canary(now)
        elif self._trust.due(now):
            self._rebuild("events are tried again")
            if self._observer is not None and self._canary_asked_at == float("-inf"):
                self._regain(now)  # no canary can be kept there; the scans will tell
        elif not self._trust.distrusted and now >= self._canary_at:
            self._send_canary(now)
        if not why and now - self._built_at > SOUND_SECONDS:
            self._tries = 0

    def wait(self, at_most_seconds: float, *, at_least_seconds: float = 0.0) -> bool:
        """Wait for the bell or the end of the time; True if it rang.

        `at_least_seconds` (and a moment) are waited in any case: a storm of events leads to few scans.
        """
        begun = self._clock()
        rung = self.event.wait(max(0.0, at_most_seconds))
        rest = max(at_least_seconds, GATHER_SECONDS) - (self._clock() - begun)
        if rest > 0:
            self._sleep(rest)
        rung = rung or self.event.is_set()
        self.event.clear()
        return rung

    # -- what scans found --------------------------------------------------------------------------

    def begin_round(self) -> None:
        """A scan is about to begin at the top of the inbox."""
        self._before, self._bell.names = self._bell.names, set()
        self._round_at, self._round_before_at = self._clock(), self._round_at

    def compare(self, changed: tuple[str, ...]) -> None:
        """A scan found these changes, by relative path, where events should have told of them.

        What no event has told of after some seconds was missed; it is held against the watch if that stood
        all the time since the scan before.
        """
        now = self._clock()
        told = (self._before, self._bell.names)
        self._judge_suspects(told, now)
        first = self._round_before_at == float("-inf")
        if first or self._observer is None or any(len(names) >= MOST_NAMES for names in told):
            return
        stood = self._unwatched_until <= self._round_before_at
        for relative in changed:
            if not _told_of(relative, told):
                self._suspects.setdefault(relative, (now, stood))

    def _judge_suspects(self, told: tuple[set[str], set[str]], now: float) -> None:
        held = 0
        for relative, (since, stood) in list(self._suspects.items()):
            if _told_of(relative, told):
                del self._suspects[relative]
            elif now - since >= LATE_SECONDS:
                del self._suspects[relative]
                self.counted.missed += 1
                held += stood
        if held:
            self._missed(held, now)

    def _missed(self, number: int, now: float) -> None:
        if self._trust.distrusted:
            self._trust.put_off(now)
            return
        self._missed_since_built += number
        if self._missed_since_built > MISSED_ALLOWED:
            self._failed(f"{self._missed_since_built} changes were not told of", now)

    # -- the canary ------------------------------------------------------------------------------

    def _hear_canary(self, now: float) -> None:
        """The time of our own folder was set: that must have been told of, within seconds."""
        if self._bell.canary_sang:
            self._canary_asked_at = float("-inf")
            if self._trust.due(now):
                self._regain(now)
        elif now - self._canary_asked_at >= CANARY_PATIENCE_SECONDS:
            self._canary_asked_at = float("-inf")
            self._failed("a change of our own was not told of", now)

    def _regain(self, now: float) -> None:
        self._trust.regain(now)
        logger.info("change events of {} are relied on again", self._root.path)

    def _send_canary(self, now: float) -> None:
        self._canary_at = now + CANARY_EVERY_SECONDS
        self._bell.canary_sang = False
        with contextlib.suppress(OSError):  # a folder that is not ours to change has no canary
            os.utime(self._root.path / HIDDEN, follow_symlinks=False)
            self._canary_asked_at = now

    def _failed(self, why: str, now: float) -> None:
        if self._trust.fail(why, now) is Verdict.REBUILD:
            self._rebuild(why)
        else:
            logger.warning("change events of {} are not relied on: {}", self._root.path, why)

    # -- the watch -------------------------------------------------------------------------------

    def _ring(self) -> None:
        self.event.set()

    def _overflowed(self) -> None:
        """What was lost is found by the scan that follows, and not held against the watch."""
        self.counted.overflows += 1
        self._unwatched_until = self._clock()
        self._canary_at = self._unwatched_until  # watchdog sets up its watches anew: do they hear?
        self._ring()

    def _why_broken(self) -> str:
        """Why the watch does not stand, or does not watch all that it should; empty if it does."""
        observer = self._observer
        if observer is None:
            return self._why_not or "it has not begun"
        if not observer.is_alive() or not all(emitter.is_alive() for emitter in observer.emitters):
            return "the watcher stopped"
        if self._mounts_now() != self._mounts:
            return "something was mounted or unmounted"
        if _identity(self._root.path) != self._identity:
            return "the folder was replaced"
        if observer.failed:
            return f"{observer.failed} folders cannot be watched, the limit is reached ({_LIMIT})"
        return ""

    def _why(self) -> str:
        """Why the events are not relied on; empty if they are."""
        if self._trust.distrusted:
            minutes = self._trust.retry_in(self._clock()) / 60
            return f"{self._trust.reason}; they are tried again in {minutes:.0f} min"
        return self._why_broken()

    def _mounts_now(self) -> tuple[Mount, ...]:
        """The mount that the root lies on, and those below it."""
        mounts, path = self._read_mounts(), str(self._root.path)
        below = (mount for mount in mounts if mount.point.startswith(path.rstrip("/") + "/"))
        return (mount_of(path, mounts), *below)

    def _rebuild(self, why: str) -> None:
        self._tear_down()
        self.counted.rebuilds += 1
        logger.info("the watch of {} is set up anew: {}", self._root.path, why)
        self._build()

    def _build(self) -> None:
        """Try to watch the root."""
        if not self._watched:
            return
        now = self._clock()
        self._retry_at = now + min(REBUILD_SECONDS[0] * 2.0 ** min(self._tries, 16), REBUILD_SECONDS[1])
        self._tries += 1
        self._mounts = self._mounts_now()
        try:
            self._watch()
        except OSError as error:
            self._why_not = _reason(error)
            self._tear_down()
            return
        self._built_at = self._unwatched_until = self._clock()
        self._missed_since_built = 0
        self._send_canary(now)
        # What changed before the watch stood was not told of.
        self._ring()

    def _watch(self) -> None:
        """Set up the watch. Raises OSError."""
        path = str(self._root.path)
        self._identity = _identity(self._root.path)
        self._observer = self._new_observer(foreign=frozenset(mount.point for mount in self.foreign))
        self._observer.schedule(self._bell, path, recursive=True, event_filter=_TOLD_OF)
        self._observer.start()

    def _tear_down(self) -> None:
        """Stop the observer, also one that never ran."""
        observer, self._observer = self._observer, None
        self._canary_asked_at = float("-inf")
        if observer is None:
            return
        self._unwatched_until = self._clock()
        observer.stop()
        if observer.is_alive():
            observer.join(STOP_SECONDS)


_LIMIT = "raise fs.inotify.max_user_watches"


def _told_of(relative: str, told: tuple[set[str], set[str]]) -> bool:
    """Whether an event was about this file, or about a folder that it lies in."""
    while relative:
        if any(relative in names for names in told):
            return True
        relative = relative.rpartition("/")[0]
    return False


def _place(mount: Mount) -> tuple[str, str, str]:
    """What tells one mount from another; that it was made read-only does not."""
    return mount.point, mount.filesystem, mount.source


def _unwatchable(path: Path | str, mount: Mount) -> str:
    return (
        f"{path} is not watched but scanned: it lies on {mount.filesystem}, "
        "where other machines may write unseen."
    )


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode of a folder; (0, 0) if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _reason(error: OSError) -> str:
    """Why watching could not start, with what to do."""
    if error.errno == errno.ENOSPC:
        return f"the limit of watches is reached ({_LIMIT})"
    if error.errno == errno.EMFILE:
        return "the limit of watchers is reached (raise fs.inotify.max_user_instances)"
    return (error.strerror or "unknown error").lower()
