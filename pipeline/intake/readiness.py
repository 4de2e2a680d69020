"""Whether work can be done now: are the roots themselves, can they be written, is there room?

Knows roots and disks; nothing of jobs. Invariant: what it finds is the machine's fault, told as an
EnvironmentFailure with what to do, and it leaves nothing behind.
"""

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import EnvironmentFailure, LedgerDamaged
from pipeline.files import shown_size
from pipeline.intake.aside import Aside, Errand
from pipeline.intake.refused import GOES_ON, read_only, refusal
from pipeline.intake.roots import Role, check_mark, memory_key, try_writing
from pipeline.layout import HIDDEN, Layout
from pipeline.ledger import Ledger
from pipeline.space import MIN_FREE_FILES, Room, look, room

LOOK_SECONDS = 2.0
LATE_SECONDS = 15.0
PATIENCE_SECONDS = 1.0
"a look that takes longer is not waited for"
RESERVE_SECONDS = 60.0
"how often the ledger's reserve is looked after"


Marks = Mapping[Role, str | None]
"what each root is remembered by; None: it never had a mark"


def ready(config: Config, layout: Layout, ledger: Ledger) -> Room:
    """What jobs may take up now, and whether each root can be written to.

    Raises EnvironmentFailure where nothing can be done at all.
    """
    return fit(config, layout, remembered(layout, ledger), try_all=True)


def remembered(layout: Layout, ledger: Ledger) -> Marks:
    """The marks of all roots that must carry one."""
    paths = {Role.STATE: layout.state, Role.INBOX: layout.inbox, Role.OUTBOX: layout.outbox}
    return {role: ledger.meta(memory_key(role, path)) for role, path in paths.items()}


def fit(config: Config, layout: Layout, marks: Marks, *, try_all: bool) -> Room:
    """The same without a ledger, so that it can be done aside; with `try_all` files are written."""
    min_free_bytes = config.workers.min_free_bytes
    written = [Role.STATE, Role.OUTBOX] + [Role.INBOX] * (config.intake.source != "leave")
    try:
        for role, mark in marks.items():
            check_mark(getattr(layout, role.value), role, mark)
        for role in written:
            _refuse_read_only(layout, role)
        for role in (Role.STATE, Role.OUTBOX):
            _refuse_full(layout, role, min_free_bytes)
        for role in written if try_all else ():
            _try_writing(layout, role)
        return room(layout, min_free_bytes)
    except OSError as error:
        raise refusal(error, layout) from error


class Machine:
    """The daemon's eye on the machine: what keeps all work from being done, and when that has passed."""

    def __init__(self, layout: Layout, ledger: Ledger, *, desk: Aside, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._ledger = ledger
        self._clock = clock
        self._desk = desk
        self._out: Errand[Room] | None = None
        "a look that has not come back yet"
        self._looked_at = clock()
        self._next_at = self._reserve_at = 0.0
        self.failure: EnvironmentFailure | None = None
        self.room: Room | None = None
        "what jobs may take up; None: nothing can be done"
        self.well_since = clock()
        "since when work could be done without a break; in seconds of the clock"

    def look(self, config: Config) -> bool:
        """Look again if it is time to; tells whether what was wrong is mended.

        Files are written only while something is known to be wrong: idle disks may sleep.
        """
        now = self._clock()
        if self._out is None and (now < self._next_at or not self._opened()):
            return False
        if now - self._looked_at > LATE_SECONDS:
            self.well_since = now  # a disk that did not answer held us up
        before = self.failure
        try:
            out = self._out = self._out or self._ask(config)
            if not out.wait(PATIENCE_SECONDS):
                return False  # a root does not answer: the watch tells of it
            self._out = None
            self.room = out.result()
            self.failure = None
            self._keep_reserve(now)
        except LedgerDamaged:
            raise
        except EnvironmentFailure as error:
            self.failure, self.room, self.well_since = error, None, now
        self._looked_at = self._clock()
        self._next_at = self._looked_at + LOOK_SECONDS
        return before is not None and self.failure is None

    def _ask(self, config: Config) -> Errand[Room]:
        """Send somebody to look: a server that does not answer holds up whoever asks it."""
        troubled = self.failure is not None or bool(self._ledger.meta("trouble"))
        marks = remembered(self._layout, self._ledger)
        return self._desk.send(functools.partial(fit, config, self._layout, marks, try_all=troubled))

    def _keep_reserve(self, now: float) -> None:
        if now >= self._reserve_at:
            self._reserve_at = now + RESERVE_SECONDS
            with contextlib.suppress(EnvironmentFailure):  # there is no room for it now
                self._ledger.keep_reserve()

    def _opened(self) -> bool:
        """Whether the folders were ever there: before the first start they need not be."""
        return self._ledger.meta(memory_key(Role.OUTBOX, self._layout.outbox)) is not None

    def wait(self) -> None:
        """A root does not answer, and who looks at it may never come back."""
        self.well_since = self._looked_at = self._clock()


def _try_writing(layout: Layout, role: Role) -> None:
    """Where a sync program does not look. Work on what was taken needs no room in the inbox."""
    root: Path = getattr(layout, role.value)
    folder = root if role is Role.STATE else root / HIDDEN
    try:
        folder.mkdir(exist_ok=True)
        try_writing(folder)
    except OSError as error:
        if role is not Role.INBOX or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _refuse_read_only(layout: Layout, role: Role) -> None:
    root: Path = getattr(layout, role.value)
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        raise read_only(f"the {role} {root}", root)


def _refuse_full(layout: Layout, role: Role, min_free_bytes: int) -> None:
    root: Path = getattr(layout, role.value)
    free = look(root)
    if free.bytes <= min_free_bytes:
        raise EnvironmentFailure(
            f"The disk of the {role} {root} is full: {shown_size(free.bytes)} of it are left,"
            f" and {shown_size(min_free_bytes)} are kept.",
            hint=f"Make room there. {GOES_ON}",
            code="disk_full",
        )
    if free.files <= MIN_FREE_FILES:
        raise EnvironmentFailure(
            f"The disk of the {role} {root} takes no more files: its inodes are used up but for"
            f" {free.files:.0f}, and {MIN_FREE_FILES} are kept.",
            hint=f"Make room there by removing small files. {GOES_ON}",
            code="inodes_full",
        )
