"""How fetching is shown: a bar on a terminal, a line now and then where somebody keeps a log.

Knows rich and a clock; fetches nothing.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pipeline.files import shown_size

LINE_SECONDS = 10.0


class Bars:
    """For a terminal: one bar for the file in hand."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._name = ""
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def tell(self, sentence: str) -> None:
        """Above the bar."""
        self._clear()
        self._progress.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def moved(self, name: str, there: int, size: int | None) -> None:
        """The bar moves; another file gets another bar."""
        if self._task is None or name != self._name:
            self._clear()
            self._name = name
            self._task = self._progress.add_task(name, total=size, completed=there)
        self._progress.update(self._task, completed=there, total=size)

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


class Lines:
    """For a log: how far it is, every ten seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._next = clock() + LINE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        return None

    def tell(self, sentence: str) -> None:
        """One line."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def moved(self, name: str, there: int, size: int | None) -> None:
        """A line if it is time for one."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + LINE_SECONDS
        share = f" of {shown_size(size)}, {there / size:.0%}" if size else ""
        self.tell(f"  {name}: {shown_size(there)}{share}")


def shown_on(console: Console) -> Bars | Lines:
    """What suits where the words go."""
    return Bars(console) if console.is_terminal else Lines(console)
