"""A thread for what may never come back: looks at folders whose server does not answer.

Knows nothing of what is done in it. Invariants: who sends an errand waits for it only as long as he likes;
the thread is never joined, so that nothing in it can keep the process from ending.
"""

import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, TypeVar

from pipeline.errors import EnvironmentFailure

T = TypeVar("T")


class Errand(Generic[T]):
    """A call on its way. What goes wrong with folders and disks comes back with it; any other error is a
    mistake of ours, ends the thread, and is told on the console.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._back = threading.Event()
        self._found: list[T] = []
        self._error: Exception | None = None

    def wait(self, seconds: float) -> bool:
        """Wait for it for so long; whether it is back."""
        return self._back.wait(seconds)

    def result(self) -> T:
        """What the call returned, once it is back; raises what the call raised."""
        if self._error is not None:
            raise self._error
        if not self._found:
            raise RuntimeError("an errand has not come back well; the console says why")
        return self._found[0]

    def run(self) -> None:
        """Do it; called by the thread."""
        try:
            self._found.append(self._call())
        except (EnvironmentFailure, OSError) as error:
            self._error = error
        finally:
            self._back.set()


class Aside:
    """One thread that does one errand after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._errands: SimpleQueue[Errand[object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, call: Callable[[], T]) -> Errand[T]:
        """Have `call` done after all that was sent before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        errand = Errand(call)
        self._errands.put(errand)  # type: ignore[arg-type]
        return errand

    def close(self) -> None:
        """Let the thread end once it is through; does not wait."""
        self._errands.put(None)

    def _work(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand.run()


def answers(folder: Path, within_seconds: float) -> bool:
    """Whether what a folder lies on says anything at all, be it that there is no such folder."""
    return Aside("touch").send(functools.partial(os.statvfs, folder)).wait(within_seconds)
