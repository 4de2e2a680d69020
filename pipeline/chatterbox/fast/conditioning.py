"""What a T3 is given before the text: speaker, prompt and emotion as embeddings (upstream's `T3CondEnc`).

Takes upstream's `T3Cond`, or anything with its fields, and leaves it as it is.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.chatterbox.fast.backbone import State
from pipeline.chatterbox.fast.shape import Shape


def condition(state: State, shape: Shape, given: Any) -> Tensor:
    """Embeddings (tokens, width) in fp32: speaker, then the prompt's, then emotion where the model has it."""
    device = state["cond_enc.spkr_enc.weight"].device
    speaker = given.speaker_emb.to(device).float().reshape(1, -1)
    weight, bias = _linear(state, "cond_enc.spkr_enc")
    parts = [functional.linear(speaker, weight, bias)]
    if given.cond_prompt_speech_tokens is not None:
        parts.append(_prompt(state, shape, given.cond_prompt_speech_tokens.to(device).reshape(-1)))
    if shape.emotion:
        emotion = torch.as_tensor(given.emotion_adv, device=device).float().reshape(1, 1)
        parts.append(functional.linear(emotion, state["cond_enc.emotion_adv_fc.weight"].float()))
    return torch.cat(parts)


def _prompt(state: State, shape: Shape, tokens: Tensor) -> Tensor:
    embedded = state["speech_emb.weight"].float()[tokens]
    if shape.llama:
        embedded = embedded + state["speech_pos_emb.emb.weight"].float()[: len(tokens)]
    if not shape.perceiver_heads:
        return embedded
    queries = state["cond_enc.perceiver.pre_attention_query"].float()[0]
    crossed = _attention_block(state, shape, queries, embedded)
    return _attention_block(state, shape, crossed, crossed)


def _attention_block(state: State, shape: Shape, queries: Tensor, others: Tensor) -> Tensor:
    """Upstream's AttentionBlock2 without its dropout: (queries, width)."""
    name = "cond_enc.perceiver.attn"
    scale, shift = _linear(state, f"{name}.norm")
    ours, theirs = (functional.layer_norm(x, x.shape[-1:], scale, shift) for x in (queries, others))
    query, key, value = (
        functional.linear(x, *_linear(state, f"{name}.{part}"))
        .unflatten(-1, (shape.perceiver_heads, -1))
        .transpose(0, 1)
        for part, x in (("to_q", ours), ("to_k", theirs), ("to_v", theirs))
    )
    found = functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
    return queries + functional.linear(found.transpose(0, 1).flatten(1), *_linear(state, f"{name}.proj_out"))


def _linear(state: State, name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"].float(), state[f"{name}.bias"].float()
