"""Levels: measured over the whole sound, and one sound brought to that of another."""

import numpy as np
import pytest

from pipeline.sound.audio import Audio, silence
from pipeline.sound.level import LEAST_DBFS, PEAK, level_as, level_dbfs, rms


def tone(amplitude: float) -> Audio:
    """A second of 100 Hz at 8 kHz: whole periods, so that its level is exact."""
    at = np.arange(8000) / 8000
    return Audio((amplitude * np.sin(2 * np.pi * 100 * at)).astype(np.float32), 8000)


def test_a_sine_lies_three_decibels_below_its_peak() -> None:
    """At every amplitude; nothing at all is told as a number too."""
    assert level_dbfs(tone(1.0).samples) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs(tone(0.1).samples) == pytest.approx(-23.01, abs=0.01)
    assert level_dbfs(silence(1, 8000).samples) == level_dbfs(silence(0, 8000).samples) == LEAST_DBFS


def test_it_is_brought_to_the_level_of_the_other() -> None:
    """Louder or softer, and nothing else about it changes."""
    for amplitude in (0.05, 0.5):
        levelled = level_as(tone(0.2), tone(amplitude))
        assert levelled.samples == pytest.approx(tone(amplitude).samples, abs=1e-6)


def test_peaks_stay_below_full_scale() -> None:
    """Clicks have little level and much peak: they stay softer than asked."""
    clicks = silence(1, 8000)
    clicks.samples[::800] = 0.5
    levelled = level_as(clicks, tone(0.9))
    assert np.abs(levelled.samples).max() == pytest.approx(PEAK)
    assert rms(levelled.samples) < rms(tone(0.9).samples)


def test_silence_is_not_raised() -> None:
    """There is nothing to raise; and a silent model makes silence."""
    assert level_as(silence(1, 8000), tone(0.5)).samples.max() == 0.0
    assert level_as(tone(0.5), silence(1, 8000)).samples.max() == 0.0
