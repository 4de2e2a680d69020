"""What the ledger remembers of what went wrong, and its sums."""

from collections.abc import Iterator

import pytest
from ledger_samples import Clock, a_drop, a_job, submit

from pipeline.faults import KEPT, MAX_CHARS
from pipeline.jobs.job import JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.tallies import Tally


@pytest.fixture
def clock() -> Clock:
    """Wall time."""
    return Clock()


@pytest.fixture
def ledger(layout: Layout, clock: Clock) -> Iterator[Ledger]:
    """Open."""
    opened = Ledger(layout.ledger_file, clock=clock)
    yield opened
    opened.close()


def test_each_code_has_its_count_and_its_last_ten(ledger: Ledger, clock: Clock) -> None:
    """Newest first, and the number goes on growing."""
    for number in range(25):
        clock.now += 1
        ledger.faults.add(code="job_file", file=f"{number}.yaml", message=f"line {number}")
    ledger.faults.add(code="root", file="", message="gone")
    root, job_file = sorted(ledger.faults.kinds(), key=lambda kind: kind.count)
    assert (root.code, root.count, job_file.code, job_file.count) == ("root", 1, "job_file", 25)
    assert [fault.file for fault in job_file.last] == [f"{n}.yaml" for n in range(24, 24 - KEPT, -1)]
    assert job_file.last[0].at == clock.now and job_file.last[-1].at == clock.now - 9


def test_the_code_that_came_last_is_first(ledger: Ledger, clock: Clock) -> None:
    """For people, who look for what is wrong now."""
    for code in ("a", "b", "a"):
        clock.now += 1
        ledger.faults.add(code=code, file="x", message=str(clock.now))
    assert [kind.code for kind in ledger.faults.kinds()] == ["a", "b"]


def test_equal_faults_in_a_row_are_one_entry_with_a_number(ledger: Ledger, clock: Clock) -> None:
    """A disk that is full for a day does not push out what came before; temporary names do not matter."""
    ledger.faults.add(code="environment", file="", message="Something else.")
    for number in range(5_760):
        clock.now += 15
        ledger.faults.add(code="environment", file="", message=f"Full: /o/.{number:08x}.voxspool-tmp")
    (kind,) = ledger.faults.kinds()
    assert kind.count == 5_761
    assert [(fault.message, fault.times) for fault in kind.last] == [
        ("Full: /o/", 5_760),
        ("Something else.", 1),
    ]
    assert kind.last[0].at == clock.now


def test_they_outlive_a_restart(ledger: Ledger, layout: Layout) -> None:
    """They are in the ledger."""
    ledger.faults.add(code="root", file="", message="gone")
    ledger.close()
    again = Ledger(layout.ledger_file, clock=Clock())
    again.faults.add(code="root", file="", message="gone again")
    (kind,) = again.faults.kinds()
    again.close()
    assert (kind.count, len(kind.last)) == (2, 2)


def test_a_failed_job_is_a_fault_exactly_once(ledger: Ledger) -> None:
    """Whether it failed at work or could not even become a job; cancelled ones are not."""
    submit(ledger, a_job("d1-0"))
    for _ in range(2):
        ledger.finish("d1-0", JobState.FAILED, code="check_failed", message="caf\udce9.txt: no take passed.")
    failed = a_job(
        "d2-0",
        drop_id="d2",
        state=JobState.FAILED,
        error_code="job_file",
        error_message="line 1",
    )
    submit(ledger, failed, drop=a_drop("d2", "b.yaml"))
    submit(ledger, a_job("d3-0", drop_id="d3"), drop=a_drop("d3", "c.txt"))
    ledger.finish("d3-0", JobState.CANCELLED, code="cancelled", message="c.txt was cancelled.")
    told = {
        kind.code: (kind.count, kind.last[0].file, kind.last[0].message) for kind in ledger.faults.kinds()
    }
    assert told == {
        "check_failed": (1, "story.txt", "caf\\udce9.txt: no take passed."),
        "job_file": (1, "story.txt", "line 1"),
    }


def test_a_long_message_is_cut(ledger: Ledger) -> None:
    """The whole of it stands in the note in `failed/`."""
    ledger.faults.add(code="c", file="", message="x" * 10_000)
    assert len(ledger.faults.kinds()[0].last[0].message) == MAX_CHARS


def test_sums_grow_and_stay(ledger: Ledger, layout: Layout) -> None:
    """What nothing was added to is zero."""
    assert set(ledger.tallies.sums().values()) == {0.0}
    ledger.tallies.add(Tally.AUDIO_SECONDS, 1.5)
    ledger.tallies.add(Tally.AUDIO_SECONDS, 2.0)
    ledger.close()
    again = Ledger(layout.ledger_file, clock=Clock())
    assert again.tallies.sums() == {
        Tally.AUDIO_SECONDS: 3.5,
        Tally.WORK_SECONDS: 0.0,
        Tally.PRUNED_BYTES: 0.0,
    }
    again.close()


def test_attempts_and_the_oldest_job_are_counted(ledger: Ledger, clock: Clock) -> None:
    """What is running has no outcome yet."""
    assert (ledger.attempts_by_outcome(), ledger.oldest_queued_at()) == ({}, None)
    for number, state in enumerate((JobState.DONE, JobState.DONE, JobState.FAILED)):
        submit(ledger, a_job(f"d{number}-0", drop_id=f"d{number}"), drop=a_drop(f"d{number}"))
        ledger.claim("w")
        ledger.finish(f"d{number}-0", state)
    for number in (5, 4):
        job = a_job(f"d{number}-0", drop_id=f"d{number}", submitted_at=float(number))
        submit(ledger, job, drop=a_drop(f"d{number}"))
    assert ledger.oldest_queued_at() == 4.0
    ledger.claim("w")
    assert ledger.attempts_by_outcome() == {"done": 2, "failed": 1}
    assert ledger.oldest_queued_at() == 5.0
