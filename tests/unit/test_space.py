"""How much room a job is thought to need, against what sound really takes up."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import space
from pipeline.engines import load
from pipeline.engines.base import Utterance, Voice
from pipeline.jobs.job import Need
from pipeline.jobs.settings import Settings, Synthesis
from pipeline.layout import Layout
from pipeline.sound.encode import FORMATS, Encoder
from pipeline.space import (
    MARGIN,
    Room,
    need_of_recordings,
    need_of_text,
    recording_seconds,
    shortage,
    speech_seconds,
)

PROSE = (
    "The Time Traveller was expounding a recondite matter to us. His grey eyes shone and twinkled, and his"
    " usually pale face was flushed and animated. The fire burned brightly, and the soft radiance of the"
    " lamps caught the bubbles that flashed and passed in our glasses."
)
FIGURES = "On 12/05/1987 the total was 1234567 and 89.25 per cent."
CHINESE = "今天天气很好，我们一起去公园散步吧。孩子们在草地上玩耍，老人们坐在长椅上聊天。"


def settings(**sections: Any) -> Settings:
    """Job settings, the rest at their defaults."""
    return Settings.model_validate(sections)


@pytest.mark.parametrize(
    ("text", "language", "words_per_minute"),
    [(PROSE, "en", 150), (PROSE, "en", 400), (FIGURES, "en", 150), (CHINESE, "cmn", 150)],
    ids=["prose", "quick", "figures", "chinese"],
)
def test_speech_is_no_longer_than_it_was_thought_to_be(
    text: str, language: str, words_per_minute: int
) -> None:
    """By the real engine; and not many times shorter, or jobs would wait for nothing."""
    asked = Synthesis(words_per_minute=words_per_minute)
    voice = Voice(name="", clip=None, clip_sha256=None)
    spoken = load("espeak").speak(
        Utterance(text=text, voice=voice, language=language, synthesis=asked, seed=1)
    )
    thought = speech_seconds(text, settings(synthesis={"words_per_minute": words_per_minute}))
    assert 1.0 <= MARGIN * thought / spoken.audio.seconds < 4.0


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_no_larger_than_it_was_thought_to_be(tmp_path: Path, name: str) -> None:
    """Written by the real encoder; prose by the real engine."""
    voice = Voice(name="", clip=None, clip_sha256=None)
    spoken = load("espeak").speak(
        Utterance(text=PROSE, voice=voice, language="en", synthesis=Synthesis(), seed=1)
    )
    with Encoder({name: tmp_path / "a"}, spoken.audio.rate_hz) as encoder:
        encoder.write(spoken.audio)
        encoder.finish()
    thought = need_of_recordings(spoken.audio.seconds, settings(output={"formats": [name]}))
    assert (tmp_path / "a").stat().st_size < thought.outbox_bytes < 8 * (tmp_path / "a").stat().st_size


def test_everything_that_takes_room_counts() -> None:
    """Formats, a raw copy for a loudness, tempo, takes, pauses, length, slowness."""
    plain = need_of_text(PROSE, settings())
    for more in (
        {"output": {"formats": ["mp3", "wav"]}},
        {"audio": {"speed": 0.5}},
        {"pauses": {"sentence_ms": 5000}},
        {"synthesis": {"words_per_minute": 80}},
    ):
        dearer = need_of_text(PROSE, settings(**more))
        assert dearer.state_bytes > plain.state_bytes and dearer.outbox_bytes > plain.outbox_bytes, more
    for inside in ({"audio": {"loudness_lufs": -16.0}}, {"takes": {"per_chunk": 3}}):
        dearer = need_of_text(PROSE, settings(**inside))
        assert dearer.state_bytes > plain.state_bytes and dearer.outbox_bytes == plain.outbox_bytes, inside
    assert need_of_text(PROSE * 10, settings()).state_files > plain.state_files


def test_the_beginning_tells_of_the_whole() -> None:
    """Of a large file only a part is read."""
    whole, part = need_of_text(PROSE * 100, settings()), need_of_text(PROSE * 10, settings(), part=0.1)
    assert part.state_bytes == pytest.approx(whole.state_bytes, rel=0.02)
    assert part.outbox_bytes == pytest.approx(whole.outbox_bytes, rel=0.02)
    assert part.state_files == pytest.approx(whole.state_files, rel=0.02)


@given(st.text(max_size=500), st.integers(1, 10), st.floats(0.5, 2.0))
def test_no_text_needs_nothing_or_less(text: str, takes: int, speed: float) -> None:
    """Whatever stands there."""
    need = need_of_text(text, settings(takes={"per_chunk": takes, "max_tries": 10}, audio={"speed": speed}))
    assert min(need.state_bytes, need.state_files, need.outbox_bytes) > 0


def test_a_recording_is_judged_by_its_kind() -> None:
    """A second of compressed speech is smaller; an unknown kind counts as the smallest."""
    assert recording_seconds("a.wav", 320_000) == 10.0
    assert recording_seconds("a.OPUS", 30_000) == 10.0 == recording_seconds("a", 30_000)


def test_why_a_job_does_not_fit() -> None:
    """The first thing that it lacks, in numbers."""
    room = Room(state_bytes=5e6, state_files=10, outbox_bytes=1e6)
    assert shortage(Need(state_bytes=5_000_000, state_files=10, outbox_bytes=1_000_000), room) == ""
    assert shortage(Need(state_bytes=6_000_000), room) == (
        "it needs about 6 MB on the disk of the state, where 5 MB may be used"
    )
    assert "the outbox, where 1 MB may" in shortage(Need(outbox_bytes=2_000_000), room)
    assert "11 files" in shortage(Need(state_files=11), room)
    nothing = Room(state_bytes=-100.0, state_files=-5.0, outbox_bytes=-100.0)
    assert "where 0 bytes may be used" in shortage(Need(state_bytes=1), nothing)


def test_what_is_kept_free_is_not_offered(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and files; a filesystem that does not count files has as many as one likes."""
    real = os.statvfs(layout.state)
    free = real.f_bavail * real.f_frsize
    offered = space.room(layout, 1_000_000)
    assert offered.state_bytes == pytest.approx(free - 1_000_000, rel=0.01)
    uncounted = os.statvfs_result((4096, 4096, 100, 50, 50, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: uncounted)
    assert space.look(layout.state) == space.Free(bytes=50 * 4096, files=float("inf"))
