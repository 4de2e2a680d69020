"""File operations: whole or as before, never over a stranger, never a link, never a pipe."""

import contextlib
import ctypes
import errno
import multiprocessing
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path, PurePosixPath

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


def test_what_a_crash_left_is_taken_up_by_the_next_write(tmp_path: Path) -> None:
    """The hidden name is always the same; a link that somebody put there is not written through."""
    target = tmp_path / "status.json"
    hidden = files._hidden_beside(target)
    hidden.write_bytes(b"half a st")
    files.atomic_write(target, b"new")
    assert names(tmp_path) == ["status.json"]
    hidden.symlink_to(tmp_path / "elsewhere")
    files.atomic_write(target, b"newer")
    assert names(tmp_path) == ["status.json"]


def test_a_move_that_a_crash_cut_after_the_link_is_finished(tmp_path: Path) -> None:
    """Both names mean one file: only another file is in the way."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x")
    os.link(source, target)
    files.move_new(source, target)
    assert names(tmp_path) == ["b"]


def test_a_write_does_not_follow_a_link(tmp_path: Path) -> None:
    """A symbolic link under the target's name is replaced; what it pointed to stays."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    target = tmp_path / "status.json"
    target.symlink_to(precious)
    files.atomic_write(target, b"new")
    assert precious.read_bytes() == b"mine"
    assert not target.is_symlink()


@pytest.mark.parametrize("code", [None, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EIO])
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


@pytest.mark.parametrize("code", [None, errno.EPERM, errno.EIO])
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


# -- beneath a root -----------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with `a/b/x.txt` in it, and a secret outside."""
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/x.txt").write_bytes(b"ours")
    (tmp_path / "outside/b").mkdir(parents=True)
    (tmp_path / "outside/b/x.txt").write_bytes(b"secret")
    return root


def read_beneath(root: Path, relative: str) -> bytes:
    """What is read there."""
    with files.open_beneath(root, relative) as stream:
        return stream.read()


def test_a_file_beneath_a_root_is_read(tree: Path, tmp_path: Path) -> None:
    """Also where the root itself is a link, which is the owner's own doing."""
    (tmp_path / "link").symlink_to(tree)
    assert read_beneath(tree, "a/b/x.txt") == read_beneath(tmp_path / "link", "a//./b/x.txt") == b"ours"


@pytest.mark.parametrize(
    ("relative", "code"),
    [
        *((name, errno.EINVAL) for name in ("../outside/b/x.txt", "a/../../outside/b/x.txt", "..", "a/b/..")),
        *((name, errno.EINVAL) for name in ("/etc/hostname", "//etc/hostname", "a\0/b/x.txt", "a/b/x.txt\0")),
        *((name, errno.EINVAL) for name in ("", ".", "a/b")),
        *((name, errno.ENOENT) for name in ("~/x.txt", "C:/x.txt", "C:\\x.txt", "..\\outside\\b\\x.txt")),
        *((name, errno.ENOENT) for name in ("\uff0e\uff0e/outside/b/x.txt", "a\u2215b\u2215x.txt")),
        *((name, errno.ENOENT) for name in ("\u2025/outside/b/x.txt", ".\u200b./x.txt", "a/b/x.txt ")),
        ("a/b/x.txt/y", errno.ENOTDIR),
        ("x" * 256, errno.ENAMETOOLONG),
        ("x" * 256 + "/x.txt", errno.ENAMETOOLONG),
        ("d/" * 100_000 + "x.txt", errno.ENOENT),
        ("../" * 100_000 + "etc/hostname", errno.EINVAL),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)  # fmt: skip
def test_nothing_else_is(tree: Path, relative: str, code: int) -> None:
    """Whatever a job file names: what leads out is refused, what only looks so is a name like any other."""
    with pytest.raises(OSError) as caught:
        files.open_beneath(tree, relative)
    assert caught.value.errno == code
    assert str(caught.value.filename).startswith(str(tree)), "the place as people know it"


@pytest.mark.parametrize("place", ["a", "a/b", "a/b/x.txt"])
def test_no_link_on_the_way_is_followed(tree: Path, tmp_path: Path, place: str) -> None:
    """Neither as a folder nor as the file, wherever it leads: inside is no better, it may change."""
    for target in (tmp_path / "outside/b/x.txt", tree / "moved", Path("nowhere"), Path(place)):
        (tree / place).rename(tree / "moved")
        (tree / place).symlink_to(target if place == "a/b/x.txt" else target.parent)
        with pytest.raises(OSError, match="a symbolic link, which is not followed") as caught:
            files.open_beneath(tree, "a/b/x.txt")
        assert caught.value.errno == errno.ELOOP
        assert caught.value.filename == str(tree / place)
        (tree / place).unlink()
        (tree / "moved").rename(tree / place)


def test_a_very_deep_file_is_read(tree: Path) -> None:
    """Deeper than any path that the system takes at once."""
    deep = PurePosixPath(*["d" * 200] * 40)
    with files.held_folder(tree, deep, make=True) as folder:
        (folder / "x.txt").write_bytes(b"deep")
    assert len(str(tree / deep)) > 4096
    assert read_beneath(tree, str(deep / "x.txt")) == b"deep"


@pytest.mark.parametrize("step", ["a", "b", "x.txt"])
def test_a_folder_swapped_while_it_is_opened_leads_nowhere_else(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Just before each step and after all checks: what was opened so far stays what is looked into."""
    real = os.open

    def swap_then_open(path: str, *arguments: int, **options: int) -> int:
        if os.fspath(path).rpartition("/")[2] == step and not (tmp_path / "moved").exists():
            (tree / "a").rename(tmp_path / "moved")
            (tree / "a").symlink_to(tmp_path / "outside")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap_then_open)
    if step == "a":
        with pytest.raises(OSError, match="a symbolic link"):
            files.open_beneath(tree, "a/b/x.txt")
    else:
        assert read_beneath(tree, "a/b/x.txt") == b"ours"
    assert (tree / "a").is_symlink()


def test_a_folder_swapped_all_the_time_never_gives_the_secret(tree: Path, tmp_path: Path) -> None:
    """Another process exchanges the folder for a link to the outside as fast as it can."""
    (tmp_path / "door").symlink_to(tmp_path / "outside")
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    swapper = context.Process(target=exchange, args=(tree / "a", tmp_path / "door", stop))
    swapper.start()
    answers: Counter[object] = Counter()
    deadline = time.monotonic() + 60
    while answers.total() < 4000 or not (answers[b"ours"] and answers[errno.ELOOP]):
        assert time.monotonic() < deadline, f"the race was not run: {answers}"
        answers.update(attempt(tree) for _ in range(1000))
    stop.set()
    swapper.join(30)
    assert b"secret" not in answers


def attempt(root: Path) -> bytes | int | None:
    """What one try reads, or the number of the error."""
    try:
        return read_beneath(root, "a/b/x.txt")
    except OSError as error:
        return error.errno


def exchange(first: Path, second: Path, stop: Event) -> None:
    """Swap two names atomically, again and again (renameat2(2) with RENAME_EXCHANGE)."""
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    while not stop.is_set():
        if rename(-100, os.fsencode(first), -100, os.fsencode(second), 2) != 0:
            os._exit(1)


def test_a_held_folder_stays_the_same_folder(tree: Path, tmp_path: Path) -> None:
    """What is made in it is made in it, though another thing has its name by now."""
    with files.held_folder(tree, "a/b") as folder:
        (tree / "a").rename(tree / "elsewhere")
        (tree / "a").symlink_to(tmp_path / "outside")
        files.move_new(folder / "x.txt", folder / "y.txt")
        files.atomic_write(folder / "z.txt", b"new")
        with pytest.raises(FileNotFoundError) as caught:
            (folder / "x.txt").unlink()
    assert names(tree / "elsewhere/b") == ["y.txt", "z.txt"]
    assert names(tmp_path / "outside/b") == ["x.txt"]
    with pytest.raises(FileExistsError) as told, files.held_folder(tree, "elsewhere/b") as folder:
        files.move_new(folder / "y.txt", folder / "z.txt")
    assert {told.value.filename, told.value.filename2} == {str(tree / f"elsewhere/b/{n}.txt") for n in "yz"}
    assert caught.value.filename is not None


def test_a_folder_is_made_but_not_through_a_link(tree: Path, tmp_path: Path) -> None:
    """Nor in the place of a file."""
    with files.held_folder(tree, "a/new/er", make=True) as folder:
        (folder / "x").touch()
    assert (tree / "a/new/er/x").exists()
    (tree / "door").symlink_to(tmp_path / "outside")
    for place, code in {
        "door/new": errno.ELOOP,
        "a/b/x.txt/new": errno.ENOTDIR,
        "../new": errno.EINVAL,
    }.items():
        with pytest.raises(OSError) as caught, files.held_folder(tree, place, make=True):
            pass
        assert caught.value.errno == code
    assert names(tmp_path / "outside") == ["b"] and names(tmp_path) == ["outside", "root"]


def test_held_folders_leave_no_descriptor_open(tree: Path) -> None:
    """However it ends."""
    before = len(os.listdir("/proc/self/fd"))
    for relative in ("a/b/x.txt", "a/b/y.txt", "a/none/x.txt", "a/b/x.txt/y", "a/b"):
        attempt_to_read(tree, relative)
    assert len(os.listdir("/proc/self/fd")) == before


def attempt_to_read(root: Path, relative: str) -> None:
    """And do not mind."""
    with contextlib.suppress(OSError):
        read_beneath(root, relative)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (312_345_678, "312 MB"), (5 * 10**12, "5 TB")],
)
def test_sizes_are_shown_with_three_digits(size: int, shown: str) -> None:
    """Sizes are for people."""
    assert files.shown_size(size) == shown
