"""Jobs that start from recordings: conversion and joining, in one stream."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_samples import a_job
from sound_samples import RATE_HZ, noise, read_wav, recording, rms_db, tone, write_wav

from pipeline.errors import InputError, Interrupted, SynthesisError
from pipeline.jobs.job import Job, JobSpec, Part, VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.made import Made
from pipeline.recordings import BLOCK_SECONDS, concatenate, convert, silences
from pipeline.sound import ffmpeg
from pipeline.sound.audio import Audio


class HalfLoud:
    """A converter that speaks at half the level, and remembers what it was given."""

    name, version, device, rate_hz = "praat", "1", "cpu", RATE_HZ

    def __init__(self) -> None:
        self.measured: list[float] = []
        self.fitted: list[float] = []
        self.windows: list[float] = []
        self.error: SynthesisError | None = None

    def measure(self, reference: Audio) -> str:
        """Once a job."""
        self.measured.append(reference.seconds)
        return "target"

    def fit(self, target: str, source: Audio) -> str:
        """Once a job, to the first window."""
        self.fitted.append(source.seconds)
        return f"fitted {target}"

    def convert(self, audio: Audio, target: str, *, pitch_shift_semitones: float) -> Audio:
        """Half the level."""
        assert target == "fitted target"
        self.windows.append(audio.seconds)
        if self.error is not None and len(self.windows) == 2:
            raise self.error
        return Audio(audio.samples / 2, audio.rate_hz)

    def close(self) -> None:
        """Nothing to free."""


class Desk:
    """A folder with recordings, and jobs over them."""

    def __init__(self, folder: Path) -> None:
        self.source, self.work = folder / "source", folder / "work"
        self.source.mkdir(), self.work.mkdir()
        self.converter = HalfLoud()
        self.stages: list[tuple[str, int, int]] = []
        self.stop_at: tuple[str, int] | None = None

    def report(self, stage: str, done: int, total: int) -> None:
        """Remembers; stops where the test wants."""
        self.stages.append((stage, done, total))
        if self.stop_at == (stage, done):
            raise Interrupted("stop")

    def put(self, name: str, audio: Audio) -> None:
        """A recording."""
        write_wav(self.source / name, audio)

    def job(self, *parts: Part, crossfade_ms: int = 0, level: bool = True, **settings: Any) -> Job:
        """A conversion of in.wav to voice.wav, or a joining of `parts`."""
        frozen = Settings.model_validate({"output": {"formats": ["wav"]}, **settings})
        voice = VoiceChoice(name="v", clip=str(self.source / "voice.wav"), clip_sha256="x")
        spec = JobSpec(
            kind="concat" if parts else "vc",
            settings=frozen,
            voice=voice,
            file=None if parts else "in.wav",
            parts=parts,
            crossfade_ms=crossfade_ms,
            level=level,
        )
        return a_job(spec=spec)

    def convert(self, **settings: Any) -> Made:
        """in.wav with the voice of voice.wav."""
        tools: Any = type("Tools", (), {"converter": lambda _, __: self.converter})()
        return convert(self.job(**settings), self.work, tools, self.report, source=self.source)

    def join(self, *parts: Part, **changes: Any) -> Audio:
        """The sound of `parts`, joined."""
        job = self.job(*parts, **changes)
        made = concatenate(job, self.work, self.report, source=self.source)
        return read_wav(made.files[0].path)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """With a voice."""
    desk = Desk(tmp_path)
    desk.put("voice.wav", tone(70.0))
    return desk


# -- conversion ---------------------------------------------------------------------------------------


def test_a_recording_is_converted_window_by_window(desk: Desk) -> None:
    """As long as it was, with the target measured and fitted once, and progress at each window."""
    desk.put("in.wav", tone(25.0))
    made = desk.convert(conversion={"chunk_seconds": 10.0, "overlap_seconds": 0.5})
    assert desk.converter.measured == [60.0], "a longer reference tells a voice no better"
    assert desk.converter.fitted == [10.0]
    assert len(desk.converter.windows) == 3
    (file,) = made.files
    out = read_wav(file.path)
    assert out.seconds == pytest.approx(25.0, abs=0.001)
    assert rms_db(out) == pytest.approx(rms_db(tone(25.0)) - 6.02, abs=0.1)
    assert desk.stages == [
        ("listening", 0, 2),
        ("converting", 1, 2),
        ("converting", 2, 2),
        ("converting", 2, 2),
        ("encoding", 2, 2),
    ]
    assert made.engine == {"name": "praat", "version": "1", "device": "cpu"}
    assert made.check == "none: conversions are not checked"


def test_a_window_that_fails_fails_the_job(desk: Desk) -> None:
    """It is never replaced by silence, and no half file is left."""
    desk.put("in.wav", tone(25.0))
    desk.converter.error = SynthesisError("cannot")
    with pytest.raises(SynthesisError, match="cannot"):
        desk.convert(conversion={"chunk_seconds": 10.0})
    assert list(desk.work.iterdir()) == []


def test_a_conversion_stops_at_a_window(desk: Desk) -> None:
    """When it is asked to."""
    desk.put("in.wav", tone(25.0))
    desk.stop_at = ("converting", 1)
    with pytest.raises(Interrupted):
        desk.convert(conversion={"chunk_seconds": 10.0})
    assert list(desk.work.iterdir()) == []


@pytest.mark.parametrize("which", ["in.wav", "voice.wav"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "nothing"), (b"RIFF????WAVE", "in.wav|voice.wav"), (b"hello", "its content is none of")],
)
def test_a_recording_that_is_none_is_told_by_name(desk: Desk, which: str, content: bytes, said: str) -> None:
    """The recording and the voice alike."""
    desk.put("in.wav", tone(1.0))
    (desk.source / which).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        desk.convert()
    assert which in caught.value.message


@pytest.mark.parametrize("parts", [(), (Part(file="in.wav"),)], ids=["converted", "joined"])
def test_progress_is_told_while_the_files_are_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, parts: tuple[Part, ...]
) -> None:
    """With a loudness to reach that may be minutes, in which a stop must be heard."""
    monkeypatch.setattr(ffmpeg, "REPORT_SECONDS", 0.01)
    desk.put("in.wav", tone(5.0))
    if parts:
        desk.join(*parts, audio={"loudness_lufs": -20.0})
    else:
        desk.convert(audio={"loudness_lufs": -20.0})
    assert len([stage for stage, _, _ in desk.stages if stage == "encoding"]) > 3


# -- joining ------------------------------------------------------------------------------------------


def test_parts_are_joined_with_the_pause_between_them(desk: Desk) -> None:
    """300 ms unless the job says otherwise; a written silence is as long as it says."""
    for name in ("a.wav", "b.wav"):
        desk.put(name, tone(1.0))
    a, b = Part(file="a.wav"), Part(file="b.wav")
    assert desk.join(a, b).seconds == pytest.approx(2.3, abs=0.01)
    assert desk.join(a, b, pauses={"sentence_ms": 0}).seconds == pytest.approx(2.0, abs=0.01)
    assert desk.join(a, Part(silence_ms=1500), b).seconds == pytest.approx(3.5, abs=0.01)
    around = desk.join(
        Part(silence_ms=500), a, Part(silence_ms=200), Part(silence_ms=300), b, Part(silence_ms=1000)
    )
    assert around.seconds == pytest.approx(0.5 + 1 + 0.5 + 1 + 1.0, abs=0.01)
    loud = np.flatnonzero(np.abs(around.samples) > 0.05) / around.rate_hz
    assert loud[0] == pytest.approx(0.5, abs=0.02) and loud[-1] == pytest.approx(3.0, abs=0.02)
    assert desk.join(a, b, crossfade_ms=200).seconds == pytest.approx(1.8, abs=0.01)


def test_parts_are_brought_to_one_level(desk: Desk) -> None:
    """Unless that is switched off."""
    desk.put("loud.wav", noise(1.0, rms=0.2)), desk.put("soft.wav", noise(1.0, rms=0.05))
    parts = Part(file="loud.wav"), Part(file="soft.wav")
    even = desk.join(*parts, pauses={"sentence_ms": 0}, audio={"trim": False})
    assert rms_db(even.between(0.1, 0.9)) == pytest.approx(rms_db(even.between(1.1, 1.9)), abs=0.5)
    uneven = desk.join(*parts, pauses={"sentence_ms": 0}, audio={"trim": False}, level=False)
    assert rms_db(uneven.between(0.1, 0.9)) - rms_db(uneven.between(1.1, 1.9)) == pytest.approx(12.0, abs=0.5)


def test_recordings_of_every_kind_and_rate_are_joined(desk: Desk) -> None:
    """At the highest of their rates, up to 48 kHz."""
    desk.put("a.wav", tone(1.0, rate_hz=8000))
    recording(desk.source / "b.mp3", tone(1.0, rate_hz=44_100))
    recording(desk.source / "c.flac", tone(1.0, rate_hz=16_000), "-ar", "96000")
    low = desk.join(Part(file="a.wav"), Part(file="b.mp3"))
    high = desk.join(Part(file="a.wav"), Part(file="c.flac"))
    assert (low.rate_hz, high.rate_hz) == (44_100, 48_000)
    assert high.seconds == pytest.approx(2.3, abs=0.02)


def test_one_file_alone_is_enough_and_none_is_not(desk: Desk) -> None:
    """Silence needs something to be silent between."""
    desk.put("a.wav", tone(1.0))
    assert desk.join(Part(file="a.wav")).seconds == pytest.approx(1.0, abs=0.01)
    with pytest.raises(InputError, match="needs at least one file among its parts"):
        desk.join(Part(silence_ms=500))


def test_the_same_file_may_stand_twice(desk: Desk) -> None:
    """A jingle at both ends."""
    desk.put("a.wav", tone(1.0)), desk.put("b.wav", tone(2.0))
    joined = desk.join(Part(file="a.wav"), Part(file="b.wav"), Part(file="a.wav"), pauses={"sentence_ms": 0})
    assert joined.seconds == pytest.approx(4.0, abs=0.01)


def test_a_part_that_cannot_be_read_fails_the_job(desk: Desk) -> None:
    """By its name; nothing is joined without it."""
    desk.put("a.wav", tone(1.0))
    (desk.source / "b.wav").write_bytes((desk.source / "a.wav").read_bytes()[:9000])
    with pytest.raises(InputError, match=r"b\.wav") as caught:
        desk.join(Part(file="a.wav"), Part(file="b.wav"))
    assert caught.value.code == "audio_truncated"
    assert list(desk.work.iterdir()) == []


def test_joining_tells_how_far_it_is_and_stops(desk: Desk) -> None:
    """Both passes, at each block of each part."""
    desk.put("a.wav", tone(2 * BLOCK_SECONDS + 1)), desk.put("b.wav", tone(1.0))
    parts = Part(file="a.wav"), Part(file="b.wav")
    desk.join(*parts)
    assert list(dict.fromkeys(desk.stages)) == [
        ("measuring", 0, 2),
        ("measuring", 1, 2),
        ("joining", 0, 2),
        ("joining", 1, 2),
        ("encoding", 2, 2),
    ]
    assert desk.stages.count(("joining", 0, 2)) == 3
    desk.stop_at = ("joining", 1)
    with pytest.raises(Interrupted):
        desk.join(*parts)


parts_lists = st.lists(
    st.builds(Part, file=st.just("a.wav")) | st.builds(Part, silence_ms=st.integers(10, 900)),
    min_size=1,
    max_size=8,
).filter(lambda parts: any(part.file for part in parts))


@given(parts_lists, st.integers(0, 500), st.sampled_from([0, 50]))
def test_no_silence_is_lost_or_made_up(parts: list[Part], pause_ms: int, crossfade_ms: int) -> None:
    """What was written is there to the millisecond; pauses or cross-fades only where nothing was."""
    lead, after = silences(parts, pause_ms, crossfade_ms)
    files = [index for index, part in enumerate(parts) if part.file]
    assert len(after) == len(files) and after[-1] is not None
    between = list(gaps(parts, files))
    assert lead == sum(part.silence_ms or 0 for part in parts[: files[0]])
    assert after[-1] == sum(part.silence_ms or 0 for part in parts[files[-1] :])
    unwritten = None if crossfade_ms else pause_ms
    assert after[:-1] == [gap or unwritten for gap in between]


def gaps(parts: list[Part], files: list[int]) -> Iterator[int]:
    """The silence written between each two files."""
    for first, second in itertools.pairwise(files):
        yield sum(part.silence_ms or 0 for part in parts[first:second])
