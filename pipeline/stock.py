"""What there is that may ever be pruned: results, processed sources, left-over work files, takes.

Knows the ledger, the layout and the disk; decides nothing and changes nothing. Invariant: of results and
sources only what the ledger says we made is looked at.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pipeline.files import display
from pipeline.history import Past
from pipeline.intake.claim import below
from pipeline.jobs.job import Drop, DropState
from pipeline.layout import HIDDEN, Layout
from pipeline.ledger import Ledger
from pipeline.results import Result, ResultFile
from pipeline.retention import Piece, Pool, Unit


def survey(ledger: Ledger, layout: Layout) -> list[Unit]:
    """Everything that pruning may ever touch. A result that somebody took away is one without pieces."""
    unfinished = ledger.unfinished()
    found = [_result_unit(result, layout, unfinished) for result in ledger.results.all()]
    found += _source_units(ledger, layout)
    found += _work_units(ledger, layout)
    found += _cache_units(layout)
    return [unit for unit in found if unit.pieces or unit.pool in (Pool.WORK, Pool.RESULTS)]


def left_of(past: Past, layout: Layout) -> str:
    """Where something of a drop that has ended still lies; empty if nothing does.

    What lies in the inbox because it was left there (`source: leave`) would be taken once more if it was not
    known, and so would the files that a job file brought.
    """
    places: list[Path] = []
    if past.mode == "leave":
        places += [layout.inbox / member for member in past.members]
    if past.location:
        root = layout.outbox if past.state == DropState.FAILED else layout.inbox
        places.append(root / past.location)
    if past.location and past.state == DropState.DONE:
        return str(places[-1])  # if it is not there, that is for `audit` to tell
    return next((str(place) for place in places if os.path.lexists(place)), "")


def _result_unit(result: Result, layout: Layout, unfinished: set[str]) -> Unit:
    folder = layout.outbox / result.folder
    manifest = f"{result.stem}.json"
    there = _standing(folder, result.files)
    there.sort(key=lambda file: (file.name != manifest, file.name))
    pieces = tuple(Piece(name=PurePosixPath(f.name), bytes=f.bytes, sha256=f.sha256) for f in there)
    return Unit(
        pool=Pool.RESULTS,
        key=result.job_id,
        name=display(str(result.folder / result.stem)),
        root=layout.outbox,
        folder=result.folder,
        pieces=pieces,
        moment=result.published_at or 0.0,
        stem=result.stem,
        busy="a new version of it is being made" if result.job_id in unfinished else "",
    )


def _standing(folder: Path, files: Sequence[ResultFile]) -> list[ResultFile]:
    """The files that are there; of two records of one name (a crash left them) the one that fits."""
    found: dict[str, ResultFile] = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = os.lstat(folder / file.name)
            if file.name not in found or status.st_mtime_ns == file.mtime_ns:
                found[file.name] = file
    return list(found.values())


def _source_units(ledger: Ledger, layout: Layout) -> Iterator[Unit]:
    """Processed drops; and folders of some that were pruned, where a crash came between ledger and disk."""
    recordings = ledger.drops_of_kind("vc")
    standing = {entry.name for entry in _folders(layout.done_root)}
    for drop in ledger.drops_in(DropState.DONE):
        if drop.mode == "move" and drop.location:
            yield Unit(
                pool=Pool.SOURCES,
                key=drop.id,
                name=display(drop.relative),
                root=layout.inbox,
                folder=PurePosixPath(HIDDEN, "done", drop.id),
                pieces=_source_pieces(drop, layout.done(drop.id)),
                moment=drop.claimed_at if drop.ended_at is None else drop.ended_at,
                recording=drop.id in recordings,
            )
        elif drop.mode == "move" and drop.id in standing:
            yield _work_unit(layout.inbox, layout.done(drop.id))


def _source_pieces(drop: Drop, folder: Path) -> tuple[Piece, ...]:
    """The dropped file with its hash; of its companions only the ledger's word that they are ours."""
    pieces = []
    for member in drop.members:
        name = below(drop, member)
        with contextlib.suppress(OSError):
            status = os.lstat(folder / name)
            own = member == drop.relative
            pieces.append(
                Piece(
                    name=name,
                    bytes=drop.stamp[1] if own else status.st_size,
                    sha256=drop.sha256 if own else None,
                )
            )
    return tuple(pieces)


def _work_units(ledger: Ledger, layout: Layout) -> Iterator[Unit]:
    for root, place in ((layout.state, layout.work_root), (layout.outbox, layout.publishing_root)):
        for entry in _folders(place):
            job = ledger.job(entry.name)
            if job is not None and job.state.ended:
                yield _work_unit(root, place / entry.name)
    for entry in _folders(layout.spool_root):
        drop = ledger.drop(entry.name)
        if drop is not None and drop.state in (DropState.DONE, DropState.FAILED):
            yield _work_unit(layout.state, layout.spool(drop.id))


def _work_unit(root: Path, place: Path) -> Unit:
    pieces, newest = [], 0.0
    with contextlib.suppress(FileNotFoundError):  # its worker tidied up just now
        newest = os.lstat(place).st_mtime
    for directory, _, names in os.walk(place):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                pieces.append(Piece(name=PurePosixPath(path.relative_to(place)), bytes=status.st_size))
                newest = max(newest, status.st_mtime)
    folder = PurePosixPath(place.relative_to(root))
    return Unit(
        pool=Pool.WORK,
        key=str(folder),
        name=str(folder),
        root=root,
        folder=folder,
        pieces=tuple(pieces),
        moment=newest,
    )


def _cache_units(layout: Layout) -> Iterator[Unit]:
    """A unit is a take: its sheet (removed first, as the rest counts as absent then), sound, transcripts."""
    for shelf in _folders(layout.cache):
        takes: dict[str, list[os.DirEntry[str]]] = {}
        with os.scandir(shelf) as entries:
            for entry in entries:
                takes.setdefault(entry.name.partition(".")[0], []).append(entry)
        for key, files in takes.items():
            yield _take_unit(layout, shelf.name, key, files)


def _take_unit(layout: Layout, shelf: str, key: str, files: list[os.DirEntry[str]]) -> Unit:
    pieces, used = [], 0.0
    for entry in sorted(files, key=lambda entry: (entry.name != f"{key}.json", entry.name)):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            pieces.append(Piece(name=PurePosixPath(entry.name), bytes=status.st_size))
            used = max(used, status.st_mtime)
    return Unit(
        pool=Pool.CACHE,
        key=key,
        name=key[:16],
        root=layout.state,
        folder=PurePosixPath("cache", shelf),
        pieces=tuple(pieces),
        moment=used,
    )


def _folders(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if e.is_dir(follow_symlinks=False)), key=lambda e: e.name)
    except FileNotFoundError:
        return []
