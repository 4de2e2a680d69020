"""The status on a terminal."""

from typing import Any

import pytest
from rich.console import Console

from pipeline.screen import screen

RUNNING = {"job": "d1-1", "source": "story.txt", "stage": "speaking", "chunks_done": 5, "chunks": 10}


def shown(width: int = 120, **status: Any) -> list[str]:
    """The lines of the page."""
    console = Console(width=width, color_system=None, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(screen({"state": "running", **status}))
    console.file.close()
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_nothing_to_do_is_one_line() -> None:
    """Also before the daemon ever ran."""
    assert shown() == ["Voxspool is running. Jobs: none."]
    assert shown(state="never started", waiting=[], notes=[])[0].startswith("Voxspool is never started")


def test_the_headline_counts_what_there_is() -> None:
    """Nought is not worth a word."""
    (line,) = shown(jobs={"queued": 0, "done": 3, "failed": 1}, updated_at="2027-01-15T08:00:00+00:00")
    assert line == "Voxspool is running, as of 2027-01-15T08:00:00+00:00. Jobs: 3 done, 1 failed."


def test_trouble_comes_first() -> None:
    """Then notes."""
    lines = shown(trouble=["The disk is full."], notes=["The inbox is large."])
    assert lines[1:] == ["! The disk is full.", "- The inbox is large."]


def test_a_running_job_has_a_bar() -> None:
    """Half full; without a count as long as it is not known."""
    lines = shown(running=[RUNNING, {**RUNNING, "source": "other.txt", "chunks": 0, "chunks_done": 0}])
    assert "story.txt" in lines[2] and "5/10" in lines[2] and "speaking" in lines[2] and "d1-1" in lines[2]
    assert lines[2].count("━") >= 14
    assert "other.txt" in lines[3] and "/" not in lines[3]


def test_long_lists_are_counted() -> None:
    """The rest is a line."""
    queued = [{"job": f"d{n}", "source": f"{n}.txt", "priority": "normal"} for n in range(30)]
    waiting = [{"path": f"{n}.txt", "state": "new", "reason": "just arrived"} for n in range(40)]
    lines = shown(queued=queued, waiting=waiting, jobs={"queued": 700})
    assert sum(line.startswith("queued") for line in lines) == 10
    assert any("and 690 more" in line for line in lines)
    assert any("and 10 more: `explain PATH` tells of any of them" in line for line in lines)


@pytest.mark.parametrize("name", ["[bold]x[/bold].txt", "[/].txt", "[link=http://x]y.txt", ":smile:.txt"])
def test_names_are_shown_as_they_are(name: str) -> None:
    """Brackets are no markup."""
    entry = {"path": name, "state": "held", "reason": f"because of {name}"}
    status = {
        "waiting": [entry],
        "running": [{**RUNNING, "source": name}],
        "trouble": [name],
        "notes": [name],
    }
    queued = [{"job": "d", "source": name, "priority": "high"}]
    text = "\n".join(shown(**status, queued=queued, jobs={"queued": 1}))
    assert text.count(name) == 6


def test_errors_are_told_with_their_number_and_the_latest() -> None:
    """The file is named once; brackets are no markup here either."""
    latest = {"at": "2027-01-15T08:00:00+00:00", "file": "[b].yaml", "times": 1}
    entries = [
        {"code": "job_file", "count": 12, "last": [{**latest, "message": "[b].yaml, line 1: no"}]},
        {"code": "check_failed", "count": 1, "last": [{**latest, "message": "No take passed."}]},
        {"code": "root", "count": 2, "last": [{**latest, "file": "", "message": "Not mounted."}]},
    ]
    lines = shown(errors=entries)[2:]
    assert lines[0].split(maxsplit=4) == ["12", "x", "job_file", latest["at"], "[b].yaml, line 1: no"]
    assert lines[1].endswith("[b].yaml: No take passed.") and lines[2].endswith("00  Not mounted.")
    assert "and 2 more" in shown(errors=entries * 4)[-1]
