"""What the daemon is doing, and why each waiting file waits: `outbox/status.json`.

Knows the ledger and what the last scan said; decides nothing. Invariant: the file is replaced
whole, at most every five seconds, and only when something in it changed: each write is synced.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.faults import Kind
from pipeline.files import atomic_write, display
from pipeline.jobs.job import Job, JobState
from pipeline.layout import Layout, last_place
from pipeline.ledger import Ledger, Progress
from pipeline.space import Room, shortage

SCHEMA = "voxspool/status/1"
WRITE_SECONDS = 5.0
MAX_LISTED = 500
MAX_FAILED_LISTED = 50
MAX_CODES_LISTED = 20
MAX_MESSAGE_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFile:
    """A file in the inbox and why nothing happens to it."""

    path: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that stands in `status.json`, but for the time."""

    schema: str = SCHEMA
    voxspool: str
    pid: int
    state: str
    "running, paused, stopping, stopped"
    trouble: tuple[str, ...] = ()
    "what keeps the work from going on, in sentences"
    notes: tuple[str, ...] = ()
    "what one should know and nothing suffers from"
    jobs: Mapping[str, int] = field(default_factory=dict)
    "number of jobs in each state"
    running: Sequence[Mapping[str, Any]] = ()
    queued: Sequence[Mapping[str, Any]] = ()
    failed: Sequence[Mapping[str, Any]] = ()
    "what lies in `failed/` now, the newest"
    waiting: Sequence[Mapping[str, str]] = ()
    errors: Sequence[Mapping[str, Any]] = ()
    "what went wrong ever, by code, the latest first, with the last ten of each"
    totals: Mapping[str, int] = field(default_factory=dict)
    "what was made and pruned, ever"
    not_listed: Mapping[str, int] = field(default_factory=dict)
    "how many more are queued and waiting than are listed"


def snapshot_jobs(
    ledger: Ledger, layout: Layout, *, reachable: bool = True, room: Room | None = None
) -> dict[str, Any]:
    """The part of a snapshot that the ledger tells. The outbox is looked at only if it is `reachable`.

    With `room` it says which jobs wait for more of it.
    """
    counts = ledger.counts()
    queued = ledger.jobs_in(JobState.QUEUED, limit=MAX_LISTED)
    return {
        "jobs": counts,
        "running": [running_entry(progress) for progress in ledger.progress()],
        "queued": [_queued_entry(job, room) for job in queued],
        "failed": list(_failed_entries(ledger, layout, reachable=reachable)),
        "errors": [error_entry(kind) for kind in ledger.faults.kinds()[:MAX_CODES_LISTED]],
        "totals": {tally.value: round(total) for tally, total in ledger.tallies.sums().items()},
        "not_listed": {"queued": counts[JobState.QUEUED] - len(queued)},
    }


def running_entry(progress: Progress) -> dict[str, Any]:
    """A running job as it is shown."""
    return {
        "job": progress.job.id,
        "source": progress.job.source.name,
        "stage": progress.stage,
        "chunks_done": progress.done_chunks,
        "chunks": progress.total_chunks,
        "started_at": moment(progress.started_at),
        "attempt": progress.job.attempts,
    }


def error_entry(kind: Kind) -> dict[str, Any]:
    """What is known of one code, as it is shown."""
    return {
        "code": kind.code,
        "count": kind.count,
        "last": [
            {
                "at": moment(fault.at),
                "file": fault.file,
                "message": " ".join(fault.message.split())[:MAX_MESSAGE_CHARS],
                "times": fault.times,
            }
            for fault in kind.last
        ],
    }


def _failed_entries(ledger: Ledger, layout: Layout, *, reachable: bool) -> Iterator[dict[str, Any]]:
    """What lies in `failed/` now, newest first."""
    for drop in ledger.newest_failed(MAX_FAILED_LISTED):
        place = last_place(layout, drop)
        if place is not None and (not reachable or os.path.lexists(place)):
            jobs = [job for job in ledger.jobs_of(drop.id) if job.error_message]
            yield {
                "path": display(place.relative_to(layout.outbox)),
                "job": jobs[0].id if jobs else drop.id,
                "reason": jobs[0].error_message if jobs else "",
            }


def _queued_entry(job: Job, room: Room | None) -> dict[str, Any]:
    reason = shortage(job.spec.need, room) if room else ""
    return {"job": job.id, "source": job.source.name, "priority": job.priority, "reason": reason}


def listed(waiting: Sequence[WaitingFile]) -> list[dict[str, str]]:
    """Waiting files as they are shown: sorted by path, the first few hundred."""
    entries = sorted(waiting, key=lambda entry: entry.path)[:MAX_LISTED]
    return [{"path": display(one.path), "state": one.state, "reason": one.reason} for one in entries]


def moment(seconds: float) -> str:
    """A point in time as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


class StatusFile:
    """Writes `status.json`, seldom enough for a synced folder."""

    def __init__(self, path: Path, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._wall = wall
        self._written: Snapshot | None = None
        self._written_at = float("-inf")

    def due(self) -> bool:
        """Whether enough time has passed for another look."""
        return self._clock() - self._written_at >= WRITE_SECONDS

    def write(self, snapshot: Snapshot) -> bool:
        """Write if it says something new; tells whether it did."""
        self._written_at = self._clock()
        if snapshot == self._written:
            return False
        fields = {"updated_at": moment(self._wall()), **asdict(snapshot)}
        data = json.dumps(fields, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        self._written = None
        try:
            atomic_write(self._path, data, durable=False)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # an old status would deceive, and in its room the new one may fit
            self._path.unlink(missing_ok=True)
            atomic_write(self._path, data, durable=False)
        self._written = snapshot
        return True


def last_status(layout: Layout) -> dict[str, Any] | None:
    """What the daemon said last, or None; its own copy first, since the outbox may be away or hang."""
    return read_status(layout.status_copy) or read_status(layout.status_file)


def read_status(path: Path) -> dict[str, Any] | None:
    """The status in this file, or None."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("schema") == SCHEMA else None
