"""The outbox: whole results, nothing foreign touched, and failures that say what to do."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from ledger_samples import a_drop, a_job, submit

from pipeline.errors import InputError
from pipeline.jobs.job import Job, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.outbox import (
    ERROR_SCHEMA,
    Failure,
    Manifest,
    Rendered,
    failed_name,
    failure_of,
    may_use,
    note_paths,
    publish,
    remove_stale_notes,
    result_folder,
    write_failure_notes,
)
from pipeline.results import Results

HERE = PurePosixPath(".")


def a_manifest(job: Job) -> Manifest:
    """What `render` would hand over."""
    return Manifest(job_id=job.id, status="done", kind="tts", source=job.source, engine={}, settings={})


def rendered(layout: Layout, job: Job, formats: tuple[str, ...], words: str) -> list[Rendered]:
    """Finished files in the job's work folder."""
    work = layout.work(job.id)
    work.mkdir(parents=True, exist_ok=True)
    files = []
    for name in formats:
        path = work / f"audio.{name}"
        path.unlink(missing_ok=True)
        path.write_bytes(f"{name} {words}".encode())
        files.append(Rendered(format=name, path=path, duration_seconds=1.0, sample_rate_hz=22_050))
    return files


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    """Nobody cuts the power of a test, so nothing needs to reach the disk at once."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    ledger._db.rows("PRAGMA synchronous = OFF")


class Publisher:
    """Publishes jobs of one source, each a redrop of the one before."""

    def __init__(self, layout: Layout, ledger: Ledger) -> None:
        self.layout, self.ledger, self.count = layout, ledger, 0

    def job(
        self, *, stem: str = "story", source: str = "story.txt", folder: str = ".", index: int = 0
    ) -> Job:
        """A new job in the ledger."""
        self.count += 1
        drop_id = f"d{self.count}"
        job = a_job(f"{drop_id}-1", drop_id=drop_id, stem=stem, folder=PurePosixPath(folder), index=index)
        submit(self.ledger, job, drop=a_drop(drop_id, source))
        return job

    def publish(
        self, job: Job, words: str, formats: tuple[str, ...] = ("mp3",), source: str = "story.txt"
    ) -> Manifest:
        """Publish `words` as that job's result."""
        files = rendered(self.layout, job, formats, words)
        return publish(self.layout, self.ledger, job, source, files, f"log {words}", a_manifest(job))

    def names(self) -> list[str]:
        """What stands in the outbox, hidden things aside."""
        paths = (path for path in self.layout.outbox.rglob("*") if path.is_file())
        found = (str(path.relative_to(self.layout.outbox)) for path in paths)
        return sorted(name for name in found if not name.startswith("."))

    def text(self, name: str) -> str:
        """The contents of one of them."""
        return (self.layout.outbox / name).read_text()


@pytest.fixture
def publisher(layout: Layout, ledger: Ledger) -> Publisher:
    """Somebody who publishes."""
    return Publisher(layout, ledger)


def assert_whole(outbox: Path, manifest_path: Path) -> None:
    """Where a manifest is, everything it names is there, byte for byte."""
    manifest = json.loads(manifest_path.read_bytes())
    for output in manifest["outputs"]:
        data = (outbox / output["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == output["sha256"]
    assert manifest_path.with_suffix(".log").exists()


# -- publishing -----------------------------------------------------------------------------------


def test_a_result_is_audio_log_and_manifest(publisher: Publisher, layout: Layout, ledger: Ledger) -> None:
    """Under the job's own name, in its folder, known to the ledger; nothing hidden is left behind."""
    job = publisher.job(folder="a/b")
    manifest = publisher.publish(job, "one", ("wav", "mp3"))
    assert publisher.names() == ["a/b/story.json", "a/b/story.log", "a/b/story.mp3", "a/b/story.wav"]
    assert_whole(layout.outbox, layout.outbox / "a/b/story.json")
    assert [output.path for output in manifest.outputs] == ["a/b/story.wav", "a/b/story.mp3"]
    result = ledger.results.find(PurePosixPath("a/b"), "story")
    assert result is not None and len(result.files) == 4 and result.published_at is not None
    assert not layout.publishing(job.id).exists()


def test_a_redrop_replaces_our_own_result(publisher: Publisher) -> None:
    """And formats that are no longer wanted go."""
    publisher.publish(publisher.job(), "one", ("wav", "flac"))
    publisher.publish(publisher.job(), "two", ("mp3",))
    assert publisher.names() == ["story.json", "story.log", "story.mp3"]
    assert publisher.text("story.mp3") == "mp3 two"
    assert publisher.text("story.log") == "log two"


def test_a_redrop_of_the_very_same_result_is_harmless(publisher: Publisher) -> None:
    """Same bytes, same names."""
    for _ in range(2):
        publisher.publish(publisher.job(), "one")
    assert publisher.names() == ["story.json", "story.log", "story.mp3"]


@pytest.mark.parametrize("suffix", [".mp3", ".log", ".json", ".opus"])
def test_a_foreign_file_is_never_replaced(publisher: Publisher, layout: Layout, suffix: str) -> None:
    """Not even in a format that this job does not make: they belong together."""
    foreign = layout.outbox / f"story{suffix}"
    foreign.write_text("mine")
    manifest = publisher.publish(publisher.job(), "one")
    assert foreign.read_text() == "mine"
    assert manifest.outputs[0].path == "story~2.mp3"
    assert_whole(layout.outbox, layout.outbox / "story~2.json")


@pytest.mark.parametrize("name", ["story.mp3", "story.log", "story.json"])
@pytest.mark.parametrize("as_long", [True, False])
def test_a_changed_file_is_never_replaced(
    publisher: Publisher, layout: Layout, name: str, as_long: bool
) -> None:
    """Somebody corrected our result: it is theirs now, of whatever length."""
    publisher.publish(publisher.job(), "one")
    path = layout.outbox / name
    changed = bytes(reversed(path.read_bytes())) if as_long else b"corrected"
    path.write_bytes(changed)
    os.utime(path, (1, 1))
    manifest = publisher.publish(publisher.job(), "two")
    assert path.read_bytes() == changed
    assert manifest.outputs[0].path == "story~2.mp3"


def test_a_file_that_was_only_touched_is_still_ours(publisher: Publisher, layout: Layout) -> None:
    """Sync tools set times as they like; the contents decide."""
    publisher.publish(publisher.job(), "one")
    for name in publisher.names():
        os.utime(layout.outbox / name, (5, 5))
    publisher.publish(publisher.job(), "two")
    assert publisher.names() == ["story.json", "story.log", "story.mp3"]


def test_other_kinds_of_entries_are_foreign(publisher: Publisher, layout: Layout) -> None:
    """A folder, a link or a pipe under our name, even after we have published there."""
    publisher.publish(publisher.job(), "one")
    path = layout.outbox / "story.mp3"
    for make in (os.mkdir, os.mkfifo, lambda p: os.symlink("/nowhere", p)):
        path.unlink()
        make(path)
        manifest = publisher.publish(publisher.job(), "two")
        assert manifest.outputs[0].path.startswith("story~")
        assert os.path.lexists(path)
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_text("foreign")


def test_a_second_source_and_further_documents_take_a_suffix(publisher: Publisher) -> None:
    """`story.txt` and `story.md`, and the second job of `story.yaml`; each redrop finds its own."""
    for words in ("1", "2"):
        for source, index in (("story.txt", 0), ("story.md", 0), ("story.yaml", 0), ("story.yaml", 1)):
            job = publisher.job(source=source, index=index)
            publisher.publish(job, f"{source} {index} {words}", source=source)
    audio = {name: publisher.text(name) for name in publisher.names() if name.endswith("mp3")}
    assert audio == {
        "story.mp3": "mp3 story.txt 0 2",
        "story~2.mp3": "mp3 story.md 0 2",
        "story~3.mp3": "mp3 story.yaml 0 2",
        "story~4.mp3": "mp3 story.yaml 1 2",
    }


def test_names_that_some_disks_take_for_one_are_kept_apart(publisher: Publisher) -> None:
    """Case and Unicode form: the outbox may be synced to a Mac or to Windows."""
    for stem in ("Caf\u00e9", "caf\u00e9", "cafe\u0301", "CAFE\u0301"):
        publisher.publish(publisher.job(stem=stem, source=f"{stem}.txt"), stem, source=f"{stem}.txt")
    stems = [name.removesuffix(".json") for name in publisher.names() if name.endswith(".json")]
    assert sorted(stems) == ["CAFE\u0301~4", "Caf\u00e9", "cafe\u0301~3", "caf\u00e9~2"]


@pytest.mark.parametrize("stem", ["status", "Status", "STATUS"])
def test_no_result_is_called_as_the_status_file(publisher: Publisher, layout: Layout, stem: str) -> None:
    """Whether that exists yet or not; below the root the name is free."""
    assert publisher.publish(publisher.job(stem=stem), "one").outputs[0].path == f"{stem}~2.mp3"
    assert not layout.status_file.exists()
    other = publisher.job(stem=stem, folder="a", source="a/status.txt")
    assert publisher.publish(other, "one", source="a/status.txt").outputs[0].path == f"a/{stem}.mp3"


def test_a_result_may_be_called_failed_and_lie_beside_that_folder(
    publisher: Publisher, layout: Layout
) -> None:
    """`failed.mp3` is no trouble; a folder that would become `failed/` itself is."""
    layout.failed.mkdir()
    assert publisher.publish(publisher.job(stem="failed"), "one").outputs[0].path == "failed.mp3"
    assert result_folder(PurePosixPath("failed./a")) == PurePosixPath("_failed/a")
    assert result_folder(PurePosixPath("Failed ")) == PurePosixPath("_Failed")
    assert result_folder(PurePosixPath("a/failed")) == PurePosixPath("a/failed")
    assert result_folder(HERE) == HERE


def test_a_file_where_the_folder_should_be_is_told(publisher: Publisher, layout: Layout) -> None:
    """`x.mp3/` beside `x.txt` in the inbox: the one's result stands where the other's folder belongs."""
    publisher.publish(publisher.job(stem="x"), "one")
    for folder in ("x.mp3", "x.mp3/deeper"):
        with pytest.raises(InputError, match=r"x\.mp3.* cannot be made in the outbox") as caught:
            publisher.publish(publisher.job(folder=folder), "two")
        assert caught.value.code == "outbox_folder"


# -- order ----------------------------------------------------------------------------------------


def test_the_manifest_goes_first_and_comes_last(
    publisher: Publisher, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from outside at every step: where a manifest is, it tells the truth."""
    publisher.publish(publisher.job(), "one", ("wav", "mp3"))
    seen: list[frozenset[str]] = []

    def look(*_: Any) -> None:
        names = frozenset(publisher.names())
        if "story.json" in names:
            assert_whole(layout.outbox, layout.outbox / "story.json")
        seen.append(names)

    with watched(monkeypatch, look):
        publisher.publish(publisher.job(), "two", ("mp3", "flac"))
    whole = {"story.json", "story.log", "story.mp3"}
    first_gone = next(names for names in seen if "story.json" not in names)
    assert first_gone == {"story.log", "story.mp3", "story.wav"}
    back = next(names for names in seen[seen.index(first_gone) :] if "story.json" in names)
    assert back >= whole | {"story.flac"}
    assert publisher.names() == sorted({*whole, "story.flac"})


@pytest.mark.parametrize("failing", range(4))
def test_epub_to_audiobook_pr_99_a_move_that_fails_leaves_no_manifest(
    publisher: Publisher, layout: Layout, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """A full disk at any of the four files; once mended, the same job publishes under the same name."""
    publisher.publish(publisher.job(), "one", ("wav", "mp3"))
    calls = 0
    real = os.link

    def link(source: Any, target: Any, **options: Any) -> None:
        nonlocal calls
        if Path(target).parent.resolve() == layout.outbox:
            calls += 1
            if calls == failing + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target, **options)

    job = publisher.job()
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        with pytest.raises(OSError, match="No space left"):
            publisher.publish(job, "two", ("wav", "mp3"))
    assert "story.json" not in publisher.names()
    publisher.publish(job, "two", ("wav", "mp3"))
    assert publisher.names() == ["story.json", "story.log", "story.mp3", "story.wav"]
    assert_whole(layout.outbox, layout.outbox / "story.json")


@pytest.mark.parametrize("suffix", ["wav", "mp3", "log", "json"])
@pytest.mark.parametrize("redrop", [False, True])
def test_a_file_that_appears_between_look_and_move_is_kept(
    publisher: Publisher, layout: Layout, monkeypatch: pytest.MonkeyPatch, suffix: str, redrop: bool
) -> None:
    """All of the result takes the next name, and no half of it stays under the first."""
    if redrop:
        publisher.publish(publisher.job(), "one", ("wav", "mp3"))
    foreign = layout.outbox / f"story.{suffix}"
    real = os.link

    def link(source: Any, target: Any, **options: Any) -> None:
        if Path(target).parent.resolve() / Path(target).name == foreign:
            foreign.write_text("mine")
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    job = publisher.job()
    manifest = publisher.publish(job, "two", ("wav", "mp3"))
    assert foreign.read_text() == "mine"
    assert [output.path for output in manifest.outputs] == ["story~2.wav", "story~2.mp3"]
    expected = ["story~2.json", "story~2.log", "story~2.mp3", "story~2.wav", f"story.{suffix}"]
    assert publisher.names() == sorted(expected)
    assert_whole(layout.outbox, layout.outbox / "story~2.json")
    known = publisher.ledger.job(job.id)
    assert known is not None and known.stem == "story~2"


# -- crashes ----------------------------------------------------------------------------------------


class Crash(BaseException):
    """The power is cut."""


OS_CALLS = ("link", "unlink", "replace", "rename", "fsync", "mkdir", "rmdir")
LEDGER_CALLS = (
    (Results, "enter"),
    (Results, "plan_files"),
    (Results, "publish"),
    (Results, "forget"),
    (Ledger, "rename_job"),
)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, at_step: Callable[[str], None]) -> Iterator[None]:
    """Calls `at_step` after every change that `publish` makes to disk or ledger."""

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            at_step(name)
            return result

        return call

    with monkeypatch.context() as patch:
        for name in OS_CALLS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        for owner, name in LEDGER_CALLS:
            patch.setattr(owner, name, wrap(name, getattr(owner, name)))
        patch.setattr(shutil, "rmtree", wrap("rmtree", shutil.rmtree))
        yield


def crash_at(step: int, publisher: Publisher, job: Job, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Publish, and die at that step; nothing works after it, as in life. Tells whether it came so far."""
    count = 0

    def at_step(_: str) -> None:
        nonlocal count
        count += 1
        if count >= step:
            raise Crash

    try:
        with watched(monkeypatch, at_step):
            publisher.publish(job, "crashed", ("mp3", "flac"))
    except Crash:
        return True
    return False


@pytest.mark.parametrize(
    ("earlier", "again"),
    [(None, "crashed"), (None, "spoken anew"), ("other", "spoken anew"), ("same", "crashed")],
)
def test_after_a_crash_at_any_step_the_job_publishes_one_result(
    publisher: Publisher, layout: Layout, monkeypatch: pytest.MonkeyPatch, earlier: str | None, again: str
) -> None:
    """No `~2`, no half, no leftover, whether the second run makes the same bytes or others; and
    between the two no manifest stands beside files that it does not name.
    """
    step = 0
    died = True
    while died:
        step += 1
        shutil.rmtree(layout.outbox)
        layout.outbox.mkdir()
        publisher.ledger.results.forget(HERE, "story")
        if earlier:
            words = "crashed" if earlier == "same" else "earlier"
            publisher.publish(publisher.job(), words, ("wav", "mp3"))
        job = publisher.job()
        died = crash_at(step, publisher, job, monkeypatch)
        if (layout.outbox / "story.json").exists():
            assert_whole(layout.outbox, layout.outbox / "story.json")
        publisher.publish(job, again, ("mp3", "flac"))
        assert publisher.names() == ["story.flac", "story.json", "story.log", "story.mp3"], step
        assert publisher.text("story.mp3") == f"mp3 {again}"
        assert_whole(layout.outbox, layout.outbox / "story.json")
        assert not [path for path in layout.outbox.rglob("*") if path.name.endswith(".voxspool-tmp")]
    assert step > 20


# -- failures ---------------------------------------------------------------------------------------

FAILURE = Failure(job_id="d1-1", code="text_empty", message="story.txt is empty.", hint="Put some words in.")


def fail(layout: Layout, relative: str, data: bytes, **changes: Any) -> Path:
    """A dropped file fails; returns where it lies."""
    sha256 = hashlib.sha256(data).hexdigest()
    drop = dataclasses.replace(a_drop(relative=relative), sha256=sha256, **changes)
    target = failed_name(layout, drop)
    write_failure_notes(drop, target, [FAILURE])
    target.write_bytes(data)
    return target


def test_a_failure_leaves_the_file_and_two_notes(layout: Layout) -> None:
    """One plain sentence, what to do, how to retry; and the same for scripts."""
    target = fail(layout, "sub/story.txt", b"")
    assert target == layout.failed / "sub" / "story.txt"
    text, record = note_paths(target)
    assert text.read_text() == (
        "story.txt is empty.\nPut some words in.\n\n"
        "To try again, move story.txt from here back into the inbox.\n"
    )
    facts = json.loads(record.read_bytes())
    assert facts["schema"] == ERROR_SCHEMA
    assert facts["source"]["name"] == "sub/story.txt"
    assert facts["error"] == {"code": "text_empty", "message": FAILURE.message, "hint": FAILURE.hint}


def test_each_failed_job_of_a_file_is_told(layout: Layout) -> None:
    """By its number, and what must be moved back together."""
    drop = a_drop(relative="job.yaml", members=("job.yaml", "clip.wav"))
    second = dataclasses.replace(FAILURE, index=2, message="No voice.", hint="")
    text = write_failure_notes(drop, failed_name(layout, drop), [FAILURE, second])
    assert text.read_text() == (
        "Job 1: story.txt is empty.\nPut some words in.\nJob 3: No voice.\n\n"
        "To try again, move job.yaml, together with clip.wav, from here back into the inbox.\n"
    )


def test_a_file_left_in_the_inbox_is_retried_there(layout: Layout) -> None:
    """`source: leave` moves nothing; the next failure overwrites the note, it does not add one."""
    drop = a_drop(mode="leave")
    for _ in range(2):
        text = write_failure_notes(drop, failed_name(layout, drop), [FAILURE])
    assert "change or touch story.txt in the inbox: it was left there" in text.read_text()
    assert sorted(os.listdir(layout.failed)) == ["story.txt.error.json", "story.txt.error.txt"]


def test_the_same_bytes_failing_twice_are_kept_once(layout: Layout) -> None:
    """Other bytes under the same name take a suffix, and so do their notes."""
    first = fail(layout, "story.txt", b"one")
    assert fail(layout, "story.txt", b"one") == first
    second = fail(layout, "story.txt", b"two")
    assert second.name == "story~2.txt"
    assert fail(layout, "story.txt", b"two") == second
    assert "move story~2.txt from here" in note_paths(second)[0].read_text()
    assert first.read_bytes() == b"one"


def test_a_link_with_the_same_bytes_is_another_file(layout: Layout, tmp_path: Path) -> None:
    """What it leads to may go away."""
    (tmp_path / "elsewhere").write_bytes(b"one")
    layout.failed.mkdir()
    (layout.failed / "story.txt").symlink_to(tmp_path / "elsewhere")
    assert fail(layout, "story.txt", b"one").name == "story~2.txt"


@pytest.mark.parametrize(
    "raw",
    [b"x" * 251 + b".txt", b"caf\xe9.txt", b"two\nlines.txt", b'<>:"|?*.txt', "漢".encode() * 83 + b".txt"],
    ids=["255 bytes", "Latin-1", "newline", "Windows", "255 bytes of Chinese"],
)
def test_every_name_can_fail(layout: Layout, raw: bytes) -> None:
    """The file keeps its bytes for a name, the notes have one that can be read everywhere."""
    name = os.fsdecode(raw)
    first = fail(layout, name, b"one")
    second = fail(layout, name, b"two")
    assert os.fsencode(first.name) == raw
    assert os.fsencode(second.name).endswith(b"~2.txt")
    for target in (first, second):
        text, record = note_paths(target)
        assert text.name.encode().isascii() or "漢" in text.name
        assert "\n" not in text.name and text.read_text().count("\n") == 4
        json.loads(record.read_bytes())


def test_notes_of_two_names_never_become_one(layout: Layout) -> None:
    """`a?.txt` and `a_.txt` would be spelled alike."""
    targets = [fail(layout, name, b"x") for name in ("a?.txt", "a_.txt", "a\n.txt")]
    assert len({note_paths(target)[0] for target in targets}) == 3


def test_a_dropped_file_that_is_called_like_a_note_is_not_overwritten(layout: Layout) -> None:
    """People do move the notes back into the inbox, too."""
    called_so = fail(layout, "story.txt.error.txt", b"precious")
    target = fail(layout, "story.txt", b"other")
    assert called_so.read_bytes() == b"precious"
    assert target.name == "story~2.txt"
    (layout.failed / "tale.txt.error.json").write_text("{}")
    assert fail(layout, "tale.txt", b"x").name == "tale~2.txt"


def test_a_file_where_a_failed_folder_should_be_is_stepped_around(layout: Layout) -> None:
    """A text called `x.txt` failed, and then one in a folder called `x.txt`."""
    fail(layout, "x.txt", b"one")
    inside = fail(layout, "x.txt/a.txt", b"two")
    assert inside == layout.failed / "x~2.txt" / "a.txt"
    assert fail(layout, "x.txt/b.txt", b"three").parent == inside.parent


def test_notes_go_once_the_file_came_out_well(layout: Layout) -> None:
    """With the folder they were in; notes of a file that still lies there stay."""
    target = fail(layout, "sub/story.txt", b"x")
    drop = a_drop(relative="sub/story.txt")
    remove_stale_notes(layout, drop)
    assert note_paths(target)[0].exists()
    target.unlink()  # moved back into the inbox
    remove_stale_notes(layout, drop)
    assert layout.failed.exists() and not target.parent.exists()
    remove_stale_notes(layout, drop)


def test_only_our_own_notes_go(layout: Layout) -> None:
    """Somebody else's file under that name is none."""
    layout.failed.mkdir()
    for name in ("story.txt.error.txt", "story.txt.error.json"):
        (layout.failed / name).write_text("[]")
    remove_stale_notes(layout, a_drop())
    assert len(os.listdir(layout.failed)) == 2


def test_an_ended_job_says_why_it_failed() -> None:
    """Also one that was cancelled without a word."""
    failed = a_job(state=JobState.FAILED, error_code="c", error_message="m", error_hint="h", index=3)
    assert failure_of(failed) == Failure(job_id="d1-0", code="c", message="m", hint="h", index=3)
    assert failure_of(a_job(state=JobState.CANCELLED)).message == "It was cancelled."


def test_a_manifest_leaves_the_error_out_where_there_is_none() -> None:
    """And holds what the contract lists."""
    manifest = json.loads(a_manifest(a_job()).to_json())
    wanted = {"schema", "job_id", "status", "kind", "source", "engine", "settings", "outputs", "chunks"}
    assert manifest.keys() >= wanted | {"chapters", "timings", "warnings"}
    assert "error" not in manifest
    odd = dataclasses.replace(a_manifest(a_job()), warnings=("caf\udce9",), error={"code": "x"})
    assert json.loads(odd.to_json())["error"] == {"code": "x"}


def test_a_name_is_free_or_ours_or_neither(publisher: Publisher, layout: Layout, ledger: Ledger) -> None:
    """The question that planning asks."""
    assert may_use(layout, HERE, "story", None)
    publisher.publish(publisher.job(), "one")
    assert not may_use(layout, HERE, "story", None)
    assert may_use(layout, HERE, "story", ledger.results.find(HERE, "story"))
