"""Opening inbox and outbox: making sure that both are what they were, and that nobody else claims there.

Knows roots and locks; nothing of what lies in the folders, and no ledger, so that it can be done aside:
any of this may hang where a server does not answer. Invariant: what was opened is the marked folder, and
its inbox is held until `hold` is closed.
"""

import contextlib
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from pipeline.files import exclusive_lock
from pipeline.intake.roots import Role, Root, RootProblem, open_root
from pipeline.layout import Layout

# Answers of network filesystems that cannot lock.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Both folders as they were when they were opened."""

    inbox: Root
    outbox: Root
    hold: contextlib.ExitStack
    "gives the inbox free again"


def open_folders(
    layout: Layout,
    *,
    remembered: Mapping[Role, str | None],
    untouched: bool,
    asking: Callable[[Path], None] = lambda _: None,
) -> Opened:
    """Open inbox and outbox. `remembered` are the marks they had before: an empty mount point looks just as
    valid. With `untouched` nothing is changed in the inbox (`source: leave`). `asking` is told of each before
    it is touched. Raises RootProblem or OSError.
    """
    for role in (Role.INBOX, Role.OUTBOX, Role.VOICES):
        folder: Path = getattr(layout, role.value)
        if (
            remembered.get(role, remembered[Role.INBOX]) is None
        ):  # what was there and is missing is not mounted
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
    asking(layout.inbox)
    inbox = open_root(
        layout.inbox, Role.INBOX, expected_uuid=remembered[Role.INBOX], leave_marker=not untouched
    )
    asking(layout.outbox)
    outbox = open_root(layout.outbox, Role.OUTBOX, expected_uuid=remembered[Role.OUTBOX])
    asking(layout.inbox)
    return Opened(inbox=inbox, outbox=outbox, hold=contextlib.ExitStack() if untouched else _hold(layout))


def _hold(layout: Layout) -> contextlib.ExitStack:
    """Be the only daemon that claims from this inbox: two would take each other's claims for orphans."""
    path: Path = layout.claimed_root.parent / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    hold = contextlib.ExitStack()
    try:
        alone = hold.enter_context(exclusive_lock(path))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("{} knows no locks: see that only one Voxspool uses it", layout.inbox)
        return hold
    if not alone:
        hold.close()
        raise RootProblem(
            f"Another Voxspool, with another state folder, takes files from {layout.inbox}.",
            hint="Stop one of them, or give each an inbox of its own.",
        )
    return hold
