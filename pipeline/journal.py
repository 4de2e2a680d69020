"""Lines for systemd's journal: each with its priority in front, as sd-daemon(3) describes it.

Knows nothing of where our log lines come from. Invariant: where the journal does not read, nothing is added.
"""

import os
from typing import TextIO

_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "SUCCESS": 5, "INFO": 6, "DEBUG": 7}


def reads(stream: TextIO) -> bool:
    """Whether the journal reads this stream: JOURNAL_STREAM of systemd.exec(5) names its device and inode.

    The variable alone proves nothing: it is inherited by programs whose output goes elsewhere.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def marked(level: str, text: str) -> str:
    """The text with the priority in front of every line: the journal takes each for an entry of its own."""
    return "".join(f"<{_PRIORITY.get(level, 6)}>{line}\n" for line in text.splitlines())
