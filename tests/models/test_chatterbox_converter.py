"""The Chatterbox converter on a small S3Gen: lengths, pitch, failures, and who shares its decoder."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import parselmouth
import pytest

from pipeline import converters, engines
from pipeline.chatterbox.package import LOCK, quiet
from pipeline.converters.chatterbox import ChatterboxConverter, ChatterboxTarget
from pipeline.converters.praat import shift_pitch
from pipeline.converters.stream import convert_stream
from pipeline.equipment import Equipment
from pipeline.errors import InputError, SynthesisError
from pipeline.sound.audio import Audio
from pipeline.sound.decode import decode

torch = pytest.importorskip("torch") if os.environ.get("VOXSPOOL_TEST_MODELS") != "1" else __import__("torch")
RATE_HZ = 24_000


def hum(pitch_hz: float, seconds: float) -> Audio:
    """A voice-like tone."""
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * pitch_hz * partial * at) / partial for partial in range(1, 12))
    return Audio((0.1 * np.asarray(tone)).astype(np.float32), RATE_HZ)


def pitch_hz(audio: Audio) -> float:
    """The median of what is voiced."""
    found = parselmouth.Sound(audio.samples.astype(np.float64), audio.rate_hz).to_pitch()
    contour = found.selected_array["frequency"]
    return float(np.median(contour[contour > 0]))


@pytest.fixture(scope="module")
def converter(small_equipment: Equipment) -> Iterator[ChatterboxConverter]:
    """Loaded once."""
    loaded = converters.load("chatterbox", small_equipment)
    assert isinstance(loaded, ChatterboxConverter)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def target(converter: ChatterboxConverter) -> ChatterboxTarget:
    """A measured voice."""
    return converter.measure(hum(120, 1.5))


def voice_of(converter: ChatterboxConverter) -> Any:
    """What it stands on."""
    return converter._voice


def converted(converter: ChatterboxConverter, audio: Audio, target: Any, semitones: float = 0) -> Audio:
    """Short for `convert`."""
    return converter.convert(audio, target, pitch_shift_semitones=semitones)


@pytest.mark.parametrize("samples", [700, 959, 960, 961, 12_345, 24_000])
def test_the_result_is_as_long_as_the_recording(
    converter: ChatterboxConverter, target: ChatterboxTarget, samples: int
) -> None:
    """To the sample, whatever the grid of the tokens."""
    audio = Audio(hum(150, 1.0).samples[:samples], RATE_HZ)
    assert len(converted(converter, audio, target).samples) == samples


def test_extended_issue_31_another_target_is_another_sound(
    converter: ChatterboxConverter, target: ChatterboxTarget
) -> None:
    """And the first gives again what it gave before: no voice stays behind."""
    audio = hum(150, 1.0)
    first = converted(converter, audio, target)
    other = converted(converter, audio, converter.measure(hum(240, 2.0)))
    assert not np.array_equal(first.samples, other.samples)
    assert np.array_equal(converted(converter, audio, target).samples, first.samples)
    assert voice_of(converter)._model.ref_dict is None


def test_extended_issue_31_no_target_stays_behind_a_clip_that_failed(
    converter: ChatterboxConverter, caplog: pytest.LogCaptureFixture
) -> None:
    """There a clip of uneven length gave a warning, and the recording came back in the voice before."""
    audio = hum(150, 1.0)
    own = converted(converter, audio, converter.measure(hum(120, 1.5)))
    with pytest.raises(InputError):
        converter.measure(hum(240, 0.4))
    uneven = Audio(hum(240, 2.0).samples[:-317], RATE_HZ)
    other = converted(converter, audio, converter.measure(uneven))
    assert "mel length" not in caplog.text
    assert not np.array_equal(own.samples, other.samples)
    assert np.array_equal(converted(converter, audio, converter.measure(uneven)).samples, other.samples)


def test_chatterbox_issue_218_the_target_is_measured_without_gradients(target: ChatterboxTarget) -> None:
    """They would hold hundreds of megabytes for as long as the job lasts (chatterbox issue 218)."""
    tensors = [value for value in target.conditions.values.values() if torch.is_tensor(value)]
    assert tensors
    assert not any(tensor.requires_grad for tensor in tensors)


def test_a_long_reference_is_heard_for_ten_seconds(
    converter: ChatterboxConverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3Gen listens to no more, and says so on standard output."""
    heard: list[int] = []
    s3gen = voice_of(converter)._s3gen()
    embed = s3gen.embed_ref

    def watched(samples: Any, *arguments: Any, **named: Any) -> Any:
        heard.append(len(samples))
        return embed(samples, *arguments, **named)

    monkeypatch.setattr(s3gen, "embed_ref", watched)
    converter.measure(hum(120, 14.0))
    assert heard == [10 * RATE_HZ]


def test_pitch_is_shifted_on_what_comes_out(
    converter: ChatterboxConverter, target: ChatterboxTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extended shifted the target's clip, which changes another voice than the one that is heard."""
    monkeypatch.setattr(voice_of(converter), "speak", lambda audio, _: hum(200, audio.seconds).samples)
    audio = hum(100, 2.0)
    assert pitch_hz(converted(converter, audio, target)) == pytest.approx(200, rel=0.02)
    assert pitch_hz(converted(converter, audio, target, 7)) == pytest.approx(200 * 2 ** (7 / 12), rel=0.02)
    assert pitch_hz(converted(converter, audio, target, -5)) == pytest.approx(200 * 2 ** (-5 / 12), rel=0.02)


def test_shifting_pitch_leaves_the_length() -> None:
    """And what is too short to have a pitch."""
    assert len(shift_pitch(hum(150, 1.234), 3).samples) == len(hum(150, 1.234).samples)
    short = hum(150, 0.05)
    assert shift_pitch(short, 3) is short


def test_the_watermark_goes_on_last(
    converter: ChatterboxConverter, target: ChatterboxTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the pitch; only the level changes then, so that it can be found in what is published."""
    marked: list[Any] = []
    mark = voice_of(converter).mark

    def watched(samples: Any) -> Any:
        marked.append(mark(samples))
        return marked[0]

    monkeypatch.setattr(voice_of(converter), "mark", watched)
    audio = hum(150, 1.0)
    got = converted(converter, audio, target, 3)
    gain = np.abs(got.samples).max() / np.abs(marked[0]).max()
    np.testing.assert_allclose(got.samples, gain * marked[0], atol=1e-6)
    assert converter.watermark == "perth 1.0.1"


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (RuntimeError("CUDA error"), "conversion"),
        (torch.OutOfMemoryError("CUDA"), "out_of_memory"),
        (torch.full((1, RATE_HZ), float("nan")), "conversion"),
        (torch.zeros((1, RATE_HZ)), "no_speech"),
        (torch.full((1, RATE_HZ // 2), 0.1), "conversion_length"),
    ],
    ids=["error", "memory", "nan", "silence", "half"],
)
def test_a_failure_is_raised_and_never_silence(
    converter: ChatterboxConverter,
    target: ChatterboxTarget,
    monkeypatch: pytest.MonkeyPatch,
    result: Any,
    code: str,
) -> None:
    """Extended-Plus put silence in its place and called it done."""

    def inference(**_named: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result, None

    monkeypatch.setattr(voice_of(converter)._s3gen(), "inference", inference)
    with pytest.raises(SynthesisError) as caught:
        converted(converter, hum(150, 1.0), target)
    assert caught.value.code == code


def test_fill_chatterbox_issue_2_long_windows_are_heard_whole(converter: ChatterboxConverter) -> None:
    """Older tokenizers stopped at 81.9 s; this one goes on, in windows of its own."""
    recording = voice_of(converter)._at_token_rate(hum(150, 95.0))
    with LOCK, quiet(), torch.inference_mode():
        tokens, _ = voice_of(converter)._s3gen().tokenizer(recording)
    assert tokens.shape[1] == pytest.approx(95 * 25, abs=1)


def test_a_recording_streams_through(converter: ChatterboxConverter, data: Path) -> None:
    """A real one, in windows with overlap: as long as it was, and at its level."""
    loud = decode(data / "jfk.flac", RATE_HZ, max_seconds=6.0)
    recording = Audio(0.3 * loud.samples, RATE_HZ)
    target = converter.measure(recording.between(0, 2))
    blocks = [recording.samples[at : at + 9000] for at in range(0, len(recording.samples), 9000)]
    windows = list(convert_stream(blocks, converter, target, chunk_seconds=2.5, overlap_seconds=0.1))
    assert len(windows) == 2
    got = np.concatenate([window.audio.samples for window in windows])
    assert len(got) == len(recording.samples)
    level, wanted = (float(np.sqrt(np.mean(np.square(samples)))) for samples in (got, recording.samples))
    assert level == pytest.approx(wanted, rel=0.15)


def test_engine_and_converter_hold_one_decoder(small_equipment: Equipment) -> None:
    """Whichever is loaded first; and neither takes it from the other when it is closed."""
    for first, second in (("engine", "converter"), ("converter", "engine")):
        loaded: dict[str, Any] = {}
        loaders: dict[str, Callable[[], Any]] = {
            "engine": lambda: engines.load("chatterbox", small_equipment),
            "converter": lambda: converters.load("chatterbox", small_equipment),
        }
        loaded[first] = loaders[first]()
        loaded[second] = loaders[second]()
        s3gen = loaded["engine"]._speaker._model().s3gen
        assert voice_of(loaded["converter"])._s3gen() is s3gen
        loaded["engine"].close()
        kept = loaded["converter"]
        assert len(converted(kept, hum(150, 0.5), kept.measure(hum(120, 1.2))).samples)
        kept.close()


def test_a_model_that_was_not_brought_is_told(small_equipment: Equipment, tmp_path: Path) -> None:
    """Only the one file is needed."""
    with pytest.raises(InputError, match=r"s3gen\.safetensors missing") as caught:
        converters.load("chatterbox", replace(small_equipment, models=tmp_path))
    assert caught.value.code == "model_missing"
