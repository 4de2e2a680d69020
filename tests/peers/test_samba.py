"""Real Samba clients write into the inbox and read the outbox; Voxspool works beneath the shares."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Make
from programs import Programs, need_root, needed, wait_for
from recordings import recording
from samba_share import PIECE_BYTES, Samba
from witness import sha256

from tests.acceptance.daemon_running import Daemon

pytestmark = pytest.mark.timeout(300)
WORK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Office:
    """The daemon, and the people who reach its folders as network drives."""

    daemon: Daemon
    samba: Samba
    desk: Path
    "where the clients keep their own files"

    def put(self, *commands: str) -> str:
        """What smbclient prints for these commands on the inbox."""
        return self.samba.client("inbox", f"lcd {self.desk}", *commands)

    def fetched(self, name: str) -> str:
        """The hash of a file of the outbox as a client gets it."""
        target = self.desk / "fetched"
        target.unlink(missing_ok=True)
        folder, _, base = name.replace("/", "\\").rpartition("\\")
        told = self.samba.client("outbox", f"cd \\{folder}", f'get "{base}" {target}')
        assert target.exists(), told
        return sha256(target)

    def own(self, name: str, text: str) -> None:
        """A client's own file."""
        (self.desk / name).write_text(text)

    def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for something; tells what the daemon logged if it never comes."""
        log = self.daemon.root / "daemon.log"
        wait_for(what, condition, seconds=WORK_SECONDS, evidence=log.read_text)

    def spoken(self, name: str) -> dict[str, Any]:
        """A manifest, once it is there; each of its outputs is whole for a client."""
        manifest = self.daemon.manifest(name)
        for output in manifest["outputs"]:
            assert self.fetched(output["path"]) == output["sha256"]
        return manifest

    def reason(self, name: str) -> str:
        """Why a file waits."""
        entries = self.daemon.status().get("waiting", ())
        return next((entry["reason"] for entry in entries if entry["path"] == name), "")


@pytest.fixture
def office(tmp_path: Path, programs: Programs, make_daemon: Make) -> Iterator[Office]:
    """Both folders shared, the daemon running; audited at the end."""
    needed("smbd", "samba")
    needed("smbclient", "smbclient")
    need_root("smbd takes on the identity of whoever connects")
    daemon = make_daemon()
    desk = tmp_path / "desk"
    for folder in (desk, daemon.outbox):
        folder.mkdir()
    samba = Samba(tmp_path / "samba", programs, {"inbox": daemon.inbox, "outbox": daemon.outbox})
    samba.start()
    daemon.start()
    yield Office(daemon, samba, desk)
    checked = daemon.command("audit")
    assert checked.returncode == 0, checked.stdout


def taken(daemon: Daemon) -> list[str]:
    """Every drop that was ever taken, sorted by name."""
    return sorted(relative.decode() for (relative,) in daemon.query("SELECT relative FROM drops"))


def test_what_a_client_puts_or_renames_is_taken_once(office: Office) -> None:
    """Straight, under a temporary name first, and into a folder; what is ours is neither seen nor deleted."""
    office.own("letter.txt", "A letter from the office.")
    office.put(
        "put letter.txt", "put letter.txt draft.txt.tmp", "mkdir Minutes", "put letter.txt Minutes/may.txt"
    )
    office.spoken("letter")
    assert (office.daemon.inbox / "draft.txt.tmp").exists(), "a temporary name was taken"
    office.put("rename draft.txt.tmp draft.txt")
    office.spoken("draft")
    office.spoken("Minutes/may")
    assert taken(office.daemon) == ["Minutes/may.txt", "draft.txt", "letter.txt"]
    assert ".voxspool" not in office.put("ls") + office.samba.client("outbox", "ls")
    office.put("deltree .voxspool", "del .voxspool-root")
    assert (office.daemon.inbox / ".voxspool-root").exists()
    assert len(list((office.daemon.inbox / ".voxspool" / "done").iterdir())) == 3


def feed(client: "subprocess.Popen[bytes]", data: bytes, *, last: bool = False) -> None:
    """Give a client more to write."""
    assert client.stdin is not None
    client.stdin.write(data)
    client.stdin.flush()
    if last:
        client.stdin.close()
        assert client.wait(WORK_SECONDS) == 0


def test_a_slow_client_is_waited_for(office: Office) -> None:
    """It pauses for longer than settling takes; Samba has the file open, and the kernel tells of that."""
    office.own("job.yaml", "kind: concat\nparts: [slow.wav]\n")
    office.put("put job.yaml")
    sound = recording(office.desk / "sound.wav", seconds=5.0)
    client = office.samba.piped("inbox", "slow.wav")
    feed(client, sound[: 2 * PIECE_BYTES])
    office.until("half of it is seen", lambda: "open for writing" in office.reason("slow.wav"))
    assert 0 < (office.daemon.inbox / "slow.wav").stat().st_size < len(sound)
    feed(client, sound[2 * PIECE_BYTES :], last=True)
    assert office.spoken("job")["outputs"][0]["duration_seconds"] == pytest.approx(5.0, abs=0.1)
    assert taken(office.daemon) == ["job.yaml"]


def test_a_file_of_which_only_the_size_is_there_is_waited_for(office: Office) -> None:
    """Windows reserves the whole size first: what is not written yet reads as zeros."""
    text = "Part one is here. Part two is here. And part three is here."
    client = office.samba.reserve("inbox", "whole.txt", text)
    reserved = office.daemon.inbox / "whole.txt"
    office.until("it is seen", lambda: "open for writing" in office.reason("whole.txt"))
    assert reserved.stat().st_size == len(text) and b"\0" in reserved.read_bytes()
    assert taken(office.daemon) == []
    feed(client, b"\n", last=True)
    assert " ".join(chunk["text"] for chunk in office.spoken("whole")["chunks"]) == text
    assert taken(office.daemon) == ["whole.txt"]


def test_names_that_differ_in_case_only(office: Office) -> None:
    """One file for a client, two on the disk: every result has a name of its own for both."""
    office.own("story.txt", "The story as it is now.")
    office.put("put story.txt Story.TXT", "put story.txt sTORY.txt")
    office.spoken("Story")
    assert taken(office.daemon) == ["Story.TXT"]
    office.daemon.drop("Tea.txt", "Tea for two.")
    office.daemon.drop("tea.txt", "Two for tea.")
    office.until("both are done", lambda: len(list((office.daemon.outbox).glob("[Tt]ea*.json"))) == 2)
    names = [path.stem for path in office.daemon.outbox.glob("[Tt]ea*.json")]
    assert len({name.casefold() for name in names}) == 2
    hashes = {str(office.spoken(name)["source"]["sha256"]) for name in names}
    assert len(hashes) == 2


def test_names_that_windows_cannot_read_come_out_so_that_it_can(office: Office) -> None:
    """Samba mangles such names of drops; the results bear names that a client sees and gets as they are."""
    names = ('what: is "this"?.txt', "aux.txt", "trailing dot..txt", "back\\slash.txt", "star*.txt")
    for number, name in enumerate(names):
        office.daemon.drop(name, f"This is number {number}.")
    office.until("all are done", lambda: len(list(office.daemon.outbox.glob("*.json"))) == len(names) + 1)
    listed = office.samba.client("outbox", "ls")
    results = [path.stem for path in office.daemon.outbox.glob("*.json") if path.stem != "status"]
    for name in results:
        assert f"  {name}.wav  " in listed
        office.spoken(name)
    refused = office.put("put fetched bad:name.txt", 'put fetched "bad?.txt"')
    assert "NT_STATUS_OBJECT_NAME_INVALID" in refused
    assert len(taken(office.daemon)) == len(names)
