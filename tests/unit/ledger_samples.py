"""Drops and jobs for tests that need a ledger with something in it."""

import hashlib
from pathlib import Path, PurePosixPath

from pipeline.jobs.job import Drop, DropState, Job, JobSpec, JobState, Source, VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.ledger import Ledger
from pipeline.results import ResultFile


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def a_drop(drop_id: str = "d1", relative: str = "story.txt", **changes: object) -> Drop:
    """A drop about to be claimed."""
    fields = {
        "id": drop_id,
        "relative": relative,
        "state": DropState.CLAIMING,
        "mode": "move",
        "members": (relative,),
        "stamp": (1, 2, 3, 4),
        "sha256": "",
        "claimed_at": 1_800_000_000.0,
    }
    return Drop(**{**fields, **changes})  # type: ignore[arg-type]


def a_job(job_id: str = "d1-0", *, drop_id: str = "d1", **changes: object) -> Job:
    """A queued job."""
    fields = {
        "id": job_id,
        "drop_id": drop_id,
        "index": 0,
        "state": JobState.QUEUED,
        "priority": "normal",
        "folder": PurePosixPath("."),
        "stem": job_id,
        "spec": JobSpec(kind="tts", settings=Settings(), voice=VoiceChoice(name="en"), text="Hello."),
        "source": Source(name="story.txt", sha256="ab", bytes=6),
        "submitted_at": 1_800_000_000.0,
    }
    return Job(**{**fields, **changes})  # type: ignore[arg-type]


def submit(ledger: Ledger, *jobs: Job, drop: Drop | None = None) -> None:
    """A drop goes in with its jobs."""
    drop = drop or a_drop(jobs[0].drop_id)
    ledger.plan_claim(drop)
    ledger.submit(drop, jobs)


def publish(
    ledger: Ledger, outbox: Path, stem: str, files: dict[str, bytes], *, folder: str = ".", job_id: str = ""
) -> list[Path]:
    """Write `files` below `outbox` and enter them as the result `stem`, published now."""
    where = outbox / folder
    where.mkdir(parents=True, exist_ok=True)
    place = PurePosixPath(folder)
    ledger.results.reserve(
        place, stem, source=f"{folder}/{stem}.txt", index=0, job_id=job_id or stem, may_use=lambda *_: True
    )
    for name, data in files.items():
        (where / name).write_bytes(data)
    ledger.results.publish(place, stem, [_entry(where / name) for name in files])
    return [where / name for name in files]


def _entry(path: Path) -> ResultFile:
    status = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ResultFile(name=path.name, bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=digest)
