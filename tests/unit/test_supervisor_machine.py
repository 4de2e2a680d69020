"""What the supervisor does while the machine is at fault, and when it is mended."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_samples import a_job, submit
from supervisor_samples import started

from pipeline.errors import EnvironmentFailure, LedgerDamaged
from pipeline.intake.readiness import Machine
from pipeline.supervisor import Supervisor

FULL = EnvironmentFailure("The disk of the outbox is full.", hint="Make room there.", code="disk_full")


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """One that has just started."""
    file = tmp_path / "config.yaml"
    file.write_text("")
    with started(file) as made:
        yield made


def test_once_it_is_mended_no_job_waits_for_its_next_try(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the status tell of it any longer."""
    ledger = supervisor._ledger
    submit(ledger, a_job())
    ledger.claim("1-a")
    ledger.release("d1-0", "environment", delay_seconds=1e6)
    ledger.set_meta("trouble", FULL.in_full)
    monkeypatch.setattr(Machine, "look", lambda *_: False)
    supervisor._look_at_machine()
    assert not ledger.work_waits() and supervisor._teller.trouble() == (FULL.in_full,)
    monkeypatch.setattr(Machine, "look", lambda *_: True)
    supervisor._look_at_machine()
    assert ledger.work_waits() and supervisor._teller.trouble() == ()


def test_what_is_wrong_is_counted_once(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each look."""

    def find(machine: Machine, _: object) -> bool:
        machine.failure = FULL
        return False

    monkeypatch.setattr(Machine, "look", find)
    for _ in range(3):
        supervisor._look_at_machine()
    assert [(kind.code, kind.count) for kind in supervisor._ledger.faults.kinds()] == [("disk_full", 1)]
    assert supervisor._teller.trouble() == (FULL.in_full,)


def test_a_ledger_that_is_found_damaged_ends_the_daemon(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else that a disk does is trouble; this nobody heals by waiting."""

    def find(*_: object) -> None:
        raise LedgerDamaged("The ledger is damaged.")

    monkeypatch.setattr(Machine, "look", find)
    with pytest.raises(LedgerDamaged):
        supervisor.on_tick()


class Ring:
    """What only the garbage collector frees."""

    def __init__(self) -> None:
        self.ring = self


def test_garbage_does_not_pile_up_until_python_looks_for_it(supervisor: Supervisor) -> None:
    """It is collected now and then, and not at each tick."""
    gc.disable()
    try:
        first = weakref.ref(Ring())
        supervisor.on_tick()
        assert first() is None
        second = weakref.ref(Ring())
        supervisor.on_tick()
        assert second() is not None
        supervisor._collect_at = 0.0
        supervisor.on_tick()
        assert second() is None
    finally:
        gc.enable()


def _own_mb() -> float:
    """Anonymous memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Anonymous:"))


def test_what_a_busy_moment_needed_is_given_back(supervisor: Supervisor) -> None:
    """The C library would keep it: a single block that is still in use lies above the rest."""
    blocks = [b"\x01" * (2000 + number % 2) for number in range(20_000)]
    last = blocks.pop()
    blocks.clear()
    before = _own_mb()
    supervisor._collect_at = 0.0
    supervisor._collect_garbage()
    assert before - _own_mb() > 25 and last
