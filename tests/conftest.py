"""What every test gets: folders of its own, and no way out of them."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from pipeline.config import Config, ConfigFile, resolve
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data"
# How long an example takes depends on who else uses the machine.
hypothesis.settings.register_profile("voxspool", deadline=None)
hypothesis.settings.load_profile("voxspool")


@pytest.fixture(autouse=True)
def _no_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches the user's home, the repository's own folders as working directory, or the network."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(socket.socket, "connect", _loopback_only(socket.socket.connect))


def _loopback_only(connect: Callable[..., None]) -> Callable[..., None]:
    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if host not in ("local", "localhost", "::1") and not str(host).startswith("127."):
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)

    return guarded


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration with its four folders below `tmp_path`, and no wait for files to settle."""
    parsed = ConfigFile.model_validate({"intake": {"settle_seconds": 0.0}})
    made = resolve(parsed, tmp_path / "config.yaml")
    for folder in (made.inbox_path, made.outbox_path, made.voices_path, made.state_path):
        folder.mkdir()
    for folder in (layout_of(made).work_root, layout_of(made).cache, layout_of(made).spool_root):
        folder.mkdir()  # as the daemon does when it starts
    return made


@pytest.fixture
def layout(config: Config) -> Layout:
    """The places of `config`."""
    return layout_of(config)


@pytest.fixture
def ledger(layout: Layout) -> Iterator[Ledger]:
    """An open ledger."""
    opened = Ledger(layout.ledger_file, clock=lambda: 1_790_000_000.0)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def data() -> Path:
    """Real prose and recordings; tests that want them skip where they are missing."""
    if not DATA.is_dir() or os.environ.get("VOXSPOOL_NO_DATA"):
        pytest.skip(f"the sample data is not there: {DATA}")
    return DATA
