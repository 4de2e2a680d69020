"""The workers as the daemon looks after them, also while the machine is at fault."""

import time
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import a_job, submit

from pipeline import crew as room
from pipeline.config import Config
from pipeline.crew import Crew
from pipeline.errors import EnvironmentFailure
from pipeline.intake.aside import Aside
from pipeline.intake.readiness import Machine
from pipeline.jobs.job import JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.pools.base import Ended

FULL = EnvironmentFailure("The ledger cannot be written: its disk is full.", code="disk_full")


class Pool:
    """Workers that do what the test says."""

    def __init__(self) -> None:
        self.living: list[str] = []
        self.ended: list[Ended] = []
        self.killed: list[str] = []
        self.pids: dict[int, str] = {}

    def name_of(self, pid: int) -> str:
        """As the test says."""
        return self.pids.get(pid, "")

    def names(self) -> list[str]:
        """The living."""
        return self.living

    def fill(self) -> list[str]:
        """One, if there is none."""
        new = [] if self.living else ["1-new"]
        self.living += new
        return new

    def reap(self) -> list[Ended]:
        """Told once, as by the operating system."""
        ended, self.ended = self.ended, []
        return ended

    def die(self, worker: str, *, exit_code: int = -9, lived_seconds: float = 100.0) -> None:
        """A worker is gone."""
        self.living = [name for name in self.living if name != worker]
        self.ended.append(Ended(worker=worker, exit_code=exit_code, lived_seconds=lived_seconds))

    def kill(self, worker: str) -> None:
        """Remembered."""
        self.killed.append(worker)

    def stop(self) -> None:
        """Nobody listens."""

    kill_all = stop


@pytest.fixture
def pool() -> Pool:
    """Empty."""
    return Pool()


@pytest.fixture
def crew(config: Config, pool: Pool, ledger: Ledger, layout: Layout) -> Crew:
    """Of a machine that is well since long ago."""

    def fail(job: Any, code: str, message: str, hint: str) -> None:
        ledger.finish(job.id, JobState.FAILED, code=code, message=message, hint=hint)

    machine = Machine(layout, ledger, desk=Aside("machine"), clock=time.monotonic)
    machine.well_since = float("-inf")
    return Crew(config, pool, ledger, layout, machine, fail=fail)


def refusing(*_: object, **__: object) -> Any:
    """What a full disk lets the ledger do."""
    raise FULL


def outcomes(ledger: Ledger) -> list[str]:
    """How each attempt ended."""
    return [row["outcome"] for row in ledger._db.rows("SELECT outcome FROM attempts ORDER BY number")]


def test_a_death_that_could_not_be_written_down_is_written_later(
    crew: Crew, pool: Pool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system tells of it once; without that the job would run for ever, in nobody's hands."""
    submit(ledger, a_job())
    ledger.claim("1-a")
    pool.die("1-a")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "bury", refusing)
        with pytest.raises(EnvironmentFailure):
            crew.tend(open_=True, paused=False)
    crew.tend(open_=True, paused=False)
    assert outcomes(ledger) == ["died"] and ledger.counts()["queued"] == 1


def test_a_worker_that_keeps_the_ledger_locked_is_killed_and_nobody_else(
    crew: Crew, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that it kept us out; not a program of somebody's, nor a worker for whom the disk stalls."""
    pool.pids = {4711: "1-a"}
    kept_out_by = [None, 4712, 4711, 4711, None]
    monkeypatch.setattr(Ledger, "kept_out_by", lambda _: kept_out_by.pop(0))
    at_the_disk = [True, False]
    monkeypatch.setattr(room, "waits_for_a_disk", lambda _: at_the_disk.pop(0))
    for killed in ([], [], [], ["1-a"], ["1-a"]):
        crew.free_ledger()
        assert pool.killed == killed


def test_who_waits_for_the_machine_is_not_killed_for_his_silence(
    crew: Crew, pool: Pool, ledger: Ledger, config: Config
) -> None:
    """His heart cannot beat into a ledger whose disk is full; once all is well he has his time again."""
    submit(ledger, a_job())
    ledger.claim("1-a")
    pool.living = ["1-a"]
    ledger._db.rows("UPDATE jobs SET heartbeat_at = heartbeat_at - 10000")
    crew._machine.well_since = time.monotonic() - config.workers.stall_seconds / 2
    crew.tend(open_=True, paused=False)
    assert pool.killed == []
    crew._machine.well_since -= config.workers.stall_seconds
    crew.tend(open_=True, paused=False)
    assert pool.killed == ["1-a"]


@pytest.mark.parametrize("well", [True, False])
def test_who_takes_no_job_because_of_the_machine_is_not_deaf(
    crew: Crew, pool: Pool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, well: bool
) -> None:
    """Only who could and does not."""
    submit(ledger, a_job())
    pool.living = ["1-a"]
    crew._machine.failure = None if well else FULL
    monkeypatch.setattr(room, "DEAF_SECONDS", -1.0)
    crew.tend(open_=True, paused=False)
    assert pool.killed == (["1-a"] if well else [])


def test_workers_that_could_not_start_are_forgiven_once_they_do(
    crew: Crew, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status does not tell for ever what was mended."""
    monkeypatch.setattr(room, "START_AGAIN_SECONDS", 0.0)
    for _ in range(room.START_FAILURES_ALLOWED):
        crew.tend(open_=True, paused=False)
        pool.die("1-new", exit_code=1, lived_seconds=0.1)
    crew.tend(open_=True, paused=False)
    assert "Workers cannot start (exit status 1)" in crew.trouble
    crew.tend(open_=True, paused=False)
    assert crew.trouble, "the next may end as soon"
    monkeypatch.setattr(room, "START_SECONDS", -1.0)
    crew.tend(open_=True, paused=False)
    assert crew.trouble == ""


def test_what_a_dead_worker_s_libraries_left_is_cleared_away(crew: Crew, pool: Pool, layout: Layout) -> None:
    """Killed, it could not do that itself."""
    scratch: Path = layout.scratch("1-a")
    scratch.mkdir()
    (scratch / "dictionary").write_text("left")
    pool.die("1-a")
    crew.tend(open_=True, paused=False)
    assert not scratch.exists()


@pytest.mark.parametrize("open_", [True, False])
def test_nobody_is_started_while_the_folders_are_away(crew: Crew, pool: Pool, open_: bool) -> None:
    """There would be nothing to do."""
    crew.tend(open_=open_, paused=False)
    assert pool.living == (["1-new"] if open_ else [])
