"""The watermark put on where the sound was made is found as the package's own is."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("chatterbox")

from pipeline import engines  # noqa: E402
from pipeline.chatterbox.fast.watermark import OnDevice  # noqa: E402
from pipeline.chatterbox.package import package, quiet  # noqa: E402
from pipeline.sound.audio import Samples  # noqa: E402
from pipeline.sound.resample import resample  # noqa: E402
from tests.models.whisper_samples import say  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

RATE_HZ = 24_000
TEXTS = ("Yes.", "Nobody minds the rain.", "A light in the window, and nobody at the door but the wind.")


@pytest.fixture(scope="module")
def package_own() -> Any:
    """The package's watermarker, with its trained weights."""
    package()
    with quiet():
        import perth

        return perth.PerthImplicitWatermarker()


def spoken(text: str) -> Samples:
    """Speech at the rate of the models."""
    return resample(say(engines.load("espeak"), text).audio, RATE_HZ).samples


def certainty(watermarker: Any, samples: Samples) -> float:
    """How sure the package's detector is, 0 to 1, before rounding."""
    with torch.inference_mode():
        return float(np.mean(watermarker.get_watermark(samples, RATE_HZ, round=False)))


@pytest.mark.parametrize("text", TEXTS)
def test_the_mark_is_found_as_surely_as_the_packages(package_own: Any, text: str) -> None:
    """By the package's detector, which finds none in what was not marked; the length stays."""
    samples = spoken(text)
    with torch.inference_mode():
        expected = package_own.apply_watermark(samples, sample_rate=RATE_HZ)
    marked = OnDevice(package_own.perth_net, "cpu").apply_watermark(samples, sample_rate=RATE_HZ)
    assert marked.dtype == np.float32 and len(marked) == len(expected)
    found, usual, none = (certainty(package_own, one) for one in (marked, expected, samples))
    print(f"{len(samples) / RATE_HZ:.1f} s: {found:.3f}, the package's {usual:.3f}, unmarked {none:.3f}")
    assert found > usual - 0.05
    assert found > 0.5 > none


def test_it_is_as_quiet_as_the_packages(package_own: Any) -> None:
    """What it adds, and what resampling loses, is no more than with the package."""
    samples = spoken(TEXTS[1])
    with torch.inference_mode():
        expected = package_own.apply_watermark(samples, sample_rate=RATE_HZ)
    marked = OnDevice(package_own.perth_net, "cpu").apply_watermark(samples, sample_rate=RATE_HZ)
    ours, theirs = (float(np.abs(one - samples[: len(one)]).std()) for one in (marked, expected))
    print(f"added: {ours:.5f}, the package {theirs:.5f}")
    assert ours < 1.1 * theirs


def test_the_packages_network_is_left_where_it_is(package_own: Any) -> None:
    """The copy is ours; a watermarker without a network is left alone."""
    before = {name: value.clone() for name, value in package_own.perth_net.state_dict().items()}
    ours = OnDevice.of(package_own, "cpu")
    assert ours is not None and ours._network is not package_own.perth_net
    ours.apply_watermark(spoken(TEXTS[0]), sample_rate=RATE_HZ)
    assert all(torch.equal(value, before[name]) for name, value in package_own.perth_net.state_dict().items())
    assert OnDevice.of(object(), "cpu") is None
