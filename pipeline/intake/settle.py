"""When a file that lies in the inbox is complete: nothing about it has changed for its quiet period.

Knows no clock, no folder and no file: `now` (monotonic seconds) and stat results are passed in, the one
look at the file itself is injected. Modification times are never taken for ages: sync tools set old ones.
Invariant: a file is called settled only if two looks at least a quiet period apart saw the same inode,
size, mtime, ctime and blocks, and it could be opened in between. Nothing is ever given up.

The quiet period is 3 times the longest pause after which this file was seen to go on, at least the base
of its filesystem and at most the cap: scanners and slow uploads pause, a fixed time is always wrong.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pipeline.files import shown_size

PAUSE_FACTOR = 3.0
WRITER_RETRY_SECONDS = (1.0, 10.0)
TROUBLE_RETRY_SECONDS = (2.0, 60.0)


class State(StrEnum):
    """Where an entry of the inbox stands; all but the last two are shown to people."""

    NEW = "new"
    SETTLING = "settling"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    HELD = "held"
    UNSUPPORTED = "unsupported"
    IGNORED = "ignored"
    SETTLED = "settled"
    GONE = "gone"


class Openness(StrEnum):
    """What opening a file told about other programs."""

    FREE = "free"
    WRITING = "writing"
    "a program on this machine has it open for writing"
    UNPROVEN = "unproven"
    "this filesystem or this owner gives no answer"


class Fingerprint(NamedTuple):
    """What must not change while a file settles."""

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    blocks: int
    "preallocated files keep their size while they fill (Samba, Windows)"

    @property
    def key(self) -> str:
        """Size, mtime and ctime as text for a ledger; blocks may still move when space is trimmed,
        and some network filesystems number their inodes anew.
        """
        return f"{self.size_bytes}:{self.mtime_ns}:{self.ctime_ns}"


def fingerprint_of(status: os.stat_result, *, network: bool = False) -> Fingerprint:
    """The fingerprint that stands in a stat result. On network filesystems its inode is 0: some of them, and
    all of FUSE, number a file anew whenever they have forgotten it, and give it another number when renamed.
    """
    inode = 0 if network else status.st_ino
    blocks = getattr(status, "st_blocks", 0)
    return Fingerprint(inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleRules:
    """How long is waited, in seconds."""

    settle_seconds: float = 2.0
    "local disk, nobody has the file open for writing"
    unproven_seconds: float = 5.0
    "local disk, the file belongs to somebody else, so that cannot be told"
    settle_network_seconds: float = 10.0
    longest_settle_seconds: float = 120.0
    empty_seconds: float = 60.0

    def quiet_seconds(self, *, base_seconds: float, longest_pause_seconds: float) -> float:
        """The quiet period of a file that was seen to pause for `longest_pause_seconds`."""
        wanted = max(base_seconds, PAUSE_FACTOR * longest_pause_seconds)
        return min(wanted, max(self.longest_settle_seconds, base_seconds))

    def base_seconds(self, *, network: bool) -> float:
        """The shortest quiet period on this kind of filesystem."""
        return self.settle_network_seconds if network else self.settle_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at a file told; `due` is when (monotonic seconds) another one may tell more."""

    state: State
    reason: str = ""
    due: float = float("inf")


_SETTLED = Look(state=State.SETTLED)
_GONE = Look(state=State.GONE)
# Looks at a file's contents: (path, network) -> Openness; raises OSError where it cannot be opened.
Probe = Callable[[str, bool], Openness]


@dataclass(slots=True, eq=False)
class _Watched:
    """What is remembered of one file; slots keep ten thousand of them in a few megabytes."""

    fingerprint: Fingerprint | None
    first_seen: float
    changed_at: float
    longest_pause: float = 0.0
    retry_at: float = 0.0
    calm: bool = False
    "a look since the last change saw no change"
    grew: bool = False
    settled: bool = False
    openness: Openness = Openness.FREE
    trouble: str = ""
    tries: int = 0
    round: int = 0

    def change(self, fingerprint: Fingerprint, now: float) -> None:
        """Take note of a change. A pause counts only if a look fell into it and saw no change:
        the distance between two looks says nothing about a writer that never stopped.
        """
        if self.calm:
            self.longest_pause = max(self.longest_pause, now - self.changed_at)
        self.grew = self.fingerprint is None or fingerprint.size_bytes > self.fingerprint.size_bytes
        self.fingerprint, self.changed_at = fingerprint, now
        self.calm = self.settled = False
        self.openness, self.trouble, self.tries, self.retry_at = Openness.FREE, "", 0, 0.0

    def retry(self, now: float, limits: tuple[float, float]) -> float:
        """When to look again: doubling from the first to the second of `limits`."""
        self.retry_at = now + min(limits[0] * 2.0**self.tries, limits[1])
        self.tries = min(self.tries + 1, 32)
        return self.retry_at


class Settling:
    """The files that are being waited for. One round looks at each of them once.

    `uid` and `gid` are the daemon's own, for the sentence about a file it cannot read.
    """

    def __init__(self, rules: SettleRules, probe: Probe, *, uid: int, gid: int) -> None:
        self._rules, self._probe = rules, probe
        self._uid, self._gid = uid, gid
        self._watched: dict[str, _Watched] = {}
        self._round = self._seen = 0

    def __len__(self) -> int:
        return len(self._watched)

    def knows(self, key: str, fingerprint: Fingerprint) -> bool:
        """Whether the file was seen with this inode, size and mtime. Its blocks and ctime may change
        without any change event, when space is trimmed or a link is made elsewhere.
        """
        watched = self._watched.get(key)
        if watched is None or watched.fingerprint is None:
            return False
        return watched.fingerprint[:3] == fingerprint[:3]

    def first_seen(self, key: str, now: float) -> float:
        """Since when the file is known; `now` if it is not."""
        watched = self._watched.get(key)
        return now if watched is None else watched.first_seen

    def look(self, key: str, path: str, status: os.stat_result, now: float, *, network: bool = False) -> Look:
        """Judge the file `key` (its relative path) by a fresh stat result."""
        fingerprint = fingerprint_of(status, network=network)
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched(fingerprint, now, now)
        elif watched.fingerprint != fingerprint:
            watched.change(fingerprint, now)
        else:
            watched.calm = True
        self._mark(watched)
        if watched.settled:
            return _SETTLED
        return self._judge(watched, path, status, now, network)

    def look_failed(self, key: str, error: OSError, now: float) -> Look:
        """Take note of a file of which not even the stat result could be had."""
        watched = self._watched.setdefault(key, _Watched(None, now, now))
        self._mark(watched)
        if now >= watched.retry_at:
            watched.trouble = f"cannot be looked at yet: {_told(error)}"
            watched.retry(now, TROUBLE_RETRY_SECONDS)
        return Look(state=State.UNREADABLE, reason=watched.trouble, due=watched.retry_at)

    def begin_round(self) -> None:
        """Start to look at everything once."""
        self._round += 1
        self._seen = 0

    def end_round(self) -> None:
        """Forget every file that this round has not looked at: it is gone."""
        if self._seen != len(self._watched):
            current = self._round
            self._watched = {
                key: watched for key, watched in self._watched.items() if watched.round == current
            }

    def _mark(self, watched: _Watched) -> None:
        """Count the file as looked at in this round."""
        if watched.round != self._round:
            watched.round = self._round
            self._seen += 1

    def _judge(self, watched: _Watched, path: str, status: os.stat_result, now: float, network: bool) -> Look:
        """Judge a file that has not settled yet."""
        due = watched.changed_at + self._quiet(watched, status, network)
        if now < due:
            return _waiting(watched, status.st_size, due, now)
        if now < watched.retry_at:
            return _troubled(watched)
        try:
            watched.openness = self._probe(path, network)
        except FileNotFoundError:
            return _GONE
        except OSError as error:
            watched.trouble = self._why_unreadable(error, status)
            watched.retry(now, TROUBLE_RETRY_SECONDS)
            return _troubled(watched)
        return self._answered(watched, status, now, network)

    def _answered(self, watched: _Watched, status: os.stat_result, now: float, network: bool) -> Look:
        """Judge a file that is quiet and could be opened."""
        watched.trouble = ""
        if watched.openness is Openness.WRITING:
            watched.retry(now, WRITER_RETRY_SECONDS)
            return _troubled(watched)
        due = watched.changed_at + self._quiet(watched, status, network)
        if now < due:
            return _waiting(watched, status.st_size, due, now)
        watched.settled = True
        return _SETTLED

    def _quiet(self, watched: _Watched, status: os.stat_result, network: bool) -> float:
        """The quiet period of a file, in seconds, from what is known of it now."""
        base = self._rules.base_seconds(network=network)
        if watched.openness is Openness.UNPROVEN:
            base = max(base, self._rules.unproven_seconds)
        if status.st_size == 0:
            base = max(base, self._rules.empty_seconds)
        return self._rules.quiet_seconds(base_seconds=base, longest_pause_seconds=watched.longest_pause)

    def _why_unreadable(self, error: OSError, status: os.stat_result) -> str:
        """Why a file cannot be opened, with the numbers that a person needs to mend it."""
        if error.errno not in (errno.EACCES, errno.EPERM):
            return f"cannot be read yet: {_told(error)}"
        mode = f"{status.st_mode & 0o7777:03o}"
        return (
            f"cannot be read: {_told(error)} (the file belongs to uid {status.st_uid}, gid {status.st_gid}, "
            f"mode {mode}; Voxspool runs as uid {self._uid}, gid {self._gid})"
        )


_ERRNO_WORDS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EBUSY: "another program is using it",
    errno.ETXTBSY: "another program is using it",
    errno.ESTALE: "the network share has lost track of it",
    errno.EIO: "the disk or the network share reports an error",
}


def _told(error: OSError) -> str:
    """An operating system error in plain words."""
    words = _ERRNO_WORDS.get(error.errno or 0)
    return words or (error.strerror or "unknown error").lower()


def _troubled(watched: _Watched) -> Look:
    """A file that is quiet but cannot be taken; looked at again at `retry_at`."""
    if watched.trouble:
        return Look(state=State.UNREADABLE, reason=watched.trouble, due=watched.retry_at)
    return Look(state=State.SETTLING, reason="still open for writing by a program", due=watched.retry_at)


def _waiting(watched: _Watched, size_bytes: int, due: float, now: float) -> Look:
    """A file whose quiet period is not over."""
    ago = f"{now - watched.changed_at:.0f} s ago"
    if size_bytes == 0:
        return Look(state=State.EMPTY, reason=f"empty so far, last change {ago}", due=due)
    if watched.changed_at == watched.first_seen:
        wait = f"taken when nothing changes for {due - watched.changed_at:.3g} s"
        return Look(state=State.NEW, reason=f"just arrived, {shown_size(size_bytes)}; {wait}", due=due)
    doing = "growing" if watched.grew else "changing"
    reason = f"still {doing}, {shown_size(size_bytes)}, last change {ago}"
    return Look(state=State.SETTLING, reason=reason, due=due)
