"""What the ledger and the daemon's last words say: damage, trouble, errors, things left lying.

Reads; repairs nothing.
"""

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.doctor.finding import Finding, Machine, failure, warning, well
from pipeline.doctor.neighbours import running
from pipeline.faults import Kind
from pipeline.files import display
from pipeline.jobs.job import DropState
from pipeline.layout import Layout, last_place, layout_of
from pipeline.ledger import Ledger
from pipeline.retention import DAY_SECONDS
from pipeline.status import last_status, moment

MANY_FAILED = 50
_CODES = "docs/operations.md, Error codes, says what each code means."


def examine(config: Config, ledger: Ledger | None, here: Machine) -> Iterator[Finding]:
    """What is on record against us."""
    layout = layout_of(config)
    if ledger is None:
        yield well("there is no ledger yet: Voxspool has not run with this state folder")
        return
    yield _damage(ledger, layout)
    yield from _trouble(ledger, layout)
    yield from _errors(ledger, here)
    yield from _failed(ledger, layout)


def _damage(ledger: Ledger, layout: Layout) -> Finding:
    found = ledger.damage()
    if not found:
        return well("the ledger is whole")
    return failure(
        f"the ledger is damaged: {found[0]}",
        "Stop Voxspool and bring back a backup of the state folder, or let SQLite save what it can:\n"
        f"sqlite3 '{display(layout.ledger_file)}' .recover | sqlite3 new.db",
    )


def _trouble(ledger: Ledger, layout: Layout) -> Iterator[Finding]:
    """What keeps a running daemon from going on, or kept the last one."""
    if running(layout):
        for sentence in (last_status(layout) or {}).get("trouble", ()):
            yield failure(f"the daemon says: {sentence}", "It goes on by itself as soon as that is mended.")
        return
    stale = ledger.meta("trouble")
    if stale:
        what = f"when Voxspool last ran, it was in trouble: {stale}"
        yield warning(what, "It looks again when it is started: make run")


def _errors(ledger: Ledger, here: Machine) -> Iterator[Finding]:
    """What went wrong within a day."""
    since = here.clock() - DAY_SECONDS
    recent = [kind for kind in ledger.faults.kinds() if kind.last[0].at >= since]
    if not recent:
        yield well("nothing went wrong within the last day")
    for kind in recent:
        yield warning(_told(kind), _CODES)


def _told(kind: Kind) -> str:
    last = kind.last[0]
    message = " ".join(last.message.split())
    about = "" if not last.file or last.file in message else f"{last.file}: "
    return f"error {kind.code}, {kind.count} in all, the last at {moment(last.at)}: {about}{message}"


def _failed(ledger: Ledger, layout: Layout) -> Iterator[Finding]:
    """Nobody deletes what failed but you."""
    places = (last_place(layout, drop) for drop in ledger.drops_in(DropState.FAILED))
    lying = sum(place is not None and place.exists() for place in places)
    if lying >= MANY_FAILED:
        what = (
            f"{lying} failed drops lie in {display(layout.failed)}, where nothing is ever deleted by itself"
        )
        yield warning(what, "Read the notes, move back what is to be tried again, delete the rest.")
