"""The line that `systemctl status` shows, and when the daemon counts as stuck."""

from dataclasses import replace

import pytest
from ledger_samples import a_job

from pipeline.jobs.job import JobState, Source
from pipeline.ledger import Progress
from pipeline.service import KILL_SECONDS, LOOK_SECONDS, status_line, stuck

STALL_SECONDS = 600.0


def a_progress(name: str = "chapter-02.txt", done: int = 41, total: int = 100, **more: object) -> Progress:
    """A running job that showed life at 1000."""
    job = replace(a_job(), source=Source(name=name, sha256="ab", bytes=1))
    plain = Progress(
        job=job,
        worker="1-7-1",
        stage="speaking",
        done_chunks=done,
        total_chunks=total,
        started_at=0.0,
        heartbeat_at=1000.0,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "queued", "running", "trouble", "line"),
    [
        ("running", 0, [], [], "nothing to do"),
        ("running", 3, [a_progress()], [], "3 queued, running chapter-02.txt 41 %"),
        (
            "running",
            0,
            [a_progress(total=0, stage="loading espeak")],
            [],
            "running chapter-02.txt (loading espeak)",
        ),
        ("paused", 3, [], [], "paused, 3 queued"),
        ("running", 0, [], ["The inbox is away.", "No."], "nothing to do | The inbox is away. | No."),
        ("running", 0, [a_progress(name="a\nb")], [], "running a\\nb 41 %"),
        (
            "running",
            0,
            [a_progress()] * 5,
            [],
            "running chapter-02.txt 41 %, running chapter-02.txt 41 %, and 3 more",
        ),
    ],
)
def test_the_line_says_what_is_done(
    state: str, queued: int, running: list[Progress], trouble: list[str], line: str
) -> None:
    """Queue, running jobs with percent, and trouble last."""
    assert status_line(state, {JobState.QUEUED: queued}, running, trouble) == line


@pytest.mark.parametrize(
    ("now", "look_seconds", "why"),
    [
        (1000.0, 0.0, ""),
        (1000.0 + STALL_SECONDS + KILL_SECONDS, LOOK_SECONDS, ""),
        (1000.0 + STALL_SECONDS + KILL_SECONDS + 1, 0.0, "worker 1-7-1 should have been gone for 31 s"),
        (1000.0, LOOK_SECONDS + 1, "a look at the folders has not ended for 121 s"),
    ],
)
def test_who_goes_round_and_gets_nowhere_is_stuck(now: float, look_seconds: float, why: str) -> None:
    """A look without an end, or a worker that outlived its own killing."""
    assert stuck(now, look_seconds, [a_progress()], lambda _: STALL_SECONDS) == why


def test_idle_is_not_stuck() -> None:
    """Nothing running, no look out: all is well, for days."""
    assert stuck(1e9, 0.0, [], lambda _: STALL_SECONDS) == ""
