"""Small modules of the installed package with random weights, and upstream's own loops over them."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("chatterbox")

from chatterbox.models.t3 import T3  # noqa: E402
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS  # noqa: E402
from chatterbox.models.t3.modules import cond_enc  # noqa: E402
from chatterbox.models.t3.modules.perceiver import Perceiver  # noqa: E402
from chatterbox.models.t3.modules.t3_config import T3Config  # noqa: E402

from pipeline.chatterbox.fast.sampling import TURBO, Settings  # noqa: E402
from pipeline.chatterbox.fast.slots import Request, SlotEngine  # noqa: E402

KINDS = ("english", "multilingual", "turbo", "nano")


@dataclass(frozen=True)
class Size:
    """Of a backbone."""

    layers: int = 3
    width: int = 32
    heads: int = 2
    inner: int = 64


class Config(T3Config):
    """Upstream's, but that the attention of the multilingual model is not watched, as in later versions."""

    is_multilingual = False  # type: ignore[assignment]


@functools.cache
def t3(kind: str, size: Size = Size(), seed: int = 1) -> Any:
    """A narrow T3 of one of the four shapes, its head so steep that some tokens are likelier than others."""
    torch.manual_seed(seed)
    hp, size = _config(kind, size)
    narrow = functools.partial(Perceiver, pre_attention_query_size=size.width, embedding_dim=size.width)
    with mock.patch.object(cond_enc, "Perceiver", narrow):
        model = T3(hp).eval()
    model.speech_head = torch.nn.Linear(size.width, hp.speech_tokens_dict_size, bias=model.is_gpt)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "ln_" in name:
                weight.add_(0.2 * torch.randn_like(weight))  # scales that are all 1 would hide their absence
            elif name.endswith("bias"):
                weight.add_(0.1 * torch.randn_like(weight))
            elif name.endswith(("pos_emb.emb.weight", "wpe.weight")):
                weight.mul_(25)
            elif name.startswith("tfmr") and "wte" not in name:
                # every block changes its input by as much as that is, so that its mistakes would be heard
                fan_in = weight.shape[0 if model.is_gpt else 1]
                weight.mul_(50 / fan_in**0.5)
        model.speech_head.weight.mul_(8)
    if model.is_gpt:
        del model.tfmr.wte  # as ChatterboxTurboTTS.from_local does
    return model


def copy_of(kind: str) -> Any:
    """A copy that may be changed."""
    return copy.deepcopy(t3(kind))


def ending(kind: str, position: int) -> Any:
    """A copy that says EOS after the token at one position: of speech, for Turbo of everything."""
    model = copy_of(kind)
    gpt = model.is_gpt
    positions = model.tfmr.wpe if gpt else model.speech_pos_emb.emb
    last = model.tfmr.ln_f if gpt else model.tfmr.norm
    with torch.no_grad():
        # the first value of the residual stream is nothing, but there
        model.speech_emb.weight[:, 0] = 0
        positions.weight[:, 0] = 0
        positions.weight[position, 0] = 1000
        for layer in model.tfmr.h if gpt else model.tfmr.layers:
            for part in (
                (layer.attn.c_proj, layer.mlp.c_proj)
                if gpt
                else (layer.self_attn.o_proj, layer.mlp.down_proj)
            ):
                if gpt:  # (inputs, outputs)
                    part.weight[:, 0], part.bias[0] = 0, 0
                else:
                    part.weight[0] = 0
        last.weight.abs_()
        model.speech_head.weight[model.hp.stop_speech_token] = 0
        model.speech_head.weight[model.hp.stop_speech_token, 0] = 5
    return model


def _config(kind: str, size: Size) -> tuple[Config, Size]:
    gpt = kind in ("turbo", "nano")
    if kind == "nano":  # Turbo's code, narrower and with half the layers
        size = Size(
            layers=(size.layers + 1) // 2, width=size.width * 3 // 4, heads=size.heads, inner=size.inner
        )
    name = f"voxspool test {kind} {size}"
    hp = Config({"english": 704, "multilingual": 2454}.get(kind, 50276))
    hp.llama_config_name = name
    if gpt:
        LLAMA_CONFIGS[name] = LLAMA_CONFIGS["GPT2_medium"] | {
            "n_embd": size.width,
            "hidden_size": size.width,
            "n_head": size.heads,
            "n_layer": size.layers,
            "n_positions": 2048,
            "n_ctx": 2048,
        }
        hp.speech_tokens_dict_size, hp.input_pos_emb, hp.speech_cond_prompt_len = 6563, None, 375
        hp.use_perceiver_resampler, hp.emotion_adv = False, False
    else:
        LLAMA_CONFIGS[name] = LLAMA_CONFIGS["Llama_520M"] | {
            "hidden_size": size.width,
            "intermediate_size": size.inner,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads,
            "head_dim": size.width // size.heads,
        }
    return hp, size


def voice(kind: str, seed: int = 5, prompt: int = 40) -> Any:
    """A voice that nobody has: random speaker, random prompt."""
    g = torch.Generator().manual_seed(seed)
    return cond_enc.T3Cond(
        speaker_emb=torch.randn(1, 256, generator=g),
        cond_prompt_speech_tokens=torch.randint(0, 6561, (1, prompt), generator=g),
        emotion_adv=0.3 * torch.ones(1, 1, 1),
    )


def text(kind: str, length: int, seed: int) -> Any:
    """Random text tokens (length,), between start and end where the model has them."""
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 250, (length,), generator=g)
    if kind in ("english", "multilingual"):
        tokens[0], tokens[-1] = 255, 0
    return tokens


def defaults(kind: str) -> Settings:
    """Upstream's for this model."""
    return {"turbo": TURBO, "nano": TURBO, "multilingual": Settings(repetition_penalty=2.0)}.get(
        kind, Settings()
    )


def requests(
    kind: str, voice: Any, *, settings: Sequence[Settings] = (), cap: int = 30, count: int = 5
) -> list[Request]:
    """Texts of different lengths, each with a seed, settings and a cap of its own."""
    return [
        Request(
            key=i,
            text_tokens=text(kind, 5 + 4 * i, i),
            voice=voice,
            seed=100 + i,
            cap=cap + i,
            settings=settings[i % len(settings)] if settings else defaults(kind),
        )
        for i in range(count)
    ]


def spoken(engine: SlotEngine, asked: Sequence[Request]) -> dict[Any, list[int]]:
    """Tokens by key."""
    return {done.key: done.tokens.tolist() for done in engine.run(asked)}


def upstream(kind: str, model: Any, conditioning: Any, request: Request) -> list[int]:
    """What the package's own loop says, without EOS."""
    torch.manual_seed(request.seed)
    tokens, settings, cap = request.text_tokens, request.settings, request.cap
    if kind in ("turbo", "nano"):
        said = model.inference_turbo(
            t3_cond=conditioning,
            text_tokens=tokens[None],
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
            max_gen_len=cap - 1,
        )
    else:
        said = model.inference(
            t3_cond=conditioning,
            text_tokens=torch.stack((tokens, tokens)),
            max_new_tokens=cap,
            temperature=settings.temperature,
            cfg_weight=settings.cfg_weight,
            min_p=settings.min_p,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
        )
    found = said[0].tolist()
    return found[:-1] if found and found[-1] == model.hp.stop_speech_token else found


@functools.cache
def s3gen(*, mean_flow: bool, seed: int = 3) -> Any:
    """An S3Gen of few and narrow blocks, without what measures voices; its vocoder is voiced and loud."""
    from chatterbox.models.s3gen import s3gen as package
    from chatterbox.models.s3gen.decoder import ConditionalDecoder
    from chatterbox.models.s3gen.hifigan import HiFTGenerator
    from chatterbox.models.s3gen.transformer.upsample_encoder import UpsampleConformerEncoder

    def fixed(maker: Any, **values: Any) -> Any:
        return lambda *args, **kwargs: maker(*args, **(kwargs | values))

    torch.manual_seed(seed)
    narrow = {"channels": [64], "attention_head_dim": 16, "num_heads": 4, "n_blocks": 1, "num_mid_blocks": 2}
    with (
        mock.patch.object(package, "S3Tokenizer", lambda name: torch.nn.Linear(1, 1)),
        mock.patch.object(package, "CAMPPlus", lambda **kwargs: torch.nn.Identity()),
        mock.patch.object(
            package,
            "UpsampleConformerEncoder",
            fixed(UpsampleConformerEncoder, num_blocks=2, linear_units=128),
        ),
        mock.patch.object(package, "ConditionalDecoder", fixed(ConditionalDecoder, **narrow)),
        mock.patch.object(package, "HiFTGenerator", fixed(HiFTGenerator, base_channels=32)),
    ):
        model = package.S3Token2Wav(meanflow=mean_flow).eval()
    hift = model.mel2wav
    with torch.no_grad():
        for name, weight in hift.named_parameters():
            if name.endswith("original0") and "f0_predictor" not in name:
                weight.fill_(0.8)  # convolutions begin as next to nothing
            elif name.endswith("alpha"):
                weight.mul_(0.5 + torch.rand_like(weight))
        hift.f0_predictor.classifier.weight.mul_(100)
        hift.f0_predictor.classifier.bias.fill_(120)
    return model


def reference(seed: int, prompt: int) -> dict[str, Any]:
    """What S3Gen is given of a voice that nobody has."""
    g = torch.Generator().manual_seed(seed)
    return {
        "prompt_token": torch.randint(0, 6561, (1, prompt), generator=g),
        "prompt_token_len": torch.tensor([prompt]),
        "prompt_feat": torch.randn(1, 2 * prompt, 80, generator=g),
        "prompt_feat_len": None,
        "embedding": torch.randn(1, 192, generator=g),
    }
