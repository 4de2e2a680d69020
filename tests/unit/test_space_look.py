"""What a disk says of its room, believed where it counts in earnest."""

import os
from pathlib import Path

import pytest

from pipeline import space
from pipeline.mounts import Mount


def says(monkeypatch: pytest.MonkeyPatch, filesystem: str, files: int, free_files: int) -> None:
    """Whatever path is asked for lies on a filesystem that says this."""
    answer = os.statvfs_result((4096, 4096, 1000, 1000, 500, files, free_files, free_files, 0, 255))
    mount = Mount(point="/", filesystem=filesystem, source="x", read_only=False)
    monkeypatch.setattr(os, "statvfs", lambda _path: answer)
    monkeypatch.setattr(space, "read_mounts", lambda: (mount,))


@pytest.mark.parametrize(
    ("filesystem", "files", "free_files", "believed"),
    [
        ("ext4", 1000, 7, 7.0),
        ("ext4", 1000, 0, 0.0),
        ("btrfs", 0, 0, float("inf")),
        ("fuse.rclone", 1_000_000_000, 0, float("inf")),
    ],
)
def test_what_rclone_says_of_files_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, filesystem: str, files: int, free_files: int, believed: float
) -> None:
    """Its mounts say at all times that none fits; others mean it, and some do not count."""
    says(monkeypatch, filesystem, files, free_files)
    assert space.look(Path("/srv")) == space.Free(bytes=500 * 4096, files=believed)
