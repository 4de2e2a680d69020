"""The outbox: results, logs, manifests and failure notes, each published whole or not at all.

Knows the ledger's results and the disk; nothing of how sound is made. Invariants: the manifest
comes last and goes first; a file that is not ours, or that somebody changed, is never replaced.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline import crash
from pipeline.errors import EnvironmentFailure, InputError
from pipeline.files import (
    atomic_write,
    display,
    fsync_dir,
    held_folder,
    link_or_copy,
    move_new,
    open_regular,
    sha256_of,
    stat_is_regular,
)
from pipeline.jobs.job import Drop, Job, JobState, Source
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.naming import distinct_name, folded, numbered, safe_folder
from pipeline.results import Result, ResultFile
from pipeline.web_address import Fetched

MANIFEST_SCHEMA = "voxspool/manifest/1"
ERROR_SCHEMA = "voxspool/error/1"
FORMATS = ("wav", "mp3", "flac", "opus", "m4a", "m4b")
# What a result may consist of; a name is free only if none of these is taken by somebody else.
SUFFIXES = (*(f".{name}" for name in FORMATS), ".log", ".json")
RESERVED_FOLDERS = frozenset({"failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One finished audio file."""

    path: str
    "relative to the outbox"
    format: str
    sha256: str
    duration_seconds: float
    sample_rate_hz: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """What became of one chunk of the text."""

    index: int
    text: str
    seed: int
    tries: int
    cached: bool
    passed: bool | None
    "null: not checked"
    word_error_rate: float | None
    transcript: str | None
    start_seconds: float
    end_seconds: float
    reasons: tuple[str, ...] = ()
    "why the take did not pass"
    settings: dict[str, Any] = field(default_factory=dict)
    "what this take used instead of the job's own synthesis settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in seconds."""

    queued_seconds: float = 0.0
    synthesis_seconds: float = 0.0
    check_seconds: float = 0.0
    total_seconds: float = 0.0
    encode_wait_seconds: float = 0.0
    "time that the job waited for the encoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`<stem>.json`: what was made of what, with which settings, and how well."""

    schema: str = MANIFEST_SCHEMA
    job_id: str
    status: str
    kind: str
    source: Source
    engine: dict[str, str]
    settings: dict[str, Any]
    outputs: tuple[Output, ...] = ()
    chunks: tuple[ChunkRecord, ...] = ()
    chapters: tuple[dict[str, Any], ...] = ()
    timings: Timings = Timings()
    warnings: tuple[str, ...] = ()
    voxspool: str = ""
    "the version of Voxspool"
    check: str = "none"
    "the recogniser that checked, with its version, or `none` and why"
    fetched: tuple[Fetched, ...] = ()
    "what the job named by web address"
    error: dict[str, str] | None = None

    def to_json(self) -> bytes:
        """As it stands in the outbox."""
        fields = {key: value for key, value in asdict(self).items() if key != "error" or value is not None}
        return json.dumps(fields, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A finished audio file in a work folder, not yet published."""

    format: str
    path: Path
    duration_seconds: float
    sample_rate_hz: int


def may_use(
    layout: Layout, folder: PurePosixPath, candidate: str, earlier: Result | None, *, held: Path | None = None
) -> bool:
    """Whether a name in the outbox holds nothing but what we ourselves put there, unchanged.

    `held` is the folder where somebody holds it.
    """
    if str(folder) == "." and folded(candidate) == layout.status_file.stem:
        return False  # its manifest would be the daemon's own status file
    known = earlier.files if earlier else ()
    directory = held or layout.outbox / folder
    return all(
        is_ours(path, known) or not os.path.lexists(path)
        for path in (directory / f"{candidate}{suffix}" for suffix in SUFFIXES)
    )


def is_ours(path: Path, known: Sequence[ResultFile]) -> bool:
    """Whether `path` is one of the files that we published, as we published it."""
    like = [file for file in known if file.name == path.name]
    try:
        status = os.lstat(path)
        return stat_is_regular(status) and any(_is_same(file, path, status) for file in like)
    except OSError:
        return False  # gone, or not to be read: not to be replaced in any case


def _is_same(file: ResultFile, path: Path, status: os.stat_result) -> bool:
    if file.bytes != status.st_size:
        return False
    return file.mtime_ns == status.st_mtime_ns or file.sha256 == sha256_of(path)


def result_folder(dropped_into: PurePosixPath) -> PurePosixPath:
    """The subfolder of the outbox that mirrors one of the inbox; never one that is the outbox's own."""
    folder = safe_folder(dropped_into)
    if folder.parts and folded(folder.parts[0]) in RESERVED_FOLDERS:
        return PurePosixPath(f"_{folder.parts[0]}", *folder.parts[1:])
    return folder


def publish(
    layout: Layout,
    ledger: Ledger,
    job: Job,
    source_relative: str,
    rendered: Sequence[Rendered],
    log: str,
    manifest: Manifest,
) -> Manifest:
    """Put a job's results under their names; returns the manifest as it was written.

    Any step may be the last before a crash: doing it all again then finds its own files by their
    hashes, which are in the ledger before the first of them gets its name.
    """
    stage = layout.publishing(job.id)
    with _made_folder(layout, job.folder) as folder:
        for above in job.folder.parents:  # it may be new, and so may those above it
            fsync_dir(layout.outbox / above)
        while True:
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(parents=True)
            staged = [_stage(stage, item) for item in rendered]
            crash.point("publish.staged")
            stem = ledger.results.reserve(
                job.folder,
                job.stem,
                source=source_relative,
                index=job.index,
                job_id=job.id,
                may_use=lambda candidate, earlier: may_use(
                    layout, job.folder, candidate, earlier, held=folder
                ),
            )
            try:
                written = _publish_as(layout, ledger, job, folder, stem, staged, log, manifest)
            except FileExistsError:
                # somebody put a file there between the look and the move: take the next name
                _withdraw(ledger, job, folder, stem)
                continue
            if stem != job.stem:
                ledger.rename_job(job.id, stem)
            shutil.rmtree(stage, ignore_errors=True)
            return written


@contextlib.contextmanager
def _made_folder(layout: Layout, folder: PurePosixPath) -> Iterator[Path]:
    """The folder for results, held: whatever is done to its name meanwhile, they come out in it."""
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(held_folder(layout.outbox, folder, make=True))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            what = "link" if error.errno == errno.ELOOP else "file"
            raise InputError(
                f"The folder {folder} cannot be made in the outbox: a {what} stands in its place.",
                hint=f"Rename that {what}, or the folder in the inbox.",
                code="outbox_folder",
            ) from error
        yield held


def _withdraw(ledger: Ledger, job: Job, folder: Path, stem: str) -> None:
    """Take back half a result, and with it the rest of the earlier one that it was to replace."""
    planned = ledger.results.find(job.folder, stem)
    for file in planned.files if planned else ():
        _remove_ours(folder / file.name, [file])
    ledger.results.forget(job.folder, stem)


@dataclass(frozen=True, slots=True)
class _Staged:
    rendered: Rendered
    path: Path
    sha256: str


def _stage(stage: Path, item: Rendered) -> _Staged:
    path = stage / f"audio.{item.format}"
    link_or_copy(item.path, path)
    return _Staged(item, path, sha256_of(path))


def _publish_as(
    layout: Layout,
    ledger: Ledger,
    job: Job,
    directory: Path,
    stem: str,
    staged: Sequence[_Staged],
    log: str,
    manifest: Manifest,
) -> Manifest:
    outputs = tuple(_output(job.folder / f"{stem}.{s.rendered.format}", s) for s in staged)
    manifest = replace(manifest, outputs=outputs)
    sources = {f"{stem}.{s.rendered.format}": s.path for s in staged}
    hashes = {f"{stem}.{s.rendered.format}": s.sha256 for s in staged}
    for suffix, data in ((".log", log.encode("utf-8", "backslashreplace")), (".json", manifest.to_json())):
        sources[stem + suffix] = layout.publishing(job.id) / f"text{suffix}"
        hashes[stem + suffix] = hashlib.sha256(data).hexdigest()
        atomic_write(sources[stem + suffix], data)
    earlier = ledger.results.find(job.folder, stem)
    before = earlier.files if earlier else ()
    planned = [_result_file(name, path, hashes[name]) for name, path in sources.items()]
    ledger.results.plan_files(job.folder, stem, [*planned, *before])
    crash.point("publish.planned")
    _clear(directory, stem, before, keep=set(sources))
    _move_into(directory, stem, sources, [*planned, *before])
    published = [_result_file(name, directory / name, hashes[name]) for name in sources]
    ledger.results.publish(job.folder, stem, published)
    crash.point("publish.entered")
    return manifest


def _move_into(directory: Path, stem: str, sources: Mapping[str, Path], known: Sequence[ResultFile]) -> None:
    """Audio and log, and only when those are there for good the manifest."""
    manifest = f"{stem}.json"
    for name in [*(name for name in sources if name != manifest), manifest]:
        if name == manifest:
            fsync_dir(directory)
        _remove_ours(directory / name, known)
        move_new(sources[name], directory / name)
        crash.point("publish.moved")
    fsync_dir(directory)
    crash.point("publish.synced")


def _remove_ours(path: Path, known: Sequence[ResultFile]) -> None:
    if is_ours(path, known):
        path.unlink()


def _clear(directory: Path, stem: str, before: Sequence[ResultFile], keep: set[str]) -> None:
    """The earlier manifest goes first, for good; then the formats that are no longer wanted."""
    if not before:
        return
    _remove_ours(directory / f"{stem}.json", before)
    fsync_dir(directory)
    crash.point("publish.cleared")
    for file in before:
        if file.name not in keep:
            _remove_ours(directory / file.name, [file])


def _result_file(name: str, path: Path, sha256: str) -> ResultFile:
    status = path.stat()
    return ResultFile(name=name, bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=sha256)


def _output(path: PurePosixPath, staged: _Staged) -> Output:
    return Output(
        path=str(path),
        format=staged.rendered.format,
        sha256=staged.sha256,
        duration_seconds=round(staged.rendered.duration_seconds, 3),
        sample_rate_hz=staged.rendered.sample_rate_hz,
    )


# -- failures ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one job of a drop did not come out."""

    job_id: str
    code: str
    message: str
    hint: str
    index: int = 0
    kind: str = "tts"
    status: str = "failed"
    "failed or cancelled"


def failed_name(layout: Layout, drop: Drop, *, name: str | None = None) -> Path:
    """Where the dropped file itself goes: its own name below failed/, with a suffix where taken.

    `name` stands in for a name that the outbox's disk does not take.
    """
    folder = _folder_in(layout.failed, safe_folder(drop.folder))
    for number in range(1, 10_000):
        candidate = folder / numbered(name or drop.name, number)
        free = not os.path.lexists(candidate) or _same_bytes(candidate, drop)
        if free and _may_note(candidate):
            return candidate
    raise EnvironmentFailure(f"{folder} holds too many files called {display(drop.name)}.", hint="Tidy it.")


def _folder_in(root: Path, folder: PurePosixPath) -> Path:
    """`root / folder`, each of its names with a suffix where a file or a link has that name."""
    path = root
    for part in folder.parts:
        names = (path / numbered(part, number) for number in range(1, 10_000))
        path = next(name for name in names if _is_folder(name) or not os.path.lexists(name))
    return path


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _same_bytes(path: Path, drop: Drop) -> bool:
    """The very same content failed before: one copy of it is enough."""
    return path.is_file() and not path.is_symlink() and sha256_of(path) == drop.sha256


def _may_note(target: Path) -> bool:
    """Whether the names of the two notes are free or ours: people drop files called so, too."""
    text, record = note_paths(target)
    return _is_our_record(record) or not (os.path.lexists(text) or os.path.lexists(record))


def write_failure_notes(drop: Drop, target: Path, failures: Sequence[Failure]) -> Path:
    """`<name>.error.txt` for people and `<name>.error.json` for scripts, beside `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    text, record = note_paths(target)
    facts = {
        "schema": ERROR_SCHEMA,
        "status": "failed" if any(f.status == "failed" for f in failures) else "cancelled",
        "job_id": failures[0].job_id,
        "kind": failures[0].kind,
        "source": {"name": display(drop.relative), "sha256": drop.sha256, "bytes": drop.stamp[1]},
        "drop_id": drop.id,
        "error": {key: getattr(failures[0], key) for key in ("code", "message", "hint")},
        "jobs": [asdict(failure) for failure in failures],
    }
    atomic_write(record, json.dumps(facts, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    atomic_write(text, _note(drop, target, failures).encode("utf-8", "backslashreplace"))
    return text


def note_paths(target: Path) -> tuple[Path, Path]:
    """The names of the two notes about a failed file."""
    name = distinct_name(target.name)
    return target.parent / f"{name}.error.txt", target.parent / f"{name}.error.json"


def _note(drop: Drop, target: Path, failures: Sequence[Failure]) -> str:
    lines = []
    for failure in failures:
        which = f"Job {failure.index + 1}: " if len(failures) > 1 or failure.index else ""
        lines.append(which + failure.message)
        if failure.hint:
            lines.append(failure.hint)
    return "\n".join([*lines, "", _how_to_retry(drop, target), ""])


def _how_to_retry(drop: Drop, target: Path) -> str:
    if drop.mode == "leave":
        return f"To try again, change or touch {display(drop.name)} in the inbox: it was left there."
    parts = [display(PurePosixPath(member).name) for member in drop.members[1:]]
    with_parts = f", together with {', '.join(parts)}," if parts else ""
    return f"To try again, move {display(target.name)}{with_parts} from here back into the inbox."


def remove_stale_notes(layout: Layout, drop: Drop) -> None:
    """A file that failed before came out well now: its old notes would only confuse."""
    target = _folder_in(layout.failed, safe_folder(drop.folder)) / drop.name
    if os.path.lexists(target):
        return
    text, record = note_paths(target)
    if not _is_our_record(record):
        return
    text.unlink(missing_ok=True)
    record.unlink()
    with contextlib.suppress(OSError):
        if target.parent != layout.failed:
            target.parent.rmdir()


def _is_our_record(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            return bool(json.load(stream).get("schema") == ERROR_SCHEMA)
    except (OSError, ValueError, AttributeError):
        return False


def failure_of(job: Job) -> Failure:
    """An ended job's error as a failure."""
    return Failure(
        job_id=job.id,
        code=job.error_code or "unknown",
        message=job.error_message
        or ("It was cancelled." if job.state is JobState.CANCELLED else "It failed."),
        hint=job.error_hint or "",
        index=job.index,
        kind=job.spec.kind,
        status=str(job.state),
    )
