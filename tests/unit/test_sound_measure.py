"""The measuring instrument itself, against values known from theory."""

from pathlib import Path

import numpy as np
import pytest
from sound_samples import RATE_HZ, recording, tone

from pipeline.errors import InputError, SynthesisError
from pipeline.sound.audio import bytes_of, silence
from pipeline.sound.measure import loudness_of, measure_blocks, measure_file, measure_raw


def test_a_reference_tone_measures_as_the_standard_says() -> None:
    """A 997 Hz sine at full scale in one channel is -3.01 LUFS (EBU Tech 3341)."""
    got = measure_blocks([tone(5.0, hz=997, peak=0.1, rate_hz=48_000).samples], 48_000)
    assert got.integrated_lufs == pytest.approx(-23.0, abs=0.1)
    assert got.true_peak_db == pytest.approx(-20.0, abs=0.1)


def test_true_peaks_between_samples_are_seen() -> None:
    """A sine at a quarter of the rate whose samples all lie 3 dB under its crest."""
    at = np.arange(RATE_HZ * 2)
    swell = np.minimum(1, np.minimum(at, at[::-1]) / 2000)
    wave = (0.5 * swell * np.sin(np.pi / 2 * at + np.pi / 4)).astype(np.float32)
    assert measure_blocks([wave], RATE_HZ).true_peak_db == pytest.approx(-6.0, abs=0.3)


def test_silence_is_minus_seventy() -> None:
    """Nothing passes the absolute gate."""
    got = measure_blocks([silence(2.0, RATE_HZ).samples], RATE_HZ)
    assert got.integrated_lufs == -70
    assert got.true_peak_db == -np.inf


def test_blocks_raw_files_and_recordings_agree(tmp_path: Path) -> None:
    """Three ways to the same sound give the same measurement, and filters count."""
    audio = tone(3.0)
    raw = tmp_path / "a.f32"
    raw.write_bytes(bytes_of(audio.samples))
    streamed = measure_blocks([audio.samples[:1000], audio.samples[1000:]], RATE_HZ)
    assert measure_raw(raw, RATE_HZ) == streamed
    assert measure_file(recording(tmp_path / "a.flac", audio)) == streamed
    lower = measure_raw(raw, RATE_HZ, ["volume=-6dB"])
    assert lower.integrated_lufs == pytest.approx(streamed.integrated_lufs - 6, abs=0.1)


def test_what_is_no_recording_is_not_measured(tmp_path: Path) -> None:
    """The same refusal as in decoding."""
    (tmp_path / "a.wav").write_text("hello")
    with pytest.raises(InputError):
        measure_file(tmp_path / "a.wav")


def test_a_log_without_a_summary_is_an_error() -> None:
    """A run that failed is not taken for silence."""
    with pytest.raises(SynthesisError, match="out of memory"):
        loudness_of("out of memory\n")
