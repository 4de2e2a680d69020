"""The one long-lived process: startup, main loop, shutdown.

Has the inbox watched, keeps the workers alive, tells what is going on. Speaks nothing itself and
never loads a model. Invariants: signal handlers only set a flag; an unusable folder stops the
intake, never the daemon; a worker that hangs is killed, one that cannot start is not respawned for
ever.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import schedule
from loguru import logger

from pipeline import __version__, notify, prune
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, EnvironmentFailure
from pipeline.events import emit
from pipeline.files import display, exclusive_lock
from pipeline.intake.claim import end_if_complete
from pipeline.intake.intake import Intake
from pipeline.intake.watch import Watch
from pipeline.jobs.job import Job, JobState
from pipeline.layout import layout_of
from pipeline.ledger import Ledger
from pipeline.pools.base import Ended, WorkerPool
from pipeline.pools.local import LocalPool
from pipeline.retention import size
from pipeline.status import Snapshot, StatusFile, listed, snapshot_jobs

TICK_SECONDS = 1.0
REAP_SECONDS = 0.05
START_FAILURES_ALLOWED = 3
"workers in a row that end within seconds without having had a job"
START_SECONDS = 15.0


@dataclass(slots=True)
class Asked:
    """What signals have asked of us since the last look."""

    stop: bool = False
    reload: bool = False

    def listen(self, wake: Callable[[], None]) -> None:
        """Let the handlers set a flag and end the wait, nothing else."""

        def receive(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                self.reload = True
            else:
                self.stop = True
            wake()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, receive)


class Supervisor:
    """Runs until it is told to stop or, with `once`, until nothing is left to do."""

    def __init__(self, config: Config, *, once: bool = False, pool: WorkerPool | None = None) -> None:
        self._config = _for_once(config) if once else config
        self._once = once
        self._layout = layout_of(config)
        self._asked = Asked()
        self._given_pool = pool
        self._status = StatusFile(self._layout.status_file, clock=time.monotonic, wall=time.time)
        self._started_at = time.time()
        self._start_failures = 0
        self._worker_trouble = ""
        self._schedule = schedule.Scheduler()
        self._pruned_at_start = False
        self._retention_notes: tuple[str, ...] = ()

    # -- lifecycle -------------------------------------------------------------------------------

    def run(self) -> int:
        """Startup, main loop, shutdown; returns the exit code: 1 if a job failed in a `once` run."""
        self._layout.state.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self._layout.lock_file) as held:
            if not held:
                raise EnvironmentFailure(
                    f"Another Voxspool is running with the state folder {self._layout.state}.",
                    hint="`python daemon.py status` shows what it does.",
                )
            self._startup()
            try:
                self._main_loop()
            finally:
                self._shutdown()
        trouble = self._trouble()
        if self._once and trouble:
            raise EnvironmentFailure(" ".join(trouble))
        return 1 if self._once and self._ledger.failed_since(self._started_at) else 0

    def _startup(self) -> None:
        for folder in (self._layout.inbox, self._layout.outbox, self._layout.voices):
            folder.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(self._layout.ledger_file, clock=time.time)
        self._use(self._config)
        self._asked.listen(lambda: self._watch.wake())
        self._recover()
        logger.info("Voxspool {} watches {}", __version__, self._layout.inbox)

    def _use(self, config: Config) -> None:
        """Work by this configuration from now on."""
        self._config = config
        self._intake = Intake(self._layout, self._ledger, config, clock=time.time)
        self._watch = Watch(config, self._layout, self._ledger, self._intake, clock=time.monotonic)
        self._pool = self._given_pool or LocalPool(config, config.workers.count)
        self._hooks = notify.hooks(config.notify)
        self._schedule.clear()
        self._schedule.every(max(1, round(config.retention.every_hours * 60))).minutes.do(self._prune)

    def _recover(self) -> None:
        """What an earlier run left behind is ordinary work."""
        for progress in self._ledger.progress():
            self._give_back(progress.job, "lost")
        for folder in (self._layout.work_root, self._layout.publishing_root):
            shutil.rmtree(folder, ignore_errors=True)
        self._ledger.set_meta("trouble", "")

    def _main_loop(self) -> None:
        while not self._asked.stop:
            self.on_tick()
            if self._once and self._nothing_left():
                return
            self._watch.wait(REAP_SECONDS * 2 if self._once else TICK_SECONDS)

    def _shutdown(self) -> None:
        """Workers finish their chunk and give their job back; who does not end in time is killed."""
        logger.info("stopping")
        self._stop_workers()
        self._status.write(self._snapshot("stopped"))
        self._watch.close()

    def _stop_workers(self) -> None:
        self._pool.stop()
        deadline = time.monotonic() + self._config.workers.stop_seconds
        while self._pool.names() and time.monotonic() < deadline:
            self._bury(self._pool.reap())
            time.sleep(REAP_SECONDS)
        self._pool.kill_all()
        self._bury(self._pool.reap())

    # -- one tick --------------------------------------------------------------------------------

    def on_tick(self) -> None:
        """Everything that is to be looked after, once."""
        if self._asked.reload:
            self._asked.reload = False
            self._reload()
        self._tend_workers()
        if not self._paused():
            self._take()
        if self._watch.open and not self._pruned_at_start:
            self._pruned_at_start = True
            self._prune()
        self._cancel_queued()
        self._schedule.run_pending()
        if self._status.due():
            self._status.write(self._snapshot("paused" if self._paused() else "running"))

    def _take(self) -> None:
        for drop in self._watch.look():
            logger.info("{}: taken as {}", display(drop.relative), drop.id)
            for job in self._ledger.jobs_of(drop.id):
                if job.state is JobState.FAILED:
                    self._tell(job)

    def _tell(self, job: Job) -> None:
        logger.warning("{} {}: {}: {}", job.id, job.source.name, job.state, job.error_message)
        emit(notify.unsuccessful(job), self._hooks)

    def _paused(self) -> bool:
        return self._layout.pause_file.exists()

    def _nothing_left(self) -> bool:
        """Nothing settles, nothing is queued, nothing is being done; or nothing can be done."""
        counts = self._ledger.counts()
        if counts[JobState.RUNNING]:
            return False
        if self._paused() or self._watch.trouble or self._worker_trouble:
            return True
        return self._watch.quiet() and not counts[JobState.QUEUED]

    def _cancel_queued(self) -> None:
        """Jobs that were cancelled before a worker had them."""
        for job in self._ledger.cancelled_while_queued():
            self._end(job, JobState.CANCELLED, "cancelled", f"{job.source.name} was cancelled.")

    def _end(self, job: Job, state: JobState, code: str, message: str, hint: str = "") -> None:
        self._ledger.finish(job.id, state, code=code, message=message, hint=hint)
        end_if_complete(self._layout, self._ledger, job.drop_id)
        ended = self._ledger.job(job.id)
        if ended is not None:
            self._tell(ended)

    def _prune(self) -> None:
        """Never while a folder is not the one that it was: what is missing then is only out of sight."""
        if not self._watch.open:
            return
        plan = prune.rehearse(self._ledger, self._layout, self._config.retention)
        outcome = prune.apply(plan, self._ledger)
        if outcome.removed:
            logger.info("pruned {} items, {}", len(outcome.removed), size(outcome.bytes))
        self._retention_notes = plan.warnings

    # -- workers ---------------------------------------------------------------------------------

    def _tend_workers(self) -> None:
        self._bury(self._pool.reap())
        self._kill_stalled()
        if not self._worker_trouble and self._watch.open:
            self._pool.fill()

    def _bury(self, ended: list[Ended]) -> None:
        for worker in ended:
            jobs = self._ledger.running_of(worker.worker)
            for job in jobs:
                self._give_back(job, "died")
            if worker.exit_code not in (0, -signal.SIGTERM):  # the latter: it was stopped before it had begun
                logger.error("worker {} ended: {}", worker.worker, _how(worker.exit_code))
            self._count_start_failure(worker, had_a_job=bool(jobs))

    def _count_start_failure(self, worker: Ended, *, had_a_job: bool) -> None:
        if worker.exit_code in (0, -signal.SIGTERM) or had_a_job or worker.lived_seconds > START_SECONDS:
            self._start_failures = 0
            return
        self._start_failures += 1
        if self._start_failures >= START_FAILURES_ALLOWED:
            self._worker_trouble = (
                f"Workers cannot start ({_how(worker.exit_code)}); see {self._layout.logs}."
                " Send SIGHUP or restart once it is mended."
            )
            logger.error("{}", self._worker_trouble)

    def _give_back(self, job: Job, outcome: str) -> None:
        """Queue a dead worker's job again, unless it has cost too many workers already."""
        self._ledger.release(job.id, outcome)
        deaths = self._ledger.deaths(job.id)
        if deaths < self._config.workers.max_attempts:
            logger.warning("{} {}: its worker is gone, queued again", job.id, job.source.name)
            return
        self._end(
            job,
            JobState.FAILED,
            "worker_died",
            f"{job.source.name} ended the process that worked on it {deaths} times.",
            f"The log in {self._layout.logs} may tell why. The file may be damaged or far too large.",
        )

    def _kill_stalled(self) -> None:
        now = time.time()
        for progress in self._ledger.progress():
            loading = progress.stage.startswith("loading")
            limit = self._config.models.load_seconds if loading else self._config.workers.stall_seconds
            if now - progress.heartbeat_at > limit:
                logger.error("worker {} shows no progress for {:.0f} s: killed", progress.worker, limit)
                if loading:
                    self._fail_loading(progress.job, progress.stage, limit)
                self._pool.kill(progress.worker)

    def _fail_loading(self, job: Job, stage: str, limit: float) -> None:
        self._end(
            job,
            JobState.FAILED,
            "model_load",
            f"{stage.capitalize()} took longer than {limit:.0f} s.",
            "Is the machine out of memory? models.load_seconds in config.yaml sets the limit.",
        )

    # -- configuration and status ----------------------------------------------------------------

    def _reload(self) -> None:
        """Take over a changed configuration if it is valid; else keep the old one and say why."""
        try:
            fresh = load_config(self._config.file) if self._config.file else self._config
            if layout_of(fresh) != self._layout:
                raise ConfigError("The folders changed.", hint="Restart Voxspool for that.")
        except ConfigError as error:
            logger.error("the configuration was not reloaded: {} {}", error.message, error.hint)
            return
        self._stop_workers()
        self._watch.close()
        self._worker_trouble, self._start_failures = "", 0
        self._use(fresh)
        logger.info("configuration reloaded")

    def _trouble(self) -> tuple[str, ...]:
        """What keeps the work from going on."""
        known = (self._watch.trouble, self._worker_trouble, self._ledger.meta("trouble") or "")
        return tuple(sentence for sentence in known if sentence)

    def _snapshot(self, state: str) -> Snapshot:
        waiting = self._watch.waiting()
        shown = listed(waiting)
        jobs = snapshot_jobs(self._ledger)
        return Snapshot(
            voxspool=__version__,
            pid=os.getpid(),
            state=state,
            trouble=self._trouble(),
            notes=(*self._watch.notes(), *self._retention_notes),
            waiting=shown,
            **{**jobs, "not_listed": {**jobs["not_listed"], "waiting": len(waiting) - len(shown)}},
        )


def _for_once(config: Config) -> Config:
    """A run that ends cannot wait for parts that may come later."""
    return config.model_copy(
        update={"intake": config.intake.model_copy(update={"wait_for_parts_seconds": 0.0})}
    )


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit status {exit_code}"
