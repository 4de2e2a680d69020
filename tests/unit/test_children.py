"""What the kernel says of processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pipeline.children import waits_for_a_disk

# posix_spawn waits as for a disk until its child has begun another program, which waits for the pipe
ASLEEP = """
import os, sys
begin = [(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)]
os.posix_spawn("/bin/true", ["true"], {}, file_actions=begin)
"""


def test_who_waits_for_a_disk_is_told_from_who_sleeps_or_is_gone(tmp_path: Path) -> None:
    """The one cannot be killed and is not at fault."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", ASLEEP, str(pipe)]) as asleep:
        deadline = time.monotonic() + 60
        while not waits_for_a_disk(asleep.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with open(pipe, "wb"):
            asleep.wait()
    assert not waits_for_a_disk(asleep.pid) and not waits_for_a_disk(os.getpid())
