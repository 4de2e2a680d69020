"""Finished takes by content: what goes in comes out, and what is damaged never does."""

import dataclasses
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sound_samples import RATE_HZ, noise, tone

from pipeline.cache import TakeCache, take_key
from pipeline.engines.base import Utterance, Voice
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Audio, Speech, Word, to_pcm16
from pipeline.verify import Transcript

KEY = "ab" + "0" * 62
WORDS = (
    Word(text="Hello", start_seconds=0.1, end_seconds=0.2, confidence=0.5),
    Word(text="ü", start_seconds=1, end_seconds=2),
)
HEARD = Transcript(text="hello", words=WORDS, doubted=("x",), fits=True, sounding_seconds=1.5)
UTTERANCE = Utterance(text="Hello.", voice=Voice(name="en"), language="en", synthesis=Synthesis(), seed=1)


@pytest.fixture
def cache(tmp_path: Path) -> TakeCache:
    """An empty one."""
    (tmp_path / "cache").mkdir()
    return TakeCache(tmp_path / "cache")


def files(tmp_path: Path) -> list[Path]:
    """All that lies in it."""
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


@pytest.mark.parametrize("words", [WORDS, (), None])
@pytest.mark.parametrize(
    "audio", [noise(0.3), tone(0.1, rate_hz=24_000), Audio(np.zeros(0, np.float32), RATE_HZ)]
)
def test_what_is_kept_is_what_later_runs_get(
    cache: TakeCache, audio: Audio, words: tuple[Word, ...] | None
) -> None:
    """To the sample, from the first run on, so that a resumed job sounds like an uninterrupted one."""
    kept = cache.keep(KEY, Speech(audio=audio, words=words))
    found = cache.speech(KEY)
    assert found is not None
    assert found.audio.rate_hz == kept.audio.rate_hz == audio.rate_hz
    assert np.array_equal(found.audio.samples, kept.audio.samples)
    assert np.array_equal(to_pcm16(kept.audio), to_pcm16(audio))
    assert found.words == kept.words == words


def test_what_is_not_there_is_not_there(cache: TakeCache) -> None:
    """Neither takes nor transcripts, not even the folder."""
    assert cache.speech(KEY) is None
    assert cache.transcript(KEY, "anybody") is None


def test_a_take_that_is_kept_again_replaces_the_first(cache: TakeCache, tmp_path: Path) -> None:
    """And nothing is left over."""
    cache.keep(KEY, Speech(audio=noise(0.1)))
    cache.keep(KEY, Speech(audio=tone(0.2)))
    found = cache.speech(KEY)
    assert found is not None and found.audio.seconds == pytest.approx(0.2, abs=0.001)
    assert [path.suffix for path in files(tmp_path)] == [".json", ".wav"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(where=st.integers(0, 10**9), bit=st.integers(0, 7), which=st.integers(0, 2))
def test_one_flipped_bit_is_absent_or_harmless(
    cache: TakeCache, tmp_path: Path, where: int, bit: int, which: int
) -> None:
    """In the sound, its header, the words, the transcript: nothing wrong ever comes out."""
    kept = cache.keep(KEY, Speech(audio=noise(0.02), words=WORDS))
    cache.keep_transcript(KEY, "me 1", HEARD)
    path = files(tmp_path)[which]
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= 1 << bit
    path.write_bytes(data)
    found = cache.speech(KEY)
    if found is not None:
        assert (found.audio.rate_hz, found.words) == (kept.audio.rate_hz, kept.words)
        assert np.array_equal(found.audio.samples, kept.audio.samples)
    assert cache.transcript(KEY, "me 1") in (None, HEARD)


@pytest.mark.parametrize("keep_bytes", [0, 1, 20, 44, 200, -1])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_file_that_was_cut_off_is_absent(
    cache: TakeCache, tmp_path: Path, which: int, keep_bytes: int
) -> None:
    """By a power cut, since nothing here is fsynced; it is then simply made again."""
    cache.keep(KEY, Speech(audio=noise(0.1), words=WORDS))
    cache.keep_transcript(KEY, "me 1", HEARD)
    path = files(tmp_path)[which]
    path.write_bytes(path.read_bytes()[:keep_bytes])
    is_transcript = path.name.count(".") == 2
    assert (cache.transcript(KEY, "me 1") is None) == is_transcript
    assert (cache.speech(KEY) is None) == (not is_transcript)
    cache.keep(KEY, Speech(audio=noise(0.1), words=WORDS))
    cache.keep_transcript(KEY, "me 1", HEARD)
    assert cache.speech(KEY) is not None and cache.transcript(KEY, "me 1") == HEARD


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"zz {}", b"\xff\xfe", b"44e08e73 []"])
def test_a_sheet_of_another_version_is_absent(cache: TakeCache, tmp_path: Path, content: bytes) -> None:
    """Whatever an older or a newer Voxspool wrote."""
    cache.keep(KEY, Speech(audio=noise(0.1)))
    cache.keep_transcript(KEY, "me 1", HEARD)
    for path in files(tmp_path):
        if path.suffix == ".json":
            path.write_bytes(content)
    assert cache.speech(KEY) is None and cache.transcript(KEY, "me 1") is None


def test_sound_of_another_take_is_not_taken_for_this_one(cache: TakeCache, tmp_path: Path) -> None:
    """A crash between the two files of a replaced entry."""
    cache.keep(KEY, Speech(audio=noise(0.1)))
    sheet, _ = files(tmp_path)
    before = sheet.read_bytes()
    cache.keep(KEY, Speech(audio=noise(0.1, seed=2)))
    sheet.write_bytes(before)
    assert cache.speech(KEY) is None


def test_an_entry_that_is_pruned_while_it_is_read_is_absent(
    cache: TakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruning runs in another process."""
    cache.keep(KEY, Speech(audio=noise(0.1)))
    monkeypatch.setattr(
        os, "utime", lambda path: Path(path).unlink() or (_ for _ in ()).throw(FileNotFoundError())
    )
    assert cache.speech(KEY) is None


def test_use_makes_an_entry_young_again(cache: TakeCache, tmp_path: Path) -> None:
    """Least recently used goes first when the cache is pruned."""
    cache.keep(KEY, Speech(audio=noise(0.1)))
    sheet = files(tmp_path)[0]
    os.utime(sheet, (5, 5))
    cache.speech(KEY)
    assert sheet.stat().st_mtime > 5


def test_transcripts_are_kept_by_recogniser(cache: TakeCache) -> None:
    """A new version of it listens anew."""
    cache.keep(KEY, Speech(audio=noise(0.1)))
    cache.keep_transcript(KEY, "pocketsphinx 5 en", HEARD)
    assert cache.transcript(KEY, "pocketsphinx 5 en") == HEARD
    for other in ("pocketsphinx 6 en", "whisper 5 en", "pocketsphinx 5 de"):
        assert cache.transcript(KEY, other) is None
    assert cache.transcript("cd" + KEY[2:], "pocketsphinx 5 en") is None


def test_a_disk_that_is_full_is_told_as_such(cache: TakeCache, tmp_path: Path) -> None:
    """As an OSError with its number, so that the job waits; and no half file takes up the last room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            cache.keep(KEY, Speech(audio=noise(1.0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(tmp_path) == []


# -- keys -------------------------------------------------------------------------------------------


def key(*, random: bool = True, engine: str = "espeak", version: str = "1", **changes: object) -> str:
    """The key of an utterance that differs so from the usual one."""
    return take_key(dataclasses.replace(UTTERANCE, **changes), engine, version, random=random)  # type: ignore[arg-type]


def test_everything_that_reaches_the_engine_is_in_the_key() -> None:
    """Each of these is another take."""
    keys = [
        key(),
        key(text="Hello!"),
        key(voice=Voice(name="de")),
        key(voice=Voice(name="en", clip=Path("x"), clip_sha256="1")),
        key(voice=Voice(name="en", clip=Path("x"), clip_sha256="2")),
        key(language="de"),
        key(synthesis=Synthesis(pitch=51)),
        key(seed=2),
        key(engine="other"),
        key(version="2"),
        key(random=False),
    ]
    assert len(set(keys)) == len(keys)


def test_nothing_else_is_in_the_key() -> None:
    """Where the clip lies, what it is called, what nobody set, and a seed that the engine ignores."""
    first = Voice(name="a", clip=Path("/a/x.wav"), clip_sha256="1")
    second = Voice(name="b", clip=Path("/b/y.wav"), clip_sha256="1")
    assert key(voice=first) == key(voice=second)
    assert key(synthesis=Synthesis(pitch=50)) == key(synthesis=Synthesis())
    assert key(seed=1, random=False) == key(seed=2, random=False)


def test_a_key_is_a_name_for_any_text() -> None:
    """Lone surrogates and line breaks too; and it stays the same from run to run."""
    assert set(key(text="\ud800\n")) <= set("0123456789abcdef")
    assert key() == key() and len(key()) == 64
    assert json.dumps(key())


def test_nothing_is_kept_where_the_state_folder_is_away(cache: TakeCache, tmp_path: Path) -> None:
    """The empty place of a mount that is lost stays empty."""
    (tmp_path / "cache").rmdir()
    with pytest.raises(FileNotFoundError):
        cache.keep(KEY, Speech(audio=Audio(np.zeros(10, np.float32), 8000)))
    assert list(tmp_path.iterdir()) == []
