"""Recordings joined: levelled, trimmed, silences exact, streams of any block size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sound_samples import RATE_HZ, rms_db, spoken, tone

from pipeline.sound.assemble import KEPT_EDGE_SECONDS, trim_edges
from pipeline.sound.audio import Audio, Samples, silence
from pipeline.sound.concat import MAX_GAIN_DB, Part, Survey, join, level_gains_db, survey


def in_blocks(audio: Audio, samples: int = 3000) -> list[Samples]:
    """`audio` as a stream."""
    return [audio.samples[at : at + samples] for at in range(0, len(audio.samples), samples)]


def part(audio: Audio, **options: object) -> Part:
    """A part that is `audio`."""
    return Part(blocks=in_blocks(audio), survey=survey(in_blocks(audio), RATE_HZ), **options)  # type: ignore[arg-type]


def joined(*parts: Part, crossfade_ms: int = 0) -> Audio:
    """The whole result."""
    blocks = [audio.samples for audio in join(parts, RATE_HZ, crossfade_ms=crossfade_ms)]
    return Audio(np.concatenate(blocks), RATE_HZ)


def surrounded(audio: Audio, seconds: float) -> Audio:
    """`audio` with silence around it."""
    quiet = silence(seconds, RATE_HZ).samples
    return Audio(np.concatenate((quiet, audio.samples, quiet)), RATE_HZ)


@given(st.integers(min_value=1, max_value=5000))
def test_a_survey_does_not_depend_on_the_blocks(block: int) -> None:
    """However the stream is cut, the same level and edges are found."""
    audio = surrounded(tone(0.3), 0.2)
    got, whole = survey(in_blocks(audio, block), RATE_HZ), survey([audio.samples], RATE_HZ)
    assert (got.samples, got.start_sample, got.end_sample) == (
        whole.samples,
        whole.start_sample,
        whole.end_sample,
    )
    assert got.level_db == pytest.approx(whole.level_db)


def test_a_survey_finds_level_and_edges() -> None:
    """The level is that of the sound and not of the silence around it."""
    found = survey(in_blocks(surrounded(tone(1.0, peak=0.5), 2.0)), RATE_HZ)
    assert found.level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)
    assert found.start_sample / RATE_HZ == pytest.approx(2.0 - KEPT_EDGE_SECONDS, abs=0.01)
    assert found.end_sample / RATE_HZ == pytest.approx(3.0 + KEPT_EDGE_SECONDS, abs=0.01)


def test_streams_are_trimmed_where_chunks_are() -> None:
    """The streaming edge finder agrees with the one for chunks, to its 10 ms."""
    speech = surrounded(spoken("Half of his breath was off"), 0.7)
    found = survey(in_blocks(speech), RATE_HZ)
    assert (found.end_sample - found.start_sample) / RATE_HZ == pytest.approx(
        trim_edges(speech).seconds, abs=0.021
    )


@pytest.mark.parametrize("audio", [silence(1.0, RATE_HZ), silence(0, RATE_HZ)])
def test_silence_has_no_level_and_is_kept(audio: Audio) -> None:
    """A silent recording is a pause somebody wanted."""
    found = survey(in_blocks(audio), RATE_HZ)
    assert found == Survey(
        samples=len(audio.samples), level_db=None, start_sample=0, end_sample=len(audio.samples)
    )
    assert joined(part(audio)).seconds == audio.seconds


def test_parts_meet_at_their_median_level() -> None:
    """Loud and soft parts come out equally loud; silence and absurd gains are left out."""
    assert level_gains_db([-20, -26, -23]) == (-3, 3, 0)
    assert level_gains_db([-20, None, -20]) == (0, 0, 0)
    assert level_gains_db([None]) == (0.0,)
    assert level_gains_db([-20, -20, -70]) == (0, 0, MAX_GAIN_DB)
    parts = [spoken("One word").samples * np.float32(level) for level in (1.0, 0.3, 0.6)]
    surveys = [survey([samples], RATE_HZ) for samples in parts]
    gains = level_gains_db([found.level_db for found in surveys])
    levels = [
        rms_db(Audio(s * np.float32(10 ** (g / 20)), RATE_HZ)) for s, g in zip(parts, gains, strict=True)
    ]
    assert max(levels) - min(levels) < 0.1


def test_silences_are_exact_and_edges_do_not_click() -> None:
    """Between two parts lie exactly the asked samples of nothing."""
    got = joined(part(tone(0.5), trim=False, silence_after_ms=250), part(tone(0.5), trim=False))
    half, gap = RATE_HZ // 2, round(0.25 * RATE_HZ)
    assert len(got.samples) == 2 * half + gap
    assert not got.samples[half : half + gap].any()
    assert got.samples[0] == got.samples[half - 1] == got.samples[-1] == 0
    assert np.array_equal(got.samples[200 : half - 200], tone(0.5).samples[200 : half - 200])


def test_a_gain_is_applied_to_the_whole_part() -> None:
    """Six decibels double the samples."""
    got = joined(part(tone(0.5), trim=False, gain_db=20 * np.log10(2)))
    assert np.allclose(got.samples[200:-200], 2 * tone(0.5).samples[200:-200], atol=1e-6)


def test_a_cross_fade_shortens_and_never_crosses_a_silence() -> None:
    """Parts overlap by the asked time where they meet; a silence keeps them apart."""
    a, b, c = (
        part(tone(1.0, hz=hz), trim=False, silence_after_ms=gap)
        for hz, gap in ((200, None), (300, 100), (400, 0))
    )
    got = joined(a, b, c, crossfade_ms=200)
    assert got.seconds == pytest.approx(1.0 + 0.8 + 0.1 + 1.0, abs=1e-3)
    assert not got.between(1.81, 1.89).samples.any()


def test_a_cross_fade_is_at_most_half_of_a_part() -> None:
    """A short jingle between long parts is heard."""
    got = joined(*(part(tone(seconds), trim=False) for seconds in (1.0, 0.2, 1.0)), crossfade_ms=5000)
    assert got.seconds == pytest.approx(2.2 - 2 * 0.1, abs=1e-3)


@given(st.lists(st.integers(300, 4000), min_size=1, max_size=5), st.integers(0, 300), st.integers(100, 5000))
def test_lengths_add_up(lengths: list[int], crossfade_ms: int, block: int) -> None:
    """Nothing is lost or invented: the parts less one overlap for each join."""
    audios = [Audio(np.full(length, 0.1, np.float32), RATE_HZ) for length in lengths]
    parts = [
        Part(blocks=in_blocks(audio, block), survey=survey([audio.samples], RATE_HZ), trim=False)
        for audio in audios
    ]
    overlap = min([round(crossfade_ms * RATE_HZ / 1000), *(length // 2 for length in lengths)])
    got = joined(*parts, crossfade_ms=crossfade_ms)
    assert len(got.samples) == sum(lengths) - overlap * (len(lengths) - 1)
