"""A worker: claim, render, publish, finish, again and again, until it is told to stop.

Knows the life of a job; nothing of how speech is made (`render` does). Invariants: one job at a
time; whatever happens to a job, the ledger says so; a stop is honoured at the next chunk.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Protocol

from loguru import logger

from pipeline import crash, notify
from pipeline.children import die_with_parent
from pipeline.config import Config, Fetch
from pipeline.equipment import Equipment, Listening
from pipeline.errors import (
    Cancelled,
    EnvironmentFailure,
    InputError,
    Interrupted,
    Overtaken,
    RecogniserDied,
    SynthesisError,
    VoxspoolError,
)
from pipeline.events import Hook, JobEnded, emit
from pipeline.fetch import Fetcher
from pipeline.files import sha256_of
from pipeline.intake.claim import below, end_if_complete
from pipeline.intake.readiness import ready
from pipeline.intake.refused import MACHINE_ERRNOS, refusal
from pipeline.intake.roots import check_roots, prove_writable
from pipeline.job_log import job_log
from pipeline.jobs.job import Job, JobState
from pipeline.jobs.settings import Priority
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.logs import log_to
from pipeline.outbox import Manifest, publish
from pipeline.render import Rendering, render
from pipeline.space import Room
from pipeline.tallies import Tally
from pipeline.tools import Tools

IDLE_SECONDS = 0.2
NAP_SECONDS = 0.2
HEARTBEAT_SECONDS = 0.5
LOOK_AGAIN_SECONDS = 2.0
"while the machine lets no work be done"
ENVIRONMENT_WAIT_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 120.0
"a job that the machine fails again and again is tried this seldom, and others go first"
OVERTAKEN_STAGES = frozenset({"speaking", "converting"})
"where nothing is in anybody's hands between two reports"
WITHIN = " on"
"ends the name of a stage in which something is in hand, and may be put down for something more urgent"
OOM_SCORE = Path("/proc/self/oom_score_adj")


def main(config: Config, slot: int, name: str, parent_pid: int) -> None:
    """The body of a worker process."""
    die_with_parent(parent_pid)
    _die_before_parent()
    _share_processors(config)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopFlag()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    layout = layout_of(config)
    log_to(config.log, layout.logs, f"worker-{slot}")
    try:
        with _temporary_files_in(layout.scratch(name)):
            Worker(config, name, stop=stop, device=config.worker_devices[slot - 1]).run()
    except (EnvironmentFailure, RecogniserDied) as error:
        logger.error("{}", error.in_full)
        sys.exit(1)
    sys.exit(0)


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """What libraries call temporary lies where it is cleared away, however this process ends."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"{folder} cannot be made: {error.strerror}.") from error
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    yield
    shutil.rmtree(folder, ignore_errors=True)


def _die_before_parent() -> None:
    """Linux: where memory runs out, it is a worker that goes and never the supervisor (proc(5))."""
    with contextlib.suppress(OSError):
        OOM_SCORE.write_text("500", encoding="ascii")


def _share_processors(config: Config) -> None:
    """Numerical libraries take every processor there is; workers that do so hold each other up.

    They read it when they are loaded; who has set it for the daemon knows better.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(_processors(config)))


def _processors(config: Config) -> int:
    """A worker's share of those that the daemon may use."""
    return max(1, len(os.sched_getaffinity(0)) // len(config.worker_devices))


class Stop(Protocol):
    """What tells a worker to end; a `threading.Event` will do."""

    def is_set(self) -> bool:
        """Whether it was asked to."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait for that, at most so many seconds."""
        ...


class StopFlag:
    """A stop that a signal handler may set: without a lock, which the interrupted code could be holding."""

    def __init__(self) -> None:
        self._asked = False

    def set(self) -> None:
        """Ask."""
        self._asked = True

    def is_set(self) -> bool:
        """Whether it was asked to."""
        return self._asked

    def wait(self, timeout: float) -> bool:
        """Wait for that in short naps."""
        deadline = time.monotonic() + timeout
        while not self._asked and time.monotonic() < deadline:
            time.sleep(min(NAP_SECONDS, timeout))
        return self._asked


class Worker:
    """Takes jobs from the ledger until `stop` is set."""

    def __init__(self, config: Config, name: str, *, stop: Stop, device: str = "cpu") -> None:
        self._config = config
        self._name = name
        self._stop = stop
        self._layout: Layout = layout_of(config)
        self._ledger = Ledger(self._layout.ledger_file, clock=time.time, create=False)
        self._hooks: list[Hook] = notify.hooks(config.notify)
        self._progress = Progress(
            self._ledger,
            self._layout,
            stop,
            worker=name,
            let_pass=self._let_pass,
            is_overtaken=self._is_overtaken,
        )
        self._tools = Tools(
            _equipment(config, self._layout, device), self._progress.loading, _fetcher(config.fetch)
        )
        self._owed: set[str] = set()
        self._move_at = 0.0
        self._look_at = 0.0
        self._worked_at = time.monotonic()
        self._hindrance = ""

    def run(self) -> None:
        """Work until told to stop, or until models have lain idle for too long."""
        while not self._stop.is_set() and not self._is_idle_for_long():
            job = self._next()
            if job is not None:
                self.do(job)
                self._worked_at = time.monotonic()
            elif not self._stop.wait(IDLE_SECONDS):
                self._move_sources()
        self._tools.close()
        self._ledger.close()

    def _is_idle_for_long(self) -> bool:
        """Only a process that ends gives back all of a device's memory; the next one starts without."""
        limit = self._config.models.idle_unload_seconds
        if limit is None or not self._tools.hold_models or self._owed:
            return False
        if time.monotonic() - self._worked_at < limit:
            return False
        logger.info("no work for {:.0f} s: the models are let go", limit)
        return True

    def _let_pass(self, job: Job) -> None:
        """What is more urgent than `job` is done now, between two of its chunks."""
        while not self._stop.is_set() and (urgent := self._next(before=job.priority)) is not None:
            logger.info("{} {}: lets {} pass", job.id, job.source.name, urgent.source.name)
            with self._progress.aside():
                self.do(urgent)

    def _is_overtaken(self, job: Job) -> bool:
        """Whether something more urgent than `job` could be begun now."""
        if time.monotonic() < self._look_at:
            return False
        try:
            waits = self._ledger.work_waits(before=job.priority)
            return waits and self._ledger.work_waits(self._ready(), before=job.priority)
        except EnvironmentFailure:
            return False

    def _next(self, before: Priority | None = None) -> Job | None:
        """The next job, if there is one for which the machine is fit; `before`: only a more urgent one."""
        if self._progress.paused() or time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_AGAIN_SECONDS
        try:
            if self._ledger.work_waits(before=before):
                room = self._ready()
                self._tell_hindrance("")
                job = self._ledger.claim(self._name, room, before=before)
                self._look_at = 0.0 if job else self._look_at
                return job
            self._look_at = 0.0
        except EnvironmentFailure as error:
            self._tell_hindrance(error.in_full)
        return None

    def _ready(self) -> Room:
        return ready(self._config, self._layout, self._ledger)

    def _tell_hindrance(self, sentence: str) -> None:
        """Why nothing is begun, told once; the ledger may be what is hindered."""
        if sentence == self._hindrance:
            return
        if sentence:
            logger.error("nothing is begun: {}", sentence)
        with contextlib.suppress(EnvironmentFailure):
            self._ledger.set_meta("trouble", sentence)
            self._hindrance = sentence

    def do(self, job: Job) -> None:
        """One job from claim to its last state."""
        logger.info("{} {}: started", job.id, job.source.name)
        self._progress.begin(job)
        crash.point("job.taken")
        try:
            self._attempt(job)
        except (EnvironmentFailure, OSError) as error:
            self._wait_out(job, self._explained(error))

    def _explained(self, error: EnvironmentFailure | OSError) -> EnvironmentFailure:
        """What is wrong with the machine: a look at it says it better than what came out of one room."""
        try:
            self._ready()
        except EnvironmentFailure as found:
            return found
        return error if isinstance(error, EnvironmentFailure) else refusal(error, self._layout)

    def _attempt(self, job: Job) -> None:
        """What raises here again is the machine's fault."""
        try:
            self._succeed(job)
        except Interrupted as error:
            self._give_back(job, error.message)
        except Cancelled as error:
            self._end(job, JobState.CANCELLED, error)
        except (SynthesisError, RecogniserDied) as error:
            # a stop may reach ffmpeg and recogniser as well, and then this is all that we hear of it
            if self._stop.is_set():
                self._give_back(job, error.message)
            elif isinstance(error, RecogniserDied):
                raise
            else:
                self._fail(job, error)
        except InputError as error:
            self._fail(job, error)
        except (EnvironmentFailure, MemoryError):
            raise  # without memory a process is of no use: it ends, and the supervisor counts it
        except Exception as error:  # broad: a job must not take the worker with it
            if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
                raise
            self._fail_unforeseen(job, error)

    def _fail(self, job: Job, error: VoxspoolError) -> None:
        self._acquit_machine(job)
        self._end(job, JobState.FAILED, error)

    def _acquit_machine(self, job: Job) -> None:
        """A failure is the job's own where the machine is well; what raises here is the machine's fault."""
        self._ready()
        drop = self._ledger.drop(job.drop_id)
        assert drop is not None
        folder = self._layout.source_folder(drop.id, drop.mode)
        for member in drop.members:
            with contextlib.suppress(FileNotFoundError):
                sha256_of(folder / below(drop, member))

    def _give_back(self, job: Job, reason: str) -> None:
        self._ledger.release(job.id, "interrupted", worker=self._name)
        logger.info("{} {}: goes on later: {}", job.id, job.source.name, reason)

    def _succeed(self, job: Job) -> None:
        check_roots(self._ledger, self._layout)
        prove_writable(self._layout, job.folder)
        drop = self._ledger.drop(job.drop_id)
        assert drop is not None
        source = self._layout.source_folder(drop.id, drop.mode)
        rendering = render(job, self._layout, self._tools, self._progress.report, source=source)
        crash.point("job.rendered")
        self._progress.report("publishing", rendering.chunks, rendering.chunks)
        check_roots(self._ledger, self._layout)
        manifest = publish(
            self._layout,
            self._ledger,
            job,
            drop.relative,
            rendering.files,
            job_log(job, rendering.manifest),
            rendering.manifest,
        )
        crash.point("job.published")
        with self._ledger.one_commit():
            self._ledger.finish(job.id, JobState.DONE)
            self._ledger.tallies.add(Tally.AUDIO_SECONDS, _speech_seconds(manifest))
            self._ledger.tallies.add(Tally.WORK_SECONDS, manifest.timings.total_seconds)
        crash.point("job.finished")
        self._close(job, rendering, manifest)

    def _close(self, job: Job, rendering: Rendering, manifest: Manifest) -> None:
        self._tidy(job)
        seconds = _speech_seconds(manifest)
        logger.info(
            "{} {}: done, {:.1f} s of speech in {:.1f} s",
            job.id,
            job.source.name,
            seconds,
            manifest.timings.total_seconds,
        )
        event = JobEnded(
            job_id=job.id,
            state=JobState.DONE,
            source=job.source.name,
            outputs=tuple(output.path for output in manifest.outputs),
            warnings=len(rendering.manifest.warnings),
            audio_seconds=seconds,
            total_seconds=manifest.timings.total_seconds,
        )
        emit(event, self._hooks)

    def _end(self, job: Job, state: JobState, error: VoxspoolError) -> None:
        """The job did not come out: its source goes to `failed/` with the reason."""
        error.message = _naming(job, error.message)
        logger.warning("{} {}: {}: {}", job.id, job.source.name, state, error.message)
        self._ledger.finish(job.id, state, code=error.code, message=error.message, hint=error.hint)
        crash.point("job.failed")
        self._tidy(job)
        ended = self._ledger.job(job.id)
        if ended is not None:
            emit(notify.unsuccessful(ended), self._hooks)

    def _tidy(self, job: Job) -> None:
        """The job has ended: its own folders go, and its source if it was the last of its jobs."""
        self._owed.add(job.drop_id)
        self._move_at = 0.0
        shutil.rmtree(self._layout.work(job.id), ignore_errors=True)
        shutil.rmtree(self._layout.publishing(job.id), ignore_errors=True)
        crash.point("job.tidied")
        if self._ledger.meta("trouble"):
            self._ledger.set_meta("trouble", "")
        self._move_sources()

    def _move_sources(self) -> None:
        """Bring sources to their last place; what the disk refuses now is tried again."""
        if not self._owed or time.monotonic() < self._move_at:
            return
        try:
            for drop_id in sorted(self._owed):
                end_if_complete(self._layout, self._ledger, drop_id)
                self._owed.discard(drop_id)
        except (OSError, EnvironmentFailure) as error:
            trouble = self._explained(error)
            logger.error("a source cannot be brought to its last place: {}", trouble.message)
            self._move_at = time.monotonic() + LOOK_AGAIN_SECONDS
            with contextlib.suppress(EnvironmentFailure):
                self._ledger.set_meta("trouble", trouble.in_full)

    def _wait_out(self, job: Job, error: EnvironmentFailure) -> None:
        """The machine is at fault: the job goes back to the queue and costs no attempt."""
        logger.error("{} {}: waits: {}", job.id, job.source.name, error.message)
        while not self._released(job, error) and not self._stop.wait(LOOK_AGAIN_SECONDS):
            pass

    def _released(self, job: Job, error: EnvironmentFailure) -> bool:
        """The ledger may lie on the very disk that is full."""
        try:
            failures = self._ledger.environment_failures(job.id)
            delay = min(ENVIRONMENT_WAIT_SECONDS * 2.0**failures, LONGEST_WAIT_SECONDS)
            self._ledger.release(job.id, "environment", worker=self._name, delay_seconds=delay)
            self._ledger.set_meta("trouble", error.in_full)
            self._ledger.faults.add(code=error.code, file=job.source.name, message=error.message)
        except EnvironmentFailure as other:
            logger.error("{}", other.message)
            return False
        return True

    def _fail_unforeseen(self, job: Job, error: Exception) -> None:
        self._acquit_machine(job)
        logger.error("{}", "".join(traceback.format_exception(error)))
        self._end(
            job,
            JobState.FAILED,
            VoxspoolError(
                f"Voxspool made a mistake over this file: {type(error).__name__}: {error}",
                code="internal",
                hint=f"Please report it with the log in {self._layout.logs}.",
            ),
        )


def _speech_seconds(manifest: Manifest) -> float:
    """The length of what was made, whatever the number of formats."""
    return max((output.duration_seconds for output in manifest.outputs), default=0.0)


def _equipment(config: Config, layout: Layout, device: str) -> Equipment:
    whisper = config.models.whisper
    return Equipment(
        models=config.models_path,
        measured=layout.measured,
        device=device,
        processors=_processors(config),
        engine_mode=config.models.engine_mode,
        int8=config.models.int8,
        listening=Listening(size=whisper.size, backend=whisper.backend, device=whisper.device),
    )


def _fetcher(limits: Fetch) -> Fetcher:
    return Fetcher(
        voice_max_bytes=limits.voice_max_mb * 1_000_000,
        audio_max_bytes=limits.audio_max_mb * 1_000_000,
        max_seconds=limits.max_seconds,
    )


def _naming(job: Job, message: str) -> str:
    """A message that says which file it is about."""
    name = PurePosixPath(job.source.name).name
    return message if name in message else f"{name}: {message}"


class Progress:
    """Tells the ledger how far a job is, and the job whether it must stop or let others pass."""

    def __init__(
        self,
        ledger: Ledger,
        layout: Layout,
        stop: Stop,
        *,
        worker: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        let_pass: Callable[[Job], None] = lambda _: None,
        is_overtaken: Callable[[Job], bool] = lambda _: False,
    ) -> None:
        self._worker = worker
        self._ledger = ledger
        self._layout = layout
        self._stop = stop
        self._clock = clock
        self._let_pass, self._is_overtaken = let_pass, is_overtaken
        self._job: Job | None = None
        self._waiting: list[tuple[Job, int, int]] = []
        self._written = 0.0
        self._last = ("", 0, 0)

    def begin(self, job: Job) -> None:
        """A new job."""
        self._job = job
        self._written = 0.0

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While another job is done the present one waits; it goes on being alive."""
        assert self._job is not None
        waiting, last = self._job, self._last
        self._waiting.append((waiting, *last[1:]))
        try:
            yield
        finally:
            self._waiting.pop()
            self._job, self._last = waiting, last

    def paused(self) -> bool:
        """Whether a pause file lies in the inbox or in the state folder."""
        return any(map(os.path.lexists, (self._layout.own_pause_file, self._layout.pause_file)))

    def loading(self, what: str) -> None:
        """Something is about to be loaded, which may take minutes."""
        self._write(what, 0, 0)

    def report(self, stage: str, done_chunks: int, total_chunks: int) -> None:
        """Called at each chunk border, and within; raises Interrupted, Cancelled or, within, Overtaken."""
        self._refuse_to_go_on()
        now, shown = self._clock(), stage.removesuffix(WITHIN)
        if now - self._written < HEARTBEAT_SECONDS and shown == self._last[0]:
            return
        self._written = now
        self._write(shown, done_chunks, total_chunks)
        if self.paused():
            raise Interrupted("The daemon is paused.")
        if self._job is None:
            return
        if stage in OVERTAKEN_STAGES:
            self._let_pass(self._job)
            self._refuse_to_go_on()
        elif stage != shown and self._is_overtaken(self._job):
            self._written = 0.0  # the next call is to let it pass
            raise Overtaken("Something more urgent goes first.")

    def _refuse_to_go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("The worker was asked to stop.")

    def _write(self, stage: str, done_chunks: int, total_chunks: int) -> None:
        if self._job is None:
            return
        self._last = (stage, done_chunks, total_chunks)
        for waiting, done, total in self._waiting:  # what became of it meanwhile it hears when it goes on
            with contextlib.suppress(Interrupted):
                self._ledger.heartbeat(waiting.id, "letting another pass", done, total, worker=self._worker)
        if self._ledger.heartbeat(self._job.id, stage, done_chunks, total_chunks, worker=self._worker):
            raise Cancelled(
                f"{self._job.source.name} was cancelled.", hint="It was cancelled on the command line."
            )
