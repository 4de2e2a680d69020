"""Work that goes on in a thread of its own while what it has made is looked after.

Knows no engines. Invariants: what is made comes in the order of its making, not more than so much of it
waits, and the thread has ended when the taking ends, however that ends.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.alive import Alive

MOST_AHEAD = 32
"things made that nobody has taken yet: some 40 MB of speech"
LOOK_SECONDS = 0.1
"how often a sign of life is passed on while nothing comes"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """Something made, and how long the making took, in seconds."""

    made: T
    seconds: float


class _Unwanted(Exception):
    """Ends the making where nobody takes any longer."""


def run_ahead(make: Callable[[Alive], Generator[T, None, None]], alive: Alive) -> Iterator[Timed[T]]:
    """What `make` yields, made in another thread, at most MOST_AHEAD things ahead of who takes them.

    `make` is given what to call now and then; where it did, `alive` is called in the caller's thread while
    nothing comes. What either raises passes, and closing this gives up what is not made.
    """
    making = _Making(make)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        ended = thread.submit(making.run)
        try:
            yield from making.taken(alive)
            ended.result()
        finally:
            making.give_up(ended)
            del ended  # holds what was raised, whose frames hold this one and the model's tensors


class _Making(Generic[T]):
    """What both threads know of it."""

    def __init__(self, make: Callable[[Alive], Generator[T, None, None]]) -> None:
        self._make = make
        self._made: queue.Queue[Timed[T] | None] = queue.Queue(MOST_AHEAD)
        "None: nothing more comes"
        self._told, self._unwanted = threading.Event(), threading.Event()

    def run(self) -> None:
        """In a thread of its own: make one after the other."""
        try:
            with contextlib.suppress(_Unwanted), contextlib.closing(self._make(self._tell)) as making:
                started = time.perf_counter()
                for made in making:
                    self._made.put(Timed(made, time.perf_counter() - started))
                    self._tell()
                    started = time.perf_counter()
        finally:
            self._made.put(None)

    def _tell(self) -> None:
        self._told.set()
        if self._unwanted.is_set():
            raise _Unwanted

    def taken(self, alive: Alive) -> Iterator[Timed[T]]:
        """In the caller's thread: one after the other, until nothing more comes."""
        while True:
            try:
                made = self._made.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                if self._told.is_set():
                    self._told.clear()
                    alive()
                continue
            if made is None:
                return
            yield made

    def give_up(self, ended: "Future[None]") -> None:
        """In the caller's thread: have the making end; it may be waiting for room."""
        self._unwanted.set()
        while not ended.done():
            with contextlib.suppress(queue.Empty):
                self._made.get(timeout=LOOK_SECONDS)
