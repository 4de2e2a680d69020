"""Is every file that was ever dropped in exactly one place? Disk against ledger, changing neither.

Knows the ledger, the layout and the names that count as drops. Invariant: a problem is something that
nobody but Voxspool could have caused, or that may have lost a file; what a person may do at any time
(taking a result away, moving a failed file back) is a note.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.files import display, sha256_of
from pipeline.intake.ignore import Candidate, DropKind, Folder, IgnoreList, entry_type
from pipeline.jobs.job import Drop, DropState
from pipeline.layout import HIDDEN, Layout, last_place
from pipeline.ledger import Ledger
from pipeline.results import Result

ORPHAN_HINT = "look into it and move what you need back into the inbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found. No problems: nothing is lost."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    "files waiting, and drops in each state"


def audit(ledger: Ledger, layout: Layout, ignore: IgnoreList | None = None) -> Audit:
    """Compare every drop, every hidden folder and every published file with the ledger."""
    drops = ledger.drops_in(*DropState)
    jobs = ledger.jobs_by_drop()
    on_the_way = {drop.relative for drop in drops if drop.state is DropState.CLAIMING}
    waiting = _waiting(ledger, layout, ignore or IgnoreList(), on_the_way)
    problems = [
        *(problem for drop in drops for problem in _drop_problems(drop, layout, jobs.get(drop.id, 0))),
        *_orphans(layout, {drop.id: drop for drop in drops}),
    ]
    notes = [
        *(note for drop in drops for note in _drop_notes(drop, layout)),
        *(note for result in ledger.results.all() for note in _result_notes(result, layout)),
    ]
    states = Counter(drop.state for drop in drops)
    counts = {"waiting": waiting, **{state.value: states[state] for state in DropState}}
    return Audit(problems=tuple(problems), notes=tuple(notes), counts=counts)


def describe(found: Audit) -> list[str]:
    """An audit line by line, as `audit` prints it."""
    verdict = (
        "Every file is in its place."
        if not found.problems
        else f"{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}."
    )
    counts = ", ".join(f"{number} {name}" for name, number in found.counts.items()) + "."
    problems = [f"problem: {problem}" for problem in found.problems]
    return [verdict, counts, *problems, *(f"note: {note}" for note in found.notes)]


# -- drops -------------------------------------------------------------------------------------


def _drop_problems(drop: Drop, layout: Layout, jobs: int) -> Iterator[str]:
    name = f"{display(drop.relative)} ({drop.id})"
    places = _places(drop, layout)
    if places and not any(os.path.lexists(place) for place in places):
        yield f"{name} is {drop.state}, but not at {display(places[0])}."
    if drop.state is DropState.CLAIMED and jobs == 0:
        yield f"{name} is claimed, but has no job."


def _places(drop: Drop, layout: Layout) -> list[Path]:
    """Where the dropped file may lie, one of which must hold it; none where nothing must be there."""
    claimed = layout.source_folder(drop.id, drop.mode) / drop.name
    if drop.state is DropState.CLAIMING:
        return [claimed, layout.inbox / drop.relative]
    if drop.state is DropState.CLAIMED:
        return [claimed]
    place = last_place(layout, drop) if drop.state is DropState.DONE else None
    return [place] if place else []


def _drop_notes(drop: Drop, layout: Layout) -> Iterator[str]:
    place = last_place(layout, drop) if drop.state is DropState.FAILED else None
    if place and not os.path.lexists(place):
        yield f"{display(drop.relative)} ({drop.id}) failed and was taken away from {display(place)}."


def _orphans(layout: Layout, drops: dict[str, Drop]) -> Iterator[str]:
    """Hidden folders that no drop accounts for, or whose drop has moved on."""
    rooms = (
        (layout.claimed_root, (DropState.CLAIMING, DropState.CLAIMED)),
        (layout.done_root, (DropState.DONE, DropState.CLAIMED)),
        (layout.spool("any").parent, (DropState.CLAIMING, DropState.CLAIMED)),
    )
    for room, states in rooms:
        for path in _children(room):
            drop = drops.get(path.name)
            if drop is None:
                yield f"{display(path)} is not in the ledger: {ORPHAN_HINT}."
            elif drop.state not in states:
                yield f"{display(path)} is still there, though its drop is {drop.state}: {ORPHAN_HINT}."


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


# -- results -----------------------------------------------------------------------------------


def _result_notes(result: Result, layout: Layout) -> Iterator[str]:
    for file in result.files:
        place = PurePosixPath(result.folder, file.name)
        try:
            status = os.lstat(layout.outbox / place)
        except OSError:
            yield f"{display(str(place))} is no longer in the outbox."
            continue
        same = (status.st_size, status.st_mtime_ns) == (file.bytes, file.mtime_ns)
        if not same and sha256_of(layout.outbox / place) != file.sha256:
            yield f"{display(str(place))} was changed since it was published."


# -- the inbox ---------------------------------------------------------------------------------


def _waiting(ledger: Ledger, layout: Layout, ignore: IgnoreList, on_the_way: set[str]) -> int:
    """Files in the inbox that are drops and were not taken yet."""
    return sum(
        not ledger.already_taken(
            relative, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        )
        for relative, status in _candidates(layout.inbox, "", ignore)
        if relative not in on_the_way
    )


def _candidates(root: Path, relative: str, ignore: IgnoreList) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(root / relative) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return  # its own scan says why a folder cannot be read
    for entry in found:
        if entry.name == HIDDEN:
            continue
        path = f"{relative}/{entry.name}" if relative else entry.name
        status = entry.stat(follow_symlinks=False)
        verdict = ignore.classify_entry(path, entry_type(status.st_mode))
        if isinstance(verdict, Folder):
            yield from _candidates(root, path, ignore)
        elif isinstance(verdict, Candidate) and verdict.kind is not DropKind.DEFAULTS:
            yield path, status
