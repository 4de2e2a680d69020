"""The Audio value: what it refuses, and its way to integers, bytes and files and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from pipeline.sound.audio import Audio, bytes_of, from_pcm16, silence, to_pcm16

PCM = of_numpy.arrays(np.int16, st.integers(min_value=0, max_value=200))


@pytest.mark.parametrize("samples", [np.zeros((2, 2), np.float32), np.zeros(4), np.zeros(4, np.int16)])
def test_only_mono_float32_is_audio(samples: np.ndarray) -> None:
    """Another shape or type is a programming error and told at once."""
    with pytest.raises(ValueError, match="mono float32"):
        Audio(samples, 8000)


def test_a_rate_must_be_positive() -> None:
    """Sound without a rate does not exist."""
    with pytest.raises(ValueError, match="positive"):
        Audio(np.zeros(1, np.float32), 0)


@given(PCM)
def test_sixteen_bits_survive_the_round_trip(pcm: np.ndarray) -> None:
    """Every 16-bit sample comes back as it was, from an array and from bytes."""
    assert np.array_equal(to_pcm16(from_pcm16(pcm, 8000)), pcm)
    assert np.array_equal(to_pcm16(from_pcm16(pcm.astype("<i2").tobytes(), 8000)), pcm)


def test_overload_is_clipped_and_not_wrapped() -> None:
    """Samples over full scale stay at full scale."""
    loud = Audio(np.array([2.0, -2.0, 1.0], np.float32), 8000)
    assert to_pcm16(loud).tolist() == [32767, -32768, 32767]


@given(PCM)
def test_bytes_are_the_samples(pcm: np.ndarray) -> None:
    """Raw bytes hold the samples in order, also of a view with gaps and of nothing."""
    samples = pcm.astype(np.float32)[::2]
    assert np.array_equal(np.frombuffer(bytes_of(samples), "<f4"), samples)


def test_between_clips_to_what_is_there() -> None:
    """A part that starts before or ends after the sound is what there is of it."""
    audio = Audio(np.arange(10, dtype=np.float32), 10)
    assert audio.between(0.2, 0.5).samples.tolist() == [2, 3, 4]
    assert len(audio.between(-1, 5).samples) == 10
    assert len(audio.between(3, 2).samples) == 0


def test_silence_has_exact_length() -> None:
    """Silence of a negative length is none."""
    assert len(silence(0.5, 22_050).samples) == 11_025
    assert len(silence(-1, 22_050).samples) == 0
