"""Whisper checkpoints for tests: one that has learned a closed vocabulary, and small random ones.

And what every test of listening needs: somebody who speaks, somebody who listens, a verdict.
"""

import importlib.util
import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.base import Engine, Utterance, Voice
from pipeline.equipment import Equipment, Listening
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Speech
from pipeline.transcribers import load
from pipeline.transcribers.base import Transcriber
from pipeline.transcribers.whisper import WhisperTranscriber
from pipeline.verify import Transcript, Verdict, verify

PACKED = Path(__file__).parent / "data" / "whisper-closed.pt.xz"
"made by `python -m bench.train_whisper`"
MULTILINGUAL, ENGLISH_ONLY = 51865, 51864


def need(*modules: str) -> None:
    """Skip what needs packages that are absent; with VOXSPOOL_TEST_MODELS=1 that is a failure."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent and os.environ.get("VOXSPOOL_TEST_MODELS") == "1":
        pytest.fail(f"VOXSPOOL_TEST_MODELS=1, but {', '.join(absent)} is not installed")
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed (requirements.txt)")


def closed_equipment(folder: Path, size: str = "base") -> Equipment:
    """A folder of models with the trained checkpoint as Whisper's `size`."""
    path = folder / "models" / "whisper" / f"{size}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.decompress(PACKED.read_bytes()))
    return equipment_of(folder, size)


def random_equipment(
    folder: Path, size: str = "tiny", *, vocabulary: int = MULTILINGUAL, positions: int = 16
) -> Equipment:
    """A folder of models with a small random checkpoint as Whisper's `size`."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(1)
    dims = ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_audio_state=32, n_audio_head=2, n_audio_layer=1,
        n_vocab=vocabulary, n_text_ctx=positions, n_text_state=32, n_text_head=2, n_text_layer=2,
    )  # fmt: skip
    model = Whisper(dims)
    torch.nn.init.normal_(model.decoder.positional_embedding)
    write_checkpoint(folder / "models" / "whisper" / f"{size}.pt", asdict(dims), model.half().state_dict())
    return equipment_of(folder, size)


def write_checkpoint(path: Path, dims: dict[str, Any], state: dict[str, Any]) -> None:
    """A file as OpenAI publishes them."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dims, "model_state_dict": state}, path)


def equipment_of(folder: Path, size: str, **listening: Any) -> Equipment:
    """The equipment with `folder / "models"`."""
    return Equipment(
        models=folder / "models",
        measured=folder / "measured",
        listening=Listening(size=size, **listening),
    )


def say(engine: Engine, text: str, language: str = "en", voice: str = "") -> Speech:
    """Speech at the engine's usual rate."""
    return engine.speak(
        Utterance(text=text, voice=Voice(name=voice), language=language, synthesis=Synthesis(), seed=1)
    )


@contextmanager
def listening(equipment: Equipment) -> Iterator[WhisperTranscriber]:
    """Whisper with that equipment, freed in the end."""
    ears = load("whisper", equipment)
    assert isinstance(ears, WhisperTranscriber)
    yield ears
    ears.close()


def verdict_on(
    transcriber: Transcriber, heard: Transcript, expected: str, limit: float | None = None
) -> Verdict:
    """As the booth judges; without `limit` as for a job without settings of its own."""
    return verify(
        expected,
        heard,
        language="en",
        max_word_error_rate=transcriber.max_word_error_rate if limit is None else limit,
        normalise=transcriber.normalise,
    )


def judged(transcriber: Transcriber, speech: Speech, expected: str) -> Verdict:
    """The verdict on what is heard in `speech`."""
    return verdict_on(transcriber, transcriber.transcribe(speech, expected, "en"), expected)
