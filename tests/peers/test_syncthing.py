"""Two real Syncthings share inbox and outbox between a phone and the machine that Voxspool runs on."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import UNCHECKED, Make
from programs import Programs, wait_for
from recordings import recording
from syncthing_peer import SYNC_SECONDS, Peer, Shared, join, meet
from witness import Witness, sha256

from pipeline.synced import STIGNORE
from tests.acceptance.daemon_running import Daemon, long_text

pytestmark = pytest.mark.timeout(300)
LONG_AGO = 946_684_800.0  # 2000-01-01


@dataclass(frozen=True, slots=True)
class Pair:
    """The daemon, its Syncthing, and a phone with its own."""

    daemon: Daemon
    here: Peer
    phone: Peer
    inbox: Path
    "on the phone"
    outbox: Path
    "on the phone"

    def drop(self, name: str, content: bytes, *, modified: float | None = None) -> Path:
        """Save a file on the phone as its programs do: under its final name once it is whole."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        beside.write_bytes(content)
        if modified is not None:
            os.utime(beside, (modified, modified))
        beside.rename(path)
        return path

    def until(self, what: str, condition: Callable[[], object], seconds: float = SYNC_SECONDS) -> None:
        """Wait for something that takes a sync; tells what both sides printed if it never comes."""
        wait_for(what, condition, seconds=seconds, evidence=self._evidence)

    def _evidence(self) -> str:
        log = self.daemon.root / "daemon.log"
        return "\n".join((log.read_text() if log.exists() else "", self.here.log(), self.phone.log()))

    def result(self, name: str, spoken: bytes | None = None) -> dict[str, Any]:
        """The manifest on the phone, once all its outputs are there too; of this text, if one is given."""
        path = self.outbox / f"{name}.json"
        wanted = None if spoken is None else hashlib.sha256(spoken).hexdigest()
        self.until(f"{name} is whole on the phone", lambda: self._whole(path, wanted))
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def _whole(self, path: Path, wanted: str | None) -> bool:
        try:
            manifest = json.loads(path.read_bytes())
            outputs = [(sha256(self.outbox / one["path"]), one["sha256"]) for one in manifest["outputs"]]
        except FileNotFoundError:
            return False
        right = wanted in (None, manifest["source"]["sha256"])
        return right and all(there == published for there, published in outputs)


def joined(tmp_path: Path, programs: Programs, daemon: Daemon, folders: dict[str, Path]) -> Pair:
    """A phone that shares these folders of the daemon's machine, by name, and is at rest."""
    phone_root = tmp_path / "phone"
    here, phone = (
        Peer(name=name, home=tmp_path / f"syncthing-{name}", programs=programs, folders=shared)
        for name, shared in (
            ("here", [Shared(name=name, path=path) for name, path in folders.items()]),
            ("phone", [Shared(name=name, path=phone_root / name) for name in folders]),
        )
    )
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
        (folder / ".stignore").write_text("\n".join(STIGNORE) + "\n")
    join(here, phone)
    return Pair(daemon, here, phone, phone_root / "inbox", phone_root / "outbox")


@pytest.fixture
def pair(tmp_path: Path, programs: Programs, make_daemon: Make) -> Iterator[Pair]:
    """Inbox and outbox shared and at rest, the daemon not started; audited at the end."""
    daemon = make_daemon()
    yield joined(tmp_path, programs, daemon, {"inbox": daemon.inbox, "outbox": daemon.outbox})
    audited(daemon)


def audited(daemon: Daemon) -> str:
    """What the audit says, which must be that every file is in its place."""
    checked = daemon.command("audit")
    assert checked.returncode == 0, checked.stdout
    return checked.stdout


def taken(daemon: Daemon) -> list[str]:
    """Every drop that was ever taken, sorted by name."""
    return sorted(os.fsdecode(relative) for (relative,) in daemon.query("SELECT relative FROM drops"))


def waiting(daemon: Daemon) -> dict[str, str]:
    """Why each file waits, as the status tells it."""
    return {entry["path"]: entry["reason"] for entry in daemon.status().get("waiting", ())}


def test_a_drop_from_the_phone_comes_back_as_speech(pair: Pair) -> None:
    """Ten files with mtimes of long ago: each taken once, gone from the phone, its result whole there."""
    with Witness(pair.outbox) as seen, Witness(pair.inbox) as phone:
        pair.daemon.start()
        for number in range(10):
            text = f"This is the note number {number}, written long ago.".encode()
            pair.drop(f"notes/{number}.txt", text, modified=LONG_AGO)
        for number in range(10):
            pair.result(f"notes/{number}")
        pair.until("the drops are gone from the phone", lambda: not list(pair.inbox.rglob("*.txt")))
    assert taken(pair.daemon) == [f"notes/{number}.txt" for number in range(10)]
    ours = [name for name in seen.hidden | phone.hidden if ".voxspool" in name]
    assert not ours, "what is for this machine alone was synced"
    for name, hashes in seen.hashes.items():
        if name != "status.json":
            assert hashes == {sha256(pair.daemon.outbox / name)}, f"half of {name} was to be seen"


def test_a_recording_that_comes_slowly_is_taken_whole(pair: Pair) -> None:
    """A phone that is switched off in the middle and back on: the half recording is never taken for one."""
    big = recording(pair.daemon.root / "big.wav", seconds=60)
    pair.here.limit(300)
    pair.daemon.start()
    pair.drop("big.wav", big)
    pair.drop("job.yaml", b"kind: concat\nparts: [big.wav]\n")
    half = pair.daemon.inbox / ".syncthing.big.wav.tmp"
    pair.until("half of the recording is here", lambda: half.exists() and half.stat().st_blocks * 512 > 1e6)
    pair.phone.kill()
    pair.until("the job waits", lambda: waiting(pair.daemon) == {"job.yaml": "waiting for big.wav"})
    assert half.exists() and taken(pair.daemon) == []
    pair.here.limit(0)
    pair.phone.start(pair.here)
    manifest = pair.result("job")
    assert manifest["outputs"][0]["duration_seconds"] == pytest.approx(60, abs=0.5)
    assert taken(pair.daemon) == ["job.yaml"]
    parts = list((pair.daemon.inbox / ".voxspool" / "done").rglob("big.wav"))
    assert [part.read_bytes() == big for part in parts] == [True]
    pair.until("the drops are gone from the phone", lambda: not list(pair.inbox.glob("[a-z]*")))


def test_conflict_copies_are_held_until_somebody_decides(pair: Pair) -> None:
    """Edited here and there, paused from the phone: one is spoken, the other is shown, both come out."""
    pair.daemon.start()
    pair.drop("PAUSE", b"")
    pair.until("the pause arrives", lambda: pair.daemon.status()["state"] == "paused")
    pair.drop("story.txt", b"This is how it began.")
    story = pair.daemon.inbox / "story.txt"
    pair.until("the story arrives", story.exists)
    pair.phone.kill()
    versions = {"phone": b"This was written on the phone.", "here": b"And this was written at the desk."}
    (pair.inbox / "story.txt").write_bytes(versions["phone"])
    story.write_bytes(versions["here"])
    pair.phone.start(pair.here)
    pair.until("the conflict shows", lambda: list(pair.daemon.inbox.glob("story.sync-conflict-*.txt")))
    meet(pair.here, pair.phone)
    assert taken(pair.daemon) == []
    (pair.inbox / "PAUSE").unlink()
    first = pair.result("story")
    (copy,) = pair.daemon.inbox.glob("story.sync-conflict-*.txt")
    pair.until("the status shows the copy", lambda: "conflict" in waiting(pair.daemon).get(copy.name, ""))
    assert "keep one and rename it" in pair.daemon.command("explain", copy.name).stdout
    pair.until("the copy is on the phone", (pair.inbox / copy.name).exists)
    (pair.inbox / copy.name).rename(pair.inbox / "story-two.txt")
    second = pair.result("story-two")
    spoken = {first["source"]["sha256"], second["source"]["sha256"]}
    assert spoken == {hashlib.sha256(version).hexdigest() for version in versions.values()}
    assert taken(pair.daemon) == ["story-two.txt", "story.txt"]


def test_what_was_edited_after_it_was_taken_is_a_new_drop(pair: Pair) -> None:
    """The phone was off when the story was taken: its new version wins over the deletion."""
    pair.daemon.start()
    pair.drop("PAUSE", b"")
    pair.drop("story.txt", b"The first version.")
    pair.until("both are here", lambda: (pair.daemon.inbox / "story.txt").exists())
    pair.until("the pause is here", lambda: pair.daemon.status()["state"] == "paused")
    pair.phone.kill()
    (pair.daemon.inbox / "PAUSE").unlink()
    pair.daemon.manifest("story")
    (pair.inbox / "story.txt").write_bytes(b"The second version.")
    pair.phone.start(pair.here)
    pair.result("story", b"The second version.")
    assert taken(pair.daemon) == ["story.txt", "story.txt"]
    assert not list(pair.outbox.glob("story~2*"))


def test_a_result_that_is_deleted_on_the_phone_stays_deleted(pair: Pair) -> None:
    """No second publication, no trouble, a clean audit with a note; dropped again it is made again."""
    pair.daemon.start()
    pair.drop("notes/one.txt", b"Delete what becomes of me.")
    pair.result("notes/one")
    published = sorted(path.name for path in (pair.outbox / "notes").iterdir())
    assert published == ["one.json", "one.log", "one.wav"]
    for name in published:
        (pair.outbox / "notes" / name).unlink()
    (pair.outbox / "notes").rmdir()
    pair.until("the deletion arrives", lambda: not (pair.daemon.outbox / "notes").exists())
    assert "notes/one.wav is no longer in the outbox" in audited(pair.daemon)
    pair.drop("notes/two.txt", b"I come after the deletion.")
    pair.result("notes/two")
    assert sorted(path.name for path in (pair.outbox / "notes").glob("one*")) == []
    assert pair.daemon.status()["trouble"] == []
    pair.drop("notes/one.txt", b"Delete what becomes of me.")
    pair.result("notes/one")
    assert (pair.outbox / "notes" / "one.wav").exists()


def test_a_send_only_outbox_keeps_what_a_phone_deletes(pair: Pair) -> None:
    """For those who share results with people who tidy up."""
    pair.here.ask("PATCH", "config/folders/outbox", {"type": "sendonly"})
    meet(pair.here, pair.phone)
    pair.daemon.start()
    pair.drop("one.txt", b"Keep what becomes of me.")
    pair.result("one")
    (pair.outbox / "one.wav").unlink()
    pair.until("the deletion is known here", lambda: not pair.here.settled())
    assert (pair.daemon.outbox / "one.wav").exists()


def test_retention_only_reports_until_deletions_may_spread(pair: Pair) -> None:
    """Over its cap the outbox stays whole on both sides; once that is accepted, what goes goes on both."""
    over = {"outbox_max_gb": 1e-6, "keep_newest": 0, "keep_hours": 0}
    pair.daemon.configure(defaults=UNCHECKED, retention=over)
    pair.daemon.start()
    for name in ("one", "two", "three"):
        pair.drop(f"{name}.txt", f"This is number {name}.".encode())
    for name in ("one", "two", "three"):
        pair.result(name)
    told = pair.daemon.command("prune").stdout
    assert "deleting here deletes everywhere" in told
    assert len(list(pair.daemon.outbox.glob("*.wav"))) == len(list(pair.outbox.glob("*.wav"))) == 3
    pair.daemon.configure(defaults=UNCHECKED, retention={**over, "deletes_propagate": "accepted"})
    pair.daemon.command("prune", check=True)
    left = {path.name for path in pair.daemon.outbox.glob("*.wav")}
    assert len(left) == 2, "half of it may go at once"
    pair.until("the deletion spreads", lambda: {path.name for path in pair.outbox.glob("*.wav")} == left)


def test_deleting_the_inbox_on_the_phone_spares_what_is_being_worked_on(
    tmp_path: Path, programs: Programs, make_daemon: Make
) -> None:
    """The inbox inside a larger synced folder: `.voxspool` without `(?d)` keeps claimed files."""
    daemon = make_daemon(defaults={"output": {"formats": ["wav"]}})
    pair = joined(tmp_path, programs, daemon, {"speech": daemon.root})
    phone = tmp_path / "phone" / "speech"
    daemon.start()
    (phone / "inbox").mkdir(exist_ok=True)
    (phone / "inbox" / "book.txt").write_text(long_text(300))
    (phone / "inbox" / "picture.png").write_bytes(b"stays where it is")
    pair.until("the picture arrives", (daemon.inbox / "picture.png").exists)
    pair.until("the book is taken", lambda: daemon.progress()[0] > 0)
    pair.until("that is known on the phone", lambda: not (phone / "inbox" / "book.txt").exists())
    shutil.rmtree(phone / "inbox")
    pair.until("the deletion arrives", lambda: not (daemon.inbox / "picture.png").exists())
    pair.until("it is refused", lambda: pair.here.ask("GET", "folder/errors?folder=speech")["errors"])
    assert [path.name for path in (daemon.inbox / ".voxspool" / "claimed").rglob("*.txt")] == ["book.txt"]
    assert (daemon.inbox / ".voxspool-root").exists()
    before = daemon.progress()[0]
    daemon.wait(lambda: daemon.progress()[0] > before)
    assert daemon.stop() == 0
    audited(daemon)
