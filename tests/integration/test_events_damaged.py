"""Real change events, really damaged: what is lost is found and counted, and the watch heals by itself."""

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import inotify_rm_watch

from pipeline.intake.ignore import IgnoreList
from pipeline.intake.inbox import Inbox
from pipeline.intake.inotify import SelectiveObserver
from pipeline.intake.probe import probe
from pipeline.intake.roots import Role, open_root
from pipeline.intake.settle import SettleRules, Settling
from pipeline.intake.wakeup import CANARY_EVERY_SECONDS, CANARY_PATIENCE_SECONDS, LATE_SECONDS, Wakeup
from pipeline.layout import HIDDEN

TOLD_WITHIN_SECONDS = 30.0
REPOSITORY = Path(__file__).resolve().parent.parent.parent


class Eyes:
    """A watch and a scan of one folder, on a clock that can be put forward."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ahead = folder, 0.0
        (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
        self.root = open_root(folder, Role.INBOX, leave_marker=False)
        if not self.root.watchable:
            pytest.skip(f"the temporary folder lies on {self.root.mount.filesystem}")
        settling = Settling(SettleRules(), probe, uid=os.geteuid(), gid=os.getegid())
        self.inbox = Inbox(self.root, IgnoreList(), settling, max_entries=1_000_000)
        self.wakeup = Wakeup(self.root, clock=self.clock)
        self.wakeup.start()
        self.scan(), self.settle()

    @property
    def observer(self) -> SelectiveObserver:
        """The observer of this moment."""
        assert self.wakeup._observer is not None
        return self.wakeup._observer

    def clock(self) -> float:
        """Monotonic seconds, and those that were put forward."""
        return time.monotonic() + self.ahead

    def settle(self) -> None:
        """Until the canary has sung and all events have come."""
        self.until(lambda: self.wakeup._bell.canary_sang)
        while self.wakeup.wait(0.1):
            self.wakeup.tend()
        self.wakeup.tend()

    def until(self, condition: Callable[[], bool]) -> None:
        """Tend until it is so."""
        end = time.monotonic() + TOLD_WITHIN_SECONDS
        while not condition():
            assert time.monotonic() < end, self.wakeup.status
            self.wakeup.tend()
            time.sleep(0.01)

    def scan(self) -> tuple[str, ...]:
        """What a scan finds to be new."""
        self.wakeup.begin_round()
        changed = self.inbox.scan(self.clock()).changed
        self.wakeup.compare(changed)
        return changed

    def judge(self) -> int:
        """Let the time go by after which a change counts as missed; how many did."""
        self.ahead += LATE_SECONDS
        self.scan()
        return self.wakeup.counted.missed

    def tells_of(self, name: str) -> bool:
        """Whether a drop rings the bell and is told of by name."""
        end = time.monotonic() + TOLD_WITHIN_SECONDS
        (self.folder / name).write_text("x")
        while name not in self.wakeup._bell.names and time.monotonic() < end:
            self.wakeup.event.wait(0.05)
            self.wakeup.event.clear()
        return name in self.wakeup._bell.names

    def heal(self) -> None:
        """Until the watch is relied on again, and hears."""
        self.ahead += 1.0
        self.until(lambda: self.wakeup.relied_on)
        self.settle()
        assert self.wakeup.relied_on and self.tells_of("healed.txt")


@pytest.fixture(name="eyes")
def open_eyes(tmp_path: Path) -> Iterator[Eyes]:
    """On an empty folder."""
    made = Eyes(tmp_path / "inbox")
    yield made
    made.wakeup.stop()


def test_an_overflow_of_the_kernels_queue_is_healed_and_counted(
    eyes: Eyes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is held up while 10,000 files arrive: events are lost, no file is; it is told how many."""
    # the canary sings behind all that came before it, which takes a slow machine some seconds
    monkeypatch.setattr("pipeline.intake.wakeup.CANARY_PATIENCE_SECONDS", 2 * TOLD_WITHIN_SECONDS)
    with eyes.observer._inotify_fd._lock:
        for number in range(10_000):
            os.close(os.open(eyes.folder / f"{number}.txt", os.O_CREAT | os.O_WRONLY))
    eyes.until(lambda: eyes.wakeup.counted.overflows > 0)
    assert eyes.wakeup.event.is_set()
    eyes.settle()
    told = len(eyes.wakeup._bell.names)
    assert told < 10_000, "nothing was lost: the queue is larger here"
    assert len(eyes.scan()) == 10_000
    assert eyes.judge() == 10_000 - told
    assert eyes.wakeup.counted.overflows == 1
    assert eyes.wakeup.relied_on and eyes.wakeup.counted.rebuilds == 0
    assert eyes.tells_of("after.txt")


def kill_emitter(observer: SelectiveObserver) -> None:
    """As watchdog's own end when the root is deleted."""
    emitter = next(iter(observer.emitters))
    emitter.stop()
    emitter.join()


def kill_dispatcher(observer: SelectiveObserver) -> None:
    """As an exception in a handler does: the emitters live on."""
    emitters = set(observer._emitters)
    observer._emitters.clear()
    observer._inotify_fd.stop, stop = lambda: None, observer._inotify_fd.stop  # type: ignore[method-assign]
    observer._inotify_fd.join, join = lambda *_: None, observer._inotify_fd.join  # type: ignore[method-assign]
    observer.stop()
    observer.join()
    observer._emitters |= emitters
    observer._inotify_fd.stop, observer._inotify_fd.join = stop, join  # type: ignore[method-assign]


def kill_reader(observer: SelectiveObserver) -> None:
    """As an exception while an event is read does: observer and emitters live on."""
    observer._inotify_fd.stop()
    observer._inotify_fd.join()


@pytest.mark.parametrize("kill", [kill_emitter, kill_dispatcher, kill_reader])
def test_a_dead_thread_is_noticed_and_replaced(eyes: Eyes, kill: Callable[[SelectiveObserver], None]) -> None:
    """Whichever of watchdog's three threads it is; what came meanwhile is found and counted."""
    kill(eyes.observer)
    assert not eyes.wakeup.relied_on and "the watcher stopped" in eyes.wakeup.status
    (eyes.folder / "silent.txt").write_text("x")
    assert eyes.scan() == ("silent.txt",)
    eyes.heal()
    assert eyes.judge() == 1
    assert eyes.wakeup.counted.rebuilds == 1


def test_a_watch_that_seems_alive_and_is_deaf_is_found_out_by_the_canary(eyes: Eyes) -> None:
    """Every thread lives, the folder is the same, but the kernel no longer tells of it."""
    group = eyes.observer._groups()[0]
    (wd,) = group._active_callbacks_by_watch
    inotify_rm_watch(eyes.observer._inotify_fd._inotify_fd, wd)
    time.sleep(0.1)
    assert eyes.wakeup.relied_on, "nothing shows it yet"
    eyes.ahead += CANARY_EVERY_SECONDS
    eyes.wakeup.tend()
    eyes.ahead += CANARY_PATIENCE_SECONDS
    eyes.wakeup.tend()
    assert eyes.wakeup.counted.rebuilds == 1
    eyes.heal()


def test_a_deaf_subfolder_is_found_out_by_the_scans(eyes: Eyes) -> None:
    """The canary sings at the top; below it three changes are missed, and the watch is set up anew."""
    (eyes.folder / "sub").mkdir()
    eyes.settle(), eyes.scan()
    group = eyes.observer._groups()[0]
    wd = group._active_callbacks_by_path[os.fsencode(eyes.folder / "sub")]
    inotify_rm_watch(eyes.observer._inotify_fd._inotify_fd, wd)
    for number in range(3):
        (eyes.folder / "sub" / f"{number}.txt").write_text("x")
        assert eyes.tells_of(f"noise {number}.txt")
        assert f"sub/{number}.txt" in eyes.scan()
        eyes.judge()
    assert eyes.wakeup.counted.missed == 3 and eyes.wakeup.counted.rebuilds == 1
    eyes.settle()
    assert eyes.tells_of("sub/told.txt")


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_replaced_folder_is_watched_anew(eyes: Eyes, how: str) -> None:
    """`rm -rf inbox; mkdir inbox`, and the same by a rename."""
    if how == "deleted":
        shutil.rmtree(eyes.folder)
    else:
        eyes.folder.rename(eyes.folder.with_name("away"))
    assert not eyes.wakeup.relied_on
    (eyes.folder / HIDDEN).mkdir(parents=True)
    (eyes.folder / "early.txt").write_text("x")
    eyes.heal()
    assert "early.txt" in eyes.scan() and eyes.judge() == 1


@contextlib.contextmanager
def tmpfs(folder: Path, *, lazily: bool = False) -> Iterator[None]:
    """Mount a small tmpfs over a folder; skips where that is not allowed."""
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", *(["-l"] if lazily else []), str(folder)], check=True)


def test_something_mounted_over_the_inbox_turns_events_off(eyes: Eyes) -> None:
    """inotify tells nothing of it; and back, as soon as it is unmounted."""
    with tmpfs(eyes.folder):
        assert not eyes.wakeup.relied_on and "something was mounted or unmounted" in eyes.wakeup.status
        eyes.wakeup.tend()
        assert eyes.wakeup.moved and not eyes.wakeup.relied_on
    eyes.heal()


def test_what_is_mounted_below_the_inbox_is_told_of(eyes: Eyes) -> None:
    """A disk that is plugged in later; after it is gone the folder beneath is watched again."""
    (eyes.folder / "disk").mkdir()
    eyes.settle()
    with tmpfs(eyes.folder / "disk"):
        eyes.heal()
        assert eyes.tells_of("disk/a.txt")
    eyes.heal()
    assert eyes.tells_of("disk/b.txt")


def test_a_lazily_unmounted_inbox_is_watched_again(tmp_path: Path) -> None:
    """Its old watch seems alive and hears nothing for ever, since somebody still has a file open there."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        with tmpfs(folder, lazily=True):
            eyes = Eyes(folder)
            stack.callback(eyes.wakeup.stop)
            stack.enter_context(open(folder / "held.txt", "w"))
        assert not eyes.wakeup.relied_on
        with tmpfs(folder):
            (folder / HIDDEN).mkdir()
            eyes.heal()
            eyes.wakeup.stop()


LIMITED = """
import sys
from pathlib import Path
from test_events_damaged import Eyes

limit = Path("/proc/sys/user/max_inotify_watches")
folder = Path(sys.argv[1])
for number in range(10):
    (folder / f"sub {number}").mkdir(parents=True)
limit.write_text("5")
eyes = Eyes(folder)
assert not eyes.wakeup.relied_on
assert "6 folders cannot be watched" in eyes.wakeup.status, eyes.wakeup.status
assert "fs.inotify.max_user_watches" in eyes.wakeup.status
limit.write_text("100")
eyes.heal()
assert eyes.wakeup.status == ""
assert eyes.tells_of("sub 9/a.txt")
eyes.wakeup.stop()
"""


def test_beyond_the_limit_of_watches_the_inbox_is_scanned(tmp_path: Path) -> None:
    """watchdog keeps silent about subfolders that it cannot watch; with a higher limit events are back."""
    script = tmp_path / "limited.py"
    script.write_text(textwrap.dedent(LIMITED))
    command = ["unshare", "--user", "--map-root-user", sys.executable, str(script), str(tmp_path / "inbox")]
    path = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr:
        pytest.skip("user namespaces are not allowed here")
    assert done.returncode == 0, done.stderr
