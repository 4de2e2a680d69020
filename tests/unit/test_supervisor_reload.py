"""What the supervisor does between the large steps: what a reload leaves alone, what it proves meanwhile."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from ledger_samples import a_job
from supervisor_samples import started

from pipeline.events import JobEnded
from pipeline.sd_notify import Systemd
from pipeline.supervisor import Supervisor


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file."""
    path = tmp_path / "config.yaml"
    path.write_text("retention: {every_hours: 5}\n")
    return path


@pytest.fixture
def supervisor(file: Path) -> Iterator[Supervisor]:
    """One that has just started and not yet looked at anything."""
    with started(file) as made:
        yield made


def test_a_reload_does_not_put_off_the_next_pruning(supervisor: Supervisor, file: Path) -> None:
    """Who reloads each hour would never be pruned; only another interval starts anew."""
    due = supervisor._pruner._schedule.next_run
    assert due is not None
    file.write_text("retention: {every_hours: 5, keep_newest: 3}\n")
    supervisor._reload()
    assert supervisor._config.retention.keep_newest == 3
    assert supervisor._pruner._schedule.next_run == due
    file.write_text("retention: {every_hours: 1}\n")
    supervisor._reload()
    sooner = supervisor._pruner._schedule.next_run
    assert sooner is not None and sooner < due


def test_a_refused_reload_is_told_until_one_is_taken_over(supervisor: Supervisor, file: Path) -> None:
    """In the status, and on the line that systemd shows."""
    valid = file.read_text()
    file.write_text("inbux: x\n")
    supervisor._reload()
    told = "The configuration was not reloaded: config.yaml, line 1: inbux: unknown key; did you mean inbox?"
    assert supervisor._teller.snapshot("running").notes[0].startswith(told)
    assert f"| {told}" in supervisor._teller.status_line("running")
    file.write_text(valid)
    supervisor._reload()
    assert supervisor._teller.snapshot("running").notes == ()
    assert supervisor._teller.status_line("running") == "nothing to do"


def test_many_failures_do_not_silence_the_watchdog(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs a command that may take seconds, and a hundred may come in one tick."""
    pings: list[float] = []
    now = [0.0]
    systemd = Systemd("nobody", watchdog_seconds=300.0, clock=lambda: now[0])
    monkeypatch.setattr(systemd, "_send", lambda *lines: pings.append(now[0]) or True)

    def slow_command(_event: JobEnded) -> None:
        now[0] += 10.0

    with started(file, systemd) as supervisor:
        supervisor._hooks = [slow_command]
        for _ in range(100):
            supervisor._tell(a_job())
    assert max(later - sooner for sooner, later in pairwise(pings)) <= 110.0 and len(pings) > 8
