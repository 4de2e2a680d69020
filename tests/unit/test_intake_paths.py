"""Names in job files and people who mean no good: nothing outside of our folders is read or changed."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from intake_samples import lying, put, settled, with_source
from ledger_samples import Clock, a_drop, a_job, submit

from pipeline.cli import _bring_back
from pipeline.config import Config
from pipeline.errors import EnvironmentFailure, InputError
from pipeline.intake.claim import finish_failed, put_back, put_back_orphan, stamp_of, take
from pipeline.intake.inbox import Dropped
from pipeline.intake.intake import Intake
from pipeline.jobs.job import Drop, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.outbox import Failure, Manifest, Rendered, publish

FAILURE = Failure(job_id="j", code="c", message="It failed.", hint="Mend it.")
SECRET, OURS = b"the secret", b"Ours."


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    """Nobody cuts the power of a test."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    ledger._db.rows("PRAGMA synchronous = OFF")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, with files of the names that we look for."""
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    for name in ("x.txt", "job.yaml", "a.wav", "deep/x.txt", "_defaults.yaml"):
        (folder / name).write_bytes(SECRET)
    return folder


def contents(root: Path) -> dict[str, bytes]:
    """All files below a folder, links not followed."""
    paths = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.suffix != ".db"}


def assert_kept_apart(layout: Layout, outside: Path, before: dict[str, bytes]) -> None:
    """Nothing of theirs is with us, nothing of ours is with them."""
    assert contents(outside) == before
    for root in (layout.inbox, layout.outbox, layout.state):
        assert not any(SECRET in data for data in contents(root).values())


# -- swapped at any moment ---------------------------------------------------------------------------


class Swap:
    """Puts a link in a folder's place just before the n-th call of the system that is watched."""

    def __init__(self, folder: Path, target: Path, at: int) -> None:
        self.folder, self.target, self.at, self.count = folder, target, at, 0

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Wrap the calls."""
        for name in ("open", "rename", "link", "unlink", "mkdir"):
            patch.setattr(os, name, self._before(getattr(os, name)))

    def _before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                self.now()
            return real(*arguments, **options)

        return call

    def now(self) -> None:
        """The folder moves aside, as it is, and the link comes in its place."""
        aside = self.folder.with_name(".aside")
        if not aside.exists() and self.folder.is_dir():
            os.rename(self.folder, aside)
            os.symlink(self.target, self.folder)


def start_anew(layout: Layout, ledger: Ledger) -> None:
    """Empty folders and an empty ledger."""
    for root in (layout.inbox, layout.outbox, layout.spool("any").parent):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
    for table in ("results", "attempts", "jobs", "drops"):
        ledger._db.rows(f"DELETE FROM {table}")


@pytest.mark.parametrize("source", ["move", "leave"])
def test_a_folder_swapped_for_a_link_at_any_moment_of_a_claim(
    layout: Layout,
    ledger: Ledger,
    config: Config,
    outside: Path,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Just before each change or opening, one after the other; afterwards all goes on."""
    before, at, ran = contents(outside), 0, True
    while ran:
        at += 1
        start_anew(layout, ledger)
        for name in ("job.yaml", "x.txt", "a.wav", "deep/x.txt"):
            put(layout, f"sub/{name}", b"text_file: deep/x.txt" if name == "job.yaml" else OURS)
        intake = Intake(layout, ledger, with_source(config, source), clock=Clock())
        offered = settled(layout)
        swap = Swap(layout.inbox / "sub", outside, at)
        with monkeypatch.context() as patch:
            swap.watch(patch)
            accept(intake, offered)
        ran = swap.count >= at
        intake.recover()
        accept(intake, settled(layout))
        assert_kept_apart(layout, outside, before)
        held = [*contents(layout.inbox).values(), *contents(layout.failed).values()]
        assert held.count(b"text_file: deep/x.txt") == 1 and held.count(OURS) == 3, at
    assert at > 20, "the calls were not watched"


def accept(intake: Intake, offered: list[Dropped]) -> None:
    """What is refused may be refused as the machine's fault, and is done again later."""
    with contextlib.suppress(EnvironmentFailure):
        intake.accept(offered)


# -- what is no file ----------------------------------------------------------------------------------


def make_link(path: Path) -> None:
    """To the outside."""
    path.symlink_to(path.parent.parent / "outside/x.txt")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("source", ["move", "leave", "delete"])
@pytest.mark.parametrize("make", [make_link, os.mkfifo, os.mkdir])
@pytest.mark.parametrize("jobs", [1, 2], ids=["alone", "shared"])
def test_what_is_no_file_is_neither_followed_nor_waited_for_nor_moved(
    layout: Layout,
    ledger: Ledger,
    config: Config,
    outside: Path,
    source: str,
    make: Callable[[Path], None],
    jobs: int,
) -> None:
    """Where parts are copied, a link's target would come out as speech and a pipe would block for ever."""
    before = contents(outside)
    make(layout.inbox / "x.txt")
    for number in range(jobs):
        put(layout, f"job{number}.yaml", "text_file: x.txt")
    intake = Intake(layout, ledger, with_source(config, source), clock=Clock())
    names = [f"job{number}.yaml" for number in range(jobs)]
    assert not intake.accept(settled(layout, *names)).waiting
    told = {job.error_message for job in ledger.jobs_in(JobState.FAILED)}
    assert len(told) == jobs
    assert all("The job names x.txt, which cannot be read: " in str(message) for message in told)
    assert os.path.lexists(layout.inbox / "x.txt") and not os.path.lexists(layout.failed / "x.txt")
    assert_kept_apart(layout, outside, before)


def test_defaults_are_not_read_through_a_link(
    layout: Layout, ledger: Ledger, config: Config, outside: Path
) -> None:
    """Their mistakes would be told with words out of the file."""
    put(layout, "sub/a.txt", "Hello.")
    (layout.inbox / "sub/_defaults.yaml").symlink_to(outside / "_defaults.yaml")
    intake = Intake(layout, ledger, config, clock=Clock())
    waiting = intake.accept(settled(layout, "sub/a.txt")).waiting
    assert "a symbolic link, which is not followed" in waiting["sub/a.txt"]


# -- the way back and the last move -------------------------------------------------------------------


def claimed(layout: Layout, *members: str) -> Drop:
    """A drop whose files were taken."""
    for member in members:
        path = put(layout, member, OURS)
    drop = a_drop(relative=members[0], members=members, stamp=stamp_of(layout.inbox / members[0]))
    assert path.exists()
    take(layout, drop)
    return drop


def replace_folder(path: Path, by: str, outside: Path) -> None:
    """Somebody changes the folder that a file came from."""
    shutil.rmtree(path)
    if by == "link":
        path.symlink_to(outside)
    elif by == "file":
        path.write_text("a file now")


@pytest.mark.parametrize("by", ["link", "file", "nothing"])
def test_a_file_returns_though_its_folder_is_something_else_by_now(
    layout: Layout, outside: Path, by: str
) -> None:
    """Into a new folder, or into the inbox itself; never through a link, and the intake is not stuck."""
    before = contents(outside)
    drop = claimed(layout, "sub/job.yaml", "sub/deep/x.txt")
    replace_folder(layout.inbox / "sub", by, outside)
    put_back(layout, drop)
    assert contents(outside) == before
    expected = ["sub/deep/x.txt", "sub/job.yaml"] if by == "nothing" else ["job.yaml", "x.txt"]
    assert [name for name in lying(layout) if name != "sub"] == expected


@pytest.mark.parametrize("by", ["link", "file", "nothing"])
def test_an_orphan_returns_though_a_link_stands_in_its_way(layout: Layout, outside: Path, by: str) -> None:
    """The same for what the ledger lost."""
    before = contents(outside)
    drop = claimed(layout, "job.yaml", "sub/x.txt")
    (layout.inbox / "sub").rmdir()
    (layout.inbox / "sub").mkdir()
    replace_folder(layout.inbox / "sub", by, outside)
    put_back_orphan(layout, layout.claimed(drop.id))
    assert contents(outside) == before
    assert list(contents(layout.inbox).values()).count(OURS) == 2


def test_a_claim_is_made_durable_though_its_folder_is_gone(
    layout: Layout, ledger: Ledger, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken away right after the claim; no reason to hold all the others up for ever."""
    put(layout, "sub/a.txt", "Hello.")
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        real(source, target)
        shutil.rmtree(layout.inbox / "sub", ignore_errors=True)

    monkeypatch.setattr(os, "rename", rename)
    Intake(layout, ledger, config, clock=Clock()).accept(settled(layout))
    assert [job.state for job in ledger.jobs_in(*JobState)] == [JobState.QUEUED]


@pytest.mark.parametrize("place", ["failed/sub", "failed/sub/deep"])
def test_a_failed_file_is_not_put_through_a_link(layout: Layout, outside: Path, place: str) -> None:
    """It goes beside: `sub~2`."""
    before = contents(outside)
    drop = claimed(layout, "sub/deep/job.yaml", "sub/deep/x.txt")
    (layout.outbox / place).parent.mkdir(parents=True)
    (layout.outbox / place).symlink_to(outside)
    _, location = finish_failed(layout, drop, [FAILURE])
    assert location == (
        "failed/sub~2/deep/job.yaml" if place == "failed/sub" else "failed/sub/deep~2/job.yaml"
    )
    assert (layout.outbox / location).with_name("x.txt").read_bytes() == OURS
    assert contents(outside) == before


def test_a_failed_folder_that_is_a_link_is_told_as_the_machines_fault(layout: Layout, outside: Path) -> None:
    """Nothing moves until it is mended."""
    before = contents(outside)
    drop = claimed(layout, "job.yaml")
    layout.failed.symlink_to(outside)
    with pytest.raises(OSError, match="a symbolic link, which is not followed") as caught:
        finish_failed(layout, drop, [FAILURE])
    assert caught.value.filename == str(layout.failed)
    assert contents(outside) == before and (layout.claimed(drop.id) / "job.yaml").read_bytes() == OURS


def test_a_part_swapped_for_a_link_after_its_claim_is_not_copied_to_another_disk(
    layout: Layout, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns to the inbox as the link that it is."""
    drop = claimed(layout, "job.yaml", "x.txt")
    (layout.claimed(drop.id) / "x.txt").unlink()
    (layout.claimed(drop.id) / "x.txt").symlink_to(outside / "x.txt")
    real = os.link

    def link(source: Path, target: Path, **options: Any) -> None:
        """Two disks."""
        inside = [layout.outbox in Path(p).parent.resolve().parents for p in (source, target)]
        if inside[0] != inside[1]:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    finish_failed(layout, drop, [FAILURE])
    assert (layout.failed / "job.yaml").read_bytes() == OURS
    assert not os.path.lexists(layout.failed / "x.txt") and (layout.inbox / "x.txt").is_symlink()


@pytest.mark.timeout(20)
def test_a_pipe_called_like_a_note_blocks_nothing(layout: Layout) -> None:
    """Whoever may write into the outbox could stop everything with it."""
    layout.failed.mkdir(parents=True)
    os.mkfifo(layout.failed / "job.yaml.error.json")
    _, location = finish_failed(layout, claimed(layout, "job.yaml"), [FAILURE])
    assert location == "failed/job~2.yaml"


def picky_disk(monkeypatch: pytest.MonkeyPatch, outbox: Path, code: int, refuses: str) -> None:
    """An outbox on a disk that refuses some names, as Windows' and encrypted ones do."""
    for name in ("link", "rename"):
        real = getattr(os, name)

        def call(source: Path, target: Path, real: Callable[..., None] = real, **options: Any) -> None:
            into = Path(target).parent.resolve()
            if outbox in (into, *into.parents) and refuses in Path(target).name:
                raise OSError(code, os.strerror(code), str(target))
            real(source, target, **options)

        monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG])
def test_a_name_that_the_outbox_cannot_hold_fails_under_the_nearest_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """An ext4 inbox and an outbox on a Windows share: it was tried again for ever."""
    drop = claimed(layout, "what?.yaml", "who?.txt")
    picky_disk(monkeypatch, layout.outbox, code, "?")
    _, location = finish_failed(layout, drop, [FAILURE])
    found = sorted(contents(layout.failed))
    assert (layout.outbox / location).read_bytes() == OURS
    assert [name.partition("~")[0] for name in found] == [
        "what_.yaml",
        "what_.yaml",
        "what_.yaml",
        "who_.txt",
    ]
    assert not layout.claimed(drop.id).exists()


# -- results ------------------------------------------------------------------------------------------


def published(layout: Layout, ledger: Ledger, folder: str) -> Manifest:
    """A result of a file that was dropped into `folder`."""
    job = a_job("d1-1", drop_id="d1", stem="x", folder=Path(folder))
    submit(ledger, job, drop=a_drop("d1", f"{folder}/x.txt"))
    audio = layout.state / "audio.mp3"
    audio.write_bytes(b"sound")
    manifest = Manifest(job_id=job.id, status="done", kind="tts", source=job.source, engine={}, settings={})
    rendered = Rendered(format="mp3", path=audio, duration_seconds=1.0, sample_rate_hz=22_050)
    return publish(layout, ledger, job, f"{folder}/x.txt", [rendered], "log", manifest)


@pytest.mark.parametrize("link", ["sub", "sub/deep"])
def test_a_result_is_not_published_through_a_link(
    layout: Layout, ledger: Ledger, outside: Path, link: str
) -> None:
    """The job fails and says so; linked folders are for the owner to make as mounts."""
    before = contents(outside)
    (layout.outbox / link).parent.mkdir(parents=True, exist_ok=True)
    (layout.outbox / link).symlink_to(outside)
    with pytest.raises(
        InputError, match=r"sub/deep cannot be made in the outbox: a link stands in its place"
    ):
        published(layout, ledger, "sub/deep")
    assert contents(outside) == before


def test_a_result_comes_out_whole_in_the_folder_that_was_opened(
    layout: Layout, ledger: Ledger, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped for a link before each look at the disk while it is published."""
    before = contents(outside)
    at, ran = 0, True
    while ran:
        at += 1
        start_anew(layout, ledger)
        (layout.outbox / "sub").mkdir()
        swap = Swap(layout.outbox / "sub", outside, at)
        with monkeypatch.context() as patch:
            swap.watch(patch)
            refused = False
            try:
                published(layout, ledger, "sub")
            except InputError:
                refused = True
        ran = swap.count >= at
        assert contents(outside) == before, at
        aside = layout.outbox / (".aside" if ran else "sub")
        whole = ["x.json", "x.log", "x.mp3"]
        assert sorted(contents(aside)) == ([] if refused else whole), at
    assert at > 20, "the calls were not watched"


# -- retry --------------------------------------------------------------------------------------------


def test_a_retry_leads_through_no_link(layout: Layout, outside: Path) -> None:
    """It may be typed by root, in an inbox that others write to."""
    before = contents(outside)
    drop = claimed(layout, "sub/job.yaml", "sub/deep/x.txt")
    state, location = finish_failed(layout, drop, [FAILURE])
    failed = replace(drop, state=state, location=location)
    replace_folder(layout.inbox / "sub", "link", outside)
    with pytest.raises(InputError, match="inbox/sub stands in the way: a symbolic link"):
        _bring_back(layout, failed)
    assert contents(outside) == before
    (layout.inbox / "sub").unlink()
    assert _bring_back(layout, failed) == "sub/job.yaml is back in the inbox."
    assert lying(layout) == ["sub/deep/x.txt", "sub/job.yaml"]
