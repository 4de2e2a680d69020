"""A daemon for each test, and none left behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_running import Daemon


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """`make_daemon(**config)`: not started yet; killed at the end if it still runs."""
    made: list[Daemon] = []

    def make(**sections: Any) -> Daemon:
        made.append(Daemon(tmp_path, **sections))
        return made[-1]

    yield make
    for daemon in made:
        daemon.kill()
