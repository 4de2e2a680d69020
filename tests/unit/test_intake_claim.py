"""Taking a file out of the inbox and bringing it to its last place: nothing is ever lost."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from intake_samples import bytes_somewhere, lying, put
from ledger_samples import a_drop, a_job

from pipeline.files import exclusive_lock
from pipeline.intake import claim
from pipeline.intake.claim import (
    Gone,
    NotReady,
    below,
    end_if_complete,
    finish_done,
    finish_failed,
    put_back,
    put_back_orphan,
    stamp_of,
    take,
)
from pipeline.jobs.job import Drop, DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.outbox import Failure
from pipeline.space import Free

MODES = ("move", "leave", "delete")
FAILURE = Failure(job_id="j", code="c", message="It failed.", hint="Mend it.")


def dropped(layout: Layout, relative: str = "story.txt", content: bytes = b"Hello.", **changes: Any) -> Drop:
    """A file in the inbox, about to be claimed as it is."""
    path = put(layout, relative, content)
    sha256 = hashlib.sha256(content).hexdigest()
    return a_drop(
        relative=relative, **{"members": (relative,), "stamp": stamp_of(path), "sha256": sha256, **changes}
    )


def failing(code: int) -> Callable[..., None]:
    """A call of the operating system that fails so."""

    def call(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


# -- taking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_without_an_inode_size_and_time_decide(layout: Layout, mode: str) -> None:
    """A network filesystem may give a file another inode by its renaming: no reason to put it back."""
    drop = dropped(layout, mode=mode)
    _, size, mtime_ns, ctime_ns = drop.stamp
    assert take(layout, replace(drop, stamp=(0, size, mtime_ns, ctime_ns)))[1][0] == 0
    other = dropped(layout, "other.txt", mode=mode)
    with pytest.raises(NotReady, match="it changed while it was being"):
        take(layout, replace(other, id="other", stamp=(0, size, mtime_ns + 1, ctime_ns)))


@pytest.mark.parametrize("mode", MODES)
def test_a_claim_brings_every_member(layout: Layout, mode: str) -> None:
    """As they lay beside each other; only `leave` leaves them in the inbox."""
    for part in ("sub/clips/a.wav", "sub/b.txt"):
        put(layout, part, part)
    drop = dropped(
        layout, "sub/job.yaml", mode=mode, members=("sub/job.yaml", "sub/clips/a.wav", "sub/b.txt")
    )
    digest, stamp = take(layout, drop)
    folder = layout.source_folder(drop.id, mode)
    assert (folder / "job.yaml").read_bytes() == b"Hello."
    assert (folder / "clips/a.wav").read_text() == "sub/clips/a.wav"
    assert (folder / "b.txt").exists()
    assert digest == drop.sha256 and stamp[:3] == drop.stamp[:3]
    assert len(lying(layout)) == (3 if mode == "leave" else 0)


def test_parts_are_spelled_as_the_job_file_names_them(layout: Layout) -> None:
    """A decomposed name on the disk, a composed one in the job file; the job file keeps its own bytes."""
    drop = a_drop(relative="e\u0301.yaml", members=("e\u0301.yaml", "cafe\u0301.wav"))
    assert str(below(drop, "e\u0301.yaml")) == "e\u0301.yaml"
    assert str(below(drop, "cafe\u0301.wav")) == "caf\u00e9.wav"


@pytest.mark.parametrize("mode", MODES)
def test_a_file_that_is_gone_is_gone(layout: Layout, mode: str) -> None:
    """Somebody took it back in time; parts that were taken before return."""
    put(layout, "b.txt", "part")
    drop = dropped(layout, "a.txt", mode=mode, members=("b.txt", "a.txt"))
    (layout.inbox / "a.txt").unlink()
    with pytest.raises(Gone):
        take(layout, drop)
    put_back(layout, drop)
    assert lying(layout) == ["b.txt"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", ["grow", "rewrite", "touch"])
def test_a_writer_that_goes_on_after_the_file_settled_is_noticed(
    layout: Layout, mode: str, change: str
) -> None:
    """The claim is undone and nothing is lost, whatever it wrote before or after."""
    drop = dropped(layout, mode=mode)
    path = layout.inbox / "story.txt"
    with open(path, "r+b") as writer:
        if change == "grow":
            writer.seek(0, os.SEEK_END)
        writer.write(b"World." if change != "touch" else b"")
    if change == "touch":
        os.utime(path, ns=(1, 1))
    content = path.read_bytes()
    with pytest.raises(NotReady, match="it changed while it was being"):
        take(layout, drop)
    put_back(layout, drop)
    assert path.read_bytes() == content
    assert lying(layout) == ["story.txt"]
    assert not layout.source_folder(drop.id, mode).exists()


def test_a_writer_that_writes_while_we_hash_is_noticed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the file open, so the rename does not stop it; what it writes comes back with the file."""
    drop = dropped(layout)
    real = hashlib.file_digest
    with open(layout.inbox / "story.txt", "ab", buffering=0) as writer:

        def digest(*arguments: Any) -> Any:
            result = real(*arguments)
            writer.write(b" More.")
            return result

        monkeypatch.setattr(hashlib, "file_digest", digest)
        with pytest.raises(NotReady, match="it changed while it was being taken"):
            take(layout, drop)
    assert (layout.inbox / "story.txt").read_bytes() == b"Hello. More."


def test_a_changed_file_is_put_back_beside_a_new_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody dropped another under the same name in that moment: both stay."""
    drop = dropped(layout, stamp=(0, 0, 0, 0))
    real = claim.put_back

    def meanwhile(*arguments: Any) -> None:
        put(layout, "story.txt", "new")
        real(*arguments)

    monkeypatch.setattr(claim, "put_back", meanwhile)
    with pytest.raises(NotReady):
        take(layout, drop)
    assert lying(layout) == ["story.txt", "story~2.txt"]
    assert (layout.inbox / "story~2.txt").read_bytes() == b"Hello."


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EXDEV, "another filesystem than the inbox .* set intake.source to leave"),
        (errno.EACCES, f"permission denied; give user {os.geteuid()} write access to its folder"),
        (errno.EPERM, "permission denied"),
        (errno.EBUSY, "it cannot be moved now: Device or resource busy"),
        (errno.ENAMETOOLONG, "it cannot be moved now: File name too long"),
    ],
)
def test_a_file_that_cannot_be_moved_stays_with_the_reason(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    """It is not copied instead: that would not be atomic."""
    drop = dropped(layout)
    monkeypatch.setattr(os, "rename", failing(code))
    with pytest.raises(NotReady, match=said):
        take(layout, drop)
    assert lying(layout) == ["story.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_failing_disk_is_no_fault_of_the_file(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The intake pauses."""
    drop = dropped(layout)
    monkeypatch.setattr(os, "rename", failing(code))
    with pytest.raises(OSError) as caught:
        take(layout, drop)
    assert caught.value.errno == code
    assert lying(layout) == ["story.txt"]


@pytest.mark.parametrize("shared", [False, True])
def test_an_unreadable_file_is_not_ready(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Root reads everything, so the refusal is staged: on opening for a copy, or for the hash."""
    drop = dropped(layout)
    monkeypatch.setattr(claim, "copy" if shared else "open_regular", failing(errno.EACCES))
    with pytest.raises(NotReady, match=r"permission denied|cannot be read: Permission denied"):
        take(layout, drop, frozenset({"story.txt"} if shared else ()))
    assert lying(layout) == ["story.txt"]


def test_a_lost_reply_of_a_network_filesystem_is_a_success(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS may rename, lose the answer, repeat and then report that the file is not there."""
    drop = dropped(layout)
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        real(source, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "rename", rename)
    assert take(layout, drop)[0] == drop.sha256


def test_a_file_under_both_names_is_taken_once(layout: Layout) -> None:
    """A crash between the two steps of putting it back leaves two names of one file."""
    drop = dropped(layout)
    take(layout, drop)
    os.link(layout.claimed(drop.id) / "story.txt", layout.inbox / "story.txt")
    take(layout, drop)
    assert lying(layout) == []
    assert (layout.claimed(drop.id) / "story.txt").read_bytes() == b"Hello."


def test_a_last_move_that_a_crash_cut_in_the_middle_leaves_one_copy(layout: Layout) -> None:
    """Linked or copied already: the part goes under its own name, not under a second one beside it."""
    drop = dropped(layout, members=("story.txt", "a.txt", "b.txt"))
    for name, content in (("a.txt", b"one"), ("b.txt", b"two")):
        put(layout, name, content)
    take(layout, drop)
    layout.failed.mkdir(parents=True)
    os.link(layout.claimed(drop.id) / "a.txt", layout.failed / "a.txt")
    (layout.failed / "b.txt").write_bytes(b"two")
    finish_failed(layout, drop, [FAILURE])
    assert sorted(path.name for path in layout.failed.glob("[ab]*")) == ["a.txt", "b.txt"]


def test_a_resumed_claim_never_takes_a_newer_file_over_the_older(layout: Layout) -> None:
    """After a crash the same name may have been dropped again: two files, both kept."""
    drop = dropped(layout)
    take(layout, drop)
    put(layout, "story.txt", "A later one.")
    assert take(layout, drop)[0] == drop.sha256
    assert (layout.claimed(drop.id) / "story.txt").read_bytes() == b"Hello."
    assert (layout.inbox / "story.txt").read_text() == "A later one."


def test_a_shared_part_is_copied(layout: Layout) -> None:
    """And when the claim is undone, the copy goes and the original has never been away."""
    put(layout, "clip.wav", "sound")
    drop = dropped(layout, "a.yaml", members=("a.yaml", "clip.wav"))
    take(layout, drop, frozenset({"clip.wav"}))
    assert lying(layout) == ["clip.wav"]
    assert (layout.claimed(drop.id) / "clip.wav").read_text() == "sound"
    put_back(layout, drop)
    assert lying(layout) == ["a.yaml", "clip.wav"]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_putting_back_steps_around_whatever_lies_there(layout: Layout, kind: str) -> None:
    """A name of 255 bytes too; nothing is opened that might never end."""
    name = "x" * 251 + ".txt"
    drop = dropped(layout, name)
    take(layout, drop)
    make = {"folder": os.mkdir, "link": lambda p: os.symlink("/nowhere", p), "pipe": os.mkfifo}
    make[kind](layout.inbox / name)
    put_back(layout, drop)
    put_back(layout, drop)
    assert (layout.inbox / ("x" * 249 + "~2.txt")).read_bytes() == b"Hello."


def test_an_unknown_folder_returns_whole(layout: Layout) -> None:
    """All of its files, whatever they are called and whichever comes first."""
    folder = layout.claimed("lost")
    (folder / "clips").mkdir(parents=True)
    names = ["clips/a.wav", "e\u0301.yaml", os.fsdecode(b"z\xe9.txt")]
    for name in names:
        (folder / name).write_text(name, errors="surrogateescape")
    (folder / "link.txt").symlink_to("/nowhere")
    put(layout, "e\u0301.yaml", "newer")
    assert put_back_orphan(layout, folder) == sorted([*names, "link.txt"])
    assert lying(layout) == sorted([*names, "link.txt", "e\u0301~2.yaml"])
    assert not folder.exists()


# -- the last move ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_what_becomes_of_a_source_after_success(layout: Layout, mode: str) -> None:
    """`move`: in the done folder; `leave`: where it was; `delete`: gone. It can be done twice."""
    put(layout, "clip.wav", "sound")
    drop = dropped(layout, mode=mode, members=("story.txt", "clip.wav"))
    take(layout, drop)
    for _ in range(2):
        state, location = finish_done(layout, drop)
        assert state is DropState.DONE
        assert not layout.claimed(drop.id).exists() and not layout.spool(drop.id).exists()
    where = {path.relative_to(layout.inbox) for path in bytes_somewhere(layout, b"Hello.")}
    done = layout.done(drop.id)
    if mode == "move":
        assert location == ".voxspool/done/" + drop.id
        assert where == {(done / "story.txt").relative_to(layout.inbox)}
        assert (done / "clip.wav").exists()
    else:
        assert location == "" and where == ({Path("story.txt")} if mode == "leave" else set())


@pytest.mark.parametrize("mode", MODES)
def test_what_becomes_of_a_source_after_failure(layout: Layout, mode: str) -> None:
    """In failed/ with its parts and the notes, or still in the inbox; nothing is ever deleted."""
    put(layout, "sub/clips/c.wav", "sound")
    drop = dropped(layout, "sub/job.yaml", mode=mode, members=("sub/job.yaml", "sub/clips/c.wav"))
    take(layout, drop)
    results = {finish_failed(layout, drop, [FAILURE]) for _ in range(2)}
    failed = layout.failed / "sub"
    expected = "" if mode == "leave" else "failed/sub/job.yaml"
    assert results == {(DropState.FAILED, expected)}
    assert (failed / "job.yaml.error.txt").exists()
    root = layout.inbox / "sub" if mode == "leave" else failed
    assert (root / "job.yaml").read_bytes() == b"Hello." and (root / "clips/c.wav").read_text() == "sound"
    assert len(bytes_somewhere(layout, b"Hello.")) == 1
    assert not layout.source_folder(drop.id, mode).exists()


def test_failed_parts_never_replace_others(layout: Layout) -> None:
    """A part of the same name lies there from another failure."""
    for number in (1, 2):
        put(layout, "clip.wav", f"sound {number}")
        drop = dropped(layout, "job.yaml", b"%d" % number, id=f"d{number}", members=("job.yaml", "clip.wav"))
        take(layout, drop)
        finish_failed(layout, drop, [FAILURE])
    assert {path.name for path in layout.failed.iterdir() if ".error." not in path.name} == {
        "job.yaml",
        "job~2.yaml",
        "clip.wav",
        "clip~2.wav",
    }


def finish(layout: Layout, drop: Drop) -> None:
    """The last move after a failure, by way of a copy where it must be."""
    with claim._brought_near(layout, drop, [FAILURE]) as near:
        finish_failed(layout, drop, [FAILURE], near)


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("crosses", [False, True], ids=["one disk", "two disks"])
def test_a_crash_in_the_last_move_after_a_failure_loses_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, step: int, crosses: bool
) -> None:
    """At each file that is put somewhere; done again, all is where it belongs, once."""
    monkeypatch.setattr(claim, "_crosses", lambda *_: crosses)
    put(layout, "clip.wav", "sound")
    drop = dropped(layout, "job.yaml", members=("job.yaml", "clip.wav"))
    take(layout, drop)
    calls = 0

    class Crash(BaseException):
        pass

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= step:
                raise Crash
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("link", "unlink", "replace", "rename"):
            patch.setattr(os, name, dying(getattr(os, name)))
        with contextlib.suppress(Crash):
            finish(layout, drop)
    assert calls >= min(step, 5)
    assert bytes_somewhere(layout, b"Hello.") and bytes_somewhere(layout, b"sound")
    finish(layout, drop)
    names = {path.name for path in layout.failed.iterdir() if not path.name.startswith(".")}
    assert names == {"job.yaml", "clip.wav", "job.yaml.error.txt", "job.yaml.error.json"}
    assert len(bytes_somewhere(layout, b"sound")) == 1 == len(bytes_somewhere(layout, b"Hello."))


def test_a_stranger_s_file_that_comes_between_costs_nobody_his(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came under the name that was free a moment ago."""
    drop = dropped(layout)
    take(layout, drop)
    place = layout.failed / "story.txt"

    def beaten(*arguments: Any, **options: Any) -> Path:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("mine")
        return place

    with monkeypatch.context() as patch:
        patch.setattr(claim, "failed_name", beaten)
        with pytest.raises(FileExistsError):
            finish_failed(layout, drop, [FAILURE])
    assert place.read_text() == "mine" and bytes_somewhere(layout, b"Hello.")
    finish_failed(layout, drop, [FAILURE])
    assert place.read_text() == "mine" and (layout.failed / "story~2.txt").read_bytes() == b"Hello."


def test_a_copy_that_does_not_fit_waits_by_itself(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """`source: leave`: the disk of the state is not filled up for it, and smaller ones go first."""
    large = dropped(layout, "large.wav", b"x" * 5000, mode="leave")
    small = dropped(layout, "small.wav", mode="leave")
    monkeypatch.setattr(claim, "look", lambda _: Free(bytes=claim.SPOOL_MARGIN_BYTES + 4000, files=9.0))
    with pytest.raises(NotReady, match=r"needs 5 kB on the disk of the state, where 16.8 MB are free"):
        take(layout, large)
    assert not layout.spool(large.id).exists()
    take(layout, small)


# -- ending a drop ------------------------------------------------------------------------------------


def ended(ledger: Ledger, layout: Layout, *states: JobState) -> DropState | None:
    """A claimed drop whose jobs ended so."""
    drop = dropped(layout)
    ledger.plan_claim(drop)
    take(layout, drop)
    jobs = [a_job(f"d1-{index}", index=index) for index in range(len(states))]
    ledger.submit(drop, jobs)
    for job, state in zip(jobs, states, strict=True):
        if state is not JobState.QUEUED:
            bad = state is not JobState.DONE
            ledger.finish(job.id, state, code="c" if bad else "", message=f"{job.id} failed." if bad else "")
    return end_if_complete(layout, ledger, drop.id)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([JobState.DONE], DropState.DONE),
        ([JobState.DONE, JobState.QUEUED], None),
        ([JobState.FAILED, JobState.QUEUED], None),
        ([JobState.DONE, JobState.FAILED], DropState.FAILED),
        ([JobState.CANCELLED], DropState.FAILED),
    ],
)
def test_a_drop_ends_with_its_last_job(
    layout: Layout, ledger: Ledger, states: list[JobState], expected: DropState | None
) -> None:
    """Well, if all of them came out well; and only once."""
    assert ended(ledger, layout, *states) is expected
    drop = ledger.drop("d1")
    assert drop is not None and drop.state is (expected or DropState.CLAIMED)
    assert end_if_complete(layout, ledger, "d1") is None or expected is None


def test_nobody_waits_for_a_copy_to_another_filesystem(
    layout: Layout, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may end their drops meanwhile; nothing is left of the copy."""
    waited: list[bool] = []
    real = claim.copy

    def slow(source: Path, target: Path) -> None:
        with exclusive_lock(layout.state / "sources.lock") as free:
            waited.append(not free)
        assert layout.outbox in target.parents and not target.is_relative_to(layout.failed)
        real(source, target)

    monkeypatch.setattr(claim, "_crosses", lambda *_: True)
    monkeypatch.setattr(claim, "copy", slow)
    assert ended(ledger, layout, JobState.FAILED) is DropState.FAILED
    assert waited == [False]
    assert (layout.failed / "story.txt").read_bytes() == b"Hello."
    assert len(bytes_somewhere(layout, b"Hello.")) == 1 and not list(layout.publishing_root.iterdir())


def test_who_is_second_to_end_a_drop_leaves_it_alone(
    layout: Layout, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though he has copied it already."""
    monkeypatch.setattr(claim, "_crosses", lambda *_: True)
    real = claim.copy

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(claim, "copy", real)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert end_if_complete(layout, ledger, "d1") is DropState.FAILED
        real(source, target)

    monkeypatch.setattr(claim, "copy", overtaken)
    assert ended(ledger, layout, JobState.FAILED) is None
    assert {path.name for path in layout.failed.iterdir()} == {
        "story.txt",
        "story.txt.error.txt",
        "story.txt.error.json",
    }
    assert not list(layout.publishing_root.iterdir())


def test_only_the_jobs_that_failed_are_told(layout: Layout, ledger: Ledger) -> None:
    """By their number in the file."""
    ended(ledger, layout, JobState.DONE, JobState.FAILED, JobState.CANCELLED)
    note = (layout.failed / "story.txt.error.txt").read_text()
    assert note.startswith("Job 2: d1-1 failed.\nJob 3: d1-2 failed.\n")


def test_an_unknown_drop_ends_nowhere(layout: Layout, ledger: Ledger) -> None:
    """Nothing happens."""
    assert end_if_complete(layout, ledger, "nobody") is None
    assert not layout.failed.exists()


def test_what_cannot_be_deleted_is_not_called_deleted(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`source: delete`: the last move is still to come, and is tried again."""
    drop = dropped(layout, mode="delete")
    take(layout, drop)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing(errno.EPERM))
        with pytest.raises(PermissionError):
            finish_done(layout, drop)
    assert (layout.claimed(drop.id) / drop.name).exists()
    assert finish_done(layout, drop) == (DropState.DONE, "")
    assert not layout.claimed(drop.id).exists()
