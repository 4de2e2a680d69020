"""Other people's programs as a test's peers: found or the test is skipped, ended with all they started.

Knows no Voxspool. Invariant: whatever a test does, after `Programs.end` none of its programs lives and
nothing that it mounted is mounted any more.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

POLL_SECONDS = 0.05
START_SECONDS = 30.0
END_SECONDS = 10.0


def needed(name: str, package: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is missing: install Debian's package {package} (.ci/peers does)")
    return found


def need_root(why: str) -> None:
    """Skip the test unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip(f"only root may do this: {why}")


def need_fuse() -> None:
    """Skip the test where no FUSE filesystem can be mounted."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"/dev/fuse cannot be opened ({error.strerror}), so nothing can be mounted")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens on this port of the loopback interface."""
    return reachable("127.0.0.1", port)


def reachable(address: str, port: int) -> bool:
    """The same for any loopback address."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2.0):
        return True
    return False


def wait_for(
    what: str,
    condition: Callable[[], Any],
    *,
    seconds: float = START_SECONDS,
    evidence: Callable[[], str] = lambda: "",
) -> None:
    """Until `condition()` is true; fails with `what` was waited for and the evidence if it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}\n{evidence()}")
        time.sleep(POLL_SECONDS)


class Programs:
    """The programs and mounts of one test."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []
        self._mounted: list[Path] = []

    def start(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Run a program in a group of its own; what it prints goes to `<name>.log`."""
        return self._run(name, command, env, subprocess.DEVNULL)

    def feed(self, name: str, command: Sequence[str | Path]) -> "subprocess.Popen[bytes]":
        """The same for one that reads its standard input, which the caller writes and closes."""
        return self._run(name, command, None, subprocess.PIPE)

    def _run(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None, stdin: int
    ) -> "subprocess.Popen[bytes]":
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=stdin,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def output(self, name: str, command: Sequence[str | Path]) -> str:
        """What a command prints; one that does not end is left behind and ended with the test."""
        self.log(name).unlink(missing_ok=True)
        process = self.start(name, command)
        wait_for(f"{name} ends", lambda: process.poll() is not None, seconds=START_SECONDS)
        return self.log(name).read_text(encoding="utf-8")

    def log(self, name: str) -> Path:
        """Where the program called `name` writes."""
        return self._logs / f"{name}.log"

    def mount(self, name: str, command: Sequence[str | Path], point: Path) -> "subprocess.Popen[bytes]":
        """Run a program that mounts something at `point`, until it is mounted."""
        self._mounted.append(point)
        process = self.start(name, command)
        wait_for(
            f"{name} mounts {point}",
            lambda: mounted(point) or process.poll() is not None,
            evidence=self.log(name).read_text,
        )
        assert mounted(point), f"{name} could not mount {point}:\n{self.log(name).read_text()}"
        return process

    def end(self) -> None:
        """Unmount and kill everything."""
        trees = [tree for process in self._started for tree in _tree(process.pid)]
        for process in self._started:
            if process.poll() is None:
                kill_group(process)
        for point in self._mounted:
            unmount(point)
        alive = psutil.wait_procs(trees, timeout=END_SECONDS)[1]
        for process in self._started:
            process.wait(END_SECONDS)
            if process.stdin is not None:
                process.stdin.close()
        assert not alive, f"these programs cannot be ended: {alive}"
        still = [point for point in self._mounted if mounted(point)]
        assert not still, f"these mounts cannot be ended: {still}"


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all below it, in whatever group they are; empty if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        return [*top.children(recursive=True), top]
    return []


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL for a program, its group and its children; also for those that are stopped."""
    tree = _tree(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for left in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def mounted(point: Path) -> bool:
    """Whether something is mounted at `point`; asks the kernel's table, never the mount itself."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return any(line.split(" ")[4] == str(point) for line in lines)


def unmount(point: Path) -> None:
    """Take away what is mounted at `point`, even if it is in use or does not answer."""
    while mounted(point):
        root = ["umount", "-l", str(point)]
        plain = ["fusermount3", "-u", "-z", str(point)]
        subprocess.run(root if os.geteuid() == 0 else plain, check=True, timeout=END_SECONDS)
