"""Is every file that was ever dropped in exactly one place? Disk against ledger, changing neither.

Knows the ledger, the layout and the names that count as drops. Invariant: a problem is something that
nobody but Voxspool could have caused, or that may have lost a file; what a person may do at any time
(taking a result away, changing it, moving a failed file back) is a note.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.files import display, sha256_of
from pipeline.intake.claim import below
from pipeline.intake.ignore import (
    Candidate,
    DropKind,
    Folder,
    Held,
    IgnoreList,
    Unsupported,
    Verdict,
    entry_type,
)
from pipeline.intake.roots import check_roots
from pipeline.jobs.job import Drop, DropState
from pipeline.layout import HIDDEN, Layout, last_place
from pipeline.ledger import Ledger
from pipeline.outbox import failed_name
from pipeline.results import Result

SECOND_LOOK_SECONDS = 0.5
NOTES_SHOWN = 20
ORPHAN_HINT = "look into it and move what you need back into the inbox"
TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.voxspool-tmp$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found. No problems: nothing is lost."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    "files waiting, held, claimed, done and failed; each that was ever seen is one of them"


def audit(
    ledger: Ledger,
    layout: Layout,
    ignore: IgnoreList | None = None,
    *,
    deep: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Audit:
    """Compare every drop, every hidden folder and every published file with the ledger.

    A daemon may be at work meanwhile, so only what is wrong at a second look too is a problem. `deep`:
    read every byte that we know a hash of. Raises EnvironmentFailure where a folder is not the one that
    it was: what is missing then is only out of sight.
    """
    check_roots(ledger, layout)
    found = _look(ledger, layout, ignore or IgnoreList(), deep)
    if found.problems:
        sleep(SECOND_LOOK_SECONDS)
        check_roots(ledger, layout)
        again = _look(ledger, layout, ignore or IgnoreList(), deep)
        lasting = tuple(problem for problem in again.problems if problem in found.problems)
        found = Audit(problems=lasting, notes=again.notes, counts=again.counts)
    return found


def describe(found: Audit) -> list[str]:
    """An audit line by line, as `audit` prints it."""
    verdict = (
        "Every file is in its place."
        if not found.problems
        else f"{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}."
    )
    counts = ", ".join(f"{number} {name}" for name, number in found.counts.items()) + "."
    problems = [f"problem: {problem}" for problem in found.problems]
    notes = [f"note: {note}" for note in found.notes[:NOTES_SHOWN]]
    more = len(found.notes) - NOTES_SHOWN
    return [verdict, counts, *problems, *notes, *([f"{more} more notes."] if more > 0 else [])]


def _look(ledger: Ledger, layout: Layout, ignore: IgnoreList, deep: bool) -> Audit:
    drops = ledger.drops_in(*DropState)
    open_jobs = ledger.open_jobs_by_drop()
    results = ledger.results.all()
    problems: list[str] = []
    notes: list[str] = []
    for drop in drops:
        problems += _drop_problems(drop, layout, open_jobs.get(drop.id), deep)
        notes += _drop_notes(drop, layout)
    problems += _orphans(layout, {drop.id: drop for drop in drops}, open_jobs)
    problems += [f"{job} is done, but its result never got its name." for job in ledger.unpublished()]
    for result in results:
        damaged, changed = _result_findings(result, layout, deep)
        problems += damaged
        notes += changed
    if deep:
        problems += [f"the ledger is damaged: {sentence}" for sentence in ledger.damage()]
    notes += _leftovers(layout, drops, ledger.unfinished())
    counts = _counts(drops, layout, _taken(ledger, layout, drops), ignore)
    return Audit(problems=tuple(problems), notes=tuple(notes), counts=counts)


# -- drops -------------------------------------------------------------------------------------


def _drop_problems(drop: Drop, layout: Layout, open_jobs: int | None, deep: bool) -> Iterator[str]:
    """`open_jobs`: how many of its jobs have not ended; None if it has no job at all."""
    name = f"{display(drop.relative)} ({drop.id})"
    if drop.state is DropState.CLAIMED and open_jobs is None:
        yield f"{name} is claimed, but has no job."
    if drop.state in (DropState.DONE, DropState.FAILED) and open_jobs:
        yield f"{name} is {drop.state}, but {open_jobs} of its jobs are not."
    places = _places(drop, layout, on_its_way=open_jobs == 0)
    standing = [place for place in places if os.path.lexists(place)]
    if not standing and places and drop.state is not DropState.CLAIMING:
        yield f"{name} is {drop.state}, but not at {display(places[0])}."
    elif len(standing) > 1 and drop.state is not DropState.CLAIMING and not _one_file(standing):
        yield f"{name} is in two places: {' and '.join(display(place) for place in standing)}."
    for place in standing[:1]:
        if drop.state is not DropState.CLAIMING:
            yield from _content_problems(drop, place, name, deep)
            yield from _member_problems(drop, place.parent, name, on_its_way=open_jobs == 0)


def _places(drop: Drop, layout: Layout, *, on_its_way: bool = False) -> list[Path]:
    """Where the dropped file may lie, one of which must hold it; none where nothing must be there.

    While it is being claimed, its name in the inbox may be that of a newer file already.
    `on_its_way`: all of its jobs have ended, so that its last move may be done and not yet noted.
    """
    claimed = layout.source_folder(drop.id, drop.mode) / drop.name
    if drop.state is DropState.CLAIMING:
        original = layout.inbox / drop.relative
        return [original] if drop.mode == "leave" else [claimed, original]
    if drop.state is DropState.CLAIMED and not on_its_way:
        return [claimed]
    if drop.state is DropState.CLAIMED:
        moved = [claimed, layout.done(drop.id) / drop.name, failed_name(layout, drop)]
        return moved if drop.mode == "move" else []
    place = last_place(layout, drop) if drop.state is DropState.DONE else None
    return [place] if place else []


def _one_file(places: list[Path]) -> bool:
    """Whether these are one file by name or by content: a move that a crash cut in the middle."""
    seen = [os.lstat(place) for place in places]
    linked = len({(status.st_dev, status.st_ino) for status in seen}) == 1
    return linked or len({_hash(place) for place in places}) == 1


def _content_problems(drop: Drop, place: Path, name: str, deep: bool) -> Iterator[str]:
    """Whether the file is still what was dropped: by size and time, and by its hash where those differ."""
    status = os.lstat(place)
    same = (status.st_size, status.st_mtime_ns) == drop.stamp[1:3]
    if drop.sha256 and (deep or not same) and _hash(place) != drop.sha256:
        yield f"{name} is not what was dropped any more: {display(place)} was changed."


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return "cannot be read"


def _member_problems(drop: Drop, folder: Path, name: str, *, on_its_way: bool) -> Iterator[str]:
    if on_its_way and drop.state is DropState.CLAIMED:
        return  # they go one by one
    for member in drop.members[1:]:
        if not os.path.lexists(folder / below(drop, member)):
            yield f"{name} is {drop.state}, but {display(member)}, which came with it, is not there."


def _drop_notes(drop: Drop, layout: Layout) -> Iterator[str]:
    if drop.state is DropState.CLAIMING and not any(map(os.path.lexists, _places(drop, layout))):
        # a claim is one rename: it was not there any more, or it went along with its job file
        yield f"{display(drop.relative)} ({drop.id}) went away before it could be taken."
    place = last_place(layout, drop) if drop.state is DropState.FAILED else None
    if place and not os.path.lexists(place):
        yield f"{display(drop.relative)} ({drop.id}) failed and was taken away from {display(place)}."


def _orphans(layout: Layout, drops: dict[str, Drop], open_jobs: dict[str, int]) -> Iterator[str]:
    """Hidden folders that no drop accounts for, or whose drop has moved on, or not got there yet."""
    for room, state in ((layout.claimed_root, DropState.CLAIMED), (layout.done_root, DropState.DONE)):
        for path in _children(room):
            drop = drops.get(path.name)
            if drop is None:
                yield f"{display(path)} is not in the ledger: {ORPHAN_HINT}."
            elif not (drop.state is state or _between(drop, state, open_jobs)):
                yield f"{display(path)} is there, though its drop is {drop.state}: {ORPHAN_HINT}."


def _between(drop: Drop, place: DropState, open_jobs: dict[str, int]) -> bool:
    """Whether a drop may be at `place` although the ledger does not say so yet."""
    if place is DropState.CLAIMED:
        return drop.state is DropState.CLAIMING
    return drop.state is DropState.CLAIMED and open_jobs.get(drop.id) == 0


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


# -- leftovers ---------------------------------------------------------------------------------


def _leftovers(layout: Layout, drops: list[Drop], unfinished: set[str]) -> Iterator[str]:
    """What a crash left and nobody needs: no file of anybody's is among it."""
    at_work = {drop.id for drop in drops if drop.state in (DropState.CLAIMING, DropState.CLAIMED)}
    rooms = ((layout.spool_root, at_work), (layout.work_root, unfinished))
    for room, wanted in (*rooms, (layout.publishing_root, unfinished)):
        for path in _children(room):
            if path.name not in wanted:
                yield f"{display(path)} is left over; it goes at the next start or the next pruning."
    for root in (layout.outbox, layout.inbox):
        for folder, _, names in os.walk(root):
            for name in filter(TEMPORARY.match, names):
                yield f"{display(os.path.join(folder, name))} was left by a crash and can be deleted."


# -- results -----------------------------------------------------------------------------------


def _result_findings(result: Result, layout: Layout, deep: bool) -> tuple[list[str], list[str]]:
    """Damage, which is nobody's doing, and what somebody did, as results belong to the people."""
    damaged, changed = [], []
    for file in result.files:
        place = PurePosixPath(result.folder, file.name)
        try:
            status = os.lstat(layout.outbox / place)
        except OSError:
            changed.append(f"{display(str(place))} is no longer in the outbox.")
            continue
        same = (status.st_size, status.st_mtime_ns) == (file.bytes, file.mtime_ns)
        if same and deep and _hash(layout.outbox / place) != file.sha256:
            damaged.append(f"{display(str(place))} is damaged: its bytes differ, its size and time do not.")
        elif not same and _hash(layout.outbox / place) != file.sha256:
            changed.append(f"{display(str(place))} was changed since it was published.")
    return damaged, changed


# -- the inbox ---------------------------------------------------------------------------------

Taken = Callable[[str, os.stat_result], bool]


def _taken(ledger: Ledger, layout: Layout, drops: list[Drop]) -> Taken:
    """Whether a file in the inbox is counted elsewhere: on its way, or done and left where it lay."""
    on_the_way = {(drop.relative, drop.stamp[0]) for drop in drops if drop.state is DropState.CLAIMING}
    parts = {part for part, job in ledger.parts_left().items() if os.path.lexists(layout.inbox / job)}

    def taken(relative: str, status: os.stat_result) -> bool:
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = (relative, status.st_ino) in on_the_way or relative in parts
        return known or ledger.already_taken(relative, stamp)

    return taken


def _counts(drops: list[Drop], layout: Layout, taken: Taken, ignore: IgnoreList) -> dict[str, int]:
    states = Counter(drop.state for drop in drops)
    there: Counter[str] = Counter()
    for relative, status, verdict in _entries(layout.inbox, "", ignore):
        if isinstance(verdict, Held | Unsupported):
            there["held"] += 1
        elif not taken(relative, status):
            there["waiting"] += 1
    return {
        "waiting": there["waiting"],
        "held": there["held"],
        "claimed": states[DropState.CLAIMING] + states[DropState.CLAIMED],
        "done": states[DropState.DONE],
        "failed": states[DropState.FAILED],
    }


def _entries(root: Path, relative: str, ignore: IgnoreList) -> Iterator[tuple[str, os.stat_result, Verdict]]:
    """Everything in the inbox that is a drop or may be meant as one."""
    try:
        with os.scandir(root / relative) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return  # its own scan says why a folder cannot be read
    for entry in found:
        if entry.name == HIDDEN:
            continue
        path = f"{relative}/{entry.name}" if relative else entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # taken just now
        verdict = ignore.classify_entry(path, entry_type(status.st_mode))
        if isinstance(verdict, Folder):
            yield from _entries(root, path, ignore)
        elif _may_be_a_drop(verdict):
            yield path, status, verdict


def _may_be_a_drop(verdict: Verdict) -> bool:
    if isinstance(verdict, Candidate):
        return verdict.kind is not DropKind.DEFAULTS
    return isinstance(verdict, Held | Unsupported)
