"""Writers of every kind against the real scan in real time, with and without change events."""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.intake.ignore import IgnoreList
from pipeline.intake.inbox import AlreadyDone, Dropped, Inbox, Scan, never_done
from pipeline.intake.probe import probe
from pipeline.intake.roots import MARKER_NAME, Role, RootProblem, open_root
from pipeline.intake.settle import Openness, SettleRules, Settling, State
from pipeline.intake.wakeup import Wakeup
from pipeline.mounts import mount_of, read_mounts

# A quarter of the real times, so that the tests are quick.
RULES = SettleRules(settle_seconds=0.5, unproven_seconds=1.2, empty_seconds=1.0, longest_settle_seconds=1.2)
EVENTS = pytest.mark.parametrize("events", [True, False], ids=["events", "scan-only"])


class Intake:
    """A scan in a loop as the daemon runs it; what is handed on is claimed by a rename."""

    longest_wait_seconds = 1.5

    def __init__(self, folder: Path, *, events: bool, rules: SettleRules) -> None:
        self.root = open_root(folder, Role.INBOX)
        if not self.root.watchable:
            pytest.skip(f"the temporary folder lies on {self.root.mount.filesystem}")
        settling = Settling(rules, probe, uid=os.geteuid(), gid=os.getegid())
        self.inbox = Inbox(self.root, IgnoreList(), settling)
        self.wakeup = Wakeup(self.root) if events else None
        self.folder, self.claims = folder, folder / ".voxspool" / "claimed"
        self.claims.mkdir(parents=True, exist_ok=True)
        self.claimed: dict[str, tuple[float, bytes]] = {}
        self.scans = 0
        if self.wakeup:
            self.wakeup.start()

    def close(self) -> None:
        """Stop the events."""
        if self.wakeup:
            self.wakeup.stop()

    def step(self) -> Scan:
        """Wait as long as the inbox says, scan, claim."""
        now = time.monotonic()
        events = self.wakeup is not None and self.wakeup.relied_on
        longest = self.longest_wait_seconds if self.scans else 0.0
        wait = min(self.inbox.next_scan_in(now, events=events), longest)
        if self.wakeup:
            self.wakeup.wait(wait, at_least_seconds=self.inbox.rest_seconds(now))
        else:
            time.sleep(wait)
        self.scans += 1
        scan = self.inbox.scan(time.monotonic())
        for dropped in scan.settled:
            self.claim(dropped)
        return scan

    def claim(self, dropped: Dropped) -> None:
        """Rename into the hidden folder, and note when and what."""
        target = self.claims / f"{len(self.claimed)}--{dropped.path.name}"[:200]
        os.rename(dropped.path, target)
        self.claimed[dropped.relative] = (time.monotonic(), target.read_bytes())

    def until(self, done: Callable[[], bool], *, seconds: float = 20.0) -> None:
        """Step until `done`."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"after {seconds} s only {sorted(self.claimed)} had been claimed"
            self.step()

    def until_claimed(self, *relatives: str) -> None:
        """Step until all of these have been claimed."""
        self.until(lambda: set(relatives) <= self.claimed.keys())


@pytest.fixture(name="start")
def start_intake(tmp_path: Path) -> Iterator[Callable[..., Intake]]:
    """Starts an intake on an empty inbox; it has scanned once."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    with contextlib.ExitStack() as stack:

        def start(events: bool, rules: SettleRules = RULES) -> Intake:
            intake = Intake(folder, events=events, rules=rules)
            stack.callback(intake.close)
            intake.step()
            return intake

        yield start


@contextlib.contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Run a writer in a thread for the length of the block."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@EVENTS
def test_a_drop_is_claimed_soon_after_its_quiet_period(start: Callable[[bool], Intake], events: bool) -> None:
    """With events at once, else with the next scan. How quick that is, `bench.idle` says."""
    intake = start(events)
    if events:
        intake.longest_wait_seconds = 60.0  # only an event can end it
    for number in range(3 if events else 1):
        around: list[float] = []

        def write(name: str = f"{number}.txt", around: list[float] = around) -> None:
            time.sleep(0.2)
            around.append(time.monotonic())
            (intake.folder / name).write_text("Hello.")
            around.append(time.monotonic())

        with beside(write):
            intake.until_claimed(f"{number}.txt")
        claimed, (before, after) = intake.claimed[f"{number}.txt"][0], around
        assert claimed - before >= RULES.settle_seconds - 0.1
        assert claimed - after <= RULES.settle_seconds + 10


@EVENTS
def test_octoprint_issue_1760_a_slow_writer_is_never_cut_short(
    start: Callable[[bool], Intake], events: bool
) -> None:
    """A file that grows in steps, closed and opened again in between, arrives whole."""
    intake = start(events)

    def write() -> None:
        for step in range(12):
            with open(intake.folder / "slow.txt", "ab") as stream:
                stream.write(b"x" * 1000)
            time.sleep(0.05 + 0.03 * step)

    with beside(write):
        intake.until_claimed("slow.txt")
    assert len(intake.claimed["slow.txt"][1]) == 12_000


@EVENTS
def test_a_preallocating_writer_is_waited_for(start: Callable[[bool], Intake], events: bool) -> None:
    """A file that has its full size from the start, as Samba makes them, arrives filled."""
    intake = start(events)

    def write() -> None:
        size = 40 * 50_000
        path = intake.folder / "reserved.txt"
        path.touch()
        os.truncate(path, size)
        for step in range(40):
            with open(path, "r+b") as stream:
                stream.seek(step * 50_000)
                stream.write(b"x" * 50_000)
            time.sleep(0.05)

    with beside(write):
        intake.until_claimed("reserved.txt")
    assert b"\0" not in intake.claimed["reserved.txt"][1]


@EVENTS
def test_a_writer_that_pauses_with_the_file_open_is_waited_for(
    start: Callable[[bool], Intake], events: bool
) -> None:
    """A long pause in the middle of a write: the kernel knows that the file is still open."""
    intake = start(events)
    seen = threading.Event()

    def write() -> None:
        with open(intake.folder / "paused.txt", "wb") as stream:
            stream.write(b"first ")
            stream.flush()
            assert seen.wait(20)
            time.sleep(1.2)
            stream.write(b"last")

    with beside(write):
        while "paused.txt" not in intake.claimed:
            waiting = {entry.reason for entry in intake.step().waiting}
            if "still open for writing by a program" in waiting:
                seen.set()
    assert seen.is_set()
    assert intake.claimed["paused.txt"][1] == b"first last"


@EVENTS
def test_every_way_to_arrive_is_noticed(start: Callable[[bool], Intake], events: bool) -> None:
    """Copied, renamed in, hard-linked in, renamed over, moved in as a tree, synced with a date of 1970."""
    intake = start(events)
    outside = intake.folder / ".outside"
    (outside / "tree" / "deep").mkdir(parents=True)
    (outside / "tree" / "deep" / "leaf.txt").write_text("leaf")
    for name in ("renamed", "linked", "over"):
        (outside / f"{name}.txt").write_text(name)
    (intake.folder / "over.txt").write_text("to be replaced")
    (intake.folder / "copied.txt").write_text("copied")
    os.rename(outside / "renamed.txt", intake.folder / "renamed.txt")
    os.link(outside / "linked.txt", intake.folder / "linked.txt")
    os.rename(outside / "tree", intake.folder / "tree")
    sync = intake.folder / ".syncthing.synced.txt.tmp"
    sync.write_text("synced")
    os.rename(sync, intake.folder / "synced.txt")
    os.utime(intake.folder / "synced.txt", (0, 0))
    intake.step()
    os.rename(outside / "over.txt", intake.folder / "over.txt")
    (intake.folder / "tree" / "deep" / "later.txt").write_text("later")
    wanted = {f"{name}.txt": name for name in ("copied", "renamed", "linked", "over", "synced")}
    wanted |= {f"tree/deep/{name}.txt": name for name in ("leaf", "later")}
    intake.until_claimed(*wanted)
    assert {name: content.decode() for name, (_, content) in intake.claimed.items()} == wanted


@EVENTS
def test_an_empty_file_waits_for_its_content(start: Callable[..., Intake], events: bool) -> None:
    """`touch` and much later the text; a file that stays empty is handed on after its own time."""
    intake = start(events, replace(RULES, empty_seconds=4.0))
    (intake.folder / "filled.txt").touch()
    (intake.folder / "empty.txt").touch()

    def write() -> None:
        time.sleep(0.8)
        (intake.folder / "filled.txt").write_text("at last")

    with beside(write):
        intake.until_claimed("filled.txt", "empty.txt")
    assert intake.claimed["filled.txt"][1] == b"at last"
    assert intake.claimed["empty.txt"][1] == b""


@EVENTS
def test_stirling_pdf_issue_1214_many_at_once(start: Callable[[bool], Intake], events: bool) -> None:
    """A thousand files in a hundred folders, all claimed, each once, in few scans."""
    intake = start(events)
    for number in range(1000):
        folder = intake.folder / f"book {number % 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(str(number))
    intake.until(lambda: len(intake.claimed) == 1000)
    contents = {int(content) for _, content in intake.claimed.values()}
    assert contents == set(range(1000))
    assert intake.scans < 60


def test_our_own_looks_and_claims_ring_no_bell(start: Callable[[bool], Intake]) -> None:
    """Scanning, probing and claiming must not lead to the next scan: that would never end."""
    intake = start(True)
    assert intake.wakeup is not None
    (intake.folder / "a.txt").write_text("Hello.")
    intake.until_claimed("a.txt")
    intake.wakeup.wait(0.3, at_least_seconds=0.3)
    intake.inbox.scan(time.monotonic())
    probe(str(next(intake.claims.iterdir())), False)
    assert not intake.wakeup.wait(0.5)


def test_a_replaced_inbox_is_watched_again(start: Callable[[bool], Intake]) -> None:
    """`rm -rf` and `mkdir`: the scan refuses the unmarked folder, and once it is marked events work again."""
    intake = start(True)
    assert intake.wakeup is not None
    marker = (intake.folder / MARKER_NAME).read_bytes()
    intake.folder.rename(intake.folder.with_name("away"))
    intake.folder.mkdir()
    with pytest.raises(RootProblem, match="lost its mark"):
        intake.inbox.scan(time.monotonic())
    (intake.folder / MARKER_NAME).write_bytes(marker)
    intake.claims.mkdir(parents=True)
    end = time.monotonic() + 10
    while not intake.wakeup.relied_on and time.monotonic() < end:
        intake.wakeup.tend()
        time.sleep(0.1)
    assert intake.wakeup.relied_on
    while intake.wakeup.wait(0.3):
        pass
    (intake.folder / "a.txt").write_text("Hello.")
    assert intake.wakeup.wait(2.0)
    intake.inbox.scan(time.monotonic())
    intake.until_claimed("a.txt")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's rights to read everything, for the length of the block."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture(name="open_folder")
def folder_for_everybody() -> Iterator[Path]:
    """A folder that an unprivileged user may reach and write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def scans(folder: Path, *seconds: float, already_done: AlreadyDone = never_done, leave: bool = False) -> Scan:
    """Scan at these times of a simulated clock with the real rules; the last scan is returned."""
    settling = Settling(SettleRules(), probe, uid=os.geteuid(), gid=os.getegid())
    root = open_root(folder, Role.INBOX)
    inbox = Inbox(root, IgnoreList(), settling, source_leave=leave, already_done=already_done)
    for second in seconds[:-1]:
        inbox.scan(second)
    return inbox.scan(seconds[-1])


def test_an_unreadable_file_is_named(open_folder: Path) -> None:
    """A file of mode 000 is shown with both owners' numbers. (Privileges are really dropped.)"""
    path = open_folder / "secret.txt"
    with as_nobody():
        path.write_text("x")
        path.chmod(0)
        (waiting,) = scans(open_folder, 0.0, 2.0).waiting
        uid = os.geteuid()
    assert (waiting.relative, waiting.state) == ("secret.txt", State.UNREADABLE)
    assert f"belongs to uid {uid}" in waiting.reason
    assert "mode 000" in waiting.reason


def test_a_locked_folder_is_named(open_folder: Path) -> None:
    """A folder without permission is shown, what lies beside it goes on. (Privileges are really dropped.)"""
    with as_nobody():
        (open_folder / "locked").mkdir()
        (open_folder / "locked" / "a.txt").write_text("x")
        (open_folder / "good.txt").write_text("x")
        (open_folder / "locked").chmod(0)
        scan = scans(open_folder, 0.0, 2.0)
        (open_folder / "locked").chmod(0o700)
    assert [dropped.relative for dropped in scan.settled] == ["good.txt"]
    (waiting,) = scan.waiting
    assert (waiting.relative, waiting.state) == ("locked", State.UNREADABLE)


def test_somebody_elses_file_waits_longer(open_folder: Path) -> None:
    """The kernel tells only the owner whether a file is open for writing: others wait 5 s."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    (open_folder / "theirs.txt").write_text("x")
    with as_nobody():
        assert probe(str(open_folder / "theirs.txt"), False) is Openness.UNPROVEN
        assert scans(open_folder, 0.0, 2.0).settled == ()
        assert scans(open_folder, 0.0, 2.0, 4.9).settled == ()
        assert len(scans(open_folder, 0.0, 2.0, 5.0).settled) == 1


def test_a_read_only_inbox_is_scanned(open_folder: Path) -> None:
    """An inbox that takes no mark works with `source: leave`. (Privileges are really dropped.)"""
    (open_folder / "a.txt").write_text("x")
    open_folder.chmod(0o555)
    with as_nobody():
        root = open_root(open_folder, Role.INBOX)
        scan = scans(open_folder, 0.0, 5.0, 10.0, leave=True)
    open_folder.chmod(0o777)
    assert root.marker is None
    assert [dropped.relative for dropped in scan.settled] == ["a.txt"]


def test_the_lease_test_sees_writers_and_leaves_no_lease(tmp_path: Path) -> None:
    """Open for writing: WRITING; closed: FREE; and a writer that comes later is not kept waiting."""
    path = tmp_path / "a.txt"
    with open(path, "wb"):
        assert probe(str(path), False) is Openness.WRITING
        assert probe(str(path), True) is Openness.FREE
    assert probe(str(path), False) is Openness.FREE
    begun = time.monotonic()
    with open(path, "ab"):
        assert time.monotonic() - begun < 5  # a lease that is held keeps them waiting for 45


def test_writers_that_come_during_the_lease_test_do_no_harm(tmp_path: Path) -> None:
    """A broken lease sends a signal whose default would end the process: ours must not."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"")
    code = f"import time\nend = time.time() + 1\nwhile time.time() < end: open({str(path)!r}, 'ab').close()"
    with subprocess.Popen(["python3", "-c", code]) as writer:
        answers = set()
        while writer.poll() is None:
            answers.add(probe(str(path), False))
    assert writer.returncode == 0
    assert answers <= {Openness.FREE, Openness.WRITING}
    assert Openness.FREE in answers


def test_pipes_and_links_are_not_opened(tmp_path: Path) -> None:
    """A FIFO put in a file's place at the last moment blocks nothing, a link leads nowhere."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    with pytest.raises(FileNotFoundError):
        probe(str(tmp_path / "pipe.txt"), False)
    with pytest.raises(OSError, match="symbolic links"):
        probe(str(tmp_path / "link.txt"), False)


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    """Mount a small tmpfs over a folder; skips where that is not allowed."""
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_something_mounted_over_the_inbox_is_noticed(tmp_path: Path) -> None:
    """inotify tells nothing of a mount: the device number does, and after the unmount all goes on."""
    root = open_root(tmp_path, Role.INBOX)
    with tmpfs(tmp_path):
        assert mount_of(str(tmp_path), read_mounts()).filesystem == "tmpfs"
        with pytest.raises(RootProblem, match="on another filesystem than before"):
            root.check()
    root.check()


def test_a_filesystem_below_the_inbox_is_told_of(tmp_path: Path) -> None:
    """Files there cannot be claimed by a rename: they wait, unless sources are left where they are."""
    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk"):
        (tmp_path / "disk" / "a.txt").write_text("x")
        (waiting,) = scans(tmp_path, 0.0, 2.0).waiting
        assert waiting.state is State.HELD
        assert waiting.reason.startswith("lies on another filesystem (tmpfs) than the inbox")
        (dropped,) = scans(tmp_path, 0.0, 2.0, leave=True).settled
        assert dropped.device != tmp_path.stat().st_dev


@pytest.mark.parametrize(
    ("where", "done"),
    [(".voxspool/done/{}.txt", False), ("{}.tmp", False), ("{}.jpg", False), ("{}.txt", True)],
    ids=["done folder", "ignored", "unsupported", "left where they are"],
)
@EVENTS
def test_ten_thousand_old_files_cost_next_to_nothing(
    tmp_path: Path, where: str, done: bool, events: bool
) -> None:
    """Ten idle minutes of following `next_scan_in` take less than 1 % of one processor."""
    (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
    for number in range(10_000):
        (tmp_path / where.format(number)).touch()
    settling = Settling(SettleRules(), probe, uid=0, gid=0)
    root = open_root(tmp_path, Role.INBOX)
    predicate: AlreadyDone = (lambda _relative, _fingerprint: True) if done else never_done
    inbox = Inbox(root, IgnoreList(), settling, source_leave=done, already_done=predicate)
    now, begun = 0.0, time.process_time()
    while now < 600:
        inbox.scan(now)
        now += inbox.next_scan_in(now, events=events)
    assert (time.process_time() - begun) / 600 < 0.01
