"""The scan of the inbox, with real files and a clock that the test moves."""

import errno
import json
import os
import socket
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import EnvironmentFailure
from pipeline.intake import listing
from pipeline.intake.ignore import DropKind, IgnoreList
from pipeline.intake.inbox import Inbox, Scan
from pipeline.intake.listing import Waiting
from pipeline.intake.probe import probe
from pipeline.intake.roots import MARKER_NAME, Role, Root, RootProblem, open_root
from pipeline.intake.settle import Fingerprint, Openness, SettleRules, Settling, State
from pipeline.mounts import Mount

DISK = Mount(point="/", filesystem="ext4", source="/dev/sda", read_only=False)
SHARE = Mount(point="/", filesystem="nfs4", source="nas:/v", read_only=False)


class Desk:
    """An inbox and a clock."""

    def __init__(
        self, folder: Path, *, mount: Mount = DISK, globs: tuple[str, ...] = (), **options: object
    ) -> None:
        self.folder, self.now = folder, 1000.0
        self.root = replace(open_root(folder, Role.INBOX), mount=mount)
        self.settling = Settling(SettleRules(), self.probe, uid=990, gid=991)
        self.openness: Callable[[str, bool], Openness] = probe
        self.inbox = Inbox(self.root, IgnoreList(globs), self.settling, **options)  # type: ignore[arg-type]

    def probe(self, path: str, network: bool) -> Openness:
        """Ask the probe that the test may have put in place."""
        return self.openness(path, network)

    def put(self, relative: str | bytes, content: bytes = b"Hello.") -> Path:
        """Create a file with its folders."""
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.folder), os.fsencode(relative))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def scan(self, after_seconds: float = 0.0) -> Scan:
        """One pass, that much later."""
        self.now += after_seconds
        return self.inbox.scan(self.now)

    def settled(self, *, seconds: float = 2.0) -> list[str]:
        """What a pass hands on after all has been quiet for that long."""
        self.scan()
        return [dropped.relative for dropped in self.scan(seconds).settled]

    def why(self) -> dict[str, tuple[State, str]]:
        """State and reason of everything that waits."""
        return {waiting.relative: (waiting.state, waiting.reason) for waiting in self.scan().waiting}


@pytest.fixture(name="desk")
def new_desk(tmp_path: Path) -> Desk:
    """An empty inbox on what passes for a local disk."""
    return Desk(tmp_path)


def test_a_dropped_file_is_handed_on_with_all_that_is_known(desk: Desk) -> None:
    """Name, path, kind, fingerprint, device and time of a settled file."""
    path = desk.put("book/one.txt")
    desk.scan()
    (dropped,) = desk.scan(2.0).settled
    status = path.stat()
    assert (dropped.relative, dropped.path, dropped.kind) == ("book/one.txt", path, DropKind.TEXT)
    assert dropped.fingerprint == Fingerprint(
        status.st_ino, 6, status.st_mtime_ns, status.st_ctime_ns, status.st_blocks
    )
    assert (dropped.device, dropped.settled_at) == (status.st_dev, desk.now)


def test_what_lay_there_at_start_goes_the_same_way(desk: Desk) -> None:
    """A file dropped while nobody looked waits for its quiet period too."""
    os.utime(desk.put("old.txt"), (0, 0))
    assert desk.scan().settled == ()
    assert [waiting.state for waiting in desk.scan(1.9).waiting] == [State.NEW]
    assert [dropped.relative for dropped in desk.scan(0.1).settled] == ["old.txt"]


def test_transcription_suite_issue_311_what_is_not_taken_is_offered_again(desk: Desk) -> None:
    """A settled file that the caller leaves is in every scan until it is gone."""
    path = desk.put("a.txt")
    assert desk.settled() == ["a.txt"]
    assert [dropped.relative for dropped in desk.scan(1).settled] == ["a.txt"]
    assert desk.inbox.next_scan_in(desk.now, events=True) == pytest.approx(5.0, abs=1)
    path.unlink()
    assert desk.scan(1).settled == ()
    assert len(desk.settling) == 0


def test_a_file_that_comes_back_waits_anew(desk: Desk) -> None:
    """A claimed file's name may be used again at once."""
    desk.put("a.txt").rename(desk.folder / ".a")
    desk.scan()
    desk.put("a.txt", b"Another text.")
    assert desk.scan(10).settled == ()
    assert len(desk.scan(2).settled) == 1


def test_every_kind_of_entry_has_an_answer(desk: Desk) -> None:
    """Whatever lies there is handed on, ignored in silence, or shown with its reason."""
    desk.put("good.txt")
    desk.put("job.yaml")
    desk.put("voice.wav")
    desk.put("book.epub")
    desk.put("photo.jpg")
    desk.put("noext")
    desk.put("a.sync-conflict-20260102-101112-ABCDEF7.txt")
    desk.put("empty.txt", b"")
    desk.put("_defaults.yaml")
    desk.put("README.md")
    desk.put("PAUSE", b"")
    desk.put("failed/x.txt")
    desk.put("folder.txt/inner.txt")
    desk.put("@eaDir/x.txt")
    desk.put("x.txt.part")
    os.mkfifo(desk.folder / "pipe.txt")
    (desk.folder / "link.txt").symlink_to("good.txt")
    (desk.folder / "linked.folder").symlink_to("/")
    (desk.folder / "dangling.txt").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(desk.folder / "socket.txt"))
    assert desk.settled() == ["job.yaml", "good.txt", "voice.wav", "folder.txt/inner.txt"]
    link = (State.HELD, "a link, not a file: drop the file itself")
    assert desk.why() == {
        "a.sync-conflict-20260102-101112-ABCDEF7.txt": (
            State.HELD,
            "a sync conflict copy: compare it with the other one, keep one and rename it",
        ),
        "book.epub": (State.UNSUPPORTED, "not supported yet: .epub"),
        "photo.jpg": (State.UNSUPPORTED, "not a kind of file Voxspool knows: .jpg"),
        "noext": (State.UNSUPPORTED, "not a kind of file Voxspool knows: it has no extension"),
        "empty.txt": (State.EMPTY, "empty so far, last change 2 s ago"),
        "PAUSE": (State.IGNORED, "the pause file: no new work starts while it lies here"),
        "failed": (State.IGNORED, "a reserved name: what lies here is never taken for a drop"),
        "folder.txt": (State.IGNORED, "a folder, not a file; its contents are looked at"),
        "pipe.txt": (State.HELD, "a named pipe (FIFO), not a file: drop the file itself"),
        "socket.txt": (State.HELD, "a socket, not a file: drop the file itself"),
        **dict.fromkeys(("link.txt", "linked.folder", "dangling.txt"), link),
    }
    assert desk.scan().counts.ignored == 4  # the marker, our README, @eaDir, x.txt.part


def test_devices_are_held(desk: Desk) -> None:
    """A device node under the name of a text is not opened."""
    try:
        os.mknod(desk.folder / "null.txt", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device node")
    assert desk.why()["null.txt"] == (State.HELD, "a device, not a file: drop the file itself")


def test_a_folder_in_a_files_place_and_back(desk: Desk) -> None:
    """What changes its type between two scans is followed."""
    path = desk.put("a.txt")
    desk.scan()
    path.unlink()
    path.mkdir()
    assert desk.why()["a.txt"][0] is State.IGNORED
    path.rmdir()
    path.symlink_to("b.txt")
    assert desk.why()["a.txt"][0] is State.HELD


@pytest.mark.parametrize(
    "name",
    [
        *("new\nline.txt", " blank .txt", "x" * 251 + ".txt", "a\u202etxt.exe.txt", "\u007f\t"),
        *(unicodedata.normalize("NFD", "über.txt"), unicodedata.normalize("NFC", "über.txt"), "'\"$(rm).txt"),
    ],
)
def test_hazardous_names_survive(desk: Desk, name: str) -> None:
    """A name is carried as it is, to the byte."""
    name = name if name.endswith(".txt") else name + ".txt"
    desk.put(name)
    assert desk.settled() == [name]


def test_undecodable_names_survive(desk: Desk) -> None:
    """Latin-1 bytes come back as the same bytes, in the name of a file and of a folder."""
    raw = "café/né\xe9.txt".encode("latin-1")
    desk.put(raw)
    assert [os.fsencode(relative) for relative in desk.settled()] == [raw]


def test_both_unicode_forms_are_two_files(desk: Desk) -> None:
    """Disks that keep NFC and NFD apart have two drops, neither of which is lost."""
    names = [unicodedata.normalize(form, "über.txt") for form in ("NFC", "NFD")]
    for name in names:
        desk.put(name)
    if len(os.listdir(desk.folder)) < 3:
        pytest.skip("this filesystem keeps one form only")
    assert sorted(desk.settled()) == sorted(names)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=st.binary(min_size=1, max_size=255).filter(
        lambda raw: b"\0" not in raw and b"/" not in raw and raw not in (b".", b"..")
    )
)
def test_any_name_a_disk_can_hold_is_answered(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """For arbitrary bytes as a name: handed on, shown, or ignored, exactly one of them."""
    desk = Desk(tmp_path_factory.mktemp("inbox"))
    desk.put(raw)
    desk.scan()
    scan = desk.scan(2.0)
    found = [os.fsencode(entry.relative) for entry in (*scan.settled, *scan.waiting)]
    assert found in ([raw], []) or raw == MARKER_NAME.encode()
    if not found and raw.lower() not in (b"_defaults.yaml", b"_defaults.yml"):
        assert scan.counts.ignored == 2


def test_ignored_folders_are_never_entered(desk: Desk) -> None:
    """Neither our own folder nor a NAS's index costs more than its name."""
    for number in range(50):
        desk.put(f".voxspool/done/{number}.txt")
        desk.put(f"@eaDir/{number}/x.txt")
        desk.put(f"drafts/{number}.txt")
    inbox = Desk(desk.folder, globs=("drafts",))
    scan = inbox.scan()
    assert (scan.counts.folders, scan.counts.files, scan.counts.ignored) == (1, 0, 4)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link to a folder is shown and not walked into, so no loop and no way out."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "self").symlink_to(".")
    desk = Desk(tmp_path / "in")
    assert desk.settled() == []
    assert set(desk.why()) == {"out", "self"}


def test_job_files_come_first(desk: Desk) -> None:
    """The caller sees job files before what they may name, across folders."""
    for name in ("a/one.txt", "a/b/job.yaml", "z.yaml", "c.wav"):
        desk.put(name)
    assert [name.endswith("yaml") for name in desk.settled()] == [True, True, False, False]


def test_an_arriving_job_file_holds_what_it_may_name(desk: Desk) -> None:
    """Texts and recordings beside or below an unsettled job file wait for it; others do not."""
    for name in ("book/one.txt", "book/parts/two.wav", "other.txt", "sub/three.txt"):
        desk.put(name)
    desk.scan()
    desk.put("book/job.yaml")
    desk.put("sub/three.yaml/x.txt")
    scan = desk.scan(1.9)
    scan = desk.scan(0.1)
    assert [dropped.relative for dropped in scan.settled] == ["other.txt", "sub/three.txt"]
    reason = "a job file beside it, book/job.yaml, is still arriving"
    waiting = {entry.relative: (entry.state, entry.reason) for entry in scan.waiting}
    assert waiting["book/one.txt"] == waiting["book/parts/two.wav"] == (State.SETTLING, reason)
    assert {"book/one.txt", "book/job.yaml", "book/parts/two.wav"} <= scan.unsettled
    assert {entry.relative for entry in desk.scan(2.0).settled} >= {"book/job.yaml", "book/one.txt"}


def test_arriving_defaults_hold_everything_below(desk: Desk) -> None:
    """What is spoken before its defaults have arrived would be spoken with the wrong voice."""
    for name in ("book/one.txt", "book/job.yaml", "book/deep/two.txt", "other.txt"):
        desk.put(name)
    desk.scan()
    desk.put("book/_defaults.yaml")
    desk.scan(1.0)
    scan = desk.scan(1.0)
    assert [dropped.relative for dropped in scan.settled] == ["other.txt"]
    reason = "the settings for this folder, book/_defaults.yaml, are still arriving"
    for waiting in scan.waiting:
        if waiting.relative != "book/_defaults.yaml":
            assert (waiting.state, waiting.reason) == (State.SETTLING, reason)
    scan = desk.scan(1.0)
    assert len(scan.settled) == 4
    assert "book/_defaults.yaml" not in {entry.relative for entry in (*scan.settled, *scan.waiting)}


def test_an_unreadable_job_file_does_not_hold_for_ever(desk: Desk) -> None:
    """After two minutes its neighbours go on without it."""
    desk.openness = refuse_yaml
    desk.put("job.yaml")
    desk.put("one.txt")
    assert desk.settled() == []
    assert desk.settled(seconds=110) == []
    assert desk.settled(seconds=20) == ["one.txt"]
    assert desk.why()["job.yaml"][0] is State.UNREADABLE


def refuse_yaml(path: str, network: bool) -> Openness:
    """A probe that may not open job files."""
    if path.endswith(".yaml"):
        raise PermissionError(errno.EACCES, "Permission denied", path)
    return probe(path, network)


class Trouble:
    """An lstat that fails for the names it is told of."""

    def __init__(self, number: int, *ends: str) -> None:
        self.number, self.ends = number, ends

    def __call__(self, path: str) -> os.stat_result:
        """The real result, or the error."""
        if self.ends and path.endswith(self.ends):
            raise OSError(self.number, os.strerror(self.number), path)
        return os.lstat(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_failing_looks_are_shown_and_overcome(tmp_path: Path, number: int) -> None:
    """A file whose stat result cannot be had is told of, and taken once it can. (Injected errors.)"""
    lstat = Trouble(number, "bad.txt")
    desk = Desk(tmp_path, lstat=lstat)
    desk.put("bad.txt")
    desk.put("good.txt")
    assert desk.settled() == ["good.txt"]
    state, reason = desk.why()["bad.txt"]
    assert state is State.UNREADABLE
    assert reason.startswith("cannot be looked at yet: ")
    lstat.ends = ()
    assert "bad.txt" in desk.settled()


def test_files_that_vanish_during_the_scan_are_no_trouble(tmp_path: Path) -> None:
    """Between listing and look a file or a folder may go. (Injected errors.)"""
    desk = Desk(tmp_path, lstat=Trouble(errno.ENOENT, "gone.txt", "folder"))
    desk.put("gone.txt")
    desk.put("folder/a.txt")
    desk.put("good.txt")
    assert desk.settled() == ["good.txt"]
    assert desk.why() == {}


def test_a_folder_that_cannot_be_looked_into_is_shown(tmp_path: Path) -> None:
    """A folder without permission is told of by name, the rest goes on. (Injected error.)"""
    desk = Desk(tmp_path, lstat=Trouble(errno.EACCES, "locked"))
    desk.put("locked/a.txt")
    desk.put("good.txt")
    assert desk.settled() == ["good.txt"]
    reason = "this folder cannot be looked into: permission denied"
    assert desk.why() == {"locked": (State.UNREADABLE, reason)}


def test_deep_folders_are_shown_and_not_walked(desk: Desk) -> None:
    """Nine folders deep is too deep, and that is said."""
    deep = "/".join("abcdefgh")
    desk.put(f"{deep}/in.txt")
    desk.put(f"{deep}/i/out.txt")
    assert desk.settled() == [f"{deep}/in.txt"]
    reason = "this folder lies more than 8 folders deep and is not looked into"
    assert desk.why() == {f"{deep}/i": (State.HELD, reason)}


def test_a_large_inbox_is_looked_through_in_steps(tmp_path: Path) -> None:
    """No pass looks at more than its limit, each entry gets its turn, nothing is forgotten between."""
    desk = Desk(tmp_path, max_entries=10)
    names = {f"{folder}/{number:02d}.txt" for folder in "abc" for number in range(25)}
    for name in sorted(names):
        desk.put(name)
    desk.put("b/x.jpg")
    first = desk.scan()
    assert not first.complete
    assert "in steps of" in first.note
    assert desk.inbox.next_scan_in(desk.now, events=True) < 1
    while not desk.scan(0.1).complete:
        assert len(desk.settling) <= len(names)
    assert len(desk.settling) == len(names)
    desk.now += 5.0
    found: set[str] = set()
    for _ in range(40):
        scan = desk.scan(0.1)
        assert len(scan.settled) <= 12
        found |= {dropped.relative for dropped in scan.settled}
        assert "b/x.jpg" in {entry.relative for entry in scan.waiting}
    assert found == names


def test_since_stays(desk: Desk) -> None:
    """How long something has been waiting is told from when it was first met."""
    desk.put("a.jpg")
    desk.put("b.txt", b"")
    begun = desk.now
    desk.scan()
    desk.put("c.jpg")
    since = {entry.relative: entry.since for entry in desk.scan(30).waiting}
    assert since == {"a.jpg": begun, "b.txt": begun, "c.jpg": begun + 30}


def test_left_sources_are_taken_once(tmp_path: Path) -> None:
    """With `source: leave` a finished file stays and is not handed on again until it changes."""
    done: dict[str, Fingerprint] = {}
    asked: list[str] = []

    def already_done(relative: str, fingerprint: Fingerprint) -> bool:
        asked.append(relative)
        return done.get(relative) == fingerprint

    desk = Desk(tmp_path, source_leave=True, already_done=already_done)
    path = desk.put("a.txt")
    desk.scan()
    (dropped,) = desk.scan(2).settled
    done["a.txt"] = dropped.fingerprint
    scan = desk.scan(1)
    assert (scan.settled, scan.waiting, scan.counts.done) == ((), (), 1)
    asked.clear()
    desk.scan(1)
    assert asked == []
    path.write_text("Something else.")
    assert desk.settled() == ["a.txt"]
    restarted = Desk(tmp_path, source_leave=True, already_done=lambda _r, _f: True)
    assert restarted.scan().waiting == ()


def test_other_filesystems_below_the_inbox(tmp_path: Path) -> None:
    """A file that cannot be renamed into our folder waits with that reason, unless sources are left."""
    desk = Desk(tmp_path)
    path = desk.put("a.txt")
    desk.root = replace(desk.root, device=desk.root.device + 1)
    checked = Root.check
    try:
        Root.check = lambda _self: None  # type: ignore[method-assign]
        for source_leave in (False, True):
            settling = Settling(SettleRules(), probe, uid=0, gid=0)
            inbox = Inbox(desk.root, IgnoreList(), settling, source_leave=source_leave)
            inbox.scan(0.0)
            scan = inbox.scan(130.0)
            if source_leave:
                assert [dropped.device for dropped in scan.settled] == [path.stat().st_dev]
            else:
                (waiting,) = scan.waiting
                assert waiting.state is State.HELD
                assert "than the inbox, so it cannot be claimed by a rename" in waiting.reason
    finally:
        Root.check = checked  # type: ignore[method-assign]


def test_a_lost_root_stops_the_scan_and_forgets_nothing(desk: Desk) -> None:
    """No scan of a folder that may be the wrong one; when it is back, all goes on."""
    desk.put("a.txt")
    desk.scan()
    marker = (desk.folder / MARKER_NAME).read_bytes()
    (desk.folder / MARKER_NAME).unlink()
    with pytest.raises(RootProblem) as caught:
        desk.scan(1)
    assert isinstance(caught.value, EnvironmentFailure)
    assert json.loads(marker)["role"] == "inbox"
    (desk.folder / MARKER_NAME).write_bytes(marker)
    assert [dropped.relative for dropped in desk.scan(1).settled] == ["a.txt"]


def test_changes_are_named(desk: Desk) -> None:
    """New and changed files are, unchanged ones are not: that is how deaf events are noticed."""
    path = desk.put("sub/a.txt")
    assert desk.scan().changed == ("sub/a.txt",)
    assert desk.scan(1).changed == ()
    path.write_bytes(b"More than before.")
    assert desk.scan(1).changed == ("sub/a.txt",)
    os.link(path, desk.folder / ".elsewhere")
    assert desk.scan(1).changed == ()


def test_a_scan_in_steps_names_each_change_once(tmp_path: Path) -> None:
    """Whichever step meets it; where a round begins can be told."""
    desk = Desk(tmp_path, max_entries=5)
    for number in range(12):
        desk.put(f"{number}.txt")
    found = [desk.scan(0.1).changed for _ in range(3)]
    assert sorted(sum(found, ())) == sorted(f"{number}.txt" for number in range(12))
    assert not desk.inbox.amid_round
    desk.put("new.txt")
    assert sum((desk.scan(0.1).changed for _ in range(5)), ()) == ("new.txt",)
    assert desk.inbox.amid_round


@pytest.mark.parametrize(
    ("filesystem", "idle"), [("nfs4", 10), ("fuse.sshfs", 10), ("unknown", 10), ("ext4", 60)]
)
def test_a_share_below_a_local_inbox_is_scanned_like_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filesystem: str, idle: float
) -> None:
    """No event tells of what others write there: nobody waits a minute for it, and no watch is to blame."""
    below = Mount(point=str(tmp_path / "nas"), filesystem=filesystem, source="x", read_only=False)
    monkeypatch.setattr("pipeline.intake.inbox.read_mounts", lambda: (DISK, below))

    def lstat(path: str) -> os.stat_result:
        status = os.lstat(path)
        if path.startswith(below.point):
            return os.stat_result((*status[:2], status.st_dev + 1, *status[3:]))
        return status

    desk = Desk(tmp_path, source_leave=True, lstat=lstat)
    desk.put("nas/a.txt"), desk.put("b.txt")
    assert sorted(desk.scan(1).changed) == (["b.txt"] if idle == 10 else ["b.txt", "nas/a.txt"])
    for _ in range(3):
        desk.scan(15)
    for path in ("nas/a.txt", "b.txt"):
        (tmp_path / path).unlink()
    waits = []
    for _ in range(8):
        desk.scan(1)
        waits.append(desk.inbox.next_scan_in(desk.now, events=True))
    assert waits[-1] == pytest.approx(idle)


@pytest.mark.parametrize(("mount", "events", "idle"), [(DISK, True, 60), (DISK, False, 2), (SHARE, True, 10)])
def test_an_idle_inbox_is_left_alone(tmp_path: Path, mount: Mount, events: bool, idle: float) -> None:
    """A minute with events, 2 s without, 10 s on a share whatever the events; never longer."""
    desk = Desk(tmp_path, mount=mount)
    waits = []
    for _ in range(8):
        desk.scan(1)
        waits.append(desk.inbox.next_scan_in(desk.now, events=events))
    assert waits[-1] == pytest.approx(idle)
    assert max(waits) <= idle


@pytest.mark.parametrize("events", [True, False])
def test_filebot_issue_15_the_next_scan_is_when_a_file_may_settle(desk: Desk, events: bool) -> None:
    """Following `next_scan_in` a drop is handed on within 0.3 s of its quiet period."""
    desk.put("a.txt")
    begun = desk.now
    scan = desk.scan()
    while not scan.settled:
        scan = desk.scan(desk.inbox.next_scan_in(desk.now, events=events))
        assert desk.now - begun < 2.3
    assert desk.now - begun >= 2.0


def test_a_writer_that_pauses_is_noticed_without_events(desk: Desk) -> None:
    """Following `next_scan_in`, pauses of 1.9 s are seen and the quiet period grows with them."""
    path, begun, size = desk.put("a.txt"), desk.now, 6
    scan = desk.scan()
    while desk.now - begun < 60:
        if desk.now - begun >= 1.9 * (size - 5) and size < 12:
            size += 1
            path.write_bytes(b"x" * size)
        scan = desk.scan(min(0.1, desk.inbox.next_scan_in(desk.now, events=False)))
        if scan.settled:
            break
    assert scan.settled[0].fingerprint.size_bytes == 12
    assert desk.now - begun == pytest.approx(6 * 1.9 + 5.7, abs=0.5)


def test_a_share_waits_longer(tmp_path: Path) -> None:
    """On a share 10 s of quiet, looked at every 5 s at most."""
    desk = Desk(tmp_path, mount=SHARE)
    desk.put("a.txt")
    desk.scan()
    assert desk.inbox.next_scan_in(desk.now, events=True) == pytest.approx(5.0)
    assert desk.scan(9.9).settled == ()
    assert len(desk.scan(0.1).settled) == 1


def test_unchanged_folders_are_not_listed_again(desk: Desk) -> None:
    """Once its times have been still for a while, a folder of ignored files costs one stat call."""
    for number in range(20):
        desk.put(f"sub/{number}.jpg")
    for _ in range(4):
        desk.scan(1)
    listings = desk.inbox._listings
    before = listings.listed
    scan = desk.scan(1)
    assert listings.listed == before
    assert len(scan.waiting) == 20
    desk.put("sub/new.txt")
    desk.scan(1)
    assert listings.listed == before + 1
    desk.scan(listing.RELIST_SECONDS)
    assert listings.listed > before + 1


def test_folder_times_are_not_trusted_too_soon(desk: Desk) -> None:
    """A name that appears within one tick of the clock after the listing is found all the same."""
    desk.put("sub/a.txt")
    desk.scan()
    times = (desk.folder / "sub").stat()
    desk.put("sub/b.txt")
    os.utime(desk.folder / "sub", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "sub/b.txt" in {entry.relative for entry in desk.scan(0.1).waiting}


@pytest.mark.parametrize("mount", [SHARE, replace(DISK, filesystem="vfat")])
def test_folder_times_of_other_filesystems_are_not_trusted(tmp_path: Path, mount: Mount) -> None:
    """On shares and FAT every scan lists every folder."""
    desk = Desk(tmp_path, mount=mount)
    for count in range(1, 6):
        desk.scan(5)
        assert desk.inbox._listings.listed == count


def test_waiting_entries_are_plain_values(desk: Desk) -> None:
    """What the status shows can be compared, so that it is written only when it changed."""
    desk.put("a.jpg")
    assert desk.scan().waiting == desk.scan(5).waiting
    assert isinstance(desk.scan().waiting[0], Waiting)
