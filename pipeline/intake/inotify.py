"""watchdog's observer, kept out of folders that are never looked into.

watchdog has no way to leave a folder out of a recursive watch, and an inbox's hidden folder holds one
for each file ever processed: each would cost a watch. So the method that adds watches is replaced, which
is private to watchdog: its version is pinned, and a test notices if it moves. Knows names only.
"""

import os
import warnings
from typing import Any

from watchdog.observers.api import DEFAULT_OBSERVER_TIMEOUT, BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyFD, Mask

from pipeline.intake.ignore import skips_folder

# A folder that is renamed within the inbox is met a second time, which watchdog warns of.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)


class _LookedInto(InotifyWatchGroup):
    """Watches below a root, but for hidden and ignored folders."""

    def _add_all_callbacks(self, path: bytes) -> None:
        if self._skips(path):
            return
        self._add_callback(path)
        for folder, names, _ in os.walk(path):
            names[:] = [name for name in names if not skips_folder(os.fsdecode(name))]
            for name in names:
                below = os.path.join(folder, name)
                if not os.path.islink(below):
                    self._add_callback(below)

    def _skips(self, path: bytes) -> bool:
        parts = os.fsdecode(path[len(self.path) :]).split("/")
        return any(skips_folder(part) for part in parts if part)


class _Emitter(InotifyEmitter):
    def on_thread_start(self) -> None:
        # A claim moves a file to where nobody watches. watchdog holds such an event, and all behind it, back
        # for half a second in the hope of its other half; what left the inbox is of no interest.
        mask = self.get_event_mask_from_filter() & ~InotifyConstants.IN_MOVED_FROM
        path = os.fsencode(self.watch.path)
        self._inotify = _LookedInto(self._inotify_fd, path, is_recursive=True, event_mask=Mask(mask))


class SelectiveObserver(BaseObserver):
    """An `InotifyObserver` whose recursive watches leave out what the inbox leaves out."""

    def __init__(self, **options: Any) -> None:
        self._inotify_fd = InotifyFD()
        self._inotify_fd.start()
        super().__init__(_Emitter, timeout=DEFAULT_OBSERVER_TIMEOUT, inotify_fd=self._inotify_fd, **options)

    @property
    def folders(self) -> int:
        """How many folders are being watched."""
        groups = (getattr(emitter, "_inotify", None) for emitter in self.emitters)
        return sum(len(group._active_callbacks_by_path) for group in groups if group is not None)

    def on_thread_stop(self) -> None:
        """End the reader as well."""
        super().on_thread_stop()
        self._inotify_fd.stop()
        self._inotify_fd.join()
