"""Recordings of any length through a converter: windows, seams, exact lengths, flat memory."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.converters.base import Target
from pipeline.converters.stream import LEAST_TAIL_SECONDS, Converted, convert_stream, windows
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, Samples

RATE_HZ = 1000


class Inverter:
    """A converter whose work can be checked: it turns the sound upside down, a little long or short."""

    name = version = device = "inverter"
    rate_hz = RATE_HZ

    def __init__(self, surplus_samples: int = 0) -> None:
        self.surplus_samples = surplus_samples
        self.fitted: list[float] = []
        self.converted: list[float] = []

    def measure(self, reference: Audio) -> Target:
        return object()

    def fit(self, target: Target, source: Audio) -> Target:
        self.fitted.append(source.seconds)
        return target

    def convert(self, audio: Audio, target: Target, *, pitch_shift_semitones: float) -> Audio:
        self.converted.append(audio.seconds)
        count = len(audio.samples) + self.surplus_samples
        return Audio(-np.pad(audio.samples, (0, max(0, self.surplus_samples)))[:count], RATE_HZ)

    def close(self) -> None:
        pass


def sound(samples: int) -> Samples:
    """Something that is nowhere like itself."""
    return np.random.default_rng(1).standard_normal(samples).astype(np.float32)


def in_blocks(samples: Samples, block: int) -> Iterator[Samples]:
    """A stream."""
    return (samples[at : at + block] for at in range(0, len(samples), block))


def converted(
    samples: Samples, block: int, converter: Inverter, chunk: float, overlap: float
) -> list[Converted]:
    """All that comes out."""
    stream = in_blocks(samples, block)
    return list(convert_stream(stream, converter, object(), chunk_seconds=chunk, overlap_seconds=overlap))


@given(
    st.integers(1, 60_000), st.integers(50, 20_000), st.sampled_from([0.0, 0.1, 2.0]), st.integers(-40, 40)
)
def test_every_sample_comes_out_once_and_converted(
    total: int, block: int, overlap: float, surplus: int
) -> None:
    """The result is as long as the recording, to the sample, and continuous through the seams."""
    source = sound(total)
    got = converted(source, block, Inverter(surplus), 10.0, overlap)
    joined = np.concatenate([piece.audio.samples for piece in got])
    assert len(joined) == total
    if surplus >= 0:
        assert np.allclose(joined, -source, atol=1e-6)


@given(st.integers(1, 100_000), st.integers(100, 5_000), st.integers(0, 90), st.integers(1, 500))
def test_windows_cover_the_stream_and_leave_no_sliver(total: int, step: int, overlap: int, tail: int) -> None:
    """Windows stand `step` apart, overlap as asked, and the last brings `tail` new samples or more."""
    samples = np.arange(total, dtype=np.float32)
    got = list(windows(in_blocks(samples, 4096), step, overlap, tail))
    assert [last for _, last in got] == [False] * (len(got) - 1) + [True]
    for number, (window, last) in enumerate(got):
        assert window[0] == number * step
        if not last:
            assert len(window) == step + overlap
    assert got[-1][0][-1] == total - 1
    assert len(got[-1][0]) < step + overlap + tail
    if len(got) > 1:
        assert len(got[-1][0]) >= overlap + tail


def test_nothing_in_nothing_out() -> None:
    """An empty stream has no windows."""
    assert list(windows(iter(()), 10, 2, 3)) == []


def test_the_target_is_fitted_once() -> None:
    """All windows are changed by what the first one told of the source."""
    converter = Inverter()
    converted(sound(35_000), 1000, converter, 10.0, 0.1)
    assert converter.fitted == [10.0]
    assert len(converter.converted) == 4
    assert min(converter.converted) >= LEAST_TAIL_SECONDS


def test_windows_are_told_in_the_recordings_time() -> None:
    """Each piece names the stretch of the recording its window covered."""
    got = converted(sound(25_000), 700, Inverter(), 10.0, 0.1)
    assert [(piece.index, piece.start_seconds) for piece in got] == [(0, 0.0), (1, 9.9), (2, 19.8)]
    assert [piece.end_seconds for piece in got] == pytest.approx([10.0, 19.9, 25.0])


@pytest.mark.parametrize("surplus", [-51, 51, 5000])
def test_a_wrong_length_fails_the_job(surplus: int) -> None:
    """More than 50 ms too long or too short is an error, not a drift that grows with each window."""
    with pytest.raises(SynthesisError, match="The converter returned"):
        converted(sound(5000), 1000, Inverter(surplus), 10.0, 0.1)


def test_a_failing_window_stops_the_stream() -> None:
    """What came before is out, nothing is put in the place of what failed."""

    class Failing(Inverter):
        def convert(self, audio: Audio, target: Target, *, pitch_shift_semitones: float) -> Audio:
            if len(self.converted) == 1:
                raise SynthesisError("no more")
            return super().convert(audio, target, pitch_shift_semitones=pitch_shift_semitones)

    stream = convert_stream(
        in_blocks(sound(30_000), 1000), Failing(), object(), chunk_seconds=10, overlap_seconds=0.1
    )
    assert next(stream).index == 0
    with pytest.raises(SynthesisError, match="no more"):
        next(stream)


def test_no_more_is_read_than_is_needed() -> None:
    """A three-hour recording is never held: a window and its tail are read ahead, no more."""
    read = 0

    def endless() -> Iterator[Samples]:
        nonlocal read
        while True:
            read += 1000
            yield np.zeros(1000, np.float32)

    stream = convert_stream(endless(), Inverter(), object(), chunk_seconds=10, overlap_seconds=0.1)
    given_out = 0
    for _ in range(50):
        given_out += len(next(stream).audio.samples)
        assert read - given_out <= 14_000
