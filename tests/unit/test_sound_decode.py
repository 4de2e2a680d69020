"""Foreign recordings: every format in, and every broken one refused with a plain sentence."""

import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sound_samples import RATE_HZ, noise, recording, rms_db, tone

from pipeline.errors import InputError
from pipeline.sound.audio import Audio
from pipeline.sound.decode import decode, decode_blocks, probe
from pipeline.sound.ffmpeg import executable

FORMATS = {
    "a.wav": (),
    "a.flac": (),
    "a.mp3": ("-q:a", "3"),
    "cbr.mp3": ("-b:a", "64k", "-write_xing", "0"),
    "a.ogg": ("-c:a", "libvorbis"),
    "a.opus": (),
    "a.m4a": (),
    "fast.m4a": ("-movflags", "+faststart"),
    "a.aac": (),
    "float.wav": ("-c:a", "pcm_f32le"),
    "stereo.wav": ("-af", "pan=stereo|c0=c0|c1=c0"),
    "big.wav": ("-rf64", "always"),
}
# Those whose structure tells how long they were; in the others a clean cut cannot be seen.
TELLING = [name for name in FORMATS if name not in ("cbr.mp3", "a.aac")]


def refusal(path: Path) -> InputError:
    """The error that decoding `path` raises."""
    with pytest.raises(InputError) as caught:
        decode(path, RATE_HZ)
    return caught.value


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_comes_back_whole(tmp_path: Path, name: str) -> None:
    """Length, level and pitch survive each container and codec we take."""
    source = tone(3.0)
    got = decode(recording(tmp_path / name, source, *FORMATS[name]), RATE_HZ)
    assert got.rate_hz == RATE_HZ
    assert got.seconds == pytest.approx(3.0, abs=0.12)
    assert rms_db(got.between(0.5, 2.5)) == pytest.approx(rms_db(source), abs=0.5)
    spectrum = np.abs(np.fft.rfft(got.between(1.0, 2.0).samples))
    assert int(spectrum.argmax()) == pytest.approx(220, abs=1)


@pytest.mark.parametrize("rate_hz", [1, 100, 1999])
def test_a_header_that_stretches_time_is_refused_at_once(tmp_path: Path, rate_hz: int) -> None:
    """32 kB at one sample a second are four hours of sound, and a megabyte a year of work and disk."""
    path = recording(tmp_path / "a.wav", tone(1.0, rate_hz=16_000))
    data = bytearray(path.read_bytes())
    at = data.index(b"fmt ") + 12
    data[at : at + 8] = struct.pack("<II", rate_hz, 2 * rate_hz)
    path.write_bytes(data)
    assert f"a.wav cannot be read as a recording: its header claims {rate_hz:,} samples a" in str(
        refusal(path)
    )
    with pytest.raises(InputError, match="too few for speech"):
        probe(path)


def test_a_toy_is_still_heard(tmp_path: Path) -> None:
    """4000 samples a second are little, but somebody's voice."""
    assert decode(recording(tmp_path / "a.wav", tone(1.0), "-ar", "4000"), RATE_HZ).seconds > 0.9


def test_wav_and_flac_come_back_bit_for_bit(tmp_path: Path) -> None:
    """What is lossless stays so where the rate is kept."""
    source = noise(1.0)
    for name in ("a.wav", "a.flac"):
        got = decode(recording(tmp_path / name, source), RATE_HZ)
        assert np.array_equal(got.samples, np.rint(source.samples * 32768).astype(np.float32) / 32768)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_the_asked_rate_is_given(tmp_path: Path, rate_hz: int) -> None:
    """Decoding resamples to the rate the caller works at."""
    got = decode(recording(tmp_path / "a.flac", tone(2.0)), rate_hz)
    assert len(got.samples) == pytest.approx(2 * rate_hz, abs=rate_hz // 100)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate_hz", [24_000, 44_100])
def test_channels_are_mixed_without_getting_louder(tmp_path: Path, channels: int, rate_hz: int) -> None:
    """The same sound on every channel is that sound, at its own level: nothing is driven into clipping."""
    sound = tone(1.0, peak=0.9)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat(sound.samples[:, None], channels, axis=1), RATE_HZ, subtype="FLOAT")
    decoded = decode(path, rate_hz)
    assert decoded.seconds == pytest.approx(1.0, abs=0.001)
    middle = decoded.between(0.2, 0.8).samples
    assert 20 * np.log10(np.abs(middle).max() / 0.9) == pytest.approx(0.0, abs=0.1)


def test_the_name_does_not_matter_but_the_content(tmp_path: Path) -> None:
    """An mp3 called .wav is decoded as mp3, under a name that looks like an address."""
    odd = tmp_path / "http:--x %d\n.wav"
    os.rename(recording(tmp_path / "a.mp3", tone(1.0)), odd)
    assert decode(odd, RATE_HZ).seconds == pytest.approx(1.0, abs=0.1)
    assert probe(odd).codec == "mp3"


def test_probe_tells_what_the_header_says(tmp_path: Path) -> None:
    """Seconds, rate, channels and codec, without decoding."""
    found = probe(recording(tmp_path / "a.flac", tone(2.5), "-ac", "2", "-ar", "48000"))
    assert (found.rate_hz, found.channels, found.codec) == (48_000, 2, "flac")
    assert found.seconds == pytest.approx(2.5, abs=0.02)


def test_probe_does_not_guess_a_length(tmp_path: Path) -> None:
    """Where the length could only be estimated from the bit rate it is not told."""
    assert probe(recording(tmp_path / "a.mp3", tone(2.0), "-write_xing", "0")).seconds is None


def test_blocks_are_even_and_add_up(tmp_path: Path) -> None:
    """The stream is the same sound in blocks of the asked length, the last one shorter."""
    path = recording(tmp_path / "a.flac", noise(3.3))
    blocks = list(decode_blocks(path, RATE_HZ, 1.0))
    assert [len(block) for block in blocks[:-1]] == [RATE_HZ] * 3
    assert np.array_equal(np.concatenate(blocks), decode(path, RATE_HZ).samples)


def test_a_reader_that_stops_early_leaves_no_process(tmp_path: Path) -> None:
    """Closing the stream ends ffmpeg at once."""
    blocks = decode_blocks(recording(tmp_path / "a.flac", noise(120.0)), RATE_HZ, 0.1)
    next(blocks)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    blocks.close()  # type: ignore[attr-defined]
    assert len(children.read_text().split()) == len(before) - 1


def test_max_seconds_takes_the_beginning(tmp_path: Path) -> None:
    """Only the first part is decoded, and that is no truncation."""
    path = recording(tmp_path / "a.mp3", tone(5.0))
    assert decode(path, RATE_HZ, max_seconds=2.0).seconds == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("share", [0.4, 0.85])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    """A half-copied recording is never converted as if it were whole."""
    raw = recording(tmp_path / name, noise(6.0), *FORMATS[name]).read_bytes()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(raw[: int(len(raw) * share)])
    error = refusal(cut)
    assert error.code == "audio_truncated"
    assert str(error).startswith(f"cut-{name} is cut short: ")
    assert "drop it again" in error.hint


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "audio_empty", "x.wav holds no sound: it is 0 bytes of nothing."),
        (b"\0" * 500, "audio_empty", "x.wav holds no sound: it is 500 bytes of nothing."),
        (b"dear diary", "audio_unreadable", "its content is none of wav, mp3, flac, ogg, opus, m4a or aac"),
        (b"RIFF\x24\0\0\0WAVE", "audio_unreadable", "x.wav cannot be read as a recording"),
        (b"fLaC" + b"\1" * 5000, "audio_unreadable", "x.wav cannot be read as a recording"),
        (b"\xff\xfb\x90\x00" + b"\1" * 5000, "audio_unreadable", "x.wav cannot be read as a recording"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    """Empty, foreign and broken content each get their code and sentence."""
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == code
    assert words in str(error)


def test_a_wav_without_samples_is_empty(tmp_path: Path) -> None:
    """A right header with no sound behind it is told as such."""
    error = refusal(recording(tmp_path / "none.wav", Audio(np.zeros(0, np.float32), RATE_HZ)))
    assert error.code == "audio_empty"


def test_values_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    """A float recording may hold NaN; it must not get into the rest of the house."""
    path = recording(tmp_path / "f.wav", tone(1.0), "-c:a", "pcm_f32le")
    raw = bytearray(path.read_bytes())
    raw[-8:-4] = np.float32(np.nan).tobytes()
    path.write_bytes(raw)
    assert "not numbers" in str(refusal(path))


@pytest.mark.parametrize("kind", ["playlist", "concat", "drefs"])
def test_a_recording_cannot_pull_in_another_file(tmp_path: Path, kind: str) -> None:
    """Playlists and concat lists that name a real recording give an error and not its sound."""
    secret = recording(tmp_path / "secret.wav", tone(1.0))
    text = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "drefs": f"<smil><audio src='file://{secret}'/></smil>",
    }[kind]
    bait = tmp_path / "bait.wav"
    bait.write_text(text)
    assert refusal(bait).code == "audio_unreadable"


def test_links_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    """Only a regular file is opened; nothing blocks on a FIFO."""
    (tmp_path / "link.wav").symlink_to(recording(tmp_path / "a.wav", tone(0.5)))
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    for name in ("link.wav", "pipe.wav", "folder.wav", "missing.wav"):
        assert refusal(tmp_path / name).code == "audio_unreadable"


def test_a_picture_in_the_tag_is_no_obstacle(tmp_path: Path) -> None:
    """Cover art longer than the head we look at hides neither the container nor the sound."""
    song, cover, both = recording(tmp_path / "a.mp3", tone(1.0)), tmp_path / "c.png", tmp_path / "b.mp3"
    picture = [executable(), "-loglevel", "error", "-f", "lavfi", "-i", "color=red:s=400x400,noise=alls=90"]
    subprocess.run([*picture, "-frames:v", "1", "-y", str(cover)], check=True, timeout=60)
    inputs = [executable(), "-loglevel", "error", "-i", str(song), "-i", str(cover)]
    subprocess.run([*inputs, "-map", "0", "-map", "1", "-c", "copy", "-y", str(both)], check=True, timeout=60)
    assert both.stat().st_size > 100_000
    assert decode(both, RATE_HZ).seconds == pytest.approx(1.0, abs=0.1)
