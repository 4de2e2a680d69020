"""A worker: whatever happens to a job, the ledger says so and its file is somewhere."""

import errno
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from intake_samples import bytes_somewhere, put, settled, with_source
from ledger_samples import Clock, a_job, submit
from scripted import ScriptedEngine, ScriptedTools, ScriptedTranscriber

from pipeline import worker as room
from pipeline.config import Config, Models, Notify, Workers
from pipeline.engines.base import Utterance
from pipeline.errors import (
    Cancelled,
    EnvironmentFailure,
    InputError,
    Interrupted,
    RecogniserDied,
    SynthesisError,
    VoxspoolError,
)
from pipeline.intake.intake import Intake
from pipeline.intake.watch import Watch
from pipeline.jobs.job import DropState, Job, JobState
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.sound.audio import Speech
from pipeline.worker import HEARTBEAT_SECONDS, Progress, Worker

TEXT = "The first sentence is spoken. The second one is as well.\n\nAnd then there is a third."


class Shop:
    """A worker with a job to do."""

    def __init__(self, config: Config, layout: Layout, ledger: Ledger) -> None:
        self.layout, self.ledger, self.stop = layout, ledger, threading.Event()
        self.engine, self.ears = ScriptedEngine(), ScriptedTranscriber()
        self.use(config)

    def use(self, config: Config) -> None:
        """A worker of this configuration."""
        self.config = config
        self.worker = Worker(config, "1-test", stop=self.stop)
        self.worker._tools = ScriptedTools(self.engine, self.ears)  # type: ignore[assignment]

    def drop(self, name: str = "story.txt", text: str = TEXT) -> Job:
        """A file goes in; returns the first of its jobs."""
        put(self.layout, name, text)
        drops = (
            Intake(self.layout, self.ledger, self.config, clock=Clock())
            .accept(settled(self.layout, name))
            .drops
        )
        return self.ledger.jobs_of(drops[0].id)[0]

    def work(self) -> Job:
        """The worker takes the next job; returns it as it is then."""
        job = self.ledger.claim("1-test")
        assert job is not None
        self.worker.do(job)
        after = self.ledger.job(job.id)
        assert after is not None
        return after

    def outcomes(self) -> list[str]:
        """How each attempt ended, in order."""
        rows = self.ledger._db.rows("SELECT outcome FROM attempts ORDER BY started_at, number")
        return [row["outcome"] for row in rows]

    def note(self, name: str = "story.txt") -> str:
        """What stands in the failure note."""
        return (self.layout.failed / f"{name}.error.txt").read_text()


@pytest.fixture
def shop(config: Config, layout: Layout, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """With an engine and a recogniser of the test's own, and no wait for a disk to be mended."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(room, "ENVIRONMENT_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(room, "LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.booth.GENERATION_RETRY_SECONDS", 0.0)
    made = Shop(config, layout, ledger)
    yield made
    made.worker._ledger.close()


def raising(error: BaseException) -> Callable[..., Any]:
    """A room that fails so."""

    def call(*_: object, **__: object) -> None:
        raise error

    return call


# -- the ways a job can end ---------------------------------------------------------------------------


def test_devnen_issue_50_a_job_that_is_done_has_its_files(shop: Shop) -> None:
    """Result published, ledger told, source in done, work folder gone."""
    shop.drop()
    job = shop.work()
    assert job.state is JobState.DONE and shop.outcomes() == ["done"]
    assert {path.name for path in shop.layout.outbox.iterdir() if not path.name.startswith(".")} == {
        "story.mp3",
        "story.log",
        "story.json",
    }
    assert (shop.layout.done(job.drop_id) / "story.txt").read_text() == TEXT
    assert not shop.layout.work(job.id).exists()
    assert [drop.state for drop in shop.ledger.drops_in(*DropState)] == ["done"]


def test_without_memory_the_worker_ends(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next job would meet the same full process; the supervisor counts it as a death."""
    monkeypatch.setattr(room, "render", raising(MemoryError()))
    shop.drop()
    with pytest.raises(MemoryError):
        shop.work()
    assert [job.state for job in shop.ledger.jobs_in(*JobState)] == [JobState.RUNNING]


def test_where_memory_runs_out_workers_go_before_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is told so; where it cannot be told, work goes on."""
    score = tmp_path / "oom_score_adj"
    monkeypatch.setattr(room, "OOM_SCORE", score)
    room._die_before_parent()
    assert int(score.read_text()) > 0
    monkeypatch.setattr(room, "OOM_SCORE", tmp_path / "absent" / "score")
    room._die_before_parent()


def test_workers_share_the_processors(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """One takes all, four of them a quarter each, none less than one; what the user set stays."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for workers, share in ((1, "8"), (3, "2"), (4, "2"), (16, "1")):
        shared = config.model_copy(update={"workers": Workers(count=workers)})
        room._share_processors(shared)
        assert os.environ["OMP_NUM_THREADS"] == share
        assert room._equipment(shared, layout_of(shared), "cpu").processors == int(share)
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    room._share_processors(config)
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_without_its_recogniser_the_worker_ends(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had died itself: the supervisor counts it, and gives the job to the next."""
    monkeypatch.setattr(room, "render", raising(RecogniserDied("The recogniser died (-9).")))
    shop.drop()
    with pytest.raises(RecogniserDied):
        shop.work()
    assert [job.state for job in shop.ledger.jobs_in(*JobState)] == [JobState.RUNNING]


def test_a_stop_that_reached_the_recogniser_too_is_a_stop(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal sends it to all processes."""
    monkeypatch.setattr(room, "render", raising(RecogniserDied("The recogniser died (-15).")))
    shop.drop()
    shop.stop.set()
    assert shop.work().state is JobState.QUEUED and shop.outcomes() == ["interrupted"]


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (InputError("story.txt is odd.", hint="Mend it.", code="odd"), JobState.FAILED, "odd"),
        (
            SynthesisError("It gave up.", hint="Try another.", code="check_failed"),
            JobState.FAILED,
            "check_failed",
        ),
        (Cancelled("story.txt was cancelled.", hint="By you."), JobState.CANCELLED, "cancelled"),
        (RuntimeError("boom"), JobState.FAILED, "internal"),
        (KeyError("odd \udce9"), JobState.FAILED, "internal"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), JobState.FAILED, "internal"),
        (VoxspoolError("Odd."), JobState.FAILED, "internal"),
    ],
)
def test_a_job_that_does_not(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception, state: JobState, code: str
) -> None:
    """The ledger and the note say why, and the file lies in failed/."""
    monkeypatch.setattr(room, "render", raising(error))
    shop.drop()
    job = shop.work()
    assert (job.state, job.error_code, shop.outcomes()) == (state, code, [state])
    assert job.error_message and "story.txt" in job.error_message and job.error_message in shop.note()
    if code == "internal":
        assert f"Voxspool made a mistake over this file: {type(error).__name__}: " in job.error_message
        assert "report it with the log in" in shop.note()
    assert (shop.layout.failed / "story.txt").read_text() == TEXT
    assert [drop.state for drop in shop.ledger.drops_in(*DropState)] == ["failed"]
    assert not shop.layout.work(job.id).exists() and not shop.layout.publishing(job.id).exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EnvironmentFailure("The disk is full.", hint="Make room."), "The disk is full. Make room."),
        (OSError(errno.ENOSPC, "No space left on device", "/x/cache"), "The disk of /x/cache is full."),
        (OSError(errno.EROFS, "Read-only file system"), "state is read-only."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "state is used up."),
        (OSError(errno.EIO, "Input/output error"), "state fails (Input/output error)."),
        (OSError(errno.ESTALE, "Stale file handle", "/x"), "The share of /x does not answer"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/outbox"), "Access to /x/outbox is denied."),
    ],
)
@pytest.mark.parametrize("where", ["render", "publish"])
def test_the_machine_s_faults_cost_the_job_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str, where: str
) -> None:
    """It goes back to the queue however often, the status says why, and once it is mended it comes out."""
    shop.drop()
    with monkeypatch.context() as patch:
        patch.setattr(room, where, raising(error))
        for _ in range(4):
            assert shop.work().state is JobState.QUEUED
        assert said in (shop.ledger.meta("trouble") or "")
    assert set(shop.outcomes()) == {"environment"}
    assert not shop.layout.failed.exists()
    assert shop.work().state is JobState.DONE
    assert shop.ledger.meta("trouble") == ""


def test_a_root_that_is_not_mounted_is_neither_read_nor_written(shop: Shop) -> None:
    """The empty folder in its place looks just as valid."""
    Watch(
        shop.config,
        shop.layout,
        shop.ledger,
        Intake(shop.layout, shop.ledger, shop.config, clock=Clock()),
        clock=Clock(),
    ).look()
    shop.drop()
    away = shop.layout.outbox.with_name("away")
    shop.layout.outbox.rename(away)
    shop.layout.outbox.mkdir()
    assert shop.work().state is JobState.QUEUED
    assert "lost its mark" in (shop.ledger.meta("trouble") or "")
    assert list(shop.layout.outbox.iterdir()) == [] and shop.engine.spoken == []
    shop.layout.outbox.rmdir()
    away.rename(shop.layout.outbox)
    assert shop.work().state is JobState.DONE


@pytest.mark.parametrize("moment", ["rendering", "last move"])
def test_an_inbox_that_goes_away_in_the_middle_fails_no_file(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Its files are only out of sight: the job waits, and so does the last move; then all is well."""
    Watch(
        shop.config,
        shop.layout,
        shop.ledger,
        Intake(shop.layout, shop.ledger, shop.config, clock=Clock()),
        clock=Clock(),
    ).look()
    drop_id = shop.drop().drop_id
    away = shop.layout.inbox.with_name("away")
    name = {"rendering": "render", "last move": "publish"}[moment]
    real = getattr(room, name)

    def going_away(*arguments: Any, **options: Any) -> Any:
        if moment == "rendering":
            shop.layout.inbox.rename(away)
            shop.layout.inbox.mkdir()
            raise InputError("story.txt is not there.", hint="Drop it.", code="gone")
        done = real(*arguments, **options)
        shop.layout.inbox.rename(away)
        shop.layout.inbox.mkdir()
        return done

    monkeypatch.setattr(room, name, going_away)
    expected = JobState.QUEUED if moment == "rendering" else JobState.DONE
    assert shop.work().state is expected
    assert "lost its mark" in (shop.ledger.meta("trouble") or "")
    assert not shop.layout.failed.exists() and list(shop.layout.inbox.iterdir()) == []
    shop.layout.inbox.rmdir()
    away.rename(shop.layout.inbox)
    monkeypatch.setattr(room, name, real)
    if moment == "rendering":
        assert shop.work().state is JobState.DONE
    else:
        shop.worker._move_at = 0.0
        shop.worker._move_sources()
    assert (shop.layout.done(drop_id) / "story.txt").exists()


def test_a_crash_between_publishing_and_the_ledger_is_done_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache, over its own result: one set of files."""
    shop.drop()

    class Crash(BaseException):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", raising(Crash()))
        with pytest.raises(Crash):
            shop.work()
    job = shop.ledger.running_of("1-test")[0]
    shop.ledger.release(job.id, "lost")
    spoken = len(shop.engine.spoken)
    assert shop.work().state is JobState.DONE and len(shop.engine.spoken) == spoken
    names = sorted(path.name for path in shop.layout.outbox.iterdir() if not path.name.startswith("."))
    assert names == ["story.json", "story.log", "story.mp3"]


# -- the last move ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EBUSY])
def test_a_source_that_cannot_be_moved_is_moved_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, fails: bool, code: int
) -> None:
    """The job has ended and is not done again; the worker goes on and tries the move now and then."""
    shop.drop()
    if fails:
        shop.engine.errors = [SynthesisError("no")] * 2
    with monkeypatch.context() as patch:
        patch.setattr(room, "end_if_complete", raising(OSError(code, os.strerror(code), "/x/failed")))
        job = shop.work()
        assert job.state is (JobState.FAILED if fails else JobState.DONE)
        assert "/x/failed" in (shop.ledger.meta("trouble") or "")
        second = shop.drop("other.txt")
        assert shop.work().id == second.id
    assert bytes_somewhere(shop.layout, TEXT.encode())
    shop.worker._move_sources()
    ended = {drop.state for drop in shop.ledger.drops_in(*DropState)}
    assert ended == ({"done", "failed"} if fails else {"done"})
    assert shop.ledger.claim("1-test") is None


# -- stopping -----------------------------------------------------------------------------------------


def test_a_stop_is_honoured_at_the_next_chunk(shop: Shop) -> None:
    """The job goes back to the queue; the next worker speaks only what is missing."""
    put(shop.layout, "_defaults.yaml", "chunks: {max_chars: 40}")
    shop.drop()
    shop.engine.seconds = lambda _: (shop.stop.set(), 0.2)[1]
    assert shop.work().state is JobState.QUEUED
    assert len(shop.engine.spoken) == 1 and shop.outcomes() == ["interrupted"]
    shop.stop.clear()
    shop.engine.seconds = lambda _: 0.2
    assert shop.work().state is JobState.DONE
    assert len(shop.engine.spoken) == 3


def test_a_cancelled_job_ends_at_its_next_chunk(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file lies in failed/, as one that can be tried again."""
    monkeypatch.setattr(room, "HEARTBEAT_SECONDS", 0.0)
    put(shop.layout, "_defaults.yaml", "chunks: {max_chars: 40}")
    job = shop.drop()
    shop.engine.seconds = lambda _: (shop.ledger.request_cancel(job.id), 0.2)[1]
    after = shop.work()
    assert (after.state, after.error_code) == (JobState.CANCELLED, "cancelled")
    assert len(shop.engine.spoken) == 1
    assert shop.note().startswith("story.txt was cancelled.\n")
    assert (shop.layout.failed / "story.txt").exists()


@pytest.mark.parametrize("where", ["pause_file", "own_pause_file"])
def test_a_pause_gives_the_job_back(shop: Shop, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """And nothing new is begun; nobody may be able to write into the inbox."""
    monkeypatch.setattr(room, "HEARTBEAT_SECONDS", 0.0)
    shop.drop()
    getattr(shop.layout, where).touch()
    assert shop.work().state is JobState.QUEUED
    assert shop.engine.spoken == [] and shop.worker._next() is None


def test_it_works_until_it_is_told_to_stop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job after the other, in order."""
    monkeypatch.setattr(room, "IDLE_SECONDS", 0.01)
    for name in ("a.txt", "b.txt", "c.txt"):
        shop.drop(name, f"This is the text of {name}.")
    thread = threading.Thread(target=run_until_done, args=(shop,))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert shop.ledger.counts()["done"] == 3


def run_until_done(shop: Shop) -> None:
    """A worker with a ledger of this thread's own."""
    worker = Worker(shop.config, "2-thread", stop=shop.stop)
    worker._tools = ScriptedTools(shop.engine, shop.ears)  # type: ignore[assignment]
    do = worker.do

    def one(job: Job) -> None:
        do(job)
        if worker._ledger.counts()["done"] == 3:
            shop.stop.set()

    worker.do = one  # type: ignore[method-assign]
    worker.run()


def test_a_ledger_that_gives_up_does_not_end_the_worker(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk may be the one that is full: nothing is begun, and a job in hand is given back later."""
    shop.drop()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "claim", raising(EnvironmentFailure("The ledger cannot be used: full.")))
        assert shop.worker._next() is None
    real, calls = Ledger.release, 0

    def release(self: Ledger, job_id: str, outcome: str, **rest: Any) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise EnvironmentFailure("The ledger cannot be used: full.")
        real(self, job_id, outcome, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "release", release)
        patch.setattr(room, "publish", raising(OSError(errno.ENOSPC, "No space left on device")))
        assert shop.work().state is JobState.QUEUED
    assert calls == 3 and shop.outcomes() == ["environment"]


def test_temporary_files_lie_where_they_are_cleared_away(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of libraries, too: a killed process cannot do it, the daemon then does."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "")
    with room._temporary_files_in(layout.scratch("1-test")):
        with tempfile.TemporaryDirectory() as made:
            assert layout.scratch("1-test") in Path(made).parents
        assert os.environ["TMPDIR"] == str(layout.scratch("1-test"))
    assert not layout.scratch("1-test").exists()


# -- telling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_somebody_is_told(shop: Shop, fails: bool) -> None:
    """What came out, or why not."""
    events: list[Any] = []
    shop.worker._hooks = [events.append]
    shop.drop("sub/story.txt")
    if fails:
        shop.engine.cannot = ("It cannot.",)
    shop.work()
    (event,) = events
    assert event.source == "sub/story.txt" and event.state == ("failed" if fails else "done")
    if fails:
        assert (event.error_code, event.error_message) == ("engine_cannot", "story.txt: It cannot.")
    else:
        assert event.outputs == ("sub/story.mp3",) and event.audio_seconds > 0


def test_a_hook_that_fails_harms_nobody(shop: Shop) -> None:
    """The job is done."""
    shop.use(shop.config.model_copy(update={"notify": Notify(command=("/no/such/program",), when=("done",))}))
    shop.drop()
    assert shop.work().state is JobState.DONE


@pytest.mark.parametrize("source", ["move", "leave", "delete"])
def test_the_way_of_a_file_through_a_worker(shop: Shop, source: str) -> None:
    """The text is read from where the claim put it."""
    shop.use(with_source(shop.config, source))
    shop.drop()
    assert shop.work().state is JobState.DONE
    assert len(bytes_somewhere(shop.layout, TEXT.encode())) == (0 if source == "delete" else 1)


def test_one_job_of_several_fails(shop: Shop) -> None:
    """The others are published, and the file lies in failed/ with the reason of that one."""
    shop.drop("three.yaml", "text: The first one.\n---\ntext: '...'\n---\ntext: The third one.")
    states = [shop.work().state for _ in range(3)]
    assert states == ["done", "failed", "done"]
    assert shop.note("three.yaml").startswith("Job 2: three.yaml: There is nothing in this text")
    names = {path.name for path in shop.layout.outbox.glob("*.mp3")}
    assert names == {"three.mp3", "three~3.mp3"}


# -- what is urgent, what is idle ------------------------------------------------------------------


URGENT = "text: Dinner is ready.\npriority: high\n"


def overtaken(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, *, at_take: int, urgent: str = URGENT
) -> list[str]:
    """A book during whose take `at_take` an urgent job is dropped; returns the texts in the order spoken."""
    monkeypatch.setattr(room, "HEARTBEAT_SECONDS", 0.0)
    speak, heard = shop.engine.speak, []

    def speak_and_drop(utterance: Utterance) -> Speech:
        heard.append(utterance.text)
        if len(heard) == at_take:
            shop.drop("urgent.yaml", urgent)
        return speak(utterance)

    monkeypatch.setattr(ScriptedEngine, "speak", lambda _, utterance: speak_and_drop(utterance))
    shop.drop()
    shop.work()
    return heard


SETTINGS = "\nchunks: {max_chars: 40, min_chars: 0}\n"


def test_what_is_urgent_overtakes_a_book_at_the_next_chunk(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The book waits with its encoder open, and nothing of it is spoken twice."""
    heard = overtaken(shop, monkeypatch, at_take=1)
    book = [text for text in heard if "Dinner" not in text]
    assert len(book) >= 2 and len(set(book)) == len(book)
    assert heard.index("Dinner is ready.") == 1
    assert shop.outcomes() == ["done", "done"]
    assert {path.name for path in shop.layout.outbox.glob("*.mp3")} == {"story.mp3", "urgent.mp3"}
    first, second = shop.ledger.jobs_in(JobState.DONE)
    assert {first.source.name, second.source.name} == {"story.txt", "urgent.yaml"}


@pytest.mark.parametrize("batch", [1, 4])
def test_it_need_not_wait_for_all_that_are_spoken_at_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """What is done of the round is kept."""
    shop.engine.batch = batch
    shop.ears.batch = 1
    heard = overtaken(shop, monkeypatch, at_take=1)
    book = [text for text in heard if "Dinner" not in text]
    assert heard.index("Dinner is ready.") == 1 and len(set(book)) == len(book) >= 2
    assert shop.outcomes() == ["done", "done"]


def test_what_could_not_be_begun_does_not_stop_a_round(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be begun and put down, over and over."""
    shop.engine.batch = 4
    shop.drop()
    book = shop.ledger.claim("1-test")
    assert book is not None and not shop.worker._is_overtaken(book)
    shop.drop("urgent.yaml", URGENT)
    assert shop.worker._is_overtaken(book)
    monkeypatch.setattr(room, "ready", raising(EnvironmentFailure("The disk is full.")))
    assert not shop.worker._is_overtaken(book)


def test_what_is_as_urgent_waits_for_its_turn(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two books would alternate."""
    heard = overtaken(shop, monkeypatch, at_take=1, urgent="text: Dinner is ready.\n")
    assert "Dinner is ready." not in heard
    assert [job.source.name for job in shop.ledger.jobs_in(JobState.QUEUED)] == ["urgent.yaml"]


def test_a_book_whose_guest_fails_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is the guest's alone."""
    heard = overtaken(
        shop, monkeypatch, at_take=1, urgent="text: Dinner is ready.\npriority: high\nvoice: x\n"
    )
    states = {job.source.name: job.state for job in shop.ledger.jobs_in(*JobState)}
    assert states["story.txt"] is JobState.DONE and len(heard) >= 2


def test_a_stop_during_the_guest_gives_both_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, and the next worker does both."""
    monkeypatch.setattr(room, "HEARTBEAT_SECONDS", 0.0)
    speak = shop.engine.speak

    def speak_and_stop(utterance: Utterance) -> Speech:
        if "Dinner" in utterance.text:
            shop.stop.set()
        elif not shop.ledger.jobs_in(JobState.QUEUED):
            shop.drop("urgent.yaml", "text: Dinner is ready. Come in.\npriority: high\n" + SETTINGS)
        return speak(utterance)

    monkeypatch.setattr(ScriptedEngine, "speak", lambda _, utterance: speak_and_stop(utterance))
    shop.drop()
    shop.work()
    assert [job.state for job in shop.ledger.jobs_in(*JobState)] == [JobState.QUEUED, JobState.QUEUED]
    assert set(shop.outcomes()) == {"interrupted"}


def test_a_book_that_waits_for_a_guest_is_alive(layout: Layout, ledger: Ledger) -> None:
    """Its heartbeat goes on with the guest's, and its progress stays as it was."""
    submit(ledger, a_job("d1-0"))
    submit(ledger, a_job("d2-0", drop_id="d2", priority="high"))
    guest, book = ledger.claim("w"), ledger.claim("w")
    assert guest is not None and book is not None
    clock = Clock(1000.0)
    progress = Progress(ledger, layout, threading.Event(), clock=clock)
    progress.begin(book)
    progress.report("speaking", 3, 9)
    with progress.aside():
        progress.begin(guest)
        progress.report("speaking", 0, 1)
    now = {one.job.id: (one.stage, one.done_chunks, one.total_chunks) for one in ledger.progress()}
    assert now == {book.id: ("letting another pass", 3, 9), guest.id: ("speaking", 0, 1)}
    progress.report("encoding", 9, 9)
    assert {one.stage for one in ledger.progress()} == {"encoding", "speaking"}


def test_an_idle_worker_lets_go_of_its_models(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by itself; the pool starts another, which loads them when a job wants them."""
    shop.use(shop.config.model_copy(update={"models": Models(idle_unload_seconds=1.0)}))
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(shop.stop, "wait", lambda seconds: now.__setitem__(0, now[0] + seconds) or False)
    monkeypatch.setattr(ScriptedTools, "hold_models", True)
    shop.worker.run()
    assert not shop.stop.is_set()


def test_without_models_an_idle_worker_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to let go of; nor where the configuration says never."""
    monkeypatch.setattr(ScriptedTools, "hold_models", False)
    monkeypatch.setattr(shop.worker, "_worked_at", time.monotonic() - 1e6)
    assert not shop.worker._is_idle_for_long()
    monkeypatch.setattr(ScriptedTools, "hold_models", True)
    assert shop.worker._is_idle_for_long()
    shop.use(shop.config.model_copy(update={"models": Models(idle_unload_seconds=None)}))
    monkeypatch.setattr(shop.worker, "_worked_at", time.monotonic() - 1e6)
    assert not shop.worker._is_idle_for_long()


# -- progress -----------------------------------------------------------------------------------------


@pytest.fixture
def progress(layout: Layout, ledger: Ledger) -> tuple[Progress, Clock, threading.Event]:
    """Of a running job, on a clock of its own."""
    submit(ledger, a_job())
    job = ledger.claim("w")
    assert job is not None
    clock, stop = Clock(1000.0), threading.Event()
    made = Progress(ledger, layout, stop, clock=clock)
    made.begin(job)
    return made, clock, stop


def seen(ledger: Ledger) -> tuple[str, int, int]:
    """What the ledger says of the running job."""
    (running,) = ledger.progress()
    return running.stage, running.done_chunks, running.total_chunks


def test_progress_is_written_now_and_then(progress: Any, ledger: Ledger) -> None:
    """At once when the stage changes, else twice a second: each write costs a sync."""
    report, clock, _ = progress[0].report, progress[1], progress[2]
    report("speaking", 0, 9)
    assert seen(ledger) == ("speaking", 0, 9)
    clock.now += HEARTBEAT_SECONDS / 2
    report("speaking", 1, 9)
    assert seen(ledger) == ("speaking", 0, 9)
    clock.now += HEARTBEAT_SECONDS
    report("speaking", 2, 9)
    assert seen(ledger) == ("speaking", 2, 9)
    report("encoding", 9, 9)
    assert seen(ledger) == ("encoding", 9, 9)


def test_a_stop_needs_no_heartbeat(progress: Any) -> None:
    """It is honoured at every border."""
    report, _, stop = progress[0].report, progress[1], progress[2]
    report("speaking", 0, 9)
    stop.set()
    with pytest.raises(Interrupted):
        report("speaking", 0, 9)


def test_what_is_loaded_is_told(progress: Any, ledger: Ledger) -> None:
    """The supervisor gives it another time limit; without a job there is nothing to tell."""
    progress[0].loading("loading espeak")
    assert seen(ledger) == ("loading espeak", 0, 0)
    Progress(ledger, progress[0]._layout, threading.Event()).loading("loading espeak")
