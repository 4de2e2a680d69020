"""Overlapping streams: lengths add up, levels hold, and blocks may fall anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sound.audio import Samples
from pipeline.sound.crossfade import Crossfade, rising


def crossfaded(streams: list[Samples], overlap: int, block: int, curve: str = "linear") -> Samples:
    """Join `streams`, fed in blocks."""
    seam = Crossfade(overlap, curve)  # type: ignore[arg-type]
    got = []
    for number, stream in enumerate(streams):
        if number:
            seam.next_stream()
        got += [seam.feed(stream[at : at + block]) for at in range(0, len(stream), block)]
    return np.concatenate([*got, seam.finish()])


@given(
    st.integers(0, 50),
    st.lists(st.integers(50, 200), min_size=1, max_size=5),
    st.integers(1, 250),
    st.integers(1, 250),
)
def test_the_sum_of_overlapping_cuts_is_the_original(
    overlap: int, news: list[int], block: int, other_block: int
) -> None:
    """A sound cut into overlapping windows and joined linearly is itself again, whatever the blocks."""
    total = sum(news) + overlap
    original = np.random.default_rng(1).standard_normal(total).astype(np.float32)
    starts = np.cumsum([0, *news[:-1]])
    streams = [original[at : at + new + overlap] for at, new in zip(starts, news, strict=True)]
    got = crossfaded(streams, overlap, block)
    assert len(got) == total
    assert np.allclose(got, original, atol=1e-6)
    assert np.array_equal(got, crossfaded(streams, overlap, other_block))


@given(st.integers(1, 500))
def test_weights_complement_each_other(count: int) -> None:
    """Linear weights add up to one, equal-power ones by their squares."""
    linear, power = rising(count, "linear"), rising(count, "equal-power")
    assert np.allclose(linear + linear[::-1], 1, atol=1e-6)
    assert np.allclose(power**2 + power[::-1] ** 2, 1, atol=1e-6)
    assert np.all(np.diff(linear) > 0)


def test_unrelated_sounds_keep_their_level() -> None:
    """Equal power holds the level through the overlap, where linear would dip by 2 dB."""
    drawn = np.random.default_rng(3).standard_normal((2, 60_000)).astype(np.float32)
    for curve, least, most in (("equal-power", 0.95, 1.05), ("linear", 0.6, 0.75)):
        got = crossfaded([drawn[0], drawn[1]], 40_000, 7_000, curve)
        assert least < np.square(got[20_000:60_000]).mean() < most


def test_outside_the_overlap_nothing_changes() -> None:
    """Samples before and after it are those that were fed."""
    got = crossfaded([np.ones(100, np.float32), np.full(100, 2, np.float32)], 10, 33)
    assert np.all(got[:90] == 1)
    assert np.all(got[100:] == 2)
    assert len(got) == 190


def test_a_stream_shorter_than_its_overlap_is_refused() -> None:
    """Half a cross-fade would drop the end of the stream before."""
    seam = Crossfade(10, "linear")
    seam.feed(np.ones(100, np.float32))
    seam.next_stream()
    seam.feed(np.ones(4, np.float32))
    with pytest.raises(ValueError, match="shorter than the overlap"):
        seam.next_stream()
    with pytest.raises(ValueError, match="shorter than the overlap"):
        seam.finish()


def test_memory_is_one_overlap() -> None:
    """Nothing but the overlap is kept back, however much is fed."""
    seam = Crossfade(100, "linear")
    fed = given_back = 0
    for _ in range(50):
        fed += 1000
        given_back += len(seam.feed(np.zeros(1000, np.float32)))
        assert fed - given_back == 100
