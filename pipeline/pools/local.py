"""Workers as child processes of this machine.

Knows processes and signals. Invariants: a child dies with its parent, however the parent died; a
child is started fresh (spawn), so that it shares no thread, lock or GPU state with the supervisor.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess

from pipeline.config import Config
from pipeline.pools.base import Ended

KILL_SECONDS = 3.0

Target = Callable[[Config, str, int], None]


def work(config: Config, name: str, parent_pid: int) -> None:
    """The body of a worker process: only it imports what making speech needs."""
    from pipeline.worker import main

    main(config, slot_of(name), name, parent_pid)


def slot_of(worker: str) -> int:
    """The place in the pool that a worker's name tells: 1 to `count`, taken again by its successor."""
    return int(worker.partition("-")[0])


class LocalPool:
    """`count` processes, each running `target(config, name, parent_pid)`."""

    def __init__(self, config: Config, count: int, *, target: Target = work) -> None:
        self._target = target
        self._config = config
        self._count = count
        self._started = 0
        self._processes: dict[str, tuple[SpawnProcess, float]] = {}

    def names(self) -> list[str]:
        """The living."""
        return list(self._processes)

    def name_of(self, pid: int) -> str:
        """Which of the living is this process; empty if none."""
        return next((name for name, (process, _) in self._processes.items() if process.pid == pid), "")

    def fill(self) -> list[str]:
        """Start workers until there are enough."""
        new = []
        for slot in range(1, self._count + 1):
            if any(slot_of(name) == slot for name in self._processes):
                continue
            self._started += 1
            name = f"{slot}-{os.getpid()}-{self._started}"
            process = multiprocessing.get_context("spawn").Process(
                target=self._target, args=(self._config, name, os.getpid()), name=f"voxspool-{name}"
            )
            process.start()
            self._processes[name] = (process, time.monotonic())
            new.append(name)
        return new

    def reap(self) -> list[Ended]:
        """Those that ended since the last call."""
        ended = []
        for name, (process, started) in list(self._processes.items()):
            if process.exitcode is not None:
                lived = time.monotonic() - started
                ended.append(Ended(worker=name, exit_code=process.exitcode, lived_seconds=lived))
                process.join()
                process.close()
                del self._processes[name]
        return ended

    def kill(self, worker: str) -> None:
        """End one that hangs, at once."""
        if worker in self._processes:
            self._processes[worker][0].kill()

    def stop(self) -> None:
        """Ask all to finish their chunk and end."""
        for process, _ in self._processes.values():
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, signal.SIGTERM)

    def kill_all(self) -> None:
        """End all that are left, at once, and wait for them to be gone, if not for ever: a disk that does not
        answer keeps even the killed.
        """
        for process, _ in self._processes.values():
            process.kill()
        for process, _ in self._processes.values():
            process.join(KILL_SECONDS)
