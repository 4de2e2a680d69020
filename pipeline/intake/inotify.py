"""watchdog's observer, kept out of folders that are never looked into.

watchdog has no way to leave a folder out of a recursive watch, and an inbox's hidden folder holds one
for each file ever processed: each would cost a watch. So the method that adds watches is replaced, which
is private to watchdog: its version is pinned, and a test notices if it moves. Knows names only; a
filesystem that others may change unseen is not entered. What could not be watched is counted, since
watchdog keeps silent about it.
"""

import os
from pathlib import Path
from typing import Any

from watchdog.observers.api import DEFAULT_OBSERVER_TIMEOUT, BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)

from pipeline.intake.ignore import skips_folder


class _Reader(InotifyFD):
    """Reads the kernel's queue for one observer."""

    def _add_callback(
        self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
    ) -> WatchDescriptor:
        # A folder that is new or was renamed may be met a second time, which watchdog warns of;
        # where warnings are made errors, that ends this thread.
        watch = self._get_or_create_watch(path, mask)
        watch.callbacks[id_] = callback
        return watch.wd


class _LookedInto(InotifyWatchGroup):
    """Watches below a root, but for hidden and ignored folders and `foreign` filesystems."""

    def __init__(self, *arguments: Any, foreign: frozenset[bytes], **options: Any) -> None:
        self._foreign = foreign
        self.failed = 0
        super().__init__(*arguments, **options)

    def _add_all_callbacks(self, path: bytes) -> None:
        if self._skips(path):
            return
        self._add_callback(path)
        for folder, names, _ in os.walk(path):
            names[:] = [name for name in names if self._enters(folder, name)]
            for name in names:
                below = os.path.join(folder, name)
                if not os.path.islink(below):
                    self._add_callback(below)

    def _add_callback(self, path: bytes) -> None:
        super()._add_callback(path)
        # one that may not be read is not meant: it is not looked into either
        if path not in self._active_callbacks_by_path and Path(os.fsdecode(path)).is_dir():
            self.failed += 1

    def _skips(self, path: bytes) -> bool:
        parts = os.fsdecode(path[len(self.path) :]).split("/")
        return path in self._foreign or any(skips_folder(part) for part in parts if part)

    def _enters(self, folder: bytes, name: bytes) -> bool:
        return not skips_folder(os.fsdecode(name)) and os.path.join(folder, name) not in self._foreign


class _Emitter(InotifyEmitter):
    def __init__(self, *arguments: Any, foreign: frozenset[bytes] = frozenset(), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._foreign = foreign

    def on_thread_start(self) -> None:
        # A claim moves a file to where nobody watches. watchdog holds such an event, and all behind it, back
        # for half a second in the hope of its other half; what left the inbox is of no interest.
        mask = self.get_event_mask_from_filter() & ~InotifyConstants.IN_MOVED_FROM
        path = os.fsencode(self.watch.path)
        self._inotify = _LookedInto(
            self._inotify_fd, path, is_recursive=True, event_mask=Mask(mask), foreign=self._foreign
        )


class SelectiveObserver(BaseObserver):
    """An `InotifyObserver` whose watches leave out what the inbox leaves out, and `foreign` folders.

    `foreign`: absolute paths of what is mounted below the root and scanned anyway.
    """

    def __init__(self, *, foreign: frozenset[str] = frozenset(), **options: Any) -> None:
        self._inotify_fd = _Reader()
        self._inotify_fd.start()
        super().__init__(
            _Emitter,
            timeout=DEFAULT_OBSERVER_TIMEOUT,
            inotify_fd=self._inotify_fd,
            foreign=frozenset(map(os.fsencode, foreign)),
            **options,
        )

    @property
    def folders(self) -> int:
        """How many folders are being watched."""
        return sum(len(group._active_callbacks_by_path) for group in self._groups())

    @property
    def failed(self) -> int:
        """How many folders could not be watched, since the limit of watches was reached."""
        return sum(group.failed for group in self._groups())

    def _groups(self) -> list[_LookedInto]:
        groups = (getattr(emitter, "_inotify", None) for emitter in self.emitters)
        return [group for group in groups if group is not None]

    def is_alive(self) -> bool:
        """Whether all threads are: the reader of the kernel's queue, the emitters, the observer's own."""
        return super().is_alive() and self._inotify_fd.is_alive()

    def on_thread_stop(self) -> None:
        """End the reader as well."""
        super().on_thread_stop()
        self._inotify_fd.stop()
        self._inotify_fd.join()
