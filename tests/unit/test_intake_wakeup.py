"""The bell: what rings it, what does not, and what happens when it breaks."""

import errno
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from watchdog.events import (
    DirCreatedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from pipeline.intake.roots import Mount, Role, Root, open_root
from pipeline.intake.wakeup import DISTRUST_AFTER, Wakeup

DISK = Mount(point="/", filesystem="ext4", source="/dev/sda", read_only=False)
SHARE = Mount(point="/", filesystem="cifs", source="//nas/in", read_only=False)


class Observer:
    """An observer whose threads live and die as the test says."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error, self.alive, self.stopped = error, False, False
        self.emitters: set[Observer] = set()
        self.handlers: list[FileSystemEventHandler] = []

    def schedule(self, handler: FileSystemEventHandler, _path: str, **_options: object) -> None:
        """Remember the handler and pretend to have an emitter."""
        self.handlers.append(handler)
        emitter = Observer()
        emitter.alive = True
        self.emitters.add(emitter)

    def start(self) -> None:
        """Start, or fail as told."""
        if self.error is not None:
            raise self.error
        self.alive = True

    def stop(self) -> None:
        """Stop at once."""
        self.alive, self.stopped = False, True

    def is_alive(self) -> bool:
        """As the test says."""
        return self.alive

    def join(self, timeout: float | None = None) -> None:
        """Nothing to wait for."""


class Desk:
    """A wakeup with observers that the test holds in its hands."""

    def __init__(self, *roots: Root) -> None:
        self.now, self.slept = 0.0, 0.0
        self.errors: list[OSError] = []
        self.observers: list[Observer] = []
        self.wakeup = Wakeup(
            roots,
            new_observer=self.new_observer,  # type: ignore[arg-type]
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def new_observer(self) -> Observer:
        """The next observer; it fails if an error is waiting."""
        self.observers.append(Observer(self.errors.pop(0) if self.errors else None))
        return self.observers[-1]

    def sleep(self, seconds: float) -> None:
        """Let the clock run."""
        self.now += seconds
        self.slept += seconds

    def tell(self, event: FileSystemEvent) -> bool:
        """Whether an event rings the bell."""
        self.wakeup.event.clear()
        self.observers[-1].handlers[0].dispatch(event)
        return self.wakeup.event.is_set()


@pytest.fixture(name="root")
def local_root(tmp_path: Path) -> Root:
    """An inbox on a local disk."""
    (tmp_path / "inbox").mkdir()
    return replace(open_root(tmp_path / "inbox", Role.INBOX), mount=DISK)


@pytest.fixture(name="desk")
def started_desk(root: Root) -> Iterator[Desk]:
    """A wakeup that is running."""
    desk = Desk(root)
    desk.wakeup.start()
    yield desk
    desk.wakeup.stop()


def test_the_start_rings(desk: Desk) -> None:
    """What changed before the watch stood is looked for."""
    assert desk.wakeup.event.is_set()
    assert desk.wakeup.healthy()
    assert desk.wakeup.status == ""


def test_what_rings(desk: Desk, root: Root) -> None:
    """Every kind of change of a visible name rings, also one whose bytes are no text."""
    path = f"{root.path}/sub/a.txt"
    for kind in (FileCreatedEvent, FileClosedEvent, FileModifiedEvent, FileDeletedEvent, FileAttribEvent):
        assert desk.tell(kind(path))
    assert desk.tell(FileCreatedEvent(os.fsencode(root.path) + b"/caf\xe9.txt"))
    assert desk.tell(DirCreatedEvent(f"{root.path}/sub"))
    assert desk.tell(FileMovedEvent(f"{root.path}/.syncthing.a.txt.tmp", path))
    assert desk.tell(FileMovedEvent(f"{root.path}/.voxspool/claimed/1--a.txt", path))
    assert desk.tell(FileDeletedEvent(str(root.path)))


def test_what_does_not_ring(desk: Desk, root: Root) -> None:
    """Hidden names, our own folder and our own claim are silent: else each claim led to a scan."""
    for hidden in (".voxspool/claimed/a.txt", ".syncthing.a.txt.tmp", "sub/.a.swp", ".git/x/y"):
        assert not desk.tell(FileModifiedEvent(f"{root.path}/{hidden}"))
    assert not desk.tell(FileMovedEvent(f"{root.path}/a.txt", f"{root.path}/.voxspool/claimed/1--a.txt"))


def test_a_hidden_folder_above_the_inbox_is_no_matter(tmp_path: Path) -> None:
    """Only names below the inbox count as hidden."""
    folder = tmp_path / ".local" / "inbox"
    folder.mkdir(parents=True)
    desk = Desk(replace(open_root(folder, Role.INBOX), mount=DISK))
    desk.wakeup.start()
    assert desk.tell(FileCreatedEvent(f"{folder.resolve()}/a.txt"))
    desk.wakeup.stop()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "fs.inotify.max_user_watches"),
        (errno.EMFILE, "fs.inotify.max_user_instances"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_a_watch_that_cannot_start_is_told(root: Root, number: int, words: str) -> None:
    """Exhausted limits are a sentence in the status and no exception; the observer is cleaned up."""
    desk = Desk(root)
    desk.errors = [OSError(number, os.strerror(number))]
    desk.wakeup.start()
    assert not desk.wakeup.healthy()
    assert words in desk.wakeup.status
    assert desk.wakeup.status.startswith("Change events are off, the inbox is scanned instead: ")
    assert desk.observers[0].stopped
    desk.wakeup.stop()


def test_a_failed_watch_is_tried_again_ever_more_seldom(root: Root) -> None:
    """1 s, 2 s, 4 s ... up to a minute between tries, and success ends it."""
    desk = Desk(root)
    desk.errors = [OSError(errno.ENOSPC, "full")] * 9
    desk.wakeup.start()
    tried_at = []
    while not desk.wakeup.healthy():
        before = len(desk.observers)
        desk.wakeup.tend()
        if len(desk.observers) > before:
            tried_at.append(desk.now)
        desk.now += 0.5
    desk.wakeup.stop()
    assert tried_at == [1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert desk.wakeup.event.is_set()


@pytest.mark.parametrize("victim", ["observer", "emitter"])
def test_a_dead_thread_is_replaced(desk: Desk, victim: str) -> None:
    """watchdog's observer may say that it is alive while the thread that reads events is dead."""
    observer = desk.observers[0]
    if victim == "observer":
        observer.alive = False
    else:
        next(iter(observer.emitters)).alive = False
    assert not desk.wakeup.healthy()
    assert "the watcher stopped" in desk.wakeup.status
    desk.wakeup.event.clear()
    desk.now = 10
    desk.wakeup.tend()
    assert desk.wakeup.healthy()
    assert observer.stopped
    assert desk.wakeup.event.is_set()


def test_a_replaced_root_is_watched_anew(desk: Desk, root: Root) -> None:
    """After `rm -rf inbox; mkdir inbox` the old watch hears nothing though it seems alive."""
    root.path.rename(root.path.with_name("away"))
    assert not desk.wakeup.healthy()
    root.path.mkdir()
    assert not desk.wakeup.healthy()
    desk.now = 10
    desk.wakeup.tend()
    assert desk.wakeup.healthy()
    assert len(desk.observers) == 2


def test_nothing_is_rebuilt_while_all_is_well(desk: Desk) -> None:
    """Tending is free of side effects on a healthy watch."""
    for _ in range(100):
        desk.now += 10
        desk.wakeup.tend()
    assert len(desk.observers) == 1


def test_shares_are_not_watched(tmp_path: Path) -> None:
    """On a network filesystem there is no watch at all, and the status says why."""
    desk = Desk(replace(open_root(tmp_path, Role.INBOX), mount=SHARE))
    desk.wakeup.start()
    desk.now = 100
    desk.wakeup.tend()
    assert desk.observers == []
    assert not desk.wakeup.healthy()
    desk.wakeup.stop()
    assert desk.wakeup.status == (
        f"{tmp_path.resolve()} is not watched but scanned: it lies on cifs, "
        "where other machines may write unseen."
    )


def test_lost_events_ring(desk: Desk) -> None:
    """watchdog only logs an overflow: that entry asks for a scan and is counted, and not after stop."""
    desk.wakeup.event.clear()
    logger = logging.getLogger("watchdog.observers.inotify_c")
    logger.warning("Inotify queue overflowed; filesystem events were lost")
    assert desk.wakeup.event.is_set()
    assert desk.wakeup.overflows == 1
    desk.wakeup.stop()
    logger.warning("Inotify queue overflowed; filesystem events were lost")
    assert desk.wakeup.overflows == 1


def test_waiting_ends_with_the_bell(desk: Desk) -> None:
    """A ring ends the wait, is told once, and a storm is gathered for a moment."""
    assert desk.wakeup.wait(100.0)
    assert desk.slept == pytest.approx(0.05)
    assert not desk.wakeup.wait(0.0)
    timer = threading.Timer(0.05, desk.wakeup.event.set)
    timer.start()
    assert desk.wakeup.wait(10.0)
    timer.join()


def test_the_shortest_wait_is_kept(desk: Desk) -> None:
    """What rings during the rest counts as rung, and is not left over."""
    desk.wakeup.event.clear()
    desk.wakeup._sleep = lambda _seconds: desk.wakeup.event.set()
    assert desk.wakeup.wait(0.0, at_least_seconds=1.0)
    assert not desk.wakeup.event.is_set()


def scan(desk: Desk, *, woken: bool, changed: int) -> None:
    """What the daemon does around a scan, without the scan."""
    desk.wakeup.wait(0.0)
    desk.wakeup.compare(woken=woken, changed=changed)


def test_deaf_events_are_noticed(desk: Desk) -> None:
    """After some changes that only the scan found the events are no longer relied on."""
    for _ in range(DISTRUST_AFTER):
        scan(desk, woken=False, changed=1)
        scan(desk, woken=False, changed=0)
    assert desk.wakeup.missed == DISTRUST_AFTER
    assert not desk.wakeup.healthy()
    assert "they missed 3 changes" in desk.wakeup.status
    desk.now = 1000
    desk.wakeup.tend()
    assert len(desk.observers) == 1


def test_late_events_are_not_missed_ones(desk: Desk, root: Root) -> None:
    """A scan may be quicker than the event; what the bell led to is never held against it."""
    for _ in range(10):
        scan(desk, woken=False, changed=1)
        desk.tell(FileCreatedEvent(f"{root.path}/a.txt"))
        scan(desk, woken=True, changed=1)
        scan(desk, woken=False, changed=0)
    assert desk.wakeup.missed == 0
