"""Why is nothing happening to this file? There is always an answer."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from intake_samples import put, settled, with_source
from ledger_samples import Clock, a_drop, publish

from pipeline.config import Config
from pipeline.explain import explain
from pipeline.intake.aside import answers
from pipeline.intake.claim import end_if_complete
from pipeline.intake.intake import Intake
from pipeline.jobs.job import DropState, Job, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger


class Asker:
    """Somebody with a file and a question."""

    def __init__(self, config: Config, layout: Layout, ledger: Ledger) -> None:
        self.config, self.layout, self.ledger, self.clock = config, layout, ledger, Clock()

    def ask(self, path: Path | str, *, status: dict[str, Any] | None = None, runs: bool = True) -> str:
        """The whole answer."""
        return " ".join(explain(Path(path), self.config, self.ledger, status, runs))

    def take(self, name: str, text: str = "Hello.", source: str = "move") -> list[Job]:
        """A file goes in; returns its jobs."""
        put(self.layout, name, text)
        intake = Intake(self.layout, self.ledger, with_source(self.config, source), clock=self.clock)
        (drop,) = intake.accept(settled(self.layout, name)).drops
        return self.ledger.jobs_of(drop.id)


@pytest.fixture
def asker(config: Config, layout: Layout, ledger: Ledger) -> Asker:
    """With empty folders."""
    return Asker(config, layout, ledger)


# -- in the inbox -------------------------------------------------------------------------------------


def test_a_file_that_waits_says_what_the_daemon_says(asker: Asker) -> None:
    """By its path, or by its name in the inbox."""
    put(asker.layout, "sub/a.txt")
    status = {"waiting": [{"path": "sub/a.txt", "state": "settling", "reason": "still growing, 3 MB"}]}
    for path in (asker.layout.inbox / "sub/a.txt", "sub/a.txt"):
        assert asker.ask(path, status=status) == "sub/a.txt is settling: still growing, 3 MB."


UPDATED = "2026-10-01T10:00:00+00:00"


def test_a_file_that_the_status_does_not_list_is_promised_nothing(asker: Asker) -> None:
    """The status names the first 500 and counts the rest: what keeps the others is not known here."""
    put(asker.layout, "z.txt"), put(asker.layout, "z.epub")
    named = [{"path": f"a{n:03}.txt", "state": "settling", "reason": "growing"} for n in range(500)]
    status: dict[str, Any] = {"updated_at": UPDATED, "waiting": named, "not_listed": {"waiting": 71}}
    assert asker.ask("z.txt", status=status) == (
        f"z.txt is a drop (text). The daemon's status of {UPDATED} does not name it: it may be one of the 71"
        " waiting files that are only counted there."
    )
    assert "is not taken: not supported yet" in asker.ask("z.epub", status=status)


def test_a_file_that_came_after_the_last_status_is_new(asker: Asker) -> None:
    """The status tells of all that wait, and of this one not yet."""
    put(asker.layout, "a.txt")
    status = {"updated_at": UPDATED, "waiting": [], "not_listed": {"queued": 3, "waiting": 0}}
    assert asker.ask("a.txt", status=status) == (
        f"a.txt is a drop (text). The daemon's status of {UPDATED} does not name it: it has come or changed"
        " since then."
    )


def test_what_keeps_the_daemon_from_looking_is_told(asker: Asker) -> None:
    """A folder that has lost its mark keeps every file waiting, named or not."""
    put(asker.layout, "a.txt")
    status = {"updated_at": UPDATED, "waiting": [], "trouble": ["The inbox is not mounted."]}
    assert asker.ask("a.txt", status=status).endswith("Voxspool cannot go on: The inbox is not mounted.")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.txt", "a.txt is a drop (text) and is taken once it has settled."),
        ("_defaults.yaml", "holds settings for what is dropped at or below its folder."),
        ("a.epub", "is not taken: not supported yet: .epub."),
        (".hidden.txt", "is not taken: hidden"),
        ("a.txt.part", "is not taken: a temporary or system name, left alone ('*.part')."),
        ("a.sync-conflict-20260101-101010-ABC.txt", "is not taken: a sync conflict copy"),
        (".voxspool/claimed/x/a.txt", "lies in Voxspool's own folder: it was taken already."),
        ("PAUSE", "is not taken: the pause file"),
        (os.fsdecode(b"caf\xe9\n.txt"), "caf\\xe9\\n.txt is a drop (text)"),
    ],
)
def test_a_name_says_much_by_itself(asker: Asker, name: str, said: str) -> None:
    """Also when no daemon has looked yet."""
    put(asker.layout, name)
    assert said in asker.ask(asker.layout.inbox / name)


def test_other_kinds_of_entries(asker: Asker) -> None:
    """A folder, a link to nowhere, a pipe: none is opened."""
    (asker.layout.inbox / "x.txt").mkdir()
    (asker.layout.inbox / "link.txt").symlink_to("/nowhere")
    os.mkfifo(asker.layout.inbox / "pipe.txt")
    assert "is a folder, not a file; its contents are looked at" in asker.ask("x.txt")
    assert "is not taken: a link, not a file" in asker.ask("link.txt")
    assert "is not taken: a named pipe (FIFO)" in asker.ask("pipe.txt")


def test_the_inbox_may_be_reached_by_another_name(asker: Asker, tmp_path: Path) -> None:
    """A link to it."""
    put(asker.layout, "a.txt")
    (tmp_path / "alias").symlink_to(asker.layout.inbox)
    assert asker.ask(tmp_path / "alias" / "a.txt").startswith("a.txt is a drop")


def test_a_path_from_here_goes_before_a_name_in_the_inbox(
    asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is neither here nor there was never seen."""
    put(asker.layout, "a.txt")
    monkeypatch.chdir(asker.layout.inbox)
    assert asker.ask("a.txt").startswith("a.txt is a drop")
    monkeypatch.chdir(tmp_path)
    assert asker.ask("inbox/a.txt").startswith("a.txt is a drop")
    assert asker.ask("a.txt").startswith("a.txt is a drop")
    nowhere = "is neither in the inbox nor in the outbox, and was never seen there."
    assert asker.ask("b.txt").endswith(nowhere) and asker.ask("/etc/hostname").endswith(nowhere)


# -- taken --------------------------------------------------------------------------------------------


def test_a_file_that_was_taken_tells_of_its_jobs(asker: Asker) -> None:
    """Queued, running with how far, done."""
    (job,) = asker.take("sub/a.txt")
    asked = lambda: asker.ask(asker.layout.inbox / "sub/a.txt")  # noqa: E731
    assert asked().startswith("sub/a.txt was taken at 2027-01-15T08:00:00+00:00 (")
    assert asked().endswith(f"Its job {job.id} is queued with priority normal; it is the next.")
    asker.ledger.claim("w")
    since = "since 2026-09-21T14:13:20+00:00"
    assert asked().endswith(f"Its job {job.id} is being worked on {since} (starting).")
    asker.ledger.heartbeat(job.id, "speaking", 3, 10)
    assert asked().endswith(f"is being worked on {since} (speaking, 3 of 10 chunks done).")
    asker.ledger.release(job.id, "interrupted")
    asker.ledger.claim("w")
    assert asked().endswith("(starting, attempt 2).")
    asker.ledger.finish(job.id, JobState.DONE)
    asker.ledger.results.publish(job.folder, job.stem, [])
    (asker.layout.outbox / "sub").mkdir(exist_ok=True)
    (asker.layout.outbox / "sub" / "a.json").touch()
    assert "is done: see sub/a.json in the outbox. Its own last move is still to come." in asked()


def test_a_queued_job_says_what_it_waits_for(asker: Asker) -> None:
    """Others before it, one of the same name, the machine, its own end."""
    (first,) = asker.take("a.txt")
    asker.clock.now += 1
    (second,) = asker.take("b.txt")
    assert "; 1 job comes before it." in asker.ask("b.txt")
    asker.clock.now += 1
    (again,) = asker.take("a.txt", "More.")
    assert f"; it waits for job {first.id}, whose result has the same name." in asker.ask("a.txt")
    asker.clock.now += 1
    asker.take("c.txt")
    assert "; 3 jobs come before it." in asker.ask("c.txt")
    asker.ledger.claim("w")
    assert f"; it waits for job {first.id}, whose result has the same name." in asker.ask("a.txt")
    asker.ledger.release(first.id, "environment", delay_seconds=60.0)
    asker.ledger.set_meta("trouble", "The disk of the outbox is full.")
    asker.ledger.finish(again.id, JobState.CANCELLED, message="x")
    answer = asker.ask(asker.layout.claimed(first.drop_id) / "a.txt")
    assert (
        "; it is tried again at 2026-09-21T14:14:20+00:00, since the machine was at fault: The disk of the"
        " outbox is full." in answer
    )
    asker.ledger.request_cancel(second.id)
    assert " and is about to be cancelled." in asker.ask("b.txt")


def test_a_job_that_waits_for_room_says_how_much(asker: Asker) -> None:
    """By the daemon's word, which knows the disks; one that only waits for its turn says that."""
    (job,) = asker.take("a.txt")
    queued = [
        {"job": job.id, "reason": "it needs about 2.0 GB on the disk of the state, where 1.0 GB may be used"}
    ]
    answer = asker.ask("a.txt", status={"queued": queued})
    assert "; it waits for room: it needs about 2.0 GB on the disk of the state, where 1.0 GB" in answer
    assert "; it is the next." in asker.ask("a.txt", status={"queued": [{"job": job.id, "reason": ""}]})


def test_a_file_that_is_being_read_says_so(asker: Asker) -> None:
    """Between the rename and its jobs; a crash there is mended at the next start."""
    asker.ledger.plan_claim(a_drop("d1", "a.txt"))
    assert asker.ask("a.txt") == "a.txt was taken at 2027-01-15T08:00:00+00:00 (d1). It is being read."


def test_a_file_that_was_taken_along_names_the_job_file(asker: Asker) -> None:
    """It has no job of its own; a later drop of that name has."""
    put(asker.layout, "sub/part.txt")
    (job,) = asker.take("sub/job.yaml", "text_file: part.txt")
    answer = asker.ask("sub/part.txt")
    assert answer.startswith(
        "sub/part.txt was taken along with sub/job.yaml, which names it. sub/job.yaml was"
    )
    assert f"Its job {job.id} is queued" in answer
    asker.clock.now += 1
    (own,) = asker.take("sub/part.txt", "By itself.")
    assert "taken along" not in asker.ask("sub/part.txt") and own.id in asker.ask("sub/part.txt")


def end(asker: Asker, job: Job, state: JobState = JobState.DONE) -> None:
    """A job ends, and its source makes its last move."""
    asker.ledger.claim("w")
    asker.ledger.finish(job.id, state, code="c", message="It will not do.", hint="Mend it.")
    end_if_complete(asker.layout, asker.ledger, job.drop_id)


def test_a_done_file_says_where_it_and_its_result_are(asker: Asker) -> None:
    """There, taken away by somebody, pruned, or in the place of a later one."""
    (job,) = asker.take("a.txt")
    (made,) = publish(asker.ledger, asker.layout.outbox, "a", {"a.json": b"{}"}, job_id=job.id)
    end(asker, job)
    source = asker.layout.done(job.drop_id) / "a.txt"
    assert asker.ask("a.txt").endswith(f"done: see a.json in the outbox. The file lies at {source}.")
    made.unlink(), source.unlink()
    answer = asker.ask("a.txt")
    assert "is done; somebody took a.json out of the outbox since." in answer
    assert answer.endswith(f"The file was taken away from {source}.")
    asker.ledger.results.forget(job.folder, job.stem)
    asker.ledger.end_drop(job.drop_id, DropState.DONE, "")
    assert asker.ask("a.txt").endswith(
        "is done; its result was pruned since, as `retention` in config.yaml says. The file was pruned since."
    )
    publish(asker.ledger, asker.layout.outbox, "a", {"a.json": b"{}"}, job_id="later")
    assert "is done; job later, of a later drop, took its result's place." in asker.ask("a.txt")


@pytest.mark.parametrize(
    ("source", "told"),
    [("leave", "The file stays in the inbox."), ("delete", "The file was deleted after that.")],
)
def test_what_became_of_a_done_file_depends_on_the_configuration(
    asker: Asker, source: str, told: str
) -> None:
    """`intake.source`."""
    (job,) = asker.take("a.txt", source=source)
    publish(asker.ledger, asker.layout.outbox, "a", {"a.json": b"{}"}, job_id=job.id)
    end(asker, job)
    assert asker.ask("a.txt").endswith(told)


def test_a_cancelled_file_is_not_called_failed(asker: Asker) -> None:
    """Though it lies there too."""
    (job,) = asker.take("a.txt")
    end(asker, job, JobState.CANCELLED)
    answer = asker.ask("a.txt")
    assert f"It was cancelled and lies at {asker.layout.failed / 'a.txt'}. It will not do. Mend it." in answer


def test_a_failed_file_that_somebody_took_away_says_so(asker: Asker) -> None:
    """It may have been the retry."""
    asker.take("bad.yaml", "txt: hi")
    place = asker.layout.failed / "bad.yaml"
    place.unlink()
    answer = asker.ask("bad.yaml")
    assert f"It failed; {place} was taken away since. bad.yaml" in answer and "did you mean text?" in answer


def test_our_own_folders_tell_whose_file_it_is(asker: Asker) -> None:
    """Claimed and done; what the ledger does not know is to be left alone."""
    (job,) = asker.take("sub/a.txt")
    claimed = asker.layout.claimed(job.drop_id) / "a.txt"
    answer = asker.ask(claimed)
    assert answer.startswith(
        f".voxspool/claimed/{job.drop_id}/a.txt lies in Voxspool's own folder. sub/a.txt"
    )
    assert "is queued" in answer
    unknown = asker.layout.claimed("nobody") / "a.txt"
    assert asker.ask(unknown).endswith("it was taken already. Leave it alone.")


def test_every_job_of_a_file_is_told(asker: Asker) -> None:
    """Also one that has ended while another has not."""
    first, second = asker.take("two.yaml", "text: one\n---\ntext: two")
    asker.ledger.finish(first.id, JobState.CANCELLED, message="two.yaml was cancelled.")
    answer = asker.ask("two.yaml")
    assert f"Its job {first.id} cancelled: two.yaml was cancelled." in answer
    assert f"Its job {second.id} is queued" in answer


def test_a_file_that_failed_says_why_and_where_it_lies(asker: Asker) -> None:
    """And what to do."""
    asker.take("sub/bad.yaml", "txt: hi")
    answer = asker.ask("sub/bad.yaml")
    assert f"It failed and lies at {asker.layout.failed / 'sub/bad.yaml'}." in answer
    assert "did you mean text?" in answer and "docs/job-file.md" in answer


def test_a_file_that_was_left_in_the_inbox_was_taken(asker: Asker) -> None:
    """Until it changes: then it waits again."""
    asker.take("a.txt", source="leave")
    assert asker.ask("a.txt").startswith("a.txt was taken at")
    put(asker.layout, "a.txt", "changed")
    assert asker.ask("a.txt").startswith(
        "a.txt is a drop (text) and is taken once it has settled. a.txt was taken"
    )


def test_the_latest_drop_of_a_name_is_told(asker: Asker) -> None:
    """Not all of its history."""
    asker.take("a.txt", "one")
    asker.clock.now += 1
    (job,) = asker.take("a.txt", "two")
    answer = asker.ask("a.txt")
    assert answer.count("was taken") == 1 and job.drop_id in answer


# -- in the outbox ------------------------------------------------------------------------------------


def test_a_result_says_whose_it_is(asker: Asker) -> None:
    """Unless it is none of ours, or was changed."""
    path, _ = publish(
        asker.ledger, asker.layout.outbox, "a", {"a.mp3": b"1", "a.json": b"2"}, folder="sub", job_id="j"
    )
    assert asker.ask(path) == "sub/a.mp3 was made by job j from sub/a.txt."
    path.write_bytes(b"other")
    assert "was not made by Voxspool, or was changed since: it is left alone." in asker.ask(path)
    foreign = asker.layout.outbox / "mine.mp3"
    foreign.write_bytes(b"x")
    assert "was not made by Voxspool" in asker.ask(foreign)
    status = asker.layout.outbox / "status.json"
    status.touch()
    assert "status.json is the daemon's own" in asker.ask(status)
    half = asker.layout.publishing("j") / "a.mp3"
    half.parent.mkdir(parents=True)
    half.touch()
    assert "is being made, or left over from that" in asker.ask(half)
    assert "was never seen there" in asker.ask(asker.layout.outbox / "gone.mp3")


def test_a_failed_file_points_to_its_note(asker: Asker) -> None:
    """By the note's own name, which need not be the file's."""
    for name in ("bad.yaml", "odd?.yaml"):
        asker.take(name, "txt: hi")
    assert asker.ask(asker.layout.failed / "bad.yaml") == (
        "failed/bad.yaml failed; bad.yaml.error.txt beside it says why."
    )
    answer = asker.ask(asker.layout.failed / "odd?.yaml")
    note = answer.partition("failed; ")[2].partition(" beside")[0]
    assert (asker.layout.failed / note).exists()
    assert asker.ask(asker.layout.failed / "bad.yaml.error.txt").endswith("lies among what failed.")


def test_a_result_that_is_not_there_tells_what_became_of_it(asker: Asker) -> None:
    """Still to come, or pruned."""
    (job,) = asker.take("sub/a.txt")
    missing = asker.layout.outbox / "sub" / "a.mp3"
    assert asker.ask(missing).startswith(f"sub/a.mp3 is not there. Its job {job.id} is queued")
    asker.ledger.claim("w")
    asker.ledger.finish(job.id, JobState.DONE)
    asker.ledger.results.forget(job.folder, job.stem)
    assert "; its result was pruned since" in asker.ask(missing)


def test_files_of_the_other_folders_are_no_drops(asker: Asker) -> None:
    """A voice, and our own state."""
    clip = asker.layout.voices / "narrator.wav"
    clip.touch()
    assert asker.ask(clip).endswith("jobs may name it, nothing else is done with it.")
    assert asker.ask(asker.layout.ledger_file).endswith("which is Voxspool's own: leave it alone.")


def test_a_folder_that_does_not_answer_is_the_answer(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is looked at, or the question would hang as well."""
    for_ever = threading.Event()
    real = os.statvfs

    def statvfs(path: Path) -> object:
        return for_ever.wait() if path == asker.layout.outbox else real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr("pipeline.explain.PATIENCE_SECONDS", 0.2)
    answer = asker.ask("a.txt")
    for_ever.set()
    assert answer.startswith(f"{asker.layout.outbox} does not answer, so nothing can be said of a.txt.")
    assert answers(asker.layout.inbox, 5.0) and answers(asker.layout.inbox / "nowhere", 5.0)


# -- the daemon itself --------------------------------------------------------------------------------


def test_a_daemon_that_does_not_run_or_is_paused_is_the_reason(asker: Asker) -> None:
    """Whatever else is said."""
    put(asker.layout, "a.txt")
    assert asker.ask("a.txt", runs=False).endswith("Start it with `make run`.")
    asker.layout.pause_file.touch()
    assert asker.ask("a.txt").endswith(f"Voxspool is paused: delete {asker.layout.pause_file} to go on.")
    asker.layout.pause_file.rename(asker.layout.own_pause_file)
    assert asker.ask("a.txt").endswith(f"Voxspool is paused: delete {asker.layout.own_pause_file} to go on.")
    assert "paused" not in asker.ask("a.txt", runs=False)
