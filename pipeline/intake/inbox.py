"""The scan of the inbox: which files have settled, and why each of the others waits.

Walks the folders that `ignore` does not leave out, one lstat for each file that is a drop by its name.
Knows no job, no ledger and no clock; claims nothing and changes nothing on disk. Invariant: after a
complete scan every entry that is not ignored in silence is either settled, done, or waiting with a reason.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.files import display
from pipeline.intake.ignore import DropKind, IgnoreList
from pipeline.intake.listing import Entry, Listing, Listings, Waiting
from pipeline.intake.roots import Root
from pipeline.intake.settle import Fingerprint, Look, Settling, State, fingerprint_of
from pipeline.mounts import mount_of, read_mounts

MAX_DEPTH = 8
MAX_ENTRIES_PER_PASS = 10_000
RESCAN_WITH_EVENTS_SECONDS = 60.0
# Without events a drop on a local disk is seen within 2 s, on a share within 10 s; the first pauses are
# shorter, since drops come in groups.
LOCAL_SECONDS = (1.0, 2.0)
NETWORK_SECONDS = (5.0, 10.0)
# How often what is settling is looked at, so that pauses of the writer are noticed.
LOCAL_POLL_SECONDS = 1.0
NETWORK_POLL_SECONDS = 5.0
# Idle scans never take over one part in this many of one processor: with ten thousand finished files left
# in the inbox and no events, a drop may then be seen only after some 8 s.
IDLE_COST_RATIO = 200.0
# Between two scans in a row rests three times what the first took, at most this.
LONGEST_REST_SECONDS = 0.25
DUE_MARGIN_SECONDS = 0.005
# Files that were handed on and not taken over are offered again after this.
OFFER_AGAIN_SECONDS = 5.0
# A job file that cannot be read holds back what lies beside it for no longer than this.
UNREADABLE_HOLD_SECONDS = 120.0

_ARRIVING = frozenset({State.NEW, State.SETTLING, State.EMPTY, State.UNREADABLE})

AlreadyDone = Callable[[str, Fingerprint], bool]


def never_done(_relative: str, _fingerprint: Fingerprint) -> bool:
    """The predicate of an inbox whose finished files are moved away."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A file that has settled. `relative` may hold surrogate escapes; `settled_at` is monotonic."""

    relative: str
    path: Path
    kind: DropKind
    fingerprint: Fingerprint
    device: int
    settled_at: float


@dataclass(slots=True, kw_only=True)
class Counts:
    """What a pass met."""

    folders: int = 0
    files: int = 0
    "drops by their name, settled or not"
    done: int = 0
    ignored: int = 0
    changed: int = 0
    "files new or changed since they were last looked at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What one pass found. Job files come first in `settled`, since they may claim other files in it.

    `complete` is False where the pass stopped at its limit; the next one goes on from there and
    `waiting` still tells what was last known of the folders not reached.
    """

    settled: tuple[Dropped, ...]
    waiting: tuple[Waiting, ...]
    counts: Counts
    complete: bool
    seconds: float
    changed: tuple[str, ...] = ()
    "what is new or changed since it was last looked at and should have been told of, by relative path"

    @property
    def unsettled(self) -> frozenset[str]:
        """The drops among `waiting` that are still arriving, by relative path."""
        return frozenset(waiting.relative for waiting in self.waiting if waiting.state in _ARRIVING)

    @property
    def note(self) -> str:
        """What a person should know of this pass; empty if there is nothing."""
        if self.complete:
            return ""
        return f"The inbox is large: it is looked through in steps of {MAX_ENTRIES_PER_PASS} entries."


@dataclass(slots=True, kw_only=True)
class _Visit:
    """A folder on the way: what holds back its files, and how far it has been looked through."""

    relative: str
    path: str
    depth: int
    defaults_arriving: str = ""
    job_arriving: str = ""
    foreign: str = ""
    "the filesystem it lies on, where that is not the inbox's own"
    network: bool = False
    listing: Listing | None = None
    position: int = 0
    report: list[Waiting] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Pass:
    """What one pass gathers."""

    now: float
    budget: int
    settled: list[Dropped] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


class Inbox:
    """The inbox of a root. One thread at a time may use it.

    `source_leave`: files stay where they are (`source: leave`), so nothing has to be renamed and files
    on other filesystems below the root may be taken. `already_done` then says which ones have been taken,
    finished or not, exactly as they are; a yes is remembered until the file changes.
    """

    def __init__(
        self,
        root: Root,
        ignore: IgnoreList,
        settling: Settling,
        *,
        source_leave: bool = False,
        already_done: AlreadyDone = never_done,
        max_entries: int = MAX_ENTRIES_PER_PASS,
        lstat: Callable[[str], os.stat_result] = os.lstat,
    ) -> None:
        self._root, self._settling, self._lstat = root, settling, lstat
        self._source_leave, self._already_done = source_leave, already_done
        self._max_entries = max_entries
        self._listings = Listings(ignore, honest_times=root.honest_times)
        self._stack: list[_Visit] = []
        self._reports: dict[str, list[Waiting]] = {}
        self._visited: set[str] = set()
        self._done: dict[str, Fingerprint] = {}
        self._done_before: dict[str, Fingerprint] = {}
        self._foreign: dict[int, tuple[str, bool]] = {}
        self._unseen_below = self._meets_unseen = False
        self._due = float("inf")
        self._seconds = self._ended = 0.0
        self._idle_passes = 0
        self._offered = False

    def check(self) -> None:
        """Raise RootProblem where the inbox is not there or not itself."""
        self._root.check()

    def scan(self, now: float) -> Scan:
        """Look through the inbox, or go on where the last pass stopped. `now` is monotonic seconds.

        Raises RootProblem where the inbox is not there or not itself; nothing is forgotten then.
        """
        started = time.perf_counter()
        self._root.check()
        if not self.amid_round:
            self._begin_round()
        tally = _Pass(now=now, budget=self._max_entries)
        while self._stack and tally.budget > 0:
            self._advance(self._stack.pop(), tally)
        if not self._stack:
            self._end_round()
        idle = not self._stack and not tally.counts.changed and self._due > now + LOCAL_SECONDS[1]
        self._idle_passes = self._idle_passes + 1 if idle else 0
        self._offered = bool(tally.settled)
        self._seconds = time.perf_counter() - started
        self._ended = now + self._seconds
        return self._result(tally)

    @property
    def amid_round(self) -> bool:
        """Whether the next scan goes on where the last one stopped."""
        return bool(self._stack)

    @property
    def entries(self) -> int:
        """Drops by their name that are known of, settled or not; what is done is not counted."""
        return len(self._settling)

    def first_seen(self, relative: str, now: float) -> float:
        """Since when a file is known, monotonic; `now` if it is not."""
        return self._settling.first_seen(relative, now)

    def next_scan_in(self, now: float, *, events: bool) -> float:
        """Seconds until the next scan, at the latest. `events`: changes are being told of.

        While files settle that is the moment at which the next of them may have; a paused writer is
        looked at each second besides.
        """
        if self._stack:
            return self.rest_seconds(now)
        wait = self._idle_seconds(events=events)
        if self._offered:
            wait = min(wait, max(OFFER_AGAIN_SECONDS, IDLE_COST_RATIO * self._seconds))
        if self._due < float("inf"):
            poll = NETWORK_POLL_SECONDS if self._root.network else LOCAL_POLL_SECONDS
            poll = max(poll, IDLE_COST_RATIO * self._seconds)
            wait = min(wait, poll, max(0.0, self._due - now) + DUE_MARGIN_SECONDS)
        return max(wait, self.rest_seconds(now))

    def rest_seconds(self, now: float) -> float:
        """Seconds to rest before even an event may start a scan, so that a storm costs little."""
        rest = min(3 * self._seconds, LONGEST_REST_SECONDS)
        return max(0.0, self._ended + rest - now)

    def _idle_seconds(self, *, events: bool) -> float:
        """How long an inbox in which nothing happens is left alone."""
        network = self._root.network
        if events and not network:
            if not self._unseen_below:
                return RESCAN_WITH_EVENTS_SECONDS
            network = True  # the rest of the inbox is told of
        first, last = NETWORK_SECONDS if network else LOCAL_SECONDS
        wait = min(first * 2.0 ** min(self._idle_passes, 16), last)
        return min(max(wait, IDLE_COST_RATIO * self._seconds), RESCAN_WITH_EVENTS_SECONDS)

    def _begin_round(self) -> None:
        """Start at the inbox itself."""
        self._due = float("inf")
        self._visited = set()
        self._meets_unseen = False
        self._foreign = {}  # the number of a device that is gone may be another's
        self._done_before, self._done = self._done, {}
        self._settling.begin_round()
        self._stack = [_Visit(relative="", path=str(self._root.path), depth=0, network=self._root.network)]

    def _end_round(self) -> None:
        """Forget what is no longer there."""
        self._settling.end_round()
        self._listings.keep(self._visited)
        self._unseen_below = self._meets_unseen
        self._done_before = {}
        for gone in self._reports.keys() - self._visited:
            del self._reports[gone]

    def _result(self, tally: _Pass) -> Scan:
        """The outcome of a pass."""
        tally.settled.sort(key=lambda dropped: dropped.kind is not DropKind.JOB)
        return Scan(
            settled=tuple(tally.settled),
            waiting=tuple(waiting for report in self._reports.values() for waiting in report),
            counts=tally.counts,
            complete=not self._stack,
            seconds=self._seconds,
            changed=tuple(tally.changed),
        )

    def _advance(self, visit: _Visit, tally: _Pass) -> None:
        """Look through one folder, as far as the pass may still go."""
        if visit.listing is None:
            visit.listing = self._open(visit, tally)
        left = visit.listing.entries[visit.position : visit.position + max(tally.budget, 0)]
        for entry in left:
            self._look_at(entry, visit, tally)
        tally.budget -= len(left) + 1
        visit.position += len(left)
        if visit.position < len(visit.listing.entries):
            self._stack.append(visit)
            return
        self._visited.add(visit.relative)
        self._reports[visit.relative] = visit.report
        self._stack.extend(self._below(visit, visit.listing.folders, tally.now))

    def _open(self, visit: _Visit, tally: _Pass) -> Listing:
        """List a folder; one that cannot be listed is shown, one that is gone is empty."""
        try:
            status = self._lstat(visit.path)
            if not stat.S_ISDIR(status.st_mode):
                return Listing()
            self._place(visit, status.st_dev)
            listed = self._listings.listed
            listing = self._listings.look(visit.path, visit.relative, status, tally.now)
        except (FileNotFoundError, NotADirectoryError):
            return Listing()
        except OSError as error:
            reason = f"this folder cannot be looked into: {(error.strerror or 'unknown error').lower()}"
            self._report(visit, visit.relative or ".", Look(state=State.UNREADABLE, reason=reason), tally)
            return Listing()
        tally.counts.folders += 1
        tally.counts.ignored += listing.ignored
        if self._listings.listed > listed:
            tally.budget -= len(listing.folders) + len(listing.shown) + listing.ignored
        visit.report.extend(listing.shown)
        return listing

    def _place(self, visit: _Visit, device: int) -> None:
        """Find out on which filesystem a folder lies, if not on the inbox's own."""
        if device == self._root.device:
            visit.foreign, visit.network = "", self._root.network
            return
        if device not in self._foreign:
            mount = mount_of(visit.path, read_mounts())
            self._foreign[device] = (mount.filesystem, mount.unseen)
        visit.foreign, visit.network = self._foreign[device]
        self._meets_unseen = self._meets_unseen or visit.network

    def _below(self, visit: _Visit, folders: tuple[str, ...], now: float) -> Iterable[_Visit]:
        """The visits to the folders in a folder, last first, since the stack is taken from its end."""
        for name in reversed(folders):
            below = _Visit(
                relative=f"{visit.relative}/{name}" if visit.relative else name,
                path=f"{visit.path}/{name}",
                depth=visit.depth + 1,
                defaults_arriving=visit.defaults_arriving,
                job_arriving=visit.job_arriving,
            )
            if below.depth > MAX_DEPTH:
                self._show_too_deep(below, now)
            else:
                yield below

    def _show_too_deep(self, visit: _Visit, now: float) -> None:
        """Show a folder that is not looked into."""
        reason = f"this folder lies more than {MAX_DEPTH} folders deep and is not looked into"
        since = self._since(visit.relative, now)
        waiting = Waiting(relative=visit.relative, state=State.HELD, reason=reason, since=since)
        self._reports[visit.relative] = [waiting]
        self._visited.add(visit.relative)

    def _since(self, relative: str, now: float) -> float:
        """Since when a folder that stands in the reports for itself is shown."""
        before = self._reports.get(relative, [])
        return next((waiting.since for waiting in before if waiting.relative == relative), now)

    def _look_at(self, entry: Entry, visit: _Visit, tally: _Pass) -> None:
        """Look at one file that is a drop by its name."""
        path = f"{visit.path}/{entry.name}"
        try:
            status = self._lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            look = self._settling.look_failed(entry.relative, error, tally.now)
            self._not_settled(entry, visit, look, tally)
            return
        if not stat.S_ISREG(status.st_mode):
            return
        tally.counts.files += 1
        fingerprint = fingerprint_of(status, network=visit.network)
        if self._is_done(entry, visit, fingerprint, tally):
            return
        look = self._settling.look(entry.relative, path, status, tally.now, network=visit.network)
        if look.state is State.SETTLED:
            self._settled(entry, visit, path, status.st_dev, fingerprint, tally)
        elif look.state is not State.GONE:
            self._not_settled(entry, visit, look, tally)

    def _is_done(self, entry: Entry, visit: _Visit, fingerprint: Fingerprint, tally: _Pass) -> bool:
        """Whether a file was finished as it is; the answer yes is remembered until it changes."""
        if entry.kind is DropKind.DEFAULTS:
            return False
        changed = not self._settling.knows(entry.relative, fingerprint)
        known = self._done_before.get(entry.relative) == fingerprint
        if known or self._already_done(entry.relative, fingerprint):
            self._done[entry.relative] = fingerprint
            tally.counts.done += 1
            return True
        tally.counts.changed += changed
        if changed and not visit.network:
            tally.changed.append(entry.relative)
        return False

    def _not_settled(self, entry: Entry, visit: _Visit, look: Look, tally: _Pass) -> None:
        """Show a file that still waits, and let it hold back what may belong to it."""
        waited = tally.now - self._settling.first_seen(entry.relative, tally.now)
        if look.state is not State.UNREADABLE or waited < UNREADABLE_HOLD_SECONDS:
            if entry.kind is DropKind.DEFAULTS:
                visit.defaults_arriving = visit.defaults_arriving or entry.relative
            elif entry.kind is DropKind.JOB:
                visit.job_arriving = visit.job_arriving or entry.relative
        self._report(visit, entry.relative, look, tally)

    def _settled(
        self, entry: Entry, visit: _Visit, path: str, device: int, fingerprint: Fingerprint, tally: _Pass
    ) -> None:
        """Hand on a settled file, unless something holds it back."""
        if entry.kind is DropKind.DEFAULTS:
            return
        look = self._held_back(entry, visit, device)
        if look is not None:
            self._report(visit, entry.relative, look, tally)
            return
        tally.settled.append(
            Dropped(
                relative=entry.relative,
                path=Path(path),
                kind=entry.kind,
                fingerprint=fingerprint,
                device=device,
                settled_at=tally.now,
            )
        )

    def _held_back(self, entry: Entry, visit: _Visit, device: int) -> Look | None:
        """What holds a settled file back: another filesystem, defaults or a job file still arriving."""
        if device != self._root.device and not self._source_leave:
            return Look(state=State.HELD, reason=_other_filesystem(visit.foreign))
        if visit.defaults_arriving:
            reason = f"the settings for this folder, {display(visit.defaults_arriving)}, are still arriving"
            return Look(state=State.SETTLING, reason=reason)
        if visit.job_arriving and entry.kind is not DropKind.JOB:
            reason = f"a job file beside it, {display(visit.job_arriving)}, is still arriving"
            return Look(state=State.SETTLING, reason=reason)
        return None

    def _report(self, visit: _Visit, relative: str, look: Look, tally: _Pass) -> None:
        """Show an entry, and remember when to look again."""
        since = self._settling.first_seen(relative, tally.now)
        if relative == (visit.relative or "."):
            since = self._since(relative, tally.now)
        visit.report.append(Waiting(relative=relative, state=look.state, reason=look.reason, since=since))
        self._due = min(self._due, look.due)


def _other_filesystem(filesystem: str) -> str:
    """Why a file on another filesystem cannot be taken over."""
    kind = f" ({filesystem})" if filesystem else ""
    return (
        f"lies on another filesystem{kind} than the inbox, so it cannot be claimed by a rename: "
        "make that folder the inbox, or set `source: leave`"
    )
