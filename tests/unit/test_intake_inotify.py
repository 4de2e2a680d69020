"""The observer that stays out of ignored folders, on a real disk."""

import os
import threading
from pathlib import Path

import pytest
from watchdog.events import FileSystemEvent, FileSystemEventHandler

from pipeline.intake.inotify import SelectiveObserver


class Bell(FileSystemEventHandler):
    """Rings for anything whose name ends as wanted."""

    def __init__(self, wanted: str) -> None:
        self.wanted, self.rang = wanted, threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Compare the name."""
        if os.fsdecode(event.src_path).endswith(self.wanted):
            self.rang.set()


def watching(root: Path, bell: Bell) -> SelectiveObserver:
    """A started observer of `root`."""
    observer = SelectiveObserver()
    observer.schedule(bell, str(root), recursive=True)
    observer.start()
    return observer


def test_hidden_and_ignored_folders_cost_no_watch(tmp_path: Path) -> None:
    """A thousand processed drops and a NAS's thumbnails are not watched; ordinary subfolders are."""
    for number in range(1000):
        (tmp_path / ".voxspool" / "done" / f"{number}").mkdir(parents=True)
    (tmp_path / "@eaDir" / "thumbs").mkdir(parents=True)
    (tmp_path / "books" / "one").mkdir(parents=True)
    observer = watching(tmp_path, Bell("x"))
    try:
        assert observer.folders == 3
    finally:
        observer.stop()
        observer.join()


@pytest.mark.parametrize("folder", ["books/one", "new/deep"])
def test_ordinary_subfolders_are_watched(tmp_path: Path, folder: str) -> None:
    """A file in a subfolder rings, also if the folder came later."""
    (tmp_path / "books" / "one").mkdir(parents=True)
    bell = Bell("drop.txt")
    observer = watching(tmp_path, bell)
    try:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "drop.txt").write_text("x")
        assert bell.rang.wait(5)
    finally:
        observer.stop()
        observer.join()


def test_folders_made_below_a_hidden_one_are_not_watched(tmp_path: Path) -> None:
    """Each claim makes a folder in `.voxspool`; none of them adds a watch."""
    bell = Bell("last.txt")
    observer = watching(tmp_path, bell)
    try:
        (tmp_path / ".voxspool" / "claimed" / "1").mkdir(parents=True)
        (tmp_path / "last.txt").write_text("x")
        assert bell.rang.wait(5)
        assert observer.folders == 1
    finally:
        observer.stop()
        observer.join()
