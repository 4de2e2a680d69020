"""Imported by each Python that starts with this folder on PYTHONPATH: makes jobs that end their worker.

What a job does to its worker is the first word of its file's name: `segv-a.txt`. It does so before its
first take is whole, at each attempt; `hang-a.txt` hangs after a take, in two ways, and then comes out well.
The steps come from `pipeline/crash.py`.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

STEP = "voxspool.step"
ROOM_BYTES = 200 << 20
BLOCK_BYTES = 10 << 20
MOST_BLOCKS = 150
_job: list[str] = [""]


def take_memory() -> None:
    """More than anybody gives us; not without end, in case nobody stops us."""
    blocks = [os.urandom(1) * BLOCK_BYTES for _ in range(MOST_BLOCKS)]
    sys.exit(f"nobody minded {len(blocks)} blocks")


def run_out_of_memory() -> None:
    """As under `ulimit -v`: Python is told that there is no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    take_memory()


def hang() -> None:
    """Stopped at the first attempt, in an endless loop at the second, well at the third."""
    counter = Path(os.environ["VOXSPOOL_POISON"])
    times = len(counter.read_text()) if counter.exists() else 0
    counter.write_text("x" * (times + 1))
    if times == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    while times == 1:
        pass


POISONS = {
    "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": run_out_of_memory,
    "oom": take_memory,
    "hang": hang,
}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != STEP:
        return
    if arguments[0] == "job.taken":
        # crash.point's caller is Worker.do, which knows the job
        name = sys._getframe(2).f_locals["job"].source.name
        _job[0] = name.partition("-")[0]
    elif arguments[0] == ("take.kept" if _job[0] == "hang" else "take.written") and _job[0] in POISONS:
        POISONS[_job[0]]()


sys.addaudithook(_hook)
