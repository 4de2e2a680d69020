"""The side-by-side measurement itself: its proof can fail, its figures add up, its drawings are drawings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("chatterbox")

from bench import bare, fast, fast_chart  # noqa: E402
from bench.fast_models import build, fixed_length  # noqa: E402
from bench.fast_proof import prove  # noqa: E402
from pipeline.chatterbox.fast.flow import Flow  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def turbo() -> Iterator[Any]:
    """A shallow Turbo of the real width."""
    speaker = build("turbo", "cpu", small=True)
    yield speaker
    speaker.close()


def test_the_proof_holds_and_can_fail(
    turbo: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a flow that takes one step too few it says NO."""
    assert prove("turbo", turbo)
    assert "NO" not in capsys.readouterr().out
    mels = Flow.mels
    monkeypatch.setattr(Flow, "mels", lambda self, rows, *, steps=None, alive=None: mels(self, rows, steps=1))
    assert not prove("turbo", turbo)
    assert "NO   exact says what the package says" in capsys.readouterr().out


def test_stages_add_up_and_are_drawn(turbo: Any) -> None:
    """Both ways speak as long an utterance; every stage but the rest was seen at work."""
    sizes = {"tokens": 12, "at_once": [2], "utterances": 2}
    with fixed_length(sizes["tokens"]):
        ways = list(fast._whole("turbo", turbo, sizes, "cpu"))
        speed = fast._tokens_a_second("turbo", turbo, "fp32", 2, sizes["tokens"])
    assert [way.name for way in ways] == ["package", "exact", "fast, int8"]
    assert ways[1].sound_seconds == pytest.approx(2 * ways[0].sound_seconds)
    for way in ways:
        assert sum(way.stages.values()) == pytest.approx(way.wall_seconds)
        assert all(seconds > 0 for stage, seconds in way.stages.items() if stage != "rest")
    assert np.isfinite(speed)  # a difference of two times, which so short a run may well get wrong
    found = fast.Found(kind="turbo", package_tokens=9.5, tokens={"fp32": {2: 20.0}}, ways=ways)
    pictures = fast_chart.pictures([found], "cpu")
    assert set(pictures) == {"speed-tokens-cpu.svg", "speed-stages-cpu.svg"}
    for picture in pictures.values():
        texts = [part.text for part in ElementTree.fromstring(picture).iter() if part.tag.endswith("text")]
        assert any("turbo" in str(text) for text in texts)


def test_stand_ins_compute_what_they_stand_for() -> None:
    """Where a machine lacks librosa and scipy: the same filters, the same window, nearly the same sound."""
    librosa, signal = pytest.importorskip("librosa"), pytest.importorskip("scipy.signal")
    filters = {"sr": 16_000, "n_fft": 400, "n_mels": 128}
    assert bare._mel_filters(**filters) == pytest.approx(librosa.filters.mel(**filters), abs=1e-6)
    assert bare._window("hann", 16) == pytest.approx(signal.get_window("hann", 16, fftbins=True), abs=1e-6)
    tone = np.sin(np.arange(24_000, dtype=np.float32) / 9)
    ours, theirs = (
        one.resample(tone, orig_sr=24_000, target_sr=32_000) for one in (bare._librosa(), librosa)
    )
    assert len(ours) == len(theirs) and np.abs(ours - theirs)[500:-500].max() < 1e-3
    found = Path(bare._pkg_resources().resource_filename("perth", "__init__.py"))
    assert found.is_file()
