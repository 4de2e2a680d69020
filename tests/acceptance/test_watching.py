"""The real daemon on folders that are mounted over, taken away, replaced, and that do not answer."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_running import REPOSITORY, Daemon

from pipeline.intake.roots import MARKER_NAME

Make = Callable[..., Daemon]
MAY_MOUNT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
# The real half minute, and the seconds between two writings of the status, would be spent waiting.
QUICK_TO_TELL = """
import sys
from pipeline import status
from pipeline.intake import watch
watch.STALLED_SECONDS = 1.0
watch.ROOT_RETRY_SECONDS = status.WRITE_SECONDS = 0.3
from daemon import run
sys.exit(run(sys.argv[1:]))
"""


def mount(*words: str | Path) -> None:
    """Mount, or skip where that is not allowed."""
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


def unmount(folder: Path, *, lazily: bool = False) -> None:
    """Unmount."""
    subprocess.run(["umount", *(["-l"] if lazily else []), str(folder)], check=True)


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    """An empty filesystem over a folder."""
    mount("-t", "tmpfs", "-o", "size=1m", "none", folder)
    try:
        yield
    finally:
        unmount(folder)


@contextlib.contextmanager
def silent(folder: Path) -> Iterator[None]:
    """A share over a folder whose server never answers: a FUSE mount that nobody serves."""
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"there is no FUSE here: {error.strerror}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if ctypes.CDLL(None, use_errno=True).mount(b"silent", os.fsencode(folder), b"fuse", 0, options):
        os.close(server)
        pytest.skip(f"mounting is not allowed here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        unmount(folder, lazily=True)
        os.close(server)


def start(daemon: Daemon) -> Daemon:
    """Start it so that it tells of a silent folder after a second."""
    with open(daemon.root / "daemon.log", "ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", QUICK_TO_TELL, "run", "--config", str(daemon.config)],
            cwd=daemon.root,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    pid = daemon.process.pid
    daemon.wait(lambda: daemon.status().get("pid") == pid)
    return daemon


def trouble(daemon: Daemon) -> str:
    """What the status says that keeps the work from going on."""
    return " ".join(daemon.status().get("trouble", []))


def is_done(daemon: Daemon, name: str) -> None:
    """Until a file that was dropped under this name has come out, and every file is in its place."""
    daemon.manifest(name)
    daemon.wait(lambda: daemon.query("SELECT COUNT(*) FROM drops WHERE state != 'done'") == [(0,)])
    audit = daemon.command("audit")
    assert audit.returncode == 0, audit.stdout


@MAY_MOUNT
def test_an_inbox_that_does_not_answer_is_told_and_healed(make_daemon: Make) -> None:
    """A look at it never comes back; the daemon lives, says so, and goes on when the share is back."""
    daemon = start(make_daemon())
    with silent(daemon.inbox):
        daemon.wait(lambda: f"{daemon.inbox} has not answered for" in trouble(daemon))
        assert daemon.status()["state"] == "running"
    daemon.drop("a.txt", "Hello.")
    is_done(daemon, "a")
    daemon.wait(lambda: trouble(daemon) == "")
    assert daemon.stop() == 0


@MAY_MOUNT
@pytest.mark.parametrize("place", ["inbox", "outbox"])
def test_sigterm_ends_the_daemon_while_a_folder_does_not_answer(make_daemon: Make, place: str) -> None:
    """Nobody waits for the look that is out, nor for the status that cannot be written; only for workers."""
    daemon = start(make_daemon(workers={"stop_seconds": 1}))
    folder: Path = getattr(daemon, place)
    with silent(folder):
        copy = daemon.state / "status.json"
        daemon.wait(lambda: b"has not answered for" in copy.read_bytes())
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(15) == 0


@MAY_MOUNT
def test_a_filesystem_mounted_over_the_inbox_is_told_and_healed(make_daemon: Make) -> None:
    """Nothing in it is taken, and nothing is looked for elsewhere."""
    daemon = start(make_daemon())
    with tmpfs(daemon.inbox):
        daemon.wait(lambda: "lost its mark" in trouble(daemon))
        (daemon.inbox / "decoy.txt").write_text("Not for you.")
        daemon.wait(lambda: "lost its mark" in trouble(daemon))
    daemon.drop("a.txt", "Hello.")
    is_done(daemon, "a")
    assert daemon.query("SELECT COUNT(*) FROM drops") == [(1,)]


@MAY_MOUNT
def test_a_lazily_unmounted_inbox_is_told_and_healed(make_daemon: Make, tmp_path: Path) -> None:
    """What somebody drops beneath the mount that is away waits there; the rest goes on when it is back."""
    daemon = make_daemon()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("--bind", disk, daemon.inbox)
    try:
        start(daemon)
        with open(daemon.inbox / ".somebody is here", "w"):
            unmount(daemon.inbox, lazily=True)
            daemon.wait(lambda: "lost its mark" in trouble(daemon))
            (daemon.inbox / "decoy.txt").write_text("Not for you.")
            mount("--bind", disk, daemon.inbox)
        daemon.drop("a.txt", "Hello.")
        is_done(daemon, "a")
        assert daemon.query("SELECT COUNT(*) FROM drops") == [(1,)]
        assert daemon.stop() == 0
    finally:
        daemon.kill()
        unmount(daemon.inbox, lazily=True)


def test_a_recreated_inbox_is_told_and_healed_by_what_it_says(make_daemon: Make) -> None:
    """`rm -rf inbox; mkdir inbox`: the trouble holds the very command that makes it the inbox again."""
    daemon = start(make_daemon())
    shutil.rmtree(daemon.inbox)
    daemon.inbox.mkdir()
    (daemon.inbox / "a.txt").write_text("Hello.")
    daemon.wait(lambda: "lost its mark" in trouble(daemon))
    command = trouble(daemon).partition("write the mark: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert (daemon.inbox / MARKER_NAME).exists()
    is_done(daemon, "a")


def test_a_renamed_inbox_is_told_and_healed(make_daemon: Make) -> None:
    """Away for a while, and back with something new in it."""
    daemon = start(make_daemon())
    away = daemon.inbox.with_name("away")
    daemon.inbox.rename(away)
    daemon.wait(lambda: str(daemon.inbox) in trouble(daemon))
    (away / "a.txt").write_text("Hello.")
    if daemon.inbox.exists():
        daemon.inbox.rmdir()
    away.rename(daemon.inbox)
    is_done(daemon, "a")
