"""Looks at a folder again and again while a test runs, and remembers everything that could be seen there.

A reader on another device sees whatever stands under a final name at any moment; so does this one.
"""

import contextlib
import hashlib
import os
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType

LOOK_SECONDS = 0.01


def sha256(path: Path) -> str:
    """Of what stands there now."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Witness:
    """A thread that reads every file of a folder whenever it has changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[int, int, int]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.hashes: dict[str, set[str]] = defaultdict(set)
        "of every content that was ever seen under a name, relative to the folder"
        self.hidden: set[str] = set()
        "every name that began with a dot, or lay below one that did"

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                relative = str(path.relative_to(self._root))
                if any(part.startswith(".") for part in Path(relative).parts):
                    self.hidden.add(relative)
                else:
                    self._read(path, relative)

    def _read(self, path: Path, relative: str) -> None:
        """What stands there now; a file that is replaced meanwhile is read at the next look."""
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._known.get(relative) != stamp:
                self._known[relative] = stamp
                self.hashes[relative].add(hashlib.sha256(stream.read()).hexdigest())
