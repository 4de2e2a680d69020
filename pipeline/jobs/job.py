"""A drop and the jobs it became, as the ledger keeps them.

Knows nothing of how jobs are stored or done. Invariant: settings are frozen when the drop is
claimed; nothing that is edited later changes a job that is already in the ledger.
"""

import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal

from pipeline.jobs.settings import Kind, Priority, Settings


class DropState(StrEnum):
    """Where a dropped file is. Every file ever seen is in exactly one of these."""

    CLAIMING = "claiming"
    "about to be renamed: either still in the inbox or already claimed"
    CLAIMED = "claimed"
    "in the hidden claimed folder (or noted, where the inbox is never changed)"
    DONE = "done"
    "in the hidden done folder, deleted, or left, as `source` says"
    FAILED = "failed"
    "in outbox/failed (or left in the inbox) beside its error note"


class JobState(StrEnum):
    """What became of a job so far."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The dropped file, as the manifest names it."""

    name: str
    "relative to the inbox root, as it can be shown"
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of a `concat` job: a file or a silence."""

    file: str | None = None
    "path inside the drop's folder"
    silence_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceChoice:
    """The voice as it was resolved at claim time."""

    name: str
    clip: str | None = None
    "reference clip: absolute path in the library, path inside the drop's folder, or https address"
    clip_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Room that a job is expected to take up (`space` estimates it); all zero: not known."""

    state_bytes: int = 0
    state_files: int = 0
    outbox_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What is to be done: frozen, and all that a worker needs to know."""

    kind: Kind
    settings: Settings
    voice: VoiceChoice
    text: str | None = None
    "tts: the text itself, where the job file holds it"
    file: str | None = None
    "tts: the text file; vc: the recording, which may be an https address; a path inside the drop's folder"
    parts: tuple[Part, ...] = ()
    "concat"
    crossfade_ms: int = 0
    "concat"
    level: bool = True
    "concat: bring parts to one loudness"
    voice_from: str = ""
    "the folder defaults or configuration that set the voice; empty if the job did itself"
    synthesis_set: tuple[str, ...] = ()
    "names of synthesis settings that the job, its voice or its folder set"
    warnings: tuple[str, ...] = ()
    need: Need = Need()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job in the ledger."""

    id: str
    drop_id: str
    index: int
    "0-based place among the drop's jobs"
    state: JobState
    priority: Priority
    folder: PurePosixPath
    "subfolder of the outbox, relative"
    stem: str
    "planned name of the result, without extension"
    spec: JobSpec
    source: Source
    submitted_at: float
    "seconds since the epoch"
    attempts: int = 0
    error_code: str | None = None
    error_message: str | None = None
    error_hint: str | None = None

    def log_context(self) -> dict[str, str]:
        """The only way in which a job enters a log line."""
        return {"job_id": self.id, "source": self.source.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A dropped file in the ledger, with the files that were claimed along with it."""

    id: str
    relative: str
    "path below the inbox root; undecodable bytes as surrogate escapes"
    state: DropState
    mode: Literal["move", "leave", "delete"]
    "the `source` setting when it was claimed"
    members: tuple[str, ...]
    "relative paths of all files claimed with it, itself first"
    stamp: tuple[int, int, int, int]
    "inode, size, mtime_ns, ctime_ns when it was claimed"
    sha256: str
    claimed_at: float
    ended_at: float | None = None
    location: str = ""
    "since it ended: folder below the inbox, or file below the outbox; empty if nowhere of ours"

    @property
    def folder(self) -> PurePosixPath:
        """The subfolder it was dropped into, relative to the inbox root."""
        return PurePosixPath(self.relative).parent

    @property
    def name(self) -> str:
        """Its own file name."""
        return PurePosixPath(self.relative).name


def new_id(now: float) -> str:
    """A drop id that sorts by time and reads as a date (UTC)."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(4)


def spec_to_json(spec: JobSpec) -> str:
    """A frozen spec as one JSON text."""
    fields = asdict(replace(spec, settings=Settings()))
    fields["settings"] = spec.settings.model_dump(mode="json", by_alias=True)
    return json.dumps(fields)


def spec_from_json(text: str) -> JobSpec:
    """The inverse of `spec_to_json`."""
    fields = json.loads(text)
    return JobSpec(
        **{
            **fields,
            "settings": Settings.model_validate(fields["settings"]),
            "voice": VoiceChoice(**fields["voice"]),
            "parts": tuple(Part(**part) for part in fields["parts"]),
            "warnings": tuple(fields["warnings"]),
            "synthesis_set": tuple(fields["synthesis_set"]),
            "need": Need(**fields.get("need", {})),
        }
    )
