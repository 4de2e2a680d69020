"""A checkpoint of openai-whisper in CTranslate2's form, as faster-whisper loads it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.transcribers.whisper_words import files_left_open

DECODER_POSITIONS = 448
FILES = ("model.bin", "config.json", "tokenizer.json")


def convert(checkpoint: Path, folder: Path) -> None:
    """Write `folder` from a `.pt` file."""
    import torch
    from ctranslate2.specs.whisper_spec import WhisperSpec

    saved = torch.load(checkpoint, weights_only=True)
    dims = saved["dims"]
    state = {name: value.float().numpy() for name, value in saved["model_state_dict"].items()}
    spec = WhisperSpec(dims["n_audio_layer"], dims["n_audio_head"], dims["n_text_layer"], dims["n_text_head"])
    _fill_encoder(spec.encoder, state)
    _fill_decoder(spec.decoder, state)
    tokens = vocabulary(dims["n_vocab"])
    spec.register_vocabulary(tokens)
    layers, heads = dims["n_text_layer"], dims["n_text_head"]
    spec.config.alignment_heads = [(at, head) for at in range(layers // 2, layers) for head in range(heads)]
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [220, tokens.index("<|endoftext|>")]
    spec.config.lang_ids = [at for at, token in enumerate(tokens) if len(token) == 6 and token[:2] == "<|"]
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    (folder / "tokenizer.json").write_text(tokenizer_json(tokens), encoding="utf-8")


def vocabulary(size: int) -> list[str]:
    """Whisper's tokens in order, bytes written as GPT-2 writes them."""
    encoding = _encoding()
    specials = {number: token for token, number in encoding._special_tokens.items()}
    ranks = {rank: token for token, rank in encoding._mergeable_ranks.items()}
    return [_letters(ranks[at]) if at in ranks else specials[at] for at in range(size)]


def tokenizer_json(tokens: list[str]) -> str:
    """The same vocabulary for the package `tokenizers`, merges worked out from the ranks."""
    ranks = _encoding()._mergeable_ranks
    specials = [
        {"id": at, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for at, token in enumerate(tokens)
        if at >= len(ranks)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "vocab": {token: at for at, token in enumerate(tokens) if at < len(ranks)},
        "merges": [" ".join(pair) for pair in _merges(ranks)],
    }
    return json.dumps(
        {"version": "1.0", "truncation": None, "padding": None, "added_tokens": specials, "normalizer": None,
         "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}
    )  # fmt: skip


def _encoding() -> Any:
    from whisper.tokenizer import get_tokenizer

    with files_left_open():
        return get_tokenizer(True, num_languages=99).encoding


# GPT-2's letter for each byte.
_PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
_LETTER = {byte: chr(byte) for byte in _PLAIN} | {byte: chr(256 + at) for at, byte in enumerate(_OTHERS)}


def _letters(token: bytes) -> str:
    return "".join(_LETTER[byte] for byte in token)


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[str, str]]:
    """The two parts that each token was merged from: what is left of it if no later merge is made."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            at = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield _letters(parts[0]), _letters(parts[1])


def _fill_encoder(spec: Any, state: Mapping[str, Any]) -> None:
    for name in ("conv1", "conv2"):
        _linear(getattr(spec, name), state, f"encoder.{name}")
    spec.position_encodings.encodings = state["encoder.positional_embedding"]
    _norm(spec.layer_norm, state, "encoder.ln_post")
    for at, layer in enumerate(spec.layer):
        prefix = f"encoder.blocks.{at}"
        _own_attention(layer.self_attention, state, prefix)
        _feed_forward(layer.ffn, state, prefix)


def _fill_decoder(spec: Any, state: Mapping[str, Any]) -> None:
    spec.embeddings.weight = state["decoder.token_embedding.weight"]
    spec.projection.weight = state["decoder.token_embedding.weight"]
    positions = state["decoder.positional_embedding"]
    # The package takes it for granted that there are 448, as every published model has them.
    spec.position_encodings.encodings = np.pad(positions, ((0, DECODER_POSITIONS - len(positions)), (0, 0)))
    _norm(spec.layer_norm, state, "decoder.ln")
    for at, layer in enumerate(spec.layer):
        prefix = f"decoder.blocks.{at}"
        _own_attention(layer.self_attention, state, prefix)
        _norm(layer.attention.layer_norm, state, f"{prefix}.cross_attn_ln")
        _linear(layer.attention.linear[0], state, f"{prefix}.cross_attn.query")
        _fused(layer.attention.linear[1], state, f"{prefix}.cross_attn", ("key", "value"))
        _linear(layer.attention.linear[2], state, f"{prefix}.cross_attn.out")
        _feed_forward(layer.ffn, state, prefix)


def _own_attention(spec: Any, state: Mapping[str, Any], prefix: str) -> None:
    _norm(spec.layer_norm, state, f"{prefix}.attn_ln")
    _fused(spec.linear[0], state, f"{prefix}.attn", ("query", "key", "value"))
    _linear(spec.linear[1], state, f"{prefix}.attn.out")


def _feed_forward(spec: Any, state: Mapping[str, Any], prefix: str) -> None:
    _norm(spec.layer_norm, state, f"{prefix}.mlp_ln")
    _linear(spec.linear_0, state, f"{prefix}.mlp.0")
    _linear(spec.linear_1, state, f"{prefix}.mlp.2")


def _norm(spec: Any, state: Mapping[str, Any], name: str) -> None:
    spec.gamma, spec.beta = state[f"{name}.weight"], state[f"{name}.bias"]


def _linear(spec: Any, state: Mapping[str, Any], name: str) -> None:
    spec.weight, spec.bias = state[f"{name}.weight"], state[f"{name}.bias"]


def _fused(spec: Any, state: Mapping[str, Any], name: str, parts: tuple[str, ...]) -> None:
    """Several products in one; the key has no bias."""
    weights = [state[f"{name}.{part}.weight"] for part in parts]
    none = np.zeros(len(weights[0]), np.float32)
    spec.weight = np.concatenate(weights)
    spec.bias = np.concatenate([state.get(f"{name}.{part}.bias", none) for part in parts])
