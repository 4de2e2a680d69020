"""The audit: every drop in exactly one place, and everything that is not so named."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_samples import Clock, a_drop, a_job, publish, submit

from pipeline.audit import Audit, audit, describe
from pipeline.jobs.job import DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Four empty roots."""
    places = [tmp_path / name for name in ("inbox", "outbox", "voices", "state")]
    for place in places:
        place.mkdir()
    return Layout(*places)


@pytest.fixture
def ledger(layout: Layout) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = Ledger(layout.ledger_file, clock=Clock())
    yield opened
    opened.close()


def put(path: Path, text: str = "Hello.") -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def claimed(ledger: Ledger, layout: Layout, key: str, mode: str = "move") -> Path:
    """A drop that is being worked on."""
    submit(ledger, a_job(f"{key}-0", drop_id=key), drop=a_drop(key, relative=f"sub/{key}.txt", mode=mode))
    return put(layout.source_folder(key, mode) / f"{key}.txt")


def done(ledger: Ledger, layout: Layout, key: str) -> Path:
    """A drop that came out well and lies in the done folder."""
    path = claimed(ledger, layout, key)
    ledger.finish(f"{key}-0", JobState.DONE)
    layout.done_root.mkdir(parents=True, exist_ok=True)
    path.parent.rename(layout.done(key))
    ledger.end_drop(key, DropState.DONE, str(layout.done(key)))
    return layout.done(key) / path.name


def test_an_empty_house_is_in_order(ledger: Ledger, layout: Layout) -> None:
    """Nothing dropped, nothing missing."""
    found = audit(ledger, layout)
    assert (found.problems, found.notes) == ((), ())
    assert found.counts == {"waiting": 0, "claiming": 0, "claimed": 0, "done": 0, "failed": 0}


def test_everything_in_its_place_is_counted(ledger: Ledger, layout: Layout) -> None:
    """One of each kind, in each mode, and nothing to say."""
    put(layout.inbox / "waiting.txt")
    put(layout.inbox / "sub" / "deeper" / "waiting.wav")
    put(layout.inbox / "picture.png")
    put(layout.inbox / ".hidden.txt")
    put(layout.inbox / "sub" / "_defaults.yaml")
    put(layout.inbox / "taken.txt")
    ledger.plan_claim(a_drop("claiming", relative="taken.txt"))
    claimed(ledger, layout, "c1")
    claimed(ledger, layout, "c2", mode="leave")
    done(ledger, layout, "d1")
    for key, mode in (("gone", "delete"), ("left", "leave")):
        submit(ledger, a_job(f"{key}-0", drop_id=key), drop=a_drop(key, mode=mode))
        ledger.end_drop(key, DropState.DONE, "")
    submit(ledger, a_job("f-0", drop_id="f"), drop=a_drop("f"))
    ledger.end_drop("f", DropState.FAILED, str(put(layout.failed / "f.txt")))
    found = audit(ledger, layout)
    assert (found.problems, found.notes) == ((), ())
    assert found.counts == {"waiting": 2, "claiming": 1, "claimed": 2, "done": 3, "failed": 1}


def test_a_file_left_in_the_inbox_does_not_wait_any_more(ledger: Ledger, layout: Layout) -> None:
    """It was taken as it is; changed, it waits again."""
    path = put(layout.inbox / "story.txt")
    status = path.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    submit(ledger, a_job(), drop=a_drop(mode="leave", stamp=stamp))
    ledger.end_drop("d1", DropState.DONE, "")
    assert audit(ledger, layout).counts["waiting"] == 0
    put(path, "Something else.")
    assert audit(ledger, layout).counts["waiting"] == 1


def test_a_claimed_file_that_vanished_is_a_problem(ledger: Ledger, layout: Layout) -> None:
    """This is how a lost file shows."""
    path = claimed(ledger, layout, "c1")
    path.unlink()
    assert audit(ledger, layout).problems == (f"sub/c1.txt (c1) is claimed, but not at {path}.",)


def test_a_file_on_its_way_must_be_at_either_end(ledger: Ledger, layout: Layout) -> None:
    """In the inbox or in the claimed folder; in neither it is lost."""
    ledger.plan_claim(a_drop("d1"))
    assert len(audit(ledger, layout).problems) == 1
    path = put(layout.claimed("d1") / "story.txt")
    assert audit(ledger, layout).problems == ()
    path.rename(layout.inbox / "story.txt")
    path.parent.rmdir()
    assert audit(ledger, layout).problems == ()


def test_a_done_source_that_vanished_is_a_problem(ledger: Ledger, layout: Layout) -> None:
    """The hidden folder is ours alone."""
    path = done(ledger, layout, "d1")
    path.unlink()
    assert audit(ledger, layout).problems == (f"sub/d1.txt (d1) is done, but not at {path}.",)


def test_a_pruned_source_is_no_problem(ledger: Ledger, layout: Layout) -> None:
    """Pruning empties its location."""
    path = done(ledger, layout, "d1")
    path.unlink()
    path.parent.rmdir()
    ledger.end_drop("d1", DropState.DONE, "")
    assert audit(ledger, layout) == Audit(
        counts={"waiting": 0, "claiming": 0, "claimed": 0, "done": 1, "failed": 0}
    )


def test_a_failed_file_taken_back_for_a_retry_is_a_note(ledger: Ledger, layout: Layout) -> None:
    """Moving it to the inbox is the retry, so anybody may do it."""
    submit(ledger, a_job("f-0", drop_id="f"), drop=a_drop("f"))
    ledger.end_drop("f", DropState.FAILED, str(layout.failed / "story.txt"))
    found = audit(ledger, layout)
    assert found.problems == ()
    assert found.notes == (f"story.txt (f) failed and was taken away from {layout.failed}/story.txt.",)


@pytest.mark.parametrize("room", ["claimed", "done", "spool"])
def test_a_folder_that_the_ledger_does_not_know_is_named(ledger: Ledger, layout: Layout, room: str) -> None:
    """After a lost ledger the files are still found."""
    path = put(getattr(layout, room)("20260101-000000-ab") / "story.txt").parent
    [problem] = audit(ledger, layout).problems
    assert problem.startswith(f"{path} is not in the ledger: ")
    assert "back into the inbox" in problem


def test_a_drop_in_two_places_is_named(ledger: Ledger, layout: Layout) -> None:
    """Done, but its claimed folder is still there."""
    done(ledger, layout, "d1")
    left = put(layout.claimed("d1") / "d1.txt").parent
    [problem] = audit(ledger, layout).problems
    assert problem.startswith(f"{left} is still there, though its drop is done")


def test_a_claimed_drop_without_a_job_is_a_problem(ledger: Ledger, layout: Layout) -> None:
    """Nobody would ever finish it."""
    drop = a_drop("d1")
    ledger.plan_claim(drop)
    ledger.submit(drop, [])
    put(layout.claimed("d1") / "story.txt")
    assert audit(ledger, layout).problems == ("story.txt (d1) is claimed, but has no job.",)


def test_results_taken_away_or_changed_are_notes(ledger: Ledger, layout: Layout) -> None:
    """They belong to the people; touching alone is not changing."""
    wav, log, manifest = publish(
        ledger, layout.outbox, "a", {"a.wav": b"x" * 9, "a.log": b"y", "a.json": b"{}"}, folder="sub"
    )
    wav.write_bytes(b"z" * 9)
    os.utime(wav, (5, 5))
    os.utime(log, (5, 5))
    manifest.unlink()
    found = audit(ledger, layout)
    assert found.problems == ()
    assert found.notes == (
        "sub/a.wav was changed since it was published.",
        "sub/a.json is no longer in the outbox.",
    )


def test_running_jobs_need_no_daemon(ledger: Ledger, layout: Layout) -> None:
    """An audit while the daemon is down finds the drop in its place."""
    claimed(ledger, layout, "c1")
    ledger.claim("w")
    assert audit(ledger, layout).problems == ()


def test_names_that_are_no_text_can_be_audited(ledger: Ledger, layout: Layout) -> None:
    """Undecodable bytes in a name are found on the disk and shown escaped."""
    name = os.fsdecode(b"caf\xe9.txt")
    submit(ledger, a_job("f-0", drop_id="f"), drop=a_drop("f", relative=name))
    put(layout.claimed("f") / name)
    assert audit(ledger, layout).problems == ()
    (layout.claimed("f") / name).unlink()
    assert audit(ledger, layout).problems[0].startswith("caf\\xe9.txt (f) is claimed")


def test_an_audit_reads_well(ledger: Ledger, layout: Layout) -> None:
    """The verdict first, then numbers, problems and notes."""
    assert describe(audit(ledger, layout)) == [
        "Every file is in its place.",
        "0 waiting, 0 claiming, 0 claimed, 0 done, 0 failed.",
    ]
    told = describe(Audit(problems=("a is lost.", "b is lost."), notes=("c.",), counts={"waiting": 1}))
    assert told == ["2 problems.", "1 waiting.", "problem: a is lost.", "problem: b is lost.", "note: c."]
