"""Chatterbox's speech tokens, one by one as the package makes them and many at once: `python -m bench.fast`.

Full-size models with random weights and fixed numbers of tokens, both ways in one run: what counts is the
ratio. Weights are random, so nothing needs to be downloaded, and nothing is said about how it sounds. Timed
is what every further token takes: the time for a few tokens is taken off, and taking in voice and text with
it. `--device cuda:0` measures a graphics card; `--layers 4` is a quick look at a part of the work. On a
machine that has other things to do, `--threads 1` keeps threads from waiting for each other.
"""

import argparse
import dataclasses
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any

KINDS = ("english", "turbo")
TEXT_TOKENS = 24
FEW = 2
"tokens whose time is taken off"
PROMPT_TOKENS = {"english": 150, "turbo": 375}
TOKENS_PER_SECOND = 25


def main() -> None:
    """Print one table."""
    options = _options()
    import torch

    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if options.threads:
        torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {options.device}, torch {torch.__version__}")
    print(f"{torch.get_num_threads()} threads, load {load:.1f} before; {options.tokens} tokens an utterance")
    print(f"{'':9}{'':>14}{'utterances':>12}{'tokens/s':>11}{'real time':>11}{'ratio':>8}")
    for kind in options.kinds:
        _measure(kind, options)
    print(f"load {os.getloadavg()[0]:.1f} after")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fast", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--at-once", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--tokens", type=int, default=18)
    parser.add_argument("--layers", type=int, default=None, help="fewer than the model has")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--kernels", nargs="+", default=None, choices=["plain", "packed", "int8"])
    return parser.parse_args()


def _measure(kind: str, options: argparse.Namespace) -> None:
    from pipeline.chatterbox.fast.dense import best_kernel

    t3 = _t3(kind, options.layers).to(options.device)
    torch = __import__("torch")
    exact = best_kernel(options.device.partition(":")[0], torch.float32)
    kernels = options.kernels or ([exact, "int8"] if options.device == "cpu" else [exact])
    before = _speed(1, lambda tokens: _one_by_one(kind, t3, tokens, options.device), options)
    _row(kind, "package", 1, before, before)
    for kernel in kernels:
        for count in options.at_once:
            _row(kind, kernel, count, _at_once(kind, t3, kernel, count, options), before)


def _row(kind: str, way: str, count: int, speed: float, before: float) -> None:
    xrt = speed / TOKENS_PER_SECOND
    print(f"{kind:9}{way:>14}{count:>12}{speed:>11.1f}{xrt:>10.2f}x{speed / before:>8.2f}", flush=True)


def _speed(count: int, run: Callable[[int], Any], options: argparse.Namespace) -> float:
    """Tokens a second of `count` utterances, once their texts are taken in."""
    few, all_of_them = (_seconds(lambda n=n: run(n), options.device) for n in (FEW, options.tokens))
    return count * (options.tokens - FEW) / (all_of_them - few)


def _seconds(run: Callable[[], Any], device: str) -> float:
    """The faster of two runs: on a machine that others use the slower one measures the others."""
    torch = __import__("torch")
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _at_once(kind: str, t3: Any, kernel: Any, count: int, options: argparse.Namespace) -> float:
    """Tokens a second of `count` utterances."""
    from pipeline.chatterbox.fast.sampling import TURBO, Settings
    from pipeline.chatterbox.fast.slots import Request, SlotEngine

    length = PROMPT_TOKENS[kind] + TEXT_TOKENS + options.tokens + 40
    engine = SlotEngine(t3, slots=count, max_length=length, mode="fast", kernel=kernel)
    voice = engine.prepare(_voice(kind))
    request = Request(
        key=0,
        text_tokens=_text(kind),
        voice=voice,
        settings=TURBO if kind == "turbo" else Settings(),
        seed=1,
    )

    def run(tokens: int) -> None:
        asked = [dataclasses.replace(request, key=seed, seed=seed, cap=tokens) for seed in range(count)]
        assert sum(len(done.tokens) for done in engine.run(asked)) == count * tokens

    return _speed(count, run, options)


def _one_by_one(kind: str, t3: Any, tokens: int, device: str) -> None:
    """The package's own loop."""
    import contextlib
    import io

    text = _text(kind).to(device)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        if kind == "turbo":
            said = t3.inference_turbo(
                t3_cond=_voice(kind).to(device=device),
                text_tokens=text[None],
                max_gen_len=tokens - 1,
            )
        else:
            said = t3.inference(
                t3_cond=_voice(kind).to(device=device),
                text_tokens=text.expand(2, -1),
                max_new_tokens=tokens,
                top_p=1.0,
            )
    assert said.shape[1] == tokens


def _t3(kind: str, layers: int | None) -> Any:
    """The package's T3 at its full size, with weights that nobody trained and that never come to an end."""
    import torch
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
    from chatterbox.models.t3.modules.t3_config import T3Config

    torch.manual_seed(1)
    hp = T3Config(50276 if kind == "turbo" else 704)
    if kind == "turbo":
        hp.llama_config_name, hp.speech_tokens_dict_size, hp.input_pos_emb = "GPT2_medium", 6563, None
        hp.speech_cond_prompt_len, hp.use_perceiver_resampler, hp.emotion_adv = 375, False, False
    if layers:
        name = "n_layer" if kind == "turbo" else "num_hidden_layers"
        LLAMA_CONFIGS[hp.llama_config_name] |= {name: layers}
    t3 = T3(hp).eval()
    with torch.no_grad():
        # the end is as unlikely as can be: its score is always far below the others'
        if t3.speech_head.bias is None:
            t3.speech_head = torch.nn.Linear(t3.dim, hp.speech_tokens_dict_size)
            t3.speech_head.bias.zero_()
        t3.speech_head.bias[hp.stop_speech_token] = -1e4
    if kind == "turbo":
        del t3.tfmr.wte  # as the package does when it loads one
    return t3


def _voice(kind: str) -> Any:
    import torch
    from chatterbox.models.t3.modules.cond_enc import T3Cond

    return T3Cond(
        speaker_emb=torch.randn(1, 256, generator=torch.Generator().manual_seed(1)),
        cond_prompt_speech_tokens=torch.arange(PROMPT_TOKENS[kind])[None],
        emotion_adv=0.5 * torch.ones(1, 1, 1),
    )


def _text(kind: str) -> Any:
    import torch

    text = torch.arange(1, TEXT_TOKENS + 1)
    if kind == "english":
        text[0], text[-1] = 255, 0
    return text


if __name__ == "__main__":
    main()
