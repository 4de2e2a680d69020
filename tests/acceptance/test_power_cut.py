"""What outlives a power cut: each step is on disk before the next one relies on it.

A kill leaves what the kernel knows; a power cut only what was synced. The order of renames and syncs is
read from the daemon's own system calls: a rename counts as done for good once its folder was synced, a
line in the ledger once the ledger's log was.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from daemon_running import REPOSITORY, Daemon

CALLS = "openat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,fsync,fdatasync"
UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}
OPENED = re.compile(r"openat\(.*\) = (\d+)<(.*?)>$")
SYNCED = re.compile(r"f(?:data)?sync\(\d+<(.*?)>\)")
MOVED = re.compile(r'(rename|link)\w*\((?:AT_FDCWD<.*?>, )?"(.*?)", (?:AT_FDCWD<.*?>, )?"(.*?)"')
HELD = re.compile(r"^/proc/self/fd/(\d+)")


@dataclass(frozen=True, slots=True)
class Call:
    """One successful system call that changes names or makes them last."""

    what: str
    "sync, rename or link"
    path: str
    "what was synced, or the new name"
    old: str = ""


def calls_in(trace: Path) -> Iterator[Call]:
    """The calls of one process, with paths as people know them."""
    folders: dict[str, str] = {}

    def plain(path: str) -> str:
        return HELD.sub(lambda held: folders[held[1]], path)

    for line in trace.read_text(errors="replace").splitlines():
        if " = -1 " in line:
            continue
        if opened := OPENED.search(line):
            folders[opened[1]] = opened[2]
        elif synced := SYNCED.search(line):
            yield Call("sync", synced[1])
        elif moved := MOVED.search(line):
            yield Call(moved[1], plain(moved[3]), plain(moved[2]))


def in_order(calls: list[Call], *wanted: tuple[str, str]) -> None:
    """Each of `wanted`, a kind and the end of a path, comes somewhere after the one before it."""
    at = -1
    for what, ending in wanted:
        places = (
            place
            for place in range(at + 1, len(calls))
            if calls[place].what == what and re.search(f"{ending}$", calls[place].path)
        )
        at = next(places, -1)
        assert at >= 0, f"no {what} of {ending} in time, after {calls[:40]}"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[list[Call]]:
    """What the processes of a daemon did over a text that came out well twice and one that failed."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: the order of syncs cannot be watched")
    root = tmp_path_factory.mktemp("power")
    daemon = Daemon(root, defaults=UNCHECKED)
    daemon.command("--once", check=True)
    daemon.drop("new/a.txt", "First.")
    daemon.command("--once", check=True)
    daemon.drop("new/a.txt", "Second.")
    daemon.drop("dots.txt", "...")
    command = [sys.executable, str(REPOSITORY / "daemon.py"), "--config", str(daemon.config), "--once"]
    strace = [
        "strace",
        "-f",
        "-ff",
        "-y",
        "-qq",
        "-s",
        "300",
        "-o",
        str(root / "trace"),
        "-e",
        f"trace={CALLS}",
    ]
    ended = subprocess.run([*strace, *command], cwd=root, capture_output=True, text=True, check=False)
    if "ptrace" in ended.stderr:
        pytest.skip("no process may be traced here: the order of syncs cannot be watched")
    assert ended.returncode == 1 and "a.wav" in ended.stdout and "dots.txt" in ended.stdout, ended.stderr
    return [list(calls_in(trace)) for trace in root.glob("trace.*")]


def process_that(calls: list[list[Call]], what: str, ending: str) -> list[Call]:
    """All calls of the process that made this one."""
    [found] = [
        one for one in calls if any(call.what == what and re.search(f"{ending}$", call.path) for call in one)
    ]
    return found


LEDGER = ("sync", r"ledger\.db-wal")


def test_a_claim_is_written_down_made_and_kept_in_this_order(calls: list[list[Call]]) -> None:
    """The ledger says that it is coming; the rename is on disk before the ledger says that it came."""
    in_order(
        process_that(calls, "rename", r"/claimed/[^/]*/a\.txt"),
        LEDGER,
        ("rename", r"/claimed/[^/]*/a\.txt"),
        ("sync", "/inbox/new|/claimed/[^/]*"),
        LEDGER,
    )
    claim = process_that(calls, "rename", r"/claimed/[^/]*/a\.txt")
    after = claim[next(n for n, call in enumerate(claim) if call.path.endswith("/a.txt")) :]
    until = next(n for n, call in enumerate(after) if re.search(LEDGER[1], call.path))
    synced = {call.path.partition("/inbox")[2] for call in after[:until] if call.what == "sync"}
    assert {"/new", "/.voxspool/claimed"} <= synced
    assert any(re.fullmatch(r"/\.voxspool/claimed/[^/]+", path) for path in synced)


def test_a_manifest_appears_when_the_rest_is_on_disk(calls: list[list[Call]]) -> None:
    """Sound and log first, synced; then the manifest, synced; then the ledger. All of it is whole before."""
    in_order(
        process_that(calls, "link", r"/outbox/new/a\.json"),
        ("sync", r"/tmp/[^/]*/audio\.wav"),
        LEDGER,
        ("link", r"/outbox/new/a\.wav"),
        ("link", r"/outbox/new/a\.log"),
        ("sync", "/outbox/new"),
        ("link", r"/outbox/new/a\.json"),
        ("sync", "/outbox/new"),
        LEDGER,
    )


def test_a_last_move_is_on_disk_before_the_ledger_says_so(calls: list[list[Call]]) -> None:
    """To the done folder, and to failed with its notes."""
    in_order(
        process_that(calls, "rename", "/done/[^/]*"),
        ("rename", "/done/[^/]*"),
        ("sync", "/claimed"),
        ("sync", "/done"),
        LEDGER,
    )
    in_order(
        process_that(calls, "link", r"/failed/dots\.txt"),
        ("rename", r"/failed/dots\.txt\.error\.txt"),
        ("sync", "/failed"),
        ("link", r"/failed/dots\.txt"),
        ("sync", "/failed"),
        LEDGER,
    )
