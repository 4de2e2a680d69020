"""`<stem>.log`: what was done with a job, for people to read."""

import dataclasses
from typing import Any

import pytest
from ledger_samples import a_job

from pipeline.job_log import job_log
from pipeline.jobs.job import Job, JobSpec, VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.outbox import ChunkRecord, Manifest, Timings

GOOD = ChunkRecord(
    index=0,
    text="Hello there.",
    seed=1,
    tries=1,
    cached=False,
    passed=True,
    word_error_rate=0.0,
    transcript="hello there",
    start_seconds=0.0,
    end_seconds=1.0,
)
TIMINGS = Timings(
    queued_seconds=1.25, synthesis_seconds=2, check_seconds=3, encode_wait_seconds=4, total_seconds=10
)


def a_log(*chunks: ChunkRecord, job: Job | None = None, **manifest: Any) -> str:
    """The log of a job with these chunks."""
    job = job or a_job()
    made = Manifest(
        job_id=job.id,
        status="done",
        kind="tts",
        source=job.source,
        engine={"name": "espeak", "version": "1.52", "device": "cpu"},
        settings={},
        chunks=chunks,
        check="pocketsphinx 5",
        timings=TIMINGS,
    )
    return job_log(job, dataclasses.replace(made, **manifest))


def change(**fields: Any) -> ChunkRecord:
    """The good chunk, but for these fields."""
    return dataclasses.replace(GOOD, **fields)


def test_a_whole_log() -> None:
    """Whose, by whom, each chunk, how long it took."""
    settings = Settings(voice="narrator", language="de", seed=9)
    spec = JobSpec(kind="tts", settings=settings, voice=VoiceChoice(name="x"), text="Hi.")
    bad = change(
        index=1, text="Two words.", tries=4, passed=False, word_error_rate=0.5, transcript="too words",
        start_seconds=3723.46, reasons=("missing: two", "cut off"),
    )  # fmt: skip
    cached = change(index=11, cached=True, tries=2, start_seconds=59.99)
    assert a_log(GOOD, bad, cached, job=a_job(spec=spec), warnings=("One.", "Two.")) == (
        "Job d1-0: story.txt, taken 2027-01-15 08:00:00 UTC\n"
        "Made by espeak 1.52 on cpu, voice narrator, language de, seed 9\n"
        "Checked by pocketsphinx 5\n"
        "\n"
        "0:00:00.0      1  ok 0.00  Hello there.\n"
        "1:02:03.4      2  NOT OK 0.50, 4 tries  Two words.\n"
        "                 heard: too words\n"
        "                 missing: two; cut off\n"
        "0:00:59.9     12  ok 0.00, 2 tries, cached  Hello there.\n"
        "\n"
        "Took 10.0 s after 1.2 s in the queue: speaking 2.0, waiting for the check 3.0,"
        " waiting for the encoder 4.0\n"
        "\n"
        "Warnings:\n"
        "- One.\n"
        "- Two.\n"
    )


def test_an_unchecked_chunk_says_so() -> None:
    """It has no error rate."""
    assert "  unchecked, cached  Hello" in a_log(
        change(passed=None, word_error_rate=None, transcript=None, cached=True)
    )


def test_without_chunks_there_is_no_list() -> None:
    """A conversion, or recordings that were joined; no voice is the engine's own."""
    log = a_log()
    assert "\n\n\n" not in log and "voice default" in log and log.endswith("waiting for the encoder 4.0\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines \t here", "two lines here"),
        ("x" * 100, "x" * 100),
        ("漢" * 300, "漢" * 96 + " ..."),
        ("word " * 50, "word " * 19 + "w ..."),
        ("", ""),
    ],
)
def test_a_chunk_is_one_line(text: str, shown: str) -> None:
    """Long ones are cut, in scripts without spaces too."""
    lines = a_log(change(text=text)).splitlines()
    assert lines[4] == f"0:00:00.0      1  ok 0.00  {shown}"


def test_hearing_nothing_is_shown() -> None:
    """As nothing."""
    assert "heard: \n" in a_log(change(passed=False, transcript=""))
