"""What a T3 is made of: sizes and special tokens, read from the package's module.

Knows both backbones, Llama (English and multilingual) and GPT-2 (Turbo and Nano), and computes nothing.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions with the scaling of Llama 3.1."""

    theta: float
    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    trained_positions: int
    "original_max_position_embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One T3."""

    layers: int
    heads: int
    head_width: int
    width: int
    "of the residual stream"
    norm_epsilon: float
    rope: Rope | None
    "None: GPT-2 with learned absolute positions"
    learned_positions: bool
    "text and speech positions of their own, added to the embeddings (English and multilingual)"
    perceiver_heads: int
    "0: the prompt's speech tokens go in as they are"
    emotion: bool
    start_speech: int
    stop_speech: int
    speech_vocabulary: int
    "rows of the speech head"

    @property
    def llama(self) -> bool:
        """Whether this is English or multilingual: guided, with two BOS and min_p."""
        return self.rope is not None

    @property
    def first_tokens(self) -> int:
        """How many BOS follow the text: upstream's `T3.inference` feeds it twice, `inference_turbo` once."""
        return 2 if self.llama else 1

    @property
    def attention_width(self) -> int:
        """Of all heads together."""
        return self.heads * self.head_width

    def cache_bytes(self, length: int, bytes_per_value: int = 4) -> int:
        """Memory of one slot's keys and values, with the unconditional row where there is one."""
        rows = 2 if self.llama else 1
        return rows * self.layers * 2 * self.attention_width * length * bytes_per_value


def shape_of(t3: Any) -> Shape:
    """Read the module `chatterbox.models.t3.T3`; ValueError where it is one that is not known here."""
    hp, config = t3.hp, t3.cfg
    gpt = bool(t3.is_gpt)
    head_width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    if not gpt and config.num_key_value_heads != config.num_attention_heads:
        raise ValueError("This T3 shares keys between heads; no Chatterbox model known here does.")
    return Shape(
        layers=int(config.num_hidden_layers),
        heads=int(config.num_attention_heads),
        head_width=head_width,
        width=int(config.hidden_size),
        norm_epsilon=float(config.layer_norm_epsilon if gpt else config.rms_norm_eps),
        rope=None if gpt else _rope(config),
        learned_positions=hp.input_pos_emb == "learned",
        perceiver_heads=int(t3.cond_enc.perceiver.attn.num_heads) if hp.use_perceiver_resampler else 0,
        emotion=bool(hp.emotion_adv),
        start_speech=int(hp.start_speech_token),
        stop_speech=int(hp.stop_speech_token),
        speech_vocabulary=int(hp.speech_tokens_dict_size),
    )


def _rope(config: Any) -> Rope:
    # transformers 5 puts theta among the rest, 4 beside it
    found = getattr(config, "rope_parameters", None) or {
        **config.rope_scaling,
        "rope_theta": config.rope_theta,
    }
    if found["rope_type"] != "llama3":
        raise ValueError(f"This T3 has rotary positions of the type {found['rope_type']}, not llama3.")
    return Rope(
        theta=float(found["rope_theta"]),
        factor=float(found["factor"]),
        low_frequency_factor=float(found["low_freq_factor"]),
        high_frequency_factor=float(found["high_freq_factor"]),
        trained_positions=int(found["original_max_position_embeddings"]),
    )
