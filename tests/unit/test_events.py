"""Telling whoever wants to know, without harm to the job."""

import dataclasses
import json

import pytest
from ledger_samples import a_job

from pipeline.events import JobEnded, emit
from pipeline.jobs.job import JobState
from pipeline.notify import unsuccessful

EVENT = JobEnded(job_id="d1-1", state="done", source="story.txt", outputs=("story.mp3",))


def test_every_hook_is_told_in_order() -> None:
    """With the same event."""
    told: list[tuple[str, JobEnded]] = []
    emit(EVENT, [lambda event: told.append(("first", event)), lambda event: told.append(("second", event))])
    assert told == [("first", EVENT), ("second", EVENT)]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("y"), OSError(5, "z"), ValueError("\udce9")])
def test_a_hook_that_fails_does_not_keep_the_others_from_it(error: Exception) -> None:
    """Somebody else's code must not fail a finished job."""
    told: list[JobEnded] = []

    def fail(_: JobEnded) -> None:
        raise error

    emit(EVENT, [fail, told.append])
    assert told == [EVENT]


def test_without_hooks_nothing_happens() -> None:
    """That is the usual case."""
    emit(EVENT, [])


def test_an_event_is_plain_json() -> None:
    """With the time at which it happened."""
    fields = json.loads(json.dumps(dataclasses.asdict(EVENT)))
    assert fields["outputs"] == ["story.mp3"] and fields["at"] > 1.7e9


def test_an_unsuccessful_job_as_an_event() -> None:
    """Why it failed, or that it was cancelled."""
    job = a_job(state=JobState.FAILED, error_code="c", error_message="m")
    event = unsuccessful(job)
    assert (event.state, event.error_code, event.error_message, event.outputs) == ("failed", "c", "m", ())
    assert unsuccessful(a_job(state=JobState.CANCELLED)).error_message == ""
