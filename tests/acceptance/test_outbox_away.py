"""An outbox that is away: the command line still knows, and nothing is written in its place."""

import json
from collections.abc import Callable

import pytest
from daemon_running import Daemon


def trouble(daemon: Daemon) -> str:
    """What the command line says of trouble."""
    return " ".join(json.loads(daemon.command("status", "--json").stdout).get("trouble", ()))


@pytest.mark.slow
def test_an_outbox_that_is_away_is_told_and_not_written_beneath(make_daemon: Callable[..., Daemon]) -> None:
    """As when a share is unmounted: its place stays empty, `status` says why, and it goes on by itself."""
    daemon = make_daemon(defaults={"check": {"by": "none"}, "output": {"formats": ["wav"]}}).start()
    daemon.drop("broken.yaml", "text: [")
    daemon.wait((daemon.outbox / "failed" / "broken.yaml.error.txt").exists)
    away = daemon.outbox.with_name("away")
    daemon.outbox.rename(away)
    daemon.outbox.mkdir()
    daemon.drop("picture.png", b"the status has something new to say")
    daemon.wait(lambda: "outbox" in trouble(daemon))
    assert list(daemon.outbox.iterdir()) == []
    daemon.outbox.rmdir()
    away.rename(daemon.outbox)
    daemon.wait(lambda: trouble(daemon) == "")
    daemon.wait(lambda: "picture.png" in (daemon.outbox / "status.json").read_text())
