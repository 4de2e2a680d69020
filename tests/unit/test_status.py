"""`status.json`: what the daemon is doing, seldom enough for a synced folder."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import Clock, a_job, submit

from pipeline.files import display
from pipeline.jobs.job import DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.status import (
    MAX_CODES_LISTED,
    MAX_LISTED,
    MAX_MESSAGE_CHARS,
    SCHEMA,
    WRITE_SECONDS,
    Snapshot,
    StatusFile,
    WaitingFile,
    listed,
    moment,
    read_status,
    snapshot_jobs,
)
from pipeline.tallies import Tally


def a_snapshot(**fields: Any) -> Snapshot:
    """A running daemon with nothing to do."""
    return Snapshot(**{"voxspool": "1", "pid": 1, "state": "running", **fields})


@pytest.fixture
def clock() -> Clock:
    """Monotonic."""
    return Clock(100.0)


@pytest.fixture
def file(tmp_path: Path, clock: Clock) -> StatusFile:
    """Not yet written."""
    return StatusFile(tmp_path / "status.json", clock=clock, wall=lambda: 1_800_000_000.0)


def test_it_says_everything_and_when(file: StatusFile, tmp_path: Path) -> None:
    """And what was written is what is read."""
    waiting = listed([WaitingFile(path="a.txt", state="new", reason="just arrived")])
    assert file.write(a_snapshot(waiting=waiting, trouble=("The disk is full.",), jobs={"queued": 2}))
    status = read_status(tmp_path / "status.json")
    assert status is not None
    assert (status["schema"], status["updated_at"]) == (SCHEMA, "2027-01-15T08:00:00+00:00")
    assert status["waiting"] == [{"path": "a.txt", "state": "new", "reason": "just arrived"}]
    assert status["trouble"] == ["The disk is full."] and status["jobs"] == {"queued": 2}


def test_it_is_written_only_when_something_changed(file: StatusFile, tmp_path: Path) -> None:
    """Each write is synced to somebody."""
    assert file.write(a_snapshot())
    before = (tmp_path / "status.json").stat()
    assert not file.write(a_snapshot())
    after = (tmp_path / "status.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert file.write(a_snapshot(state="paused"))


def test_it_is_looked_at_no_more_often_than_it_may_be_written(file: StatusFile, clock: Clock) -> None:
    """Five seconds after the last write; at once before the first."""
    assert file.due()
    file.write(a_snapshot())
    clock.now += WRITE_SECONDS - 0.1
    assert not file.due()
    clock.now += 0.2
    assert file.due()


def test_it_is_replaced_whole(file: StatusFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses the new one leaves the old one."""
    file.write(a_snapshot())
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
    with pytest.raises(OSError, match="Read-only"):
        file.write(a_snapshot(state="paused"))
    status = read_status(tmp_path / "status.json")
    assert status is not None and status["state"] == "running"
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_full_disk_holds_the_new_one_in_the_place_of_the_old(
    file: StatusFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one would deceive; while it stands there is no room."""
    path, real = tmp_path / "status.json", os.replace
    file.write(a_snapshot())

    def full(source: str, target: str) -> None:
        if path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    file.write(a_snapshot(state="paused"))
    status = read_status(path)
    assert status is not None and status["state"] == "paused"
    assert os.listdir(tmp_path) == ["status.json"]


def test_any_name_can_stand_in_it(file: StatusFile, tmp_path: Path) -> None:
    """As it can be shown."""
    name = os.fsdecode(b"caf\xe9\n.txt")
    file.write(a_snapshot(waiting=listed([WaitingFile(path=name, state="held", reason=f"{name} is odd")])))
    status = read_status(tmp_path / "status.json")
    assert status is not None and status["waiting"][0]["path"] == "caf\\xe9\\n.txt" == display(name)


def test_long_lists_are_cut_and_sorted() -> None:
    """The rest is counted by the daemon."""
    many = [WaitingFile(path=f"{number:05}.txt", state="new", reason="r") for number in range(MAX_LISTED + 5)]
    shown = listed(many[::-1])
    assert len(shown) == MAX_LISTED and shown[0]["path"] == "00000.txt"


def test_jobs_are_told_as_the_ledger_has_them(ledger: Ledger, layout: Layout) -> None:
    """The running with their progress, the queued in the order in which they will be done."""
    for drop_id, priority in (("d1", "normal"), ("d2", "high"), ("d3", "low")):
        submit(ledger, a_job(f"{drop_id}-1", drop_id=drop_id, priority=priority))
    ledger.claim("w")
    ledger.heartbeat("d2-1", "speaking", 3, 10)
    told = snapshot_jobs(ledger, layout)
    assert told["jobs"] == {"queued": 2, "running": 1, "done": 0, "failed": 0, "cancelled": 0}
    assert told["running"] == [
        {
            "job": "d2-1",
            "source": "story.txt",
            "stage": "speaking",
            "chunks_done": 3,
            "chunks": 10,
            "started_at": moment(1_790_000_000.0),
            "attempt": 1,
        }
    ]
    assert [entry["job"] for entry in told["queued"]] == ["d1-1", "d3-1"]
    assert told["not_listed"] == {"queued": 0}
    assert set(told["jobs"]) == {state.value for state in JobState}


def test_what_lies_in_failed_is_told_with_its_reason(ledger: Ledger, layout: Layout) -> None:
    """Until somebody takes it away, which is the retry."""
    submit(ledger, a_job())
    ledger.claim("w")
    ledger.finish("d1-0", JobState.FAILED, code="c", message="It will not do.")
    ledger.end_drop("d1", DropState.FAILED, "failed/story.txt")
    assert snapshot_jobs(ledger, layout)["failed"] == []
    layout.failed.mkdir(parents=True)
    (layout.failed / "story.txt").touch()
    assert snapshot_jobs(ledger, layout)["failed"] == [
        {"path": "failed/story.txt", "job": "d1-0", "reason": "It will not do."}
    ]


def test_what_went_wrong_is_told_by_code(ledger: Ledger, layout: Layout) -> None:
    """Short enough for a file that is synced: one line of each, cut, of the latest codes."""
    for number in range(30):
        ledger.faults.add(code=f"code_{number:02}", file="a.txt", message="first line\nsecond " + "x" * 300)
    told = snapshot_jobs(ledger, layout)["errors"]
    assert len(told) == MAX_CODES_LISTED
    assert told[0] == {
        "code": "code_00",
        "count": 1,
        "last": [
            {
                "at": moment(1_790_000_000.0),
                "file": "a.txt",
                "message": ("first line second " + "x" * 300)[:MAX_MESSAGE_CHARS],
                "times": 1,
            }
        ],
    }


def test_sums_are_told_in_whole_numbers(ledger: Ledger, layout: Layout) -> None:
    """So that the file does not change for a fraction."""
    ledger.tallies.add(Tally.AUDIO_SECONDS, 12.4)
    assert snapshot_jobs(ledger, layout)["totals"] == {
        "audio_seconds": 12,
        "work_seconds": 0,
        "pruned_bytes": 0,
    }


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"null", b'{"schema": "voxspool/status/99"}', b"\xff"]
)
def test_what_is_no_status_is_none(tmp_path: Path, content: bytes | None) -> None:
    """Not there, half written by somebody else, or of another version."""
    path = tmp_path / "status.json"
    if content is not None:
        path.write_bytes(content)
    assert read_status(path) is None


def test_the_file_is_json_for_scripts(file: StatusFile, tmp_path: Path) -> None:
    """UTF-8, readable by people, and ending in a line end."""
    file.write(a_snapshot(notes=("Grüße",)))
    data = (tmp_path / "status.json").read_bytes()
    assert "Grüße".encode() in data and data.endswith(b"}\n") and json.loads(data)["pid"] == 1
