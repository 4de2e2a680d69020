"""A machine for the doctor to look at, and what it says of one thing."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.config import Config, load_config
from pipeline.doctor import Finding, Machine
from pipeline.mounts import Mount
from pipeline.retention import Seen
from tests.conftest import REPOSITORY

NOW = 1_800_000_000.0


def make_roots(folder: Path) -> None:
    """The four folders."""
    for name in ("inbox", "outbox", "voices", "state"):
        (folder / name).mkdir()


def configure(folder: Path, text: str = "") -> Config:
    """A configuration in `folder`."""
    (folder / "config.yaml").write_text(text)
    return load_config(folder / "config.yaml")


def mount(point: str, filesystem: str = "ext4") -> Mount:
    """A line of mountinfo."""
    return Mount(point=point, filesystem=filesystem, source="x", read_only=False)


def machine(**changes: object) -> Machine:
    """A healthy machine without a GPU, on one local disk."""
    fields = {
        "mounts": (mount("/"),),
        "fstab": Path("/nowhere"),
        "clocks": lambda: Seen(wall=NOW, uptime=10.0, boot="b"),
        "synchronised": lambda: True,
        "watch": lambda _folder: None,
        "processes": Path("/nowhere"),
        "ask": lambda _command: None,
    }
    return Machine(**{**fields, **changes})  # type: ignore[arg-type]


def about(findings: Sequence[Finding], word: str) -> Finding:
    """The one finding that speaks of `word`."""
    [found] = [finding for finding in findings if word in finding.what]
    return found


def as_powerless(config: Path) -> str:
    """What `doctor` prints to a root that may not pass over rights, as nobody but root may."""
    drop = "--bounding-set=-dac_override,-dac_read_search,-fowner"
    command = [sys.executable, str(REPOSITORY / "daemon.py"), "--config", str(config), "doctor"]
    try:
        answer = subprocess.run(
            ["setpriv", drop, *command], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("setpriv (util-linux) is not there")
    if "setpriv:" in answer.stderr:
        pytest.skip("taking rights away needs root")
    return answer.stdout
