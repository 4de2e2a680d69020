"""The ceiling for one chunk, against ffmpeg's own measure of true peak."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sound.audio import Audio
from pipeline.sound.limit import limit
from pipeline.sound.measure import measure_blocks

RATE_HZ = 22_050
CEILING_DB = -1.5


def faded(samples: np.ndarray) -> Audio:
    """Sound with silent ends, as a chunk has."""
    ramp = np.minimum(1.0, np.arange(len(samples)) / 200)
    return Audio((samples * ramp * ramp[::-1]).astype(np.float32), RATE_HZ)


def tone(hz: float, level: float, phase: float = 0.0, seconds: float = 1.0) -> np.ndarray:
    """A sine."""
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ + phase)


def bursts(seed: int, level: float) -> np.ndarray:
    """Noise that comes and goes as fast as syllables do, low-passed as speech is."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.standard_normal(RATE_HZ), np.hanning(9) / 4, mode="same")
    return level * noise * (0.5 + 0.5 * np.sin(np.arange(RATE_HZ) / 500))


NASTY = {
    "a tone between the samples": tone(RATE_HZ / 4, 1.0, np.pi / 4),
    "a low tone": tone(110, 1.0),
    "a high tone": tone(9000, 0.99),
    "two tones": tone(400, 0.6) + tone(5000, 0.6, 1.0),
    "syllables of noise": bursts(1, 0.9),
    "louder than full scale": tone(200, 1.4),
    "one click": np.eye(1, RATE_HZ, RATE_HZ // 2)[0] * 1.0,
}


@pytest.mark.parametrize("name", NASTY)
def test_the_true_peak_stays_under_the_ceiling(name: str) -> None:
    """Also where it lies between the samples."""
    limited = limit(faded(NASTY[name]), CEILING_DB)
    assert measure_blocks([limited.samples], RATE_HZ).true_peak_db <= CEILING_DB + 0.05


@pytest.mark.parametrize("level", [0.0, 0.1, 0.4])
def test_what_is_quiet_enough_is_returned_as_it_is(level: float) -> None:
    """Not a sample changes, and nothing is copied."""
    chunk = faded(tone(300, level))
    assert limit(chunk, CEILING_DB) is chunk


def test_only_the_neighbourhood_of_a_peak_is_turned_down() -> None:
    """Twelve milliseconds from it the sound is as it was."""
    samples = tone(300, 0.5)
    samples[RATE_HZ // 2 : RATE_HZ // 2 + 20] = 0.99
    chunk = faded(samples)
    limited = limit(chunk, CEILING_DB)
    far = np.abs(np.arange(RATE_HZ) - RATE_HZ // 2) > RATE_HZ * 0.015
    np.testing.assert_array_equal(limited.samples[far], chunk.samples[far])
    assert np.abs(limited.samples).max() < 0.85


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.05, 3.0), st.floats(-20, 0))
def test_the_gain_never_rises_and_moves_slowly(seed: int, level: float, ceiling_db: float) -> None:
    """Between two samples it changes by less than a fiftieth of the whole way."""
    chunk = faded(bursts(seed, level))
    limited = limit(chunk, ceiling_db)
    heard = np.abs(chunk.samples) > 1e-3
    gain = limited.samples[heard] / chunk.samples[heard]
    assert gain.max() <= 1.0 + 1e-5
    steps = np.abs(np.diff(gain)) / np.diff(np.flatnonzero(heard))
    assert steps.max(initial=0.0) < 0.02
    assert np.isfinite(limited.samples).all() and len(limited.samples) == len(chunk.samples)


def test_a_chunk_that_is_loud_all_through_costs_little_memory() -> None:
    """A minute of it, in less than twenty times its own five megabytes."""
    chunk = faded(np.sign(tone(220.3, 1.0, seconds=60.0)) * 1.2)
    tracemalloc.start()
    try:
        limit(chunk, CEILING_DB)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
