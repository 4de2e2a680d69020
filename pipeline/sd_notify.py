"""Tell systemd how we are: ready, busy with what, reloading, stopping, alive.

The protocol of sd_notify(3) for `Type=notify` units: datagrams of KEY=VALUE lines to the socket that
NOTIFY_SOCKET names. Knows nothing of what the daemon does. Invariants: without systemd nothing happens;
a datagram that does not arrive stops no work; no child inherits what systemd told us.
"""

import os
import socket
import time
from collections.abc import Callable, MutableMapping

from loguru import logger

from pipeline.files import display

SEND_SECONDS = 1.0
"a manager that is too busy to read must not hold up the daemon"
PINGS_PER_TIMEOUT = 3
MAX_STATUS_CHARS = 240


class Systemd:
    """The one who started us, or nobody (`Systemd()`)."""

    def __init__(
        self,
        address: str = "",
        *,
        watchdog_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._ping_seconds = watchdog_seconds / PINGS_PER_TIMEOUT
        self._clock = clock
        self._pinged_at = float("-inf")
        self._status = ""
        self._deaf = False

    @property
    def listens(self) -> bool:
        """Whether somebody wants to be told."""
        return bool(self._address)

    @property
    def wants_ping(self) -> bool:
        """Whether it is time to say that all is well: three times in each watchdog timeout."""
        return self._ping_seconds > 0 and self._clock() - self._pinged_at >= self._ping_seconds

    def ready(self, status: str) -> bool:
        """The start, or a reload, is over; False if that has to be told again."""
        self._status = _line(status)
        return self._send("READY=1", f"STATUS={self._status}")

    def status(self, status: str) -> None:
        """What `systemctl status` shows, if it is something new."""
        line = _line(status)
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends that."""
        # the time makes the same program right for Type=notify-reload, which needs systemd 253
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str, *, within_seconds: float) -> None:
        """The end has begun and may take so long, even if that is more than TimeoutStopSec."""
        self._status = _line(status)
        self._send(
            "STOPPING=1", f"STATUS={self._status}", f"EXTEND_TIMEOUT_USEC={round(within_seconds * 1e6)}"
        )

    def alive(self) -> None:
        """All is well: to be called only where that was looked into."""
        if self._send("WATCHDOG=1"):
            self._pinged_at = self._clock()

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(SEND_SECONDS)
                line.connect(self._address)
                line.send("\n".join(lines).encode())
        except OSError as error:
            if not self._deaf:
                logger.warning("systemd cannot be told {}: {}", lines[0], error)
            self._deaf = True
            return False
        self._deaf = False
        return True


def from_environment(environment: MutableMapping[str, str]) -> Systemd:
    """Whoever started us; takes out of `environment` what is meant for this process alone."""
    address = environment.pop("NOTIFY_SOCKET", "")
    timeout = environment.pop("WATCHDOG_USEC", "")
    # a shell that started us without `exec` is the one who is watched, not we
    watched = environment.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
    if not address:
        return Systemd()
    if address[0] not in "/@":
        logger.warning("NOTIFY_SOCKET={}: only sockets of this machine are known; nobody is told", address)
        return Systemd()
    # "@" stands for the zero byte that begins an abstract name (unix(7))
    where = "\0" + address[1:] if address[0] == "@" else address
    return Systemd(where, watchdog_seconds=int(timeout) / 1e6 if watched and timeout.isdigit() else 0.0)


def _line(text: str) -> str:
    """One line, whatever a file in it is called: a line break would begin another message."""
    line = display(text)
    return line if len(line) <= MAX_STATUS_CHARS else line[: MAX_STATUS_CHARS - 1] + "…"
