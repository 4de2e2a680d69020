"""English, Turbo, the conversion and Whisper once at their real size, with random weights: memory and times.

`make test-full` runs it and prints the figures; they say what the models cost, not how they sound.
"""

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import converters, engines, transcribers
from pipeline.chatterbox.package import quiet
from pipeline.engines.base import Utterance, Voice
from pipeline.equipment import Equipment
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Audio
from tests.models import checkpoints
from tests.models.whisper_samples import equipment_of, say, write_checkpoint

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]
TEXT = "Nobody minds the rain."


@pytest.fixture(scope="module")
def full_equipment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Equipment]:
    """Models of the real size, which may be loaded while this is in use."""
    checkpoints.require()
    root = tmp_path_factory.mktemp("full")
    with checkpoints.full_size_models():
        yield Equipment(models=root / "models", measured=root / "measured")


def clip(folder: Path, seconds: float) -> Voice:
    """A reference clip by the embedded engine."""
    import soundfile

    words = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for Bob."
    spoken = (
        engines.load("espeak")
        .speak(
            Utterance(text=words, voice=Voice(name="en-us+f2"), language="en", synthesis=Synthesis(), seed=1)
        )
        .audio
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ann.wav"
    soundfile.write(path, spoken.between(0, seconds).samples, spoken.rate_hz)
    return Voice(name="ann.wav", clip=path)


def forget_peak() -> None:
    """Give back what is free, and begin the kernel's record of the most memory used anew."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_gb() -> float:
    """The most memory used since `forget_peak`, in 10^9 bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def tell(capsys: pytest.CaptureFixture[str], what: str, started: float, audio_seconds: float = 0.0) -> float:
    """Print what something took; returns the time now."""
    took = time.monotonic() - started
    sound = f", {audio_seconds:.1f} s of sound ({took / audio_seconds:.1f} s each)" if audio_seconds else ""
    with capsys.disabled():
        print(f"\n  {what}: {took:.1f} s{sound}; at most {peak_gb():.1f} GB of memory", end="")
    forget_peak()
    return time.monotonic()


@pytest.mark.parametrize("name", ["chatterbox", "chatterbox-turbo"])
def test_a_full_size_engine_speaks(
    name: str, full_equipment: Equipment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loaded by the real loader from files of the real size: a voice is measured, a sentence said twice."""
    build = checkpoints.english if name == "chatterbox" else checkpoints.turbo
    with quiet():
        build(full_equipment.models / name)
    voice = clip(full_equipment.measured, 5.5)
    files = sum(path.stat().st_size for path in (full_equipment.models / name).iterdir())
    forget_peak()
    started = time.monotonic()
    engine = engines.load(name, full_equipment)
    started = tell(capsys, f"{name}: {files / 1e9:.2f} GB loaded", started)
    asked = Utterance(text=TEXT, voice=voice, language="en", synthesis=Synthesis(), seed=1)
    first = engine.speak(asked)
    started = tell(capsys, "voice measured and sentence spoken", started, first.audio.seconds)
    second = engine.speak(replace(asked))
    tell(capsys, "sentence spoken again", started, second.audio.seconds)
    assert first.audio.samples.tobytes() == second.audio.samples.tobytes()
    assert 0.5 < first.audio.seconds < 5
    engine.close()


def test_a_full_size_conversion(full_equipment: Equipment, capsys: pytest.CaptureFixture[str]) -> None:
    """By the S3Gen of the English checkpoint, which the test before has built."""
    if not (full_equipment.models / "chatterbox" / "s3gen.safetensors").is_file():
        with quiet():
            checkpoints.english(full_equipment.models / "chatterbox")
    forget_peak()
    started = time.monotonic()
    converter = converters.load("chatterbox", full_equipment)
    started = tell(capsys, "converter loaded", started)
    spoken = (
        engines.load("espeak")
        .speak(
            Utterance(text=TEXT, voice=Voice(name="en-us+m3"), language="en", synthesis=Synthesis(), seed=1)
        )
        .audio
    )
    source = Audio(spoken.samples, converter.rate_hz).between(0, 3)
    target = converter.measure(source.between(0, 2))
    started = tell(capsys, "target measured", started)
    got = converter.convert(source, target, pitch_shift_semitones=0)
    tell(capsys, "converted", started, got.seconds)
    assert len(got.samples) == len(source.samples)
    converter.close()


def test_whisper_base_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """74 million random weights, written as OpenAI publishes them: heard alone and by eight."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    dims = ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_audio_state=512, n_audio_head=8, n_audio_layer=6,
        n_vocab=51865, n_text_ctx=448, n_text_state=512, n_text_head=8, n_text_layer=6,
    )  # fmt: skip
    torch.manual_seed(1)
    model = Whisper(dims)
    torch.nn.init.normal_(model.decoder.positional_embedding)
    write_checkpoint(tmp_path / "models" / "whisper" / "base.pt", asdict(dims), model.half().state_dict())
    del model
    forget_peak()
    started = time.monotonic()
    transcriber: Any = transcribers.load("whisper", equipment_of(tmp_path, "base"))
    started = tell(capsys, "Whisper base loaded", started)
    speech = say(
        engines.load("espeak"), "Six spoons of fresh snow peas, and five thick slabs of blue cheese."
    )
    alone = transcriber.transcribe(speech, "", "en")
    started = tell(capsys, "listened", started, speech.audio.seconds)
    several = transcriber.transcribe_batch([(speech, "en")] * 8)
    tell(capsys, "listened to eight at once", started, 8 * speech.audio.seconds)
    assert {heard.text for heard in several} == {alone.text}
    transcriber.close()
