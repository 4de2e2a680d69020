"""Watching the inbox: when to look, what was found, what was taken, why the rest waits.

Ties the scan, the event source and the intake together; knows no worker. Invariants: a root that is
lost, replaced or full stops the intake with a sentence and is tried again by itself; a scan needs no
event to happen.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from pipeline.config import Config
from pipeline.errors import EnvironmentFailure
from pipeline.files import exclusive_lock
from pipeline.intake.ignore import IgnoreList
from pipeline.intake.inbox import Dropped, Inbox, Scan
from pipeline.intake.intake import Intake
from pipeline.intake.probe import probe
from pipeline.intake.roots import Role, Root, RootProblem, memory_key, open_root
from pipeline.intake.settle import Fingerprint, SettleRules, Settling, State
from pipeline.intake.wakeup import Counted, Wakeup
from pipeline.jobs.job import Drop
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.status import WaitingFile

ROOT_RETRY_SECONDS = 5.0
# Answers of network filesystems that cannot lock.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
ACCEPT_SECONDS = 0.5
"claiming goes on for so long, then the daemon looks after its workers"
# What nobody can read may never become readable, so it is nothing to wait for.
_STILL_ARRIVING = frozenset({State.NEW, State.SETTLING, State.EMPTY})


class Watch:
    """The eyes of the daemon."""

    def __init__(
        self, config: Config, layout: Layout, ledger: Ledger, intake: Intake, *, clock: Callable[[], float]
    ) -> None:
        self._config, self._layout, self._ledger = config, layout, ledger
        self._intake = intake
        self._clock = clock
        self._wakeup: Wakeup | None = None
        self._inbox: Inbox | None = None
        self._outbox_root: Root | None = None
        self._scan: Scan | None = None
        self._refused: dict[str, str] = {}
        self._rest: tuple[Dropped, ...] = ()
        self._held = contextlib.ExitStack()
        self._ignore = IgnoreList(config.intake.ignore)
        self._next_at = 0.0
        self._looking_since: float | None = None
        self._counted = Counted()
        self.trouble = ""
        "why nothing can be taken at present; empty if it can"

    @property
    def open(self) -> bool:
        """Whether both folders are there and themselves."""
        return self._inbox is not None

    def look(self) -> tuple[Drop, ...]:
        """Scan and take, if it is time to; returns what was taken."""
        if self._wakeup is not None:
            self._tend(self._wakeup)
        now = self._clock()
        if now < self._next_at:
            return ()
        if self._looking_since is None:
            self._looking_since = now
        try:
            inbox = self._inbox or self._open()
            drops = self._look(inbox, now)
        except (EnvironmentFailure, OSError) as error:
            self._close_roots()
            told = (
                error if isinstance(error, EnvironmentFailure) else EnvironmentFailure(f"The inbox: {error}.")
            )
            self.trouble = f"{told.message} {told.hint}".strip()
            self._next_at = now + ROOT_RETRY_SECONDS
            drops = ()
        self._looking_since = None
        return drops

    def _tend(self, wakeup: Wakeup) -> None:
        """Look after the events; where they turn out to be bad, scans come soon again."""
        relied_on = wakeup.relied_on
        wakeup.tend()
        if wakeup.moved:
            self._close_roots()
        if wakeup.moved or wakeup.relied_on != relied_on:
            self._next_at = 0.0

    def _look(self, inbox: Inbox, now: float) -> tuple[Drop, ...]:
        assert self._wakeup is not None and self._outbox_root is not None
        self._outbox_root.check()
        if not self._rest:
            self._scan_now(inbox, now)
        assert self._scan is not None
        taken = self._intake.accept(self._rest, self._scan.unsettled, budget_seconds=ACCEPT_SECONDS)
        self._rest = taken.rest
        self._refused.update(taken.waiting)
        self.trouble = ""
        wait = 0.0 if self._rest else inbox.next_scan_in(self._clock(), events=self._wakeup.relied_on)
        self._next_at = self._clock() + wait
        return taken.drops

    def _scan_now(self, inbox: Inbox, now: float) -> None:
        assert self._wakeup is not None
        if not inbox.amid_round:
            self._wakeup.begin_round()
        self._scan = inbox.scan(now)
        self._wakeup.compare(self._scan.changed)
        self._rest, self._refused = self._scan.settled, {}

    def look_seconds(self) -> float:
        """For how long a look that was due has not come to an end, be it in trouble; 0 if none is out."""
        return 0.0 if self._looking_since is None else self._clock() - self._looking_since

    def wait(self, at_most_seconds: float) -> None:
        """Wait until something happens in the inbox, a scan is due, or the time is over."""
        seconds = max(0.0, min(at_most_seconds, self._next_at - self._clock()))
        if self._wakeup is None or self._inbox is None:
            time.sleep(min(at_most_seconds, max(seconds, 0.05)))
            return
        rest = min(at_most_seconds, self._inbox.rest_seconds(self._clock()))
        if self._wakeup.wait(seconds, at_least_seconds=rest):
            self._next_at = 0.0

    def close(self) -> None:
        """Stop watching."""
        self._close_roots()

    def waiting(self) -> list[WaitingFile]:
        """Every file that lies in the inbox and was not taken, with the reason."""
        entries = [
            WaitingFile(path=entry.relative, state=entry.state, reason=entry.reason)
            for entry in (self._scan.waiting if self._scan else ())
        ]
        refused = (
            WaitingFile(path=relative, state="waiting", reason=reason)
            for relative, reason in self._refused.items()
        )
        return [entry for entry in (*entries, *refused) if os.path.lexists(self._layout.inbox / entry.path)]

    def quiet(self) -> bool:
        """Whether the whole inbox was seen and nothing in it is about to be taken."""
        if self._scan is None or not self._scan.complete or self._rest:
            return False
        return not any(entry.state in _STILL_ARRIVING for entry in self._scan.waiting)

    def notes(self) -> tuple[str, ...]:
        """What one should know, in sentences."""
        told = [self._wakeup.status if self._wakeup else "", self._scan.note if self._scan else ""]
        return tuple(sentence for sentence in told if sentence)

    def _open(self) -> Inbox:
        """Make sure that both roots are what they were, and begin to look."""
        root = self._remembered(Role.INBOX, self._layout.inbox)
        self._outbox_root = self._remembered(Role.OUTBOX, self._layout.outbox)
        self._hold()
        for sentence in self._intake.recover():
            logger.warning("{}", sentence)
        wanted = self._config.intake
        rules = SettleRules(
            settle_seconds=wanted.settle_seconds, settle_network_seconds=wanted.settle_network_seconds
        )
        self._inbox = Inbox(
            root,
            self._ignore,
            Settling(rules, probe, uid=os.geteuid(), gid=os.getegid()),
            source_leave=self._leaves,
            already_done=self._already_taken,
        )
        self._wakeup = Wakeup(root, wanted=wanted.events, counted=self._counted)
        self._wakeup.start()
        return self._inbox

    def _remembered(self, role: Role, path: Path) -> Root:
        """A root with the mark that it had before: an empty mount point looks just as valid."""
        key = memory_key(role, path)
        untouched = role is Role.INBOX and self._leaves
        root = open_root(path, role, expected_uuid=self._ledger.meta(key), leave_marker=not untouched)
        if root.marker is not None:
            self._ledger.set_meta(key, root.marker.uuid)
        return root

    def _hold(self) -> None:
        """Be the only daemon that claims from this inbox: two would take each other's claims for orphans."""
        if self._leaves:
            return
        path = self._layout.claimed_root.parent / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        hold = contextlib.ExitStack()
        try:
            alone = hold.enter_context(exclusive_lock(path))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("{} knows no locks: see that only one Voxspool uses it", self._layout.inbox)
            return
        if not alone:
            hold.close()
            raise RootProblem(
                f"Another Voxspool, with another state folder, takes files from {self._layout.inbox}.",
                hint="Stop one of them, or give each an inbox of its own.",
            )
        self._held = hold

    @property
    def _leaves(self) -> bool:
        return self._config.intake.source == "leave"

    def _already_taken(self, relative: str, mark: Fingerprint) -> bool:
        if not self._leaves:
            return False
        stamp = (mark.inode, mark.size_bytes, mark.mtime_ns, mark.ctime_ns)
        return self._ledger.already_taken(relative, stamp) or self._intake.is_part(relative)

    def _close_roots(self) -> None:
        self._held.close()
        if self._wakeup is not None:
            self._wakeup.stop()
        self._wakeup = self._inbox = self._outbox_root = self._scan = None
        self._refused, self._rest = {}, ()
