"""Models of the package at their real size with weights that nobody trained, made in memory.

What they say is noise, but it takes as long as speech. They never come to an end by themselves: the length
of an utterance is the limit that `fixed_length` sets, the same for the package and for us.
"""

import contextlib
import types
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline.chatterbox import batched, speaker
from pipeline.chatterbox.models import ENGLISH, TURBO, Loaded
from pipeline.chatterbox.package import package, quiet
from pipeline.chatterbox.speaker import Asked, Speaker

LETTERS_PER_TOKEN = 1.6
"of the English tokenizer; 245 letters are some 155 tokens"
PROMPT_TOKENS = {"english": 150, "turbo": 375}
DECODER_PROMPT_SECONDS = 10
"of the voice that S3Gen is given with each utterance, the most that the package takes"
TEXT = (
    "It rained all day, and nobody minded that at all; a light stood in the window of the house beyond the"
    " bridge, and whoever came along the road looked up at it, thought of something warm, and went on a"
    " little faster than before, number {}."
)


def build(kind: str, device: str, *, small: bool = False) -> Speaker:
    """A model, english or turbo, in front of which is all that the daemon has in front of it.

    `small`: few layers, for a quick look whether everything works.
    """
    import torch

    found = package()
    torch.manual_seed(1)
    with quiet(), _smaller() if small else contextlib.nullcontext():
        model = _turbo(found.turbo, device) if kind == "turbo" else _english(found.english, device)
    loaded = Loaded(
        model=model,
        family=TURBO if kind == "turbo" else ENGLISH,
        folder=Path("/nonexistent"),
        device=device,
        version=f"{found.version}, random weights",
        watermark=found.watermark,
    )
    return Speaker(loaded, Path("/nonexistent"))


def asked(kind: str, seed: int) -> Asked:
    """An utterance in the model's own voice, with the settings that a job has by default."""
    settings = {"temperature": 0.8, "top_p": 0.95 if kind == "turbo" else 1.0, "repetition_penalty": 1.2}
    if kind == "english":
        settings |= {"exaggeration": 0.5, "cfg_weight": 0.5, "min_p": 0.05}
    return Asked(
        text=TEXT.format(seed), clip=None, clip_sha256=None, exaggeration=0.5, seed=seed, settings=settings
    )


@contextlib.contextmanager
def fixed_length(tokens: int) -> Iterator[None]:
    """Meanwhile every utterance has so many tokens, Turbo's one more."""
    with patch.object(speaker, "MAX_TOKENS", tokens), patch.object(batched, "MAX_TOKENS", tokens):
        yield


def _english(kind: Any, device: str) -> Any:
    from chatterbox.models.t3 import T3
    from chatterbox.models.voice_encoder import VoiceEncoder

    return kind(
        t3=_endless(T3()).to(device),
        s3gen=_s3gen(mean_flow=False).to(device),
        ve=VoiceEncoder().to(device).eval(),
        tokenizer=types.SimpleNamespace(text_to_tokens=_letters),
        device=device,
        conds=_voice(kind, "english").to(device),
    )


def _turbo(kind: Any, device: str) -> Any:
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.modules.t3_config import T3Config
    from chatterbox.models.voice_encoder import VoiceEncoder

    shape = T3Config(text_tokens_dict_size=50_276)
    shape.llama_config_name, shape.speech_tokens_dict_size = "GPT2_medium", 6563
    shape.input_pos_emb, shape.speech_cond_prompt_len = None, PROMPT_TOKENS["turbo"]
    shape.use_perceiver_resampler, shape.emotion_adv = False, False
    t3 = _endless(T3(shape))
    del t3.tfmr.wte  # as the package does when it loads one
    return kind(
        t3=t3.to(device),
        s3gen=_s3gen(mean_flow=True).to(device),
        ve=VoiceEncoder().to(device).eval(),
        tokenizer=lambda text, **_: types.SimpleNamespace(input_ids=_letters(text)),
        device=device,
        conds=_voice(kind, "turbo").to(device),
    )


def _letters(text: str) -> Any:
    """As many tokens as the real tokenizer would make, by a checksum of the text, shape (1, n)."""
    import torch

    count = max(1, round(len(text) / LETTERS_PER_TOKEN))
    numbers = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    return torch.randint(3, 250, (1, count), generator=numbers)


def _endless(t3: Any) -> Any:
    """With a last layer for which the end, and all that has no sound, is always the least likely."""
    import torch

    with torch.no_grad():
        head = torch.nn.Linear(t3.dim, t3.hp.speech_tokens_dict_size)
        head.weight.copy_(t3.speech_head.weight * 8)  # some tokens are likelier than others, as in speech
        head.bias.zero_()
        head.bias[6561:] = -1e4
    t3.speech_head = head
    return t3.eval()


def _s3gen(*, mean_flow: bool) -> Any:
    """With a vocoder that is voiced and loud enough to be marked."""
    import torch
    from chatterbox.models.s3gen import S3Gen

    s3gen = S3Gen(meanflow=mean_flow).eval()
    with torch.no_grad():
        for name, weight in s3gen.mel2wav.named_parameters():
            if name.endswith("original0") and "f0_predictor" not in name:
                weight.fill_(0.8)
        s3gen.mel2wav.f0_predictor.classifier.bias.fill_(120)
    return s3gen


def _voice(kind: Any, name: str) -> Any:
    """The checkpoint's own: random, of full length."""
    import sys

    import torch

    module = sys.modules[kind.__module__]
    tokens = 25 * DECODER_PROMPT_SECONDS
    speaker_embedding = torch.randn(1, 256)
    return module.Conditionals(
        module.T3Cond(
            speaker_emb=speaker_embedding / speaker_embedding.norm(),
            cond_prompt_speech_tokens=torch.randint(0, 6561, (1, PROMPT_TOKENS[name])),
            emotion_adv=0.5 * torch.ones(1, 1, 1),
        ),
        {
            "prompt_token": torch.randint(0, 6561, (1, tokens)),
            "prompt_token_len": torch.tensor([tokens]),
            "prompt_feat": torch.randn(1, 2 * tokens, 80),
            "prompt_feat_len": None,
            "embedding": torch.randn(1, 192),
        },
    )


@contextlib.contextmanager
def _smaller() -> Iterator[None]:
    """Meanwhile the package builds shallow networks, of the real width."""
    from chatterbox.models.s3gen import s3gen
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS

    decoder = s3gen.ConditionalDecoder

    def shallow(*args: Any, **kwargs: Any) -> Any:
        return decoder(*args, **(kwargs | {"n_blocks": 1, "num_mid_blocks": 1}))

    with (
        patch.dict(LLAMA_CONFIGS["Llama_520M"], {"num_hidden_layers": 2}),
        patch.dict(LLAMA_CONFIGS["GPT2_medium"], {"n_layer": 2}),
        patch.object(s3gen, "ConditionalDecoder", shallow),
    ):
        yield
