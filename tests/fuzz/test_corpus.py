"""What fuzzing ever found, and a small round of it: the long one is `make fuzz`."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from loguru import logger

from tests.fuzz import __main__ as runner
from tests.fuzz import seeds, strategies, watched
from tests.fuzz.targets import TARGETS
from tests.fuzz.watched import Watched, read_tally

FOUND = sorted(path for path in seeds.CORPUS.glob("*/*") if path.is_file())
# each example starts ffmpeg twice, or lays out folders
EXAMPLES = {"audio file": 5, "drops": 15}


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_not_found_again(path: Path) -> None:
    """Each of these broke a promise."""
    started = watched.processor_seconds()
    TARGETS[path.parent.name.replace("-", " ")](path.read_bytes())
    assert watched.processor_seconds() - started < 4


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_inputs_keep_all_promises(target: str) -> None:
    """The targets and strategies themselves still fit the program."""
    logger.remove()

    @settings(
        max_examples=EXAMPLES.get(target, 40), suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(strategies.of(target))
    def one(data: bytes) -> None:
        TARGETS[target](data)

    one()


def test_what_breaks_a_promise_is_kept_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody documents, and too much time or memory; and the rest goes on."""
    seconds, megabytes = 0.0, 0.0

    def target(data: bytes) -> None:
        nonlocal seconds, megabytes
        seconds += 2.1 if data == b"slow" else 0.1
        megabytes = 201.0 if data == b"memory" else 1.0
        if data == b"error":
            raise ZeroDivisionError("a slip")

    monkeypatch.setattr(watched, "processor_seconds", lambda: seconds)
    monkeypatch.setattr(watched.Memory, "taken_mb", lambda _: megabytes)
    watch = Watched("x", target, tmp_path / "tally", tmp_path / "found")
    for data in (b"fine", b"error", b"error", b"slow", b"memory", b"fine"):
        watch(data)
    tally = read_tally(tmp_path / "tally")
    assert (tally.inputs, tally.findings, tally.current) == (6, 4, b"fine")
    assert tally.worst_seconds == pytest.approx(2.1) and tally.most_mb == 201
    found = {
        path.read_bytes(): path.with_name(f"{path.name}.txt") for path in tmp_path.glob("found/x-????????")
    }
    assert set(found) == {b"error", b"slow", b"memory"}
    for data, words in {b"error": "a slip", b"slow": "2.1 s of processor time", b"memory": "201 MB"}.items():
        assert words in found[data].read_text()


def test_memory_is_measured_for_each_input_by_itself() -> None:
    """What was taken before, and given back since, is not counted again."""
    for _ in range(2):
        memory = watched.Memory()
        hog = bytes(1 << 20) * 150
        del hog
        assert 145 < memory.taken_mb() < 200
    assert watched.Memory().taken_mb() < 20
    memory = watched.Memory()
    subprocess.run([sys.executable, "-c", "bytes(1 << 20) * 150"], check=True)
    assert memory.taken_mb() > 145


def test_a_child_that_dies_or_hangs_is_told_with_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash inside of a library ends the process; the input at hand is known all the same."""
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(runner, "HANG_SECONDS", 4.0)
    for ending, told in (("os.abort()", "the process ended with -6"), ("time.sleep(60)", "it took over")):
        (tmp_path / "tally").unlink(missing_ok=True)
        code = (
            "import os, sys, time; from pathlib import Path; from tests.fuzz.watched import Watched\n"
            f"def target(data):\n    if data == b'third': {ending}\n"
            f"watched = Watched('x', target, Path({str(tmp_path / 'tally')!r}), Path({str(tmp_path)!r}))\n"
            "for data in (b'first', b'second', b'third'): watched(data)"
        )
        monkeypatch.setattr(runner, "child_command", lambda *_, code=code: [sys.executable, "-c", code])
        tally, died = runner._child("names", "hypothesis", 3, 60)
        assert died and (tally.inputs, tally.findings) == (2, 1)
        (reason,) = (path for path in tmp_path.glob("findings/*.txt") if told in path.read_text())
        assert reason.with_suffix("").read_bytes() == b"third"
        reason.unlink()
