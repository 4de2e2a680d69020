"""The S3Gen networks that are loaded, so that engine and converter on one device hold one copy.

Knows weak references; keeps nothing alive. Invariant: what is found here was loaded from this very file
onto this very device.
"""

import weakref
from pathlib import Path
from typing import Any

_LOADED: weakref.WeakValueDictionary[tuple[object, ...], Any] = weakref.WeakValueDictionary()


def share(model: Any, file: Path, device: str) -> None:
    """Let `model` use the S3Gen that is already there, or be the one whose S3Gen others use."""
    model.s3gen = _LOADED.setdefault(_key(file, device), model.s3gen)


def find(file: Path, device: str) -> Any | None:
    """The S3Gen of `file` on `device`, where somebody holds it."""
    return _LOADED.get(_key(file, device))


def _key(file: Path, device: str) -> tuple[object, ...]:
    """A file that was replaced is another file."""
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, device
