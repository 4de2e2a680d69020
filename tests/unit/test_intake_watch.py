"""The eyes of the daemon: what is taken, what waits and why, and roots that come and go."""

import errno
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from intake_samples import lying, put, with_source
from ledger_samples import Clock

from pipeline.config import Config
from pipeline.intake.intake import Intake
from pipeline.intake.watch import ROOT_RETRY_SECONDS, Watch
from pipeline.jobs.job import DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger

EMPTY_SECONDS = 61.0


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


def test_what_lies_there_is_taken_once(see: Any, layout: Layout, clock: Clock) -> None:
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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_gives_up_is_told_and_waited_for(
    see: Any, layout: Layout, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A file fails, and failed/ cannot be written: it is told, and written once it can be."""
    put(layout, "bad.yaml", "x: 1"), put(layout, "good.txt")
    eyes = see()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(layout.failed))

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.outbox.atomic_write", refuse)
        assert taken(eyes, clock, passes=3) == []
        assert eyes.watch.trouble == f"{layout.failed}: {os.strerror(code)}."
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
        assert "ledger.db: No space left on device." in eyes.watch.trouble
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
    import time

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
