"""On this very device: is what is fast the same speech? A few sentences, before anything is timed."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.fast_models import asked, fixed_length
from pipeline.chatterbox.batched import Batched
from pipeline.chatterbox.fast.flow import Flow, Row
from pipeline.chatterbox.fast.replay import Replay
from pipeline.chatterbox.speaker import Said, Speaker

UTTERANCES = 2
TOKENS = {"cpu": 12, "cuda": 40}
"of each: on CUDA a graph is captured and used within as many"
AS_ALONE = 2e-4
"of full scale; more than any rounding of fp32"
MOST_DRIFT = 0.02
"0.010 was measured on a processor"


def prove(kind: str, speaker: Speaker) -> bool:
    """Print what was found; whether all of it is as it should be."""
    with fixed_length(_tokens(speaker)):
        slots = Batched(speaker, "exact")
        together = spoken(slots, kind, range(UTTERANCES))
        findings = [
            _as_the_package(kind, speaker, together),
            _as_alone(kind, slots, together),
            _marked(kind, speaker),
        ]
        slots.close()
        if speaker.device.startswith("cuda"):
            findings += [_as_without_graphs(kind, speaker), _half_precision(kind, speaker)]
    for right, what in findings:
        print(f"  {'yes' if right else 'NO '}  {what}")
    return all(right for right, _ in findings)


def _as_the_package(kind: str, speaker: Speaker, together: Sequence[Any]) -> tuple[bool, str]:
    one_by_one = [speaker.speak(asked(kind, seed)).samples for seed in range(UTTERANCES)]
    apart = _furthest(one_by_one, together)
    return (
        apart < AS_ALONE,
        f"exact says what the package says for the same seed: {apart:.1e} of full scale apart",
    )


def _as_alone(kind: str, slots: Batched, together: Sequence[Any]) -> tuple[bool, str]:
    alone = [spoken(slots, kind, [seed])[0] for seed in range(UTTERANCES)]
    apart = _furthest(alone, together)
    return apart < AS_ALONE, f"an utterance is the same alone and among others: {apart:.1e} apart"


def _marked(kind: str, speaker: Speaker) -> tuple[bool, str]:
    (samples,) = spoken(Batched(speaker, "fast"), kind, [1])
    found = float(np.mean(speaker.watermarker.get_watermark(samples, 24_000, round=False)))
    return found > 0.5, f"the watermark of fast is found: {found:.3f} of 1"


def _as_without_graphs(kind: str, speaker: Speaker) -> tuple[bool, str]:
    def tokens() -> tuple[dict[Any, list[int]], int]:
        slots = Batched(speaker, "fast")
        requests = [slots._request(seed, asked(kind, seed)) for seed in range(UTTERANCES)]
        done = {one.key: one.tokens.tolist() for one in slots._tokens(requests)}
        captured = slots._slot_engine()._replay._graphs
        return done, len(captured)

    with_graphs, graphs = tokens()
    with patch.object(Replay, "__call__", lambda _replay, _key, operations: operations()):
        without, _ = tokens()
    return (
        graphs > 0 and with_graphs == without,
        f"the same tokens from {graphs} CUDA graphs as without",
    )


def _half_precision(kind: str, speaker: Speaker) -> tuple[bool, str]:
    import torch

    tokens = torch.arange(_tokens(speaker), device=speaker.device) * 91
    voice = speaker.sound_wanted(asked(kind, 1), tokens[None]).reference

    def mel(dtype: Any) -> Any:
        chance = torch.Generator(speaker.device).manual_seed(1)
        return Flow(speaker.s3gen, dtype=dtype).mels([Row(tokens=tokens, voice=voice, chance=chance)])[0]

    exact, half = mel(torch.float32), mel(torch.float16)
    drift = float((half - exact).norm() / exact.norm())
    return drift < MOST_DRIFT, f"half precision moves the mel by {drift:.4f} of its size"


def _tokens(speaker: Speaker) -> int:
    return TOKENS["cuda" if speaker.device.startswith("cuda") else "cpu"]


def spoken(slots: Batched, kind: str, seeds: Sequence[int]) -> list[Any]:
    """The samples of these, in order."""
    found: dict[int, Any] = {}
    for outcome in slots.speak_all([asked(kind, seed) for seed in seeds]):
        if not isinstance(outcome.said, Said):
            raise outcome.said
        found[outcome.index] = outcome.said.samples
    return [found[index] for index in range(len(seeds))]


def _furthest(some: Sequence[Any], others: Sequence[Any]) -> float:
    return max(
        float(np.abs(one - other).max()) if len(one) == len(other) else float("inf")
        for one, other in zip(some, others, strict=True)
    )
