"""Watching the inbox: when to look, what was found, what was taken, why the rest waits.

Ties the scan, the event source and the intake together; knows no worker. Whatever looks at inbox or outbox
without having to is done aside, since a server that does not answer holds up whoever asks it. Invariants: a
root that is lost, replaced, full or silent stops the intake with a sentence and is tried again by itself; a
scan needs no event to happen; nothing here waits for a silent root for longer than a moment.
"""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loguru import logger

from pipeline.config import Config
from pipeline.errors import EnvironmentFailure
from pipeline.intake.aside import Aside, Errand
from pipeline.intake.ignore import IgnoreList
from pipeline.intake.inbox import Dropped, Inbox, Scan
from pipeline.intake.intake import Intake
from pipeline.intake.opening import Opened, open_folders
from pipeline.intake.probe import probe
from pipeline.intake.refused import refusal
from pipeline.intake.roots import Role, Root, RootProblem, memory_key
from pipeline.intake.settle import Fingerprint, SettleRules, Settling, State
from pipeline.intake.wakeup import Counted, Wakeup
from pipeline.jobs.job import Drop
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.mounts import mount_of, read_mounts
from pipeline.status import WaitingFile

ROOT_RETRY_SECONDS = 5.0
ACCEPT_SECONDS = 0.5
"claiming goes on for so long, then the daemon looks after its workers"
PATIENCE_SECONDS = 1.0
"so long a look is waited for; if it takes longer, the daemon goes on and comes back to it"
GLANCE_SECONDS = 0.25
STALLED_SECONDS = 30.0
"a root that has not answered for so long is told of"
# What nobody can read may never become readable, so it is nothing to wait for.
_STILL_ARRIVING = frozenset({State.NEW, State.SETTLING, State.EMPTY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the watching has seen and measured, for whoever shows it. Counters are since the start."""

    roots: Mapping[str, bool] = field(default_factory=dict)
    "whether inbox and outbox are there, themselves, and answer"
    events: bool = False
    "events are relied on; else, and for `shares` always, drops are noticed by scans alone"
    shares: tuple[str, ...] = ()
    "what is mounted inside the inbox and may change unseen"
    files: Mapping[str, int] = field(default_factory=dict)
    "number of files in the inbox that were not taken, by state"
    oldest_seconds: Mapping[str, float] = field(default_factory=dict)
    "since when the oldest of them is known"
    scans: int = 0
    scan_seconds: float | None = None
    "what the last scan took"
    missed: int = 0
    "changes that a scan found and no event had told of"
    overflows: int = 0
    "times that the kernel lost events"
    rebuilds: int = 0
    "times that the watch was set up anew"


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
        self._hold = contextlib.ExitStack()
        self._ignore = IgnoreList(config.intake.ignore)
        self._aside, self._glances = Aside("look"), Aside("glance")
        self._look_out: Errand[Opened | Scan | None] | None = None
        self._glance_out: Errand[bool] | None = None
        self._sent_at = self._glanced_at = 0.0
        self._asked: Path = layout.inbox
        self._down = {layout.inbox, layout.outbox}
        self._looker: Ledger | None = None
        self._unclaimed: contextlib.ExitStack | None = None
        self._paused = False
        self._next_at = 0.0
        self._counted = Counted()
        self._scans = 0
        self._scan_seconds: float | None = None
        self.trouble = ""
        "why nothing can be taken at present; empty if it can"

    # -- for the daemon ------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether both folders are there, themselves, and answer."""
        return self._inbox is not None and self.answering

    @property
    def answering(self) -> bool:
        """Whether inbox and outbox answer: who touches them else may never come back."""
        return self._out_seconds() < PATIENCE_SECONDS

    @property
    def stalled(self) -> bool:
        """Whether one of them has been silent for so long that it is told of."""
        return self._out_seconds() >= STALLED_SECONDS

    def paused(self) -> bool:
        """Whether a pause file lies in inbox or state; as last known while the inbox does not answer."""
        patience = 0.0
        if self._glance_out is None:
            self._glance_out = self._glances.send(lambda: os.path.lexists(self._layout.pause_file))
            self._glanced_at, patience = self._clock(), GLANCE_SECONDS
        if self._glance_out.wait(patience):
            self._paused, self._glance_out = self._glance_out.result(), None
        return self._paused or self._layout.own_pause_file.exists()

    def look(self) -> tuple[Drop, ...]:
        """Scan and take, if it is time to; returns what was taken."""
        try:
            if self._wakeup is not None:
                self._tend(self._wakeup)
            return self._look()
        except (EnvironmentFailure, OSError) as error:
            self._close_roots()
            if isinstance(error, RootProblem):
                self._down = {self._asked}
            self._tell(error if isinstance(error, EnvironmentFailure) else refusal(error, self._layout))
            self._next_at = self._clock() + ROOT_RETRY_SECONDS
            return ()

    def _tell(self, error: EnvironmentFailure) -> None:
        """Say what keeps us from looking; the same trouble is one fault, however long it lasts."""
        told = f"{error.message} {error.hint}".strip()
        if told != self.trouble:
            with contextlib.suppress(EnvironmentFailure):  # it may be the ledger's
                self._ledger.faults.add(code=error.code, file="", message=error.message)
        self.trouble = told

    def look_seconds(self) -> float:
        """For how long a look has been out that has not ended. A share may be silent, once that is told."""
        if not self.stalled:
            return self._out_seconds()
        mount = mount_of(str(self._asked), read_mounts())
        # autofs: what belongs there is still to be mounted
        return 0.0 if mount.unseen or mount.filesystem == "autofs" else self._out_seconds()

    def wait(self, at_most_seconds: float) -> None:
        """Wait until something happens in the inbox, a scan is due, or the time is over."""
        if self._look_out is not None:
            self._look_out.wait(at_most_seconds)
            return
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
        self._aside.send(self._leave)
        self._aside.close()
        self._glances.close()

    def waiting(self) -> list[WaitingFile]:
        """Every file that lies in the inbox and was not taken, with the reason."""
        entries = [
            WaitingFile(path=entry.relative, state=entry.state, reason=entry.reason)
            for entry in (self._scan.waiting if self._scan else ())
        ]
        taking = self._intake.large.names()
        refused = (
            WaitingFile(path=relative, state="waiting", reason=reason)
            for relative, reason in self._refused.items()
            if relative not in taking
        )
        inbox, answers = self._layout.inbox, self.answering
        lying = (
            entry for entry in (*entries, *refused) if not answers or os.path.lexists(inbox / entry.path)
        )
        return [
            *lying,
            *(WaitingFile(path=path, state="taking", reason=reason) for path, reason in taking.items()),
        ]

    def quiet(self) -> bool:
        """Whether the whole inbox was seen and nothing in it is about to be taken."""
        if self._scan is None or not self._scan.complete or self._rest or self._look_out is not None:
            return False
        if self._intake.large.names():
            return False
        return not any(entry.state in _STILL_ARRIVING for entry in self._scan.waiting)

    def notes(self) -> tuple[str, ...]:
        """What one should know, in sentences."""
        told = [self._wakeup.status if self._wakeup else "", self._scan.note if self._scan else ""]
        return tuple(sentence for sentence in told if sentence)

    def measures(self) -> Seen:
        """What was seen and measured; looks at nothing, so it may be asked at any time."""
        now, waiting = self._clock(), self._scan.waiting if self._scan else ()
        files = Counter(entry.state.value for entry in waiting)
        since: dict[str, float] = {}
        for entry in waiting:
            since[entry.state] = min(since.get(entry.state, now), entry.since)
        if self._inbox is not None and self._refused:
            since["waiting"] = min(self._inbox.first_seen(relative, now) for relative in self._refused)
        silent = {self._asked} if self.stalled else set()
        return Seen(
            roots={name: path not in self._down | silent for name, path in self._places()},
            events=self._wakeup is not None and self._wakeup.relied_on,
            shares=tuple(mount.point for mount in self._wakeup.foreign) if self._wakeup else (),
            files={**files, **({"waiting": len(self._refused)} if self._refused else {})},
            oldest_seconds={state: now - moment for state, moment in since.items()},
            scans=self._scans,
            scan_seconds=self._scan_seconds,
            missed=self._counted.missed,
            overflows=self._counted.overflows,
            rebuilds=self._counted.rebuilds,
        )

    def _places(self) -> tuple[tuple[str, Path], ...]:
        return (("inbox", self._layout.inbox), ("outbox", self._layout.outbox))

    # -- looking -------------------------------------------------------------------------------

    def _tend(self, wakeup: Wakeup) -> None:
        """Look after the events; where they turn out to be bad, scans come soon again."""
        relied_on = wakeup.relied_on
        wakeup.tend()
        if wakeup.moved and self._look_out is None:
            self._close_roots()
            self._next_at = 0.0
        elif wakeup.relied_on != relied_on:
            self._next_at = 0.0

    def _look(self) -> tuple[Drop, ...]:
        """Send for a look if one is due, and use what came back."""
        if self.stalled:
            self._tell_of_silence()
        if self._intake.large.ready:
            self._next_at = 0.0
        if self._look_out is None:
            if self._clock() < self._next_at:
                return ()
            self._look_out, self._sent_at = self._aside.send(self._call()), self._clock()
            back = self._look_out.wait(PATIENCE_SECONDS)
        else:
            back = self._look_out.wait(0.0)
        if not back:
            return ()
        errand, self._look_out = self._look_out, None
        found = errand.result()
        if isinstance(found, Opened):
            self._begin(found)
            return self._look()
        return self._take(found)

    def _call(self) -> Callable[[], Opened | Scan | None]:
        """What is to be done aside next: open the folders, or look at them."""
        inbox, outbox = self._inbox, self._outbox_root
        if inbox is None or outbox is None:
            remembered = {role: self._ledger.meta(key) for role, key in self._memory_keys().items()}
            return lambda: self._open(remembered)
        assert self._wakeup is not None
        scans = not self._rest
        if scans and not inbox.amid_round:
            self._wakeup.begin_round()
        now = self._clock()
        return lambda: self._look_at(inbox, outbox, now if scans else None)

    def _take(self, scan: Scan | None) -> tuple[Drop, ...]:
        """Take what the scan found, or what is left of it."""
        assert self._wakeup is not None and self._inbox is not None
        if scan is not None:
            self._wakeup.compare(scan.changed)
            self._scan, self._rest, self._refused = scan, scan.settled, {}
            self._scans, self._scan_seconds = self._scans + 1, scan.seconds
        unsettled = self._scan.unsettled if self._scan else frozenset()
        taken = self._intake.accept(self._rest, unsettled, budget_seconds=ACCEPT_SECONDS)
        self._rest = taken.rest
        self._refused.update(taken.waiting)
        self.trouble = ""
        events = self._wakeup.relied_on
        wait = 0.0 if self._rest else self._inbox.next_scan_in(self._clock(), events=events)
        self._next_at = self._clock() + wait
        return taken.drops

    def _begin(self, opened: Opened) -> None:
        """Both folders are what they were: finish what was left half done, and begin to look."""
        self._hold, self._outbox_root, self._unclaimed = opened.hold, opened.outbox, None
        self._down = set()
        for root in (opened.inbox, opened.outbox):
            if root.marker is not None:
                self._ledger.set_meta(self._memory_keys()[root.role], root.marker.uuid)
        for sentence in self._intake.recover():
            logger.warning("{}", sentence)
        wanted = self._config.intake
        rules = SettleRules(
            settle_seconds=wanted.settle_seconds, settle_network_seconds=wanted.settle_network_seconds
        )
        self._inbox = Inbox(
            opened.inbox,
            self._ignore,
            Settling(rules, probe, uid=os.geteuid(), gid=os.getegid()),
            source_leave=self._leaves,
            already_done=self._already_taken,
        )
        self._wakeup = Wakeup(opened.inbox, wanted=wanted.events, counted=self._counted)
        self._wakeup.start()
        self._next_at = 0.0

    def _memory_keys(self) -> dict[Role, str]:
        """Under which names the ledger remembers the marks of the folders."""
        return {
            Role.INBOX: memory_key(Role.INBOX, self._layout.inbox),
            Role.OUTBOX: memory_key(Role.OUTBOX, self._layout.outbox),
        }

    # -- roots that do not answer ----------------------------------------------------------------

    def _out_seconds(self) -> float:
        """For how long the longest question to a root has been without an answer."""
        out = [
            self._clock() - since
            for errand, since in ((self._look_out, self._sent_at), (self._glance_out, self._glanced_at))
            if errand is not None and not errand.wait(0.0)
        ]
        return max(out, default=0.0)

    def _tell_of_silence(self) -> None:
        self.trouble = (
            f"{self._asked} has not answered for {self._out_seconds():.0f} s: is its server or disk there?"
            " Voxspool goes on by itself when it answers."
        )

    # -- what is done aside ------------------------------------------------------------------------

    def _open(self, remembered: Mapping[Role, str | None]) -> Opened:
        opened = open_folders(
            self._layout, remembered=remembered, untouched=self._leaves, asking=self._now_asking
        )
        self._unclaimed = opened.hold
        return opened

    def _now_asking(self, path: Path) -> None:
        self._asked = path

    def _look_at(self, inbox: Inbox, outbox: Root, now: float | None) -> Scan | None:
        """Check both folders; scan the inbox unless `now` is None."""
        self._asked = self._layout.outbox
        outbox.check()
        self._asked = self._layout.inbox
        if now is not None:
            return inbox.scan(now)
        inbox.check()
        return None

    def _already_taken(self, relative: str, mark: Fingerprint) -> bool:
        if not self._leaves:
            return False
        if self._looker is None:  # a connection is one thread's own
            self._looker = Ledger(self._layout.ledger_file, clock=time.time)
        stamp = (mark.inode, mark.size_bytes, mark.mtime_ns, mark.ctime_ns)
        return self._looker.already_taken(relative, stamp) or self._intake.is_part(relative)

    def _leave(self) -> None:
        """The last errand: give back what nobody came for."""
        if self._unclaimed is not None:
            self._unclaimed.close()
        if self._looker is not None:
            self._looker.close()

    @property
    def _leaves(self) -> bool:
        return self._config.intake.source == "leave"

    def _close_roots(self) -> None:
        self._hold.close()
        if self._wakeup is not None:
            self._wakeup.stop()
        self._wakeup = self._inbox = self._outbox_root = self._scan = None
        self._refused, self._rest = {}, ()
