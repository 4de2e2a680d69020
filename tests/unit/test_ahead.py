"""Work in a thread of its own: ahead of who takes it, but not far, and never longer than it is wanted."""

import gc
import queue
import threading
import weakref
from collections.abc import Generator, Iterator

import pytest

import pipeline.ahead
from pipeline.ahead import MOST_AHEAD, Ahead
from pipeline.alive import Alive, unheeded
from pipeline.errors import Interrupted, SynthesisError

PATIENCE_SECONDS = 10.0


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ahead]:
    """With quick looks; nothing of it is left in the end."""
    monkeypatch.setattr(pipeline.ahead, "LOOK_SECONDS", 0.005)
    before = threading.active_count()
    made = Ahead("test")
    yield made
    made.close()
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


def test_all_comes_in_order_with_its_time_and_from_another_thread(ahead: Ahead) -> None:
    """Each thing once; the times are those of the making."""
    counter = Counter(100)
    taken = list(ahead.run(counter, unheeded))
    assert [one.made for one in taken] == list(range(1, 101))
    assert all(one.seconds > 0 for one in taken)
    assert len(counter.threads) == 1 and threading.get_ident() not in counter.threads
    assert counter.closed


def test_nothing_at_all_is_no_trouble(ahead: Ahead) -> None:
    """An empty round."""
    assert list(ahead.run(Counter(0), unheeded)) == []


def test_it_goes_on_while_nobody_takes_but_not_for_ever(ahead: Ahead) -> None:
    """As many as may wait are made, and one more, which waits for room; closing ends that, too."""
    counter = Counter()
    running = ahead.run(counter, unheeded)
    assert next(running).made == 1
    counter.wait_for(MOST_AHEAD + 2)
    assert next(running).made == 2
    counter.wait_for(MOST_AHEAD + 3)
    assert counter.made == MOST_AHEAD + 3
    running.close()
    assert counter.closed


def test_what_goes_wrong_comes_after_what_went_well(ahead: Ahead) -> None:
    """With its own words."""

    def failing(_tell: Alive) -> Generator[int, None, None]:
        yield 1
        raise SynthesisError("no more")

    running = ahead.run(failing, unheeded)
    assert next(running).made == 1
    with pytest.raises(SynthesisError, match="no more"):
        next(running)


def test_what_was_in_hand_when_it_went_wrong_is_freed_at_once(ahead: Ahead) -> None:
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
            list(ahead.run(failing, unheeded))
        del raised
        assert seen[0]() is None
    finally:
        gc.enable()


def test_signs_of_life_are_passed_on_in_the_caller_s_thread(ahead: Ahead) -> None:
    """Each once, and only while there are such: who is silent for long must not look alive."""
    heard, tells = [], threading.Event()

    def making(tell: Alive) -> Generator[int, None, None]:
        _long()
        assert heard == []
        tell()
        assert tells.wait(PATIENCE_SECONDS)
        _long()
        assert len(heard) == 1
        yield 1

    def alive() -> None:
        heard.append(threading.get_ident())
        tells.set()

    assert [one.made for one in ahead.run(making, alive)] == [1]
    assert set(heard) == {threading.get_ident()}


def _long() -> None:
    """As long as many looks."""
    threading.Event().wait(0.1)


def test_signs_of_life_are_passed_on_also_while_things_come(ahead: Ahead) -> None:
    """Who takes slowly always finds something, and still must hear of a stop."""
    taken, heard = [], []
    for one in ahead.run(Counter(MOST_AHEAD * 2), lambda: heard.append(len(taken))):
        taken.append(one)
        threading.Event().wait(0.002)
    assert len(set(heard)) > 5


def test_waiting_for_room_is_not_time_of_making(ahead: Ahead) -> None:
    """The times are the maker's own."""
    running = ahead.run(Counter(MOST_AHEAD + 5), unheeded)
    seconds = next(running).seconds
    _long()
    assert seconds + sum(one.seconds for one in running) < 0.1


def test_who_raises_when_told_of_life_ends_the_making(ahead: Ahead) -> None:
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
        list(ahead.run(making, stop))
    assert closed.is_set()


def test_what_was_made_before_a_stop_is_handed_over_first(ahead: Ahead) -> None:
    """Minutes of a processor's work, some of it."""
    counter, taken = Counter(), []

    def stop() -> None:
        counter.wait_for(MOST_AHEAD)
        raise Interrupted("stop")

    def take_all() -> None:
        for one in ahead.run(counter, stop):
            taken.append(one.made)
            threading.Event().wait(0.001)

    with pytest.raises(Interrupted):
        take_all()
    assert taken == list(range(1, counter.made + 1)) and len(taken) >= MOST_AHEAD


def test_who_makes_what_nobody_takes_any_longer_ends_at_its_next_sign(ahead: Ahead) -> None:
    """Even between two things, in the middle of a long making."""
    counter, told = Counter(1), []

    def making(tell: Alive) -> Generator[int, None, None]:
        yield from counter(tell)
        while len(told) < 1_000_000:
            told.append(1)
            tell()

    running = ahead.run(making, unheeded)
    next(running)
    running.close()
    assert len(told) < 1_000_000


def test_who_never_tells_of_life_ends_with_the_next_thing(ahead: Ahead) -> None:
    """Not only when all is made."""
    made: list[int] = []

    def silent(_tell: Alive) -> Generator[int, None, None]:
        for number in range(1_000):
            made.append(number)
            yield number

    running = ahead.run(silent, unheeded)
    next(running)
    running.close()
    assert len(made) < 1_000


def test_an_end_that_cannot_be_told_is_noticed(ahead: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for its last word; the reason comes all the same."""
    put = queue.Queue.put

    def no_last_word(self: "queue.Queue[object]", item: object) -> None:
        if item is None:
            raise MemoryError("no last word")
        put(self, item)

    monkeypatch.setattr(queue.Queue, "put", no_last_word)
    running = ahead.run(Counter(2), unheeded)
    assert [next(running).made, next(running).made] == [1, 2]
    with pytest.raises(MemoryError, match="no last word"):
        next(running)


def test_where_no_thread_can_begin_memory_is_what_is_missing(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mistake of ours: the worker ends, and the next one tries again."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(MemoryError, match="thread"):
        list(ahead.run(Counter(1), unheeded))


def test_garbage_collected_in_its_own_thread_does_not_wait_for_itself(ahead: Ahead) -> None:
    """Somebody forgot to close it, and the collector ran while the model was making something."""
    told = threading.Event()

    def making(tell: Alive) -> Generator[int, None, None]:
        yield 1
        told.wait(PATIENCE_SECONDS)
        running.close()
        told.clear()
        tell()
        raise AssertionError("still wanted")

    running = ahead.run(making, unheeded)
    next(running)
    told.set()
    assert [one.made for one in ahead.run(Counter(3), unheeded)] == [1, 2, 3]
    assert not told.is_set()
