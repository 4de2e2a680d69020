"""Operations are done once for each call, whether as they are or from a graph; played without a GPU.

The stand-in for CUDA does what CUDA says that it does: while a graph is captured nothing is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pipeline.chatterbox.fast import replay  # noqa: E402
from pipeline.chatterbox.fast.replay import RUNS_BEFORE, Replay  # noqa: E402


class Machine:
    """What of torch.cuda a `Replay` uses."""

    def __init__(self) -> None:
        self.capturing: list[str] | None = None
        self.done: list[str] = []
        self.captures = 0
        self.refusal: Exception | None = None

    def operation(self, name: str) -> None:
        """One operation: recorded while capturing, else done."""
        (self.done if self.capturing is None else self.capturing).append(name)

    @contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any) -> Iterator[None]:
        """torch.cuda.graph."""
        self.captures += 1
        self.capturing = graph.operations
        try:
            yield
            if self.refusal:
                raise self.refusal
        finally:
            self.capturing = None


class Stream:
    """torch.cuda.Stream."""

    device = "cuda:0"

    def wait_stream(self, other: Any) -> None:
        """Nothing is computed here."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """In the place of torch.cuda."""
    machine = Machine()

    class Graph:
        def __init__(self) -> None:
            self.operations: list[str] = []

        def replay(self) -> None:
            machine.done += self.operations

    @contextmanager
    def stream(_: Any) -> Iterator[None]:
        yield

    cuda = replay.torch.cuda
    for name, value in {
        "Stream": lambda _: Stream(),
        "current_stream": lambda _: Stream(),
        "graph_pool_handle": lambda: (0, 1),
        "CUDAGraph": Graph,
        "graph": machine.graph,
        "stream": stream,
    }.items():
        monkeypatch.setattr(cuda, name, value)
    return machine


def test_every_call_is_done_once(machine: Machine) -> None:
    """Two kinds in turn; each is captured once, after it has been done in the usual way."""
    run = Replay("cuda:0")
    for _ in range(7):
        for key in ("a", "b"):
            run(key, lambda key=key: machine.operation(key))
    assert machine.done == ["a", "b"] * 7
    assert machine.captures == 2


def test_nothing_is_captured_before_libraries_have_warmed_up(machine: Machine) -> None:
    """They choose kernels and take memory in the first runs."""
    run = Replay("cuda:0")
    for _ in range(RUNS_BEFORE):
        run("a", lambda: machine.operation("a"))
    assert machine.captures == 0
    run("a", lambda: machine.operation("a"))
    assert machine.captures == 1


def test_where_graphs_are_refused_everything_is_done_all_the_same(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and not tried again."""
    told: list[str] = []
    handler = replay.logger.add(lambda message: told.append(str(message)), level="WARNING")
    machine.refusal = RuntimeError("operation not permitted when stream is capturing\nand much more")
    run = Replay("cuda:0")
    for _ in range(6):
        run("a", lambda: machine.operation("a"))
    run("b", lambda: machine.operation("b"))
    replay.logger.remove(handler)
    assert machine.done == ["a"] * 6 + ["b"]
    assert machine.captures == 1
    assert len(told) == 1 and "operation not permitted" in told[0] and "much more" not in told[0]


def test_memory_that_runs_out_is_told_as_such(machine: Machine) -> None:
    """There are fewer slots then, and the graphs with them."""
    machine.refusal = torch.OutOfMemoryError("CUDA out of memory")
    run = Replay("cuda:0")
    for _ in range(RUNS_BEFORE):
        run("a", lambda: machine.operation("a"))
    with pytest.raises(torch.OutOfMemoryError):
        run("a", lambda: machine.operation("a"))


def test_a_processor_knows_no_graphs() -> None:
    """Each call is done as it is."""
    done: list[int] = []
    run = Replay("cpu")
    for number in range(5):
        run("a", lambda number=number: done.append(number))
    assert done == [0, 1, 2, 3, 4]
