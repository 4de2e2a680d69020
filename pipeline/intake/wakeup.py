"""Change events of the kernel as a hint that a scan is worth while now; never as the truth.

Watches roots on local filesystems and sets one `threading.Event`; which file changed is not passed on.
Knows nothing of what a scan does. Invariant: whatever goes wrong with the watching, nothing is raised
and nothing is lost, since the scan runs without it: `healthy()` turns false and `status` says why.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
from watchdog.observers.api import BaseObserver

from pipeline.intake.inotify import SelectiveObserver
from pipeline.intake.roots import Root

GATHER_SECONDS = 0.05
REBUILD_SECONDS = (1.0, 60.0)
STOP_SECONDS = 5.0
# So many changes that only the scan found, and the events are no longer relied on.
DISTRUST_AFTER = 3
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
_LOGGER = logging.getLogger("watchdog.observers")


class _Bell(FileSystemEventHandler):
    """Rings for every event on a name that a scan would look at.

    An exception here would end the observer's thread, so nothing is done but to compare text.
    """

    def __init__(self, root: str, ring: Callable[[], None]) -> None:
        self._prefix, self._ring = root.rstrip("/") + "/", ring

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Ring, unless the name that the event leads to is hidden, as our own folder is."""
        path = os.fsdecode(event.dest_path or event.src_path)
        if not path.startswith(self._prefix) or "/." not in path[len(self._prefix) - 1 :]:
            self._ring()


class _Complaints(logging.Handler):
    """Rings and counts when watchdog logs that it lost events."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._ring = ring
        self.count = 0

    def emit(self, _record: logging.LogRecord) -> None:
        """Take note of one complaint."""
        self.count += 1
        self._ring()


class Wakeup:
    """A bell that rings when something changes in one of `roots`.

    `event` is set by the bell and cleared by `wait`. Call `tend` regularly: it starts again what died.
    """

    def __init__(
        self,
        roots: Sequence[Root],
        *,
        new_observer: Callable[[], BaseObserver] = SelectiveObserver,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._roots = tuple(root for root in roots if root.watchable)
        self._unwatched = tuple(root for root in roots if not root.watchable)
        self._new_observer, self._clock, self._sleep = new_observer, clock, sleep
        self._observer: BaseObserver | None = None
        self._identities: dict[Path, tuple[int, int]] = {}
        self._complaints = _Complaints(self._ring)
        self._why_not = "" if self._roots else "nothing to watch"
        self._retry_at, self._tries = 0.0, 0
        self._rung = self._rung_at_wait = 0
        self._suspect: int | None = None
        self.event = threading.Event()
        self.missed = 0
        "changes that a scan found though no event had told of them"

    @property
    def overflows(self) -> int:
        """How often watchdog said that it lost events; each time a scan was asked for."""
        return self._complaints.count

    @property
    def status(self) -> str:
        """Why changes are not, or not all, told of, as sentences; empty if all is well."""
        told = [
            f"{root.path} is not watched but scanned: it lies on {root.mount.filesystem}, "
            "where other machines may write unseen."
            for root in self._unwatched
        ]
        if self._roots and not self.healthy():
            told.append(f"Change events are off, the inbox is scanned instead: {self._why()}.")
        return " ".join(told)

    def start(self) -> None:
        """Begin to watch; where that fails, `status` says why and `tend` tries again."""
        _LOGGER.addHandler(self._complaints)
        self._build()

    def stop(self) -> None:
        """End the watching; the event keeps its state."""
        _LOGGER.removeHandler(self._complaints)
        self._tear_down()

    def healthy(self) -> bool:
        """Whether every watchable root is being watched, as far as that can be told."""
        observer = self._observer
        if observer is None or self.missed >= DISTRUST_AFTER or not observer.is_alive():
            return False
        emitters = list(observer.emitters)
        if len(emitters) < len(self._roots) or not all(emitter.is_alive() for emitter in emitters):
            return False
        return all(_identity(root.path) == self._identities.get(root.path) for root in self._roots)

    def tend(self) -> None:
        """Build the watching anew if it died or a root was replaced; ever more seldom while that fails."""
        if not self._roots or self.missed >= DISTRUST_AFTER or self.healthy():
            return
        if self._clock() >= self._retry_at:
            self._tear_down()
            self._build()

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
        self._rung_at_wait = self._rung
        return rung

    def compare(self, *, woken: bool, changed: int) -> None:
        """Tell what a scan found, so that an event source that went deaf is noticed.

        `woken`: the bell, or anything but the mere passing of time, led to the scan. A change is counted
        as missed only if the bell has still not rung by the next scan.
        """
        if self._suspect is not None and self._suspect == self._rung and self._observer is not None:
            self.missed += 1
        self._suspect = self._rung_at_wait if changed and not woken else None

    def _ring(self) -> None:
        self._rung += 1
        self.event.set()

    def _why(self) -> str:
        """Why the watching is not healthy."""
        if self.missed >= DISTRUST_AFTER:
            return f"they missed {self.missed} changes"
        return self._why_not or "the watcher stopped, or a watched folder was replaced"

    def _build(self) -> None:
        """Try to watch all roots."""
        if not self._roots:
            return
        limits = REBUILD_SECONDS
        self._retry_at = self._clock() + min(limits[0] * 2.0 ** min(self._tries, 16), limits[1])
        self._tries += 1
        try:
            self._identities = {root.path: _identity(root.path) for root in self._roots}
            self._observer = self._new_observer()
            for root in self._roots:
                bell = _Bell(str(root.path), self._ring)
                self._observer.schedule(bell, str(root.path), recursive=True, event_filter=_TOLD_OF)
            self._observer.start()
        except OSError as error:
            self._tear_down()
            self._why_not = _reason(error)
            return
        self._why_not, self._tries = "", 0
        # What changed before the watch stood was not told of.
        self._ring()

    def _tear_down(self) -> None:
        """Stop the observer, also one that never ran."""
        observer, self._observer = self._observer, None
        if observer is None:
            return
        observer.stop()
        if observer.is_alive():
            observer.join(STOP_SECONDS)


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
        return "the limit of watches is reached (raise fs.inotify.max_user_watches)"
    if error.errno == errno.EMFILE:
        return "the limit of watchers is reached (raise fs.inotify.max_user_instances)"
    return (error.strerror or "unknown error").lower()
