"""The bell: what rings it, what does not, how its worth is measured, and what happens when it breaks."""

import errno
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from watchdog.events import (
    DirAttribEvent,
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

from pipeline.intake.roots import Role, Root, open_root
from pipeline.intake.trust import RETRY_SECONDS
from pipeline.intake.wakeup import CANARY_EVERY_SECONDS, LATE_SECONDS, MISSED_ALLOWED, MOST_NAMES, Wakeup
from pipeline.layout import HIDDEN
from pipeline.mounts import Mount

DISK = Mount(point="/", filesystem="ext4", source="/dev/sda", read_only=False)
SHARE = Mount(point="/", filesystem="cifs", source="//nas/in", read_only=False)


class Observer:
    """An observer whose threads live and die as the test says."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error, self.alive, self.stopped, self.failed = error, False, False, 0
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

    def __init__(self, root: Root, *, wanted: bool = True) -> None:
        self.now, self.slept = 0.0, 0.0
        self.errors: list[OSError] = []
        self.observers: list[Observer] = []
        self.foreign: frozenset[str] = frozenset()
        self.mounts = (root.mount,)
        self.root, self.canary_lives = root, True
        self.wakeup = Wakeup(
            root,
            wanted=wanted,
            new_observer=self.new_observer,  # type: ignore[arg-type]
            mounts=lambda: self.mounts,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def new_observer(self, *, foreign: frozenset[str]) -> Observer:
        """The next observer; it fails if an error is waiting."""
        self.foreign = foreign
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

    def tell_of(self, relative: str) -> None:
        """A file was written."""
        assert self.tell(FileCreatedEvent(f"{self.root.path}/{relative}"))

    def tend(self, seconds: float = 0.0) -> None:
        """Tend each second for so long; a living watch hears the canary."""
        for _ in range(max(1, round(seconds))):
            if self.canary_lives and self.wakeup._observer is not None:
                self.tell(DirAttribEvent(f"{self.root.path}/{HIDDEN}"))
            self.wakeup.tend()
            self.now += 1.0

    def scan(self, *changed: str) -> None:
        """What the daemon does around a scan, without the scan; the next one is a minute later."""
        self.wakeup.begin_round()
        self.wakeup.compare(changed)
        self.now += 60.0

    def miss(self, number: int) -> None:
        """So many changes that nobody told of, and the scan that settles it."""
        self.scan(*(f"{self.now}-{index}.txt" for index in range(number)))
        self.scan()


@pytest.fixture(name="root")
def local_root(tmp_path: Path) -> Root:
    """An inbox on a local disk."""
    (tmp_path / "inbox" / HIDDEN).mkdir(parents=True)
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
    assert desk.wakeup.relied_on
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
    assert not desk.wakeup.relied_on
    assert words in desk.wakeup.status
    assert desk.wakeup.status.startswith("Change events are off, the inbox is scanned instead: ")
    assert desk.observers[0].stopped
    desk.wakeup.stop()


def test_a_failed_watch_is_tried_again_ever_more_seldom(root: Root) -> None:
    """1 s, 2 s, 4 s ... up to five minutes between tries, and success ends it."""
    desk = Desk(root)
    desk.errors = [OSError(errno.ENOSPC, "full")] * 9
    desk.wakeup.start()
    tried_at = []
    while not desk.wakeup.relied_on:
        before = len(desk.observers)
        desk.wakeup.tend()
        if len(desk.observers) > before:
            tried_at.append(desk.now)
        desk.now += 0.5
    desk.wakeup.stop()
    assert tried_at == [1, 3, 7, 15, 31, 63, 127, 255, 511]
    assert desk.wakeup.event.is_set()


@pytest.mark.parametrize("victim", ["observer", "emitter"])
def test_a_dead_thread_is_replaced(desk: Desk, victim: str) -> None:
    """watchdog's observer may say that it is alive while the thread that reads events is dead."""
    observer = desk.observers[0]
    if victim == "observer":
        observer.alive = False
    else:
        next(iter(observer.emitters)).alive = False
    assert not desk.wakeup.relied_on
    assert "the watcher stopped" in desk.wakeup.status
    desk.wakeup.event.clear()
    desk.now = 10
    desk.wakeup.tend()
    assert desk.wakeup.relied_on
    assert observer.stopped
    assert desk.wakeup.event.is_set()


def test_a_replaced_root_is_watched_anew(desk: Desk, root: Root) -> None:
    """After `rm -rf inbox; mkdir inbox` the old watch hears nothing though it seems alive."""
    root.path.rename(root.path.with_name("away"))
    assert not desk.wakeup.relied_on
    root.path.mkdir()
    assert not desk.wakeup.relied_on
    desk.now = 10
    desk.wakeup.tend()
    assert desk.wakeup.relied_on
    assert len(desk.observers) == 2


def test_nothing_is_rebuilt_while_all_is_well(desk: Desk) -> None:
    """Tending is free of side effects on a healthy watch."""
    desk.tend(2 * CANARY_EVERY_SECONDS)
    assert len(desk.observers) == 1
    assert desk.wakeup.counted.rebuilds == 0


def test_shares_are_not_watched(tmp_path: Path) -> None:
    """On a network filesystem there is no watch at all, and the status says why."""
    desk = Desk(replace(open_root(tmp_path, Role.INBOX), mount=SHARE))
    desk.wakeup.start()
    desk.now = 100
    desk.wakeup.tend()
    assert desk.observers == []
    assert not desk.wakeup.relied_on
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
    assert desk.wakeup.counted.overflows == 1
    desk.wakeup.stop()
    logger.warning("Inotify queue overflowed; filesystem events were lost")
    assert desk.wakeup.counted.overflows == 1


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


# -- changes that nobody told of -----------------------------------------------------------------


def test_what_was_told_of_is_not_missed(desk: Desk, root: Root) -> None:
    """By its own name, by a folder above it, before the scan or shortly after it."""
    desk.scan()
    desk.tell_of("a.txt"), desk.tell(DirCreatedEvent(f"{root.path}/books/dune"))
    desk.scan("a.txt", "books/dune/1/b.txt", "late.txt")
    desk.tell_of("late.txt")
    desk.scan(), desk.scan()
    assert desk.wakeup.counted.missed == 0


def test_what_was_not_told_of_is_counted(desk: Desk) -> None:
    """Once, some seconds after the scan that found it, though another file rings the bell all the time."""
    desk.scan()
    desk.tell_of("noise.txt")
    desk.scan("noise.txt", "silent.txt")
    assert desk.wakeup.counted.missed == 0, "it may still be told of"
    desk.tell_of("noise.txt")
    desk.scan("noise.txt"), desk.scan()
    assert desk.wakeup.counted.missed == 1
    assert desk.wakeup.relied_on


def test_a_quick_second_scan_settles_nothing(desk: Desk) -> None:
    """An event may be late on a busy machine."""
    desk.scan()
    desk.wakeup.begin_round(), desk.wakeup.compare(("a.txt",))
    desk.now += LATE_SECONDS / 2
    desk.wakeup.begin_round(), desk.wakeup.compare(())
    desk.tell_of("a.txt")
    desk.now += LATE_SECONDS
    desk.scan()
    assert desk.wakeup.counted.missed == 0


def test_the_first_scan_counts_nothing(desk: Desk) -> None:
    """What lay there before the watch stood was not missed by it."""
    desk.scan("a.txt", "b.txt"), desk.scan()
    assert desk.wakeup.counted.missed == 0


def test_what_was_dropped_while_the_watcher_was_dead_is_counted_and_not_held_against_the_new_one(
    desk: Desk,
) -> None:
    """The scan finds it; the new watch did not stand then."""
    desk.scan()
    desk.observers[0].alive = False
    desk.tend()
    desk.scan(*(f"{number}.txt" for number in range(10))), desk.scan()
    assert desk.wakeup.counted.missed == 10
    assert desk.wakeup.counted.rebuilds == 1
    assert desk.wakeup.relied_on


def test_an_overflow_is_no_failure_of_the_watch(desk: Desk) -> None:
    """What was lost with it is counted, and a canary is asked at once, since the watches are made anew."""
    desk.tend(10), desk.scan()
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; ...")
    desk.scan(*(f"{number}.txt" for number in range(10))), desk.scan()
    assert desk.wakeup.counted.missed == 10
    assert desk.wakeup.relied_on and desk.wakeup.counted.rebuilds == 0
    desk.canary_lives = False
    desk.tend(7)
    assert desk.wakeup.counted.rebuilds == 1


def test_too_many_names_are_not_remembered(desk: Desk) -> None:
    """Then nothing is said to have been missed."""
    desk.scan()
    for number in range(MOST_NAMES):
        desk.observers[0].handlers[0].dispatch(FileCreatedEvent(f"{desk.root.path}/{number}"))
    desk.scan("unknown.txt"), desk.scan()
    assert desk.wakeup.counted.missed == 0


def test_deaf_events_are_set_up_anew_then_not_relied_on_then_tried_again(desk: Desk) -> None:
    """Missed changes again and again: the daemon scans by itself, says so, and comes back to events."""
    desk.scan(), desk.miss(MISSED_ALLOWED)
    assert desk.wakeup.relied_on and len(desk.observers) == 1
    desk.miss(1)
    assert desk.wakeup.relied_on and len(desk.observers) == 2
    desk.scan(), desk.miss(MISSED_ALLOWED + 1)
    assert not desk.wakeup.relied_on
    assert desk.wakeup.status == (
        "Change events are off, the inbox is scanned instead: 3 changes were not told of;"
        " they are tried again in 9 min."
    )
    desk.tend(RETRY_SECONDS[0] - 100)
    assert not desk.wakeup.relied_on and len(desk.observers) == 2
    desk.tend(100)
    assert desk.wakeup.relied_on and len(desk.observers) == 3
    assert desk.wakeup.status == ""


def test_changes_missed_while_scanning_put_off_the_next_try(desk: Desk) -> None:
    """As long as other machines keep writing unseen there is no going back and forth."""
    desk.scan(), desk.miss(3), desk.scan(), desk.miss(3)
    for _ in range(30):
        desk.miss(1)
        desk.tend()
    assert not desk.wakeup.relied_on and len(desk.observers) == 2
    assert desk.wakeup.counted.missed == 36


# -- the canary ----------------------------------------------------------------------------------


def test_the_canary_is_asked_at_the_start_and_hourly(
    desk: Desk, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of our own folder is set; nothing else is touched, and the bell keeps still."""
    touched: list[tuple[float, str]] = []
    monkeypatch.setattr(os, "utime", lambda path, **_: touched.append((desk.now, str(path))))
    desk.wakeup.event.clear()
    desk.tend(2 * CANARY_EVERY_SECONDS + 10)
    assert {path for _, path in touched} == {f"{root.path}/{HIDDEN}"}
    assert [round(when / CANARY_EVERY_SECONDS) for when, _ in touched] == [1, 2]
    assert not desk.wakeup.event.is_set()


def test_a_canary_that_keeps_silent_twice_ends_the_trust(desk: Desk) -> None:
    """A fresh watch after five seconds; where that is deaf too, the inbox is scanned for a while."""
    desk.canary_lives = False
    desk.tend(4)
    assert len(desk.observers) == 1
    desk.tend(3)
    assert len(desk.observers) == 2 and desk.wakeup.relied_on
    desk.tend(7)
    assert not desk.wakeup.relied_on
    assert "a change of our own was not told of; they are tried again in 10 min" in desk.wakeup.status
    desk.tend(700)
    assert not desk.wakeup.relied_on
    desk.canary_lives = True
    desk.tend(1300)
    assert desk.wakeup.relied_on
    assert desk.wakeup.counted.rebuilds == 3


def test_a_watch_that_dies_again_and_again_is_not_set_up_all_the_time(desk: Desk) -> None:
    """Its tries come ever more seldom until one lives for a minute."""
    for _ in range(1000):
        desk.observers[-1].alive = False
        desk.tend()
    assert len(desk.observers) < 15


def test_without_a_folder_of_our_own_there_is_no_canary(tmp_path: Path) -> None:
    """An inbox that is never changed (`source: leave`) is watched all the same."""
    desk = Desk(replace(open_root(tmp_path, Role.INBOX), mount=DISK))
    desk.canary_lives = False
    desk.wakeup.start()
    desk.tend(2 * CANARY_EVERY_SECONDS)
    assert desk.wakeup.relied_on and desk.wakeup.counted.rebuilds == 0
    desk.wakeup.stop()


def test_a_source_without_a_canary_comes_back_by_itself(tmp_path: Path) -> None:
    """After ten minutes events are relied on again; the scans tell whether rightly."""
    desk = Desk(replace(open_root(tmp_path, Role.INBOX), mount=DISK))
    desk.canary_lives = False
    desk.wakeup.start()
    desk.scan(), desk.miss(3), desk.scan(), desk.miss(3)
    assert not desk.wakeup.relied_on
    desk.tend(700)
    assert desk.wakeup.relied_on
    desk.wakeup.stop()


# -- mounts --------------------------------------------------------------------------------------


def test_a_share_below_the_inbox_is_not_watched_and_told(root: Root) -> None:
    """The rest of the inbox is."""
    desk = Desk(root)
    share = replace(SHARE, point=f"{root.path}/nas")
    desk.mounts = (DISK, share, replace(SHARE, point="/elsewhere"))
    desk.wakeup.start()
    assert desk.foreign == {f"{root.path}/nas"}
    assert desk.wakeup.relied_on
    assert desk.wakeup.status == (
        f"{root.path}/nas is not watched but scanned: it lies on cifs, where other machines may write unseen."
    )
    desk.wakeup.stop()


def test_what_is_mounted_below_the_inbox_later_is_watched_too(desk: Desk, root: Root) -> None:
    """The old watch would still hear of the folder that lies hidden beneath."""
    desk.mounts = (DISK, replace(DISK, point=f"{root.path}/disk", source="/dev/sdb"))
    assert not desk.wakeup.relied_on
    desk.tend(2)
    assert desk.wakeup.relied_on and len(desk.observers) == 2


def test_what_is_mounted_over_the_inbox_is_not_touched(
    desk: Desk, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not even answer; the scan, which may wait, finds out what it is."""
    desk.mounts = (DISK, replace(SHARE, point=str(root.path)))

    def hang(*_: object, **__: object) -> None:
        raise AssertionError("the folder was looked at")

    monkeypatch.setattr("pipeline.intake.wakeup._identity", hang)
    monkeypatch.setattr(os, "utime", hang)
    desk.tend(100)
    assert not desk.wakeup.relied_on and desk.wakeup.moved
    assert "something was mounted or unmounted" in desk.wakeup.status
    desk.mounts = (DISK,)
    monkeypatch.undo()
    desk.tend(300)
    assert desk.wakeup.relied_on and not desk.wakeup.moved


def test_a_remount_is_no_other_mount(desk: Desk) -> None:
    """Made read-only and back."""
    desk.mounts = (replace(DISK, read_only=True),)
    desk.tend(2)
    assert desk.wakeup.relied_on and not desk.wakeup.moved


def test_folders_beyond_the_limit_of_watches_are_noticed(desk: Desk) -> None:
    """watchdog keeps silent about a subfolder that it could not watch."""
    desk.observers[0].failed = 7
    assert not desk.wakeup.relied_on
    assert "7 folders cannot be watched" in desk.wakeup.status
    assert "fs.inotify.max_user_watches" in desk.wakeup.status
    desk.tend(5)
    assert desk.wakeup.relied_on


def test_nothing_is_watched_if_nobody_wants_it(root: Root) -> None:
    """`intake.events: false`."""
    desk = Desk(root, wanted=False)
    desk.wakeup.start()
    desk.tend(100)
    assert desk.observers == [] and not desk.wakeup.relied_on and desk.wakeup.status == ""
    desk.wakeup.stop()
