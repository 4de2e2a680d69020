"""Room on the disks, in bytes and in files.

Below what the daemon keeps free it does no work: that fails. Above it jobs wait that need more than the
rest, so that a little room is worth a warning.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.doctor.finding import Finding, failure, warning, well
from pipeline.files import display, shown_size
from pipeline.space import MIN_FREE_FILES, look

LOW_BYTES, LOW_FILES = 2_000_000_000, 1_000


def examine(config: Config) -> Iterator[Finding]:
    """The disks of inbox, outbox and state, each once."""
    disks: dict[int, list[str]] = {}
    paths = {"inbox": config.inbox_path, "outbox": config.outbox_path, "state": config.state_path}
    for name, path in paths.items():
        if path.is_dir():  # told elsewhere if not
            disks.setdefault(path.stat().st_dev, []).append(name)
    for names in disks.values():
        yield from _disk(", ".join(names), paths[names[0]], config.workers.min_free_bytes)


def _disk(names: str, path: Path, kept_bytes: int) -> Iterator[Finding]:
    free = look(path)
    what = f"{shown_size(free.bytes)} free for the {names}"
    advice = (
        f"See what is large: sudo du -xh '{display(path)}' | sort -h | tail. python daemon.py prune removes"
        " old results; retention in config.yaml says which."
    )
    if free.bytes >= LOW_BYTES:
        yield well(what)
    else:
        yield failure(what, advice) if free.bytes <= kept_bytes else warning(what, advice)
    if free.files < LOW_FILES:
        what = f"{free.files:.0f} more files fit on the disk of the {names} (inodes)"
        advice = f"Remove small files there (df -i '{display(path)}'), or use another disk."
        yield failure(what, advice) if free.files <= MIN_FREE_FILES else warning(what, advice)
