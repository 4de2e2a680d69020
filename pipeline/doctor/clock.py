"""The clock: is it set, did it jump, does anything keep it right?

Ages decide what retention deletes, and times stand in every manifest. Reads the clock that pruning
last saw; remembers nothing, so that pruning still sees the jump.
"""

import time
from collections.abc import Iterator

from pipeline.config import Config
from pipeline.doctor.finding import Finding, Machine, failure, warning, well
from pipeline.ledger import Ledger
from pipeline.prune import judged_by_ledger
from pipeline.retention import EARLIEST_CLOCK

_SET = "Set it: sudo timedatectl set-ntp true, or sudo date --set '2026-12-31 23:59'."


def examine(config: Config, ledger: Ledger | None, here: Machine) -> Iterator[Finding]:
    """What is wrong with the clock."""
    now = here.clock()
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < EARLIEST_CLOCK:
        yield failure(f"the clock says {shown}", _SET)
        return
    yield well(f"the clock says {shown}")
    problem = judged_by_ledger(ledger, here.clocks(), config.retention.keep_hours)[0] if ledger else ""
    if problem:
        yield warning(problem, f"If the time above is wrong: {_SET}")
    if here.synchronised() is False:
        yield warning(
            "nothing keeps the clock right",
            "Start a time service: sudo timedatectl set-ntp true (or install chrony).",
        )
