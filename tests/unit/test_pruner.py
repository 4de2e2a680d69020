"""When pruning runs, in a process of its own: at start, on schedule, never two, and over with the daemon."""

import datetime
import subprocess
import sys
import time
from pathlib import Path

import pytest
import schedule

from pipeline.config import Config
from pipeline.files import exclusive_lock
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.pruner import DAEMON, STOP_SECONDS, Pruner

PATIENCE_SECONDS = 20.0
HOUR = 3600.0
# Writes its number, and ends when it is told to by a file.
CHILD = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / f"began {os.getpid()}").touch()
while not (folder / "end").exists():
    time.sleep(0.01)
sys.exit((folder / "end").read_text() or 0)
"""


class WallClock(datetime.datetime):
    """A wall clock that a test sets."""

    seconds = 1_800_000_000.0

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "WallClock":
        """What it says."""
        assert tz is None
        return cls.fromtimestamp(cls.seconds)


class Desk:
    """A pruner with a child that the test holds in its hands."""

    def __init__(self, config: Config, layout: Layout, ledger: Ledger, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        command = [sys.executable, "-c", CHILD, str(folder)]
        self.pruner = Pruner(config, layout, ledger, command=command)

    def began(self) -> list[int]:
        """Process ids of the children that began."""
        return sorted(int(path.name.split()[1]) for path in self.folder.glob("began *"))

    def until_running(self, children: int) -> None:
        """Tend until so many have begun."""
        end = time.monotonic() + PATIENCE_SECONDS
        while len(self.began()) < children:
            assert time.monotonic() < end
            self.pruner.tend(may_start=True)
            time.sleep(0.01)

    def finish(self, words: str = "") -> None:
        """Let the child end, badly if it has last words, and notice it."""
        (self.folder / "end").write_text(words)
        end = time.monotonic() + PATIENCE_SECONDS
        while self.pruner.running:
            assert time.monotonic() < end
            self.pruner.tend(may_start=False)
            time.sleep(0.01)
        (self.folder / "end").unlink()


@pytest.fixture
def desk(
    config: Config, layout: Layout, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """A pruner that has not begun."""
    monkeypatch.setattr(schedule.datetime, "datetime", WallClock)
    monkeypatch.setattr(WallClock, "seconds", WallClock.seconds)
    return Desk(config, layout, ledger, tmp_path / "child")


def due_after(desk: Desk, monkeypatch: pytest.MonkeyPatch, hours: float) -> bool:
    """Whether pruning is wanted that much later."""
    monkeypatch.setattr(WallClock, "seconds", WallClock.seconds + hours * HOUR)
    desk.pruner.tend(may_start=False)
    wanted, desk.pruner._wanted = desk.pruner._wanted, False
    return wanted


def test_it_runs_at_the_start_once_the_folders_are_there(desk: Desk) -> None:
    """And not again before its time."""
    for _ in range(3):
        desk.pruner.tend(may_start=False)
    assert not desk.pruner.running
    desk.until_running(1)
    assert desk.pruner.running
    desk.finish()
    for _ in range(3):
        desk.pruner.tend(may_start=True)
    assert len(desk.began()) == 1 and not desk.pruner.running


def test_it_runs_every_five_hours(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the contract; and not a minute earlier."""
    assert due_after(desk, monkeypatch, 0), "at the start"
    for _ in range(3):
        assert not due_after(desk, monkeypatch, 4.9)
        assert due_after(desk, monkeypatch, 0.2)


def test_what_fell_due_while_a_folder_was_away_is_done_when_it_is_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not another five hours later."""
    desk.until_running(1)
    desk.finish()
    monkeypatch.setattr(WallClock, "seconds", WallClock.seconds + 6 * HOUR)
    desk.pruner.tend(may_start=False)
    assert len(desk.began()) == 1
    desk.until_running(2)
    desk.finish()


def test_a_clock_that_is_set_back_does_not_put_it_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a year: else nothing would be pruned for a year."""
    assert due_after(desk, monkeypatch, 0)
    assert not due_after(desk, monkeypatch, -8760)
    assert not due_after(desk, monkeypatch, 4.9)
    assert due_after(desk, monkeypatch, 0.2)


def test_a_reload_leaves_the_date_alone(desk: Desk, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it changes the interval."""
    due_after(desk, monkeypatch, 0)
    for _ in range(4):
        assert not due_after(desk, monkeypatch, 1)
        desk.pruner.configure(config)
    assert due_after(desk, monkeypatch, 1)
    often = config.retention.model_copy(update={"every_hours": 0.5})
    desk.pruner.configure(config.model_copy(update={"retention": often}))
    assert due_after(desk, monkeypatch, 0.6)


def test_there_are_never_two(desk: Desk, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of ours, nor beside one that a person has started."""
    with exclusive_lock(layout.prune_lock):
        desk.pruner.tend(may_start=True)
        assert not desk.pruner.running
    desk.until_running(1)
    monkeypatch.setattr(WallClock, "seconds", WallClock.seconds + 6 * HOUR)
    for _ in range(5):
        desk.pruner.tend(may_start=True)
    assert len(desk.began()) == 1
    desk.finish()
    desk.until_running(2)
    desk.finish()


def test_nobody_waits_for_it(desk: Desk) -> None:
    """However long it takes."""
    desk.until_running(1)
    begun = time.monotonic()
    for _ in range(100):
        desk.pruner.tend(may_start=True)
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    desk.finish()


@pytest.mark.parametrize("deaf", [False, True])
def test_it_ends_with_the_daemon(
    config: Config, layout: Layout, ledger: Ledger, tmp_path: Path, deaf: bool
) -> None:
    """Also one that does not listen."""
    ready = tmp_path / "ready"
    script = f"import pathlib, signal, time; pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    if deaf:
        script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + script
    pruner = Pruner(config, layout, ledger, command=[sys.executable, "-c", script])
    pruner.tend(may_start=True)
    child = pruner._child
    assert child is not None
    while not ready.exists():
        time.sleep(0.01)
    begun = time.monotonic()
    pruner.stop()
    child.wait(PATIENCE_SECONDS)
    assert time.monotonic() - begun < STOP_SECONDS + 5 and not pruner.running
    pruner.stop()


def test_a_failure_is_told_until_it_goes_well(desk: Desk, ledger: Ledger) -> None:
    """With its last words."""
    ledger.set_meta("prune_notes", '["The outbox holds 4 GB of 5 GB (80 %)."]')
    desk.until_running(1)
    desk.finish("The ledger cannot be used: disk I/O error.")
    assert desk.pruner.notes == (
        "The outbox holds 4 GB of 5 GB (80 %).",
        "Pruning failed (exit status 1): The ledger cannot be used: disk I/O error.",
    )
    desk.pruner._wanted = True
    desk.until_running(2)
    desk.finish()
    assert desk.pruner.notes == ("The outbox holds 4 GB of 5 GB (80 %).",)


def test_the_command_is_the_one_that_people_run(config: Config, layout: Layout, ledger: Ledger) -> None:
    """It prunes, and remembers what there is to say; a second one at the same time is refused."""
    assert config.file is not None
    folders = "".join(f"{name}: {name}\n" for name in ("inbox", "outbox", "voices", "state"))
    config.file.write_text(folders, encoding="utf-8")
    command = Pruner(config, layout, ledger)._command
    assert command == [sys.executable, str(DAEMON), "--config", str(config.file), "prune"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 removed, 0 bytes freed."
    with exclusive_lock(layout.prune_lock):
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("Pruning is going on already.")
