"""Small checkpoints with random weights, in the files that the real loaders expect, and models as small.

`small_models()` makes the package build narrower and shallower networks: T3 through the package's own table
of backbones, S3Gen through the arguments of its parts. Sample rates, token rates and vocabularies stay.
Random weights never stop speaking by themselves, so the last layer of T3 is given a length to keep: in
proportion to the text, as speech has it.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pipeline.chatterbox.package import package, quiet
from pipeline.engines.chatterbox import LANGUAGES
from pipeline.errors import InputError

WIDTH = 64
TOKENS_PER_TEXT_TOKEN = 1.2
"at 25 tokens a second some 20 letters a second, quick speech"
LEAST_TOKENS, MOST_TOKENS = 8, 240
"long texts are cut short: that they can be spoken at all is what their tests are about"
STOPS_AT, TURBO_STOPS_AT = 64, 290
"positions: of speech; of all, after a voice of six seconds and its text"
SPEECH_TOKENS, SILENCE_TOKEN, STOP_TOKEN = 6561, 4299, 6562

TAGS = "[clear throat] [sigh] [shush] [cough] [groan] [sniff] [gasp] [chuckle] [laugh]"
_CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-:;()äöüßéèàçñø"
    "абвгдежзийклмнопрстуфхцчшщъыьэюя"
)


@contextlib.contextmanager
def small_models() -> Iterator[None]:
    """Meanwhile this process builds small models, and what was built may be used."""
    import torch

    package()
    with quiet():
        from chatterbox.models.s3gen import s3gen
        from chatterbox.models.t3 import t3
        from chatterbox.models.t3.inference import alignment_stream_analyzer
        from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
        from chatterbox.models.t3.modules import cond_enc
        from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
    llama = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": WIDTH // 4,
    }
    gpt2 = {"hidden_size": WIDTH, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "vocab_size": 8}
    tokenizer = ModelConfig(n_audio_state=64, n_audio_head=1, n_audio_layer=1)
    smaller: list[tuple[Any, str, dict[str, Any]]] = [
        (cond_enc, "Perceiver", {"pre_attention_query_size": WIDTH, "embedding_dim": WIDTH}),
        (s3gen, "UpsampleConformerEncoder", {"num_blocks": 1, "linear_units": 2 * WIDTH}),
        (
            s3gen,
            "ConditionalDecoder",
            {
                "channels": [WIDTH],
                "attention_head_dim": 16,
                "num_heads": 4,
                "n_blocks": 1,
                "num_mid_blocks": 1,
            },
        ),
        (s3gen, "CAMPPlus", {"growth_rate": 8, "init_channels": 32}),
        (s3gen, "HiFTGenerator", {"base_channels": 16}),
    ]
    with contextlib.ExitStack() as patches:
        enter = patches.enter_context
        enter(patch.dict(LLAMA_CONFIGS["Llama_520M"], llama))
        enter(patch.dict(LLAMA_CONFIGS["GPT2_medium"], gpt2))
        enter(patch.object(alignment_stream_analyzer, "LLAMA_ALIGNED_HEADS", [(0, 0), (1, 1), (1, 3)]))
        enter(patch.object(S3TokenizerV2.__init__, "__defaults__", (tokenizer,)))
        for module, name, arguments in smaller:
            enter(patch.object(module, name, _with(getattr(module, name), **arguments)))
        enter(patch.object(t3.T3, "__init__", _keeping_to_length(t3.T3.__init__, lively=True)))
        # oneDNN prepares itself anew for each length of sound, which takes longer than these models do.
        enter(torch.backends.mkldnn.flags(enabled=False))
        patches.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # so small sums are only held up by sharing them
        yield


@contextlib.contextmanager
def full_size_models() -> Iterator[None]:
    """Meanwhile this process builds models of the real size, which keep to the length of a text."""
    package()
    with quiet():
        from chatterbox.models.t3 import t3
    with patch.object(t3.T3, "__init__", _keeping_to_length(t3.T3.__init__, lively=False)):
        yield


def _with(maker: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    """The class, with some arguments that nobody can change."""

    def make(*args: Any, **kwargs: Any) -> Any:
        return maker(*args, **(kwargs | fixed))

    return make


def _keeping_to_length(init: Callable[..., None], *, lively: bool) -> Callable[..., None]:
    """`T3.__init__`, with a last layer that is told how many tokens the text should take."""
    import torch

    class Head(torch.nn.Linear):  # type: ignore[misc,name-defined]
        """Logits; once the length is reached: stop, or failing that silence."""

        left = 0

        def forward(self, hidden: Any) -> Any:
            logits = super().forward(hidden)
            self.left -= 1
            last = logits[..., -1, :]
            last[..., SPEECH_TOKENS:] = -900.0
            if self.left < 0:
                last[..., STOP_TOKEN] = 900.0
                last[..., SILENCE_TOKEN] = 500.0
            return logits

    def small_init(self: Any, hp: Any = None) -> None:
        init(self, hp)
        head = self.speech_head
        self.speech_head = Head(head.in_features, head.out_features, bias=head.bias is not None)
        torch.nn.init.normal_(self.speech_head.weight, std=0.3)
        # Left as they are, so narrow layers would add next to nothing to what they are given.
        for weight in (weight for weight in self.tfmr.parameters() if lively and weight.dim() > 1):
            torch.nn.init.normal_(weight, std=WIDTH**-0.5)
        if lively:
            _stop_by_position(self)
        prepare = self.prepare_input_embeds

        def small_prepare(*, text_tokens: Any, **kwargs: Any) -> Any:
            wanted = LEAST_TOKENS + round(TOKENS_PER_TEXT_TOKEN * text_tokens.size(1))
            self.speech_head.left = min(wanted, MOST_TOKENS)
            return prepare(text_tokens=text_tokens, **kwargs)

        self.prepare_input_embeds = small_prepare

    return small_init


def _stop_by_position(t3: Any) -> None:
    """Weights that end an utterance by themselves, for those who use T3's weights and not its modules.

    From a position on, the embedding points where the stop token's row of the last layer points.
    """
    import torch

    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(5))
    direction = (direction - direction.mean()) / direction.std()
    positions = t3.tfmr.wpe.weight if t3.is_gpt else t3.speech_pos_emb.emb.weight
    with torch.no_grad():
        end = TURBO_STOPS_AT if t3.is_gpt else STOPS_AT
        positions[:end] -= 2 * direction
        positions[end:] += 10 * direction
        t3.speech_head.weight[STOP_TOKEN] = direction
    if not t3.is_gpt:
        # The package's own loop keeps to the text's length and must not come near: its attention check
        # would take what happens there for a repetition.
        far = t3.speech_pos_emb.get_fixed_embedding
        t3.speech_pos_emb.get_fixed_embedding = lambda index: far(min(index, STOPS_AT - 1))


def require() -> None:
    """Skip where the models' packages are missing; fail where they must not be (VOXSPOOL_TEST_MODELS=1)."""
    try:
        package()
    except InputError as error:
        if os.environ.get("VOXSPOOL_TEST_MODELS") == "1":
            pytest.fail(error.in_full)
        pytest.skip(f"the models' packages are not installed: {error.message}")


def build_all(folder: Path) -> Path:
    """A folder of models as a configuration names it. Within `small_models()`."""
    with quiet():
        english(folder / "chatterbox")
        multilingual(folder / "chatterbox-multilingual")
        turbo(folder / "chatterbox-turbo")
    return folder


def english(folder: Path, *, seed: int = 1) -> Path:
    """`chatterbox`: also what the voice converter loads."""
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.voice_encoder import VoiceEncoder
    from safetensors.torch import save_file

    _begin(folder, seed)
    save_file(VoiceEncoder().state_dict(), folder / "ve.safetensors")
    save_file(_sound(T3()).state_dict(), folder / "t3_cfg.safetensors")
    save_file(_whole(_sound(S3Gen()).state_dict()), folder / "s3gen.safetensors")
    _letters(folder / "tokenizer.json")
    _builtin_voice(folder / "conds.pt")
    return folder


def multilingual(folder: Path, *, seed: int = 2) -> Path:
    """`chatterbox-multilingual`."""
    import torch
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.modules.t3_config import T3Config
    from chatterbox.models.voice_encoder import VoiceEncoder
    from safetensors.torch import save_file

    _begin(folder, seed)
    torch.save(VoiceEncoder().state_dict(), folder / "ve.pt")
    save_file(_sound(T3(T3Config.multilingual())).state_dict(), folder / "t3_mtl23ls_v2.safetensors")
    torch.save(_sound(S3Gen()).state_dict(), folder / "s3gen.pt")
    tags = [f"[{language}]" for language in LANGUAGES] + [f"[cj_{letter}]" for letter in "abcdeo."]
    _letters(folder / "grapheme_mtl_merged_expanded_v1.json", tags)
    (folder / "Cangjie5_TC.json").write_text(json.dumps(["你\tcae", "好\tbe", "世\tad"]), encoding="utf-8")
    _builtin_voice(folder / "conds.pt")
    return folder


def turbo(folder: Path, *, seed: int = 3) -> Path:
    """`chatterbox-turbo`."""
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.modules.t3_config import T3Config
    from chatterbox.models.voice_encoder import VoiceEncoder
    from safetensors.torch import save_file

    _begin(folder, seed)
    save_file(VoiceEncoder().state_dict(), folder / "ve.safetensors")
    shape = T3Config(text_tokens_dict_size=50_276)
    shape.llama_config_name = "GPT2_medium"
    shape.speech_tokens_dict_size = 6563
    shape.input_pos_emb = None
    shape.speech_cond_prompt_len = 375
    shape.use_perceiver_resampler = False
    shape.emotion_adv = False
    save_file(_sound(T3(shape)).state_dict(), folder / "t3_turbo_v1.safetensors")
    save_file(_whole(_sound(S3Gen(meanflow=True)).state_dict()), folder / "s3gen_meanflow.safetensors")
    _gpt2_letters(folder)
    _builtin_voice(folder / "conds.pt", prompt_tokens=150)
    return folder


def _begin(folder: Path, seed: int) -> None:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)


def _sound(model: Any) -> Any:
    """A model as it would be saved after training."""
    return model.eval()


def _whole(state: dict[str, Any]) -> dict[str, Any]:
    """safetensors wants each tensor in memory of its own."""
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def _letters(path: Path, tags: list[str] | None = None) -> None:
    """A tokenizer with one token for each letter, its special tokens where T3 expects them."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE

    vocabulary = {"[STOP]": 0, "[UNK]": 1, "[SPACE]": 2}
    vocabulary |= {letter: number for number, letter in enumerate(_CHARACTERS, 3)}
    # The library warns of every number without a token.
    vocabulary |= {f"[reserved {number}]": number for number in range(len(vocabulary), 255)}
    vocabulary["[START]"] = 255
    vocabulary |= {tag: number for number, tag in enumerate(tags or [], 256)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *(tags or [])]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.save(str(path))


def _gpt2_letters(folder: Path) -> None:
    """A GPT-2 tokenizer of bytes, with Turbo's tags as tokens of their own."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"<|endoftext|>": 50_256}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    added = {
        str(50_257 + number): {
            "content": f"{tag}]".strip(),
            "special": False,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for number, tag in enumerate(TAGS.rstrip("]").split("]"))
    }
    configuration = {
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "added_tokens_decoder": added,
        "model_max_length": 2048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration), encoding="utf-8")


def _builtin_voice(path: Path, *, prompt_tokens: int = 150, seconds: int = 2) -> None:
    """The checkpoint's own voice: what a loader expects in conds.pt."""
    import torch

    speaker = torch.randn(1, 256)
    conditions = {
        "t3": {
            "speaker_emb": speaker / speaker.norm(),
            "clap_emb": None,
            "cond_prompt_speech_tokens": torch.randint(0, 6561, (1, prompt_tokens)),
            "cond_prompt_speech_emb": None,
            "emotion_adv": 0.5 * torch.ones(1, 1, 1),
        },
        "gen": {
            "prompt_token": torch.randint(0, 6561, (1, 25 * seconds)),
            "prompt_token_len": torch.tensor([25 * seconds]),
            "prompt_feat": torch.randn(1, 50 * seconds, 80),
            "prompt_feat_len": None,
            "embedding": torch.randn(1, 192),
        },
    }
    torch.save(conditions, path)
