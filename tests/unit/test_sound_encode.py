"""Finished speech into files: every format, tags, memory, failures; nothing half-written stays."""

import itertools
import os
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sound_samples import RATE_HZ, noise, read_wav, rms_db, tone

from pipeline.errors import EnvironmentFailure, Interrupted, SynthesisError
from pipeline.sound import ffmpeg
from pipeline.sound.audio import Audio, from_pcm16
from pipeline.sound.decode import decode, probe
from pipeline.sound.encode import FORMATS, MAX_TAG_CHARS, Encoded, Encoder, clean_tag, output_rate_hz
from pipeline.sound.ffmpeg import executable
from pipeline.sound.master import Mastering


def encode(targets: dict[str, Path], *parts: Audio, **options: object) -> tuple[Encoded, ...]:
    """Write `parts` one after the other."""
    with Encoder(targets, parts[0].rate_hz, **options) as encoder:  # type: ignore[arg-type]
        for part in parts:
            encoder.write(part)
        return encoder.finish()


def told(path: Path) -> str:
    """What ffmpeg tells of a file, its tags included."""
    answer = subprocess.run([executable(), "-i", str(path)], capture_output=True, timeout=30, check=False)
    return answer.stderr.decode()


def test_all_formats_at_once_hold_the_same_speech(tmp_path: Path) -> None:
    """One stream in, six whole files out, as long and as loud as what was written."""
    targets = {name: tmp_path / f"story.{name}" for name in FORMATS}
    files = encode(targets, tone(1.5), tone(1.5))
    assert [(file.format, file.path) for file in files] == list(targets.items())
    for file in files:
        assert file.duration_seconds == pytest.approx(3.0)
        assert (
            probe(file.path).rate_hz == file.sample_rate_hz == (48_000 if file.format == "opus" else RATE_HZ)
        )
        got = decode(file.path, RATE_HZ)
        assert got.seconds == pytest.approx(3.0, abs=0.06)
        assert rms_db(got.between(0.3, 1.3)) == pytest.approx(rms_db(tone(1.0)), abs=0.5)


def test_an_audiobook_is_told_from_a_song(tmp_path: Path) -> None:
    """m4b carries the brand that players show as a book, m4a that of music."""
    encode({"m4a": tmp_path / "a.m4a", "m4b": tmp_path / "a.m4b"}, tone(0.5))
    assert (tmp_path / "a.m4a").read_bytes()[4:12] == b"ftypM4A "
    assert (tmp_path / "a.m4b").read_bytes()[4:12] == b"ftypM4B "


def test_mp4_can_be_played_while_it_loads(tmp_path: Path) -> None:
    """The table of contents stands before the sound."""
    encode({"m4a": tmp_path / "a.m4a"}, tone(0.5))
    raw = (tmp_path / "a.m4a").read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")


def test_quiet_speech_reaches_wav_and_flac_unharmed(tmp_path: Path) -> None:
    """Below the ceiling lossless files hold what was written, to -70 dB of it, sample by sample."""
    source = from_pcm16(np.rint(tone(2.0, hz=440).samples * 32767).astype(np.int16), RATE_HZ)
    for file in encode({"wav": tmp_path / "a.wav", "flac": tmp_path / "a.flac"}, source):
        got = read_wav(file.path)
        assert len(got.samples) == len(source.samples)
        inner = slice(500, -500)
        error = Audio(got.samples[inner] - source.samples[inner], RATE_HZ)
        assert rms_db(error) < rms_db(source) - 70


def test_files_can_be_written_over_and_left_alone_names_too(tmp_path: Path) -> None:
    """A target of an earlier try is replaced, under a name full of what ffmpeg might take for syntax."""
    path = tmp_path / "-http:odd %03d 'q' [x]\n.wav"
    encode({"wav": path}, tone(2.0))
    encode({"wav": path}, tone(1.0))
    assert soundfile.info(str(path)).duration == pytest.approx(1.0)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", FORMATS)
def test_tags_survive_with_everything_in_them(tmp_path: Path, name: str) -> None:
    """Quotes, equals signs, semicolons and umlauts stay; line breaks become spaces; empty tags are none."""
    tags = {"title": 'a=b; "q"\n#\\ größe', "artist": "Jürgen O'Neil", "album": "\n"}
    (file,) = encode({name: tmp_path / f"a.{name}"}, tone(0.5), tags=tags)
    log = told(file.path)
    assert 'a=b; "q" #\\ größe' in log
    assert "Jürgen O'Neil" in log
    assert "album" not in log.lower()


@given(st.text())
def test_a_clean_tag_is_one_line_that_a_command_can_carry(value: str) -> None:
    """Whatever stands in the job becomes one printable line of bounded length."""
    clean = clean_tag(value)
    clean.encode("utf-8")
    assert clean.isprintable()
    assert len(clean) <= MAX_TAG_CHARS
    assert clean_tag(clean) == clean


def test_a_tag_with_half_a_character_is_written(tmp_path: Path) -> None:
    """File names with broken bytes become titles too."""
    (file,) = encode({"mp3": tmp_path / "a.mp3"}, tone(0.3), tags={"title": "caf\udce9 \0x"})
    assert "caf? x" in told(file.path)


@pytest.mark.parametrize(
    ("name", "rate_hz", "out_hz"),
    [
        ("wav", 96_000, 96_000),
        ("mp3", 22_050, 22_050),
        ("mp3", 23_000, 24_000),
        ("mp3", 96_000, 48_000),
        ("opus", 24_000, 48_000),
        ("m4a", 44_100, 44_100),
    ],
)
def test_the_rate_is_the_sounds_own_where_the_format_has_it(name: str, rate_hz: int, out_hz: int) -> None:
    """Otherwise the next one up, so that nothing is lost."""
    assert output_rate_hz(name, rate_hz) == out_hz


def test_odd_rates_are_encoded(tmp_path: Path) -> None:
    """96 kHz into mp3 and 23 kHz into m4a work."""
    (mp3,) = encode({"mp3": tmp_path / "a.mp3"}, tone(0.5, rate_hz=96_000))
    (m4a,) = encode({"m4a": tmp_path / "a.m4a"}, tone(0.5, rate_hz=23_000))
    assert (probe(mp3.path).rate_hz, probe(m4a.path).rate_hz) == (48_000, 24_000)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
def test_speed_changes_length_and_not_pitch(tmp_path: Path, speed: float) -> None:
    """Tempo divides the duration and is told in the result."""
    (file,) = encode({"wav": tmp_path / "a.wav"}, tone(4.0, hz=330), mastering=Mastering(speed=speed))
    got = read_wav(file.path)
    assert file.duration_seconds == pytest.approx(4 / speed)
    assert got.seconds == pytest.approx(4 / speed, abs=0.06)
    middle = got.between(0.5, 1.5).samples
    assert int(np.abs(np.fft.rfft(middle)).argmax()) == pytest.approx(330, abs=2)


def test_denoise_takes_hiss_and_keeps_speech_in_place(tmp_path: Path) -> None:
    """Steady noise sinks by some decibels; a tone keeps its level, its onset and the last samples."""
    hiss = noise(3.0, rms=0.002).samples
    signal = hiss.copy()
    signal[RATE_HZ : 2 * RATE_HZ] += tone(1.0).samples
    signal[-60:] += 0.5
    (file,) = encode({"wav": tmp_path / "a.wav"}, Audio(signal, RATE_HZ), mastering=Mastering(denoise=True))
    got = read_wav(file.path)
    assert len(got.samples) == len(signal)
    assert rms_db(got.between(0.5, 0.9)) < rms_db(Audio(hiss, RATE_HZ)) - 4
    assert rms_db(got.between(1.2, 1.8)) == pytest.approx(rms_db(tone(1.0)), abs=0.5)
    onset = int(np.flatnonzero(np.abs(got.samples) > 0.05)[0])
    assert onset == pytest.approx(RATE_HZ, abs=RATE_HZ // 200)
    assert np.abs(got.samples[-60:]).max() > 0.2


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    """A stream without a sample gives no file but a sentence."""
    with (
        pytest.raises(SynthesisError, match="no sound"),
        Encoder({"wav": tmp_path / "a.wav"}, RATE_HZ) as encoder,
    ):
        encoder.write(Audio(np.zeros(0, np.float32), RATE_HZ))
        encoder.finish()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mastering", [Mastering(), Mastering(loudness_lufs=-20)])
def test_a_stream_given_up_leaves_nothing(tmp_path: Path, mastering: Mastering) -> None:
    """An error of the caller's takes process, work files and targets with it."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    with (
        pytest.raises(KeyError),
        Encoder({"mp3": tmp_path / "a.mp3"}, RATE_HZ, mastering=mastering) as encoder,
    ):
        encoder.write(tone(5.0))
        raise KeyError
    assert os.listdir(tmp_path) == []
    assert children.read_text() == before


def test_a_long_second_pass_is_no_stall(tmp_path: Path) -> None:
    """With a loudness to reach nearly all of the work comes after the last sample."""
    targets = {name: tmp_path / f"a.{name}" for name in ("mp3", "opus", "m4a", "flac")}
    started = time.monotonic()
    encode(targets, noise(240.0), mastering=Mastering(loudness_lufs=-20))
    usual_seconds = time.monotonic() - started
    # ffmpeg tells of its progress twice a second
    stall_seconds = max(1.5, 0.5 * usual_seconds)
    encode(targets, noise(240.0), mastering=Mastering(loudness_lufs=-20), stall_seconds=stall_seconds)
    assert {path.stat().st_size > 0 for path in targets.values()} == {True}


@pytest.mark.parametrize("mastering", [Mastering(), Mastering(loudness_lufs=-20)])
@pytest.mark.parametrize("call", [1, 3])
def test_a_stop_while_the_files_are_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mastering: Mastering, call: int
) -> None:
    """The report that is called during `finish` may say so at any time."""
    monkeypatch.setattr(ffmpeg, "REPORT_SECONDS", 0.0)  # ffmpeg may be the quicker one otherwise
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before, calls = children.read_text(), itertools.count(1)

    def report() -> None:
        if next(calls) == call:
            raise Interrupted("stop")

    with (
        pytest.raises(Interrupted),
        Encoder(
            {"mp3": tmp_path / "a.mp3", "opus": tmp_path / "a.opus"}, RATE_HZ, mastering=mastering
        ) as encoder,
    ):
        encoder.write(noise(60.0))
        encoder.finish(report)
    assert next(calls) == call + 1
    assert os.listdir(tmp_path) == []
    assert children.read_text() == before


def test_another_rate_is_refused(tmp_path: Path) -> None:
    """Samples at another rate would be played at the wrong speed."""
    with Encoder({"wav": tmp_path / "a.wav"}, RATE_HZ) as encoder, pytest.raises(ValueError, match="22050"):
        encoder.write(tone(0.1, rate_hz=8000))


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
@pytest.mark.parametrize("seconds", [0.2, 200.0])
def test_a_full_disk_is_the_environments_fault(tmp_path: Path, seconds: float) -> None:
    """The job is not blamed, whether the disk fills at the start or long before the end."""
    full = tmp_path / "a.wav"
    full.symlink_to("/dev/full")
    with pytest.raises(EnvironmentFailure, match="the disk is full") as caught:
        encode({"wav": full}, noise(seconds))
    assert caught.value.code == "disk_full"


def test_ffmpegs_last_words_are_told(tmp_path: Path) -> None:
    """A target that cannot be opened ends in an error that says so."""
    with pytest.raises(SynthesisError, match="No such file or directory"):
        encode({"wav": tmp_path / "missing" / "a.wav"}, noise(30.0))


def test_an_ffmpeg_that_is_killed_is_an_error(tmp_path: Path) -> None:
    """Losing the process midway is noticed; no half file stays."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    with pytest.raises(SynthesisError), Encoder({"wav": tmp_path / "a.wav"}, RATE_HZ) as encoder:
        (process,) = set(children.read_text().split()) - before
        os.kill(int(process), 9)
        for _ in range(200):
            encoder.write(noise(10.0))
        encoder.finish()
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_hours_cost_seconds_and_no_memory(tmp_path: Path) -> None:
    """3 h 20 min at 22,050 Hz cost our process under 4 s and no memory that grows."""
    chunk = Audio(np.tile(tone(1.0).samples, 10), RATE_HZ)
    with Encoder({"flac": tmp_path / "a.flac"}, RATE_HZ) as encoder:
        encoder.write(chunk)
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(1200):
            encoder.write(chunk)
        after = resource.getrusage(resource.RUSAGE_SELF)
        (file,) = encoder.finish()
    assert file.duration_seconds == pytest.approx(12_010)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 4
    assert after.ru_maxrss - before.ru_maxrss < 20_000
