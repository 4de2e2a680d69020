"""Inbox and outbox on a real network filesystem: no events, and a server that may be gone at any moment."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Make
from network_mount import Server, Share, mount_webdav
from programs import Programs, need_fuse, needed, wait_for
from witness import sha256

from tests.acceptance.daemon_running import Daemon, long_text

pytestmark = pytest.mark.timeout(300)
SCAN_SECONDS = 40.0
"two scans of a share, its settling and the work on one line"
HEAL_SECONDS = 90.0
PAUSE_SECONDS = 2.0
CHUNKS = 12
BOOK = long_text(CHUNKS)
CHECKED = {"output": {"formats": ["wav"]}}


@pytest.fixture
def server(tmp_path: Path, programs: Programs) -> Server:
    """An SSH server on loopback, running."""
    need_fuse()
    needed("sshfs", "sshfs")
    started = Server(tmp_path / "server", programs)
    started.start()
    return started


class Mounted:
    """A daemon whose inbox, outbox or both lie on the server."""

    def __init__(self, daemon: Daemon, server: Server, far: Path, *roots: str) -> None:
        self.daemon, self.server = daemon, server
        far.mkdir()
        self.shares = {name: Share(server, far / name, daemon.root / name) for name in roots}
        self.inbox = self.shares["inbox"].far if "inbox" in roots else daemon.inbox
        self.outbox = self.shares["outbox"].far if "outbox" in roots else daemon.outbox

    def mount(self, *options: str) -> None:
        """Mount what is to be mounted."""
        for share in self.shares.values():
            share.mount(*options)

    def remount(self, *options: str) -> None:
        """Mount it in another way."""
        self.unmount()
        self.mount(*options)

    def unmount(self) -> None:
        """Take all of it away, in use or not."""
        for share in self.shares.values():
            share.unmount()

    def drop(self, name: str, text: str) -> None:
        """Another machine writes into the inbox."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def published(self, name: str) -> bool:
        """Whether another machine finds the result."""
        return (self.outbox / f"{name}.json").exists()

    def until(self, what: str, condition: Callable[[], object], seconds: float = SCAN_SECONDS) -> None:
        """Wait for something; tells what the daemon logged if it never comes."""
        wait_for(what, condition, seconds=seconds, evidence=(self.daemon.root / "daemon.log").read_text)

    def trouble(self) -> str:
        """What `daemon.py status` says of trouble; empty if there is none."""
        daemon = self.daemon
        command = [sys.executable, daemon.program, "--config", daemon.config, "status", "--json"]
        told = json.loads(self.server.programs.output("status", command))
        return " ".join(told["trouble"])


@pytest.fixture
def on_the_server(tmp_path: Path, server: Server, make_daemon: Make) -> Iterator[Callable[..., Mounted]]:
    """`on_the_server("inbox", ...)`: mounted, the daemon not started; audited at the end."""
    made: list[Mounted] = []

    def make(*roots: str, **sections: object) -> Mounted:
        mount = Mounted(make_daemon(**sections), server, tmp_path / "far", *roots)
        made.append(mount)
        mount.mount()
        return mount

    yield make
    server.wake()
    for mount in made:
        checked = mount.daemon.command("audit")
        assert checked.returncode == 0, checked.stdout


def test_what_another_machine_writes_is_found_by_scanning(on_the_server: Callable[..., Mounted]) -> None:
    """No event tells of it: the share is known as one, scanned, and both `status` and `doctor` say so."""
    mount = on_the_server("inbox")
    mount.daemon.start()
    for number in range(5):
        mount.drop(f"notes/{number}.txt", f"This is number {number} from another machine.")
    mount.until("all are spoken", lambda: all(mount.published(f"notes/{number}") for number in range(5)))
    assert not list((mount.inbox / "notes").iterdir()), "claimed by a rename that the other machine sees"
    notes = " ".join(mount.daemon.status()["notes"])
    assert "not watched but scanned: it lies on fuse.sshfs" in notes
    told = mount.daemon.command("doctor").stdout
    assert "can be written (fuse.sshfs, network)" in told
    assert "the inbox is scanned, not watched" in told


def test_results_on_the_share_are_whole_for_another_machine(on_the_server: Callable[..., Mounted]) -> None:
    """Inbox and outbox there: what the other machine finds under a final name is what was published."""
    mount = on_the_server("inbox", "outbox")
    mount.daemon.start()
    mount.drop("one.txt", "One.")
    mount.drop("broken.yaml", "text: [")
    mount.until("the result is there", lambda: mount.published("one"))
    mount.until("the failure is there", (mount.outbox / "failed" / "broken.yaml.error.txt").exists)
    (output,) = mount.daemon.manifest("one")["outputs"]
    assert sha256(mount.outbox / "one.wav") == output["sha256"]
    mount.until("the source is put away", lambda: list((mount.inbox / ".voxspool" / "done").rglob("one.txt")))


def test_a_slow_writer_on_another_machine_is_waited_for(on_the_server: Callable[..., Mounted]) -> None:
    """It keeps the file open and pauses for less than settling takes; no lease tells of it here."""
    mount = on_the_server("inbox", intake={"settle_network_seconds": 3 * PAUSE_SECONDS})
    mount.daemon.start()
    writing = "for part in one two three four five six; do echo This is part $part.; sleep 2; done"
    with open(mount.inbox / "slow.txt", "wb") as slow:
        subprocess.run(["sh", "-c", writing], stdout=slow, check=True, timeout=60)
    assert not mount.published("slow"), "half of it was taken"
    mount.until("it is spoken", lambda: mount.published("slow"))
    spoken = " ".join(chunk["text"] for chunk in mount.daemon.manifest("slow")["chunks"])
    assert all(f"part {number}." in spoken for number in ("one", "two", "three", "four", "five", "six"))


def begin(daemon: Daemon) -> None:
    """Start the daemon where its outbox may be away."""
    pid = daemon.launch()
    daemon.wait(lambda: json.loads(daemon.command("status", "--json").stdout).get("pid") == pid)


@pytest.mark.parametrize("roots", [("inbox",), ("inbox", "outbox")], ids="+".join)
def test_a_server_that_loses_its_power_costs_nothing(
    on_the_server: Callable[..., Mounted], roots: tuple[str, ...]
) -> None:
    """Killed in the middle of a book: the trouble has its name; the server is back, and all is done once."""
    mount = on_the_server(*roots, defaults=CHECKED)
    mount.daemon.start()
    mount.drop("book.txt", BOOK)
    mount.until("the book is being read", lambda: mount.daemon.progress()[0] >= 2)
    mount.server.kill()
    mount.until("the trouble has its name", lambda: str(mount.daemon.inbox) in mount.trouble())
    mount.server.start()
    mount.drop("after.txt", "I came after the fall.")
    mount.until("all is spoken", lambda: mount.published("book") and mount.published("after"), HEAL_SECONDS)
    mount.until("the trouble is over", lambda: mount.trouble() == "")
    assert len(mount.daemon.manifest("book")["chunks"]) == CHUNKS
    assert mount.daemon.query("SELECT COUNT(*) FROM drops") == [(2,)]


@pytest.mark.parametrize("roots", [("inbox",), ("outbox",), ("inbox", "outbox")], ids="+".join)
def test_a_mount_that_is_gone_is_not_written_beneath(
    on_the_server: Callable[..., Mounted], roots: tuple[str, ...]
) -> None:
    """Unmounted in the middle of a book, the daemon killed and started meanwhile: its place stays empty."""
    mount = on_the_server(*roots, defaults=CHECKED)
    mount.daemon.start()
    mount.drop("book.txt", BOOK)
    mount.until("the book is being read", lambda: mount.daemon.progress()[0] >= 2)
    mount.unmount()
    mount.until("the trouble has its name", lambda: "mounted" in mount.trouble())
    mount.daemon.kill()
    begin(mount.daemon)
    mount.until("it has its name again", lambda: "mounted" in mount.trouble())
    mount.daemon.stop()
    beneath = [path for share in mount.shares.values() for path in share.near.rglob("*")]
    assert beneath == []
    begin(mount.daemon)
    mount.mount()
    mount.until("the book is spoken", lambda: mount.published("book"), HEAL_SECONDS)
    mount.until("the trouble is over", lambda: mount.trouble() == "")
    assert mount.daemon.query("SELECT COUNT(*) FROM drops") == [(1,)]


def test_a_dead_fuse_program_is_told_and_survived(on_the_server: Callable[..., Mounted]) -> None:
    """`Transport endpoint is not connected` until somebody mounts it again."""
    mount = on_the_server("inbox", "outbox", defaults=CHECKED)
    mount.daemon.start()
    mount.drop("book.txt", BOOK)
    mount.until("the book is being read", lambda: mount.daemon.progress()[0] >= 2)
    for share in mount.shares.values():
        share.crash()
    mount.until("the trouble has its name", lambda: "endpoint is not connected" in mount.trouble())
    for share in mount.shares.values():
        share.unmount()
        share.mount()
    mount.until("the book is spoken", lambda: mount.published("book"), HEAL_SECONDS)
    mount.until("the trouble is over", lambda: mount.trouble() == "")
    assert mount.daemon.query("SELECT COUNT(*) FROM drops") == [(1,)]


def test_a_server_that_does_not_answer_holds_up_nobody(on_the_server: Callable[..., Mounted]) -> None:
    """Frozen for as long as it takes to be noticed: `status` answers and says why."""
    mount = on_the_server("inbox", "outbox", defaults=CHECKED)
    mount.remount("ServerAliveInterval=0")
    mount.daemon.start()
    mount.drop("picture.png", "waits to be asked for")
    mount.drop("broken.yaml", "text: [")
    mount.until("one has failed", (mount.outbox / "failed" / "broken.yaml.error.txt").exists)
    mount.drop("book.txt", BOOK)
    mount.until("the book is being read", lambda: mount.daemon.progress()[0] >= 2)
    mount.server.freeze()
    mount.until("the trouble has its name", lambda: "has not answered" in mount.trouble(), HEAL_SECONDS)
    mount.server.wake()
    mount.until("the book is spoken", lambda: mount.published("book"), HEAL_SECONDS)
    mount.until("the trouble is over", lambda: mount.trouble() == "")
    assert mount.daemon.query("SELECT COUNT(*) FROM drops") == [(2,)]


def test_a_share_that_was_mounted_anew_holds_no_new_drops(on_the_server: Callable[..., Mounted]) -> None:
    """sshfs numbers its files anew then, as they are asked for: nothing is spoken twice."""
    mount = on_the_server("inbox", intake={"source": "leave"})
    names = ("a.txt", "b.txt", "c.txt")
    for name in names:
        mount.drop(name, f"This is {name}.")
    mount.daemon.start()
    mount.until("all are spoken", lambda: all(mount.published(name[0]) for name in names))
    mount.daemon.stop()
    before = {name: os.lstat(mount.daemon.inbox / name).st_ino for name in names}
    mount.remount()
    for name in reversed(names):
        os.lstat(mount.daemon.inbox / name)
    assert before != {name: os.lstat(mount.daemon.inbox / name).st_ino for name in names}
    mount.daemon.start()
    mount.drop("d.txt", "I am new.")
    mount.until("the new one is spoken", lambda: mount.published("d"))
    assert mount.daemon.query("SELECT COUNT(*) FROM drops") == [(4,)]


def replaced(path: Path, before: str) -> bool:
    """Whether another content stands there; for a moment there is none."""
    return path.exists() and sha256(path) != before


def test_a_webdav_folder_does_as_well(tmp_path: Path, programs: Programs, make_daemon: Make) -> None:
    """Mounted by rclone, which knows no hard links: drops, results, failures, replacing."""
    daemon = make_daemon()
    far = {name: tmp_path / "far" / name for name in ("inbox", "outbox")}
    for name, folder in far.items():
        mount_webdav(programs, folder, daemon.root / name)
    daemon.start()
    (far["inbox"] / "one.txt").write_text("One.")
    (far["inbox"] / "broken.yaml").write_text("text: [")
    log = (daemon.root / "daemon.log").read_text
    wait_for("the result is there", (far["outbox"] / "one.json").exists, seconds=90, evidence=log)
    note = far["outbox"] / "failed" / "broken.yaml.error.txt"
    wait_for("the failure is there", note.exists, seconds=90, evidence=log)
    (output,) = daemon.manifest("one")["outputs"]
    wait_for("the result is whole", lambda: sha256(far["outbox"] / "one.wav") == output["sha256"])
    assert daemon.command("doctor").returncode == 0
    (far["inbox"] / "one.txt").write_text("One, once more.")
    wait_for(
        "the result is replaced", lambda: replaced(far["outbox"] / "one.wav", output["sha256"]), seconds=90
    )
    assert daemon.stop() == 0
    checked = daemon.command("audit")
    assert checked.returncode == 0, checked.stdout
