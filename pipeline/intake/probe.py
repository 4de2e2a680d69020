"""One look at a file that has gone quiet: can it be opened, and does a program still write to it?

The only place of the intake that opens a dropped file. It reads nothing, blocks on nothing, follows no
link. Invariant: whatever the lease test answers, no lease is left behind and no signal can end the process.
"""

import errno
import fcntl
import os
import signal

from pipeline.files import stat_is_regular
from pipeline.intake.settle import Openness


def probe(path: str, network: bool) -> Openness:
    """Open `path` and ask the kernel for a read lease, which it refuses while anybody writes.

    A lease needs a local filesystem and a file of our own (or CAP_LEASE): without them the answer is
    UNPROVEN, on network filesystems FREE, since there nothing better can be had. Raises OSError where
    the file cannot be opened or is no longer a regular file. Source: fcntl(2), "Leases".
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat_is_regular(os.fstat(fd)):
            raise FileNotFoundError(errno.ENOENT, "no longer a regular file", path)
        return Openness.FREE if network else _ask_lease(fd)
    finally:
        os.close(fd)


def _ask_lease(fd: int) -> Openness:
    """Take a read lease for an instant."""
    try:
        # A writer that comes in this instant breaks the lease; the default signal for it ends a process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Openness.WRITING if error.errno == errno.EAGAIN else Openness.UNPROVEN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Openness.FREE
