"""`daemon.py` with faults and shorter times: `python faulty_daemon.py NAME=VALUE... -- ARGUMENTS`.

`pipeline.service.KILL_SECONDS=1` sets a number; `blocked_look=FILE` makes every scan last for as long as
FILE exists, as on a share that does not answer; `immortal_workers=yes` takes the killing of workers away,
as if the kernel held them. The workers themselves are started fresh and stay as they are, but for
`hangs_in_ledger=FILE`: the first to change the ledger while FILE exists takes it away and stops there.
"""

import contextlib
import importlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HANGS_IN_LEDGER = "VOXSPOOL_TEST_HANGS_IN_LEDGER"
"tells the workers"
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def block_looks(file: Path) -> None:
    """Every scan waits until `file` is gone, and leaves `<file>.looking` when it begins to."""
    from pipeline.intake.inbox import Inbox, Scan

    scan = Inbox.scan

    def slow_scan(self: Inbox, now: float) -> Scan:
        if file.exists():
            Path(f"{file}.looking").touch()
        while file.exists():
            time.sleep(0.02)
        return scan(self, now)

    Inbox.scan = slow_scan  # type: ignore[method-assign]


def spare_workers() -> None:
    """Whoever hangs cannot be killed one by one."""
    from pipeline.pools.local import LocalPool

    LocalPool.kill = lambda self, worker: None  # type: ignore[method-assign]


def hang_in_ledger(file: Path) -> None:
    """Stop amid a transaction, with the write lock in hand."""
    from pipeline.database import Database

    transaction = Database.transaction

    @contextlib.contextmanager
    def stopping(self: Database) -> Iterator[sqlite3.Connection]:
        with transaction(self) as db:
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
                os.kill(os.getpid(), signal.SIGSTOP)
            yield db

    Database.transaction = stopping  # type: ignore[method-assign]


def set_number(name: str, value: str) -> None:
    """A module's constant."""
    module, _, constant = name.rpartition(".")
    setattr(importlib.import_module(module), constant, float(value))


def main(settings: list[str], arguments: list[str]) -> int:
    """Break what is asked for, and run."""
    import daemon

    for setting in settings:
        name, _, value = setting.partition("=")
        if name == "blocked_look":
            block_looks(Path(value))
        elif name == "immortal_workers":
            spare_workers()
        elif name == "hangs_in_ledger":
            os.environ[HANGS_IN_LEDGER] = value
        else:
            set_number(name, value)
    return daemon.run(arguments)


if __name__ == "__mp_main__" and HANGS_IN_LEDGER in os.environ:  # what a worker imports first
    hang_in_ledger(Path(os.environ[HANGS_IN_LEDGER]))
if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    split = sys.argv.index("--")
    sys.exit(main(sys.argv[1:split], sys.argv[split + 1 :]))
