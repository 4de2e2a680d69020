"""The judges of `make crashes` and `make soak`: each must be able to find what it looks for."""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from ledger_samples import Clock, a_drop, a_job, publish, submit

from bench.crashes import Crashes, half_results
from bench.ground import Ground
from bench.load import Load
from bench.soak import FLAT, Sample, growth, picture, table
from pipeline.jobs.job import DropState, JobState
from pipeline.ledger import Ledger


@pytest.fixture
def place(tmp_path: Path) -> Ground:
    """Four empty folders."""
    for name in ("inbox", "outbox", "voices", "state"):
        (tmp_path / name).mkdir()
    return Ground(tmp_path)


@pytest.fixture
def ledger(place: Ground) -> Iterator[Ledger]:
    """What a daemon would have written."""
    opened = Ledger(place.root / "state" / "ledger.db", clock=Clock())
    yield opened
    opened.close()


def take(ledger: Ledger, load: Load, digest: str, drop_id: str, state: DropState = DropState.DONE) -> None:
    """The ledger tells that this content was taken and how it ended."""
    name = load.wanted[digest].name if digest in load.wanted else "unknown.txt"
    submit(ledger, a_job(f"{drop_id}-1", drop_id=drop_id), drop=a_drop(drop_id, name, sha256=digest))
    ledger.finish(f"{drop_id}-1", JobState.DONE)
    ledger.end_drop(drop_id, state, "")


def test_what_was_lost_doubled_or_made_up_is_found(place: Ground, ledger: Ledger) -> None:
    """A drop that never ended, one that was done twice, one that nobody dropped, one that ended otherwise."""
    load = Load(place, Random(1))
    for _ in range(4):
        load.text()
    lost, twice, wrong, well = load.wanted
    take(ledger, load, twice, "b1")
    take(ledger, load, twice, "b2")
    take(ledger, load, wrong, "c", DropState.FAILED)
    take(ledger, load, well, "d")
    take(ledger, load, "made up", "e")
    found = load.findings(results_kept=False)
    assert len(found) == 4
    assert "made up" in found[0]
    assert f"{load.wanted[lost].name} was taken 0 times" in found[1]
    assert f"{load.wanted[twice].name} was taken 2 times" in found[2]
    assert f"{load.wanted[wrong].name} is failed, not done" in found[3]


def test_a_missing_result_is_found(place: Ground, ledger: Ledger) -> None:
    """It is done, says the ledger; the outbox knows nothing of it."""
    load = Load(place, Random(1))
    load.text()
    [(digest, wanted)] = load.wanted.items()
    take(ledger, load, digest, "a")
    assert load.findings() == [f"{wanted.name} has 0 results, not 1"]
    (place.root / "outbox" / "a.json").write_text(f'{{"source": {{"sha256": "{digest}"}}}}')
    assert load.findings() == []


def test_half_a_result_is_found(place: Ground, ledger: Ledger) -> None:
    """By its manifest and by its hash in the ledger."""
    digest = hashlib.sha256(b"sound").hexdigest()
    manifest = f'{{"outputs": [{{"path": "a.wav", "sha256": "{digest}"}}]}}'.encode()
    publish(ledger, place.root / "outbox", "a", {"a.wav": b"sound", "a.json": manifest})
    assert half_results(place) == []
    (place.root / "outbox" / "a.wav").write_bytes(b"sou")
    assert half_results(place) == [
        "a.wav is not what its manifest says",
        "a.wav is not whole, or not in the ledger",
    ]


def test_a_take_that_is_spoken_again_and_litter_are_found(place: Ground) -> None:
    """By the time of its sound, which is written once."""
    crashes = Crashes(place, Random(1))
    shelf = place.root / "state" / "cache" / "ab"
    shelf.mkdir(parents=True)
    for name in ("abc.wav", "abc.json", "abc.0123.json"):
        (shelf / name).write_bytes(b"x")
    assert crashes._spoken_again() == crashes._spoken_again() == []
    (shelf / "abc.wav").unlink()
    (shelf / "abc.wav").write_bytes(b"x")
    assert crashes._spoken_again() == ["the take abc.wav was spoken again"]
    (place.root / "outbox" / ".01234567.voxspool-tmp").touch()
    assert crashes._litter() == ["left behind: outbox/.01234567.voxspool-tmp"]


def test_the_load_can_do_all_it_says(place: Ground, ledger: Ledger) -> None:
    """Each deed once and more, with nobody at work; all of it waits then."""
    (place.root / "config.yaml").write_text("{}\n")
    load = Load(place, Random(2))
    load.prepare()
    for _ in range(150):
        load.act()
    load.finish()
    assert len(load.acts) == 17
    lost = [finding for finding in load.findings() if "was taken 0 times" in finding]
    assert len(lost) == sum(wanted.drops_at_least for wanted in load.wanted.values()) > 50


def samples(**growing: float) -> list[Sample]:
    """An hour in which some measures grow by so much a sample."""
    even = Sample(0.0, 15, 4, 45.0, 33.0, 29.0, 7, 11, 2, 160.0, 140.0, 110.0, 50.0, 3, 1.0, 1.0, 1.0, 1.0, 1)
    return [
        replace(
            even,
            at_seconds=number * 36.0,
            **{name: getattr(even, name) + number * step for name, step in growing.items()},
        )
        for number in range(101)
    ]


def test_what_grows_is_told() -> None:
    """Over five per cent from the second quarter to the last; less is noise."""
    hour = samples(supervisor_own_mb=0.1, worker_descriptors=0.01, ledger_mb=1.0)
    assert [name for name in FLAT if growth(hour, name) > 0.05] == ["supervisor_own_mb"]
    lines = table(hour)
    assert [line.split()[0] for line in lines if line.endswith("GROWS")] == ["supervisor_own_mb"]
    drawing = ET.fromstring(picture(hour))
    assert len(drawing.findall("{http://www.w3.org/2000/svg}polyline")) == 4
