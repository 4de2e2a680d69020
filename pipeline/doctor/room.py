"""Room on the disks, in bytes and in files.

Knows the limits below which a disk is called full; what the daemon then does is not known here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.doctor.finding import Finding, failure, warning, well
from pipeline.files import display, shown_size

LOW_BYTES, NO_BYTES = 2_000_000_000, 200_000_000
LOW_FILES, NO_FILES = 1_000, 10


def examine(config: Config) -> Iterator[Finding]:
    """The disks of inbox, outbox and state, each once."""
    disks: dict[int, list[str]] = {}
    paths = {"inbox": config.inbox_path, "outbox": config.outbox_path, "state": config.state_path}
    for name, path in paths.items():
        if path.is_dir():  # told elsewhere if not
            disks.setdefault(path.stat().st_dev, []).append(name)
    for names in disks.values():
        yield from _disk(", ".join(names), paths[names[0]])


def _disk(names: str, path: Path) -> Iterator[Finding]:
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    what = f"{shown_size(free)} free for the {names}"
    advice = (
        f"See what is large: sudo du -xh '{display(path)}' | sort -h | tail. python daemon.py prune removes"
        " old results; retention in config.yaml says which."
    )
    if free >= LOW_BYTES:
        yield well(what)
    else:
        yield failure(what, advice) if free < NO_BYTES else warning(what, advice)
    if disk.f_files and disk.f_favail < LOW_FILES:
        what = f"{disk.f_favail} more files fit on the disk of the {names} (inodes)"
        advice = f"Remove small files there (df -i '{display(path)}'), or use another disk."
        yield failure(what, advice) if disk.f_favail < NO_FILES else warning(what, advice)
