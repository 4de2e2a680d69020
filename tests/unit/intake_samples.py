"""An inbox with files in it, as the scan hands them on."""

import os
from pathlib import Path

from pipeline.config import Config
from pipeline.intake.ignore import KIND_BY_EXTENSION, DropKind, extension_of
from pipeline.intake.inbox import Dropped
from pipeline.intake.settle import fingerprint_of
from pipeline.layout import Layout


def put(layout: Layout, relative: str, content: str | bytes = "Hello there.") -> Path:
    """A file in the inbox."""
    path = layout.inbox / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def settled(layout: Layout, *relatives: str) -> list[Dropped]:
    """These files as a scan would offer them; all files of the inbox if none is named."""
    return [_dropped(layout, relative) for relative in relatives or lying(layout)]


def _dropped(layout: Layout, relative: str) -> Dropped:
    status = os.lstat(layout.inbox / relative)
    return Dropped(
        relative=relative,
        path=layout.inbox / relative,
        kind=KIND_BY_EXTENSION.get(extension_of(relative), DropKind.TEXT),
        fingerprint=fingerprint_of(status),
        device=status.st_dev,
        settled_at=0.0,
    )


def lying(layout: Layout) -> list[str]:
    """What lies in the inbox, our own folder and the defaults aside."""
    paths = (path for path in layout.inbox.rglob("*") if not path.is_dir() or path.is_symlink())
    names = (str(path.relative_to(layout.inbox)) for path in paths)
    return sorted(name for name in names if not name.startswith(".") and "_defaults." not in name)


def bytes_somewhere(layout: Layout, content: bytes) -> list[Path]:
    """Every file below the folders of `layout` that holds exactly `content`: nothing is ever lost."""
    roots = (layout.inbox, layout.outbox, layout.state)
    paths = (path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in paths if path.stat().st_size == len(content) and path.read_bytes() == content]


def with_source(config: Config, source: str, **intake: object) -> Config:
    """`config` with another `intake.source`."""
    return config.model_copy(update={"intake": config.intake.model_copy(update={"source": source, **intake})})
