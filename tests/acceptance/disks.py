"""Small disks that a test can fill, unmount, put something over and make read-only."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

BLOCK = b"x" * 4096
FILLER = ".filler"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def skip_unless_mounting_is_allowed(folder: Path) -> None:
    """One clear sentence where it is not."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small disks that this test fills and unmounts")
    try:
        with mounted(folder):
            pass
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let root mount a tmpfs, which this test fills and unmounts")


@contextlib.contextmanager
def mounted(folder: Path, options: str = "size=64k") -> Iterator[None]:
    """A tmpfs over `folder`; what lay in it is hidden meanwhile."""
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        _run("umount", "-l", str(folder))


class Disk:
    """A tmpfs that outlives its being unmounted from `place`, as a share does: `hidden` keeps it."""

    def __init__(self, place: Path, hidden: Path, *, size: str, inodes: int = 10_000) -> None:
        self.place, self.hidden = place, hidden
        for folder in (place, hidden):
            folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "tmpfs", str(hidden))
        self.mount()

    def mount(self) -> None:
        """Let it be seen at its place."""
        _run("mount", "--bind", str(self.hidden), str(self.place))

    def unmount(self) -> None:
        """Its place is the bare folder below from now on, whoever has it open."""
        _run("umount", "-l", str(self.place))

    def read_only(self, on: bool) -> None:
        """Nothing can be written at its place."""
        _run("mount", "-o", f"remount,bind,{'ro' if on else 'rw'}", str(self.place))

    def fill(self, *, leave: int = 0) -> None:
        """Not one byte more fits, or so many."""
        descriptor = os.open(self.hidden / FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, BLOCK)
            os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - leave))
        finally:
            os.close(descriptor)

    def use_up_inodes(self) -> None:
        """Not one file more fits, though there is room."""
        folder = self.hidden / f"{FILLER}s"
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            for number in range(1_000_000):
                (folder / str(number)).touch()

    def make_room(self) -> None:
        """Take back what `fill` and `use_up_inodes` did."""
        (self.hidden / FILLER).unlink(missing_ok=True)
        for path in (self.hidden / f"{FILLER}s").glob("*"):
            path.unlink()

    def destroy(self) -> None:
        """However often it is mounted, and whatever lies over it."""
        for folder in (self.place, self.hidden):
            while (
                subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True).returncode
                == 0
            ):
                pass
