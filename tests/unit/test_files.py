"""File operations: whole or as before, never over a stranger, never a link, never a pipe."""

import errno
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import files


def refuse_links(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Make every hard link fail, as on a disk without them or across two disks."""

    def link(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)


def fail_after(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Make `os.<name>` fail."""

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, broken)


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden names too."""
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_replaces_the_whole_file(tmp_path: Path, durable: bool) -> None:
    """The new contents stand alone and nothing else is left in the folder."""
    target = tmp_path / "status.json"
    target.write_bytes(b"old and much longer than the new one")
    files.atomic_write(target, b"new", durable=durable)
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["status.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A full disk or a lost mount harms neither the old contents nor the folder."""
    target = tmp_path / "status.json"
    target.write_bytes(b"old")
    fail_after(monkeypatch, step, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        files.atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["status.json"]


def test_a_write_does_not_follow_a_link(tmp_path: Path) -> None:
    """A symbolic link under the target's name is replaced; what it pointed to stays."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    target = tmp_path / "status.json"
    target.symlink_to(precious)
    files.atomic_write(target, b"new")
    assert precious.read_bytes() == b"mine"
    assert not target.is_symlink()


@pytest.mark.parametrize("code", [None, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_link_or_copy_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """With links, across disks and where links are not supported, the target holds the bytes."""
    if code:
        refuse_links(monkeypatch, code)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * (files.COPY_BLOCK_BYTES + 7))
    files.link_or_copy(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert (target.stat().st_ino == source.stat().st_ino) is (code is None)


@pytest.mark.parametrize("operation", [files.link_or_copy, files.copy, files.move_new])
@pytest.mark.parametrize("code", [None, errno.EXDEV, errno.EPERM])
def test_nothing_replaces_a_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: Callable[[Path, Path], None], code: int | None
) -> None:
    """Linking, copying and moving refuse a name that is taken, and both files stay as they were."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"new")
    target.write_bytes(b"theirs")
    if code:
        refuse_links(monkeypatch, code)
    with pytest.raises(OSError) as caught:
        operation(source, target)
    assert caught.value.errno in (errno.EEXIST, errno.EXDEV)
    assert target.read_bytes() == b"theirs"
    assert source.read_bytes() == b"new"
    assert names(tmp_path) == ["a", "b"]


def test_a_copy_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half file is left under the target's name."""
    (tmp_path / "a").write_bytes(b"x" * 10)
    fail_after(monkeypatch, "fsync", errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        files.copy(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("code", [None, errno.EPERM])
def test_a_move_leaves_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    """After a move only the target is there, with links and without."""
    if code:
        refuse_links(monkeypatch, code)
    (tmp_path / "a").write_bytes(b"x")
    files.move_new(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b"]


def test_a_folder_can_be_moved_but_not_over_another(tmp_path: Path) -> None:
    """Folders cannot be linked; they are renamed after a look."""
    (tmp_path / "a").mkdir()
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError):
        files.move_new(tmp_path / "a", tmp_path / "taken")
    files.move_new(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b", "taken"]


def test_a_move_to_another_disk_keeps_the_bytes(tmp_path: Path) -> None:
    """Copied, made durable, named, and only then is the source removed."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second filesystem at /dev/shm")
    target = other / f"voxspool-test-{os.getpid()}"
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    try:
        files.move_new(tmp_path / "a", target)
        assert target.read_bytes() == b"x" * 100_000
        assert names(tmp_path) == []
    finally:
        target.unlink(missing_ok=True)


def test_a_broken_link_counts_as_a_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dangling link is somebody's; moving over it is refused, links supported or not."""
    (tmp_path / "b").symlink_to("nowhere")
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(FileExistsError):
        files.move_new(tmp_path / "a", tmp_path / "b")
    refuse_links(monkeypatch, errno.EPERM)
    with pytest.raises(FileExistsError):
        files.move_new(tmp_path / "a", tmp_path / "b")


def test_opening_a_regular_file_reads_it(tmp_path: Path) -> None:
    """The plain case."""
    (tmp_path / "a").write_bytes(b"text")
    with files.open_regular(tmp_path / "a") as stream:
        assert stream.read() == b"text"


@pytest.mark.timeout(10)
def test_links_pipes_sockets_folders_and_devices_are_refused(tmp_path: Path) -> None:
    """None of them is opened, none blocks, and each is told by an errno of the file, not of the machine."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        expected = {"pipe": errno.EINVAL, "folder": errno.EINVAL, "link": errno.ELOOP, "socket": errno.EINVAL}
        for name, code in expected.items():
            with pytest.raises(OSError) as caught:
                files.open_regular(tmp_path / name)
            assert caught.value.errno == code, name
            assert code not in files.ENVIRONMENT_ERRNOS
    with pytest.raises(OSError, match="not a regular file"):
        files.open_regular(Path("/dev/null"))


def test_refused_files_leave_no_descriptor_open(tmp_path: Path) -> None:
    """A folder full of odd things does not use up the descriptors."""
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(OSError):
            files.open_regular(tmp_path / "pipe")
    assert len(os.listdir("/proc/self/fd")) == before


def hold(path: Path, ready: object, done: object) -> None:
    """In a process of its own: hold the lock until told."""
    with files.exclusive_lock(path) as mine:
        assert mine
        ready.set()  # type: ignore[attr-defined]
        done.wait(30)  # type: ignore[attr-defined]


def test_only_one_process_holds_a_lock(tmp_path: Path) -> None:
    """A second one is told so at once, and gets it when the first has ended."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    child = context.Process(target=hold, args=(tmp_path / "lock", ready, done))
    child.start()
    assert ready.wait(30)
    with files.exclusive_lock(tmp_path / "lock") as mine:
        assert not mine
    done.set()
    child.join(30)
    with files.exclusive_lock(tmp_path / "lock") as mine:
        assert mine


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    """Against the published test vector."""
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_syncing_a_folder_tolerates_a_disk_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EINVAL from fsync on a folder is no failure; EIO is."""
    files.fsync_dir(tmp_path)
    fail_after(monkeypatch, "fsync", errno.EINVAL)
    files.fsync_dir(tmp_path)
    fail_after(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(OSError):
        files.fsync_dir(tmp_path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("story.txt", "story.txt"),
        ("\u00fcber \u4e2d.txt", "\u00fcber \u4e2d.txt"),
        (b"caf\xe9.txt", "caf\\xe9.txt"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("evil\u202etxt.exe", "evil\\xe2\\x80\\xaetxt.exe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_names_are_shown_without_tricks(name: str | bytes, shown: str) -> None:
    """Undecodable bytes, line ends, terminal escapes and direction marks are written out."""
    assert files.display(name) == shown


@given(st.one_of(st.binary(), st.text()))
def test_every_name_can_be_shown_on_one_line_and_stored(name: str | bytes) -> None:
    """Whatever the name: printable, one line, valid UTF-8."""
    shown = files.display(name)
    assert shown.isprintable()
    shown.encode("utf-8")
