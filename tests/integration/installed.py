"""An installation of the service in a folder of its own, by `make install-service` itself.

The Python packages are not installed once more: the installation is given the environment in which the
tests run (VOXSPOOL_VENV).
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

UNITS = Path("usr/local/lib/systemd/system")


@dataclass(frozen=True, slots=True)
class Installed:
    """A machine's root folder that holds the service and little else."""

    root: Path
    prefix: str = "/opt/voxspool"

    @property
    def code(self) -> Path:
        """Where the code lies."""
        return self.root / self.prefix.lstrip("/")

    @property
    def units(self) -> Path:
        """Where the units lie."""
        return self.root / UNITS

    @property
    def config(self) -> Path:
        """The configuration of the service."""
        return self.root / "etc" / "voxspool" / "config.yaml"

    def make(self, target: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`make install-service` or `make uninstall-service` below this root."""
        given = {
            "DESTDIR": str(self.root),
            "PREFIX": self.prefix,
            "PYTHON": sys.executable,
            "VOXSPOOL_VENV": sys.prefix,
            **variables,
        }
        return subprocess.run(
            ["make", "--no-print-directory", target, *(f"{name}={value}" for name, value in given.items())],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, **variables: str) -> str:
        """Install; returns what was said."""
        ended = self.make("install-service", **variables)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def files(self) -> dict[str, tuple[int, str]]:
        """Mode and content, or target, of everything in it, but for compiled code."""
        return {
            str(path.relative_to(self.root)): (path.lstat().st_mode, _content(path))
            for path in sorted(self.root.rglob("*"))
            if "__pycache__" not in path.parts
        }

    def remove(self) -> None:
        """Delete it all, read-only folders too, which only root can do without this."""
        for folder, _, _ in os.walk(self.root):
            os.chmod(folder, 0o700)
        shutil.rmtree(self.root)


def _content(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes().hex() if path.is_file() else ""
