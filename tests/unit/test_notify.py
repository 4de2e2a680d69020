"""A command of the user's own, run when a job has ended."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config import MAX_NOTIFY_SECONDS, Notify, load_config
from pipeline.crew import DEAF_SECONDS
from pipeline.errors import ConfigError
from pipeline.events import JobEnded, emit
from pipeline.notify import hooks
from pipeline.sd_notify import PINGS_PER_TIMEOUT

UNITS = Path(__file__).parents[2] / "systemd"

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


def test_a_command_may_not_take_so_long_that_who_tells_seems_to_hang(tmp_path: Path) -> None:
    """Neither to the daemon, if a worker tells, nor to systemd, if the daemon does right before a ping."""
    timeouts = [
        float(line.partition("=")[2])
        for unit in UNITS.glob("*.service")
        for line in unit.read_text().splitlines()
        if line.startswith("WatchdogSec=")
    ]
    assert timeouts and MAX_NOTIFY_SECONDS < DEAF_SECONDS - 10
    assert all(seconds - seconds / PINGS_PER_TIMEOUT - 10 > MAX_NOTIFY_SECONDS for seconds in timeouts)
    file = tmp_path / "config.yaml"
    file.write_text(f"notify: {{command: [sleep, '50'], timeout_seconds: {MAX_NOTIFY_SECONDS + 1}}}\n")
    with pytest.raises(ConfigError, match=r"notify.timeout_seconds: expected at most 45.*, found 46") as told:
        load_config(file)
    assert told.value.message.startswith("config.yaml, line 1")
