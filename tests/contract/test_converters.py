"""What every voice converter must do: the contract of `converters/base.py`, run over the whole table."""

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline import converters, engines
from pipeline.converters.base import Converter, Target
from pipeline.engines.base import Utterance, Voice
from pipeline.equipment import BARE
from pipeline.errors import InputError
from pipeline.jobs.settings import Settings, Synthesis
from pipeline.sound.audio import Audio

SOURCE = "The quick brown fox jumps over the lazy dog, and nobody minds."
REFERENCE = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for Bob."


def speech(text: str, voice: str, rate_hz: int) -> Audio:
    """A sentence in one of the embedded engine's voices, at `rate_hz`."""
    utterance = Utterance(text=text, voice=Voice(name=voice), language="en", synthesis=Synthesis(), seed=1)
    spoken = engines.load("espeak").speak(utterance).audio
    at = np.arange(round(spoken.seconds * rate_hz)) * spoken.rate_hz / rate_hz
    return Audio(np.interp(at, np.arange(len(spoken.samples)), spoken.samples).astype(np.float32), rate_hz)


def rms_db(audio: Audio) -> float:
    """Level in dBFS."""
    return float(10 * np.log10(np.mean(np.square(audio.samples, dtype=np.float64)) + 1e-20))


@pytest.fixture(scope="module", params=sorted(converters.CONVERTERS))
def converter(request: pytest.FixtureRequest) -> Iterator[Converter]:
    """Each converter of the table, loaded once."""
    bare = request.param == "praat"
    loaded = converters.load(request.param, BARE if bare else request.getfixturevalue("small_equipment"))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def source(converter: Converter) -> Audio:
    """What is to be converted."""
    return speech(SOURCE, "en-us+f2", converter.rate_hz)


@pytest.fixture(scope="module")
def target(converter: Converter, source: Audio) -> Target:
    """Another voice, measured and fitted."""
    return converter.fit(converter.measure(speech(REFERENCE, "en-us+m3", converter.rate_hz)), source)


def test_it_says_who_it_is(converter: Converter) -> None:
    """Name, version and device stand in the manifest."""
    assert converters.CONVERTERS.keys() >= {converter.name}
    assert converter.version
    assert converter.device
    assert converter.rate_hz >= 16_000


def test_the_output_lasts_as_long_as_the_input(converter: Converter, source: Audio, target: Target) -> None:
    """To 50 ms, at the same rate, for a sentence and for a part of one."""
    for audio in (source, source.between(0.3, 1.0)):
        got = converter.convert(audio, target, pitch_shift_semitones=0)
        assert got.rate_hz == audio.rate_hz
        assert got.seconds == pytest.approx(audio.seconds, abs=0.05)


def test_it_changes_the_voice_and_keeps_the_level(
    converter: Converter, source: Audio, target: Target
) -> None:
    """The result is another sound at the same level, without clipping."""
    got = converter.convert(source, target, pitch_shift_semitones=0)
    assert not np.allclose(got.samples[: len(source.samples)], source.samples[: len(got.samples)], atol=0.01)
    assert rms_db(got) == pytest.approx(rms_db(source), abs=1.0)
    assert np.abs(got.samples).max() <= 1.0
    assert np.isfinite(got.samples).all()


def test_the_same_input_gives_the_same_output(converter: Converter, source: Audio, target: Target) -> None:
    """A retry after a crash yields the same file."""
    first, second = (converter.convert(source, target, pitch_shift_semitones=2) for _ in range(2))
    assert np.array_equal(first.samples, second.samples)


def test_the_input_is_left_alone(converter: Converter, source: Audio, target: Target) -> None:
    """Neither measuring nor converting writes to what it was given."""
    before = source.samples.copy()
    converter.fit(target, source)
    converter.convert(source, target, pitch_shift_semitones=-3)
    assert np.array_equal(source.samples, before)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.03, 1.0, 5.0])
def test_silence_stays_silence(converter: Converter, target: Target, seconds: float) -> None:
    """A pause in a recording, however short, passes without an error and without noise."""
    quiet = Audio(np.zeros(round(seconds * converter.rate_hz), np.float32), converter.rate_hz)
    got = converter.convert(quiet, target, pitch_shift_semitones=0)
    assert got.seconds == pytest.approx(quiet.seconds, abs=0.05)
    assert np.abs(got.samples).max(initial=0.0) < 1e-3


def test_what_has_no_voice_passes(converter: Converter, target: Target) -> None:
    """Applause or wind between the words is no reason to fail a job."""
    wind = np.random.default_rng(1).standard_normal(2 * converter.rate_hz).astype(np.float32) * np.float32(
        0.05
    )
    got = converter.convert(Audio(wind, converter.rate_hz), target, pitch_shift_semitones=0)
    assert got.seconds == pytest.approx(2.0, abs=0.05)
    assert rms_db(got) == pytest.approx(rms_db(Audio(wind, converter.rate_hz)), abs=3.0)


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_reference_that_is_too_short_is_refused(converter: Converter, seconds: float) -> None:
    """With a sentence and advice, before any work is done."""
    clip = speech(REFERENCE, "en-us+m3", converter.rate_hz).between(0, seconds)
    with pytest.raises(InputError) as caught:
        converter.measure(clip)
    assert caught.value.code == "reference_short"
    assert "5 to 30 s" in caught.value.hint


def test_a_silent_reference_is_refused(converter: Converter) -> None:
    """Digital silence holds no voice."""
    with pytest.raises(InputError) as caught:
        converter.measure(Audio(np.zeros(10 * converter.rate_hz, np.float32), converter.rate_hz))
    assert caught.value.code == "reference_silent"


def test_every_engine_means_a_converter() -> None:
    """Whatever engine a job names, a recording can be converted."""
    engine_names = Settings.model_fields["engine"].annotation.__args__  # type: ignore[union-attr]
    assert set(converters.BY_ENGINE) == set(engine_names)
    assert set(converters.BY_ENGINE.values()) == set(converters.CONVERTERS)


def test_an_unknown_converter_is_an_error() -> None:
    """There is no default to fall back to."""
    with pytest.raises(InputError, match="no voice converter 'magic'"):
        converters.load("magic")
