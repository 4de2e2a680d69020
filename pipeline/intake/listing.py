"""What lies in one folder of the inbox, by name and type only.

Lists a folder through the ignore list; what needs no further look is turned into the sentence that the
status shows. Knows nothing of settling. Invariant: a remembered listing is used only where a folder's
own times are known to tell of every new name, after they have been unchanged for long enough for clocks
that tick coarsely, and never for more than a minute.
"""

import os
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.intake.ignore import (
    Candidate,
    DropKind,
    EntryType,
    Folder,
    Held,
    Ignored,
    IgnoreList,
    Unsupported,
    Verdict,
    entry_type,
)
from pipeline.intake.settle import State

RIPE_SECONDS = 2.5
RELIST_SECONDS = 60.0
# A job file and the folder's defaults are looked at before what they may hold back.
_ORDER = {DropKind.DEFAULTS: 0, DropKind.JOB: 1, DropKind.TEXT: 2, DropKind.AUDIO: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An entry that is not handed on, and why. `relative` may hold surrogate escapes: show it with
    `files.display`. `since` is in monotonic seconds.
    """

    relative: str
    state: State
    reason: str
    since: float


class Entry(NamedTuple):
    """A file that is a drop by its name."""

    name: str
    relative: str
    kind: DropKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A folder's entries: files that may be drops, folders to look into, what is shown, what is not."""

    entries: tuple[Entry, ...] = ()
    folders: tuple[str, ...] = ()
    shown: tuple[Waiting, ...] = ()
    ignored: int = 0

    def __len__(self) -> int:
        return len(self.entries) + len(self.folders) + len(self.shown) + self.ignored


_STATES: dict[type[Held] | type[Unsupported] | type[Ignored], State] = {
    Held: State.HELD,
    Unsupported: State.UNSUPPORTED,
    Ignored: State.IGNORED,
}


def type_of(entry: os.DirEntry[str]) -> EntryType:
    """The type of an entry; costs a stat call only for what is neither file, folder nor link."""
    if entry.is_file(follow_symlinks=False):
        return EntryType.FILE
    if entry.is_dir(follow_symlinks=False):
        return EntryType.FOLDER
    if entry.is_symlink():
        return EntryType.LINK
    return entry_type(entry.stat(follow_symlinks=False).st_mode)


def list_folder(
    path: str, relative: str, ignore: IgnoreList, now: float, *, before: Listing | None = None
) -> Listing:
    """List the folder `path`; `before` is its earlier listing, from which `since` is kept.

    Raises OSError where it cannot be listed. A link in the folder's place is not followed.
    """
    since = {waiting.relative: waiting.since for waiting in before.shown} if before else {}
    sorter = _Sorter(since, now)
    prefix = relative + "/" if relative else ""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                _sort_in(sorter, entry, prefix, ignore)
    finally:
        os.close(fd)
    return sorter.listing()


def _sort_in(sorter: "_Sorter", entry: os.DirEntry[str], prefix: str, ignore: IgnoreList) -> None:
    """Judge one entry; one that vanished meanwhile is left out."""
    inner = prefix + entry.name
    try:
        kind = type_of(entry)
    except FileNotFoundError:
        return
    sorter.add(entry.name, inner, ignore.classify_entry(inner, kind))


class _Sorter:
    """Gathers a listing."""

    def __init__(self, since: dict[str, float], now: float) -> None:
        self._since, self._now = since, now
        self._entries: list[Entry] = []
        self._folders: list[str] = []
        self._shown: list[Waiting] = []
        self._ignored = 0

    def add(self, name: str, relative: str, verdict: Verdict) -> None:
        """Put one entry where it belongs."""
        if isinstance(verdict, Candidate):
            self._entries.append(Entry(name, relative, verdict.kind))
        elif isinstance(verdict, Folder):
            self._folders.append(name)
            if verdict.note:
                self._show(relative, State.IGNORED, verdict.note)
        elif isinstance(verdict, Ignored) and not verdict.shown:
            self._ignored += 1
        else:
            self._show(relative, _STATES[type(verdict)], verdict.reason)

    def _show(self, relative: str, state: State, reason: str) -> None:
        """Show an entry with its reason."""
        since = self._since.get(relative, self._now)
        self._shown.append(Waiting(relative=relative, state=state, reason=reason, since=since))

    def listing(self) -> Listing:
        """What was gathered, in an order that does not depend on the filesystem."""
        return Listing(
            entries=tuple(sorted(self._entries, key=lambda entry: (_ORDER[entry.kind], entry.name))),
            folders=tuple(sorted(self._folders)),
            shown=tuple(sorted(self._shown, key=lambda waiting: waiting.relative)),
            ignored=self._ignored,
        )


@dataclass(slots=True)
class _Remembered:
    """A listing with the folder's stamp, since when the stamp is known, and when it was listed."""

    stamp: tuple[int, int, int, int]
    stamp_since: float
    listed_at: float
    listing: Listing


class Listings:
    """The listings of all folders; lists a folder again only where its names may have changed."""

    def __init__(self, ignore: IgnoreList, *, honest_times: bool) -> None:
        self._ignore, self._honest = ignore, honest_times
        self._remembered: dict[str, _Remembered] = {}
        self.listed = 0
        "how often a folder was really listed"

    def look(self, path: str, relative: str, status: os.stat_result, now: float) -> Listing:
        """The listing of a folder whose fresh stat result is `status`. Raises OSError."""
        stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        known = self._remembered.get(relative)
        same = known is not None and known.stamp == stamp
        if known is not None and same and self._fresh(known, now):
            return known.listing
        before = known.listing if known else None
        listing = list_folder(path, relative, self._ignore, now, before=before)
        self.listed += 1
        since = known.stamp_since if known is not None and same else now
        self._remembered[relative] = _Remembered(stamp, since, now, listing)
        return listing

    def keep(self, relatives: set[str]) -> None:
        """Forget every folder that is not among `relatives`."""
        if len(self._remembered) > len(relatives):
            self._remembered = {key: kept for key, kept in self._remembered.items() if key in relatives}

    def _fresh(self, known: _Remembered, now: float) -> bool:
        """Whether a remembered listing of an unchanged stamp still holds."""
        ripe = known.listed_at - known.stamp_since >= RIPE_SECONDS
        return self._honest and ripe and now - known.listed_at < RELIST_SECONDS
