"""What was fetched, as it stands beside the files: repository, revision, sizes and hashes.

Knows one JSON file and the files that it names; no network. Invariant: a file is ours if the record names it,
and sound if size and hash are those of the record; everything else in the folder was brought by hand.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.fetch_models.sources import Model
from pipeline.files import atomic_write, display

BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")

Looked = Callable[[int], None]
"told how many bytes were read so far"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file as it was when it was fetched."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`source.json`."""

    repository: str
    "on the hub; the folder of the address where the model is no repository"
    revision: str
    "the commit, 40 hexadecimal digits; the file's SHA-256 where the model is no repository"
    files: tuple[Entry, ...]
    fetched_at: str
    "ISO 8601, UTC"

    def entry(self, name: str) -> Entry | None:
        """What it says of a file."""
        return next((entry for entry in self.files if entry.name == name), None)


def read(model: Model) -> Record | None:
    """The record of a model, None if it was not fetched; InputError if it makes no sense."""
    path = model.folder / model.record
    try:
        value = json.loads(path.read_bytes())
        return _record(value, model)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{display(path)} cannot be used: {error}.",
            code="model_record",
            hint="Delete it together with the model's files, and they are fetched anew.",
        ) from error


def _record(value: Any, model: Model) -> Record:
    files = tuple(
        Entry(name=entry["name"], bytes=int(entry["bytes"]), sha256=entry["sha256"])
        for entry in value["files"]
    )
    for entry in files:
        if entry.name not in model.every_file or not _SHA256.fullmatch(entry.sha256):
            raise ValueError(f"{entry.name!r} with the hash {entry.sha256!r} is no file of {model.name}")
    return Record(
        repository=str(value["repository"]),
        revision=str(value["revision"]),
        files=files,
        fetched_at=str(value["fetched_at"]),
    )


def write(model: Model, record: Record) -> None:
    """Keep it beside the files."""
    text = json.dumps(asdict(record), indent=1)
    atomic_write(model.folder / model.record, text.encode() + b"\n")


def what_is_wrong(entry: Entry, folder: Path, looked: Looked) -> str:
    """Empty if the file is as it was fetched; else what happened to it."""
    path = folder / entry.name
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            return f"is {size} bytes long and not {entry.bytes}"
        return "" if sha256_of(path, looked) == entry.sha256 else "has changed since it was fetched"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def sha256_of(path: Path, looked: Looked) -> str:
    """The SHA-256 of a file, read in blocks: some of them are three gigabytes."""
    return _digest(path, hashlib.sha256(), looked)


def blob_of(path: Path, looked: Looked) -> str:
    """Git's own hash of a file, which the hub tells of what is not in its large storage."""
    header = f"blob {path.stat().st_size}\0".encode()
    # git's own name for it, not a protection
    return _digest(path, hashlib.sha1(header, usedforsecurity=False), looked)


def _digest(path: Path, digest: Any, looked: Looked) -> str:
    seen = 0
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            seen += len(block)
            looked(seen)
    found: str = digest.hexdigest()
    return found
