"""What a service manager is told of the daemon: one line of status, and whether it is stuck.

Takes values and returns sentences; sends nothing. Invariant: a folder that is away, a pause and an idle
day are no reason to be called stuck; something that goes round without getting anywhere is.
"""

from collections.abc import Callable, Mapping, Sequence

from pipeline.files import display
from pipeline.jobs.job import JobState
from pipeline.ledger import Progress

LOOK_SECONDS = 120.0
"so long a look at a disk of this machine may take: a step of the scan is ten thousand entries"
KILL_SECONDS = 30.0
"so long after its deadline a worker must be gone: the supervisor kills it there"
MAX_SHOWN = 2


def status_line(
    state: str, counts: Mapping[str, int], running: Sequence[Progress], trouble: Sequence[str]
) -> str:
    """Such as `3 queued, running chapter-02.txt 41 %`; what keeps the work from going on stands last."""
    told = [] if state == "running" else [state]
    if counts.get(JobState.QUEUED):
        told.append(f"{counts[JobState.QUEUED]} queued")
    told += [f"running {display(one.job.source.name)} {_how_far(one)}" for one in running[:MAX_SHOWN]]
    if len(running) > MAX_SHOWN:
        told.append(f"and {len(running) - MAX_SHOWN} more")
    return " ".join([", ".join(told) or "nothing to do", *(f"| {sentence}" for sentence in trouble)])


def _how_far(progress: Progress) -> str:
    if not progress.total_chunks:
        return f"({progress.stage})"
    return f"{100 * progress.done_chunks // progress.total_chunks} %"


def stuck(
    now: float, look_seconds: float, running: Sequence[Progress], limit: Callable[[Progress], float]
) -> str:
    """Why it cannot be said that all is well; empty if it can.

    `look_seconds`: for how long the look at the inbox that is out has been out. `limit`: the seconds
    between two signs of life that a running job is allowed.
    """
    if look_seconds > LOOK_SECONDS:
        return f"a look at the folders has not ended for {look_seconds:.0f} s"
    for progress in running:
        late = now - progress.heartbeat_at - limit(progress)
        if late > KILL_SECONDS:
            return f"worker {progress.worker} should have been gone for {late:.0f} s"
    return ""
