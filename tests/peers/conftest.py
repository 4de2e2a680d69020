"""For each test: programs that end with it, and a daemon that is audited at its end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import Programs, kill_group

from tests.acceptance.daemon_running import Daemon

UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}
Make = Callable[..., Daemon]


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Other programs, all ended when the test is."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "home").mkdir()
    started = Programs(logs)
    yield started
    started.end()


@pytest.fixture
def make_daemon(tmp_path: Path, programs: Programs) -> Iterator[Make]:
    """`make_daemon(**config)`: not started yet, in `here/`; ended before the peers are."""
    made: list[Daemon] = []

    def make(**sections: Any) -> Daemon:
        root = tmp_path / "here"
        root.mkdir(exist_ok=True)
        sections.setdefault("defaults", UNCHECKED)
        sections.setdefault("intake", {}).setdefault("settle_seconds", 2.0)
        sections["intake"].setdefault("settle_network_seconds", 2.0)
        made.append(Daemon(root, **sections))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.process is not None:
            kill_group(daemon.process)
    programs.end()  # a daemon that waits for a share can only die once that is unmounted
    for daemon in made:
        daemon.kill()
