"""A supervisor that has just started, for tests that call its duties one by one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import load_config
from pipeline.pools.base import Ended
from pipeline.sd_notify import Systemd
from pipeline.supervisor import Supervisor


class NoWorkers:
    """A pool in which nobody ever works."""

    def names(self) -> list[str]:
        """None."""
        return []

    fill = names

    def name_of(self, pid: int) -> str:
        """Nobody's."""
        return ""

    def reap(self) -> list[Ended]:
        """None."""
        return []

    def kill(self, worker: str) -> None:
        """Nobody to kill."""

    def stop(self) -> None:
        """Nobody to stop."""

    kill_all = stop


@contextmanager
def started(file: Path, systemd: Systemd | None = None) -> Iterator[Supervisor]:
    """One with this configuration that has not yet looked at anything."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    made = Supervisor(load_config(file), pool=NoWorkers(), systemd=systemd)
    made._layout.state.mkdir()
    made._startup()
    yield made
    made._watch.close()
    made._ledger.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)
