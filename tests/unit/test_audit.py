"""The audit: every drop in exactly one place, and everything that is not so named."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from ledger_samples import Clock, a_drop, a_job, publish, submit

from pipeline.audit import Audit, audit, describe
from pipeline.files import sha256_of
from pipeline.intake.roots import Role, RootProblem, memory_key
from pipeline.jobs.job import DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Four empty roots; nobody waits for a second look."""
    monkeypatch.setattr("pipeline.audit.SECOND_LOOK_SECONDS", 0.0)
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
    assert found.counts == {"waiting": 0, "held": 0, "claimed": 0, "done": 0, "failed": 0}


def test_everything_in_its_place_is_counted(ledger: Ledger, layout: Layout) -> None:
    """One of each kind, in each mode, and nothing to say."""
    put(layout.inbox / "waiting.txt")
    put(layout.inbox / "sub" / "deeper" / "waiting.wav")
    put(layout.inbox / "picture.png")
    put(layout.inbox / ".hidden.txt")
    put(layout.inbox / "sub" / "_defaults.yaml")
    put(layout.inbox / "taken.txt")
    stamp = ((layout.inbox / "taken.txt").stat().st_ino, 2, 3, 4)
    ledger.plan_claim(a_drop("claiming", relative="taken.txt", stamp=stamp))
    claimed(ledger, layout, "c1")
    claimed(ledger, layout, "c2", mode="leave")
    done(ledger, layout, "d1")
    for key, mode in (("gone", "delete"), ("left", "leave")):
        submit(ledger, a_job(f"{key}-0", drop_id=key), drop=a_drop(key, mode=mode))
        ledger.finish(f"{key}-0", JobState.DONE)
        ledger.end_drop(key, DropState.DONE, "")
    submit(ledger, a_job("f-0", drop_id="f"), drop=a_drop("f"))
    ledger.finish("f-0", JobState.FAILED)
    ledger.end_drop("f", DropState.FAILED, str(put(layout.failed / "f.txt")))
    found = audit(ledger, layout)
    assert (found.problems, found.notes) == ((), ())
    assert found.counts == {"waiting": 2, "held": 1, "claimed": 3, "done": 3, "failed": 1}


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
    """In the inbox or in the claimed folder; in neither, somebody took it away before the rename."""
    ledger.plan_claim(a_drop("d1"))
    found = audit(ledger, layout)
    assert (found.problems, found.notes) == ((), ("story.txt (d1) went away before it could be taken.",))
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
        counts={"waiting": 0, "held": 0, "claimed": 0, "done": 1, "failed": 0}
    )


def test_a_failed_file_taken_back_for_a_retry_is_a_note(ledger: Ledger, layout: Layout) -> None:
    """Moving it to the inbox is the retry, so anybody may do it."""
    submit(ledger, a_job("f-0", drop_id="f"), drop=a_drop("f"))
    ledger.finish("f-0", JobState.FAILED)
    ledger.end_drop("f", DropState.FAILED, str(layout.failed / "story.txt"))
    found = audit(ledger, layout)
    assert found.problems == ()
    assert found.notes == (f"story.txt (f) failed and was taken away from {layout.failed}/story.txt.",)


@pytest.mark.parametrize("room", ["claimed", "done"])
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
    assert problem.startswith(f"{left} is there, though its drop is done")


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


def test_a_part_that_vanished_is_a_problem(ledger: Ledger, layout: Layout) -> None:
    """What came along with a job file is as dear as the job file itself, claimed and done."""
    drop = a_drop("c1", relative="sub/c1.yaml", members=("sub/c1.yaml", "sub/part.txt"))
    submit(ledger, a_job("c1-0", drop_id="c1"), drop=drop)
    put(layout.claimed("c1") / "c1.yaml")
    wanted = "sub/c1.yaml (c1) is claimed, but sub/part.txt, which came with it, is not there."
    assert audit(ledger, layout).problems == (wanted,)
    put(layout.claimed("c1") / "part.txt")
    assert audit(ledger, layout).problems == ()
    ledger.finish("c1-0", JobState.DONE)
    layout.done_root.mkdir(parents=True)
    layout.claimed("c1").rename(layout.done("c1"))
    ledger.end_drop("c1", DropState.DONE, ".voxspool/done/c1")
    assert audit(ledger, layout).problems == ()
    (layout.done("c1") / "part.txt").unlink()
    assert audit(ledger, layout).problems == (wanted.replace("claimed", "done"),)


@pytest.mark.parametrize("mode", ["move", "delete", "leave"])
def test_a_last_move_that_was_made_but_not_noted_is_in_order(
    ledger: Ledger, layout: Layout, mode: str
) -> None:
    """A kill between the two leaves it so; while a job is open it would be a loss."""
    path = claimed(ledger, layout, "c1", mode)
    if mode == "move":
        layout.done_root.mkdir(parents=True, exist_ok=True)
        path.parent.rename(layout.done("c1"))
    else:
        path.unlink()
        path.parent.rmdir()
    assert len(audit(ledger, layout).problems) == (2 if mode == "move" else 1)
    ledger.finish("c1-0", JobState.DONE)
    assert audit(ledger, layout).problems == ()


def test_a_file_in_two_places_is_a_problem_unless_it_is_one(ledger: Ledger, layout: Layout) -> None:
    """A move is a second link or a copy first, so a kill may leave both; two contents are something else."""
    first = claimed(ledger, layout, "c1")
    ledger.finish("c1-0", JobState.DONE)
    second = layout.done("c1") / "c1.txt"
    second.parent.mkdir(parents=True)
    os.link(first, second)
    assert audit(ledger, layout).problems == ()
    second.unlink()
    put(second)
    assert audit(ledger, layout).problems == ()
    put(second, "Another.")
    assert audit(ledger, layout).problems == (f"sub/c1.txt (c1) is in two places: {first} and {second}.",)


def test_a_newer_version_may_be_dropped_while_the_older_is_claimed(ledger: Ledger, layout: Layout) -> None:
    """Two files of one name, as people do it: the newer waits."""
    ledger.plan_claim(a_drop("d1"))
    put(layout.claimed("d1") / "story.txt")
    put(layout.inbox / "story.txt", "Another.")
    found = audit(ledger, layout)
    assert (found.problems, found.counts["waiting"], found.counts["claimed"]) == ((), 1, 1)


def test_a_source_with_other_bytes_is_a_problem(ledger: Ledger, layout: Layout) -> None:
    """Its time may change, its content may not; bytes that rot under the same time show when asked for."""
    path = put(layout.claimed("d1") / "story.txt")
    status = path.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    submit(ledger, a_job(), drop=a_drop(stamp=stamp, sha256=sha256_of(path)))
    os.utime(path)
    assert audit(ledger, layout).problems == ()
    os.utime(path, ns=(stamp[2], stamp[2]))
    put(path, "Hallo.")
    [problem] = audit(ledger, layout).problems
    assert problem.startswith("story.txt (d1) is not what was dropped any more")
    os.utime(path, ns=(stamp[2], stamp[2]))
    assert audit(ledger, layout).problems == ()
    assert audit(ledger, layout, deep=True).problems == (problem,)


def test_a_result_that_rots_on_the_disk_is_a_problem(ledger: Ledger, layout: Layout) -> None:
    """Nobody changes a file and keeps its time: only `--deep` reads what looks untouched."""
    [wav] = publish(ledger, layout.outbox, "a", {"a.wav": b"x" * 9})
    times = wav.stat().st_mtime_ns
    wav.write_bytes(b"x" * 8 + b"y")
    os.utime(wav, ns=(times, times))
    assert audit(ledger, layout) == Audit(counts=audit(ledger, layout).counts)
    assert audit(ledger, layout, deep=True).problems == (
        "a.wav is damaged: its bytes differ, its size and time do not.",
    )


def test_states_that_contradict_each_other_are_problems(ledger: Ledger, layout: Layout) -> None:
    """A drop that ended before its jobs, and a job that ended without its result."""
    done(ledger, layout, "d1")
    submit(ledger, a_job("f-0", drop_id="f"), drop=a_drop("f"))
    ledger.end_drop("f", DropState.FAILED, "failed/story.txt")
    ledger.results.reserve(
        PurePosixPath("."), "d1", source="d1.txt", index=0, job_id="d1-0", may_use=lambda *_: True
    )
    assert audit(ledger, layout).problems == (
        "story.txt (f) is failed, but 1 of its jobs are not.",
        "d1-0 is done, but its result never got its name.",
    )


def test_what_a_crash_left_is_a_note(ledger: Ledger, layout: Layout) -> None:
    """Nothing of anybody's: half-made results, copies of what lies in the inbox, names of a moment."""
    claimed(ledger, layout, "c1", mode="leave")
    put(layout.work("c1-0") / "audio.wav")
    put(layout.publishing("c1-0") / "audio.wav")
    assert audit(ledger, layout).notes == ()
    lost = [put(root / "gone" / "x") for root in (layout.spool("x").parent, layout.work_root)]
    lost += [put(layout.publishing("gone") / "x"), put(layout.failed / "sub" / ".0123abcd.voxspool-tmp")]
    found = audit(ledger, layout)
    assert found.problems == ()
    assert [
        str(path.parent) in note or str(path) in note for path, note in zip(lost, found.notes, strict=True)
    ]


def test_an_absent_folder_is_no_loss(ledger: Ledger, layout: Layout) -> None:
    """An empty mount point looks like an inbox that lost everything: said instead, in one sentence."""
    ledger.set_meta(memory_key(Role.INBOX, layout.inbox), "1234")
    claimed(ledger, layout, "c1")
    with pytest.raises(RootProblem, match="may not be mounted"):
        audit(ledger, layout)


def test_what_a_daemon_does_meanwhile_is_no_problem(ledger: Ledger, layout: Layout) -> None:
    """What is wrong for a moment only is not: a last move between the look at the ledger and the disk's."""
    path = claimed(ledger, layout, "d1")
    path.unlink()
    looked = []

    def meanwhile(seconds: float) -> None:
        looked.append(seconds)
        ledger.finish("d1-0", JobState.DONE)
        ledger.end_drop("d1", DropState.DONE, "")
        path.parent.rmdir()

    assert audit(ledger, layout, sleep=meanwhile).problems == ()
    assert len(looked) == 1


def test_a_part_that_is_left_with_its_job_file_does_not_wait(ledger: Ledger, layout: Layout) -> None:
    """`source: leave`: both lie there as before, and neither is to be done again."""
    path, part = put(layout.inbox / "job.yaml"), put(layout.inbox / "part.txt")
    status = path.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    drop = a_drop(relative="job.yaml", mode="leave", stamp=stamp, members=("job.yaml", "part.txt"))
    submit(ledger, a_job(), drop=drop)
    ledger.finish("d1-0", JobState.DONE)
    ledger.end_drop("d1", DropState.DONE, "")
    assert audit(ledger, layout).counts["waiting"] == 0
    path.unlink()
    assert part.exists() and audit(ledger, layout).counts["waiting"] == 1


def test_a_damaged_ledger_is_a_problem(
    ledger: Ledger, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SQLite finds is told."""
    monkeypatch.setattr(Ledger, "damage", lambda self: ["row 3 missing from index"])
    assert audit(ledger, layout, deep=True).problems == ("the ledger is damaged: row 3 missing from index",)


def test_an_audit_reads_well(ledger: Ledger, layout: Layout) -> None:
    """The verdict first, then numbers, problems and notes."""
    assert describe(audit(ledger, layout)) == [
        "Every file is in its place.",
        "0 waiting, 0 held, 0 claimed, 0 done, 0 failed.",
    ]
    told = describe(Audit(problems=("a is lost.", "b is lost."), notes=("c.",), counts={"waiting": 1}))
    assert told == ["2 problems.", "1 waiting.", "problem: a is lost.", "problem: b is lost.", "note: c."]
    many = describe(Audit(notes=tuple(str(number) for number in range(25)), counts={"waiting": 1}))
    assert many[-2:] == ["note: 19", "5 more notes."]
