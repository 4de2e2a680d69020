"""Workers that die or hang: the daemon lives, the job is tried alone and given up, the rest goes on."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from daemon_running import Daemon, command_of, long_text

Make = Callable[..., Daemon]
POISON = Path(__file__).resolve().parent / "poison"
UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}
MEMORY_CONTROLS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


@pytest.fixture
def poisoned(make_daemon: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """A daemon in which a file's name says what its job does to the worker."""
    monkeypatch.setenv("PYTHONPATH", str(POISON))
    monkeypatch.setenv("VOXSPOOL_POISON", str(tmp_path / "hung"))
    return make_daemon


def wait_until_ended(daemon: Daemon, count: int) -> None:
    """So many files are at their last place."""
    ended = "SELECT COUNT(*) FROM drops WHERE state IN ('done', 'failed')"
    daemon.wait(lambda: daemon.query(ended) == [(count,)], seconds=100)


def overlaps(daemon: Daemon) -> list[tuple[str, str]]:
    """Attempts that ran beside one of a job that had cost a worker before."""
    return daemon.query(
        "SELECT a.job_id, b.job_id FROM attempts AS a JOIN attempts AS b ON a.job_id != b.job_id"
        " AND b.started_at < a.ended_at AND b.ended_at > a.started_at WHERE EXISTS (SELECT 1 FROM attempts"
        " AS before WHERE before.job_id = a.job_id AND before.number < a.number AND before.outcome = 'died')"
    )


@pytest.mark.slow
def test_extended_issue_23_poison_is_tried_alone_and_given_up_after_three_deaths(poisoned: Make) -> None:
    """A broken library, somebody's SIGKILL, a limit on memory: each ends its worker three times, no more."""
    daemon = poisoned(defaults=UNCHECKED, workers={"count": 2}).start()
    assert daemon.process is not None
    for name in ("segv", "kill", "memory"):
        daemon.drop(f"{name}-a.txt", f"The {name}. And on.")
    for number in range(3):
        daemon.drop(f"good-{number}.txt", f"{number}\n\n{long_text(30)}")
    wait_until_ended(daemon, 6)
    assert daemon.process.poll() is None
    for name in ("segv", "kill", "memory"):
        assert "3 times" in (daemon.outbox / "failed" / f"{name}-a.txt.error.txt").read_text()
    outcomes = daemon.query(
        "SELECT source_name, attempts.outcome, COUNT(*) FROM jobs JOIN attempts ON job_id = jobs.id"
        " GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert outcomes == [
        *((f"good-{number}.txt", "done", 1) for number in range(3)),
        *((f"{name}-a.txt", "died", 3) for name in ("kill", "memory", "segv")),
    ]
    assert overlaps(daemon) == []
    assert daemon.command("audit").returncode == 0


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_its_job_comes_out_well(poisoned: Make) -> None:
    """Stopped once and in an endless loop once: both are noticed after `stall_seconds`."""
    daemon = poisoned(defaults=UNCHECKED, workers={"stall_seconds": 5}).start()
    daemon.drop("hang-a.txt", "First of all.\n\nAnd then the rest.")
    daemon.drop("next.txt", "I have to wait for it.")
    wait_until_ended(daemon, 2)
    assert daemon.query("SELECT outcome FROM attempts ORDER BY started_at, job_id") == [
        ("died",),
        ("died",),
        ("done",),
        ("done",),
    ]
    assert [chunk["cached"] for chunk in daemon.manifest("hang-a")["chunks"]] == [True, True]
    assert daemon.command("audit").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_recogniser_that_is_gone_costs_an_attempt_and_no_more(
    make_daemon: Make, sent: signal.Signals
) -> None:
    """Its worker goes with it, and the next one goes on from the takes that are there."""
    daemon = make_daemon(workers={"stall_seconds": 5}).start()
    daemon.drop("book.txt", long_text(12))

    def listening() -> list[psutil.Process]:
        found = [child for worker in daemon.workers() for child in worker.children()]
        return [child for child in found if "spawn_main" in command_of(child)]

    daemon.wait(lambda: daemon.query("SELECT done_chunks > 0 FROM jobs") == [(1,)], seconds=60)
    before = daemon.workers()
    for process in listening():
        with contextlib.suppress(psutil.NoSuchProcess):  # the first may have taken it along
            process.send_signal(sent)
    wait_until_ended(daemon, 1)
    assert daemon.query("SELECT outcome FROM attempts ORDER BY number") == [("died",), ("done",)]
    assert not any(worker.is_running() for worker in before)
    assert daemon.manifest("book")["chunks"][0]["cached"]
    assert daemon.command("audit").returncode == 0


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group with half a gigabyte of memory, for whoever is put into it."""
    for root, limit in MEMORY_CONTROLS:
        group = root / f"voxspool-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(400 << 20))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        yield group
        for process in (group / "cgroup.procs").read_text().split():  # only an empty group can go
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(process)
        group.rmdir()
        return
    pytest.skip("only root may limit memory, where the kernel lets control groups be made")


@pytest.mark.slow
def test_the_kernel_that_runs_out_of_memory_takes_the_worker_and_not_the_daemon(
    poisoned: Make, memory_group: Path
) -> None:
    """The real killer, in a group of 400 MB: three workers go, the daemon stays and does the rest."""
    daemon = poisoned(defaults=UNCHECKED).start()
    assert daemon.process is not None
    daemon.wait(daemon.workers)
    for process in (daemon.process.pid, *(worker.pid for worker in daemon.workers())):
        (memory_group / "cgroup.procs").write_text(str(process))
    daemon.drop("oom-a.txt", "All the memory is mine.")
    daemon.drop("next.txt", "Life goes on.")
    wait_until_ended(daemon, 2)
    assert daemon.process.poll() is None
    assert "3 times" in (daemon.outbox / "failed" / "oom-a.txt.error.txt").read_text()
    assert "SIGKILL" in (daemon.root / "daemon.log").read_text()
    assert daemon.manifest("next")["status"] == "done"
    assert daemon.command("audit").returncode == 0
