"""Engine and recogniser on the same processors: side by side, or by turns?

Turbo and Whisper's base model at full size, with weights that nobody trained: what they say and hear is
noise, but takes as long. Each way is run twice and the second is told: the first warms up.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline.equipment import BARE, Listening
from pipeline.listeners import Hearing, ListenerProcesses, Question
from pipeline.sound.audio import Audio, Speech

TOKENS = 100
HEARD_TOKENS = 40
"that Whisper makes of each take, as nothing ends it sooner"


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utterances", type=int, default=16)
    count = parser.parse_args().utterances
    warnings.filterwarnings("ignore")
    threads = len(os.sched_getaffinity(0))
    engine = _engine()
    print(f"{count} utterances of {TOKENS} tokens, {threads} processors; seconds, speaking and all:")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        _write_whisper(models / "whisper" / "base.pt")
        print(f"  unheard: {_run(engine, count, None, beside=False)}")
        for own, beside in ((threads, False), (threads, True), (1, True)):
            listeners = _listeners(models, own)
            how = "beside the engine" if beside else "after each round"
            print(
                f"  heard {how}, Whisper with {own} threads: {_run(engine, count, listeners, beside=beside)}"
            )
            listeners.close()


def _run(engine: Any, count: int, listeners: ListenerProcesses | None, *, beside: bool) -> str:
    for _ in range(2):
        started = time.perf_counter()
        hearings: list[Hearing] = []
        for speech in _spoken(engine, count):
            if listeners is None:
                continue
            question = Question(text="It rained.", language="en", max_word_error_rate=None, heard=speech)
            hearings.append(listeners.give(question))
            if beside:
                listeners.work(wait=False)
        spoken = time.perf_counter() - started
        while listeners is not None and any(hearing.answer is None for hearing in hearings):
            listeners.work(wait=True)
        told = f"{spoken:.1f}, {time.perf_counter() - started:.1f}"
    return told


def _engine() -> Any:
    from bench import fast_models
    from pipeline.chatterbox.batched import Batched

    return Batched(fast_models.build("turbo", "cpu"), "fast")


def _spoken(engine: Any, count: int) -> Iterator[Speech]:
    from bench import fast_models

    with fast_models.fixed_length(TOKENS):
        for outcome in engine.speak_all([fast_models.asked("turbo", seed) for seed in range(count)]):
            yield Speech(audio=Audio(outcome.said.samples, 24_000))


def _listeners(models: Path, threads: int) -> ListenerProcesses:
    with patch.dict(os.environ, OMP_NUM_THREADS=str(threads)):
        return ListenerProcesses("whisper", replace(BARE, models=models, listening=Listening(size="base")))


def _write_whisper(path: Path) -> None:
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(1)
    shape = ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_audio_state=512, n_audio_head=8, n_audio_layer=6,
        n_vocab=51_865, n_text_ctx=2 * HEARD_TOKENS, n_text_state=512, n_text_head=8, n_text_layer=6,
    )  # fmt: skip
    path.parent.mkdir()
    torch.save({"dims": asdict(shape), "model_state_dict": Whisper(shape).state_dict()}, path)


if __name__ == "__main__":
    main()
