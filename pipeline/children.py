"""Processes that must not outlive the one that started them, and what the kernel says of them.

Knows one system call and /proc. Invariant: a child dies with its parent, however the parent died.
"""

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Linux: SIGKILL for this process the moment its parent is gone (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def waits_for_a_disk(pid: int) -> bool:
    """Linux: whether a process sleeps where signals do not reach it, as in the fsync of a disk that stalls
    (state D in proc_pid_stat(5)).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["D"]
