"""Why is nothing happening to this file? There is always an answer."""

import os
from pathlib import Path
from typing import Any

import pytest
from intake_samples import put, settled, with_source
from ledger_samples import Clock, publish

from pipeline.config import Config
from pipeline.explain import explain
from pipeline.intake.intake import Intake
from pipeline.jobs.job import Job, JobState
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
    """Queued, running, done, cancelled."""
    (job,) = asker.take("sub/a.txt")
    asked = lambda: asker.ask(asker.layout.inbox / "sub/a.txt")  # noqa: E731
    assert asked().startswith("sub/a.txt was taken at 2027-01-15T08:00:00+00:00 (")
    assert asked().endswith(f"Its job {job.id} is queued with priority normal.")
    asker.ledger.claim("w")
    assert asked().endswith(f"Its job {job.id} is being worked on.")
    asker.ledger.finish(job.id, JobState.DONE)
    assert asked().endswith(f"Its job {job.id} is done: see sub/a.json in the outbox.")


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


# -- the daemon itself --------------------------------------------------------------------------------


def test_a_daemon_that_does_not_run_or_is_paused_is_the_reason(asker: Asker) -> None:
    """Whatever else is said."""
    put(asker.layout, "a.txt")
    assert asker.ask("a.txt", runs=False).endswith("Start it with `make run`.")
    asker.layout.pause_file.touch()
    assert asker.ask("a.txt").endswith(f"Voxspool is paused: delete {asker.layout.pause_file} to go on.")
    assert "paused" not in asker.ask("a.txt", runs=False)
