"""Large drops are read aside: nobody waits for them, and the promise of the look after the claim is kept."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from intake_samples import bytes_somewhere, put, settled, with_source
from ledger_samples import Clock

from pipeline.config import Config
from pipeline.errors import EnvironmentFailure
from pipeline.intake import claim
from pipeline.intake.intake import Intake, Taken
from pipeline.intake.large import LargeTakes
from pipeline.intake.watch import Watch
from pipeline.jobs.job import DropState
from pipeline.layout import Layout
from pipeline.ledger import Ledger

PATIENCE_SECONDS = 10.0
LARGE = b"A long text. " * 1000


class Gate:
    """Where the reading of large files waits until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self.taken: list[str] = []
        real = claim.take

        def take(layout: Layout, drop: Any, shared: Any) -> Any:
            self.taken.append(drop.relative)
            self.reached.set()
            assert self.open.wait(PATIENCE_SECONDS)
            return real(layout, drop, shared)

        monkeypatch.setattr("pipeline.intake.large.take", take)
        for module in ("large", "intake"):
            monkeypatch.setattr(f"pipeline.intake.{module}.LARGE_BYTES", 1000)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Closed at first; a file of a thousand bytes is large."""
    made = Gate(monkeypatch)
    yield made
    made.open.set()


@pytest.fixture
def intake(layout: Layout, ledger: Ledger, config: Config) -> Intake:
    """An intake that moves."""
    return Intake(layout, ledger, config, clock=time.time)


def until_back(intake: Intake, *, also: Callable[[], bool] = lambda: False) -> None:
    """Wait for what is out."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not intake.large.ready and not also():
        assert time.monotonic() < end
        time.sleep(0.005)


def drops(taken: Taken) -> list[str]:
    """Their names."""
    return [drop.relative for drop in taken.drops]


def states(ledger: Ledger) -> dict[str, str]:
    """State of each drop."""
    return {drop.relative: drop.state.value for drop in ledger.drops_in(*DropState)}


def test_nobody_waits_for_a_large_drop(intake: Intake, layout: Layout, ledger: Ledger, gate: Gate) -> None:
    """What was dropped with it and after it is taken at once; it is itself when it has been read."""
    put(layout, "a small.txt"), put(layout, "b large.txt", LARGE), put(layout, "c small.txt")
    begun = time.monotonic()
    assert drops(intake.accept(settled(layout))) == ["a small.txt", "c small.txt"]
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    assert gate.reached.wait(PATIENCE_SECONDS)
    assert states(ledger)["b large.txt"] == "claiming"
    assert "13 kB are read" in intake.large.names()["b large.txt"]
    put(layout, "d small.txt")
    assert drops(intake.accept(settled(layout, "d small.txt"))) == ["d small.txt"]
    gate.open.set(), until_back(intake)
    assert drops(intake.accept([])) == ["b large.txt"]
    assert states(ledger)["b large.txt"] == "claimed" and intake.large.names() == {}
    (job,) = (job for job in ledger.jobs_in("queued") if job.source.name == "b large.txt")  # type: ignore[arg-type]
    assert job.source.sha256 == hashlib.sha256(LARGE).hexdigest()


def test_large_drops_are_read_one_after_the_other_and_once(
    intake: Intake, layout: Layout, gate: Gate
) -> None:
    """However often the scan offers them meanwhile."""
    for name in "abc":
        put(layout, f"{name}.txt", LARGE)
    offered = settled(layout)
    for _ in range(3):
        taken = intake.accept(offered)
        assert taken.drops == ()
    assert set(taken.waiting) == {"a.txt", "b.txt", "c.txt"}
    gate.open.set()
    found: list[str] = []
    end = time.monotonic() + PATIENCE_SECONDS
    while len(found) < 3:
        assert time.monotonic() < end
        found += drops(intake.accept([]))
    assert found == gate.taken == ["a.txt", "b.txt", "c.txt"]


class Back:
    """An errand that is back, or not yet."""

    def __init__(self, name: str, *, ready: bool) -> None:
        self.id, self.ready = name, ready

    def wait(self, seconds: float) -> bool:
        """At once."""
        return self.ready

    def result(self) -> str:
        """Of whom it tells."""
        return self.id


def test_large_drops_come_back_in_their_order(layout: Layout) -> None:
    """Also if all have come back while the first was looked at."""
    large = LargeTakes(layout)
    first, second = Back("a", ready=False), Back("b", ready=True)
    large._out = {one.id: (one, one) for one in (first, second)}  # type: ignore[misc]
    assert list(large.back()) == []
    first.ready = True
    assert [name for _, name in large.back()] == ["a", "b"] and not large._out


@pytest.mark.parametrize("source", ["move", "leave"])
def test_a_large_drop_that_changes_while_it_is_read_is_put_back(
    layout: Layout, ledger: Ledger, config: Config, gate: Gate, source: str
) -> None:
    """The look after the claim: a writer goes on writing into it wherever it lies."""
    intake = Intake(layout, ledger, with_source(config, source), clock=time.time)
    path = put(layout, "a.txt", LARGE)
    with open(path, "ab") as writer:
        intake.accept(settled(layout))
        assert gate.reached.wait(PATIENCE_SECONDS)
        writer.write(b"more")
    gate.open.set(), until_back(intake)
    taken = intake.accept([])
    assert taken.drops == () and "it changed while" in taken.waiting["a.txt"]
    assert path.read_bytes() == LARGE + b"more" and states(ledger) == {}


def test_a_large_drop_that_is_taken_away_meanwhile_is_forgotten(
    intake: Intake, layout: Layout, ledger: Ledger, gate: Gate
) -> None:
    """Its owner moved it."""
    path = put(layout, "a.txt", LARGE)
    intake.accept(settled(layout))
    assert gate.reached.wait(PATIENCE_SECONDS)
    path.unlink()
    gate.open.set(), until_back(intake)
    assert intake.accept([]) == Taken(drops=(), waiting={}) and states(ledger) == {}


def test_a_crash_while_it_is_read_loses_nothing(
    intake: Intake, layout: Layout, ledger: Ledger, config: Config, gate: Gate
) -> None:
    """Before its rename or after it: the next start takes it, aside again."""
    put(layout, "before.txt", LARGE)
    intake.accept(settled(layout))
    assert gate.reached.wait(PATIENCE_SECONDS)
    second = Intake(layout, ledger, config, clock=time.time)
    assert second.recover() == ["before.txt: its claim was undone"]
    assert states(ledger) == {} and len(bytes_somewhere(layout, LARGE)) == 1
    (drop,) = (second._planned(dropped, ()) for dropped in settled(layout))
    ledger.plan_claim(drop)
    layout.claimed(drop.id).mkdir(parents=True)
    os.rename(layout.inbox / "before.txt", layout.claimed(drop.id) / "before.txt")
    third = Intake(layout, ledger, config, clock=time.time)
    assert third.recover() == ["before.txt: its claim goes on"]
    gate.open.set(), until_back(third)
    assert drops(third.accept([])) == ["before.txt"]
    assert states(ledger) == {"before.txt": "claimed"}


def test_a_reload_hands_on_what_is_out(
    intake: Intake, layout: Layout, ledger: Ledger, config: Config, gate: Gate
) -> None:
    """The next intake neither undoes it nor takes it twice."""
    put(layout, "a.txt", LARGE)
    intake.accept(settled(layout))
    assert gate.reached.wait(PATIENCE_SECONDS)
    second = Intake(layout, ledger, config, clock=time.time, large=intake.large)
    assert second.recover() == []
    gate.open.set(), until_back(second)
    assert drops(second.accept([])) == ["a.txt"] and gate.taken == ["a.txt"]


def test_a_disk_that_gives_up_meanwhile_is_told_and_overcome(
    intake: Intake, layout: Layout, ledger: Ledger, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for any other claim: trouble, then recovery."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error", "a.txt")

    put(layout, "a.txt", LARGE)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.intake.large.take", fail)
        intake.accept(settled(layout))
        until_back(intake)
        with pytest.raises(EnvironmentFailure):
            intake.accept([])
    assert intake.recover() == ["a.txt: its claim was undone"]
    gate.open.set()
    intake.accept(settled(layout)), until_back(intake)
    assert drops(intake.accept([])) == ["a.txt"]


def test_the_watch_shows_it_and_comes_back_for_it(
    layout: Layout, ledger: Ledger, config: Config, gate: Gate
) -> None:
    """A run with `once` does not end before it; nobody waits for the next scan."""
    clock = Clock(1000.0)
    quiet = config.model_copy(update={"intake": config.intake.model_copy(update={"events": False})})
    intake = Intake(layout, ledger, quiet, clock=clock)
    watch = Watch(quiet, layout, ledger, intake, clock=clock)
    watch.look()
    put(layout, "a.txt", LARGE)
    clock.now += 70.0
    assert watch.look() == () and not watch.quiet()
    assert gate.reached.wait(PATIENCE_SECONDS)
    (shown,) = watch.waiting()
    assert (shown.path, shown.state) == ("a.txt", "taking")
    gate.open.set(), until_back(intake)
    assert [drop.relative for drop in watch.look()] == ["a.txt"]
    watch.close()
