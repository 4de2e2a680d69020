"""Folders that a sync program keeps alike: how they are known, and what Syncthing must be told."""

from pathlib import Path

import pytest

from pipeline.synced import STIGNORE, missing_ignores, sync_mark


@pytest.fixture
def synced(tmp_path: Path) -> Path:
    """A folder that Syncthing shares."""
    (tmp_path / ".stfolder").mkdir()
    (tmp_path / "sub" / "inbox").mkdir(parents=True)
    return tmp_path


def missing(synced: Path, root: str, *lines: str) -> tuple[str, ...]:
    """What a `.stignore` of these lines lacks for a root in the synced folder."""
    (synced / ".stignore").write_text("\n".join(lines) + "\n")
    mark = sync_mark(synced / root)
    assert mark is not None
    return missing_ignores(synced / root, mark)


def test_without_an_ignore_file_every_line_is_missing(synced: Path) -> None:
    """And with all of them none, among whatever else stands there."""
    assert missing_ignores(synced, synced / ".stfolder") == STIGNORE
    assert missing(synced, ".", "// mine", "*.bak", *STIGNORE) == ()


@pytest.mark.parametrize(
    "line", [".voxspool", "/.voxspool", "(?d)/.voxspool", "**/.voxspool", "(?i).voxspool/"]
)
def test_a_line_may_be_spelled_in_syncthing_s_ways(synced: Path, line: str) -> None:
    """At the top of the synced folder all of these do the same."""
    assert ".voxspool" not in missing(synced, ".", line)


def test_a_line_for_the_top_does_nothing_for_an_inbox_further_down(synced: Path) -> None:
    """`/.voxspool` matches beside the mark only; without the slash, or with the whole path, it holds."""
    assert ".voxspool" in missing(synced, "sub/inbox", "/.voxspool")
    assert ".voxspool" not in missing(synced, "sub/inbox", ".voxspool")
    assert ".voxspool" not in missing(synced, "sub/inbox", "/sub/inbox/.voxspool")


def test_what_may_be_deleted_with_its_folder_must_not_hold_claimed_files(synced: Path) -> None:
    """Deleting such an inbox on a phone would delete them here; the first line that matches counts."""
    assert ".voxspool" in missing(synced, "sub/inbox", "(?d).voxspool", ".voxspool")
    assert ".voxspool" not in missing(synced, "sub/inbox", ".voxspool", "(?d).voxspool")


def test_another_program_s_mark_promises_nothing(tmp_path: Path) -> None:
    """Only Syncthing's ignore file is understood."""
    (tmp_path / ".stignore").write_text("\n".join(STIGNORE))
    assert missing_ignores(tmp_path, tmp_path / ".sync") == STIGNORE


def test_dropbox_settings_in_a_home_folder_are_no_mark(tmp_path: Path) -> None:
    """Dropbox keeps a folder of that name in every home; in its own folder it is a file."""
    (tmp_path / ".dropbox").mkdir()
    assert sync_mark(tmp_path) is None
