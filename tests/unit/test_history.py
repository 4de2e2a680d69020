"""What the ledger forgets, what it never does, and that the file shrinks without being held up."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from ledger_samples import Clock, a_drop, a_job, publish, submit

from pipeline.jobs.job import DropState, JobState
from pipeline.ledger import Ledger

DAY = 86_400.0
FOREVER = 4e9


@pytest.fixture
def clock() -> Clock:
    """The time, in our hands."""
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = Ledger(tmp_path / "state" / "ledger.db", clock=clock)
    yield opened
    opened.close()


def an_ended(ledger: Ledger, key: str, state: JobState = JobState.DONE, jobs: int = 1) -> None:
    """A drop that ended now, and of whose results nothing is known; the next one ends a day later."""
    drop = a_drop(key, relative=f"{key}.txt")
    submit(ledger, *(a_job(f"{key}-{n}", drop_id=key, index=n) for n in range(jobs)), drop=drop)
    for number in range(jobs):
        assert ledger.claim("w") is not None
        ledger.finish(f"{key}-{number}", state)
    ledger.end_drop(key, DropState.DONE if state is JobState.DONE else DropState.FAILED, "")
    ledger._clock.now += DAY  # type: ignore[attr-defined]


def past(ledger: Ledger, moment: float = FOREVER) -> list[str]:
    """Ids of what may be forgotten."""
    return [one.drop_id for one in ledger.history.before(moment)]


def test_what_ended_before_a_moment_is_offered_oldest_first(ledger: Ledger, clock: Clock) -> None:
    """Done and failed ones alike."""
    start = clock.now
    an_ended(ledger, "b"), an_ended(ledger, "a", JobState.FAILED), an_ended(ledger, "c")
    assert past(ledger) == ["b", "a", "c"]
    assert past(ledger, start + 1.5 * DAY) == ["b", "a"]
    assert past(ledger, start) == []


def test_a_drop_that_is_not_over_is_never_offered(ledger: Ledger) -> None:
    """Queued, running, cancelled but not put away, or about to be claimed."""
    submit(ledger, a_job("q-0", drop_id="q"), drop=a_drop("q"))
    ledger.plan_claim(a_drop("c"))
    submit(ledger, a_job("e-0", drop_id="e"), drop=a_drop("e"))
    ledger.finish("e-0", JobState.CANCELLED)
    assert past(ledger) == []
    assert ledger.history.forget(["q", "c", "e"]) == 0
    assert {drop.id for drop in ledger.drops_in(*DropState)} == {"q", "c", "e"}


def test_a_drop_with_a_known_result_is_never_offered(ledger: Ledger, tmp_path: Path) -> None:
    """It is needed to replace its own result, and to prune it; after that it may go."""
    an_ended(ledger, "a")
    publish(ledger, tmp_path, "story", {"story.wav": b"x"}, job_id="a-0")
    assert past(ledger) == [] and ledger.history.forget(["a"]) == 0
    ledger.results.forget(PurePosixPath("."), "story")
    assert past(ledger) == ["a"] and ledger.history.forget(["a"]) == 1


def test_forgetting_takes_jobs_and_attempts_along_and_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    """And the numbers of what there was stay known."""
    an_ended(ledger, "a", jobs=3), an_ended(ledger, "b", JobState.FAILED), an_ended(ledger, "c")
    counts, attempts = ledger.counts(), ledger.attempts_by_outcome()
    assert ledger.history.forget(["a", "b"]) == 2
    assert [drop.id for drop in ledger.drops_in(*DropState)] == ["c"]
    assert [job.id for job in ledger.jobs_in(*JobState)] == ["c-0"]
    db = sqlite3.connect(tmp_path / "state" / "ledger.db")
    assert db.execute("SELECT job_id FROM attempts").fetchall() == [("c-0",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()
    assert ledger.counts() == counts == {**counts, "done": 4, "failed": 1}
    assert ledger.attempts_by_outcome() == attempts
    assert ledger.history.forget(["c"]) == 1
    assert ledger.counts() == counts and ledger.attempts_by_outcome() == attempts


def test_the_moment_of_the_newest_jobs(ledger: Ledger, clock: Clock) -> None:
    """By jobs, not by drops: one file may hold many."""
    start = clock.now
    an_ended(ledger, "a"), an_ended(ledger, "b", jobs=2), an_ended(ledger, "c")
    assert ledger.history.moment_of_newest(1) == start + DAY
    assert ledger.history.moment_of_newest(3) == start
    assert ledger.history.moment_of_newest(4) is None


def test_the_file_shrinks(ledger: Ledger, tmp_path: Path) -> None:
    """What was forgotten is given back to the disk, in steps."""
    file = tmp_path / "state" / "ledger.db"
    with ledger.one_commit():
        for number in range(1000):
            an_ended(ledger, f"{number:04d}")
    db = sqlite3.connect(file)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = file.stat().st_size
    assert ledger.history.forget(past(ledger)) == 1000
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert db.execute("PRAGMA freelist_count").fetchone() == (0,)
    db.close()
    assert file.stat().st_size < before / 4


def test_others_get_at_the_ledger_meanwhile(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    """A worker's heartbeat may come between any two steps."""
    with ledger.one_commit():
        for number in range(600):
            an_ended(ledger, f"{number:04d}")
    other = Ledger(tmp_path / "state" / "ledger.db", clock=clock)
    seen: list[int] = []

    def slowly() -> Iterator[str]:
        for drop_id in past(ledger):
            if drop_id.endswith("00"):
                other.set_meta("heartbeat", drop_id)
                seen.append(len(other.drops_in(DropState.DONE)))
            yield drop_id

    assert ledger.history.forget(slowly()) == 600
    assert seen == [600, 600, 400, 400, 200, 200]
    other.close()
