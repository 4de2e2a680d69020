"""Whether a folder is the one we mean, and what it lies on."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import mounts
from pipeline.intake import roots
from pipeline.intake.roots import MARKER_NAME, Role, RootProblem, open_root, probe_writable


def test_without_proc_nothing_is_watchable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown filesystem is scanned and not watched."""
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "missing")
    root = open_root(tmp_path, Role.INBOX)
    assert root.mount.filesystem == "unknown"
    assert not root.watchable


def test_first_use_leaves_a_marker(tmp_path: Path) -> None:
    """The marker tells role, time and a UUID, and nothing else is left behind."""
    root = open_root(tmp_path, Role.OUTBOX)
    values = json.loads((tmp_path / MARKER_NAME).read_text())
    assert root.marker is not None
    assert values == {"uuid": root.marker.uuid, "role": "outbox", "created": root.marker.created}
    assert os.listdir(tmp_path) == [MARKER_NAME]
    root.check()


def test_a_marker_is_found_again(tmp_path: Path) -> None:
    """The second opening reads the same UUID."""
    first, second = open_root(tmp_path, Role.INBOX), open_root(tmp_path, Role.INBOX)
    assert first.marker == second.marker
    assert first.marker is not None
    assert open_root(tmp_path, Role.INBOX, expected_uuid=first.marker.uuid).marker == first.marker


def test_a_link_to_the_inbox_is_followed_once(tmp_path: Path) -> None:
    """The path given by the user may be a link; the root is what it leads to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert open_root(tmp_path / "link", Role.INBOX).path == (tmp_path / "real").resolve()


def test_a_lost_marker_is_a_problem_and_is_not_written_again(tmp_path: Path) -> None:
    """The bare folder below a lost mount looks right: it must not be used, nor marked."""
    root = open_root(tmp_path, Role.INBOX)
    assert root.marker is not None
    (tmp_path / MARKER_NAME).unlink()
    with pytest.raises(RootProblem, match="has lost its mark"):
        root.check()
    with pytest.raises(RootProblem, match="may not be mounted") as caught:
        open_root(tmp_path, Role.INBOX, expected_uuid=root.marker.uuid)
    assert os.listdir(tmp_path) == []
    command = caught.value.hint.partition("write the mark: ")[2]
    assert os.system(command) == 0
    root.check()
    assert open_root(tmp_path, Role.INBOX, expected_uuid=root.marker.uuid).marker is not None


def test_another_marker_is_a_problem(tmp_path: Path) -> None:
    """Another share mounted at the same place is told from ours."""
    root = open_root(tmp_path, Role.INBOX)
    (tmp_path / MARKER_NAME).write_text('{"uuid": "other", "role": "inbox"}')
    with pytest.raises(RootProblem, match="another mark than before"):
        root.check()


def test_one_folder_has_one_role(tmp_path: Path) -> None:
    """The outbox cannot be the inbox as well."""
    open_root(tmp_path, Role.OUTBOX)
    with pytest.raises(RootProblem, match="marked as Voxspool's outbox and cannot be its inbox"):
        open_root(tmp_path, Role.INBOX)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"uuid": 1}', "\udcff"])
def test_a_damaged_marker_is_told(tmp_path: Path, content: str) -> None:
    """A mark that cannot be understood is a problem and not a reason to start anew."""
    (tmp_path / MARKER_NAME).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RootProblem, match="is damaged"):
        open_root(tmp_path, Role.INBOX)


def test_an_unreadable_marker_is_told(tmp_path: Path) -> None:
    """A mark that is no file is told with the system's words."""
    (tmp_path / MARKER_NAME).mkdir()
    with pytest.raises(RootProblem, match="cannot be read: Is a directory"):
        open_root(tmp_path, Role.INBOX)


def test_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    """Neither a missing folder nor a file in its place is created, replaced or used."""
    with pytest.raises(RootProblem, match="cannot be reached: No such file"):
        open_root(tmp_path / "missing", Role.INBOX)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RootProblem, match="is not a folder"):
        open_root(tmp_path / "file", Role.INBOX)


def test_another_device_is_a_problem(tmp_path: Path) -> None:
    """Something mounted over the inbox, or unmounted from it, is noticed at the next check."""
    root = replace(open_root(tmp_path, Role.INBOX), device=-1)
    with pytest.raises(RootProblem, match="on another filesystem than before"):
        root.check()


def refuse(number: int) -> object:
    """A write_text and write_bytes that fail as on a read-only filesystem."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_inbox_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """An inbox that takes no mark works, and says what is less certain then. (Injected error: the tests may
    run as root, who can write anywhere.)"""
    monkeypatch.setattr(Path, "write_text", refuse(number))
    root = open_root(tmp_path, Role.INBOX)
    assert root.marker is None
    assert "read-only and carries no mark" in root.note
    root.check()


def test_a_read_only_outbox_is_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where results shall go must be writable."""
    monkeypatch.setattr(Path, "write_text", refuse(errno.EROFS))
    with pytest.raises(RootProblem, match="Nothing can be created, renamed and deleted"):
        open_root(tmp_path, Role.OUTBOX)


def test_a_full_disk_is_no_read_only_inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only permission makes an inbox count as read-only; a full disk is a problem to mend."""
    monkeypatch.setattr(Path, "write_text", refuse(errno.ENOSPC))
    with pytest.raises(RootProblem, match="No space left"):
        open_root(tmp_path, Role.INBOX)


def test_two_that_start_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is second to leave the marker takes over the first one's."""
    real = roots.move_new

    def beaten(source: Path, target: Path) -> None:
        target.write_text('{"uuid": "first", "role": "inbox", "created": "now"}')
        real(source, target)

    monkeypatch.setattr(roots, "move_new", beaten)
    root = open_root(tmp_path, Role.INBOX)
    assert root.marker is not None
    assert root.marker.uuid == "first"
    assert os.listdir(tmp_path) == [MARKER_NAME]


def test_the_write_probe_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create, rename, delete: all three are tried and cleaned up, also where one fails."""
    probe_writable(tmp_path)
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(os, "rename", refuse(errno.EACCES))
    with pytest.raises(RootProblem, match="Permission denied") as caught:
        probe_writable(tmp_path)
    assert f"uid {os.geteuid()}" in caught.value.hint
    assert os.listdir(tmp_path) == []
