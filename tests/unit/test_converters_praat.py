"""Praat's change of voice: what is measured, what is changed, and how near the result comes."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sound_samples import noise, read_wav, spoken, tone

from pipeline.converters.praat import Praat, Voiceprint, change, voiceprint
from pipeline.errors import InputError
from pipeline.sound.audio import Audio
from pipeline.sound.decode import decode

SENTENCE = "The Time Traveller was expounding a recondite matter to us, and his eyes shone and twinkled."
WOMAN, MAN = spoken(SENTENCE, "en-us+f2"), spoken(SENTENCE, "en-us+m3")


def measured(audio: Audio) -> Voiceprint:
    """The voiceprint of something that has a voice."""
    got = voiceprint(audio)
    assert got is not None
    return got


def a_print(pitch_hz: float = 100.0, spread: float = 0.2, scale: float = 1.0) -> Voiceprint:
    """A voice made up."""
    formants = tuple(scale * hz for hz in (1500.0, 2500.0, 3500.0))
    return Voiceprint(
        pitch_median_hz=pitch_hz,
        pitch_spread=spread,
        formants_hz=formants,
        harmonicity_db=12,
        voiced_seconds=3,
    )


@pytest.mark.parametrize("hz", [80.0, 120.0, 200.0, 350.0])
def test_the_pitch_of_a_tone_is_its_own(hz: float) -> None:
    """A buzz of known pitch is measured to a hundredth, from low men to children."""
    at = np.arange(44_100) / 22_050
    buzz = sum(np.sin(2 * np.pi * hz * k * at) / k for k in range(1, 15))
    got = measured(Audio((0.2 * buzz).astype(np.float32), 22_050))
    assert got.pitch_median_hz == pytest.approx(hz, rel=0.01)
    assert got.pitch_spread < 0.01
    assert got.harmonicity_db > 15


def test_the_measurement_does_not_depend_on_level_or_rate() -> None:
    """The same voice softer, or at another rate, is the same voice."""
    loud, soft = measured(WOMAN), measured(Audio(WOMAN.samples * np.float32(0.05), WOMAN.rate_hz))
    assert soft.pitch_median_hz == pytest.approx(loud.pitch_median_hz, rel=0.01)
    assert soft.formants_hz == pytest.approx(loud.formants_hz, rel=0.02)


@pytest.mark.parametrize("audio", [noise(3.0), tone(0.3), Audio(np.zeros(44_100, np.float32), 22_050)])
def test_where_there_is_no_voice_there_is_no_print(audio: Audio) -> None:
    """Noise, a blip and silence are no voice."""
    assert voiceprint(audio) is None


@pytest.mark.parametrize(
    ("source", "reference"), [(WOMAN, MAN), (MAN, WOMAN)], ids=["to a man", "to a woman"]
)
def test_pitch_and_formants_move_to_the_target(source: Audio, reference: Audio) -> None:
    """The median pitch arrives within a semitone; the formants come nearer."""
    praat = Praat()
    target = praat.fit(praat.measure(reference), source)
    got = measured(praat.convert(source, target, pitch_shift_semitones=0))
    before, wanted = measured(source), measured(reference)
    assert abs(12 * np.log2(got.pitch_median_hz / wanted.pitch_median_hz)) < 1

    def distance(voice: Voiceprint) -> float:
        return abs(float(np.log(np.divide(voice.formants_hz, wanted.formants_hz)).mean()))

    assert distance(got) < 0.9 * distance(before)


@pytest.mark.parametrize("semitones", [-7.0, -2.0, 3.0, 12.0])
def test_the_shift_is_on_the_output(semitones: float) -> None:
    """Semitones are added to where the target's pitch would be."""
    praat = Praat()
    target = praat.fit(praat.measure(MAN), WOMAN)
    plain, shifted = (measured(praat.convert(WOMAN, target, pitch_shift_semitones=s)) for s in (0, semitones))
    moved = 12 * np.log2(shifted.pitch_median_hz / plain.pitch_median_hz)
    assert moved == pytest.approx(semitones, abs=1.0)


def test_a_fitted_target_changes_all_chunks_alike() -> None:
    """A chunk spoken higher than the rest stays higher: the change is the recording's, not the chunk's."""
    praat = Praat()
    high = spoken(SENTENCE, "en-us+f4")
    target = praat.fit(praat.measure(MAN), WOMAN)
    low_out, high_out = (measured(praat.convert(a, target, pitch_shift_semitones=0)) for a in (WOMAN, high))
    before = measured(high).pitch_median_hz / measured(WOMAN).pitch_median_hz
    assert abs(before - 1) > 0.03
    assert high_out.pitch_median_hz / low_out.pitch_median_hz == pytest.approx(before, rel=0.06)


def test_praats_warnings_stay_inside() -> None:
    """A chunk without voice in a voiced recording converts without a word on the console."""
    praat = Praat()
    target = praat.fit(praat.measure(MAN), WOMAN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        praat.convert(noise(1.0), target, pitch_shift_semitones=0)


def test_a_noisy_reference_is_refused() -> None:
    """Noise as loud as the voice would be measured along with it."""
    level = float(np.sqrt(np.square(WOMAN.samples).mean()))
    clip = Audio(
        WOMAN.samples + noise(WOMAN.seconds + 1, rms=level).samples[: len(WOMAN.samples)], WOMAN.rate_hz
    )
    with pytest.raises(InputError) as caught:
        Praat().measure(clip)
    assert caught.value.code in ("reference_noisy", "reference_no_voice")
    assert "clean" in caught.value.hint


def test_a_reference_without_a_voice_is_refused() -> None:
    """Noise alone is told apart from a noisy voice."""
    with pytest.raises(InputError, match="No voice can be found"):
        Praat().measure(noise(5.0))


def test_a_target_of_another_converter_is_a_mistake() -> None:
    """Targets are opaque and not interchangeable."""
    with pytest.raises(TypeError):
        Praat().convert(WOMAN, object(), pitch_shift_semitones=0)


@given(st.floats(60, 400), st.floats(60, 400), st.floats(0, 2), st.floats(0.3, 3), st.floats(-24, 24))
def test_changes_stay_within_a_human_range(
    source_hz: float, target_hz: float, spread: float, scale: float, shift: float
) -> None:
    """Pitch goes where it is asked; range and formants only as far as a voice still sounds like one."""
    got = change(a_print(source_hz), a_print(target_hz, spread, scale), shift)
    assert got.pitch_ratio == pytest.approx(target_hz / source_hz * 2 ** (shift / 12))
    assert 0.6 <= got.range_factor <= 1.6
    assert 0.75 <= got.formant_ratio <= 1.35


def test_a_voice_is_not_changed_into_itself() -> None:
    """From a voice to the same voice nothing moves, also where it is monotonous."""
    got = change(a_print(), a_print(), 0)
    assert (got.pitch_ratio, got.range_factor, got.formant_ratio) == pytest.approx((1, 1, 1))
    assert change(a_print(spread=0), a_print(), 0).range_factor == 1.0


def test_real_recordings_come_near_each_other(data: Path) -> None:
    """A woman's sentence takes on the pitch of a man's address to a tenth of a semitone or so."""
    praat = Praat()
    source, reference = read_wav(data / "lj050-0131.wav"), decode(data / "jfk.flac", 44_100)
    target = praat.fit(praat.measure(reference), source)
    got = praat.convert(source, target, pitch_shift_semitones=0)
    assert measured(got).pitch_median_hz == pytest.approx(target.voice.pitch_median_hz, rel=0.02)
    assert len(got.samples) == len(source.samples)
