"""The answer to "why is nothing happening to this file?"

Knows where a file can be and what the ledger and the last status say of it. Invariant: there is
always an answer, and it says what to do if anything is to be done.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.config import Config
from pipeline.files import display
from pipeline.intake.ignore import Candidate, DropKind, IgnoreList, entry_type, explain_name
from pipeline.jobs.job import Drop, DropState, Job, JobState
from pipeline.layout import HIDDEN, Layout, last_place, layout_of
from pipeline.ledger import Ledger
from pipeline.outbox import is_ours, note_paths
from pipeline.status import moment


def explain(
    path: Path, config: Config, ledger: Ledger, status: Mapping[str, Any] | None, daemon_runs: bool
) -> list[str]:
    """Sentences about one file, by its path or by the name it had in the inbox."""
    layout = layout_of(config)
    told = list(_about(path, layout, config, ledger, status))
    if not told:
        told = [f"{display(path)} is neither in the inbox nor in the outbox, and was never seen there."]
    if not daemon_runs:
        told.append("Voxspool is not running: nothing happens to any file. Start it with `make run`.")
    elif layout.pause_file.exists():
        told.append(f"Voxspool is paused: delete {layout.pause_file} to go on.")
    elif status and status.get("trouble"):
        told.append(f"Voxspool cannot go on: {' '.join(status['trouble'])}")
    return told


def _about(
    path: Path, layout: Layout, config: Config, ledger: Ledger, status: Mapping[str, Any] | None
) -> Iterator[str]:
    absolute = _absolute(path, layout)
    inside = _relative(absolute, layout.inbox)
    if inside is not None and os.path.lexists(absolute) and not _was_left(inside, absolute, ledger):
        yield from _waiting(inside, absolute, config, status)
    if inside is not None:
        yield from (_drop(drop, layout, ledger) for drop in ledger.drops_of(inside)[:1])
    elif (below := _relative(absolute, layout.outbox)) is not None:
        yield from _in_outbox(below, absolute, layout, ledger)


def _absolute(path: Path, layout: Layout) -> Path:
    """A bare name that is not there from here is looked for in the inbox."""
    if path.is_absolute() or os.path.lexists(path):
        return Path(os.path.abspath(path))
    return layout.inbox / path


def _relative(path: Path, root: Path) -> str | None:
    """The path below `root`, whichever of its names leads there; a link itself is not followed."""
    real = path.parent.resolve() / path.name
    if root.resolve() not in real.parents:
        return None
    return str(real.relative_to(root.resolve()))


def _was_left(relative: str, path: Path, ledger: Ledger) -> bool:
    """Whether the file was taken just as it lies there (`source: leave`)."""
    status = os.lstat(path)
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ledger.already_taken(relative, stamp)


def _waiting(relative: str, path: Path, config: Config, status: Mapping[str, Any] | None) -> Iterator[str]:
    for entry in (status or {}).get("waiting", ()):
        if entry["path"] == display(relative):
            yield f"{entry['path']} is {entry['state']}: {entry['reason']}."
            return
    if relative.partition("/")[0] == HIDDEN:
        yield f"{display(relative)} lies in Voxspool's own folder: it was taken already."
        return
    kind, ignore = entry_type(os.lstat(path).st_mode), IgnoreList(config.intake.ignore)
    match ignore.classify(relative, kind):
        case Candidate(kind=drop) if drop is not DropKind.DEFAULTS and status is not None:
            yield f"{display(relative)} is a drop ({drop}). {_unlisted(status)}"
        case _:
            yield explain_name(relative, kind, ignore)


def _unlisted(status: Mapping[str, Any]) -> str:
    """What a status tells of a drop that it does not list: its own age, and how many it left out."""
    more = status.get("not_listed", {}).get("waiting", 0)
    told = f"The daemon's status of {status['updated_at']} does not name it"
    if more:
        return f"{told}: it may be one of the {more} waiting files that are only counted there."
    return f"{told}: it has come or changed since then."


def _drop(drop: Drop, layout: Layout, ledger: Ledger) -> str:
    taken = f"{display(drop.relative)} was taken at {moment(drop.claimed_at)} ({drop.id})"
    if drop.state is DropState.FAILED:
        place = last_place(layout, drop)
        where = f" and lies at {display(place)}" if place else ""
        return f"{taken}. It failed{where}. {_reasons(ledger.jobs_of(drop.id))}".rstrip()
    jobs = ledger.jobs_of(drop.id)
    return f"{taken}. {' '.join(_job(job) for job in jobs) or 'It is being read.'}"


def _reasons(jobs: list[Job]) -> str:
    return " ".join(
        f"{job.error_message} {job.error_hint or ''}".strip() for job in jobs if job.error_message
    )


def _job(job: Job) -> str:
    if job.state is JobState.DONE:
        return f"Its job {job.id} is done: see {job.folder / job.stem}.json in the outbox."
    if job.state is JobState.QUEUED:
        return f"Its job {job.id} is queued with priority {job.priority}."
    if job.state is JobState.RUNNING:
        return f"Its job {job.id} is being worked on."
    return f"Its job {job.id} {job.state}: {job.error_message}"


def _in_outbox(relative: str, path: Path, layout: Layout, ledger: Ledger) -> Iterator[str]:
    if not os.path.lexists(path):
        return
    below = PurePosixPath(relative)
    if below.parts[0] == layout.failed.name:
        note = note_paths(path)[0]
        beside = f"failed; {note.name} beside it says why" if note.exists() else "lies among what failed"
        yield f"{display(relative)} {beside}."
        return
    result = ledger.results.find(below.parent, below.stem)
    if result is not None and is_ours(path, result.files):
        yield f"{display(relative)} was made by job {result.job_id} from {display(result.source)}."
    else:
        yield f"{display(relative)} was not made by Voxspool, or was changed since: it is left alone."
