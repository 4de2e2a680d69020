"""The answer to "why is nothing happening to this file?"

Knows where a file can be and what the ledger and the last status say of it. Invariant: there is
always an answer, and it says what to do if anything is to be done.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.config import Config
from pipeline.files import display
from pipeline.intake.aside import answers
from pipeline.intake.ignore import Candidate, DropKind, IgnoreList, entry_type, explain_name
from pipeline.jobs.job import Drop, DropState, Job, JobState
from pipeline.layout import HIDDEN, Layout, last_place, layout_of
from pipeline.ledger import Ledger
from pipeline.outbox import is_ours, note_paths
from pipeline.status import moment

PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Where to look a file up."""

    layout: Layout
    ledger: Ledger
    short: Mapping[str, str]
    "which queued jobs wait for room, and how much, by the last status"


def explain(
    path: Path, config: Config, ledger: Ledger, status: Mapping[str, Any] | None, daemon_runs: bool
) -> list[str]:
    """Sentences about one file, by its path or by the name it had in the inbox."""
    layout = layout_of(config)
    silent = [root for root in (layout.inbox, layout.outbox) if not answers(root, PATIENCE_SECONDS)]
    if silent:
        silence = f"{display(silent[0])} does not answer, so nothing can be said of {display(path)}."
        return [silence, "It goes on by itself when it does; `python daemon.py doctor` says what to do."]
    short = {entry["job"]: entry["reason"] for entry in (status or {}).get("queued", ()) if "reason" in entry}
    known = _Known(layout=layout, ledger=ledger, short=short)
    told = list(_about(path, known, config, status))
    if not told:
        told = [f"{display(path)} is neither in the inbox nor in the outbox, and was never seen there."]
    if not daemon_runs:
        told.append("Voxspool is not running: nothing happens to any file. Start it with `make run`.")
    elif pauses := [
        str(path) for path in (layout.own_pause_file, layout.pause_file) if os.path.lexists(path)
    ]:
        told.append(f"Voxspool is paused: delete {' and '.join(pauses)} to go on.")
    elif status and status.get("trouble"):
        told.append(f"Voxspool cannot go on: {' '.join(status['trouble'])}")
    return told


def _about(path: Path, known: _Known, config: Config, status: Mapping[str, Any] | None) -> Iterator[str]:
    layout, ledger = known.layout, known.ledger
    absolute = _absolute(path, layout)
    inside, below = _relative(absolute, layout.inbox), _relative(absolute, layout.outbox)
    if inside is not None and inside.partition("/")[0] == HIDDEN:
        yield from _our_folder(PurePosixPath(inside), known)
    elif inside is not None:
        if os.path.lexists(absolute) and not _was_left(inside, absolute, ledger):
            yield from _waiting(inside, absolute, config, status)
        yield from _taken(inside, known)
    elif below is not None:
        yield from _in_outbox(below, absolute, known)
    elif _relative(absolute, layout.voices) is not None:
        yield f"{display(path)} lies in the voices folder: jobs may name it, nothing else is done with it."
    elif _relative(absolute, layout.state) is not None:
        yield f"{display(path)} lies in the state folder, which is Voxspool's own: leave it alone."


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


# -- in the inbox ------------------------------------------------------------------------------


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


def _our_folder(inside: PurePosixPath, known: _Known) -> Iterator[str]:
    """A file below the hidden folder, where a drop's own folder has the drop's id."""
    shown = display(str(inside))
    drop = known.ledger.drop(inside.parts[2]) if len(inside.parts) > 3 else None
    if drop is None:
        yield f"{shown} lies in Voxspool's own folder: it was taken already. Leave it alone."
        return
    yield f"{shown} lies in Voxspool's own folder."
    yield _drop(drop, known)


# -- taken -------------------------------------------------------------------------------------


def _taken(relative: str, known: _Known) -> Iterator[str]:
    """The newest drop of this name, be it that of a job file that named it."""
    own, along = known.ledger.drops_of(relative)[:1], known.ledger.drops_with(relative)[:1]
    if along and (not own or own[0].claimed_at < along[0].claimed_at):
        yield f"{display(relative)} was taken along with {display(along[0].relative)}, which names it."
        own = along
    yield from (_drop(drop, known) for drop in own)


def _drop(drop: Drop, known: _Known) -> str:
    taken = f"{display(drop.relative)} was taken at {moment(drop.claimed_at)} ({drop.id})."
    jobs = known.ledger.jobs_of(drop.id)
    if drop.state is DropState.CLAIMING or not jobs:
        return f"{taken} It is being read."
    if drop.state is DropState.FAILED:
        return f"{taken} {_failed(drop, jobs, known.layout)}".rstrip()
    told = " ".join(_job(job, known) for job in jobs)
    return f"{taken} {told} {_source(drop, jobs, known.layout)}".rstrip()


def _failed(drop: Drop, jobs: list[Job], layout: Layout) -> str:
    how = "It was cancelled" if all(job.state is JobState.CANCELLED for job in jobs) else "It failed"
    place = last_place(layout, drop)
    reasons = " ".join(
        f"{job.error_message} {job.error_hint or ''}".strip() for job in jobs if job.error_message
    )
    if place is None:
        return f"{how}. {reasons}"
    if os.path.lexists(place):
        return f"{how} and lies at {display(place)}. {reasons}"
    return f"{how}; {display(place)} was taken away since. {reasons}"


def _source(drop: Drop, jobs: list[Job], layout: Layout) -> str:
    """Where the dropped file itself is."""
    if drop.state is not DropState.DONE:
        return "" if any(not job.state.ended for job in jobs) else "Its own last move is still to come."
    if drop.mode != "move":
        return "The file stays in the inbox." if drop.mode == "leave" else "The file was deleted after that."
    place = last_place(layout, drop)
    if place is None:
        return "The file was pruned since."
    return f"The file {'lies at' if os.path.lexists(place) else 'was taken away from'} {display(place)}."


def _job(job: Job, known: _Known) -> str:
    match job.state:
        case JobState.QUEUED:
            return f"Its job {job.id} is queued with priority {job.priority}{_why_queued(job, known)}."
        case JobState.RUNNING:
            return f"Its job {job.id} is being worked on{_how_far(job, known.ledger)}."
        case JobState.DONE:
            return f"Its job {job.id} is done{_result(job, known)}."
        case _:
            return f"Its job {job.id} {job.state}: {job.error_message}"


def _why_queued(job: Job, known: _Known) -> str:
    why = known.ledger.why_queued(job.id)
    if why is None:
        return ""
    if why.cancel_requested:
        return " and is about to be cancelled"
    if why.not_before is not None:
        reason = (known.ledger.meta("trouble") or "the machine was at fault").rstrip(".")
        return f"; it is tried again at {moment(why.not_before)}, since the machine was at fault: {reason}"
    if short := known.short.get(job.id):
        return f"; it waits for room: {short}"
    if why.same_name is not None:
        return f"; it waits for job {why.same_name}, whose result has the same name"
    if why.ahead:
        return f"; {why.ahead} {'job comes' if why.ahead == 1 else 'jobs come'} before it"
    return "; it is the next"


def _how_far(job: Job, ledger: Ledger) -> str:
    for progress in ledger.progress():
        if progress.job.id == job.id:
            chunks = f", {progress.done_chunks} of {progress.total_chunks} chunks done"
            tries = f", attempt {job.attempts}" if job.attempts > 1 else ""
            since = f" since {moment(progress.started_at)}"
            return f"{since} ({progress.stage}{chunks if progress.total_chunks else ''}{tries})"
    return ""


def _result(job: Job, known: _Known) -> str:
    """What stands in the outbox of it today."""
    name = f"{job.folder / job.stem}.json"
    result = known.ledger.results.find(job.folder, job.stem)
    if result is None:
        return "; its result was pruned since, as `retention` in config.yaml says"
    if result.job_id != job.id:
        return f"; job {result.job_id}, of a later drop, took its result's place"
    if not os.path.lexists(known.layout.outbox / name):
        return f"; somebody took {display(name)} out of the outbox since"
    return f": see {display(name)} in the outbox"


# -- in the outbox -----------------------------------------------------------------------------


def _in_outbox(relative: str, path: Path, known: _Known) -> Iterator[str]:
    below = PurePosixPath(relative)
    if not os.path.lexists(path):
        jobs = known.ledger.jobs_named(below.parent, below.stem)[:1]
        yield from (f"{display(relative)} is not there. {_job(job, known)}" for job in jobs)
    elif path == known.layout.status_file:
        yield f"{display(relative)} is the daemon's own: `python daemon.py status` shows it."
    elif below.parts[0] == HIDDEN:
        yield f"{display(relative)} is being made, or left over from that. Leave it alone."
    elif below.parts[0] == known.layout.failed.name:
        note = note_paths(path)[0]
        beside = f"failed; {note.name} beside it says why" if note.exists() else "lies among what failed"
        yield f"{display(relative)} {beside}."
    else:
        yield _made_by(below, path, known.ledger)


def _made_by(below: PurePosixPath, path: Path, ledger: Ledger) -> str:
    result = ledger.results.find(below.parent, below.stem)
    if result is not None and is_ours(path, result.files):
        return f"{display(str(below))} was made by job {result.job_id} from {display(result.source)}."
    return f"{display(str(below))} was not made by Voxspool, or was changed since: it is left alone."
