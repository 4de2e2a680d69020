"""What the machine does to us: disks that are full, gone, read-only or somebody else's.

Each test shows that the trouble is named in the status with what to do, that it costs no job an attempt,
that nothing is written where it does not belong, and that the work goes on by itself once it is mended.
"""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_running import SPOKEN, Daemon
from disks import Disk, mounted, skip_unless_mounting_is_allowed

from pipeline.audit import audit
from pipeline.config import load_config
from pipeline.errors import EnvironmentFailure
from pipeline.layout import layout_of
from pipeline.ledger import Ledger

QUICK = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}
SENTENCE = "A short sentence."


class HastyDaemon(Daemon):
    """It looks and tells more often."""

    program = Path(__file__).with_name("hasty_daemon.py")


class House:
    """A daemon whose inbox, outbox and state are disks of their own."""

    def __init__(self, root: Path) -> None:
        self.daemon = HastyDaemon(root, defaults=QUICK, workers={"min_free_mb": 0.1})
        self.disks = {
            name: Disk(root / name, root / "disks" / name, size=size)
            for name, size in (("inbox", "2m"), ("outbox", "48m"), ("state", "64m"))
        }
        self.number = 0

    def query(self, statement: str) -> list[Any]:
        """Ask the ledger, also where it is out of sight."""
        database = sqlite3.connect(f"file:{self.disks['state'].hidden / 'ledger.db'}?mode=ro", uri=True)
        try:
            return database.execute(statement).fetchall()
        finally:
            database.close()

    def drop(self, text: str = SENTENCE) -> str:
        """A new file in the inbox; returns its stem."""
        stem = self.next_stem()
        self.daemon.drop(f"{stem}.txt", text)
        return stem

    def drop_long(self) -> str:
        """A job of some seconds, each chunk new and listened to; its progress is told twice a second."""
        stem = self.next_stem()
        told = (SPOKEN.format(f"{stem} of {number}") for number in range(2, 14))
        text = "\n".join(f"  {sentence}\n" for sentence in told)
        self.daemon.drop(f"{stem}.yaml", f"check: {{by: pocketsphinx}}\ntext: |\n{text}")
        return stem

    def next_stem(self) -> str:
        """A name that was not used yet."""
        self.number += 1
        return str(self.number)

    def status(self) -> dict[str, Any]:
        """As the command line reads it: the daemon's own copy first."""
        for place in (self.daemon.state, self.daemon.outbox):
            with contextlib.suppress(OSError, ValueError):
                found: dict[str, Any] = json.loads((place / "status.json").read_bytes())
                return found
        return {}

    def trouble(self) -> str:
        """What the status says is wrong."""
        return " ".join(self.status().get("trouble", ()))

    def told(self, *words: str) -> None:
        """Wait until the status says all of `words`."""
        try:
            self.daemon.wait(lambda: all(word in self.trouble() for word in words), 25)
        except AssertionError as error:
            raise AssertionError(f"the status says {self.trouble()!r}, not {words}") from error

    def done(self, stem: str, *, others: int = 0) -> None:
        """Wait until this drop has come out, and all sources but `others` are where they belong."""
        self.daemon.manifest(stem)
        claimed = "SELECT COUNT(*) FROM drops WHERE state = 'claimed'"
        self.daemon.wait(lambda: self.query(claimed) == [(others,)], 25)

    def finally_well(self) -> None:
        """No attempt was burned, no trouble is left, and every file is in its place."""
        self.daemon.wait(lambda: self.trouble() == "", 25)
        outcomes = {row[0] for row in self.query("SELECT outcome FROM attempts")}
        assert outcomes <= {"done", "environment", "interrupted"}, outcomes
        assert self.query("SELECT COUNT(*) FROM jobs WHERE state != 'done'") == [(0,)]
        layout = layout_of(load_config(self.daemon.config))
        ledger = Ledger(layout.ledger_file, clock=float)
        found = audit(ledger, layout)
        ledger.close()
        assert found.problems == ()

    def outcomes(self, stem: str) -> list[str]:
        """How each attempt at this drop ended."""
        rows = self.query(
            "SELECT outcome FROM attempts JOIN jobs ON job_id = jobs.id"
            f" WHERE stem = '{stem}' AND outcome IS NOT NULL ORDER BY number"
        )
        return [row[0] for row in rows]

    def half_results(self) -> list[str]:
        """Sound or logs in the outbox that no manifest stands for."""
        outbox = self.daemon.outbox
        names = [path for path in outbox.glob("*.*") if path.suffix in (".wav", ".log")]
        return [path.name for path in names if not path.with_suffix(".json").exists()]

    def close(self) -> None:
        """Nothing of it is left."""
        self.daemon.kill()
        for disk in self.disks.values():
            disk.destroy()


@pytest.fixture(scope="module")
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One daemon for all: each test hurts it and lets it heal."""
    root = tmp_path_factory.mktemp("house")
    skip_unless_mounting_is_allowed(root)
    made = House(root)
    try:
        made.daemon.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def house(own_house: House) -> Iterator[House]:
    """A test that fails leaves its fault to nobody."""
    yield own_house
    for disk in own_house.disks.values():
        disk.make_room()
        if not os.path.ismount(disk.place):
            disk.mount()


FULL: dict[str, Callable[[Disk], None]] = {"bytes": Disk.fill, "inodes": Disk.use_up_inodes}


@pytest.mark.parametrize("what", FULL)
@pytest.mark.parametrize("role", ["outbox", "state"])
def test_a_full_disk_is_waited_for(house: House, role: str, what: str) -> None:
    """By bytes and by inodes: nothing is begun, and nothing half done is seen."""
    disk = house.disks[role]
    FULL[what](disk)
    stem = house.drop()
    house.told(f"The disk of the {role} {disk.place}", "full" if what == "bytes" else "inodes", "Make room")
    assert house.half_results() == []
    disk.make_room()
    house.done(stem)
    house.finally_well()


def test_an_inbox_without_inodes_keeps_what_it_holds(house: House) -> None:
    """A claim makes a folder, which is one file more."""
    disk = house.disks["inbox"]
    hidden = disk.place / ".arriving"
    hidden.write_text(SENTENCE)
    disk.use_up_inodes()
    stem = house.next_stem()
    hidden.rename(disk.place / f"{stem}.txt")
    house.told(f"The disk of the inbox {disk.place}", "inodes", "Make room")
    assert (disk.place / f"{stem}.txt").exists()
    disk.make_room()
    house.done(stem)
    house.finally_well()


def test_work_goes_on_with_an_inbox_without_a_byte_of_room(house: House) -> None:
    """What lies there can be claimed and put away by renames."""
    stem = house.drop()
    house.disks["inbox"].fill()
    house.done(stem)
    house.finally_well()


@pytest.mark.parametrize("role", ["outbox", "state"])
def test_a_disk_that_fills_up_in_the_middle_of_a_job(house: House, role: str) -> None:
    """The ledger still takes what has to be written down; what was spoken by then is not spoken again."""
    disk = house.disks[role]
    stem = house.drop_long()
    house.daemon.wait(lambda: house.daemon.progress()[0] >= 2)
    disk.fill()
    house.told(f"The disk of the {role} {disk.place} is full", "Make room")
    house.daemon.wait(lambda: house.outcomes(stem) == ["environment"])
    assert house.half_results() == []
    disk.make_room()
    house.done(stem)
    assert sum(chunk["cached"] for chunk in house.daemon.manifest(stem)["chunks"]) >= 2
    house.finally_well()


def test_the_outbox_itself_says_that_it_is_full(house: House) -> None:
    """Who sees nothing but the synced folder on a phone reads it there: the old status makes room for it."""
    disk = house.disks["outbox"]
    disk.fill()
    house.daemon.wait(lambda: "is full" in " ".join(house.daemon.status().get("trouble", ())))
    disk.make_room()
    house.finally_well()


def test_a_job_for_which_there_is_no_room_lets_smaller_ones_go_first(house: House) -> None:
    """It waits with the reason, costs no attempt, and is done once there is room."""
    disk = house.disks["outbox"]
    disk.fill(leave=3_000_000)
    large = house.drop(" ".join(SPOKEN.format(number) for number in range(20)))
    house.daemon.wait(lambda: house.query(f"SELECT 1 FROM jobs WHERE stem = '{large}'"))
    house.done(house.drop(), others=1)
    reason = "on the disk of the outbox, where 2."
    house.daemon.wait(lambda: [entry for entry in house.status()["queued"] if reason in entry["reason"]])
    assert f"{large}.txt waits for room: it needs about" in " ".join(house.status()["notes"])
    assert house.outcomes(large) == [] and house.trouble() == ""
    disk.make_room()
    house.done(large)
    house.finally_well()


def test_a_run_that_ends_tells_what_kept_it_from_working(house: House) -> None:
    """`--once` waits a little, then says it and ends with 1; the next run does the work."""
    house.daemon.stop()
    house.disks["outbox"].fill()
    stem = house.drop()
    ended = house.daemon.command("--once")
    assert ended.returncode == 1 and f"The disk of the outbox {house.daemon.outbox} is full" in ended.stderr
    house.disks["outbox"].make_room()
    assert (ended := house.daemon.command("--once")).returncode == 0, ended.stderr
    house.daemon.start()
    house.done(stem)
    house.finally_well()


@pytest.mark.parametrize("what", FULL)
def test_a_disk_that_is_full_at_the_start_is_waited_for(house: House, what: str) -> None:
    """Told to stop meanwhile it ends, and started again it begins to work as soon as there is room."""
    disk = house.disks["state"]
    house.daemon.stop()
    FULL[what](disk)
    stem = house.drop()
    house.daemon.start()
    house.told(f"The disk of the state {disk.place}", "full" if what == "bytes" else "inodes", "Make room")
    assert house.daemon.stop() == 0
    house.daemon.start()
    disk.make_room()
    house.done(stem)
    house.finally_well()


def test_an_outbox_that_is_not_mounted_at_the_start(house: House) -> None:
    """Its bare folder is there, and stays as empty as it is."""
    disk = house.disks["outbox"]
    house.daemon.stop()
    disk.unmount()
    stem = house.drop()
    try:
        house.daemon.launch()
        house.told(f"The outbox {disk.place} has lost its mark", "Mount it again")
        assert list(disk.place.iterdir()) == []
    finally:
        disk.mount()
    house.done(stem)
    house.finally_well()


def test_an_outbox_that_becomes_read_only(house: House) -> None:
    """Somebody remounted it."""
    outbox = house.disks["outbox"]
    outbox.read_only(True)
    try:
        stem = house.drop()
        house.told(f"The outbox {outbox.place} is read-only", "remount")
    finally:
        outbox.read_only(False)
    house.done(stem)
    house.finally_well()


@pytest.mark.parametrize("role", ["inbox", "outbox", "state"])
def test_an_unmounted_root_is_neither_read_nor_written(house: House, role: str) -> None:
    """In the middle of a job: the bare folder below stays as empty as it was."""
    disk = house.disks[role]
    stem = house.drop_long()
    house.daemon.wait(lambda: house.daemon.progress()[0] >= 2)
    disk.unmount()
    try:
        house.told(str(disk.place), "Mount it again")
        house.daemon.wait(lambda: house.outcomes(stem) == ["environment"])
        assert list(disk.place.iterdir()) == []
    finally:
        disk.mount()
    house.done(stem)
    house.finally_well()


@pytest.mark.parametrize("role", ["inbox", "outbox", "state"])
def test_something_is_mounted_over_a_root(house: House, role: str) -> None:
    """An empty disk: nothing is taken from it and nothing put into it."""
    disk = house.disks[role]
    with mounted(disk.place, "size=1m"):
        if role == "inbox":
            (disk.place / "decoy.txt").write_text("Not ours.")
        stem = "" if role == "inbox" else house.drop()
        house.told(str(disk.place), "Mount")
        assert [path.name for path in disk.place.iterdir()] == (["decoy.txt"] if role == "inbox" else [])
    stem = stem or house.drop()
    house.done(stem)
    house.finally_well()


@pytest.mark.parametrize("role", ["inbox", "outbox"])
def test_a_root_is_replaced_by_another_folder(house: House, role: str) -> None:
    """With a mark of its own: somebody mounted the wrong share."""
    place = house.disks[role].place
    mark = place / ".voxspool-root"
    own = mark.read_bytes()
    mark.write_text(json.dumps({"uuid": "other", "role": role}))
    try:
        house.told(f"The {role} {place} carries another mark", "Mount it again")
    finally:
        mark.write_bytes(own)
    house.done(house.drop())
    house.finally_well()


@pytest.mark.parametrize("reserve", [True, False], ids=["with reserve", "without"])
def test_a_full_disk_can_be_written_down(tmp_path: Path, reserve: bool) -> None:
    """Thousands of commits fit into the pages that the ledger keeps free; without them not one does."""
    skip_unless_mounting_is_allowed(tmp_path)
    disk = Disk(tmp_path / "state", tmp_path / "hidden", size="8m")
    try:
        ledger = Ledger(disk.place / "ledger.db", clock=float)
        if reserve:
            ledger.keep_reserve()
        disk.fill()
        written = 0
        with contextlib.suppress(EnvironmentFailure):
            for written in range(1000):
                ledger.set_meta("trouble", f"{written}: the disk is full")
        assert ledger.meta("trouble") == (f"{written}: the disk is full" if reserve else None)
        assert written == (999 if reserve else 0)
        ledger.close()
    finally:
        disk.destroy()


# -- without disks of their own -----------------------------------------------------------------------


class PlainDaemon(HastyDaemon):
    """It runs as somebody who may read everything and write only its own."""

    before = (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"),
    )

    def drop(self, name: str, content: str | bytes) -> Path:
        """A file of its own, in a folder of its own."""
        (self.inbox / name).parent.mkdir(exist_ok=True)
        os.chown((self.inbox / name).parent, 65534, 65534)
        aside = self.root / "aside"
        aside.write_text(str(content))
        os.chown(aside, 65534, 65534)
        return aside.replace(self.inbox / name)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[PlainDaemon]:
    """Started, in folders that belong to it."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root may become somebody else (setpriv)")
    made = PlainDaemon(tmp_path, defaults=QUICK)
    for folder in (tmp_path, made.inbox):
        os.chown(folder, 65534, 65534)
    yield made
    made.kill()


def test_permission_that_is_taken_away_is_waited_for(plain: PlainDaemon) -> None:
    """Of one folder of the outbox: the others are served. Of all of it: nothing is begun. No try is lost."""
    plain.start()
    (plain.outbox / "closed").mkdir()  # root's own
    plain.drop("closed/a.txt", SENTENCE)

    def trouble() -> str:
        return " ".join(json.loads((plain.state / "status.json").read_bytes())["trouble"])

    plain.wait(lambda: f"Access to {plain.outbox}/closed is denied. Voxspool runs as uid 65534" in trouble())
    plain.drop("b.txt", SENTENCE)
    assert plain.manifest("b")["status"] == "done"
    os.chown(plain.outbox / "closed", 65534, 65534)
    assert plain.manifest("closed/a")["status"] == "done"
    hidden = plain.outbox / ".voxspool"
    os.chown(hidden, 0, 0)
    plain.drop("c.txt", SENTENCE)
    plain.wait(lambda: f"Access to {hidden} is denied. Voxspool runs as uid 65534" in trouble())
    os.chown(hidden, 65534, 65534)
    assert plain.manifest("c")["status"] == "done"
    plain.wait(lambda: plain.query("SELECT 1 FROM drops WHERE state = 'claimed'") == [])
    outcomes = {row[0] for row in plain.query("SELECT outcome FROM attempts")}
    assert outcomes == {"done", "environment"}
    assert plain.command("audit").returncode == 0


def test_a_damaged_ledger_ends_the_daemon_with_what_to_do(make_daemon: Callable[..., Daemon]) -> None:
    """Exit code 65. With it moved away the daemon begins anew, and nothing that was dropped is lost."""
    daemon = make_daemon(defaults=QUICK)
    daemon.drop("a.txt", SENTENCE)
    daemon.command("--once", check=True)
    ledger = daemon.state / "ledger.db"
    whole = ledger.read_bytes()
    for damaged in (b"this is no database" * 1000, whole[:4096] + b"\xff" * (len(whole) - 4096)):
        ledger.write_bytes(damaged)
        daemon.drop("b.txt", SENTENCE)
        ended = daemon.command("--once")
        assert ended.returncode == 65, ended.stderr
        assert f"The ledger {ledger} is damaged: " in ended.stderr and "ledger.db-wal" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert (daemon.inbox / "b.txt").exists()
    for path in daemon.state.glob("ledger.db*"):
        path.rename(daemon.root / path.name)
    daemon.command("--once", check=True)
    assert daemon.manifest("b")["status"] == "done"
    assert daemon.command("audit").returncode == 1, "the first drop is in the old ledger alone"
