"""Work in a thread of its own: ahead of who takes it, but not far, and never longer than it is wanted."""

import gc
import threading
import weakref
from collections.abc import Generator, Iterator

import pytest

import pipeline.ahead
from pipeline.ahead import MOST_AHEAD, run_ahead
from pipeline.alive import Alive, unheeded
from pipeline.errors import Interrupted, SynthesisError

PATIENCE_SECONDS = 10.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pipeline.ahead, "LOOK_SECONDS", 0.005)
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Counter:
    """Makes numbers, so many or without end, and tells before each that it is alive."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self.threads: set[int] = set()
        self.made = 0
        self.closed = False
        self.reached = threading.Condition()

    def __call__(self, tell: Alive) -> Generator[int, None, None]:
        """The numbers."""
        try:
            while self.made != self._most:
                tell()
                with self.reached:
                    self.made += 1
                    self.reached.notify_all()
                self.threads.add(threading.get_ident())
                yield self.made
        finally:
            self.closed = True

    def wait_for(self, made: int) -> None:
        """Until so many were made."""
        with self.reached:
            assert self.reached.wait_for(lambda: self.made >= made, PATIENCE_SECONDS)


def test_all_comes_in_order_with_its_time_and_from_another_thread() -> None:
    """Each thing once; the times are those of the making."""
    counter = Counter(100)
    taken = list(run_ahead(counter, unheeded))
    assert [one.made for one in taken] == list(range(1, 101))
    assert all(one.seconds > 0 for one in taken)
    assert len(counter.threads) == 1 and threading.get_ident() not in counter.threads
    assert counter.closed


def test_nothing_at_all_is_no_trouble() -> None:
    """An empty round."""
    assert list(run_ahead(Counter(0), unheeded)) == []


def test_it_goes_on_while_nobody_takes_but_not_for_ever() -> None:
    """As many as may wait are made, and one more, which waits for room; closing ends that, too."""
    counter = Counter()
    running = run_ahead(counter, unheeded)
    assert next(running).made == 1
    counter.wait_for(MOST_AHEAD + 2)
    assert next(running).made == 2
    counter.wait_for(MOST_AHEAD + 3)
    assert counter.made == MOST_AHEAD + 3
    running.close()  # type: ignore[attr-defined]
    assert counter.closed


def test_what_goes_wrong_comes_after_what_went_well() -> None:
    """With its own words."""

    def failing(_tell: Alive) -> Generator[int, None, None]:
        yield 1
        raise SynthesisError("no more")

    running = run_ahead(failing, unheeded)
    assert next(running).made == 1
    with pytest.raises(SynthesisError, match="no more"):
        next(running)


def test_what_was_in_hand_when_it_went_wrong_is_freed_at_once() -> None:
    """A tensor of a gigabyte must not wait for the garbage collector."""

    class Tensor:
        """Large."""

    seen: list[weakref.ref[Tensor]] = []

    def failing(_tell: Alive) -> Generator[int, None, None]:
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        yield 1
        raise SynthesisError("no more")

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(SynthesisError) as raised:
            list(run_ahead(failing, unheeded))
        del raised
        assert seen[0]() is None
    finally:
        gc.enable()


def test_signs_of_life_are_passed_on_in_the_caller_s_thread() -> None:
    """And only while there are such: who is silent for long must not look alive."""
    silent, tells = threading.Event(), threading.Event()
    heard: list[int] = []

    def making(tell: Alive) -> Generator[int, None, None]:
        silent.wait(0.1)  # many looks long
        assert heard == []
        tell()
        assert tells.wait(PATIENCE_SECONDS)
        yield 1

    def alive() -> None:
        heard.append(threading.get_ident())
        tells.set()

    assert [one.made for one in run_ahead(making, alive)] == [1]
    assert heard == [threading.get_ident()]


def test_who_raises_when_told_of_life_ends_the_making() -> None:
    """It is closed when the caller hears of it."""
    closed = threading.Event()

    def making(tell: Alive) -> Generator[int, None, None]:
        try:
            while True:
                tell()
                yield from ()
        finally:
            closed.set()

    def stop() -> None:
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        list(run_ahead(making, stop))
    assert closed.is_set()


def test_who_makes_what_nobody_takes_any_longer_ends_at_its_next_sign() -> None:
    """Even between two things, in the middle of a long making."""
    counter, told = Counter(1), []

    def making(tell: Alive) -> Generator[int, None, None]:
        yield from counter(tell)
        while len(told) < 1_000_000:
            told.append(1)
            tell()

    running = run_ahead(making, unheeded)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert len(told) < 1_000_000
