"""The eyes of the daemon: what is taken, what waits and why, and roots that come and go."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from intake_samples import lying, put, with_source
from ledger_samples import Clock

from pipeline.config import Config
from pipeline.intake.intake import Intake
from pipeline.intake.opening import Opened, open_folders
from pipeline.intake.roots import Root
from pipeline.intake.watch import ROOT_RETRY_SECONDS, Watch
from pipeline.jobs.job import Drop, DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.mounts import Mount

EMPTY_SECONDS = 61.0
PATIENCE_SECONDS = 10.0


class Eyes:
    """A watch on a clock of its own, without events."""

    def __init__(self, layout: Layout, ledger: Ledger, config: Config, clock: Callable[[], float]) -> None:
        quiet = config.intake.model_copy(update={"events": False})
        self.config = config.model_copy(update={"intake": quiet})
        self.intake = Intake(layout, ledger, self.config, clock=clock)
        self.watch = Watch(self.config, layout, ledger, self.intake, clock=clock)

    def waiting(self) -> dict[str, str]:
        """Path and reason of all that waits."""
        return {entry.path: entry.reason for entry in self.watch.waiting()}


@pytest.fixture
def clock() -> Clock:
    """A monotonic clock."""
    return Clock(1000.0)


@pytest.fixture
def see(layout: Layout, ledger: Ledger, config: Config, clock: Clock) -> Callable[..., Eyes]:
    """`see(source="leave")`: a fresh watch, as after a start."""

    def make(source: str = "move", **intake: object) -> Eyes:
        return Eyes(layout, ledger, with_source(config, source, **intake), clock)

    return make


def taken(eyes: Eyes, clock: Clock, *, passes: int = 1) -> list[str]:
    """What some passes take, each after a while."""
    drops = []
    for _ in range(passes):
        clock.now += 70.0
        drops += [drop.relative for drop in eyes.watch.look()]
    return drops


def test_ebook2audiobook_issue_287_what_lies_there_is_taken_once(
    see: Any, layout: Layout, clock: Clock
) -> None:
    """In subfolders too; then the inbox is quiet."""
    eyes = see()
    assert not eyes.watch.quiet(), "nothing was looked at yet"
    put(layout, "a.txt"), put(layout, "sub/b.md")
    assert sorted(taken(eyes, clock)) == ["a.txt", "sub/b.md"]
    assert taken(eyes, clock) == [] and eyes.watch.quiet() and eyes.waiting() == {}


def test_nothing_is_looked_at_before_its_time(see: Any, layout: Layout, clock: Clock) -> None:
    """Not even if a file lies there already."""
    eyes = see()
    eyes.watch.look()
    put(layout, "a.txt")
    assert eyes.watch.look() == ()
    assert taken(eyes, clock) == ["a.txt"]


def test_whatever_is_not_taken_is_shown_with_its_reason(see: Any, layout: Layout, clock: Clock) -> None:
    """From the scan and from the intake alike."""
    put(layout, "book.epub"), put(layout, "empty.txt", b""), put(layout, "picture.png")
    put(layout, "job.yaml", "text_file: later.txt")
    put(layout, "held/_defaults.yaml", "x: 1"), put(layout, "held/a.txt")
    (layout.inbox / "link.txt").symlink_to("/etc/hostname")
    os.mkfifo(layout.inbox / "pipe.txt")
    eyes = see()
    clock.now += 1
    assert eyes.watch.look() == ()
    reasons = eyes.waiting()
    assert {name: reasons.pop(name) for name in ("book.epub", "link.txt", "pipe.txt")} == {
        "book.epub": "not supported yet: .epub",
        "link.txt": "a link, not a file: drop the file itself",
        "pipe.txt": "a named pipe (FIFO), not a file: drop the file itself",
    }
    assert reasons["empty.txt"].startswith("empty so far")
    assert reasons["picture.png"] == "not a kind of file Voxspool knows: .png"
    assert reasons["job.yaml"] == "waiting for later.txt"
    assert reasons["held/a.txt"].startswith("the folder's defaults are wrong: held/_defaults.yaml, line 1: x")
    assert not eyes.watch.quiet(), "the empty file may still be written"
    clock.now += EMPTY_SECONDS
    assert [drop.relative for drop in eyes.watch.look()] == ["empty.txt"]
    assert eyes.watch.quiet()


def test_what_is_left_in_the_inbox_is_taken_once_until_it_changes(
    see: Any, layout: Layout, clock: Clock
) -> None:
    """Also after a restart, and its parts neither."""
    put(layout, "a.txt"), put(layout, "job.yaml", "text_file: part.txt"), put(layout, "part.txt")
    eyes = see("leave")
    assert sorted(taken(eyes, clock, passes=3)) == ["a.txt", "job.yaml"]
    eyes = see("leave")
    assert taken(eyes, clock, passes=2) == []
    put(layout, "a.txt", "changed")
    assert taken(eyes, clock) == ["a.txt"]
    assert lying(layout) == ["a.txt", "job.yaml", "part.txt"]


@pytest.mark.parametrize("root", ["inbox", "outbox"])
@pytest.mark.parametrize("loss", ["missing", "empty"])
def test_a_lost_root_stops_the_intake_until_it_is_back(
    see: Any, layout: Layout, clock: Clock, root: str, loss: str
) -> None:
    """An empty mount point looks just as valid: it lacks the mark. What lies in it is left alone."""
    eyes = see()
    eyes.watch.look()
    put(layout, "a.txt")
    place, away = getattr(layout, root), getattr(layout, root).with_name("away")
    place.rename(away)
    if loss == "empty":
        place.mkdir()
    if loss == "empty" and root == "inbox":
        put(layout, "decoy.txt")
    assert taken(eyes, clock, passes=2) == []
    assert str(place) in eyes.watch.trouble
    assert eyes.watch.look() == (), "it is tried again, but not at every tick"
    shutil.rmtree(place, ignore_errors=True)
    away.rename(place)
    clock.now += ROOT_RETRY_SECONDS
    assert [drop.relative for drop in eyes.watch.look()] == ["a.txt"]
    assert eyes.watch.trouble == ""


def test_a_root_is_remembered_over_a_restart(see: Any, layout: Layout, clock: Clock) -> None:
    """The mount that was there yesterday is missing today."""
    see().watch.look()
    shutil.rmtree(layout.inbox)
    layout.inbox.mkdir()
    put(layout, "decoy.txt")
    eyes = see()
    assert taken(eyes, clock) == []
    assert "has lost its mark" in eyes.watch.trouble


@pytest.mark.parametrize(("code", "said"), [(errno.ENOSPC, "is full"), (errno.EACCES, "is denied")])
def test_a_disk_that_gives_up_is_told_and_waited_for(
    see: Any,
    layout: Layout,
    ledger: Ledger,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    said: str,
) -> None:
    """A file fails, and failed/ cannot be written: it is told, and written once it can be."""
    put(layout, "bad.yaml", "x: 1"), put(layout, "good.txt")
    eyes = see()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(layout.failed))

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.outbox.atomic_write", refuse)
        assert taken(eyes, clock, passes=3) == []
        assert str(layout.outbox) in eyes.watch.trouble and said in eyes.watch.trouble
    taken(eyes, clock, passes=2)
    assert [job.stem for job in ledger.jobs_in(JobState.QUEUED)] == ["good"]
    assert (layout.failed / "bad.yaml").exists() and eyes.watch.trouble == ""
    assert sorted(drop.state for drop in ledger.drops_in(*DropState)) == ["claimed", "failed"]


def test_a_ledger_that_gives_up_is_told(
    see: Any, layout: Layout, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full; nothing is taken that could not be written down."""
    eyes = see()
    eyes.watch.look()
    put(layout, "a.txt")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(layout.ledger_file))

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "plan_claim", refuse)
        assert taken(eyes, clock) == []
        assert f"The disk of the state {layout.state} is full. Make room" in eyes.watch.trouble
    assert lying(layout) == ["a.txt"]
    assert taken(eyes, clock) == ["a.txt"]


def test_a_file_where_our_own_folder_belongs_is_told(see: Any, layout: Layout, clock: Clock) -> None:
    """The daemon lives on, and goes on once it is taken away."""
    put(layout, ".voxspool", "mine"), put(layout, "a.txt")
    eyes = see()
    assert taken(eyes, clock) == [] and ".voxspool" in eyes.watch.trouble
    (layout.inbox / ".voxspool").unlink()
    assert taken(eyes, clock) == ["a.txt"] and eyes.watch.trouble == ""


def test_one_inbox_has_one_daemon(
    see: Any, layout: Layout, clock: Clock, config: Config, tmp_path: Any
) -> None:
    """Another with a state folder of its own would take our claims for orphans."""
    first = see()
    first.watch.look()
    other_state = config.model_copy(update={"state": str(tmp_path / "other")})
    other = Ledger(tmp_path / "other" / "ledger.db", clock=clock)
    second = Eyes(layout, other, with_source(other_state, "move"), clock)
    put(layout, "a.txt")
    assert taken(second, clock) == [] and "Another Voxspool" in second.watch.trouble
    first.watch.close()
    assert taken(second, clock) == ["a.txt"]
    other.close()


def test_events_make_it_look_at_once(layout: Layout, ledger: Ledger, config: Config) -> None:
    """With the kernel's help, and in real time."""
    intake = Intake(layout, ledger, config, clock=time.time)
    watch = Watch(config, layout, ledger, intake, clock=time.monotonic)
    try:
        watch.look()
        put(layout, "a.txt")
        deadline = time.monotonic() + 10
        drops: list[str] = []
        while not drops and time.monotonic() < deadline:
            watch.wait(1.0)
            drops += [drop.relative for drop in watch.look()]
        assert drops == ["a.txt"]
    finally:
        watch.close()


# -- roots that do not answer ------------------------------------------------------------------


class Silence:
    """A share whose server may stop to answer: who looks at it then waits until it is back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = threading.Event()
        real_check, real_lexists = Root.check, os.path.lexists

        def check(root: Root) -> None:
            self.answers.wait(PATIENCE_SECONDS)
            real_check(root)

        def lexists(path: Any) -> bool:
            self.answers.wait(PATIENCE_SECONDS)
            return real_lexists(path)

        monkeypatch.setattr(Root, "check", check)
        monkeypatch.setattr("pipeline.intake.watch.os.path.lexists", lexists)
        self._monkeypatch = monkeypatch
        self.speak()

    def speak(self) -> None:
        """It answers, and is given the time to."""
        self._be_patient(PATIENCE_SECONDS)
        self.answers.set()

    def fall_silent(self) -> None:
        """It does not, and nobody waits for long."""
        self.answers.clear()
        self._be_patient(0.05)

    def _be_patient(self, seconds: float) -> None:
        for name in ("PATIENCE_SECONDS", "GLANCE_SECONDS"):
            self._monkeypatch.setattr(f"pipeline.intake.watch.{name}", seconds)


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    """Everything answers until the test says otherwise."""
    made = Silence(monkeypatch)
    yield made
    made.speak()


def test_a_root_that_does_not_answer_holds_nobody_up(
    see: Any, layout: Layout, clock: Clock, silence: Silence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told after half a minute, nothing touches it meanwhile, and all goes on when it is back."""
    put(layout, "book.epub")
    eyes = see()
    eyes.watch.look()
    put(layout, "a.txt")
    silence.fall_silent()
    clock.now += 70.0
    begun = time.monotonic()
    assert eyes.watch.look() == () and eyes.watch.trouble == ""
    clock.now += 29.0
    assert eyes.watch.look() == () and eyes.watch.trouble == ""
    assert not eyes.watch.answering and not eyes.watch.open and not eyes.watch.quiet()
    clock.now += 1.0
    assert eyes.watch.look() == ()
    assert eyes.watch.trouble == (
        f"{layout.outbox} has not answered for 30 s: is its server or disk there?"
        " Voxspool goes on by itself when it answers."
    )
    assert eyes.watch.stalled and eyes.watch.look_seconds() == 30.0, "a disk of our own must not do that"
    mounts = (Mount(point="/", filesystem="nfs4", source="nas:/", read_only=False),)
    monkeypatch.setattr("pipeline.intake.watch.read_mounts", lambda: mounts)
    assert eyes.watch.look_seconds() == 0.0, "a share may: that is told, and nothing is stuck"
    assert eyes.watch.measures().roots == {"inbox": True, "outbox": False}
    eyes.watch.notes(), eyes.watch.paused()
    assert [entry.path for entry in eyes.watch.waiting()] == ["book.epub"]
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    silence.speak()
    eyes.watch.wait(PATIENCE_SECONDS)
    drops = [*eyes.watch.look(), *(drop for drop in taken_drops(eyes, clock))]
    assert [drop.relative for drop in drops] == ["a.txt"]
    assert eyes.watch.trouble == "" and eyes.watch.open


def taken_drops(eyes: Eyes, clock: Clock) -> list[Drop]:
    """One more pass after a while."""
    clock.now += 70.0
    return list(eyes.watch.look())


def test_a_slow_look_is_used_when_it_comes_back(
    see: Any, layout: Layout, clock: Clock, silence: Silence
) -> None:
    """A large share takes longer than anybody waits at a time: its scans are not thrown away."""
    eyes = see()
    eyes.watch.look()
    put(layout, "a.txt")
    silence.fall_silent()
    clock.now += 70.0
    assert eyes.watch.look() == () and eyes.watch.look() == ()
    silence.speak()
    eyes.watch.wait(PATIENCE_SECONDS)
    eyes.watch._aside.send = None  # the next one would be as slow
    assert [drop.relative for drop in eyes.watch.look()] == ["a.txt"]


def test_a_pause_file_in_the_state_folder_counts_too(see: Any, layout: Layout) -> None:
    """Nobody may be able to write into the inbox."""
    eyes = see("leave")
    assert not eyes.watch.paused()
    layout.own_pause_file.touch()
    assert eyes.watch.paused()
    layout.own_pause_file.unlink()
    assert not eyes.watch.paused()


def test_the_pause_file_is_asked_for_without_waiting(see: Any, layout: Layout, silence: Silence) -> None:
    """While the inbox is silent the last answer holds."""
    eyes = see()
    assert not eyes.watch.paused()
    layout.pause_file.touch()
    assert eyes.watch.paused()
    silence.fall_silent()
    layout.pause_file.unlink()
    begun = time.monotonic()
    assert eyes.watch.paused() and eyes.watch.paused()
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    silence.speak()
    end = time.monotonic() + PATIENCE_SECONDS
    while eyes.watch.paused():
        assert time.monotonic() < end


def test_a_watch_that_is_closed_while_it_opens_gives_the_inbox_free(
    see: Any, layout: Layout, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload while the share is silent: the next watch must be able to hold the inbox."""
    answers = threading.Event()
    real = open_folders

    def slow(*arguments: Any, **options: Any) -> Opened:
        answers.wait(PATIENCE_SECONDS)
        return real(*arguments, **options)

    monkeypatch.setattr("pipeline.intake.watch.PATIENCE_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.intake.watch.open_folders", slow)
        first = see()
        assert first.watch.look() == ()
        first.watch.close()
        answers.set()
        first.watch._aside._thread.join(PATIENCE_SECONDS)
    second = see()
    put(layout, "a.txt")
    second.watch.wait(PATIENCE_SECONDS)
    assert taken(second, clock, passes=2) == ["a.txt"]


def test_what_was_seen_can_be_asked(see: Any, layout: Layout, clock: Clock) -> None:
    """Roots, sources, files by state, ages, scans."""
    eyes = see()
    nothing = eyes.watch.measures()
    assert nothing.roots == {"inbox": False, "outbox": False} and nothing.scan_seconds is None
    put(layout, "empty.txt", b""), put(layout, "book.epub"), put(layout, "other.epub")
    put(layout, "job.yaml", "text_file: later.txt")
    clock.now += 70.0
    eyes.watch.look()
    clock.now += 10.0
    seen = eyes.watch.measures()
    assert seen.roots == {"inbox": True, "outbox": True} and not seen.events
    assert seen.files["unsupported"] == 2 and seen.files["empty"] == 1
    assert seen.oldest_seconds["unsupported"] == 10.0
    assert seen.scans == 1 and seen.scan_seconds is not None
    assert (seen.missed, seen.overflows, seen.rebuilds, seen.shares) == (0, 0, 0, ())


def test_an_inbox_that_was_covered_is_opened_anew(
    layout: Layout, ledger: Ledger, config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another mount at its path: what the root was known to be no longer holds, though its mark is right."""
    intake = Intake(layout, ledger, config, clock=clock)
    watch = Watch(config, layout, ledger, intake, clock=clock)
    watch.look()
    before = watch._inbox
    monkeypatch.setattr("pipeline.intake.wakeup.Wakeup.moved", True)
    clock.now += 1.0
    watch.look()
    assert watch._inbox is not before and watch.open
    watch.close()


# -- measures ---------------------------------------------------------------------------------------


def test_what_waits_is_measured_by_state_and_age(see: Any, layout: Layout, clock: Clock) -> None:
    """What waits for another file is as old as it was first seen."""
    put(layout, "book.epub"), put(layout, "job.yaml", "text_file: later.txt")
    eyes = see()
    assert eyes.watch.measures().scan_seconds is None
    taken(eyes, clock, passes=3)
    clock.now += 7.0
    seen = eyes.watch.measures()
    assert seen.files == {"unsupported": 1, "waiting": 1}
    assert seen.oldest_seconds == {"unsupported": 147.0, "waiting": 147.0}
    assert seen.scan_seconds is not None and 0.0 < seen.scan_seconds < 5.0
    assert (seen.events, seen.scans) == (False, 3)


@pytest.mark.parametrize("root", ["inbox", "outbox"])
def test_the_root_that_is_lost_is_down_and_no_other(
    see: Any, layout: Layout, clock: Clock, root: str, ledger: Ledger
) -> None:
    """Neither is up before the first look; one outage is one fault, however often it is looked at."""
    eyes = see()
    assert eyes.watch.measures().roots == {"inbox": False, "outbox": False}
    taken(eyes, clock)
    assert eyes.watch.measures().roots == {"inbox": True, "outbox": True}
    mark = getattr(layout, root) / ".voxspool-root"
    kept = mark.read_bytes()
    mark.unlink()
    taken(eyes, clock, passes=4)
    assert eyes.watch.measures().roots == {"inbox": True, "outbox": True, root: False}
    (kind,) = ledger.faults.kinds()
    assert (kind.code, kind.count) == ("root", 1) and "lost its mark" in kind.last[0].message
    mark.write_bytes(kept)
    taken(eyes, clock)
    assert eyes.watch.measures().roots == {"inbox": True, "outbox": True}
