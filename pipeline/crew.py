"""The workers: started, watched, buried; who hangs is killed, who cannot start is not tried for ever.

Knows the pool and the ledger; nothing of the inbox. Invariant: the job of a worker that is gone goes back to
the queue or fails, whatever the disk says meanwhile.
"""

import shutil
import signal
import time
from collections.abc import Callable
from typing import Protocol

from loguru import logger

from pipeline.children import waits_for_a_disk
from pipeline.config import Config
from pipeline.intake.readiness import Machine
from pipeline.jobs.job import Job
from pipeline.layout import Layout
from pipeline.ledger import Ledger, Progress
from pipeline.pools.base import Ended, WorkerPool

REAP_SECONDS = 0.05
START_FAILURES_ALLOWED = 3
"workers in a row that end within seconds without having had a job"
START_SECONDS = 15.0
START_AGAIN_SECONDS = 60.0
_WHY = {
    "interrupted": "its worker did not stop in time",
    "died": "its worker died",
    "lost": "the daemon went down with it",
}
DEAF_SECONDS = 60.0
"longer than a worker waits after the machine was at fault"


class Fail(Protocol):
    """Ends a job that no worker can end any more."""

    def __call__(self, job: Job, code: str, message: str, hint: str) -> None:
        """`hint` says what to do."""


class Crew:
    """The workers under one configuration."""

    def __init__(
        self,
        config: Config,
        pool: WorkerPool,
        ledger: Ledger,
        layout: Layout,
        machine: Machine,
        *,
        fail: Fail,
    ) -> None:
        self._config, self._pool, self._ledger, self._layout = config, pool, ledger, layout
        self._machine = machine
        self._fail = fail
        self._start_failures = 0
        self._not_before = 0.0
        self._filled_at = 0.0
        self._deaf_since: dict[str, float] = {}
        self._unburied: list[tuple[Ended, str]] = []
        self.trouble = ""
        "why nobody works, if so"
        self._buried = False

    def kill_all(self) -> None:
        """At once."""
        self._pool.kill_all()

    def stop(self, *, prove_life: Callable[[], None], unless: Callable[[], bool] = lambda: False) -> bool:
        """Have every worker ended, by force when its time is over; False if `unless` came first."""
        self._pool.stop()
        deadline = time.monotonic() + self._config.workers.stop_seconds
        while self._pool.names() and time.monotonic() < deadline:
            if unless():
                return False
            self._bury(self._pool.reap(), "interrupted")
            prove_life()
            time.sleep(REAP_SECONDS)
        self._pool.kill_all()
        self._bury(self._pool.reap(), "interrupted")
        return True

    def tend(self, *, open_: bool, paused: bool) -> None:
        """Bury, kill and start whom it concerns; nobody is started while the folders are not `open_`."""
        self._bury(self._pool.reap(), "died")
        self._kill_stalled()
        self._kill_deaf(able=open_ and not paused)
        if not open_ or time.monotonic() < self._not_before:
            return
        if self._pool.fill():
            self._filled_at = time.monotonic()
        elif time.monotonic() - self._filled_at > START_SECONDS:
            self._start_failures, self.trouble = 0, ""

    def free_ledger(self) -> None:
        """Kill a worker that hangs amid a change of the ledger: nobody else can write there until it is gone,
        neither what was dropped nor that it died. Who waits for the disk is not at fault.
        """
        holder = self._ledger.kept_out_by()
        worker = "" if holder is None else self._pool.name_of(holder)
        if holder is not None and worker and not waits_for_a_disk(holder):
            logger.error("worker {} hangs and keeps the ledger locked: killed", worker)
            self._pool.kill(worker)

    def has_buried(self) -> bool:
        """Whether a worker has ended since this was last asked: it may have owed a source its last move."""
        buried, self._buried = self._buried, False
        return buried

    def _bury(self, ended: list[Ended], outcome: str) -> None:
        """Queue the jobs of workers that are gone; those that a full disk leaves unwritten come next time."""
        self._unburied += [(worker, outcome) for worker in ended]
        while self._unburied:
            worker, outcome = self._unburied[0]
            jobs = self._ledger.running_of(worker.worker)
            for job in jobs:
                self.queue_again(job, outcome)
            del self._unburied[0]
            shutil.rmtree(self._layout.scratch(worker.worker), ignore_errors=True)
            self._buried = True
            if outcome == "died" and worker.exit_code not in (0, -signal.SIGTERM):
                logger.error("worker {} ended: {}", worker.worker, _how(worker.exit_code))
                self._count_start_failure(worker, had_a_job=bool(jobs))

    def _count_start_failure(self, worker: Ended, *, had_a_job: bool) -> None:
        if had_a_job or worker.lived_seconds > START_SECONDS:
            self._start_failures, self.trouble = 0, ""
            return
        self._start_failures += 1
        if self._start_failures >= START_FAILURES_ALLOWED:
            self._not_before = time.monotonic() + START_AGAIN_SECONDS
            self.trouble = (
                f"Workers cannot start ({_how(worker.exit_code)}); see {self._layout.logs}."
                f" The next try is in {START_AGAIN_SECONDS:.0f} s."
            )
            logger.error("{}", self.trouble)

    def queue_again(self, job: Job, outcome: str) -> None:
        """A job whose worker is gone is queued again, unless it has cost too many workers already."""
        deaths = self._ledger.bury(job.id, outcome, max_deaths=self._config.workers.max_attempts)
        if deaths is None:
            logger.warning("{} {}: queued again: {}", job.id, job.source.name, _WHY[outcome])
            return
        self._fail(
            job,
            code="worker_died",
            message=f"{job.source.name} ended the process that worked on it {deaths} times.",
            hint=f"The log in {self._layout.logs} may tell why. The file may be damaged or far too large.",
        )

    def _kill_stalled(self) -> None:
        now = time.monotonic()
        for progress in self._ledger.progress():
            limit = self.silence_allowed(progress)
            # who waited for the machine could not tell of any progress
            if now - max(progress.heartbeat_at, self._machine.well_since) > limit:
                logger.error("worker {} shows no progress for {:.0f} s: killed", progress.worker, limit)
                self._pool.kill(progress.worker)
                if _loads(progress):
                    self._fail_loading(progress.job, progress.stage, limit)

    def _kill_deaf(self, *, able: bool) -> None:
        """A worker that takes no job for a minute though there is one hangs too, and shows it in no job."""
        idle = set(self._pool.names()) - {progress.worker for progress in self._ledger.progress()}
        able = able and self._machine.failure is None
        wanted = idle and able and self._ledger.work_waits(self._machine.room)
        now = time.monotonic()
        self._deaf_since = {name: self._deaf_since.get(name, now) for name in idle} if wanted else {}
        for name, since in self._deaf_since.items():
            if now - since > DEAF_SECONDS:
                logger.error("worker {} takes no job for {:.0f} s: killed", name, DEAF_SECONDS)
                self._pool.kill(name)

    def silence_allowed(self, progress: Progress) -> float:
        """Seconds between two signs of life of a running job."""
        return self._config.models.load_seconds if _loads(progress) else self._config.workers.stall_seconds

    def _fail_loading(self, job: Job, stage: str, limit: float) -> None:
        self._fail(
            job,
            code="model_load",
            message=f"{stage.capitalize()} took longer than {limit:.0f} s.",
            hint="Is the machine out of memory? models.load_seconds in config.yaml sets the limit.",
        )


def _loads(progress: Progress) -> bool:
    return progress.stage.startswith("loading")


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit status {exit_code}"
