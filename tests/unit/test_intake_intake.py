"""From settled files to jobs: parts, defaults, voices, refusals, and crashes at every point."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intake_samples import bytes_somewhere, lying, put, settled, with_source
from ledger_samples import Clock

from pipeline.config import Config
from pipeline.errors import EnvironmentFailure
from pipeline.intake import claim, intake
from pipeline.intake.claim import end_if_complete
from pipeline.intake.intake import RETRY_SECONDS, Intake, Taken
from pipeline.intake.roots import Role, RootProblem, memory_key, open_root
from pipeline.jobs.job import DropState, Job, JobState
from pipeline.jobs.settings import Settings
from pipeline.layout import Layout
from pipeline.ledger import Ledger


class Door:
    """An intake with its inbox."""

    def __init__(self, layout: Layout, ledger: Ledger, config: Config) -> None:
        self.layout, self.ledger, self.clock = layout, ledger, Clock()
        self.use(config)

    def use(self, config: Config) -> None:
        """A fresh intake, as after a start."""
        self.config = config
        self.intake = Intake(self.layout, self.ledger, config, clock=self.clock)

    def accept(self, *relatives: str, unsettled: tuple[str, ...] = ()) -> Taken:
        """One pass over these files, or over all that lie there."""
        return self.intake.accept(settled(self.layout, *relatives), frozenset(unsettled))

    def accept_new(self) -> None:
        """One pass as the scan would offer it: what was taken and left is not offered again."""
        fresh = [
            dropped
            for dropped in settled(self.layout)
            if not self.ledger.already_taken(dropped.relative, tuple(dropped.fingerprint[:4]))
            and not self.intake.is_part(dropped.relative)
        ]
        self.intake.accept(fresh)

    def jobs(self) -> list[Job]:
        """All jobs, oldest drop first."""
        return self.ledger.jobs_in(*JobState)

    def job(self) -> Job:
        """The only job."""
        (job,) = self.jobs()
        return job

    def error(self, name: str) -> str:
        """The note about a failed file, without how to retry."""
        return (self.layout.failed / f"{name}.error.txt").read_text().partition("\n\nTo try")[0]


@pytest.fixture
def door(layout: Layout, ledger: Ledger, config: Config, monkeypatch: pytest.MonkeyPatch) -> Door:
    """An intake that moves what it takes."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    ledger._db.rows("PRAGMA synchronous = OFF")
    return Door(layout, ledger, config)


# -- what becomes a job -------------------------------------------------------------------------------


def test_a_text_becomes_a_job(door: Door) -> None:
    """With every setting frozen, in the mirrored folder, under the file's own name."""
    put(door.layout, "tales/story.txt", "Hello.")
    taken = door.accept()
    job = door.job()
    assert [drop.relative for drop in taken.drops] == ["tales/story.txt"] and not taken.waiting
    assert (str(job.folder), job.stem, job.state, job.spec.file) == ("tales", "story", "queued", "story.txt")
    assert (job.source.name, job.source.bytes) == ("tales/story.txt", 6)
    assert job.spec.settings.seed != 0, "0 means: choose one and record it"
    assert job.spec.settings.model_fields_set == set(Settings.model_fields)
    assert lying(door.layout) == []


def test_every_document_of_a_job_file_is_a_job(door: Door) -> None:
    """Each with a name of its own, all on one claimed file."""
    put(door.layout, "two.yaml", "text: one\n---\ntext: two\noutput: {name: 'a/b'}\n---\ntext: three")
    door.accept()
    assert [(job.stem, job.index, job.spec.text) for job in door.jobs()] == [
        ("two", 0, "one"),
        ("a_b", 1, "two"),
        ("two~2", 2, "three"),
    ]


def test_two_sources_of_one_stem_in_one_pass_get_two_names(door: Door) -> None:
    """Both look while the name is free; who is entered second looks again, and is told so."""
    for name in ("story.md", "story.txt", "Story.TXT"):
        put(door.layout, name, name)
    door.accept()
    assert sorted(job.stem.casefold() for job in door.jobs()) == ["story", "story~2", "story~3"]
    assert sum("another file's" in " ".join(job.spec.warnings) for job in door.jobs()) == 2
    for job in door.jobs():
        folder = door.layout.source_folder(job.drop_id, "move")
        assert (folder / str(job.spec.file)).read_text() == str(job.spec.file)


def test_a_hundred_files_cost_a_few_commits(door: Door) -> None:
    """Each commit waits for the disk, which the workers use too."""
    for number in range(100):
        put(door.layout, f"{number:03}.txt")
    said: list[str] = []
    door.ledger._db._db.set_trace_callback(said.append)
    assert len(door.accept().drops) == 100
    assert said.count("COMMIT") == 4


def test_the_same_settings_get_the_same_seed(door: Door) -> None:
    """So that the cache can serve a text that is dropped again; a seed that is given stays."""
    for name, text in (("a.txt", "one"), ("b.txt", "two")):
        put(door.layout, name, text)
    put(door.layout, "c.yaml", "text: three\nseed: 5")
    door.accept()
    seeds = {job.stem: job.spec.settings.seed for job in door.jobs()}
    assert seeds["a"] == seeds["b"] and seeds["c"] == 5


def test_a_job_file_with_errors_fails_with_all_of_them(door: Door) -> None:
    """And the file lies in failed/ as it was."""
    put(door.layout, "sub/bad.yaml", "txt: hi\nvioce: me")
    door.accept()
    assert door.error("sub/bad.yaml").startswith("bad.yaml has 3 problems:")
    assert "did you mean text?" in door.error("sub/bad.yaml")
    assert (door.layout.failed / "sub/bad.yaml").read_text() == "txt: hi\nvioce: me"
    assert {job.state for job in door.jobs()} == {JobState.FAILED}
    assert door.ledger.drops_in(DropState.FAILED)[0].location.endswith("failed/sub/bad.yaml")


def test_settings_that_contradict_each_other_fail(door: Door) -> None:
    """Though each layer was right by itself."""
    put(door.layout, "_defaults.yaml", "chunks: {min_chars: 100}")
    put(door.layout, "a.yaml", "text: hi\nchunks: {max_chars: 50}")
    door.accept()
    assert door.error("a.yaml") == (
        "a.yaml: chunks.min_chars is larger than chunks.max_chars.\nMend these settings."
    )


# -- defaults and the cascade -------------------------------------------------------------------------


def test_the_nearest_defaults_win_key_by_key(door: Door) -> None:
    """Job file, voice sheet, folder, the folder above, the root of the inbox, the configuration."""
    door.use(door.config.model_copy(update={"defaults": Settings.model_validate(
        {"priority": "low", "audio": {"true_peak_db": -3.0, "speed": 0.5}}
    )}))  # fmt: skip
    (door.layout.voices / "narrator.yaml").write_text(
        "espeak: en-gb\nlanguage: en-GB\ndefaults: {audio: {speed: 1.5, trim: false}, seed: 3}"
    )
    put(door.layout, "_defaults.yaml", "voice: narrator\nseed: 1\naudio: {speed: 2.0, loudness_lufs: -20}")
    put(door.layout, "a/_defaults.yml", "seed: 2\nlanguage: de\ntakes: {max_tries: 7}\naudio: {speed: 1.9}")
    put(door.layout, "a/b/_defaults.yaml", "takes: {per_chunk: 2}")
    put(door.layout, "a/b/job.yaml", "text: hi\naudio: {trim: true}")
    put(door.layout, "a/b/plain.txt", "hi")
    door.accept()
    job, plain = sorted(door.jobs(), key=lambda job: job.stem)
    settings = job.spec.settings
    assert settings.audio.trim is True and plain.spec.settings.audio.trim is False
    assert (settings.audio.speed, settings.seed, settings.language) == (1.5, 3, "en-GB")
    assert (settings.takes.per_chunk, settings.takes.max_tries) == (2, 7)
    assert (settings.audio.loudness_lufs, settings.audio.true_peak_db) == (-20, -3.0)
    assert (settings.priority, job.priority, settings.voice) == ("low", "low", "narrator")
    assert job.spec.voice.name == "en-gb"


def test_a_synthesis_setting_that_somebody_set_is_known_from_a_default(door: Door) -> None:
    """The manifest warns of those that an engine ignores, and only of those."""
    put(door.layout, "_defaults.yaml", "synthesis: {temperature: 0.8}")
    put(door.layout, "a.yaml", "text: hi\nsynthesis: {pitch: 50}")
    door.accept()
    assert set(door.job().spec.synthesis_set) == {"temperature", "pitch"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sede: 1", "_defaults.yaml, line 1: sede: unknown key; did you mean seed?"),
        ("seed: [", "not valid YAML"),
        ("voice: ../../etc/passwd.wav", "is a file; only a job file can bring its voice"),
        (b"\xff\x00", "0xff is not UTF-8"),
        (None, "cannot be read: not a regular file"),
    ],
)
def test_wrong_defaults_hold_their_folder_until_they_are_mended(
    door: Door, content: str | bytes | None, said: str
) -> None:
    """With the reason; what lies elsewhere is taken meanwhile."""
    put(door.layout, "a/b/story.txt")
    put(door.layout, "other.txt")
    place = door.layout.inbox / "a/_defaults.yaml"
    place.mkdir() if content is None else put(door.layout, "a/_defaults.yaml", content)
    taken = door.accept()
    assert [drop.relative for drop in taken.drops] == ["other.txt"]
    assert said in taken.waiting["a/b/story.txt"]
    assert taken.waiting["a/b/story.txt"].startswith("the folder's defaults are wrong: ")
    place.rmdir() if content is None else put(door.layout, "a/_defaults.yaml", "seed: 9")
    assert [drop.relative for drop in door.accept().drops] == ["a/b/story.txt"]


def test_a_clip_from_the_configuration_is_refused(door: Door) -> None:
    """A path there leads anywhere; the folder's defaults are refused before."""
    door.use(door.config.model_copy(update={"defaults": Settings(voice="/etc/passwd.wav")}))
    put(door.layout, "a.txt")
    door.accept()
    assert "The voice /etc/passwd.wav is a file; only a job file can bring its voice." in door.error("a.txt")


# -- voices -------------------------------------------------------------------------------------------


def test_a_recording_needs_a_voice(door: Door) -> None:
    """None set: it fails with that explanation."""
    put(door.layout, "speech.wav")
    door.accept()
    assert door.error("speech.wav") == (
        "speech.wav: A recording was dropped, but no voice is set for it to be converted to.\n"
        "Put recordings into a subfolder with a _defaults.yaml that says `voice: NAME`,"
        " NAME.wav (or .flac, .mp3, ...) being a clip of that voice in the voices folder."
    )


def test_a_recording_is_converted_to_the_folder_s_voice(door: Door) -> None:
    """To the recording of that voice, not to the stand-in that espeak would use; its hash is frozen."""
    (door.layout.voices / "jfk.wav").write_bytes(b"clip")
    (door.layout.voices / "jfk.yaml").write_text("espeak: en-us")
    put(door.layout, "_defaults.yaml", "voice: jfk")
    put(door.layout, "speech.flac")
    door.accept()
    spec = door.job().spec
    assert (spec.kind, spec.file) == ("vc", "speech.flac")
    assert spec.voice.clip == str(door.layout.voices / "jfk.wav")
    assert spec.voice.clip_sha256 is not None and len(spec.voice.clip_sha256) == 64


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("kind: vc\naudio: x.wav", "no voice is set for it to be converted to"),
        ("kind: vc\naudio: x.wav\nvoice: jfkk", "no voice jfkk in the voices folder.\nDid you mean jfk?"),
        ("kind: vc\naudio: x.wav\nvoice: en-us", "no voice en-us in the voices folder"),
        ("kind: vc\naudio: x.wav\nvoice: sheet", "sheet has no recording, so conversion cannot use it"),
        ("text: hi\nvoice: jfk", "The voice jfk has no stand-in for the engine espeak"),
        ("text: hi\nvoice: jfkk\nengine: chatterbox", "no voice jfkk in the voices folder"),
        ("text: hi\nvoice: double", "The voice double has several recordings: double.mp3, double.wav."),
        ("text: hi\nvoice: broken", "voices/broken.yaml, line 1: x: unknown key"),
    ],
)
def test_voices_that_cannot_be_had(door: Door, job: str, said: str) -> None:
    """Each with its reason, before anything is spoken."""
    for name in ("jfk.wav", "double.wav", "double.mp3"):
        (door.layout.voices / name).write_bytes(b"clip")
    (door.layout.voices / "sheet.yaml").write_text("description: d")
    (door.layout.voices / "broken.yaml").write_text("x: 1")
    put(door.layout, "job.yaml", job)
    put(door.layout, "x.wav")
    door.accept()
    assert said in door.error("job.yaml")
    assert {job.state for job in door.jobs()} == {JobState.FAILED}


def test_a_clip_beside_the_job_file_is_a_voice(door: Door) -> None:
    """Claimed with it, wherever it lies below."""
    put(door.layout, "job.yaml", "text: hi\nvoice: clips/me.wav\nengine: chatterbox")
    put(door.layout, "clips/me.wav", "clip")
    door.accept()
    voice, drop = door.job().spec.voice, door.ledger.drops_in(DropState.CLAIMED)[0]
    assert voice.clip == "clips/me.wav", "relative, so that the inbox may be moved"
    assert (door.layout.claimed(drop.id) / voice.clip).read_text() == "clip"
    assert lying(door.layout) == []


def test_joining_recordings_needs_no_voice(door: Door) -> None:
    """Whatever the folder's voice is worth."""
    (door.layout.voices / "broken.yaml").write_text("x: 1")
    put(door.layout, "_defaults.yaml", "voice: broken")
    put(door.layout, "all.yaml", "kind: concat\nparts: [a.wav, silence_ms: 500, b.wav]")
    put(door.layout, "a.wav"), put(door.layout, "b.wav")
    door.accept()
    assert [part.file for part in door.job().spec.parts] == ["a.wav", None, "b.wav"]


# -- parts --------------------------------------------------------------------------------------------


def test_a_job_file_waits_for_its_parts_and_then_says_what_is_missing(door: Door) -> None:
    """What belongs to it is not taken by itself meanwhile."""
    put(door.layout, "a/job.yaml", "kind: concat\nparts: [x.wav, y.wav, z.wav]")
    put(door.layout, "a/x.wav"), put(door.layout, "a/y.wav")
    taken = door.accept(unsettled=("a/y.wav",))
    assert taken.waiting["a/job.yaml"] == "waiting for a/y.wav, a/z.wav"
    assert taken.waiting["a/x.wav"] == "it belongs to a/job.yaml, which is not complete yet"
    door.clock.now += door.config.intake.wait_for_parts_seconds - 1
    assert door.accept().waiting["a/job.yaml"] == "waiting for a/z.wav"
    door.clock.now += 1
    assert [drop.relative for drop in door.accept().drops] == ["a/job.yaml"]
    assert door.error("a/job.yaml") == (
        "job.yaml: The job names z.wav, which did not arrive.\n"
        "Drop both together. A clip that many jobs use belongs into the voices folder."
    )
    note = (door.layout.failed / "a/job.yaml.error.txt").read_text()
    assert "move job.yaml, together with x.wav, y.wav, from here back" in note
    assert (door.layout.failed / "a/x.wav").exists() and lying(door.layout) == []


def test_parts_that_arrive_in_time_are_claimed_along(door: Door) -> None:
    """And the wait starts anew when something else is missing later."""
    put(door.layout, "job.yaml", "text_file: chapter.txt")
    assert "job.yaml" in door.accept().waiting
    door.clock.now += 800
    put(door.layout, "chapter.txt", "Hello.")
    (drop,) = door.accept().drops
    assert drop.members == ("job.yaml", "chapter.txt")
    assert door.job().spec.file == "chapter.txt"
    put(door.layout, "job.yaml", "text_file: chapter.txt")
    door.clock.now += 800
    assert "job.yaml" in door.accept().waiting


def test_without_a_wait_for_parts_a_job_file_fails_at_once(door: Door) -> None:
    """A run that ends cannot wait for what may come later."""
    door.use(with_source(door.config, "move", wait_for_parts_seconds=0.0))
    put(door.layout, "job.yaml", "text_file: chapter.txt")
    door.accept()
    assert "which did not arrive" in door.error("job.yaml")


def test_two_job_files_share_a_part(door: Door) -> None:
    """Each gets it, and it is not left behind to be taken for a drop of its own."""
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        put(door.layout, name, "kind: concat\nparts: [clip.wav]")
    put(door.layout, "clip.wav", "sound")
    assert len(door.accept().drops) == 3
    assert lying(door.layout) == []
    for job in door.jobs():
        assert (door.layout.claimed(job.drop_id) / "clip.wav").read_text() == "sound"


def test_a_part_stays_for_the_job_file_that_is_not_complete(door: Door) -> None:
    """The other one copies it."""
    put(door.layout, "a.yaml", "kind: concat\nparts: [clip.wav]")
    put(door.layout, "b.yaml", "kind: concat\nparts: [clip.wav, later.wav]")
    put(door.layout, "clip.wav", "sound")
    taken = door.accept()
    assert [drop.relative for drop in taken.drops] == ["a.yaml"]
    assert taken.waiting == {
        "b.yaml": "waiting for later.wav",
        "clip.wav": "it belongs to b.yaml, which is not complete yet",
    }
    put(door.layout, "later.wav")
    assert [drop.relative for drop in door.accept().drops] == ["b.yaml"]
    assert lying(door.layout) == []


def test_a_job_file_that_could_not_be_taken_keeps_its_parts(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again after a while; until then nobody else may have them, shared or not."""
    put(door.layout, "job.yaml", "text_file: chapter.txt")
    put(door.layout, "other.yaml", "text_file: chapter.txt")
    put(door.layout, "chapter.txt", "Hello.")
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if Path(source).name == "job.yaml":
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        first = door.accept()
    assert [drop.relative for drop in first.drops] == ["other.yaml"]
    assert lying(door.layout) == ["chapter.txt", "job.yaml"]
    door.clock.now += RETRY_SECONDS / 2
    second = door.accept()
    assert second.drops == ()
    assert second.waiting == {
        "job.yaml": "it cannot be moved now: Device or resource busy",
        "chapter.txt": "it belongs to job.yaml, which is not complete yet",
    }
    door.clock.now += RETRY_SECONDS
    assert [drop.relative for drop in door.accept().drops] == ["job.yaml"]


def test_a_part_may_be_spelled_in_another_unicode_form(door: Door) -> None:
    """Written on a Mac, named by an editor."""
    put(door.layout, "job.yaml", "text_file: b\u00fccher/caf\u00e9.txt")
    put(door.layout, "bu\u0308cher/cafe\u0301.txt", "Hello.")
    door.accept()
    job = door.job()
    assert (door.layout.claimed(job.drop_id) / str(job.spec.file)).read_text() == "Hello."
    assert lying(door.layout) == []


def test_a_broken_job_file_keeps_the_files_that_it_names(door: Door) -> None:
    """They fail with it, and nothing is spoken that nobody asked for; what is not there is not waited for."""
    put(door.layout, "sub/bad.yaml", "text_file: chapter.txt\nvioce: me\nvoice: nowhere.wav")
    put(door.layout, "sub/chapter.txt")
    put(door.layout, "sub/other.txt")
    assert not door.accept().waiting
    assert [job.stem for job in door.jobs() if job.state is JobState.QUEUED] == ["other"]
    assert os.path.lexists(door.layout.failed / "sub/chapter.txt")
    note = (door.layout.failed / "sub/bad.yaml.error.txt").read_text()
    assert "did you mean voice?" in note and "together with chapter.txt" in note


def test_no_link_leads_out_of_the_inbox(door: Door, tmp_path: Path) -> None:
    """Neither a folder on the way nor the file itself; what it leads to is not touched."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/x.txt").write_text("secret")
    (door.layout.inbox / "sub").symlink_to(tmp_path / "secret")
    (door.layout.inbox / "y.txt").symlink_to(tmp_path / "secret/x.txt")
    put(door.layout, "far.yaml", "text_file: sub/x.txt")
    put(door.layout, "near.yaml", "text_file: y.txt")
    assert door.accept("far.yaml").waiting == {"far.yaml": "waiting for sub/x.txt"}
    door.clock.now += 1000
    door.accept("far.yaml", "near.yaml")
    assert "names sub/x.txt, which cannot be read: a symbolic link, which is not" in door.error("far.yaml")
    assert "names y.txt, which cannot be read" in door.error("near.yaml")
    assert "It must be an ordinary file, not a link." in door.error("near.yaml")
    assert (tmp_path / "secret/x.txt").read_text() == "secret"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_part_that_is_no_file_is_told(door: Door, kind: str) -> None:
    """It stays where it lies, as everything does that is no drop."""
    place = door.layout.inbox / "x.wav"
    place.mkdir() if kind == "folder" else os.mkfifo(place)
    put(door.layout, "job.yaml", "kind: concat\nparts: [x.wav]")
    door.accept("job.yaml")
    assert "The job names x.wav, which cannot be read: not a regular file." in door.error("job.yaml")
    assert os.path.lexists(place) and not os.path.lexists(door.layout.failed / "x.wav")


# -- source: leave ------------------------------------------------------------------------------------


def test_what_is_left_in_the_inbox_is_copied(door: Door) -> None:
    """The job works on the copy."""
    door.use(with_source(door.config, "leave"))
    put(door.layout, "story.txt", "Hello.")
    (drop,) = door.accept().drops
    assert (door.layout.spool(drop.id) / "story.txt").read_text() == "Hello."
    assert lying(door.layout) == ["story.txt"] and not door.layout.claimed_root.exists()
    stamp = drop.stamp
    assert door.ledger.already_taken("story.txt", stamp)
    assert not door.ledger.already_taken("story.txt", (stamp[0], stamp[1], 5, 5))


def test_parts_that_are_left_in_the_inbox_are_no_drops_of_their_own(door: Door) -> None:
    """As long as the job file that named them lies there, also after a restart."""
    door.use(with_source(door.config, "leave"))
    put(door.layout, "a/job.yaml", "text_file: chapter.txt")
    put(door.layout, "a/chapter.txt", "Hello.")
    assert door.accept().waiting == {"a/chapter.txt": "it belongs to a/job.yaml, which was taken"}
    for _ in range(2):
        assert door.intake.is_part("a/chapter.txt")
        assert not door.intake.is_part("a/job.yaml") and not door.intake.is_part("chapter.txt")
        door.use(door.config)
    (door.layout.inbox / "a/job.yaml").unlink()
    assert not door.intake.is_part("a/chapter.txt")


def test_a_part_that_the_job_file_names_no_longer_is_free(door: Door) -> None:
    """The latest word counts, also after a restart."""
    door.use(with_source(door.config, "leave"))
    put(door.layout, "job.yaml", "text_file: chapter.txt")
    put(door.layout, "chapter.txt", "Hello.")
    door.accept()
    door.clock.now += 5
    put(door.layout, "job.yaml", "text: hi")
    door.accept("job.yaml")
    assert not door.intake.is_part("chapter.txt")
    door.use(door.config)
    assert not door.intake.is_part("chapter.txt")


# -- refusals -----------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_taken_waits_with_the_reason(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it stays in the ledger, the others are taken, and it is tried again only after a while."""
    put(door.layout, "a.txt", "A"), put(door.layout, "b.txt", "B")
    real, calls = os.rename, []

    def rename(source: Any, target: Any) -> None:
        if Path(source).name == "a.txt":
            calls.append(source)
            raise PermissionError(errno.EACCES, "Permission denied")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    taken = door.accept()
    assert [drop.relative for drop in taken.drops] == ["b.txt"]
    assert "it cannot be moved: permission denied" in taken.waiting["a.txt"]
    assert door.ledger.drops_in(DropState.CLAIMING) == []
    assert "permission denied" in door.accept().waiting["a.txt"] and len(calls) == 1
    door.clock.now += RETRY_SECONDS + 1
    door.accept()
    assert len(calls) == 2
    assert lying(door.layout) == ["a.txt"]


def test_a_file_that_was_taken_back_is_forgotten(door: Door) -> None:
    """Between the scan and the claim."""
    path = put(door.layout, "a.txt")
    offered = settled(door.layout)
    path.unlink()
    taken = door.intake.accept(offered)
    assert taken == Taken(drops=(), waiting={})
    assert door.ledger.drops_in(*DropState) == []


def test_a_file_that_changed_since_it_settled_is_put_back(door: Door) -> None:
    """The next look starts its quiet period anew."""
    put(door.layout, "a.txt", "first")
    offered = settled(door.layout)
    put(door.layout, "a.txt", "first and more")
    assert door.intake.accept(offered).waiting == {"a.txt": "it changed while it was being taken"}
    assert (door.layout.inbox / "a.txt").read_text() == "first and more"


# -- crashes and lost disks ---------------------------------------------------------------------------

CONTENTS = {"job.yaml": b"text_file: chapter.txt", "chapter.txt": b"Hello.", "plain.txt": b"Plain."}


class Crash(BaseException):
    """The power is cut."""


def count_steps(patch: pytest.MonkeyPatch, fail: Callable[[int, str], None]) -> None:
    """`fail(step, name)` is called after each change to disk or ledger that a claim makes."""
    step = 0

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal step
            fail(step, name)
            result = real(*arguments, **options)
            step += 1
            return result

        return call

    for name in ("link", "unlink", "replace", "rename", "mkdir", "rmdir"):
        patch.setattr(os, name, wrap(name, getattr(os, name)))
    for name in ("plan_claim", "submit", "end_drop", "forget_claim"):
        patch.setattr(Ledger, name, wrap(name, getattr(Ledger, name)))
    patch.setattr(shutil, "rmtree", wrap("rmtree", shutil.rmtree))


def assert_all_came_through(door: Door) -> None:
    """Two jobs, each with its files, and nothing twice or lost."""
    assert sorted(job.stem for job in door.jobs()) == ["job", "plain"]
    assert [drop.state for drop in door.ledger.drops_in(*DropState)] == ["claimed", "claimed"]
    for job in door.jobs():
        folder = door.layout.source_folder(job.drop_id, door.config.intake.source)
        assert (folder / str(job.spec.file)).read_bytes() == CONTENTS[str(job.spec.file)]
    left = sorted(CONTENTS) if door.config.intake.source == "leave" else []
    assert lying(door.layout) == left


@pytest.mark.parametrize("source", ["move", "leave"])
def test_a_crash_at_any_step_of_a_claim_is_mended_by_the_next_start(
    door: Door, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each point recover() and one more pass lead to the same end."""
    died, at = True, -1
    while died:
        at += 1
        reset(door, source)

        def crash(step: int, _name: str, at: int = at) -> None:
            if step >= at:
                raise Crash

        with monkeypatch.context() as patch:
            count_steps(patch, crash)
            try:
                door.accept()
                died = False
            except Crash:
                died = True
        for content in CONTENTS.values():
            assert bytes_somewhere(door.layout, content), at
        door.use(door.config)
        door.intake.recover()
        door.accept_new()
        assert_all_came_through(door)
        assert door.intake.recover() == []
    assert at > 7


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("source", ["move", "leave"])
def test_a_disk_that_fails_at_any_step_of_a_claim_is_waited_for(
    door: Door, source: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon lives on: the pass ends with a sentence or a reason, and once the disk is mended the
    next passes finish the work, without a restart.
    """
    failed, at = True, -1
    while failed:
        at += 1
        reset(door, source)
        hits = 0

        def fail(step: int, name: str, at: int = at) -> None:
            nonlocal hits
            if step >= at and name in ("link", "unlink", "replace", "rename", "mkdir", "rmdir"):
                hits += 1
                raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            count_steps(patch, fail)
            for _ in range(2):
                try:
                    door.intake.recover()  # as the watch does when it opens the folders anew
                    door.accept_new()
                except EnvironmentFailure as error:
                    assert error.message.endswith(".")
        failed = hits > 0
        door.clock.now += RETRY_SECONDS + 1
        door.intake.recover()
        door.accept_new()
        assert_all_came_through(door)
    assert at > 5


def reset(door: Door, source: str) -> None:
    """Empty folders, an empty ledger, and the three files in the inbox."""
    for folder in (door.layout.inbox, door.layout.state / "spool", door.layout.outbox):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for table in ("attempts", "jobs", "drops", "results"):
        door.ledger._db.rows(f"DELETE FROM {table}")
    for name, content in CONTENTS.items():
        put(door.layout, name, content)
    door.use(with_source(door.config, source))


def test_a_claim_that_was_only_planned_is_undone(door: Door) -> None:
    """And the file is taken in the ordinary way."""
    put(door.layout, "a.txt", "Hello.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.intake.intake.take", lambda *_: crash())
        with pytest.raises(Crash):
            door.accept()
    assert [drop.state for drop in door.ledger.drops_in(*DropState)] == ["claiming"]
    door.use(door.config)
    assert door.intake.recover() == ["a.txt: its claim was undone"]
    assert door.ledger.drops_in(*DropState) == [] and lying(door.layout) == ["a.txt"]


def crash() -> None:
    """Die."""
    raise Crash


def test_a_newer_file_of_the_same_name_does_not_replace_the_claimed_one(door: Door) -> None:
    """The daemon was down between the claim and the job, and somebody dropped the name again."""
    put(door.layout, "a.txt", "older")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Intake, "_admit", lambda *_: crash())
        with pytest.raises(Crash):
            door.accept()
    put(door.layout, "a.txt", "newer")
    door.use(door.config)
    assert door.intake.recover() == ["a.txt: its claim was finished"]
    assert lying(door.layout) == ["a.txt"]
    assert bytes_somewhere(door.layout, b"older") and bytes_somewhere(door.layout, b"newer")


def test_a_claim_that_changed_during_the_crash_goes_back(door: Door) -> None:
    """Its writer went on writing while the daemon was down."""
    put(door.layout, "a.txt", "older")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Intake, "_admit", lambda *_: crash())
        with pytest.raises(Crash):
            door.accept()
    (claimed,) = bytes_somewhere(door.layout, b"older")
    claimed.write_text("older and longer")
    door.use(door.config)
    assert door.intake.recover() == ["a.txt: its claim was undone"]
    assert (door.layout.inbox / "a.txt").read_text() == "older and longer"


def test_jobs_that_ended_let_their_source_move_on(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker died between the two."""
    put(door.layout, "good.txt"), put(door.layout, "bad.txt")
    door.accept()
    for job in door.jobs():
        state = JobState.DONE if job.stem == "good" else JobState.FAILED
        door.ledger.finish(job.id, state, code="c", message="It failed.")
    assert sorted(door.intake.recover()) == [
        "bad.txt: its last move was finished",
        "good.txt: its last move was finished",
    ]
    assert (door.layout.failed / "bad.txt").exists()
    assert not list(door.layout.claimed_root.iterdir())
    assert door.intake.recover() == []


def test_a_failure_that_could_not_be_told_is_told_after_a_crash(door: Door) -> None:
    """The failure could not be written down, because the outbox was gone."""
    put(door.layout, "bad.yaml", "x: 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.intake.claim.finish_failed", lambda *_: crash())
        with pytest.raises(Crash):
            door.accept()
    door.use(door.config)
    assert door.intake.recover() == ["bad.yaml: its last move was finished"]
    assert "unknown key" in door.error("bad.yaml")
    assert [drop.state for drop in door.ledger.drops_in(*DropState)] == ["failed"]


def test_claimed_folders_that_nobody_knows_go_back_whole(door: Door) -> None:
    """The state folder was lost; copies in the spool are only copies."""
    folder = door.layout.claimed("20260101-000000-abcd")
    (folder / "clips").mkdir(parents=True)
    (folder / "job.yaml").write_text("text: hi")
    (folder / "clips/a.wav").write_text("sound")
    spool = door.layout.spool("20260101-000000-ef01")
    spool.mkdir(parents=True)
    assert sorted(door.intake.recover()) == [
        "clips/a.wav: put back into the inbox, the ledger does not know it",
        "job.yaml: put back into the inbox, the ledger does not know it",
    ]
    assert lying(door.layout) == ["clips/a.wav", "job.yaml"]
    assert not folder.exists() and not spool.exists()


@pytest.mark.parametrize("source", ["move", "leave", "delete"])
def test_the_whole_way_of_a_source(door: Door, source: str) -> None:
    """In, and out again after success."""
    door.use(with_source(door.config, source))
    put(door.layout, "sub/a.txt", "Hello.")
    door.accept()
    job = door.job()
    door.ledger.finish(job.id, JobState.DONE)
    assert end_if_complete(door.layout, door.ledger, job.drop_id) is DropState.DONE
    assert len(bytes_somewhere(door.layout, b"Hello.")) == (0 if source == "delete" else 1)
    assert lying(door.layout) == (["sub/a.txt"] if source == "leave" else [])


def test_what_there_is_no_time_for_is_handed_back(door: Door) -> None:
    """To be offered again at once; job files come first."""
    for name in ("a.txt", "b.txt", "c.yaml"):
        put(door.layout, name, "text: hi")
    real = claim.take

    def slowly(*arguments: Any) -> Any:
        door.clock.now += 0.3
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.intake.intake.take", slowly)
        taken = door.intake.accept(settled(door.layout), budget_seconds=0.5)
    assert [drop.relative for drop in taken.drops] == ["c.yaml", "a.txt"]
    assert [dropped.relative for dropped in taken.rest] == ["b.txt"]


def test_a_claim_that_the_inbox_goes_away_from_waits(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between claiming and looking into what was claimed: no file is missing then, and no defaults are."""
    inbox, away = door.layout.inbox, door.layout.inbox.with_name("away")
    marker = open_root(inbox, Role.INBOX).marker
    assert marker is not None
    door.ledger.set_meta(memory_key(Role.INBOX, inbox), marker.uuid)
    put(door.layout, "tales/_defaults.yaml", "priority: high\n")
    put(door.layout, "tales/story.txt", "Hello.")

    def go_away(*_: object) -> None:
        inbox.rename(away)
        inbox.mkdir()

    with monkeypatch.context() as once, pytest.raises(RootProblem, match="has lost its mark"):
        once.setattr(intake, "made_durable", go_away)
        door.accept("tales/story.txt")
    assert door.jobs() == [] and [drop.state for drop in door.ledger.drops_in(*DropState)] == ["claiming"]
    inbox.rmdir()
    away.rename(inbox)
    assert door.intake.recover() == ["tales/story.txt: its claim was finished"]
    assert (door.job().state, door.job().priority) == (JobState.QUEUED, "high")
