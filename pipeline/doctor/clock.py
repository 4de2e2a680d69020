"""The clock: is it set, did it jump, does anything keep it right?

Ages decide what retention deletes, and times stand in every manifest. Reads the clock that pruning
last saw; remembers nothing, so that pruning still sees the jump.
"""

import json
import time
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Machine, failure, warning, well
from pipeline.ledger import Ledger
from pipeline.prune import CLOCK_FACT
from pipeline.retention import EARLIEST_CLOCK, Seen, clock_problem

_SET = "Set it: sudo timedatectl set-ntp true, or sudo date --set '2026-12-31 23:59'."


def examine(ledger: Ledger | None, here: Machine) -> Iterator[Finding]:
    """What is wrong with the clock."""
    now = here.clock()
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < EARLIEST_CLOCK:
        yield failure(f"the clock says {shown}", _SET)
        return
    yield well(f"the clock says {shown}")
    if problem := clock_problem(here.clocks(), _last_seen(ledger)):
        advice = f"Nothing is pruned until two looks agree. If the time above is wrong: {_SET}"
        yield warning(problem, advice)
    if here.synchronised() is False:
        yield warning(
            "nothing keeps the clock right",
            "Start a time service: sudo timedatectl set-ntp true (or install chrony).",
        )


def _last_seen(ledger: Ledger | None) -> Seen | None:
    last = ledger.meta(CLOCK_FACT) if ledger else None
    return Seen(**json.loads(last)) if last else None
