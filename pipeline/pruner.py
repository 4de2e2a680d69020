"""When pruning runs: at the first look at the folders and then every few hours, in a process of its own.

Knows the schedule and the process, not what is pruned: that is `daemon.py prune`, as a person may run it. So
looking through a hundred thousand results, or a disk that does not answer, holds nothing up. Invariants:
never two at once, whoever started them; a clock that is set back puts it off by no more than one interval;
it never starts while a folder is away, and ends with the daemon.
"""

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import schedule
from loguru import logger

from pipeline.config import Config
from pipeline.files import exclusive_lock
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.prune import DONE_FACT, last_notes

DAEMON = Path(__file__).resolve().parent.parent / "daemon.py"
STOP_SECONDS = 2.0
MAX_CHARS = 500


class Pruner:
    """Keeps pruning going. `command` is what is run."""

    def __init__(
        self, config: Config, layout: Layout, ledger: Ledger, *, command: list[str] | None = None
    ) -> None:
        self._layout, self._ledger = layout, ledger
        self._command = command or [sys.executable, str(DAEMON), "--config", str(config.file), "prune"]
        self._schedule = schedule.Scheduler()
        self._wanted = True
        self._child: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._failure = ""
        self.configure(config)

    @property
    def running(self) -> bool:
        """Whether it is being done."""
        return self._child is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What one should know of the last pruning, in sentences."""
        return (*last_notes(self._ledger), *((self._failure,) if self._failure else ()))

    def configure(self, config: Config) -> None:
        """A reload that changes nothing about it leaves the date of the next pruning alone."""
        minutes = max(1, round(config.retention.every_hours * 60))
        if [job.interval for job in self._schedule.jobs] != [minutes]:
            self._plan(minutes)

    def tend(self, *, may_start: bool) -> None:
        """See whether it has ended, and start it if it is due and both folders are there."""
        self._collect()
        self._schedule.run_pending()
        (job,) = self._schedule.jobs
        if (self._schedule.idle_seconds or 0.0) > job.interval * 60:
            self._plan(
                job.interval
            )  # the clock was set back: it would be due only when that time comes again
        if self._wanted and may_start and self._child is None and self._alone():
            self._start()

    def stop(self) -> None:
        """End it: it may be cut short anywhere, the next one goes on from there."""
        if self._child is None or self._said is None:
            return
        for ask in (self._child.terminate, self._child.kill):
            ask()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a silent disk keeps even the killed
                self._child.wait(STOP_SECONDS)
                break
        self._said.close()
        self._child = None

    def _plan(self, minutes: int) -> None:
        self._schedule.clear()
        self._schedule.every(minutes).minutes.do(self._want)

    def _want(self) -> None:
        self._wanted = True

    def _alone(self) -> bool:
        with exclusive_lock(self._layout.prune_lock) as free:
            return free

    def _start(self) -> None:
        self._wanted = False
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child has ended
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said
        )

    def _collect(self) -> None:
        if self._child is None or self._child.poll() is None:
            return
        code, self._child = self._child.returncode, None
        assert self._said is not None
        with self._said as said:
            said.seek(0)
            words = " ".join(said.read().decode("utf-8", "replace").split())[-MAX_CHARS:]
        self._failure = f"Pruning failed (exit status {code}): {words}" if code else ""
        if self._failure:
            logger.error("{}", self._failure)
        else:
            logger.info("pruned: {}", self._ledger.meta(DONE_FACT))
