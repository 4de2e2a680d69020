"""Work that goes on in a thread of its own while what it has made is looked after.

Knows no engines. Invariants: what is made comes in the order of its making, only so much of it waits to be
taken, and the work has ended when the taking ends, however that ends.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.alive import Alive
from pipeline.errors import VoxspoolError

MOST_AHEAD = 32
"things made that nobody has taken yet: some 40 MB of speech, 120 at most"
LOOK_SECONDS = 0.1
"how often a sign of life is passed on"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """Something made, and how long the making took, in seconds."""

    made: T
    seconds: float


class Ahead:
    """The thread; one thing at a time is done in it."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def run(
        self, make: Callable[[Alive], Generator[T, None, None]], alive: Alive
    ) -> Generator[Timed[T], None, None]:
        """What `make` yields, at most MOST_AHEAD things ahead of who takes them.

        `make` is given what to call now and then; where it did, `alive` is called in the caller's thread.
        What that raises passes, after what was made till then; what `make` raises passes, too. Closing this
        gives up what nobody has taken.
        """
        making = _Making(make)
        try:
            ended = self._thread.submit(making.run)
        except RuntimeError as error:  # the system lets nobody begin another thread
            raise MemoryError(str(error)) from error
        try:
            yield from making.taken(ended, alive)
            ended.result()
        finally:
            making.give_up(ended)
            del ended  # holds what was raised, whose frames hold this one and the model's tensors

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


class _Unwanted(Exception):
    """Ends the making where nobody takes any longer."""


class _Making(Generic[T]):
    """What both threads know of it."""

    def __init__(self, make: Callable[[Alive], Generator[T, None, None]]) -> None:
        self._make = make
        self._made: queue.Queue[Timed[T] | None] = queue.Queue(MOST_AHEAD)
        "None: nothing more comes"
        self._told, self._unwanted = threading.Event(), threading.Event()
        self._over = False
        self._thread: int | None = None
        "where it is made; garbage may be collected there, too, and somebody's closing with it"

    def run(self) -> None:
        """In a thread of its own: make one after the other."""
        self._thread = threading.get_ident()
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

    def taken(self, ended: "Future[None]", alive: Alive) -> Generator[Timed[T], None, None]:
        """In the caller's thread: one after the other, until nothing more comes."""
        looked = time.monotonic()
        while not self._over:
            made = self._next(ended)
            if made is not None:
                yield made
            if not self._told.is_set() or time.monotonic() - looked < LOOK_SECONDS:
                continue
            self._told.clear()
            looked = time.monotonic()
            try:
                alive()
            except VoxspoolError:
                self._unwanted.set()
                yield from self._rest(ended)
                raise

    def _rest(self, ended: "Future[None]") -> Generator[Timed[T], None, None]:
        while not self._over:
            made = self._next(ended)
            if made is not None:
                yield made

    def _next(self, ended: "Future[None]") -> Timed[T] | None:
        """Waits for it a little."""
        try:
            made = self._made.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            self._over = ended.done() and self._made.empty()  # it could not even say that it ends
            return None
        self._over = made is None
        return made

    def give_up(self, ended: "Future[None]") -> None:
        """In the caller's thread: have the making end; it may be waiting for room."""
        self._unwanted.set()
        while not ended.done() and self._thread != threading.get_ident():
            with contextlib.suppress(queue.Empty):
                self._made.get(timeout=LOOK_SECONDS)
