"""Change of sample rate: right pitch, right length, nothing folded back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sound.audio import Audio
from pipeline.sound.resample import resample

RATES = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000]


def tone(frequency_hz: float, rate_hz: int, seconds: float = 0.5) -> Audio:
    """A sine at full scale."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return Audio(np.sin(2 * np.pi * frequency_hz * time).astype(np.float32), rate_hz)


def level_db(samples: np.ndarray) -> float:
    """Root mean square without the edges, in dB."""
    inner = samples[400:-400]
    return float(20 * np.log10(np.sqrt(np.mean(inner**2)) + 1e-12))


@pytest.mark.parametrize("source_hz", RATES)
@pytest.mark.parametrize("target_hz", [16_000, 24_000])
@pytest.mark.parametrize("frequency_hz", [50, 440, 3_000])
def test_a_tone_stays_the_same_tone(source_hz: int, target_hz: int, frequency_hz: float) -> None:
    """Pitch, level and phase are kept to 60 dB and better."""
    changed = resample(tone(frequency_hz, source_hz), target_hz)
    wanted = tone(frequency_hz, target_hz)
    assert changed.rate_hz == target_hz
    assert level_db(changed.samples - wanted.samples[: len(changed.samples)]) < -60


@pytest.mark.parametrize("source_hz", [22_050, 24_000, 44_100, 48_000])
def test_what_the_new_rate_cannot_hold_is_gone(source_hz: int) -> None:
    """A tone above the new half-rate does not fold back into the speech band."""
    assert level_db(resample(tone(9_500, source_hz), 16_000).samples) < -70


@given(st.integers(0, 3_000), st.sampled_from(RATES), st.sampled_from(RATES))
def test_length_is_kept(count: int, source_hz: int, target_hz: int) -> None:
    """Duration is kept to one sample, down to no samples at all, and silence stays silence."""
    changed = resample(Audio(np.zeros(count, dtype=np.float32), source_hz), target_hz)
    assert abs(len(changed.samples) - count * target_hz / source_hz) < 1
    assert changed.samples.dtype == np.float32
    assert not changed.samples.any()


def test_there_and_back(data_seed: int = 3) -> None:
    """Speech-band sound survives 22,050 to 16,000 and back."""
    random = np.random.default_rng(data_seed)
    parts = [tone(f, 22_050).samples * random.uniform(0.05, 0.2) for f in (120, 700, 1_900, 5_200)]
    sound = Audio(np.sum(parts, axis=0, dtype=np.float32), 22_050)
    back = resample(resample(sound, 16_000), 22_050)
    assert level_db(back.samples[: len(sound.samples)] - sound.samples) < -60


def test_same_rate_is_the_same_sound() -> None:
    """Nothing is done where nothing is to do."""
    sound = tone(440, 16_000)
    assert resample(sound, 16_000) is sound


def test_constant_stays_constant() -> None:
    """The filter neither lifts nor lowers the lowest frequencies in any phase."""
    changed = resample(Audio(np.full(22_050, 0.5, dtype=np.float32), 22_050), 16_000)
    assert np.allclose(changed.samples[200:-200], 0.5, atol=1e-5)
