"""What the daemon tells of itself: status.json and its copy, the measures, systemd's line and its pings.

Asks those who do the work and decides nothing. Invariants: telling never keeps the work from going on; an
outbox that is away is not written beneath, and one that does not answer is not waited for; nothing pings
but what goes round.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loguru import logger

from pipeline import __version__
from pipeline.config import Config
from pipeline.crew import Crew
from pipeline.errors import EnvironmentFailure, LedgerDamaged
from pipeline.intake.aside import Aside, Errand
from pipeline.intake.readiness import Machine
from pipeline.intake.roots import Role, carries_mark, check_root, memory_key, open_root
from pipeline.intake.watch import PATIENCE_SECONDS, Watch
from pipeline.jobs.job import JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.pruner import Pruner
from pipeline.sd_notify import Systemd
from pipeline.service import status_line, stuck
from pipeline.space import shortage
from pipeline.status import Snapshot, StatusFile, listed, snapshot_jobs

if TYPE_CHECKING:
    from pipeline.metrics import Textfile

MAX_TOLD = 5
"jobs that wait for room, of which the notes tell; the list of jobs tells of all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Who is asked; others are as soon as another configuration is worked by."""

    ledger: Ledger
    machine: Machine
    watch: Watch
    crew: Crew
    pruner: Pruner
    metrics: "Textfile | None"
    "None: nobody wants measures"


def metrics_of(config: Config, ledger: Ledger, layout: Layout, started_at: float) -> "Textfile | None":
    """Whoever wants no measures does not pay for their library."""
    if config.metrics_path is None:
        return None
    from pipeline.metrics import Textfile

    return Textfile(config.metrics_path, ledger, layout, started_at)


class Teller:
    """Tells everybody who asks, and those who do not. Only `starting` may be called before `ask`."""

    def __init__(self, layout: Layout, systemd: Systemd, desk: Aside) -> None:
        """`desk`: where it is written to an outbox that may not answer."""
        self._layout, self._systemd, self._desk = layout, systemd, desk
        self._status, self._status_copy = (
            StatusFile(path, clock=time.monotonic, wall=time.time)
            for path in (layout.status_file, layout.status_copy)
        )
        self._publishing: Errand[bool] | None = None
        self._status_trouble = ""
        self._stuck_told = ""
        self.tick_trouble = ""
        "what the disk refused in the last tick"
        self.reload_notes: tuple[str, ...] = ()
        "why the configuration was not taken over"

    def ask(self, sources: Sources) -> None:
        """Ask these from now on."""
        self._sources = sources

    # -- status ----------------------------------------------------------------------------------

    def starting(self, failure: EnvironmentFailure) -> None:
        """Why the daemon cannot start yet, where that can be written."""
        snapshot = Snapshot(
            voxspool=__version__, pid=os.getpid(), state="starting", trouble=(failure.in_full,)
        )
        with contextlib.suppress(OSError):
            self._status_copy.write(snapshot)
        if carries_mark(self._layout.outbox, Role.OUTBOX):
            with contextlib.suppress(OSError):
                self._status.write(snapshot)

    def tell(self, state: str, *, force: bool = False) -> None:
        """To everybody in the outbox, and to the command line where the outbox is away."""
        self._write_metrics(state, force=force)
        if not (force or self._status_copy.due()):
            return
        try:
            self._tell_systemd(state)
            snapshot = self.snapshot(state)
        except LedgerDamaged:
            raise
        except (EnvironmentFailure, OSError) as error:
            logger.error("the status cannot be told: {}", error)
            return
        self._status_trouble = ""
        for write in (self._keep, self._publish):
            try:
                write(snapshot)
            except (EnvironmentFailure, OSError) as error:
                logger.error("the status cannot be written: {}", error)
                self._status_trouble = f"The status cannot be written: {error}"

    def _keep(self, snapshot: Snapshot) -> None:
        check_root(self._sources.ledger, self._layout, Role.STATE)
        self._status_copy.write(snapshot)

    def _publish(self, snapshot: Snapshot) -> None:
        """Never beneath a mount that is away; one that does not answer is not waited for."""
        if self._publishing is not None and not self._publishing.wait(0.0):
            return
        mark = self._sources.ledger.meta(memory_key(Role.OUTBOX, self._layout.outbox))
        self._publishing = self._desk.send(lambda: self._write_status(mark, snapshot))
        if self._publishing.wait(PATIENCE_SECONDS):
            self._publishing.result()

    def _write_status(self, mark: str | None, snapshot: Snapshot) -> bool:
        if mark is not None:
            open_root(self._layout.outbox, Role.OUTBOX, expected_uuid=mark, leave_marker=False)
        return self._status.write(snapshot)

    # -- measures --------------------------------------------------------------------------------

    def _write_metrics(self, state: str, *, force: bool = False) -> None:
        metrics, watch = self._sources.metrics, self._sources.watch
        if metrics is None or not (force or metrics.due()) or not watch.answering:
            return
        try:
            metrics.write(state, len(self.trouble()), watch.measures())
        except (EnvironmentFailure, OSError) as error:
            logger.error("nothing can be measured: {}", error)

    def _metrics_notes(self) -> tuple[str, ...]:
        metrics = self._sources.metrics
        return (metrics.note,) if metrics and metrics.note else ()

    # -- systemd ---------------------------------------------------------------------------------

    def status_line(self, state: str) -> str:
        """The line that `systemctl status` shows."""
        ledger = self._sources.ledger
        return status_line(state, ledger.counts(), ledger.progress(), (*self.trouble(), *self.reload_notes))

    def _tell_systemd(self, state: str) -> None:
        if self._systemd.listens:
            self._systemd.status(self.status_line(state))

    def prove_life(self) -> None:
        """Tell systemd that all is well, if it is. To be called by what goes round, never by a timer."""
        if not self._systemd.wants_ping:
            return
        why = self._stuck()
        if why and why != self._stuck_told:
            logger.error("systemd is no longer told that all is well: {}", why)
        self._stuck_told = why
        if not why:
            self._systemd.alive()

    def _stuck(self) -> str:
        asked = self._sources
        try:
            running = asked.ledger.progress()
        except EnvironmentFailure:  # it is trouble, and told as such; a new start would not mend the disk
            running = []
        return stuck(time.monotonic(), asked.watch.look_seconds(), running, asked.crew.silence_allowed)

    # -- what there is to tell -------------------------------------------------------------------

    def trouble(self) -> tuple[str, ...]:
        """What keeps the work from going on."""
        asked = self._sources
        known = (
            "" if asked.machine.failure is None else asked.machine.failure.in_full,
            asked.watch.trouble,
            asked.crew.trouble,
            self.tick_trouble,
            asked.ledger.meta("trouble") or "",
        )
        told = tuple(dict.fromkeys(sentence for sentence in known if sentence))
        return told or ((self._status_trouble,) if self._status_trouble else ())

    def without_room(self) -> tuple[str, ...]:
        """Why jobs wait that would be done on a larger disk, for the first few of them."""
        ledger, room = self._sources.ledger, self._sources.machine.room
        if room is None or not ledger.work_waits():
            return ()
        reasons = (
            (job, shortage(job.spec.need, room)) for job in ledger.jobs_in(JobState.QUEUED, limit=MAX_TOLD)
        )
        return tuple(f"{job.source.name} waits for room: {reason}." for job, reason in reasons if reason)

    def snapshot(self, state: str) -> Snapshot:
        """Everything that stands in status.json."""
        asked = self._sources
        waiting = asked.watch.waiting()
        shown = listed(waiting)
        jobs = snapshot_jobs(
            asked.ledger, self._layout, reachable=asked.watch.answering, room=asked.machine.room
        )
        return Snapshot(
            voxspool=__version__,
            pid=os.getpid(),
            state=state,
            trouble=self.trouble(),
            notes=self._notes(),
            waiting=shown,
            **{**jobs, "not_listed": {**jobs["not_listed"], "waiting": len(waiting) - len(shown)}},
        )

    def _notes(self) -> tuple[str, ...]:
        return (
            *self.without_room(),
            *self._sources.watch.notes(),
            *self._sources.pruner.notes,
            *self.reload_notes,
            *self._metrics_notes(),
        )
