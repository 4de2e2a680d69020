"""What is sent to systemd, byte for byte, over real sockets."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.sd_notify import MAX_STATUS_CHARS, Systemd, from_environment


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The other end: a datagram socket in the file system."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(5)
        yield end


def heard(manager: socket.socket) -> list[str]:
    """The lines of the next datagram."""
    return manager.recv(4096).decode().split("\n")


def ours(manager: socket.socket, **more: str) -> Systemd:
    """Our end, as the environment describes it."""
    return from_environment({"NOTIFY_SOCKET": manager.getsockname(), **more})


def silent(manager: socket.socket) -> bool:
    """Whether nothing has come."""
    manager.setblocking(False)
    try:
        manager.recv(4096)
    except BlockingIOError:
        return True
    finally:
        manager.settimeout(5)
    return False


def test_a_life_is_told_in_datagrams(manager: socket.socket) -> None:
    """Ready, busy, reloading, ready, stopping: each as sd_notify(3) wants it."""
    systemd = ours(manager)
    assert systemd.ready("nothing to do")
    assert heard(manager) == ["READY=1", "STATUS=nothing to do"]
    systemd.status("3 queued")
    assert heard(manager) == ["STATUS=3 queued"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.reloading()
    word, moment = heard(manager)
    assert word == "RELOADING=1"
    name, _, microseconds = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.stopping("stopping", within_seconds=90.5)
    assert heard(manager) == ["STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=90500000"]


def test_an_abstract_name_begins_with_an_at_sign() -> None:
    """systemd's own test runners use such sockets: `@` stands for the zero byte."""
    name = f"voxspool-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + name)
        end.settimeout(5)
        from_environment({"NOTIFY_SOCKET": "@" + name}).alive()
        assert end.recv(100) == b"WATCHDOG=1"


def test_the_same_status_is_told_once(manager: socket.socket) -> None:
    """Nobody is woken for nothing."""
    systemd = ours(manager)
    systemd.status("3 queued")
    heard(manager)
    systemd.status("3 queued")
    assert silent(manager)


def test_a_file_name_cannot_send_a_message(manager: socket.socket) -> None:
    """A line break in it would begin one, and `WATCHDOG=trigger` would end us."""
    ours(manager).status("running a\nWATCHDOG=trigger\udcff.txt")
    assert heard(manager) == ["STATUS=running a\\nWATCHDOG=trigger\\xff.txt"]


def test_a_long_status_is_cut(manager: socket.socket) -> None:
    """It is one line for people."""
    ours(manager).status("x" * 10_000)
    (line,) = heard(manager)
    assert line.endswith("x…") and len(line.removeprefix("STATUS=")) == MAX_STATUS_CHARS


def test_pings_come_three_times_in_a_timeout(manager: socket.socket) -> None:
    """WATCHDOG_USEC is in microseconds; who asks in between is told that it is not time."""
    now = 100.0
    systemd = Systemd(manager.getsockname(), watchdog_seconds=30.0, clock=lambda: now)
    assert systemd.wants_ping
    systemd.alive()
    assert heard(manager) == ["WATCHDOG=1"]
    now += 9.9
    assert not systemd.wants_ping
    now += 0.2
    assert systemd.wants_ping


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "3000000"}, True),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({}, False),
    ],
)
def test_only_who_is_watched_pings(manager: socket.socket, variables: dict[str, str], wanted: bool) -> None:
    """WATCHDOG_PID names another process where a shell stands between."""
    assert ours(manager, **variables).wants_ping is wanted


def test_nothing_is_left_for_the_children() -> None:
    """A worker or a notify command that speaks in our name would confuse systemd."""
    environment = {
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "JOURNAL_STREAM": "8:1",
    }
    assert from_environment(environment).listens
    assert environment == {"JOURNAL_STREAM": "8:1"}


def test_without_systemd_nothing_happens() -> None:
    """Every call is allowed and none does anything."""
    systemd = from_environment({})
    assert not systemd.listens and not systemd.wants_ping
    assert systemd.ready("x")
    systemd.status("x")
    systemd.reloading()
    systemd.stopping("x", within_seconds=1)


def test_a_socket_of_another_kind_is_left() -> None:
    """vsock is for whole virtual machines."""
    assert not from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}).listens


def test_a_lost_datagram_is_told_again_where_it_counts(tmp_path: Path) -> None:
    """No socket, no answer, no exception; `ready` says that it must be repeated, and a ping stays due."""
    systemd = Systemd(str(tmp_path / "nobody"), watchdog_seconds=3.0)
    assert not systemd.ready("x")
    systemd.alive()
    assert systemd.wants_ping
    systemd.status("3 queued")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "nobody"))
        end.settimeout(5)
        systemd.status("3 queued")
        assert end.recv(100) == b"STATUS=3 queued"


def test_a_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    """Its queue is full after some datagrams; then we give up after a second instead of waiting for ever."""
    systemd = ours(manager)
    began = time.monotonic()
    for number in range(10_000):
        systemd.status(f"{number}")
        if time.monotonic() - began > 0.5:
            break
    assert time.monotonic() - began < 10
