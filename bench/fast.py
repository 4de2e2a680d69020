"""Chatterbox as the package speaks and as Voxspool does, side by side in one run: `python -m bench.fast`.

Models at their real size with random weights, made in memory (nothing is downloaded, nothing is said about
how it sounds), utterances of a fixed length. First it is proved on this very device that what is fast is
the same speech; then two tables: speech tokens against how many are spoken at once, and the whole way from
text to marked sound, by stage. Ratios are against the package's own `generate()`. `--device cuda:0`
measures a graphics card; `--small` looks within a minute whether everything works;
`--svg docs` draws both tables. On a machine with other things to do `--threads 1` keeps threads from
waiting for each other.
"""

import argparse
import dataclasses
import inspect
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench import bare, fast_chart

KINDS = ("english", "turbo")
FEW = 4
"tokens whose time is taken off, and taking in voice and text with it"
STAGES = ("tokens", "mel", "sound", "watermark", "rest")
ON_CPU = {"tokens": 100, "at_once": [1, 2, 4, 8], "utterances": 8}
ON_GPU = {"tokens": 390, "at_once": [1, 8, 16, 32, 64], "utterances": 128}
SMALL = {"tokens": 12, "at_once": [1, 4], "utterances": 3}


@dataclasses.dataclass
class Way:
    """One way to speak, measured."""

    name: str
    sound_seconds: float
    "spoken in all"
    wall_seconds: float
    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    "wall seconds of each of STAGES"

    @property
    def real_time(self) -> float:
        """Seconds of sound in a second."""
        return self.sound_seconds / self.wall_seconds


@dataclasses.dataclass
class Found:
    """All that one kind of model gave."""

    kind: str
    package_tokens: float
    "tokens a second"
    tokens: dict[str, dict[int, float]]
    "tokens a second by kernel and how many at once"
    ways: list[Way]


def main() -> None:
    """Prove, measure, print."""
    options = _options()
    missing = bare.prepare(options.carried)
    import torch

    from bench.fast_models import build
    from bench.fast_proof import prove

    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if options.threads:
        torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    print(f"{time.strftime('%Y-%m-%d')}, {options.device} ({where}), torch {torch.__version__}")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} before")
    for sentence in missing:
        print(sentence)
    sizes = SMALL if options.small else ON_CPU if options.device == "cpu" else ON_GPU
    found, right = [], True
    for kind in options.kinds:
        speaker = build(kind, options.device, small=options.small)
        print(f"\n{kind}", flush=True)
        right &= prove(kind, speaker)
        found.append(_measure(kind, speaker, sizes, options))
        speaker.close()
    print(f"\nload {os.getloadavg()[0]:.1f} after")
    if options.svg:
        for name, picture in fast_chart.pictures(found, options.device).items():
            (options.svg / name).write_text(picture, encoding="utf-8")
    if not right:
        raise SystemExit("What is fast is not the same speech here: see the lines that say NO.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fast", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--small", action="store_true", help="shallow models and short utterances")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--carried", type=Path, default=None, help="the folder that make bench-carry filled")
    parser.add_argument("--svg", type=Path, default=None, help="a folder for the drawings")
    return parser.parse_args()


def _measure(kind: str, speaker: Any, sizes: dict[str, Any], options: argparse.Namespace) -> Found:
    from bench.fast_models import fixed_length

    found = Found(kind=kind, package_tokens=0.0, tokens={}, ways=[])
    with fixed_length(sizes["tokens"]):
        print(f"{'':12}{'real time':>11}{'ratio':>8}   seconds for a second of sound: {', '.join(STAGES)}")
        for way in _whole(kind, speaker, sizes, options.device):
            found.ways.append(way)
            _tell_way(way, found.ways[0])
    found.package_tokens = sizes["tokens"] / found.ways[0].stages["tokens"]
    print(f"{'tokens':12}{'at once':>11}{'tokens/s':>11}{'ratio':>8}")
    print(f"{'package':12}{1:>11}{found.package_tokens:>11.1f}{1:>8.2f}")
    for kernel in _kernels(options.device):
        for count in sizes["at_once"]:
            speed = _tokens_a_second(kind, speaker, kernel, count, sizes["tokens"])
            found.tokens.setdefault(kernel, {})[count] = speed
            ratio = speed / found.package_tokens
            print(f"{kernel:12}{count:>11}{speed:>11.1f}{ratio:>8.2f}", flush=True)
    return found


def _kernels(device: str) -> list[str]:
    return ["fp32", "int8"] if device == "cpu" else ["fp32", "bf16"]


def _tell_way(way: Way, package: Way) -> None:
    each = "  ".join(f"{way.stages[stage] / way.sound_seconds:.3f}" for stage in STAGES)
    print(
        f"{way.name:12}{way.real_time:>10.2f}x{way.real_time / package.real_time:>8.2f}   {each}", flush=True
    )


# From text to marked sound


def _whole(kind: str, speaker: Any, sizes: dict[str, Any], device: str) -> Iterator[Way]:
    """The package, then ours: `exact`, and what is faster still on this device."""
    from bench.fast_models import asked
    from bench.fast_proof import spoken
    from pipeline.chatterbox.batched import Batched

    yield _timed("package", _package_stages(speaker), lambda _: [speaker.speak(asked(kind, 1)).samples], 1)
    modes: list[tuple[str, str, bool]] = [("exact", "exact", False)]
    modes.append(("fast, int8", "fast", True) if device == "cpu" else ("fast", "fast", False))
    for name, mode, int8 in modes:
        slots = Batched(speaker, mode, int8=int8)

        def ours(count: int, slots: Batched = slots) -> list[Any]:
            return spoken(slots, kind, range(count))

        yield _timed(
            name,
            _our_stages(),
            ours,
            sizes["utterances"],
            # on a GPU the slots, the batches and the graphs have to be as many as they will be
            before=1 if device == "cpu" else sizes["utterances"],
        )
        slots.close()


def _timed(name: str, stages: Any, run: Callable[[int], list[Any]], count: int, *, before: int = 1) -> Way:
    """`count` utterances, after a run of some `before`, in which libraries choose their kernels."""
    run(before)
    with stages as clocks:
        start = time.perf_counter()
        samples = run(count)
        _wait_for()
        wall = time.perf_counter() - start
    taken = {stage: clocks.get(stage, 0.0) for stage in STAGES}
    taken["rest"] = wall - sum(taken.values())
    return Way(name, sum(len(one) for one in samples) / 24_000, wall, taken)


def _package_stages(speaker: Any) -> AbstractContextManager[dict[str, float]]:
    """How long the package's parts take while this is open."""
    return _stages(
        (speaker.t3, "inference_turbo" if speaker.t3.is_gpt else "inference", "tokens"),
        (speaker.s3gen, "flow_inference", "mel"),
        (speaker.s3gen, "hift_inference", "sound"),
        (speaker.watermarker, "apply_watermark", "watermark"),
    )


def _our_stages() -> AbstractContextManager[dict[str, float]]:
    """How long our parts take while this is open; the package's text work is in the rest."""
    from pipeline.chatterbox.fast.flow import Flow
    from pipeline.chatterbox.fast.slots import SlotEngine
    from pipeline.chatterbox.fast.vocoder import Vocoder
    from pipeline.chatterbox.speaker import Speaker

    return _stages(
        (SlotEngine, "prepare", "tokens"),
        (SlotEngine, "__init__", "tokens"),
        (SlotEngine, "run", "tokens"),
        (Flow, "mels", "mel"),
        (Vocoder, "waves", "sound"),
        (Speaker, "finished", "watermark"),
    )


@contextmanager
def _stages(*parts: tuple[Any, str, str]) -> Iterator[dict[str, float]]:
    """Seconds by stage; each part is an owner, the name of its function, and the stage that this is."""
    clocks: dict[str, float] = {}
    with ExitStack() as stack:
        for owner, name, stage in parts:
            function = getattr(owner, name)
            wrap = _clocked_run if inspect.isgeneratorfunction(function) else _clocked
            stack.enter_context(patch.object(owner, name, wrap(function, clocks, stage)))
        yield clocks


def _clocked(function: Callable[..., Any], clocks: dict[str, float], stage: str) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            _wait_for()
            clocks[stage] = clocks.get(stage, 0.0) + time.perf_counter() - start

    return timed


def _clocked_run(run: Callable[..., Any], clocks: dict[str, float], stage: str) -> Callable[..., Any]:
    """What passes while a generator works, and not while it waits."""

    def timed(*args: Any) -> Iterator[Any]:
        running = run(*args)
        step = _clocked(lambda: next(running, None), clocks, stage)
        while (done := step()) is not None:
            yield done

    return timed


def _wait_for() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


# Speech tokens alone


def _tokens_a_second(kind: str, speaker: Any, kernel: str, count: int, tokens: int) -> float:
    """Of `count` utterances at once, once their texts are taken in."""
    import torch

    from bench.fast_models import asked
    from pipeline.chatterbox.batched import Batched

    dtype = torch.bfloat16 if kernel == "bf16" else torch.float32
    with patch.object(Batched, "_precision", lambda _: dtype):
        slots = Batched(speaker, "fast", int8=kernel == "int8")
        slots.slots = count

        def seconds(length: int) -> float:
            requests = [
                dataclasses.replace(slots._request(seed, asked(kind, seed)), cap=length)
                for seed in range(count)
            ]
            best = float("inf")
            for _ in range(2):
                start = time.perf_counter()
                made = sum(len(done.tokens) for done in slots._tokens(requests))
                _wait_for()
                best = min(best, time.perf_counter() - start)
                assert made == count * length, made
            return best

        some = min(tokens, 40)
        speed = count * (some - FEW) / (seconds(some) - seconds(FEW))
        slots.close()
    return speed


if __name__ == "__main__":
    main()
