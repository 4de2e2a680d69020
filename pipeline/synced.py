"""Folders that another program keeps alike on several machines: how to tell, and what it must leave alone.

Knows the marks of sync programs and Syncthing's `.stignore`; changes nothing. Invariant: our hidden files
are called left alone only where the lines that say so were read.
"""

import contextlib
import os
from pathlib import Path

from pipeline.intake.roots import MARKER_NAME
from pipeline.layout import HIDDEN

# Names that only the top of a synced folder holds; Dropbox's settings folder in a home is a directory.
SYNC_MARKS = (".stfolder", ".sync", ".dropbox.cache", ".tmp.drivedownload", ".owncloudsync.log")
SYNC_PREFIXES = (".csync_journal.db", "._sync_", ".sync_", ".nextcloudsync.log")
SYNCTHING_MARK = ".stfolder"
# `(?d)` lets Syncthing delete what it ignores together with the folder around it: right for half-made
# files, not for claimed ones, which somebody would delete by deleting the inbox on a phone.
STIGNORE = (HIDDEN, MARKER_NAME, "(?d)*.voxspool-*")
_DELETABLE = "(?d)"
_FLAGS = (_DELETABLE, "(?i)")


def sync_mark(root: Path) -> Path | None:
    """The mark of a synchronising program in `root` or above it, or None."""
    for folder in (root, *root.parents):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in SYNC_MARKS or entry.name.startswith(SYNC_PREFIXES):
                    return Path(entry.path)
                if entry.name == ".dropbox" and entry.is_file(follow_symlinks=False):
                    return Path(entry.path)
    return None


def missing_ignores(root: Path, mark: Path) -> tuple[str, ...]:
    """Which lines of STIGNORE the `.stignore` beside `mark` lacks for `root`; all if it is not Syncthing's.

    Format: docs.syncthing.net/users/ignoring.html. Lines that it includes from other files are not read.
    """
    if mark.name != SYNCTHING_MARK:
        return STIGNORE
    inside = root.relative_to(mark.parent)
    present = _patterns(mark.parent / ".stignore")
    return tuple(line for line in STIGNORE if not _stands(line, inside, present))


def _patterns(path: Path) -> list[tuple[str, bool]]:
    """The patterns of an ignore file in order, each with whether what it matches may be deleted."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [_parsed(line.strip()) for line in lines]


def _parsed(line: str) -> tuple[str, bool]:
    deletable = False
    while line.startswith(_FLAGS):
        deletable = deletable or line.startswith(_DELETABLE)
        line = line[len(_DELETABLE) :]
    return line.rstrip("/"), deletable


def _stands(line: str, inside: Path, present: list[tuple[str, bool]]) -> bool:
    """Whether one of the spellings of `line` is there, for a root that lies `inside` the synced folder."""
    pattern, may_go = _parsed(line)
    spellings = {pattern, f"**/{pattern}", f"/{inside / pattern}"}
    # the synced folder itself is never deleted by a sync, so what lies at its top cannot go with it
    safe = may_go or not inside.parts
    # of two lines that match the first counts
    deletable = next((deletable for found, deletable in present if found in spellings), None)
    return deletable is not None and (safe or not deletable)
