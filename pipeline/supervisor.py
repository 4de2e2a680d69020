"""The one long-lived process: startup, main loop, shutdown.

Has the inbox watched, the workers tended and told what is going on. Speaks nothing itself and
never loads a model. Invariants: signal handlers only set a flag; an unusable folder stops the
intake, never the daemon.
"""

import contextlib
import ctypes
import gc
import shutil
import signal
import time
from dataclasses import dataclass
from types import FrameType

from loguru import logger

from pipeline import __version__, notify
from pipeline.config import Config, load_config
from pipeline.crew import Crew
from pipeline.errors import ConfigError, EnvironmentFailure, LedgerDamaged
from pipeline.events import emit
from pipeline.files import display, exclusive_lock
from pipeline.intake.aside import Aside
from pipeline.intake.claim import end_if_complete
from pipeline.intake.ignore import IgnoreList
from pipeline.intake.intake import Intake
from pipeline.intake.large import LargeTakes
from pipeline.intake.readiness import Machine
from pipeline.intake.refused import HEAL_BY_THEMSELVES, refusal
from pipeline.intake.roots import Role, check_root, memory_key, open_root, try_writing
from pipeline.intake.watch import Watch
from pipeline.jobs.job import Job, JobState
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.pools.base import WorkerPool
from pipeline.pools.local import LocalPool
from pipeline.pruner import Pruner
from pipeline.sd_notify import Systemd
from pipeline.teller import Sources, Teller, metrics_of

TICK_SECONDS = 1.0
ONCE_TICK_SECONDS = 0.1
STOP_MARGIN_SECONDS = 30.0
"for the killing of workers and the last words, after `workers.stop_seconds`"
START_PATIENCE_SECONDS = 5.0
"between two tries to start on a disk that is full or away"
ONCE_PATIENCE_SECONDS = 10.0
"trouble that lasts longer ends a run with `once`"
COLLECT_SECONDS = 60.0
"how often garbage is collected and memory given back, which takes some 35 ms"


@dataclass(slots=True)
class Asked:
    """What signals have asked of us since the last look."""

    stop: bool = False
    reload: bool = False

    def listen(self) -> None:
        """Let the handlers set a flag and nothing else: any lock might be held where they strike."""

        def receive(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                self.reload = True
            else:
                self.stop = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, receive)


class Supervisor:
    """Runs until it is told to stop or, with `once`, until nothing is left to do."""

    def __init__(
        self,
        config: Config,
        *,
        once: bool = False,
        pool: WorkerPool | None = None,
        systemd: Systemd | None = None,
    ) -> None:
        self._config = _for_once(config) if once else config
        self._once = once
        self._layout = layout_of(config)
        self._asked = Asked()
        self._given_pool = pool
        self._systemd = systemd or Systemd()
        self._desk = Aside("status")
        self._teller = Teller(self._layout, self._systemd, self._desk)
        self._ready = False
        self._started_at = time.time()
        self._troubled_since: float | None = None
        self._sources_owed = self._leftovers = True
        self._collect_at = 0.0
        self._large = LargeTakes(self._layout)

    # -- lifecycle -------------------------------------------------------------------------------

    def run(self) -> int:
        """Startup, main loop, shutdown; returns the exit code: 1 if a job failed in a `once` run."""
        self._asked.listen()
        with contextlib.ExitStack() as held:
            if not self._start_patiently(held):
                return 0
            try:
                self._main_loop()
            finally:
                self._shutdown()
        trouble = (*self._teller.trouble(), *self._teller.without_room())
        if self._once and trouble:
            raise EnvironmentFailure(" ".join(trouble))
        return 1 if self._once and self._ledger.failed_since(self._started_at) else 0

    def _start_patiently(self, held: contextlib.ExitStack) -> bool:
        """A disk that is full at the start is waited for, as at any other time; False: told to stop first."""
        while not self._asked.stop:
            try:
                _make_state(self._layout)
                if not held.enter_context(exclusive_lock(self._layout.lock_file)):
                    raise EnvironmentFailure(
                        f"Another Voxspool is running with the state folder {self._layout.state}.",
                        hint="`python daemon.py status` shows what it does.",
                    )
                self._startup()
                return True
            except (EnvironmentFailure, OSError) as error:
                held.close()
                failure = error if isinstance(error, EnvironmentFailure) else refusal(error, self._layout)
                if self._once or failure.code not in HEAL_BY_THEMSELVES:
                    raise failure from error
                self._wait_at_start(failure)
        return False

    def _wait_at_start(self, failure: EnvironmentFailure) -> None:
        logger.error("it cannot start yet: {}", failure.in_full)
        self._teller.starting(failure)
        deadline = time.monotonic() + START_PATIENCE_SECONDS
        while not self._asked.stop and time.monotonic() < deadline:
            time.sleep(ONCE_TICK_SECONDS)

    def _startup(self) -> None:
        self._ledger = Ledger(self._layout.ledger_file, clock=time.time)
        try:
            self._ledger.prove_whole()
            self._ledger.keep_reserve()
            self._mark_state()
            self._pruner = Pruner(self._config, self._layout, self._ledger)
            self._use(self._config)
            self._recover()
        except BaseException:
            self._ledger.close()
            raise
        logger.info("Voxspool {} watches {}", __version__, self._layout.inbox)

    def _mark_state(self) -> None:
        """So that workers notice when another folder lies in its place."""
        state = open_root(self._layout.state, Role.STATE)
        if state.marker is not None:
            self._ledger.set_meta(memory_key(Role.STATE, self._layout.state), state.marker.uuid)

    def _use(self, config: Config) -> None:
        """Work by this configuration from now on."""
        self._machine = Machine(self._layout, self._ledger, desk=self._desk, clock=time.monotonic)
        self._config = config
        self._intake = Intake(self._layout, self._ledger, config, clock=time.time, large=self._large)
        self._watch = Watch(config, self._layout, self._ledger, self._intake, clock=time.monotonic)
        pool = self._given_pool or LocalPool(config, len(config.worker_devices))
        self._crew = Crew(config, pool, self._ledger, self._layout, self._machine, fail=self._end_failed)
        self._hooks = notify.hooks(config.notify)
        self._pruner.configure(config)
        self._teller.ask(
            Sources(
                ledger=self._ledger,
                machine=self._machine,
                watch=self._watch,
                crew=self._crew,
                pruner=self._pruner,
                metrics=metrics_of(config, self._ledger, self._layout, self._started_at),
            )
        )

    def _recover(self) -> None:
        """What an earlier run left behind is ordinary work."""
        for progress in self._ledger.progress():
            self._crew.queue_again(progress.job, "lost")
        shutil.rmtree(self._layout.work_root, ignore_errors=True)
        for folder in (self._layout.work_root, self._layout.cache, self._layout.spool_root):
            folder.mkdir(exist_ok=True)
        self._ledger.set_meta("trouble", "")

    def _main_loop(self) -> None:
        while not self._asked.stop:
            self.on_tick()
            if self._once and self._nothing_left():
                return
            self._watch.wait(ONCE_TICK_SECONDS if self._once else TICK_SECONDS)

    def _shutdown(self) -> None:
        """Workers finish their chunk and give their job back; who does not end in time is killed."""
        logger.info("stopping")
        seconds = self._config.workers.stop_seconds + STOP_MARGIN_SECONDS
        self._systemd.stopping("stopping: each worker ends its chunk", within_seconds=seconds)
        self._pruner.stop()
        try:
            self._teller.tell("stopping", force=True)
            self._crew.stop(prove_life=self._teller.prove_life)
            self._teller.tell("stopped", force=True)
        except EnvironmentFailure as error:  # the ledger cannot say whose jobs they were: the next start does
            logger.error("{}", error.in_full)
            self._crew.kill_all()
        self._watch.close()

    # -- one tick --------------------------------------------------------------------------------

    def on_tick(self) -> None:
        """Everything that is to be looked after, once; what the disk refuses is trouble, not the end."""
        before, self._teller.tick_trouble = self._teller.tick_trouble, ""
        for duty in (
            self._reload_if_asked,
            self._tend_crew,
            self._take,
            self._look_at_machine,
            self._tell_ready,
            self._clear_up,
            self._prune_if_due,
        ):
            if self._asked.stop:
                return
            self._crew.free_ledger()
            try:
                duty()
            except LedgerDamaged:
                raise
            except (EnvironmentFailure, OSError) as error:
                failure = error if isinstance(error, EnvironmentFailure) else refusal(error, self._layout)
                self._teller.tick_trouble = failure.in_full
                logger.error("{}", error)
                if failure.in_full != before:
                    self._remember(failure.code, failure.in_full)
        self._teller.tell(self._state())
        self._teller.prove_life()
        self._collect_garbage()

    def _collect_garbage(self) -> None:
        """Each indented JSON leaves a ring of objects behind. Python by itself looks for such only after a
        quarter as many new objects as there are in all, which is megabytes of them here. What a busy moment
        freed again, glibc keeps for the next one.
        """
        now = time.monotonic()
        if now >= self._collect_at:
            self._collect_at = now + COLLECT_SECONDS
            gc.collect()
            with contextlib.suppress(AttributeError, OSError):  # another C library keeps no such heap
                ctypes.CDLL(None).malloc_trim(0)

    def _look_at_machine(self) -> None:
        """What all work waits for; once that is mended nothing waits any longer."""
        if not self._watch.answering:
            self._machine.wait()
            return
        before = self._machine.failure
        mended = self._machine.look(self._config)
        failure = self._machine.failure
        if failure is not None and (before is None or before.message != failure.message):
            logger.error("{}", failure.in_full)
            self._remember(failure.code, failure.message)
        if mended:
            logger.info("the machine is well again")
            self._ledger.try_again_at_once()
            self._ledger.set_meta("trouble", "")
            self._sources_owed = True

    def _remember(self, code: str, message: str) -> None:
        """Something went wrong that is about no single job."""
        with contextlib.suppress(EnvironmentFailure):  # what is wrong may be the ledger itself
            self._ledger.faults.add(code=code, file="", message=message)

    def _reload_if_asked(self) -> None:
        if self._asked.reload:
            self._asked.reload = False
            self._systemd.reloading()
            self._reload()
            self._ready = False  # to be told again, after the next look

    def _clear_up(self) -> None:
        """What needs both folders: cancelled jobs, and sources whose last move is still to come."""
        if not self._watch.open:
            return
        if self._leftovers:  # of an earlier run: no worker of this one has begun
            self._leftovers = False
            shutil.rmtree(self._layout.publishing_root, ignore_errors=True)
        for job in self._ledger.cancelled_while_queued():
            self._end(job, JobState.CANCELLED, "cancelled", f"{job.source.name} was cancelled.")
        if self._sources_owed:
            for drop_id in self._ledger.unfinished_ends():
                end_if_complete(self._layout, self._ledger, drop_id)
            self._sources_owed = False

    def _tend_crew(self) -> None:
        self._crew.tend(open_=self._watch.open, paused=self._paused())
        self._sources_owed |= self._crew.has_buried()

    def _prune_if_due(self) -> None:
        self._pruner.tend(may_start=self._watch.open)

    def _take(self) -> None:
        if self._paused():
            return
        check_root(self._ledger, self._layout, Role.STATE)
        for drop in self._watch.look():
            logger.info("{}: taken as {}", display(drop.relative), drop.id)
            for job in self._ledger.jobs_of(drop.id):
                if job.state is JobState.FAILED:
                    self._tell(job)

    def _tell(self, job: Job) -> None:
        logger.warning("{} {}: {}: {}", job.id, job.source.name, job.state, job.error_message)
        emit(notify.unsuccessful(job), self._hooks)
        self._teller.prove_life()  # the command that is told may take its time, once for each of many jobs

    def _paused(self) -> bool:
        return self._watch.paused()

    def _state(self) -> str:
        return "paused" if self._paused() else "running"

    def _nothing_left(self) -> bool:
        """Nothing settles, nothing is queued, nothing is being done; or nothing can be done."""
        if self._pruner.running:
            return False
        if self._paused() or self._given_up():
            return not self._ledger.counts()[JobState.RUNNING]
        idle = self._ledger.at_rest(self._machine.room)
        return self._watch.quiet() and idle and self._machine.failure is None

    def _given_up(self) -> bool:
        """Whether trouble has lasted for longer than a run with `once` waits for it to pass."""
        if not self._teller.trouble():
            self._troubled_since = None
            return False
        now = time.monotonic()
        self._troubled_since = self._troubled_since or now
        return now - self._troubled_since > ONCE_PATIENCE_SECONDS

    def _end(self, job: Job, state: JobState, code: str, message: str, hint: str = "") -> None:
        self._ledger.finish(job.id, state, code=code, message=message, hint=hint)
        if self._watch.open:
            end_if_complete(self._layout, self._ledger, job.drop_id)
        else:
            self._sources_owed = True
        ended = self._ledger.job(job.id)
        if ended is not None:
            self._tell(ended)

    def _end_failed(self, job: Job, code: str, message: str, hint: str) -> None:
        self._end(job, JobState.FAILED, code, message, hint)

    # -- configuration ---------------------------------------------------------------------------

    def _reload(self) -> None:
        """Take over a changed configuration if it is valid; else keep the old one and say why.

        To be told to stop meanwhile ends the wait for the workers: stopping waits for them anyway.
        """
        try:
            fresh = load_config(self._config.file) if self._config.file else self._config
            IgnoreList(fresh.intake.ignore)
            if layout_of(fresh) != self._layout:
                raise ConfigError("The folders changed.", hint="Restart Voxspool for that.")
        except ConfigError as error:
            told = f"The configuration was not reloaded: {error.message} {error.hint}".strip()
            logger.error("{}", told)
            self._teller.reload_notes = (told,)
            self._remember(error.code, told)
            return
        self._teller.reload_notes = ()
        if not self._crew.stop(prove_life=self._teller.prove_life, unless=lambda: self._asked.stop):
            return
        self._watch.close()
        self._use(_for_once(fresh) if self._once else fresh)
        logger.info("configuration reloaded")

    # -- systemd ---------------------------------------------------------------------------------

    def _tell_ready(self) -> None:
        """After the first look, whatever it found: who waits for a share is not to be killed for it."""
        if self._ready or (self._watch.look_seconds() and not self._paused()):
            return
        self._ready = self._systemd.ready(self._teller.status_line(self._state()))


def _make_state(layout: Layout) -> None:
    folder = layout.state
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_writing(folder)
    except OSError as error:
        failure = refusal(error, layout)
        if failure.code in HEAL_BY_THEMSELVES:
            raise failure from error
        raise EnvironmentFailure(
            f"The state folder {folder} cannot be used: {error.strerror}.",
            hint="Make it, and give it to the user that runs Voxspool.",
        ) from error


def _for_once(config: Config) -> Config:
    """A run that ends cannot wait for parts that may come later."""
    return config.model_copy(
        update={"intake": config.intake.model_copy(update={"wait_for_parts_seconds": 0.0})}
    )
