"""The real daemon as systemd meets it: over a real datagram socket, and as it is installed."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from daemon_running import Daemon, long_text

from pipeline.database import holder_of
from tests.integration.installed import Installed

FAULTY_DAEMON = Path(__file__).with_name("faulty_daemon.py")
UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}
WATCHDOG_SECONDS = 4.0
NO_PING_SECONDS = 3.0
"longer than between two pings, which are three in a watchdog's time and come with a tick"
NOBODY = 65534
Make = Callable[..., Daemon]


@dataclass(frozen=True, slots=True)
class Told:
    """A datagram as it came in."""

    at: float
    values: dict[str, str]


class Systemd:
    """The end of the line on which the daemon speaks; reads at once, since the line holds few datagrams."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(0.1)
        self._open = True
        self.told: list[Told] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Hang up."""
        self._open = False
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        while self._open:
            with contextlib.suppress(TimeoutError):
                lines = self._socket.recv(8192).decode().splitlines()
                self.told.append(Told(time.monotonic(), dict(line.split("=", 1) for line in lines)))

    def heard(self, key: str, like: str = "", *, since: float = 0.0) -> bool:
        """Whether `key` was told, its value matching `like`, later than `since` (monotonic seconds)."""
        return any(
            re.search(like, told.values[key]) is not None
            for told in self.told
            if key in told.values and told.at > since
        )

    def words(self) -> list[str]:
        """The changes of state, in order."""
        states = ("READY", "RELOADING", "STOPPING")
        return [state for told in self.told for state in states if state in told.values]

    def longest_silence(self, since: float) -> float:
        """Seconds between two pings, or since the last one."""
        moments = [told.at for told in self.told if "WATCHDOG" in told.values and told.at > since]
        return max(b - a for a, b in zip([since, *moments], [*moments, time.monotonic()], strict=True))


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    """Who listens to the daemon that a test starts, and watches it."""
    with tempfile.TemporaryDirectory(prefix="vox") as folder:  # names of sockets must be short
        made = Systemd(f"{folder}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_SECONDS * 1e6)))
        yield made
        made.close()


def start(daemon: Daemon, *settings: str) -> Daemon:
    """Start it with faults, or shorter times, and do not wait for anything."""
    command = [sys.executable, str(FAULTY_DAEMON), "pipeline.status.WRITE_SECONDS=0.2", *settings]
    with open(daemon.root / "daemon.log", "ab") as log:
        daemon.process = subprocess.Popen(
            [*command, "--", "run", "--config", str(daemon.config)],
            cwd=daemon.root,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return daemon


def log_of(daemon: Daemon) -> str:
    """What it wrote to the console."""
    return (daemon.root / "daemon.log").read_text()


# -- the order of things ----------------------------------------------------------------------------


def test_ready_comes_after_the_first_look(make_daemon: Make, systemd: Systemd, tmp_path: Path) -> None:
    """However long that takes; what lay there before is seen in it."""
    block, looking = tmp_path / "block", tmp_path / "block.looking"
    block.touch()
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("a.txt", "I lay here before.")
    start(daemon, f"blocked_look={block}")
    daemon.wait(looking.exists)
    time.sleep(2.0)
    assert systemd.words() == []
    block.unlink()
    daemon.wait(lambda: systemd.heard("READY", "1"))
    assert daemon.manifest("a")["status"] == "done"


def test_a_life_with_reloads_is_told_in_order(make_daemon: Make, systemd: Systemd) -> None:
    """The status shows queue and percent; a refused configuration is told; stopping may take its time."""
    daemon = start(make_daemon(defaults=UNCHECKED | {"check": {"by": "auto"}}))
    daemon.wait(lambda: systemd.heard("STATUS", "^nothing to do$"))
    for name in ("book.txt", "second.txt", "third.txt"):
        daemon.drop(name, long_text(30))
    daemon.wait(lambda: systemd.heard("STATUS", r"^2 queued, running book\.txt \d+ %$"))
    assert daemon.process is not None
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait(lambda: systemd.words() == ["READY", "RELOADING", "READY"])
    (reloading,) = [told.values for told in systemd.told if "RELOADING" in told.values]
    assert before < int(reloading["MONOTONIC_USEC"]) < time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon.config.write_text("inbux: x")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait(
        lambda: systemd.heard("STATUS", "The configuration was not reloaded: config.yaml, line 1: inbux")
    )
    daemon.wait(lambda: systemd.words() == ["READY", "RELOADING", "READY", "RELOADING", "READY"])
    daemon.wait(lambda: daemon.progress()[0] > 0)
    assert daemon.stop() == 0
    daemon.wait(lambda: systemd.heard("STATUS", "^stopped"))
    assert systemd.words()[-1] == "STOPPING"
    (stopping,) = [told.values for told in systemd.told if "STOPPING" in told.values]
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 90_000_000
    assert systemd.told[-1].values["STATUS"].startswith("stopped")


def test_a_share_that_is_away_at_the_start_is_no_reason_to_be_killed(
    make_daemon: Make, systemd: Systemd
) -> None:
    """Ready, with the trouble in the status, and alive; once the share is back, so is the work."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.command("--once", check=True)  # leaves the marks
    systemd.told.clear()
    share = daemon.inbox.rename(daemon.root / "share")
    daemon.inbox.mkdir()  # the place where it is mounted
    start(daemon, "pipeline.intake.watch.ROOT_RETRY_SECONDS=0.5")
    daemon.wait(lambda: systemd.heard("READY"))
    assert systemd.heard("STATUS", r"nothing to do \| The inbox .* has lost its mark")
    away = time.monotonic()
    time.sleep(WATCHDOG_SECONDS)
    assert systemd.longest_silence(away) < WATCHDOG_SECONDS
    daemon.inbox.rmdir()
    share.rename(daemon.inbox)
    daemon.drop("a.txt", "Here I am again.")
    assert daemon.manifest("a")["status"] == "done"
    daemon.wait(lambda: systemd.heard("STATUS", "^nothing to do$", since=away))


def test_a_paused_daemon_is_ready_and_alive(make_daemon: Make, systemd: Systemd) -> None:
    """Nothing is looked at then, on purpose."""
    daemon = make_daemon()
    (daemon.inbox / "PAUSE").touch()
    start(daemon)
    daemon.wait(lambda: systemd.heard("READY"))
    assert systemd.heard("STATUS", "^paused$")
    ready = time.monotonic()
    daemon.wait(lambda: systemd.heard("WATCHDOG", since=ready))


def test_an_abstract_socket_is_told_too(make_daemon: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some managers listen there."""
    name = f"@voxspool-{os.getpid()}-{time.monotonic_ns()}"
    listener = Systemd(name)
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    daemon = start(make_daemon())
    daemon.wait(lambda: listener.heard("READY", "1"))
    listener.close()


# -- signals and children ---------------------------------------------------------------------------


def test_a_stop_during_a_reload_is_a_stop(make_daemon: Make, systemd: Systemd) -> None:
    """The reload waits for a worker that takes long; the stop does not wait for the reload."""
    daemon = start(make_daemon(workers={"stop_seconds": 2}))
    daemon.wait(lambda: systemd.heard("READY"))
    daemon.drop("book.txt", long_text(30))
    daemon.wait(lambda: daemon.progress()[0] > 0)
    daemon.workers()[0].suspend()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait(lambda: systemd.heard("RELOADING"))
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5
    assert "configuration reloaded" not in log_of(daemon)
    assert systemd.words() == ["READY", "RELOADING", "STOPPING"]


def test_no_child_can_speak_in_the_daemons_name(make_daemon: Make, systemd: Systemd, tmp_path: Path) -> None:
    """Neither a worker nor the command that is told of a job inherits what systemd said."""
    heard = tmp_path / "heard"
    command = ["sh", "-c", f"env > {heard}.new && mv {heard}.new {heard}"]
    daemon = start(make_daemon(defaults=UNCHECKED, notify={"command": command, "when": ["done"]}))
    daemon.drop("a.txt", "Done soon.")
    daemon.wait(heard.exists)
    environments = [heard.read_text(), *(str(worker.environ()) for worker in daemon.workers())]
    assert len(environments) == 2
    for environment in environments:
        assert "PATH" in environment
        assert "NOTIFY_SOCKET" not in environment and "WATCHDOG" not in environment


# -- the watchdog -----------------------------------------------------------------------------------


def test_a_look_that_does_not_end_ends_the_pings(make_daemon: Make, systemd: Systemd, tmp_path: Path) -> None:
    """On a disk of this machine; they come again as soon as it goes on."""
    block, looking = tmp_path / "block", tmp_path / "block.looking"
    daemon = start(make_daemon(), f"blocked_look={block}", "pipeline.service.LOOK_SECONDS=1.5")
    daemon.wait(lambda: systemd.heard("READY"))
    block.touch()
    daemon.drop("b.txt", "Nobody looks at me.")
    daemon.wait(looking.exists)
    daemon.wait(
        lambda: "no longer told that all is well: a look at the folders has not ended" in log_of(daemon)
    )
    stuck = time.monotonic()
    time.sleep(NO_PING_SECONDS)
    assert not systemd.heard("WATCHDOG", since=stuck)
    block.unlink()
    daemon.wait(lambda: systemd.heard("WATCHDOG", since=stuck))


def test_a_daemon_that_hangs_does_not_ping(make_daemon: Make, systemd: Systemd) -> None:
    """No thread of its own says that all is well."""
    daemon = start(make_daemon())
    daemon.wait(lambda: systemd.heard("READY"))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    stuck = time.monotonic()
    time.sleep(NO_PING_SECONDS)
    assert not systemd.heard("WATCHDOG", since=stuck)
    daemon.process.send_signal(signal.SIGCONT)
    daemon.wait(lambda: systemd.heard("WATCHDOG", since=stuck))


def suspended_worker(daemon: Daemon) -> psutil.Process:
    """A worker that was stopped amid its job."""
    daemon.wait(lambda: daemon.status().get("state") == "running")
    daemon.drop("book.txt", long_text(15))  # progress is written twice a second: it is to run for longer
    daemon.wait(lambda: daemon.progress()[0] > 0)
    worker = daemon.workers()[0]
    suspend(daemon, worker)
    return worker


def suspend(daemon: Daemon, worker: psutil.Process) -> None:
    """Stop it, but not amid a change of the ledger, which is another story."""
    worker.suspend()
    while holder_of(daemon.root / "state" / "ledger.db") == worker.pid:
        worker.resume()
        time.sleep(0.01)
        worker.suspend()


def test_a_worker_that_hangs_is_replaced_and_the_watchdog_never_knows(
    make_daemon: Make, systemd: Systemd
) -> None:
    """The daemon kills it at its own deadline; the job is finished by the next."""
    daemon = start(make_daemon(defaults=UNCHECKED | {"check": {"by": "auto"}}, workers={"stall_seconds": 5}))
    worker = suspended_worker(daemon)
    hung = time.monotonic()
    assert daemon.manifest("book")["status"] == "done"
    assert not worker.is_running()
    assert "shows no progress for 5 s: killed" in log_of(daemon)
    assert systemd.longest_silence(hung) < WATCHDOG_SECONDS


def test_a_worker_that_hangs_without_a_job_is_replaced(make_daemon: Make) -> None:
    """It shows no heartbeat to miss; but there is work, and it does not ask for it."""
    daemon = start(make_daemon(defaults=UNCHECKED), "pipeline.crew.DEAF_SECONDS=6")
    daemon.drop("a.txt", "So that there is a worker.")
    daemon.manifest("a")
    daemon.wait(lambda: daemon.query("SELECT outcome FROM attempts") == [("done",)])
    worker = daemon.workers()[0]
    suspend(daemon, worker)
    daemon.drop("b.txt", "Does anybody hear me?")
    assert daemon.manifest("b")["status"] == "done"
    assert not worker.is_running()
    daemon.wait(lambda: daemon.query("SELECT outcome FROM attempts") == [("done",), ("done",)])


def test_a_worker_that_hangs_amid_a_change_of_the_ledger_is_replaced(
    make_daemon: Make, tmp_path: Path
) -> None:
    """Nobody else can write then, so it is not its silence that tells, but that others are kept out."""
    hang = tmp_path / "hang"
    daemon = start(
        make_daemon(defaults=UNCHECKED), f"hangs_in_ledger={hang}", "pipeline.database.BUSY_TIMEOUT_SECONDS=2"
    )
    daemon.wait(lambda: daemon.status().get("state") == "running" and daemon.workers())
    worker = daemon.workers()[0]
    hang.touch()
    daemon.drop("a.txt", "To be taken by the worker is a change, too.")
    daemon.wait(lambda: not hang.exists())
    daemon.drop("b.txt", "Nobody can write me down.")
    assert daemon.manifest("a")["status"] == daemon.manifest("b")["status"] == "done"
    assert not worker.is_running()
    assert log_of(daemon).count("hangs and keeps the ledger locked: killed") == 1


def test_a_worker_that_outlives_its_killing_ends_the_pings(make_daemon: Make, systemd: Systemd) -> None:
    """Then only systemd can help, which ends the whole group; the log says why."""
    daemon = make_daemon(defaults=UNCHECKED | {"check": {"by": "auto"}}, workers={"stall_seconds": 5})
    start(daemon, "immortal_workers=yes", "pipeline.service.KILL_SECONDS=1")
    suspended_worker(daemon)
    daemon.wait(lambda: "systemd is no longer told that all is well: worker" in log_of(daemon))
    stuck = time.monotonic()
    time.sleep(NO_PING_SECONDS)
    assert not systemd.heard("WATCHDOG", since=stuck)


# -- as it is installed -----------------------------------------------------------------------------


def as_nobody(command: list[str]) -> list[str]:
    """The command as a user who may read everything: the tests' environment may lie in root's home."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("root cannot become somebody else here (setpriv is missing)")
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reading, *command]


def own_daemon(daemon: Daemon, machine: Installed) -> tuple[list[str], Path]:
    """The installed daemon as a user who owns its folders: how it is called, and where it would litter."""
    machine.install()
    for line in ("inbox", "outbox", "voices", "state"):
        text = re.sub(
            rf"^{line}: .*$", f"{line}: {getattr(daemon, line)}", machine.config.read_text(), flags=re.M
        )
        machine.config.write_text(text)
    machine.config.write_text(machine.config.read_text() + "intake: {settle_seconds: 0.1}\n")
    daemon.config.unlink()
    daemon.config = machine.config
    stray = daemon.root / "stray"
    places = [daemon.inbox, daemon.outbox, daemon.voices, daemon.state]
    for folder in (*places, daemon.inbox / "books", *(stray / name for name in ("home", "tmp", "here"))):
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
    program = [str(machine.code / ".venv" / "bin" / "python"), str(machine.code / "daemon.py")]
    return as_nobody([*program, "--config", str(machine.config)]), stray


def drop(daemon: Daemon, name: str, text: str) -> None:
    """Drop a file that belongs to the daemon's own user: others' take longer to settle."""
    path = daemon.inbox / name
    hidden = path.with_name(".arriving")
    hidden.write_text(text)
    if os.geteuid() == 0:
        os.chown(hidden, NOBODY, NOBODY)
    hidden.rename(path)


def names_in(root: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(path) for path in root.rglob("*"))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """For an installation: espeak-ng takes paths of 160 characters at most, and pytest's are long."""
    with tempfile.TemporaryDirectory(prefix="vx") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_installed_service_keeps_to_its_folders(
    make_daemon: Make, short_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain user, read-only code: drops, a reload, a stop, a new start; nothing is written elsewhere."""
    daemon = make_daemon()
    machine = Installed(short_path)
    command, stray = own_daemon(daemon, machine)
    monkeypatch.setenv("HOME", str(stray / "home"))
    monkeypatch.setenv("TMPDIR", str(stray / "tmp"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    Path(os.environ["NOTIFY_SOCKET"]).chmod(0o777)
    files, names = machine.files(), names_in(machine.root)

    def started() -> None:
        since = time.monotonic()
        with open(daemon.root / "daemon.log", "ab") as log:
            daemon.process = subprocess.Popen(
                [*command, "run"], cwd=stray / "here", stdout=log, stderr=log, start_new_session=True
            )
        daemon.wait(lambda: systemd.heard("READY", since=since))

    started()
    drop(daemon, "hello.txt", "Hello there. This is the service.")
    drop(daemon, "books/one.md", "# One\n\nA chapter.")
    for name in ("hello", "books/one"):
        manifest = daemon.manifest(name)
        assert manifest["status"] == "done" and all(chunk["passed"] for chunk in manifest["chunks"])
    written = machine.config.read_text()
    machine.config.write_text(written + "defaults: {output: {formats: [flac]}}\n")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait(lambda: systemd.words() == ["READY", "RELOADING", "READY"])
    drop(daemon, "two.txt", "Now in another format.")
    assert daemon.manifest("two")["outputs"][0]["format"] == "flac"
    machine.config.write_text(written)
    assert daemon.stop() == 0
    started()
    drop(daemon, "three.txt", "And once more.")
    assert daemon.manifest("three")["outputs"][0]["format"] == "mp3"
    assert daemon.stop() == 0
    audit = subprocess.run(
        [*command, "audit"], cwd=stray / "here", capture_output=True, text=True, check=False
    )
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert "4 done" in audit.stdout
    if os.geteuid() == 0:
        assert (daemon.outbox / "hello.json").stat().st_uid == NOBODY
    assert machine.files() == files and names_in(machine.root) == names
    assert [path for path in stray.rglob("*") if path.is_file()] == []
    machine.remove()
