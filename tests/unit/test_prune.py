"""Pruning on a real disk: what goes, what is left alone, and that no trick leads it astray."""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from ledger_samples import Clock, a_drop, a_job, publish, submit

from pipeline.cache import TakeCache
from pipeline.config import Retention
from pipeline.files import sha256_of
from pipeline.guards import Guards, locked, open_elsewhere
from pipeline.intake.roots import MARKER_NAME, Mount, Role, memory_key, open_root
from pipeline.jobs.job import DropState, JobSpec, JobState, VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.prune import apply, rehearse, synced_pools
from pipeline.retention import Plan, Pool, Seen, Unit, describe
from pipeline.stock import survey

DAY = 86_400.0
# A cap of 250 bytes: two results of 100 bytes each fit.
RULES = Retention(keep_newest=0, keep_hours=0, outbox_max_gb=250e-9)


@pytest.fixture
def clock() -> Clock:
    """The time, in our hands."""
    return Clock()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Four empty roots."""
    places = [tmp_path / name for name in ("inbox", "outbox", "voices", "state")]
    for place in places:
        place.mkdir()
    return Layout(*places)


@pytest.fixture
def ledger(layout: Layout, clock: Clock) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = Ledger(layout.ledger_file, clock=clock)
    yield opened
    opened.close()


def a_result(ledger: Ledger, layout: Layout, stem: str, folder: str = ".", size: int = 100) -> list[Path]:
    """A finished job of `size` bytes in three files; the next one is a day younger."""
    files = {f"{stem}.wav": b"a" * (size - 20), f"{stem}.log": b"b" * 10, f"{stem}.json": b"c" * 10}
    paths = publish(ledger, layout.outbox, stem, files, folder=folder)
    ledger._clock.now += DAY  # type: ignore[attr-defined]
    return paths


def made(ledger: Ledger, layout: Layout, rules: Retention = RULES, **more: object) -> Plan:
    """A plan now."""
    now = ledger._clock()
    seen = Seen(wall=now, uptime=now, boot="b")
    return rehearse(ledger, layout, rules, clock=lambda: seen, **more)  # type: ignore[arg-type]


def prune(ledger: Ledger, layout: Layout, rules: Retention = RULES, **more: object) -> list[str]:
    """Plan and do; the names of what went."""
    done = apply(made(ledger, layout, rules, **more), ledger, layout)
    return [item.unit.name for item in done.removed]


def stays(ledger: Ledger, layout: Layout) -> dict[str, str]:
    """Why each thing that should go stays."""
    return {item.unit.name: item.reason for item in made(ledger, layout).spared}


def test_the_oldest_result_goes_whole_and_is_forgotten(ledger: Ledger, layout: Layout) -> None:
    """Audio, log and manifest of one job, and its name is free again."""
    old = a_result(ledger, layout, "old")
    kept = [*a_result(ledger, layout, "b"), *a_result(ledger, layout, "c")]
    stranger = layout.outbox / "theirs.wav"
    stranger.write_bytes(b"x" * 10_000)
    assert prune(ledger, layout) == ["old"]
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)
    assert stranger.exists()
    assert ledger.results.find(PurePosixPath("."), "old") is None


def test_a_rehearsal_changes_nothing(ledger: Ledger, layout: Layout) -> None:
    """And names exactly what pruning then removes."""
    paths = [path for stem in "abc" for path in a_result(ledger, layout, stem)]
    names = [item.unit.name for item in made(ledger, layout).going]
    assert all(path.exists() for path in paths)
    assert prune(ledger, layout) == names == ["a"]


def test_the_manifest_goes_first(ledger: Ledger, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash after the first file leaves no manifest that promises what is gone; the rest goes next time."""
    files = {"a.flac": b"a" * 80, "a.log": b"b" * 10, "a.json": b"c" * 10}
    publish(ledger, layout.outbox, "a", files)
    ledger._clock.now += DAY  # type: ignore[attr-defined]
    for stem in "bc":
        a_result(ledger, layout, stem)
    removed: list[str] = []
    real = os.unlink

    def unlink(path: object, *args: object, **kwargs: object) -> None:
        removed.append(str(path))
        if len(removed) == 2:
            raise OSError(5, "Input/output error")
        real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", unlink)
    outcome = apply(made(ledger, layout), ledger, layout)
    monkeypatch.undo()
    assert removed[0] == "a.json"
    assert [item.reason for item in outcome.kept] == ["cannot be removed: Input/output error"]
    assert not (layout.outbox / "a.json").exists()
    rules = replace_cap(190e-9)
    assert "a" in prune(ledger, layout, rules, more_than_half=True)
    assert not (layout.outbox / "a.flac").exists()


def replace_cap(gb: float) -> Retention:
    """The rules with another cap."""
    return RULES.model_copy(update={"outbox_max_gb": gb})


def test_a_changed_result_belongs_to_whoever_changed_it(ledger: Ledger, layout: Layout) -> None:
    """Edited in place with the same length, or with another; the whole job stays."""
    same, other = a_result(ledger, layout, "same"), a_result(ledger, layout, "other")
    a_result(ledger, layout, "c")
    a_result(ledger, layout, "d")
    same[0].write_bytes(b"e" * 80)
    other[1].write_bytes(b"longer than it was")
    reasons = stays(ledger, layout)
    assert reasons == {"same": "same.wav was changed", "other": "other.log was changed"}
    assert prune(ledger, layout) == ["c", "d"]
    assert all(path.exists() for path in (*same, *other))


def test_a_result_that_was_only_touched_or_copied_is_still_ours(ledger: Ledger, layout: Layout) -> None:
    """A restored backup has other times; the contents decide."""
    for path in a_result(ledger, layout, "old"):
        os.utime(path, (1, 1))
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    assert prune(ledger, layout) == ["old"]


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ("sub/old.wav.keep", "carries a keep mark"),
        ("sub/old.json.keep", "carries a keep mark"),
        ("sub/old.keep", "carries a keep mark"),
        ("sub/.keep", "carries a keep mark"),
        (".keep", ".keep keeps everything below it"),
    ],
)
def test_a_keep_mark_keeps(ledger: Ledger, layout: Layout, mark: str, reason: str) -> None:
    """Beside a file, in its folder, or above."""
    old = a_result(ledger, layout, "old", folder="sub")
    a_result(ledger, layout, "b", folder="other")
    a_result(ledger, layout, "c", folder="other")
    (layout.outbox / mark).touch()
    assert stays(ledger, layout)["sub/old"] == reason
    assert "sub/old" not in prune(ledger, layout)
    assert all(path.exists() for path in old)


def test_a_result_that_somebody_plays_stays(ledger: Ledger, layout: Layout) -> None:
    """Another process has the audio open for reading: nothing of the job goes, until it is closed."""
    [wav, *_] = a_result(ledger, layout, "old")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    if not _lease_works(wav.parent):
        pytest.skip("this filesystem knows no leases")
    with player(wav):
        assert stays(ledger, layout)["old"] == "old.wav is open"
    assert prune(ledger, layout) == ["old"]


def _lease_works(folder: Path) -> bool:
    probe = folder / ".probe"
    probe.touch()
    with open(probe, "rb"):
        second = os.open(probe, os.O_RDONLY)
        try:
            return open_elsewhere(second) is True
        finally:
            os.close(second)
            probe.unlink()


def test_a_locked_file_is_in_use(tmp_path: Path) -> None:
    """A program that locks the file but keeps it elsewhere open counts too."""
    path = tmp_path / "a"
    path.touch()
    with open(path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_SH)
        second = os.open(path, os.O_RDONLY)
        assert locked(second)
        os.close(second)


def test_the_newest_jobs_and_those_of_today_stay(ledger: Ledger, layout: Layout) -> None:
    """By default twenty jobs and 24 hours, whatever the cap says."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    default = Retention(outbox_max_gb=1e-9)
    assert prune(ledger, layout, default) == []
    ledger._clock.now -= 2.5 * DAY  # type: ignore[attr-defined]
    assert prune(ledger, layout, Retention(outbox_max_gb=1e-9, keep_newest=0), more_than_half=True) == []


def test_a_link_in_the_way_is_never_followed(ledger: Ledger, layout: Layout, tmp_path: Path) -> None:
    """A folder swapped for a link to another place with files of the same names and contents."""
    a_result(ledger, layout, "old", folder="sub")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    elsewhere = tmp_path / "elsewhere"
    (layout.outbox / "sub").rename(elsewhere)
    (layout.outbox / "sub").symlink_to(elsewhere)
    plan = made(ledger, layout)
    assert "without following a link" in {i.unit.name: i.reason for i in plan.spared}["sub/old"]
    apply(plan, ledger, layout)
    assert sorted(os.listdir(elsewhere)) == ["old.json", "old.log", "old.wav"]


def test_a_link_put_there_after_the_plan_is_not_followed(
    ledger: Ledger, layout: Layout, tmp_path: Path
) -> None:
    """Everything is looked at again right before it goes."""
    paths = a_result(ledger, layout, "old", folder="sub")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    plan = made(ledger, layout)
    elsewhere = tmp_path / "elsewhere"
    (layout.outbox / "sub").rename(elsewhere)
    (layout.outbox / "sub").symlink_to(elsewhere)
    outcome = apply(plan, ledger, layout)
    assert outcome.removed == ()
    assert (elsewhere / paths[0].name).exists()


def test_a_result_swapped_for_a_link_is_not_ours(ledger: Ledger, layout: Layout, tmp_path: Path) -> None:
    """The link's target is safe, and so is the link."""
    [wav, *_] = a_result(ledger, layout, "old")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    wav.rename(tmp_path / "moved.wav")
    wav.symlink_to(tmp_path / "moved.wav")
    assert stays(ledger, layout)["old"].startswith("old.wav cannot be looked at")
    assert (tmp_path / "moved.wav").exists()


def test_a_result_made_anew_since_the_plan_stays(ledger: Ledger, layout: Layout) -> None:
    """The redrop published between plan and deed."""
    a_result(ledger, layout, "a")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    plan = made(ledger, layout)
    new = a_result(ledger, layout, "a")
    outcome = apply(plan, ledger, layout)
    assert [item.reason for item in outcome.kept] == ["a new version of it was made meanwhile"]
    assert all(path.exists() for path in new)


def test_a_path_that_leads_upwards_is_refused(ledger: Ledger, layout: Layout) -> None:
    """Even if the ledger itself were tampered with."""
    unit = Unit(
        pool=Pool.RESULTS,
        key="j",
        name="x",
        root=layout.outbox,
        folder=PurePosixPath("../state"),
        pieces=(),
        moment=0.0,
    )
    assert "leads upwards" in Guards(ledger, layout).obstacle(unit)


# -- processed sources -------------------------------------------------------------------------


def a_source(ledger: Ledger, layout: Layout, key: str, *, kind: str = "vc", size: int = 100) -> Path:
    """A processed recording in the done folder, dropped into a subfolder."""
    folder = layout.done(key)
    folder.mkdir(parents=True)
    path = folder / "talk.wav"
    path.write_bytes(key.encode()[:1] * size)
    status = path.stat()
    drop = a_drop(key, relative="sub/talk.wav")
    digest = sha256_of(path)
    drop = replace(drop, stamp=(status.st_ino, status.st_size, status.st_mtime_ns, 0), sha256=digest)
    spec = JobSpec(kind=kind, settings=Settings(), voice=VoiceChoice(name="x"))  # type: ignore[arg-type]
    submit(ledger, a_job(f"{key}-0", drop_id=key, spec=spec), drop=drop)
    ledger.finish(f"{key}-0", JobState.DONE)
    ledger.end_drop(key, DropState.DONE, str(folder))
    ledger._clock.now += DAY  # type: ignore[attr-defined]
    return path


def test_old_recordings_go_over_their_cap_and_the_ledger_knows(ledger: Ledger, layout: Layout) -> None:
    """The whole folder of the drop; texts do not count."""
    paths = [a_source(ledger, layout, key) for key in ("a", "b", "c", "d")]
    text = a_source(ledger, layout, "e", kind="tts", size=10_000)
    rules = RULES.model_copy(update={"vc_inputs_max_gb": 350e-9})
    assert prune(ledger, layout, rules) == ["sub/talk.wav"]
    assert [path.parent.exists() for path in (*paths, text)] == [False, True, True, True, True]
    drop = ledger.drop("a")
    assert drop is not None
    assert (drop.state, drop.location) == (DropState.DONE, "")


@pytest.mark.parametrize("stranger", ["notes.txt", "deep/er.txt", "link"])
def test_a_done_folder_with_something_foreign_in_it_stays(
    ledger: Ledger, layout: Layout, stranger: str, tmp_path: Path
) -> None:
    """Somebody put a file there: the folder is not removed with it."""
    paths = [a_source(ledger, layout, key) for key in ("a", "b", "c", "d")]
    extra = paths[0].parent / stranger
    extra.parent.mkdir(exist_ok=True)
    if stranger == "link":
        extra.symlink_to(tmp_path)
    else:
        extra.write_text("mine")
    rules = RULES.model_copy(update={"vc_inputs_max_gb": 350e-9})
    plan = made(ledger, layout, rules)
    assert [item.unit.key for item in plan.going] == ["b"]
    assert plan.spared[0].reason == f"holds {extra.name}, which is not ours"


def test_companions_with_decomposed_names_are_ours(ledger: Ledger, layout: Layout) -> None:
    """As a Mac spells them; in the done folder they lie as job files spell names."""
    paths = [a_source(ledger, layout, key) for key in ("b", "c", "d")]
    folder = layout.done("a")
    folder.mkdir(parents=True)
    for name, size in (("job.yaml", 10), (unicodedata.normalize("NFC", "Bücher.wav"), 390)):
        (folder / name).write_bytes(b"a" * size)
    status = (folder / "job.yaml").stat()
    drop = a_drop("a", relative="sub/job.yaml", claimed_at=1_700_000_000.0)
    members = ("sub/job.yaml", "sub/" + unicodedata.normalize("NFD", "Bücher.wav"))
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, 0)
    spec = JobSpec(kind="vc", settings=Settings(), voice=VoiceChoice(name="x"))
    job = a_job("a-0", drop_id="a", spec=spec)
    digest = sha256_of(folder / "job.yaml")
    submit(ledger, job, drop=replace(drop, members=members, stamp=stamp, sha256=digest))
    ledger.finish("a-0", JobState.DONE)
    ledger._clock.now -= 30 * DAY  # type: ignore[attr-defined]
    ledger.end_drop("a", DropState.DONE, str(folder))
    ledger._clock.now += 30 * DAY  # type: ignore[attr-defined]
    rules = RULES.model_copy(update={"vc_inputs_max_gb": 350e-9})
    plan = made(ledger, layout, rules, more_than_half=True)
    assert [(item.unit.key, item.unit.bytes) for item in plan.going] == [("a", 400)]
    apply(plan, ledger, layout)
    assert not folder.exists() and all(path.exists() for path in paths)


def test_a_source_that_was_changed_stays(ledger: Ledger, layout: Layout) -> None:
    """Its contents are no longer those of the drop."""
    paths = [a_source(ledger, layout, key) for key in ("a", "b", "c", "d")]
    paths[0].write_bytes(b"z" * 100)
    os.utime(paths[0], (5, 5))
    rules = RULES.model_copy(update={"vc_inputs_max_gb": 350e-9})
    assert made(ledger, layout, rules).spared[0].reason == "talk.wav was changed"


# -- work and cache ----------------------------------------------------------------------------


def test_left_over_work_of_ended_jobs_goes_and_other_work_stays(ledger: Ledger, layout: Layout) -> None:
    """Queued and running jobs keep theirs, and a folder that the ledger does not know is not ours."""
    submit(ledger, a_job("ended"), a_job("queued", index=1), drop=a_drop("d1", mode="leave"))
    ledger.finish("ended", JobState.FAILED)
    ledger.end_drop("d1", DropState.FAILED, "")
    places = [layout.work("ended"), layout.publishing("ended"), layout.spool("d1")]
    safe = [layout.work("queued"), layout.work("nobody"), layout.publishing("nobody")]
    for place in (*places, *safe):
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "take.wav").write_bytes(b"x")
        os.utime(place / "deep" / "take.wav", (1, 1))
    assert sorted(prune(ledger, layout)) == [".voxspool/tmp/ended", "spool/d1", "work/ended"]
    assert not any(place.exists() for place in places)
    assert all(place.exists() for place in safe)


def test_work_is_removed_without_following_links(ledger: Ledger, layout: Layout, tmp_path: Path) -> None:
    """A link inside a work folder goes; what it points to stays."""
    submit(ledger, a_job("ended"))
    ledger.finish("ended", JobState.FAILED)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a").write_text("mine")
    layout.work("ended").mkdir(parents=True)
    (layout.work("ended") / "link").symlink_to(precious)
    os.utime(layout.work("ended") / "link", (1, 1), follow_symlinks=False)
    assert prune(ledger, layout) == ["work/ended"]
    assert (precious / "a").exists()


def test_takes_used_least_recently_go_first(ledger: Ledger, layout: Layout) -> None:
    """All files of a take together: sheet, sound, transcripts."""
    keys = ["aa" + "0" * 62, "aa" + "1" * 62, "bb" + "2" * 62]
    for age, key in enumerate(keys):
        shelf = layout.cache / key[:2]
        shelf.mkdir(parents=True, exist_ok=True)
        for name in (f"{key}.wav", f"{key}.json", f"{key}.0123456789ab.json"):
            (shelf / name).write_bytes(b"x" * 100)
            os.utime(shelf / name, (1000 - age, 1000 - age))
    rules = RULES.model_copy(update={"cache_max_gb": 650e-9})
    assert prune(ledger, layout, rules) == [keys[2][:16]]
    assert sorted(path.name for path in layout.cache.glob("*/*"))[0].startswith("aa")
    assert len(list(layout.cache.glob("*/*"))) == 6


def test_the_cache_does_without_what_was_pruned(ledger: Ledger, layout: Layout) -> None:
    """A take whose sheet is gone counts as absent."""
    key = "cc" + "0" * 62
    shelf = layout.cache / "cc"
    shelf.mkdir(parents=True)
    (shelf / f"{key}.wav").write_bytes(b"x")
    assert TakeCache(layout.cache).speech(key) is None
    assert [unit.pool for unit in survey(ledger, layout)] == [Pool.CACHE]


# -- synced folders and clocks -----------------------------------------------------------------


@pytest.mark.parametrize(
    "mark", [".stfolder", ".sync", ".dropbox", "._sync_1a2b.db", ".csync_journal.db-wal"]
)
@pytest.mark.parametrize("above", [False, True])
def test_a_synced_outbox_is_reported_and_not_pruned(
    ledger: Ledger, layout: Layout, mark: str, above: bool
) -> None:
    """Until somebody accepts that deletes spread."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    folder = layout.outbox.parent if above else layout.outbox
    (folder / mark).touch()
    plan = made(ledger, layout)
    assert plan.going == ()
    assert plan.refused[0][0] is Pool.RESULTS
    assert "deletes_propagate: accepted" in plan.refused[0][1]
    assert [item.unit.name for item in plan.spared] == ["a"]
    accepted = RULES.model_copy(update={"deletes_propagate": "accepted"})
    assert prune(ledger, layout, accepted) == ["a"]


def test_an_ignored_hidden_folder_does_not_spread(layout: Layout) -> None:
    """With `/.voxspool` in Syncthing's .stignore the done folder may be pruned."""
    (layout.inbox / ".stfolder").mkdir()
    assert set(synced_pools(layout)) == {Pool.SOURCES}
    (layout.inbox / ".stignore").write_text("*.tmp\n/.voxspool\n")
    assert synced_pools(layout) == {}


def look(ledger: Ledger, layout: Layout, hours: float, *, set_by_hours: float = 0, boot: str = "b") -> Plan:
    """A plan after so many hours of running, by a clock that was put forward."""
    wall = 1_900_000_000.0 + (hours + set_by_hours) * 3600
    seen = Seen(wall=wall, uptime=hours * 3600, boot=boot)
    return rehearse(ledger, layout, RULES, clock=lambda: seen)


@pytest.mark.parametrize("jump", [24 * 365, 5, -24 * 365])
def test_a_clock_that_was_set_is_not_believed_for_a_day(ledger: Ledger, layout: Layout, jump: float) -> None:
    """What was made just before it was set looks a year old: it stays until it is a day old indeed."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    assert [item.unit.name for item in look(ledger, layout, 0).going] == ["a"]
    jumped = look(ledger, layout, 5, set_by_hours=jump)
    assert jumped.going == () and {pool for pool, _ in jumped.refused} == set(Pool)
    assert "the clock was set" in jumped.refused[0][1] and "nothing is removed until" in jumped.refused[0][1]
    for hours in (5.1, 10, 20, 28.9):
        assert look(ledger, layout, hours, set_by_hours=jump).going == ()
    believed = look(ledger, layout, 29.1, set_by_hours=jump)
    assert believed.going != () and believed.refused == ()


def test_a_clock_that_is_set_back_right_is_watched_for_another_day(ledger: Ledger, layout: Layout) -> None:
    """It jumped twice."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    look(ledger, layout, 0), look(ledger, layout, 5, set_by_hours=8760)
    assert look(ledger, layout, 10).going == () and look(ledger, layout, 33).going == ()
    assert look(ledger, layout, 34.1).going != ()


def test_a_restart_does_not_end_the_doubt(ledger: Ledger, layout: Layout) -> None:
    """Neither of the daemon nor of the machine."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    look(ledger, layout, 0), look(ledger, layout, 5, set_by_hours=8760)
    assert look(ledger, layout, 6, set_by_hours=8760, boot="c").going == ()
    assert look(ledger, layout, 30, set_by_hours=8760, boot="c").going != ()


def test_a_machine_that_was_off_for_long_prunes_at_the_second_look(ledger: Ledger, layout: Layout) -> None:
    """As after a holiday; the first look cannot tell it from a wrong clock."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    look(ledger, layout, 0)
    assert look(ledger, layout, 100, boot="c").going == ()
    assert look(ledger, layout, 105, boot="c").going != ()


def test_the_machine_s_own_clock_is_believed_twice_in_a_row(ledger: Ledger, layout: Layout) -> None:
    """The real clocks agree with themselves."""
    for _ in range(2):
        assert rehearse(ledger, layout, RULES) == Plan()


def test_a_lost_outbox_is_not_forgotten(ledger: Ledger, layout: Layout) -> None:
    """Nothing there: nothing goes, and the ledger still knows what is ours."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    layout.outbox.rename(layout.outbox.with_name("unmounted"))
    layout.outbox.mkdir()
    assert prune(ledger, layout) == []
    assert len(ledger.results.all()) == 3


# -- folders that are not what they were -------------------------------------------------------


def mark(ledger: Ledger, layout: Layout) -> None:
    """Inbox and outbox as the daemon marks and remembers them."""
    for role, path in ((Role.INBOX, layout.inbox), (Role.OUTBOX, layout.outbox)):
        marker = open_root(path, role).marker
        assert marker is not None
        ledger.set_meta(memory_key(role, path), marker.uuid)


@pytest.mark.parametrize("loss", ["no mark", "another mark", "gone"])
def test_another_folder_in_the_outbox_s_place_is_left_alone(
    ledger: Ledger, layout: Layout, tmp_path: Path, loss: str
) -> None:
    """A backup that was mounted there by mistake holds the same names and the same bytes."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    mark(ledger, layout)
    backup = tmp_path / "backup"
    shutil.copytree(layout.outbox, backup)
    layout.outbox.rename(tmp_path / "away")
    if loss == "no mark":
        (backup / MARKER_NAME).unlink()
    if loss == "another mark":
        (backup / MARKER_NAME).write_text('{"uuid": "other", "role": "outbox"}')
    if loss != "gone":
        backup.rename(layout.outbox)
    plan = made(ledger, layout)
    assert plan.going == () and plan.spared == ()
    assert [pool for pool, _ in plan.refused] == [Pool.RESULTS]
    assert str(layout.outbox) in plan.notes[0] and plan.notes[0].endswith("what is there is left alone.")
    assert apply(plan, ledger, layout).removed == ()


def test_a_folder_that_is_replaced_after_the_plan_is_left_alone(
    ledger: Ledger, layout: Layout, tmp_path: Path
) -> None:
    """Each time before something goes the mark is looked at."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    mark(ledger, layout)
    plan = made(ledger, layout)
    assert [item.unit.name for item in plan.going] == ["a"]
    shutil.copytree(layout.outbox, tmp_path / "backup")
    (tmp_path / "backup" / MARKER_NAME).unlink()
    layout.outbox.rename(tmp_path / "away")
    (tmp_path / "backup").rename(layout.outbox)
    outcome = apply(plan, ledger, layout)
    assert outcome.removed == () and "has lost its mark" in outcome.kept[0].reason
    assert (layout.outbox / "a.wav").exists() and (tmp_path / "away" / "a.wav").exists()


def test_a_lost_inbox_stops_only_what_is_its_own(ledger: Ledger, layout: Layout) -> None:
    """The outbox is pruned on."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    for key in ("x", "y", "z"):
        a_source(ledger, layout, key)
    mark(ledger, layout)
    (layout.inbox / MARKER_NAME).unlink()
    rules = RULES.model_copy(update={"vc_inputs_max_gb": 100e-9})
    assert prune(ledger, layout, rules) == ["a"]
    assert [pool for pool, _ in made(ledger, layout, rules).refused] == [Pool.SOURCES]


def test_a_filesystem_mounted_inside_the_outbox_is_not_entered(ledger: Ledger, layout: Layout) -> None:
    """It holds files of the same names and contents."""
    paths = a_result(ledger, layout, "old", folder="sub")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    contents = {path.name: path.read_bytes() for path in paths}
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(layout.outbox / "sub")]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        for name, content in contents.items():
            (layout.outbox / "sub" / name).write_bytes(content)
        assert "another filesystem is mounted there" in stays(ledger, layout)["sub/old"]
        assert all(path.exists() for path in paths)
    finally:
        subprocess.run(["umount", str(layout.outbox / "sub")], check=True)
    assert all(path.exists() for path in paths)


# -- who has it open ---------------------------------------------------------------------------


@contextlib.contextmanager
def player(path: Path) -> Iterator[None]:
    """Another process that has a file open for reading."""
    script = "import sys; f = open(sys.argv[1], 'rb'); print('open', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.communicate()


@pytest.mark.parametrize(
    ("filesystem", "code"), [("nfs4", errno.EAGAIN), ("cifs", errno.EAGAIN), ("ext4", errno.EACCES)]
)
def test_where_no_lease_is_granted_this_machine_s_programs_are_asked(
    ledger: Ledger, layout: Layout, monkeypatch: pytest.MonkeyPatch, filesystem: str, code: int
) -> None:
    """NFS and SMB refuse every lease: taken at its word, nothing there would ever be pruned."""
    [wav, *_] = a_result(ledger, layout, "old")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    share = Mount(point="/", filesystem=filesystem, source="x", read_only=False)
    monkeypatch.setattr("pipeline.intake.roots.read_mounts", lambda: (share,))
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(code, os.strerror(code))
        return real(descriptor, command, argument)

    monkeypatch.setattr("pipeline.guards.fcntl.fcntl", refuse)
    with player(wav):
        assert stays(ledger, layout)["old"] == "old.wav is open"
    assert prune(ledger, layout) == ["old"]


# -- further marks and changes -----------------------------------------------------------------


def test_a_change_that_hides_itself_is_found(ledger: Ledger, layout: Layout) -> None:
    """A tag editor that keeps size and time, as many do."""
    [wav, *_] = a_result(ledger, layout, "old")
    a_result(ledger, layout, "b")
    a_result(ledger, layout, "c")
    status = wav.stat()
    wav.write_bytes(b"e" * 80)
    os.utime(wav, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert stays(ledger, layout) == {"old": "old.wav was changed"}


def test_a_keep_mark_that_appears_after_the_plan_keeps(ledger: Ledger, layout: Layout) -> None:
    """Everything is asked once more."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    plan = made(ledger, layout)
    (layout.outbox / "a.wav.keep").touch()
    outcome = apply(plan, ledger, layout)
    assert [item.reason for item in outcome.kept] == ["carries a keep mark"]
    assert (layout.outbox / "a.json").exists()


def test_what_the_ledger_did_not_make_stays_however_full_it_is(ledger: Ledger, layout: Layout) -> None:
    """A stranger's file, one beside our result, a failed drop and its note, `status.json`."""
    for stem in "abc":
        a_result(ledger, layout, stem)
    strangers = ["theirs.wav", "a.txt", "failed/a.txt", "failed/a.txt.error.txt", "status.json", "b.flac"]
    for name in strangers:
        (layout.outbox / name).parent.mkdir(exist_ok=True)
        (layout.outbox / name).write_bytes(b"x" * 10_000)
    prune(ledger, layout, RULES.model_copy(update={"outbox_max_gb": 1e-9}), more_than_half=True)
    assert sorted(
        str(p.relative_to(layout.outbox)) for p in layout.outbox.rglob("*") if p.is_file()
    ) == sorted(strangers)


# -- the ledger's own history ------------------------------------------------------------------


def an_old_drop(ledger: Ledger, key: str, state: JobState = JobState.DONE, **changes: object) -> None:
    """A drop that ended two years ago."""
    submit(ledger, a_job(f"{key}-0", drop_id=key), drop=a_drop(key, relative=f"{key}.txt", **changes))
    ledger.finish(f"{key}-0", state)
    ledger._clock.now -= 730 * DAY  # type: ignore[attr-defined]
    location = f"failed/{key}.txt" if state is JobState.FAILED else ""
    ledger.end_drop(key, DropState.FAILED if state is JobState.FAILED else DropState.DONE, location)
    ledger._clock.now += 730 * DAY  # type: ignore[attr-defined]


def known(ledger: Ledger) -> set[str]:
    """Ids of the drops that the ledger knows."""
    return {drop.id for drop in ledger.drops_in(*DropState)}


def test_drops_of_which_nothing_is_left_are_forgotten_after_a_year(ledger: Ledger, layout: Layout) -> None:
    """Source deleted or pruned, failed file taken away, result gone; a rehearsal only says so."""
    an_old_drop(ledger, "deleted", mode="delete"), an_old_drop(ledger, "pruned")
    an_old_drop(ledger, "retried", JobState.FAILED), an_old_drop(ledger, "left", mode="leave")
    plan = made(ledger, layout)
    assert set(plan.forgotten) == known(ledger) == {"deleted", "pruned", "retried", "left"}
    assert describe(plan)[0] == "The ledger forgets 4 dropped files and 0 results of which nothing is left."
    assert apply(plan, ledger, layout).forgotten == 4
    assert known(ledger) == set() and made(ledger, layout) == Plan()


def test_drops_of_which_something_is_left_are_never_forgotten(ledger: Ledger, layout: Layout) -> None:
    """The audit, the next look at the inbox, a retry or a redrop would miss them."""
    an_old_drop(ledger, "failed", JobState.FAILED)
    (layout.failed).mkdir()
    (layout.failed / "failed.txt").write_text("x")
    an_old_drop(ledger, "left", mode="leave"), (layout.inbox / "left.txt").write_text("x")
    an_old_drop(ledger, "job", mode="leave", members=("job.txt", "part.wav"))
    (layout.inbox / "part.wav").write_text("x")
    an_old_drop(ledger, "spoken", mode="delete")
    publish(ledger, layout.outbox, "spoken", {"spoken.wav": b"x"}, job_id="spoken-0")
    a_source(ledger, layout, "source", kind="tts")
    ledger._clock.now += 730 * DAY  # type: ignore[attr-defined]
    everything = known(ledger)
    assert prune(ledger, layout, Retention(history_max_jobs=1000)) == []
    assert known(ledger) == everything == {"failed", "left", "job", "spoken", "source"}


def test_a_done_source_that_is_missing_stays_known(ledger: Ledger, layout: Layout) -> None:
    """That it is gone is for the audit to tell, for as long as it takes."""
    path = a_source(ledger, layout, "source", kind="tts")
    shutil.rmtree(path.parent)
    ledger._clock.now += 730 * DAY  # type: ignore[attr-defined]
    prune(ledger, layout)
    assert known(ledger) == {"source"}


def test_results_that_were_taken_away_are_forgotten_after_a_year(ledger: Ledger, layout: Layout) -> None:
    """Whoever fetches results takes them away: their rows would pile up for ever. The drop goes next time."""
    an_old_drop(ledger, "a", mode="delete")
    ledger._clock.now -= 730 * DAY  # type: ignore[attr-defined]
    paths = publish(ledger, layout.outbox, "a", {"a.wav": b"x", "a.json": b"{}"}, job_id="a-0")
    ledger._clock.now += 730 * DAY  # type: ignore[attr-defined]
    prune(ledger, layout)
    assert len(ledger.results.all()) == 1
    for path in paths:
        path.unlink()
    prune(ledger, layout)
    assert ledger.results.all() == [] and known(ledger) == {"a"}
    prune(ledger, layout)
    assert known(ledger) == set()


def test_a_result_that_was_taken_away_lately_stays_known(ledger: Ledger, layout: Layout) -> None:
    """It may come back."""
    for path in a_result(ledger, layout, "a"):
        path.unlink()
    ledger._clock.now += 300 * DAY  # type: ignore[attr-defined]
    prune(ledger, layout)
    assert len(ledger.results.all()) == 1


@pytest.mark.parametrize("root", ["inbox", "outbox"])
def test_nothing_is_forgotten_while_a_folder_is_away(ledger: Ledger, layout: Layout, root: str) -> None:
    """What cannot be seen may still be there."""
    an_old_drop(ledger, "a", mode="leave"), an_old_drop(ledger, "b", JobState.FAILED)
    mark(ledger, layout)
    (getattr(layout, root) / MARKER_NAME).unlink()
    prune(ledger, layout)
    assert known(ledger) == {"a", "b"}


def test_a_wrong_clock_makes_nothing_forgotten(ledger: Ledger, layout: Layout) -> None:
    """Two years pass in an hour."""
    an_old_drop(ledger, "a", mode="delete")
    look(ledger, layout, 0)
    assert look(ledger, layout, 1, set_by_hours=2 * 8760).forgotten == ()


def test_more_than_so_many_jobs_are_forgotten_before_a_year(ledger: Ledger, layout: Layout) -> None:
    """The oldest first, and none of the last day."""
    rules = Retention(history_max_jobs=1000)
    with ledger.one_commit():
        for number in range(1100):
            key = f"{number:04d}"
            submit(ledger, a_job(f"{key}-0", drop_id=key), drop=a_drop(key, mode="delete"))
            ledger.finish(f"{key}-0", JobState.DONE)
            ledger.end_drop(key, DropState.DONE, "")
            ledger._clock.now += 60  # type: ignore[attr-defined]
    prune(ledger, layout, rules)
    assert len(known(ledger)) == 1100, "none is older than a day"
    ledger._clock.now += DAY  # type: ignore[attr-defined]
    prune(ledger, layout, rules)
    assert len(known(ledger)) in (1000, 1001) and "0050" not in known(ledger) and "1099" in known(ledger)


# -- ended in the middle -----------------------------------------------------------------------


def test_it_stops_between_two_jobs_when_it_is_told_to(ledger: Ledger, layout: Layout) -> None:
    """No job is left in halves, the ledger knows what is gone, and the next run goes on."""
    for stem in "abcdef":
        a_result(ledger, layout, stem)
    plan = made(ledger, layout)
    assert len(plan.going) == 3
    asked = iter([False, True, True, True])
    outcome = apply(plan, ledger, layout, stopped=lambda: next(asked))
    assert [item.unit.name for item in outcome.removed] == ["a"]
    assert {result.stem for result in ledger.results.all()} == set("bcdef")
    assert prune(ledger, layout, more_than_half=True) == ["b", "c", "d"]


@pytest.mark.parametrize("at", ["before anything went", "half way"])
def test_a_crash_while_a_source_goes_is_mended_by_the_next_run(
    ledger: Ledger, layout: Layout, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """It is never missed where the ledger says that it is, and its folder does not stay for ever."""
    paths = [a_source(ledger, layout, key) for key in ("a", "b", "c", "d")]
    rules = RULES.model_copy(update={"vc_inputs_max_gb": 350e-9})
    plan = made(ledger, layout, rules)

    class Crash(BaseException):
        """As a power cut."""

    def crash(name: str, *, dir_fd: int) -> None:
        if at == "half way":
            os.unlink(f"{name}/talk.wav", dir_fd=dir_fd)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.prune.shutil.rmtree", crash)
        with pytest.raises(Crash):
            apply(plan, ledger, layout)
    drop = ledger.drop("a")
    assert drop is not None and drop.location == "" and paths[0].parent.exists()
    os.utime(paths[0].parent, (1, 1))
    if paths[0].exists():
        os.utime(paths[0], (1, 1))
    assert prune(ledger, layout, rules) == [".voxspool/done/a"]
    assert [path.exists() for path in paths] == [False, True, True, True]


def test_a_source_that_cannot_be_removed_stays_known(
    ledger: Ledger, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No right to: it is where the ledger says that it is."""
    paths = [a_source(ledger, layout, key) for key in ("a", "b", "c", "d")]
    rules = RULES.model_copy(update={"vc_inputs_max_gb": 350e-9})
    plan = made(ledger, layout, rules)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pipeline.prune.shutil.rmtree", refuse)
    outcome = apply(plan, ledger, layout)
    assert [item.reason for item in outcome.kept] == ["cannot be removed: Permission denied"]
    drop = ledger.drop("a")
    assert drop is not None and drop.location and paths[0].exists()


def test_a_result_published_while_its_forerunner_goes_stays_known(
    ledger: Ledger, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is told of what went some at a time: a new one of the same name may have come by then."""
    for stem in "abcdef":
        a_result(ledger, layout, stem)
    plan = made(ledger, layout)
    real = os.unlink
    fresh: list[Path] = []

    def unlink(path: object, *, dir_fd: int) -> None:
        real(path, dir_fd=dir_fd)  # type: ignore[arg-type]
        if str(path) == "b.wav" and not fresh:
            fresh.extend(a_result(ledger, layout, "a"))

    monkeypatch.setattr(os, "unlink", unlink)
    apply(plan, ledger, layout)
    assert all(path.exists() for path in fresh)
    assert {result.stem for result in ledger.results.all()} == {"a", "d", "e", "f"}
