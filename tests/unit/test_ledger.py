"""The ledger: who gets which job, what survives a crash, which names are ours."""

import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from ledger_samples import Clock, a_drop, a_job, publish, submit

import pipeline.ledger
from pipeline.database import held, holder_of
from pipeline.errors import EnvironmentFailure, Interrupted, LedgerDamaged
from pipeline.jobs.job import DropState, JobState, Need
from pipeline.ledger import Ledger
from pipeline.results import ResultFile
from pipeline.space import Room

HERE = PurePosixPath(".")


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


@pytest.fixture
def second(tmp_path: Path, clock: Clock, ledger: Ledger) -> Iterator[Ledger]:
    """Another connection to the same ledger."""
    opened = Ledger(tmp_path / "state" / "ledger.db", clock=clock)
    yield opened
    opened.close()


def plan(ledger: Ledger, stem: str, source: str, *, index: int = 0, free: bool = True) -> str:
    """Reserve a name for a source."""
    return ledger.results.reserve(
        HERE, stem, source=source, index=index, job_id=source, may_use=lambda *_: free
    )


def attempts(path: Path) -> list[tuple[object, ...]]:
    """Every attempt in the database: job, number, worker, outcome."""
    with sqlite3.connect(path) as db:
        rows = db.execute(
            "SELECT job_id, number, worker, outcome FROM attempts ORDER BY job_id, number"
        ).fetchall()
    db.close()
    return rows


# -- drops -------------------------------------------------------------------------------------


def test_a_drop_comes_back_as_it_went_in(ledger: Ledger) -> None:
    """Undecodable names, members and 64-bit inodes survive the database."""
    name = os.fsdecode(b"caf\xe9/n\nl.yaml")
    drop = a_drop(
        relative=name, members=(name, os.fsdecode(b"caf\xe9/\xff.wav")), stamp=(2**64 - 1, 5, -1, 7)
    )
    ledger.plan_claim(drop)
    assert ledger.drop("d1") == drop
    assert ledger.drops_of(name) == [drop]


def test_a_claim_that_came_to_nothing_is_forgotten(ledger: Ledger) -> None:
    """forget_claim undoes plan_claim, but never a drop that was really taken."""
    ledger.plan_claim(a_drop("d1"))
    ledger.forget_claim("d1")
    assert ledger.drop("d1") is None
    submit(ledger, a_job(drop_id="d2"))
    ledger.forget_claim("d2")
    assert ledger.drop("d2") is not None


def test_submitting_sets_hash_and_stamp_and_makes_the_jobs(ledger: Ledger) -> None:
    """The drop is claimed and its jobs stand there in the order of their documents."""
    jobs = [a_job(f"d1-{n}", index=n) for n in range(3)]
    drop = a_drop()
    ledger.plan_claim(drop)
    ledger.submit(replace(drop, sha256="ff", stamp=(9, 8, 7, 6)), jobs)
    kept = ledger.drop("d1")
    assert kept is not None
    assert (kept.state, kept.sha256, kept.stamp) == (DropState.CLAIMED, "ff", (9, 8, 7, 6))
    assert ledger.jobs_of("d1") == jobs


def test_a_submission_is_all_or_nothing(ledger: Ledger) -> None:
    """One bad job among three leaves the drop unclaimed and no job behind; our mistake is not hidden."""
    drop = a_drop()
    ledger.plan_claim(drop)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.submit(drop, [a_job("a"), a_job("b"), a_job("a")])
    assert ledger.jobs_of("d1") == []
    assert ledger.drops_in(DropState.CLAIMING) == [drop]


def test_an_ended_drop_knows_where_it_lies(ledger: Ledger) -> None:
    """The location may hold bytes that are no text."""
    ledger.plan_claim(a_drop())
    place = os.fsdecode(b"/srv/outbox/failed/caf\xe9.txt")
    ledger.end_drop("d1", DropState.FAILED, place)
    [drop] = ledger.drops_in(DropState.FAILED)
    assert drop.location == place
    assert ledger.drops_in(DropState.CLAIMING, DropState.DONE) == []


def test_drops_of_a_path_come_newest_first(ledger: Ledger) -> None:
    """The same name dropped again comes before its earlier drops."""
    for number in range(3):
        ledger.plan_claim(a_drop(f"d{number}", claimed_at=1000.0 + number))
    assert [drop.id for drop in ledger.drops_of("story.txt")] == ["d2", "d1", "d0"]


def test_a_file_left_in_the_inbox_is_known_until_it_changes(ledger: Ledger) -> None:
    """Only `leave` drops count, only those really claimed, and only with the same inode, size and mtime."""
    drop = a_drop(mode="leave", stamp=(2**63 + 5, 2, 3, 4))
    ledger.plan_claim(drop)
    assert not ledger.already_taken("story.txt", drop.stamp)
    ledger.submit(drop, [])
    assert ledger.already_taken("story.txt", (2**63 + 5, 2, 3, 99))
    assert not ledger.already_taken("story.txt", (2**63 + 5, 2, 4, 4))
    assert not ledger.already_taken("other.txt", drop.stamp)
    unnumbered = a_drop("share", mode="leave", relative="share.txt", stamp=(0, 2, 3, 4))
    ledger.plan_claim(unnumbered)
    ledger.submit(unnumbered, [])
    assert ledger.already_taken("share.txt", (17, 2, 3, 4)), "inodes mean nothing there"
    assert not ledger.already_taken("share.txt", (0, 2, 4, 4))
    moved = a_drop("moved", relative="moved.txt")
    ledger.plan_claim(moved)
    ledger.submit(moved, [])
    assert not ledger.already_taken("moved.txt", moved.stamp)


# -- claiming jobs -----------------------------------------------------------------------------


def test_jobs_are_claimed_by_priority_then_age_then_place(ledger: Ledger) -> None:
    """High before normal before low; within one priority the oldest drop, then document order."""
    submit(
        ledger,
        a_job("low-old", priority="low", submitted_at=1),
        a_job("normal-2", priority="normal", submitted_at=5, index=1),
        a_job("normal-1", priority="normal", submitted_at=5, index=0),
        a_job("normal-old", priority="normal", submitted_at=4, index=7),
        a_job("high-new", priority="high", submitted_at=9),
    )
    expected = ["high-new", "normal-old", "normal-1", "normal-2", "low-old"]
    assert [job.id for job in ledger.jobs_in(JobState.QUEUED)] == expected
    assert [job.id for job in (ledger.claim("w") for _ in range(5)) if job] == expected
    assert ledger.claim("w") is None


def test_two_jobs_of_one_result_name_never_run_at_once(ledger: Ledger) -> None:
    """The second waits for the first; another name and another folder do not."""
    submit(
        ledger,
        a_job("a", stem="story", submitted_at=1),
        a_job("b", stem="story", submitted_at=2),
        a_job("c", stem="story", submitted_at=3, folder=PurePosixPath("sub")),
        a_job("d", stem="other", submitted_at=4),
    )
    claimed = [ledger.claim("w") for _ in range(4)]
    assert [job.id if job else None for job in claimed] == ["a", "c", "d", None]
    ledger.finish("a", JobState.DONE)
    following = ledger.claim("w")
    assert following is not None
    assert following.id == "b"


def test_a_redrop_of_higher_priority_does_not_overtake_its_elder(ledger: Ledger) -> None:
    """Else the older text would be published over the newer one."""
    submit(
        ledger,
        a_job("old", stem="story", priority="low", submitted_at=1),
        a_job("new", stem="story", priority="high", submitted_at=2),
        a_job("other", stem="other", priority="normal", submitted_at=3),
    )
    order = []
    while job := ledger.claim("w"):
        order.append(job.id)
        ledger.finish(job.id, JobState.DONE)
    assert order == ["other", "old", "new"]


def test_an_attempt_is_on_disk_before_the_work_starts(ledger: Ledger, second: Ledger, tmp_path: Path) -> None:
    """Another connection sees the attempt as soon as claim returns."""
    submit(ledger, a_job())
    job = ledger.claim("cpu-0")
    assert job is not None
    assert job.attempts == 1
    assert job.state is JobState.RUNNING
    seen = second.job("d1-0")
    assert seen is not None
    assert (seen.attempts, seen.state) == (1, JobState.RUNNING)
    assert second.running_of("cpu-0") == [job]
    assert attempts(tmp_path / "state" / "ledger.db") == [("d1-0", 1, "cpu-0", None)]


def test_a_released_job_is_claimed_again_and_counts_on(ledger: Ledger, tmp_path: Path) -> None:
    """Every attempt keeps its outcome, and only deaths count against the job."""
    submit(ledger, a_job())
    for outcome in ("interrupted", "environment", "interrupted"):
        assert ledger.claim("w") is not None
        assert ledger.release("d1-0", outcome, worker="w")
    assert ledger.claim("w") is not None
    assert ledger.bury("d1-0", "died", max_deaths=2) is None
    job = ledger.claim("w")
    assert job is not None
    assert job.attempts == 5
    assert ledger.bury("d1-0", "died", max_deaths=2) == 2
    assert ledger.claim("w") is None, "poison is not handed out again before it is failed"
    ledger.finish("d1-0", JobState.FAILED, code="synthesis", message="no", hint="try")
    outcomes = [row[3] for row in attempts(tmp_path / "state" / "ledger.db")]
    assert outcomes == ["interrupted", "environment", "interrupted", "died", "died"]


def test_a_daemon_that_goes_down_with_its_worker_counts_a_third(ledger: Ledger) -> None:
    """It may have been the power; but a file that takes the whole machine down ends too."""
    submit(ledger, a_job())
    for _ in range(8):
        ledger.claim("w")
        assert ledger.bury("d1-0", "lost", max_deaths=3) is None
    ledger.claim("w")
    assert ledger.bury("d1-0", "lost", max_deaths=3) == 9


def test_a_job_is_its_own_worker_s(ledger: Ledger) -> None:
    """Who lost it to another can neither report on it nor give it back."""
    submit(ledger, a_job())
    ledger.claim("first")
    ledger.bury("d1-0", "died", max_deaths=3)
    ledger.claim("second")
    with pytest.raises(Interrupted):
        ledger.heartbeat("d1-0", "speaking", 1, 2, worker="first")
    assert not ledger.release("d1-0", "interrupted", worker="first")
    assert not ledger.heartbeat("d1-0", "speaking", 1, 2, worker="second")


def test_a_job_that_waits_for_the_machine_lets_others_go_first(ledger: Ledger, clock: Clock) -> None:
    """It is claimed again once its time has come."""
    submit(ledger, a_job())
    ledger.claim("w")
    ledger.release("d1-0", "environment", worker="w", delay_seconds=30)
    assert ledger.claim("w") is None
    assert not ledger.work_waits()
    assert ledger.environment_failures("d1-0") == 1
    clock.now += 31
    assert ledger.work_waits()
    assert ledger.claim("w") is not None


def test_a_ledger_is_at_rest_when_no_job_is_left_to_do(ledger: Ledger) -> None:
    """Neither queued nor being done, nor cancelled without having been told."""
    assert ledger.at_rest()
    submit(ledger, a_job())
    assert not ledger.at_rest()
    ledger.claim("w")
    assert not ledger.at_rest()
    ledger.release("d1-0", "interrupted")
    ledger.request_cancel("d1-0")
    assert not ledger.at_rest()
    ledger.finish("d1-0", JobState.CANCELLED)
    assert ledger.at_rest()


def test_a_job_that_is_claimed_meanwhile_is_not_overlooked(
    ledger: Ledger, second: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither among those that run nor among those that wait: a run with `--once` ended on top of it."""
    submit(ledger, a_job())
    really = pipeline.ledger._next_job

    def claim_first(*asked: Any) -> str | None:
        monkeypatch.setattr(pipeline.ledger, "_next_job", really)
        assert second.claim("w") is not None
        return really(*asked)

    monkeypatch.setattr(pipeline.ledger, "_next_job", claim_first)
    assert not ledger.at_rest()
    assert ledger.counts()["running"] == 1


def test_a_mended_machine_is_not_waited_for(ledger: Ledger) -> None:
    """Every job that waits for its next try may be taken at once."""
    submit(ledger, a_job())
    ledger.claim("w")
    ledger.release("d1-0", "environment", worker="w", delay_seconds=1e6)
    ledger.try_again_at_once()
    assert ledger.claim("w") is not None


def test_a_job_without_room_lets_smaller_ones_go_first(ledger: Ledger) -> None:
    """On each disk, by bytes and by files, beside what those that run may still need."""
    large = replace(a_job().spec, need=Need(state_bytes=700, state_files=7, outbox_bytes=70))
    small = replace(a_job().spec, need=Need(state_bytes=200, state_files=2, outbox_bytes=20))
    submit(ledger, *(a_job(f"d1-{n}", index=n, spec=spec) for n, spec in enumerate((large, small, small))))
    enough = Room(state_bytes=1000, state_files=10, outbox_bytes=100)
    for lacking in ("state_bytes", "state_files", "outbox_bytes"):
        scarce = replace(enough, **{lacking: getattr(small.need, lacking)})
        taken = ledger.claim("w", scarce)
        assert taken is not None and taken.index == 1
        assert ledger.claim("w", scarce) is None, "what the running one needs is not there twice"
        assert not ledger.work_waits(scarce) and ledger.work_waits(enough)
        ledger.release(taken.id, "interrupted")
    taken = ledger.claim("w", enough)
    assert taken is not None and taken.index == 0


def test_a_job_from_before_estimates_is_not_held_up(ledger: Ledger) -> None:
    """Its need is not known."""
    submit(ledger, a_job())
    ledger._db.rows("UPDATE jobs SET spec = json_remove(spec, '$.need')")
    job = ledger.claim("w", Room(state_bytes=0, state_files=0, outbox_bytes=0))
    assert job is not None and job.spec.need == Need()


def test_a_cancelled_job_is_not_handed_out(ledger: Ledger) -> None:
    """The supervisor ends it."""
    submit(ledger, a_job())
    assert ledger.request_cancel("d1-0")
    assert ledger.claim("w") is None


def test_the_name_of_a_result_that_never_came_is_free_again(ledger: Ledger) -> None:
    """story.txt failed, so story.md may be called story."""
    submit(ledger, a_job())
    folder = PurePosixPath(".")
    free = {"may_use": lambda _candidate, _earlier: True, "index": 0}
    assert ledger.results.reserve(folder, "story", source="story.txt", job_id="d1-0", **free) == "story"
    ledger.claim("w")
    ledger.finish("d1-0", JobState.FAILED)
    assert ledger.results.reserve(folder, "story", source="story.md", job_id="d2-0", **free) == "story"


def test_drops_whose_source_is_still_to_move_are_known(ledger: Ledger) -> None:
    """All jobs ended, the drop not."""
    submit(ledger, a_job())
    assert ledger.unfinished_ends() == []
    ledger.claim("w")
    ledger.finish("d1-0", JobState.DONE)
    assert ledger.unfinished_ends() == ["d1"]
    ledger.end_drop("d1", DropState.DONE, "")
    assert ledger.unfinished_ends() == []


def test_a_finished_job_keeps_its_reason(ledger: Ledger) -> None:
    """Code, message and hint are told, even if the message holds undecodable bytes."""
    submit(ledger, a_job())
    ledger.claim("w")
    ledger.finish("d1-0", JobState.FAILED, code="input", message="bad \udce9", hint="mend it")
    job = ledger.job("d1-0")
    assert job is not None
    assert (job.error_code, job.error_message, job.error_hint) == ("input", "bad \\udce9", "mend it")


@pytest.mark.parametrize("end", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_an_ended_job_never_changes_again(ledger: Ledger, end: JobState) -> None:
    """Finishing, releasing, renaming, cancelling and heartbeats leave it as it ended."""
    submit(ledger, a_job())
    ledger.claim("w")
    ledger.finish("d1-0", end)
    before = ledger.job("d1-0")
    assert before is not None
    assert before.state.ended
    for other in JobState:
        ledger.finish("d1-0", other, message="changed")
    assert not ledger.release("d1-0", "interrupted")
    ledger.rename_job("d1-0", "changed")
    assert not ledger.request_cancel("d1-0")
    with pytest.raises(Interrupted):
        ledger.heartbeat("d1-0", "speaking", 5, 9)
    assert ledger.job("d1-0") == before
    assert ledger.claim("w") is None


def test_progress_and_the_wish_to_cancel(ledger: Ledger, clock: Clock) -> None:
    """A heartbeat notes how far the job is and answers whether somebody wants it cancelled."""
    submit(ledger, a_job())
    ledger.claim("cpu-0")
    [before] = ledger.progress()
    clock.now -= 3600  # a clock that is set back makes no heartbeat look old
    assert not ledger.heartbeat("d1-0", "speaking", 3, 10)
    [progress] = ledger.progress()
    assert (progress.stage, progress.done_chunks, progress.total_chunks) == ("speaking", 3, 10)
    assert 0 <= progress.heartbeat_at - before.heartbeat_at < 60
    assert progress.worker == "cpu-0"
    assert ledger.request_cancel("d1-0")
    assert ledger.heartbeat("d1-0", "speaking", 4, 10)
    assert not ledger.request_cancel("nonesuch")


def test_cancelling_before_a_worker_took_it(ledger: Ledger) -> None:
    """A queued job is found by the supervisor and ended without ever running."""
    submit(ledger, a_job("a"), a_job("b", index=1))
    ledger.request_cancel("b")
    assert [job.id for job in ledger.cancelled_while_queued()] == ["b"]
    ledger.finish("b", JobState.CANCELLED)
    assert ledger.cancelled_while_queued() == []
    assert ledger.counts() == {"queued": 1, "running": 0, "done": 0, "failed": 0, "cancelled": 1}


def test_failures_since_a_moment_are_counted(ledger: Ledger, clock: Clock) -> None:
    """Dropped files, not jobs; what failed before that moment does not count against this run."""
    for key, state in (("d1", DropState.FAILED), ("d2", DropState.FAILED), ("d3", DropState.DONE)):
        submit(ledger, a_job(f"{key}-0", drop_id=key), a_job(f"{key}-1", drop_id=key, index=1))
        ledger.end_drop(key, state, "")
        clock.now += 10
    assert ledger.failed_since(clock.now - 20) == 1
    assert ledger.failed_since(clock.now - 30) == 2


def test_jobs_in_stops_at_the_limit(ledger: Ledger) -> None:
    """A queue of thousands need not be read to show its head."""
    submit(ledger, *(a_job(f"j{n}", index=n) for n in range(5)))
    assert [job.id for job in ledger.jobs_in(JobState.QUEUED, limit=2)] == ["j0", "j1"]


def claim_all(path: Path, worker: str, gate: object) -> None:
    """In a process of its own: claim until nothing is left."""
    gate.wait()  # type: ignore[attr-defined]
    ledger = Ledger(path, clock=Clock())
    while job := ledger.claim(worker):
        ledger.finish(job.id, JobState.DONE)
    ledger.close()


def test_processes_that_claim_at_once_get_different_jobs(tmp_path: Path) -> None:
    """Three processes open and drain one ledger together: each job has exactly one attempt."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, clock=Clock())
    submit(ledger, *(a_job(f"j{n:02}", index=n) for n in range(40)))
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    workers = [context.Process(target=claim_all, args=(path, f"w{n}", gate)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    rows = attempts(path)
    assert [(row[0], row[1], row[3]) for row in rows] == [(f"j{n:02}", 1, "done") for n in range(40)]
    assert ledger.counts()["done"] == 40
    ledger.close()


# -- names in the outbox -----------------------------------------------------------------------


def test_a_free_name_is_taken_and_a_second_source_gets_a_suffix(ledger: Ledger) -> None:
    """story.txt and story.md, and each further document of a job file, stay apart."""
    assert plan(ledger, "story", "story.txt") == "story"
    assert plan(ledger, "story", "story.md") == "story~2"
    assert plan(ledger, "story", "story.txt", index=1) == "story~3"


@pytest.mark.parametrize("other", ["STORY", "Story", "Stra\u00dfe", "\u00fcber"])
def test_names_that_a_disk_may_take_for_the_same_collide(ledger: Ledger, other: str) -> None:
    """Case and Unicode form do not make a name free."""
    twin = {"Stra\u00dfe": "STRASSE", "\u00fcber": "u\u0308ber"}.get(other, "story")
    assert plan(ledger, twin, "a.txt") == twin
    assert plan(ledger, other, "b.txt") == f"{other}~2"


def test_the_same_source_dropped_again_gets_its_name_back_with_what_lies_there(ledger: Ledger) -> None:
    """A redrop replaces its own result, so the earlier files stay known until it publishes."""
    plan(ledger, "story", "story.txt")
    file = ResultFile(name="story.mp3", bytes=3, mtime_ns=2**62, sha256="ab")
    ledger.results.publish(HERE, "story", [file])
    seen = []
    ledger.results.reserve(
        HERE,
        "story",
        source="story.txt",
        index=0,
        job_id="later",
        may_use=lambda name, earlier: bool(seen.append((name, earlier)) or True),
    )
    [(name, earlier)] = seen
    assert name == "story"
    assert earlier.files == (file,)
    kept = ledger.results.find(HERE, "story")
    assert kept is not None
    assert kept.files == (file,)
    assert kept.job_id == "later"


def test_a_name_with_something_foreign_on_the_disk_is_not_used(ledger: Ledger) -> None:
    """What may_use refuses is passed over; if it refuses all, that is said."""
    chosen = ledger.results.reserve(
        HERE, "story", source="s", index=0, job_id="j", may_use=lambda name, _: name == "story~4"
    )
    assert chosen == "story~4"
    with pytest.raises(EnvironmentFailure, match="No free name is left for full"):
        plan(ledger, "full", "s", free=False)


def test_results_are_listed_oldest_first_once_published(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    """A name that is only reserved is no result; a forgotten one is free again."""
    plan(ledger, "reserved", "r.txt")
    for stem in ("b", "a"):
        clock.now += 1
        publish(ledger, tmp_path / "outbox", stem, {f"{stem}.wav": b"x"})
    assert [result.stem for result in ledger.results.all()] == ["b", "a"]
    ledger.results.forget(HERE, "B")
    assert [result.stem for result in ledger.results.all()] == ["a"]


def test_a_name_is_taken_in_every_spelling_of_it_and_of_its_folder(ledger: Ledger) -> None:
    """On a disk that is blind to case, `Books/über` and `books/ÜBER` are one place."""
    spellings = [("Books", "\u00fcber"), ("books", "\u00fcber"), ("Books", "u\u0308BER"), ("B\u01cfOKS", "x")]
    names = [
        ledger.results.reserve(
            PurePosixPath(folder), stem, source=f"{number}", index=0, job_id="j", may_use=lambda *_: True
        )
        for number, (folder, stem) in enumerate(spellings)
    ]
    assert names == ["\u00fcber", "\u00fcber~2", "u\u0308BER~3", "x"]
    assert ledger.results.find(PurePosixPath("BOOKS"), "\u00dcber") is not None


# -- the disk ----------------------------------------------------------------------------------


def test_facts_are_remembered(ledger: Ledger, second: Ledger) -> None:
    """The last word stands, for every connection."""
    assert ledger.meta("x") is None
    ledger.set_meta("x", "1")
    ledger.set_meta("x", "2")
    assert second.meta("x") == "2"


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    """A newer schema is left alone."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, clock=Clock())
    ledger.set_meta("schema_version", "999")
    ledger.close()
    with pytest.raises(EnvironmentFailure, match="schema 999; this version of Voxspool knows 1"):
        Ledger(path, clock=Clock())


def test_a_folder_that_cannot_be_made_is_an_environment_failure(tmp_path: Path) -> None:
    """The message names the ledger and the hint what to look at."""
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(EnvironmentFailure, match=r"ledger\.db cannot be opened") as caught:
        Ledger(tmp_path / "state" / "ledger.db", clock=Clock())
    assert caught.value.hint


def test_a_file_that_is_no_database_is_an_environment_failure(tmp_path: Path) -> None:
    """Garbage under the ledger's name is not overwritten."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(EnvironmentFailure, match="not a database"):
        Ledger(path, clock=Clock())
    assert path.read_bytes().startswith(b"not a database")


def test_a_damaged_ledger_is_an_environment_failure_when_read_and_written(tmp_path: Path) -> None:
    """Neither reading nor writing lets a bare database error out."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, clock=Clock())
    submit(ledger, *(a_job(f"j{n}", index=n) for n in range(50)))
    ledger.close()
    reopened = Ledger(path, clock=Clock())
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(LedgerDamaged, match="is damaged: "):
        reopened.jobs_in(JobState.QUEUED)
    with pytest.raises(LedgerDamaged, match="is damaged: "):
        reopened.claim("w")
    reopened.close()


@pytest.mark.parametrize("table", ["meta", "drops", "jobs", "attempts", "results"])
def test_damage_anywhere_is_found_before_it_is_met(tmp_path: Path, table: str) -> None:
    """Pages that nobody has read yet."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, clock=Clock())
    submit(ledger, *(a_job(f"j{n}", index=n) for n in range(50)))
    ledger.prove_whole()
    ledger.close()
    with sqlite3.connect(path) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    database.close()
    with open(path, "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(LedgerDamaged, match="is damaged: "):
        reopened = Ledger(path, clock=Clock())
        reopened.prove_whole()


def fill_the_disk(path: Path, reply: object) -> None:
    """In a process of its own: files may not grow past 400 kB, and the ledger wants more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ledger = Ledger(path, clock=Clock())
    submit(ledger, a_job("first"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    told = ""
    try:
        submit(ledger, *(a_job(f"j{n}", drop_id="d2", index=n) for n in range(2000)))
    except EnvironmentFailure as error:
        told = f"{error} {error.hint}"
    reply.put((told, ledger.counts()["queued"], ledger.drop("d2") is not None))  # type: ignore[attr-defined]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    reply.put(ledger.claim("w").id)  # type: ignore[attr-defined,union-attr]
    ledger.close()


def test_a_full_disk_is_an_environment_failure_and_loses_nothing(tmp_path: Path) -> None:
    """What did not fit is not half there, and the ledger works on with what it has."""
    context = multiprocessing.get_context("spawn")
    reply = context.Queue()
    child = context.Process(target=fill_the_disk, args=(tmp_path / "ledger.db", reply))
    child.start()
    told, queued, planned = reply.get(timeout=60)
    assert "cannot be used" in told
    assert "full" in told
    assert (queued, planned) == (1, True)
    assert reply.get(timeout=60) == "first"
    child.join(30)
    assert child.exitcode == 0


def statements_to_claim(ledger: Ledger) -> int:
    """Steps of SQLite's virtual machine that one claim takes, in hundreds."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    ledger._db._db.set_progress_handler(count, 100)
    assert ledger.claim("w") is not None
    ledger._db._db.set_progress_handler(None, 0)
    return steps


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_who_keeps_the_ledger_locked_is_told_and_remembered_once(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By process and name; reading goes on meanwhile, and so does writing afterwards."""
    monkeypatch.setattr("pipeline.database.BUSY_TIMEOUT_SECONDS", 0.1)
    ledger = Ledger(tmp_path / "ledger.db", clock=clock)
    submit(ledger, a_job())
    command = [sys.executable, "-c", HOLD, str(tmp_path / "ledger.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(EnvironmentFailure, match=rf"process {holder.pid} \(.+\) has kept it") as caught:
            ledger.claim("1-a")
        assert caught.value.code == "ledger"
        assert (ledger.kept_out_by(), ledger.kept_out_by()) == (holder.pid, None)
        assert holder_of(tmp_path / "ledger.db") == holder.pid
        assert ledger.counts()["queued"] == 1
        holder.kill()
    assert ledger.claim("1-a") is not None and ledger.kept_out_by() is None
    assert holder_of(tmp_path / "ledger.db") is None
    ledger.close()


def test_where_locks_are_not_told_nobody_is_accused(tmp_path: Path) -> None:
    """No such file, no such process: the sentence then names nobody."""
    assert holder_of(tmp_path / "no ledger.db") is None
    assert "somebody else has kept it locked" in held(tmp_path / "ledger.db", None).message
    assert "(gone since)" in held(tmp_path / "ledger.db", 2**22 + 1).message


def test_claiming_costs_the_same_from_a_long_queue_as_from_a_short_one(tmp_path: Path) -> None:
    """Every question that a claim asks is answered by an index."""
    costs = []
    for size in (20, 2000):
        ledger = Ledger(tmp_path / f"{size}.db", clock=Clock())
        submit(ledger, *(a_job(f"j{n:04}", index=n) for n in range(size)))
        costs.append(statements_to_claim(ledger))
        ledger.close()
    assert costs[1] <= costs[0] + 2


def test_a_job_that_cost_a_worker_runs_alone(ledger: Ledger, second: Ledger, clock: Clock) -> None:
    """It waits until the others have ended, and while it runs nobody begins; then all goes on as before."""
    for name in ("a", "b", "c"):
        clock.now += 1
        submit(ledger, a_job(f"{name}-0", drop_id=name, submitted_at=clock.now))
    suspect, neighbour = ledger.claim("1"), second.claim("2")
    assert suspect is not None and neighbour is not None
    ledger.bury(suspect.id, "died", max_deaths=3)
    assert ledger.claim("1") is None, "its neighbour still runs"
    second.finish(neighbour.id, JobState.DONE)
    again = ledger.claim("1")
    assert again is not None and again.id == suspect.id
    assert second.claim("2") is None, "it runs alone"
    ledger.finish(again.id, JobState.DONE)
    last = second.claim("2")
    assert last is not None and last.id == "c-0"


def test_a_job_whose_daemon_went_down_needs_not_run_alone(ledger: Ledger, second: Ledger) -> None:
    """A power cut says nothing about the jobs of that moment."""
    for name in ("a", "b"):
        submit(ledger, a_job(f"{name}-0", drop_id=name))
    first = ledger.claim("1")
    assert first is not None
    ledger.bury(first.id, "lost", max_deaths=3)
    assert ledger.claim("1") is not None
    assert second.claim("2") is not None
