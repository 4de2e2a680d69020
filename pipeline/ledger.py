"""The ledger: every drop, job and attempt, in one SQLite file on local disk, with `results` beside them.

Knows SQL and the records of `jobs.job`; nothing of folders or sound. Invariants: a claim commits
before any work starts; a job is running for at most one worker; an ended job never changes again.
"""

import contextlib
import itertools
import json
import math
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.database import Database
from pipeline.errors import Interrupted
from pipeline.faults import Faults
from pipeline.history import History
from pipeline.jobs.job import (
    Drop,
    DropState,
    Job,
    JobState,
    Source,
    spec_from_json,
    spec_to_json,
)
from pipeline.jobs.settings import PRIORITIES, Kind, Priority
from pipeline.results import Reservation, Results
from pipeline.space import Room
from pipeline.tallies import Tallies

LOST_PER_DEATH = 3

_NEEDS = ("state_bytes", "state_files", "outbox_bytes")
# Those that run have taken up a part of theirs already; encoding at the end takes the rest.
_FITS = "".join(
    f" AND COALESCE(json_extract(spec, '$.need.{what}'), 0) + (SELECT COALESCE(SUM("  # noqa: S608
    f"json_extract(spec, '$.need.{what}') * (1.0 - 0.5 * done_chunks / MAX(1, total_chunks))), 0)"
    " FROM jobs WHERE state = 'running') <= ?"
    for what in _NEEDS
)
_NEXT = (
    "SELECT id FROM jobs AS j WHERE state = 'queued' AND cancel_requested = 0 AND not_before <= ?"  # noqa: S608
    " AND priority < ?"
    " AND NOT EXISTS (SELECT 1 FROM jobs AS r"
    "  WHERE r.state = 'running' AND r.folder = j.folder AND r.stem = j.stem)"
    " AND NOT EXISTS (SELECT 1 FROM jobs AS q WHERE q.state = 'queued' AND q.folder = j.folder"
    f"  AND q.stem = j.stem AND q.submitted_at < j.submitted_at){_FITS}"
    " ORDER BY priority, submitted_at, idx LIMIT 1"
)


def _next_values(now: float, room: Room | None, before: Priority | None) -> tuple[float, ...]:
    rank = len(PRIORITIES) if before is None else PRIORITIES.index(before)
    return now, rank, *(math.inf if room is None else getattr(room, what) for what in _NEEDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running job is."""

    job: Job
    worker: str
    stage: str
    done_chunks: int
    total_chunks: int
    started_at: float
    heartbeat_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyQueued:
    """What a queued job waits for."""

    ahead: int
    "jobs that come before it"
    not_before: float | None
    "the machine was at fault, and this is when it is tried again; seconds since the epoch"
    same_name: str | None
    "a job that makes a result of the same name and comes first"
    cancel_requested: bool


class Ledger:
    """One connection. Each process, and each thread, opens its own."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        create: bool = True,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._db = Database(path, create=create)
        self.results = Results(self._db, clock)
        "the names in the outbox that are ours"
        self.faults = Faults(self._db, clock)
        self.tallies = Tallies(self._db)
        self.history = History(self._db)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def kept_out_by(self) -> int | None:
        """Process id of who kept us from writing since this was last asked; None if nobody did."""
        return self._db.kept_out_by()

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file; empty if it is whole."""
        return self._db.damage()

    def prove_whole(self) -> None:
        """Raises LedgerDamaged if the file is damaged; reads all of it."""
        self._db.prove_whole()

    def keep_reserve(self) -> None:
        """See that the ledger can be written to for a while when the disk is full."""
        self._db.keep_reserve()

    @contextlib.contextmanager
    def one_commit(self) -> Iterator[None]:
        """All that is written inside is on disk together at its end, or not at all."""
        with self._db.transaction():
            yield

    def meta(self, key: str) -> str | None:
        """A remembered fact."""
        return self._db.meta(key)

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact."""
        self._db.set_meta(key, value)

    # -- drops ---------------------------------------------------------------------------------

    def plan_claim(self, *drops: Drop) -> None:
        """Write down that `drops` are about to be renamed, before they are."""
        with self._db.transaction() as db:
            for drop in drops:
                _insert_drop(db, drop)

    def forget_claim(self, *drop_ids: str) -> None:
        """Undo `plan_claim` for drops that were not taken after all."""
        with self._db.transaction() as db:
            for drop_id in drop_ids:
                db.execute("DELETE FROM drops WHERE id = ? AND state = 'claiming'", (drop_id,))

    def submit(self, drop: Drop, jobs: Sequence[Job], names: Sequence[Reservation] = ()) -> bool:
        """The drop is claimed, these are its jobs and the names of their results, in one step.

        False, and nothing is done, if one of the names was taken since it was looked at.
        """
        with self._db.transaction() as db:
            if not self.results.enter(*names):
                return False
            db.execute(
                "UPDATE drops SET state = 'claimed', sha256 = ?, ino = ?, size = ?, mtime_ns = ?,"
                " ctime_ns = ? WHERE id = ?",
                (drop.sha256, *_signed(drop.stamp), drop.id),
            )
            for job in jobs:
                _insert_job(db, job)
                if job.state is JobState.FAILED:
                    self._fault(job)
        return True

    def _fault(self, job: Job) -> None:
        """A job failed: that is something that went wrong."""
        self.faults.add(
            code=job.error_code or "unknown", file=job.source.name, message=job.error_message or ""
        )

    def end_drop(self, drop_id: str, state: DropState, location: str) -> None:
        """The source reached its last place."""
        with self._db.transaction() as db:
            db.execute(
                "UPDATE drops SET state = ?, location = ?, ended_at = ? WHERE id = ?",
                (state, os.fsencode(location), self._clock(), drop_id),
            )

    def drop(self, drop_id: str) -> Drop | None:
        """A drop by its id."""
        row = self._db.row("SELECT * FROM drops WHERE id = ?", (drop_id,))
        return None if row is None else _drop_from(row)

    def drops_in(self, *states: DropState) -> list[Drop]:
        """All drops in one of `states`, oldest first."""
        marks = ", ".join("?" * len(states))
        rows = self._db.rows(f"SELECT * FROM drops WHERE state IN ({marks}) ORDER BY id", states)  # noqa: S608 (only question marks)
        return [_drop_from(row) for row in rows]

    def newest_failed(self, limit: int) -> list[Drop]:
        """The drops that failed last, newest first."""
        rows = self._db.rows("SELECT * FROM drops WHERE state = 'failed' ORDER BY id DESC LIMIT ?", (limit,))
        return [_drop_from(row) for row in rows]

    def drops_of(self, relative: str) -> list[Drop]:
        """Every drop that came in under this path, newest first."""
        rows = self._db.rows(
            "SELECT * FROM drops WHERE relative = ? ORDER BY claimed_at DESC, id DESC",
            (os.fsencode(relative),),
        )
        return [_drop_from(row) for row in rows]

    def drops_with(self, relative: str) -> list[Drop]:
        """Every drop that a file of this path was taken along with, newest first; not its own."""
        rows = self._db.rows("SELECT * FROM drops WHERE json_array_length(members) > 1 ORDER BY id DESC")
        return [drop for drop in map(_drop_from, rows) if relative in drop.members[1:]]

    def drops_of_kind(self, kind: Kind) -> set[str]:
        """Ids of the drops that hold a job of this kind."""
        rows = self._db.rows(
            "SELECT DISTINCT drop_id FROM jobs WHERE json_extract(spec, '$.kind') = ?", (kind,)
        )
        return {row["drop_id"] for row in rows}

    def open_jobs_by_drop(self) -> dict[str, int]:
        """How many of its jobs have not ended, for each drop that has any job."""
        rows = self._db.rows(
            "SELECT drop_id, SUM(state IN ('queued', 'running')) AS n FROM jobs GROUP BY drop_id"
        )
        return {row["drop_id"]: int(row["n"]) for row in rows}

    def unpublished(self) -> list[str]:
        """Ids of jobs that count as done although the name reserved for their result was never filled."""
        rows = self._db.rows(
            "SELECT jobs.id FROM results JOIN jobs ON jobs.id = results.job_id"
            " WHERE jobs.state = 'done' AND results.published_at IS NULL"
        )
        return [row["id"] for row in rows]

    def unfinished(self) -> set[str]:
        """Ids of the jobs that are queued or running."""
        return {
            row["id"] for row in self._db.rows("SELECT id FROM jobs WHERE state IN ('queued', 'running')")
        }

    def already_taken(self, relative: str, stamp: tuple[int, int, int, int]) -> bool:
        """Whether this very file was dropped before and left in the inbox (`source: leave`).

        What was taken with the inode 0 lies where inodes mean nothing, so any will do.
        """
        row = self._db.row(
            "SELECT 1 FROM drops WHERE relative = ? AND mode = 'leave' AND state != 'claiming'"
            " AND ino IN (0, ?) AND size = ? AND mtime_ns = ?",
            (os.fsencode(relative), *_signed(stamp)[:3]),
        )
        return row is not None

    def parts_left(self) -> dict[str, str]:
        """The job file of each file that was claimed along with one and left in the inbox beside it."""
        rows = self._db.rows(
            "SELECT relative, members, MAX(claimed_at) FROM drops WHERE mode = 'leave'"
            " GROUP BY relative HAVING json_array_length(members) > 1"
        )
        return {part: os.fsdecode(row["relative"]) for row in rows for part in json.loads(row["members"])[1:]}

    # -- jobs ----------------------------------------------------------------------------------

    def claim(self, worker: str, room: Room | None = None, *, before: Priority | None = None) -> Job | None:
        """Take the next job for `worker`; the attempt is on disk before this returns.

        `before`: only one that is more urgent than that.

        Never two at once of one result name: the later drop must also be published later. A job that has
        cost a worker runs alone: else the one that takes all the memory would cost its neighbours theirs.
        A job for which there is no room, beside what those that run still need, is passed over.
        """
        now = self._clock()
        with self._db.transaction() as db:
            job_id = _next_job(db, now, room, before)
            if job_id is None or not _may_run(db, job_id):
                return None
            db.execute(
                "UPDATE jobs SET state = 'running', worker = ?, started_at = ?, heartbeat_at = ?,"
                " stage = 'starting', done_chunks = 0, total_chunks = 0 WHERE id = ?",
                (worker, now, self._monotonic(), job_id),
            )
            db.execute(
                "INSERT INTO attempts (job_id, number, worker, started_at)"
                " SELECT ?, COUNT(*) + 1, ?, ? FROM attempts WHERE job_id = ?",
                (job_id, worker, now, job_id),
            )
        return self.job(job_id)

    def work_waits(self, room: Room | None = None, *, before: Priority | None = None) -> bool:
        """Whether a worker that asked now would be given a job; `before`: one more urgent than that."""
        with self._db.question() as db:
            job_id = _next_job(db, self._clock(), room, before)
            return job_id is not None and _may_run(db, job_id)

    def at_rest(self, room: Room | None = None) -> bool:
        """Whether no job is being done, none would be given to a worker that asked now, and none that was
        cancelled still has to be told so. All of one moment: a worker claims between any two questions.
        """
        with self._db.question() as db:
            held = db.execute(
                "SELECT 1 FROM jobs WHERE state = 'running' OR (state = 'queued' AND cancel_requested = 1)"
            )
            return held.fetchone() is None and _next_job(db, self._clock(), room, None) is None

    def heartbeat(
        self, job_id: str, stage: str, done_chunks: int, total_chunks: int, *, worker: str | None = None
    ) -> bool:
        """Note progress; tells whether somebody asked to cancel the job.

        Raises Interrupted if the job is no longer being done by `worker`.
        """
        with self._db.transaction() as db:
            row = db.execute(
                "UPDATE jobs SET heartbeat_at = ?, stage = ?, done_chunks = ?, total_chunks = ?"
                " WHERE id = ? AND state = 'running' AND worker = COALESCE(?, worker)"
                " RETURNING cancel_requested",
                (self._monotonic(), stage, done_chunks, total_chunks, job_id, worker),
            ).fetchone()
        if row is None:
            raise Interrupted("The job was taken away from its worker.")
        return bool(row["cancel_requested"])

    def finish(
        self, job_id: str, state: JobState, *, code: str = "", message: str = "", hint: str = ""
    ) -> None:
        """The job ended so; `code`, `message` and `hint` say why where it did not end well.

        A name that was reserved for a result which never came is free again.
        """
        now = self._clock()
        with self._db.transaction() as db:
            ended = db.execute(
                "UPDATE jobs SET state = ?, ended_at = ?, error_code = ?, error_message = ?, error_hint = ?,"
                " stage = '' WHERE id = ? AND state NOT IN ('done', 'failed', 'cancelled')",
                (state, now, *(_text(word) or None for word in (code, message, hint)), job_id),
            )
            _end_attempt(db, job_id, state, now)
            if ended.rowcount and state is JobState.FAILED:
                self._fault(self._jobs("id = ?", job_id)[0])
            if state is not JobState.DONE:
                db.execute("DELETE FROM results WHERE job_id = ? AND published_at IS NULL", (job_id,))

    def release(
        self, job_id: str, outcome: str, *, worker: str | None = None, delay_seconds: float = 0.0
    ) -> bool:
        """Give a running job back to the queue, for after `delay_seconds`; False if it is not `worker`'s.

        `outcome`: it was `interrupted` on purpose, or the `environment` is at fault.
        """
        with self._db.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'queued', worker = NULL, stage = '', not_before = ?"
                " WHERE id = ? AND state = 'running' AND worker = COALESCE(?, worker)",
                (self._clock() + delay_seconds if delay_seconds else 0.0, job_id, worker),
            )
            if changed.rowcount:
                _end_attempt(db, job_id, outcome, self._clock())
        return bool(changed.rowcount)

    def bury(self, job_id: str, outcome: str, *, max_deaths: int) -> int | None:
        """A job's worker is gone: queue the job again, or take it out as poison.

        Returns how many workers it has cost if those are too many: the job stays `running` then, so that
        nobody takes it, until the caller fails it. A daemon that went down with its worker counts a third,
        since it may have been the power.
        """
        with self._db.transaction() as db:
            _end_attempt(db, job_id, outcome, self._clock())
            counted = db.execute(
                "SELECT COALESCE(SUM(outcome = 'died'), 0) AS died,"
                " COALESCE(SUM(outcome = 'lost'), 0) AS lost FROM attempts WHERE job_id = ?",
                (job_id,),
            ).fetchone()
            poison = counted["died"] + counted["lost"] // LOST_PER_DEATH >= max_deaths
            db.execute(
                "UPDATE jobs SET state = ?, worker = NULL, stage = '' WHERE id = ? AND state = 'running'",
                ("running" if poison else "queued", job_id),
            )
        return int(counted["died"] + counted["lost"]) if poison else None

    def environment_failures(self, job_id: str) -> int:
        """How often in a row the machine kept this job from being done."""
        rows = self._db.rows("SELECT outcome FROM attempts WHERE job_id = ? ORDER BY number DESC", (job_id,))
        outcomes = [row["outcome"] for row in rows if row["outcome"] is not None]
        return len(list(itertools.takewhile(lambda outcome: outcome == "environment", outcomes)))

    def unfinished_ends(self) -> list[str]:
        """Drops whose jobs have all ended and whose source has not made its last move."""
        rows = self._db.rows(
            "SELECT id FROM drops WHERE state = 'claimed' AND NOT EXISTS (SELECT 1 FROM jobs"
            " WHERE drop_id = drops.id AND state IN ('queued', 'running')) LIMIT 100"
        )
        return [row["id"] for row in rows]

    def try_again_at_once(self) -> None:
        """The machine was mended: no job waits for its next try any longer."""
        with self._db.transaction() as db:
            db.execute("UPDATE jobs SET not_before = 0 WHERE state = 'queued' AND not_before > 0")

    def request_cancel(self, job_id: str) -> bool:
        """Ask for a job to be cancelled; False if it has ended or does not exist."""
        with self._db.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET cancel_requested = 1 WHERE id = ? AND state IN ('queued', 'running')",
                (job_id,),
            )
        return changed.rowcount == 1

    def cancelled_while_queued(self) -> list[Job]:
        """Jobs that somebody cancelled before a worker took them."""
        return self._jobs("state = 'queued' AND cancel_requested = 1")

    def rename_job(self, job_id: str, stem: str) -> None:
        """The job's result will be called `stem`: its planned name was taken meanwhile."""
        with self._db.transaction() as db:
            db.execute("UPDATE jobs SET stem = ? WHERE id = ? AND ended_at IS NULL", (stem, job_id))

    def job(self, job_id: str) -> Job | None:
        """A job by its id."""
        found = self._jobs("id = ?", job_id)
        return found[0] if found else None

    def jobs_of(self, drop_id: str) -> list[Job]:
        """The jobs of a drop, in the order of its documents."""
        return self._jobs("drop_id = ?", drop_id)

    def jobs_in(self, *states: JobState, limit: int = -1) -> list[Job]:
        """Jobs in one of `states`, in the order in which they will be done."""
        marks = ", ".join("?" * len(states))
        return self._jobs(f"state IN ({marks})", *states, limit=limit)

    def jobs_named(self, folder: PurePosixPath, stem: str) -> list[Job]:
        """Every job whose result had this name, newest first."""
        return self._jobs("folder = ? AND stem = ?", str(folder), stem)[::-1]

    def why_queued(self, job_id: str) -> WhyQueued | None:
        """What keeps a queued job from being started; None if it is not queued."""
        row = self._db.row(
            "SELECT not_before, cancel_requested, (SELECT COUNT(*) FROM jobs AS q WHERE q.state = 'queued'"
            "  AND (q.priority, q.submitted_at, q.idx) < (j.priority, j.submitted_at, j.idx)) AS ahead,"
            " (SELECT id FROM jobs AS r WHERE r.folder = j.folder AND r.stem = j.stem AND r.id != j.id"
            "  AND (r.state = 'running' OR r.state = 'queued' AND r.submitted_at < j.submitted_at)"
            "  LIMIT 1) AS same_name FROM jobs AS j WHERE id = ? AND state = 'queued'",
            (job_id,),
        )
        if row is None:
            return None
        return WhyQueued(
            ahead=row["ahead"],
            not_before=row["not_before"] if row["not_before"] > self._clock() else None,
            same_name=row["same_name"],
            cancel_requested=bool(row["cancel_requested"]),
        )

    def running_of(self, worker: str) -> list[Job]:
        """What `worker` had in hand."""
        return self._jobs("state = 'running' AND worker = ?", worker)

    def _jobs(self, where: str, *values: object, limit: int = -1) -> list[Job]:
        rows = self._db.rows(
            "SELECT *, (SELECT COUNT(*) FROM attempts WHERE job_id = jobs.id) AS attempts FROM jobs"  # noqa: S608
            f" WHERE {where} ORDER BY priority, submitted_at, idx LIMIT ?",
            (*values, limit),
        )
        return [_job_from(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Number of jobs in each state, those included that the ledger has forgotten."""
        rows = self._db.rows("SELECT state, COUNT(*) AS n FROM jobs GROUP BY state")
        found = Counter({row["state"]: int(row["n"]) for row in rows}) + Counter(
            self.history.forgotten("jobs")
        )
        return {state.value: found[state.value] for state in JobState}

    def oldest_queued_at(self) -> float | None:
        """When the job that has been queued for longest was submitted; None if none is queued."""
        row = self._db.row("SELECT MIN(submitted_at) AS at FROM jobs WHERE state = 'queued'")
        return None if row is None or row["at"] is None else float(row["at"])

    def attempts_by_outcome(self) -> dict[str, int]:
        """Number of attempts that ended so, those included that the ledger has forgotten."""
        rows = self._db.rows(
            "SELECT outcome, COUNT(*) AS n FROM attempts WHERE outcome IS NOT NULL GROUP BY outcome"
        )
        found = Counter({row["outcome"]: int(row["n"]) for row in rows})
        return dict(found + Counter(self.history.forgotten("attempts")))

    def failed_since(self, moment: float) -> int:
        """Number of dropped files that ended in `failed/` since `moment`."""
        return self._db.number(
            "SELECT COUNT(*) FROM drops WHERE state = 'failed' AND ended_at >= ?", (moment,)
        )

    def progress(self) -> list[Progress]:
        """How far each running job is."""
        rows = self._db.rows(
            "SELECT *, (SELECT COUNT(*) FROM attempts WHERE job_id = jobs.id) AS attempts FROM jobs"
            " WHERE state = 'running' ORDER BY started_at"
        )
        return [
            Progress(
                job=_job_from(row),
                **{key: row[key] for key in ("worker", "stage", "done_chunks", "total_chunks")},
                started_at=row["started_at"],
                heartbeat_at=row["heartbeat_at"],
            )
            for row in rows
        ]


def _signed(stamp: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """SQLite's integers have a sign; some network filesystems use all 64 bits for an inode."""
    ino, *rest = stamp
    return (ino - 2**64 if ino >= 2**63 else ino, *rest)  # type: ignore[return-value]


def _text(words: str) -> str:
    """Text that SQLite takes: file names in a message may hold undecodable bytes."""
    return words.encode("utf-8", "backslashreplace").decode()


def _insert_drop(db: sqlite3.Connection, drop: Drop) -> None:
    db.execute(
        "INSERT INTO drops (id, relative, state, mode, members, ino, size, mtime_ns, ctime_ns,"
        " sha256, claimed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            drop.id,
            os.fsencode(drop.relative),
            drop.state,
            drop.mode,
            json.dumps(drop.members),
            *_signed(drop.stamp),
            drop.sha256,
            drop.claimed_at,
        ),
    )


def _insert_job(db: sqlite3.Connection, job: Job) -> None:
    db.execute(
        "INSERT INTO jobs (id, drop_id, idx, state, priority, folder, stem, spec, source_name, source_sha256,"
        " source_bytes, submitted_at, ended_at, error_code, error_message, error_hint)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job.id,
            job.drop_id,
            job.index,
            job.state,
            PRIORITIES.index(job.priority),
            str(job.folder),
            job.stem,
            spec_to_json(job.spec),
            job.source.name,
            job.source.sha256,
            job.source.bytes,
            job.submitted_at,
            job.submitted_at if job.state.ended else None,
            *(_text(word or "") or None for word in (job.error_code, job.error_message, job.error_hint)),
        ),
    )


def _next_job(db: sqlite3.Connection, now: float, room: Room | None, before: Priority | None) -> str | None:
    """The first job in the queue that may be done now, and for which there is room."""
    row = db.execute(_NEXT, _next_values(now, room, before)).fetchone()
    return None if row is None else str(row["id"])


def _may_run(db: sqlite3.Connection, job_id: str) -> bool:
    """Nothing runs beside a job that has cost a worker."""
    running = [row["id"] for row in db.execute("SELECT id FROM jobs WHERE state = 'running'")]
    return not running or not any(_has_cost_a_worker(db, one) for one in (job_id, *running))


def _has_cost_a_worker(db: sqlite3.Connection, job_id: str) -> bool:
    row = db.execute("SELECT 1 FROM attempts WHERE job_id = ? AND outcome = 'died'", (job_id,)).fetchone()
    return row is not None


def _end_attempt(db: sqlite3.Connection, job_id: str, outcome: str, now: float) -> None:
    db.execute(
        "UPDATE attempts SET ended_at = ?, outcome = ? WHERE job_id = ? AND outcome IS NULL",
        (now, str(outcome), job_id),
    )


def _drop_from(row: sqlite3.Row) -> Drop:
    return Drop(
        id=row["id"],
        relative=os.fsdecode(row["relative"]),
        state=DropState(row["state"]),
        mode=row["mode"],
        members=tuple(json.loads(row["members"])),
        stamp=(row["ino"] % 2**64, row["size"], row["mtime_ns"], row["ctime_ns"]),
        sha256=row["sha256"],
        claimed_at=row["claimed_at"],
        ended_at=row["ended_at"],
        location=os.fsdecode(row["location"]),
    )


def _job_from(row: sqlite3.Row) -> Job:
    source = Source(name=row["source_name"], sha256=row["source_sha256"], bytes=row["source_bytes"])
    return Job(
        id=row["id"],
        drop_id=row["drop_id"],
        index=row["idx"],
        state=JobState(row["state"]),
        priority=_priority(row["priority"]),
        folder=PurePosixPath(row["folder"]),
        stem=row["stem"],
        spec=spec_from_json(row["spec"]),
        source=source,
        submitted_at=row["submitted_at"],
        attempts=row["attempts"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        error_hint=row["error_hint"],
    )


def _priority(rank: int) -> Any:
    return PRIORITIES[rank]
