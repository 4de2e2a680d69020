"""A command of the user's own, run when a job has ended."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config import Notify
from pipeline.events import JobEnded, emit
from pipeline.notify import hooks

WRITE = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read() + b'\\n')"


def event(state: str = "failed", **fields: str) -> JobEnded:
    """A job that ended so."""
    return JobEnded(job_id="d1-1", state=state, source="story.txt", **fields)


def config(target: Path, *when: str, script: str = WRITE) -> Notify:
    """Writes each event to `target`."""
    command = (sys.executable, "-c", script, str(target))
    return Notify.model_validate({"command": command, "when": when or ("failed",), "timeout_seconds": 10.0})


def test_without_a_command_nobody_is_told() -> None:
    """That is the default."""
    assert hooks(Notify()) == []


def test_the_command_gets_the_event_as_json(tmp_path: Path) -> None:
    """On its standard input; odd names and long messages too."""
    (hook,) = hooks(config(tmp_path / "told"))
    hook(event(error_code="text_empty", error_message="caf\udce9 " + "x" * 200_000))
    told = json.loads((tmp_path / "told").read_bytes())
    assert (told["job_id"], told["state"], told["error_code"]) == ("d1-1", "failed", "text_empty")
    assert told["error_message"].startswith("caf\udce9 ")


def test_it_is_told_only_what_it_wants_to_know(tmp_path: Path) -> None:
    """`notify.when`."""
    (hook,) = hooks(config(tmp_path / "told", "done", "cancelled"))
    for state in ("done", "failed", "cancelled"):
        hook(event(state))
    lines = (tmp_path / "told").read_text().splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["done", "cancelled"]


def test_its_words_are_no_shell(tmp_path: Path) -> None:
    """Nothing in them is expanded."""
    target = tmp_path / "$(touch x); 'quoted'"
    hooks(config(target))[0](event())
    assert target.exists() and [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("script", ["import sys; sys.exit(3)", "raise SystemExit('no')"])
def test_a_command_that_fails_is_an_error_of_its_own(tmp_path: Path, script: str) -> None:
    """Which is logged by whoever tells the hooks, and harms nobody."""
    (hook,) = hooks(config(tmp_path / "told", script=script))
    with pytest.raises(subprocess.CalledProcessError):
        hook(event())
    emit(event(), [hook])


def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    """After its time; it need not read what it is sent."""
    hanging = Notify(command=(sys.executable, "-c", "import time; time.sleep(60)"), timeout_seconds=0.3)
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        hooks(hanging)[0](event(error_message="x" * 1_000_000))
    assert time.monotonic() - started < 20


def test_a_command_that_is_not_there_is_an_error_of_its_own() -> None:
    """As any other."""
    hook = hooks(Notify(command=("/no/such/program",)))[0]
    with pytest.raises(FileNotFoundError):
        hook(event())
    emit(event(), [hook])
