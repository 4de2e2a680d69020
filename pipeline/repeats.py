"""A complaint that comes again and again is told once, and from then on by its number.

Looks at log records before they are written; knows no file and no console. Invariants: the first of
equal complaints is told at once; of those that follow each is counted, and none is told by itself while
its window is open; what differs in more than the name of a temporary file is never counted together.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loguru import Record  # it has no such name at run time

WINDOW_SECONDS = (60.0, 3600.0)
"each window is twice as long as the one before, up to the second number"
MAX_REMEMBERED = 1000
_COMPLAINT = 30
"the level of warnings"
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.voxspool-(tmp|probe2?)")
HELD_BACK = "held_back"
"the mark of a record that is counted instead of written"
_TALLY = "tally"

Tell = Callable[[str, str], None]
"log a message (second) at a level (first)"


@dataclass(slots=True)
class _Window:
    opened_at: float
    seconds: float
    more: int = 0

    def over(self, now: float) -> bool:
        return now - self.opened_at >= self.seconds


class Repeats:
    """What was complained of lately. Use `look` as loguru's patcher and `is_told` as its filter."""

    def __init__(self, tell: Tell, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}
        self._lock = threading.Lock()

    def look(self, record: "Record") -> None:
        """Mark a record that was told already, and tell how often others came while they were held back."""
        if record["extra"].get(_TALLY):
            return
        with self._lock:
            due = self._close(self._clock())
            if record["level"].no >= _COMPLAINT and self._known(record):
                record["extra"][HELD_BACK] = True
        for level, message in due:
            self._tell(level, message)

    def _known(self, record: "Record") -> bool:
        key = (record["level"].name, lasting(record["message"]))
        if key in self._windows:
            self._windows[key].more += 1
            return True
        if len(self._windows) >= MAX_REMEMBERED:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = _Window(self._clock(), WINDOW_SECONDS[0])
        return False

    def _close(self, now: float) -> list[tuple[str, str]]:
        """Forget what came to rest; open a longer window for what did not."""
        due = []
        for key, window in list(self._windows.items()):
            if not window.over(now):
                continue
            if not window.more:
                del self._windows[key]
                continue
            level, message = key
            due.append((level, f"{window.more} times more in {now - window.opened_at:.0f} s: {message}"))
            longer = min(2 * window.seconds, WINDOW_SECONDS[1])
            self._windows[key] = _Window(now, longer)
        return due


def lasting(message: str) -> str:
    """A message without the names of temporary files, which are others each time."""
    return _TEMPORARY.sub("", message)


def is_told(record: "Record") -> bool:
    """Whether a record is to be written."""
    return HELD_BACK not in record["extra"]


def as_tally() -> dict[str, bool]:
    """What marks a record that tells of others, so that it is not looked at itself."""
    return {_TALLY: True}
