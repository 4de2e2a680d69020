"""Mel spectrograms from speech tokens, for utterances of unequal length and with different voices at once.

Takes the flow of the package's S3Gen, Euler steps with guidance or Turbo's two of a mean flow, and
upstream's noise, drawn for each row from a generator of its own. A row is packed as prompt, speech,
padding; padding is masked also before the layer that looks ahead, where upstream leaves it in (rows of a
batch would hear it: `CausalMaskedDiffWithXvec` takes a batch and gets it wrong). Invariant: a row's mel is
that of the row alone, up to rounding.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.alive import Alive, unheeded
from pipeline.chatterbox.fast import tiles
from pipeline.chatterbox.fast.dense import Kernel, best_kernel, dense, has_onednn

FRAMES_PER_TOKEN = 2
MELS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One utterance to be given its sound."""

    tokens: Tensor
    "(tokens,), all below 6561"
    voice: Mapping[str, Any]
    "upstream's reference: prompt_token (1, n), prompt_feat (1, frames, 80), embedding (1, 192)"
    chance: torch.Generator
    "on the device; `noise.generator_after` continues upstream's"


class Flow:
    """The flow of one S3Gen, whose modules are used and left as they are."""

    def __init__(
        self, s3gen: Any, *, dtype: torch.dtype = torch.float32, kernel: Kernel | None = None
    ) -> None:
        """`dtype` is the estimator's, whose steps are added up in fp32: fp16 is safe, bf16 too coarse."""
        self._flow = s3gen.flow
        self._mean_flow = bool(s3gen.meanflow)
        estimator = s3gen.flow.decoder.estimator
        where = next(estimator.parameters()).device.type
        with torch.inference_mode():
            self._estimator = _Estimator(estimator, dtype, kernel or best_kernel(where, dtype))

    def mels(self, rows: Sequence[Row], *, steps: int | None = None, alive: Alive = unheeded) -> list[Tensor]:
        """(80, frames) for each row, 50 frames a second; upstream takes 10 steps, 2 for a mean flow.

        `alive` is called before each step; what it raises passes.
        """
        with torch.inference_mode():
            mu, lengths = self._encode(rows)
            mask = _mask(lengths, mu.shape[2], mu.device)
            noise, prompt = torch.zeros_like(mu), torch.zeros_like(mu)
            for row, length, z, seen in zip(rows, lengths, noise, prompt, strict=True):
                z[:, :length] = self._noise(row, length)
                given = row.voice["prompt_feat"].to(mu.device).reshape(-1, MELS)
                seen[:, : len(given)] = given.t()
            found = self._solve(noise, mu, prompt, self._speakers(rows), mask, lengths, steps, alive)
            starts = [row.voice["prompt_feat"].reshape(-1, MELS).shape[0] for row in rows]
            return [mel[:, start:end] for mel, start, end in zip(found, starts, lengths, strict=True)]

    def _noise(self, row: Row, length: int) -> Tensor:
        """Upstream's draws in upstream's order: a mean flow's speech first, then everything."""
        device, speech = row.chance.device, FRAMES_PER_TOKEN * len(row.tokens)
        again = torch.randn(1, MELS, speech, generator=row.chance, device=device) if self._mean_flow else None
        drawn = torch.randn(1, MELS, length, generator=row.chance, device=device)
        if again is not None:
            drawn[..., length - speech :] = again
        return drawn[0]

    def _speakers(self, rows: Sequence[Row]) -> Tensor:
        """(rows, 80)."""
        layer = self._flow.spk_embed_affine_layer
        embeddings = torch.cat(
            [row.voice["embedding"].to(layer.weight.device).reshape(1, -1) for row in rows]
        )
        return layer(functional.normalize(embeddings.float(), dim=1))

    def _encode(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        """What the tokens mean, (rows, 80, frames), and each row's frames, those of the prompt among them."""
        flow, encoder = self._flow, self._flow.encoder
        device = flow.input_embedding.weight.device
        tokens = [
            torch.cat([row.voice["prompt_token"].to(device).reshape(-1).long(), row.tokens.to(device).long()])
            for row in rows
        ]
        lengths = [len(one) for one in tokens]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        mask = _mask(lengths, padded.shape[1], device)
        by_row = mask.transpose(1, 2)
        x, positions, _ = encoder.embed(flow.input_embedding(padded) * by_row, mask.bool())
        # the linear layer has given padding a value, and the next layer looks three tokens ahead
        x = encoder.pre_lookahead_layer(x * by_row)
        x = encoder.forward_layers(x, mask.bool(), positions, mask.bool())
        x, _ = encoder.up_layer(x.transpose(1, 2).contiguous(), torch.tensor(lengths, device=device))
        frames = [FRAMES_PER_TOKEN * length for length in lengths]
        mask = _mask(frames, x.shape[2], device).bool()
        x, positions, _ = encoder.up_embed(x.transpose(1, 2).contiguous(), mask)
        x = encoder.after_norm(encoder.forward_up_layers(x, mask, positions, mask))
        return flow.encoder_proj(x).transpose(1, 2).contiguous(), frames

    def _solve(
        self,
        x: Tensor,
        mu: Tensor,
        prompt: Tensor,
        speakers: Tensor,
        mask: Tensor,
        lengths: Sequence[int],
        steps: int | None,
        alive: Alive,
    ) -> Tensor:
        """Euler's steps from noise to mel, (rows, 80, frames)."""
        steps = steps or (2 if self._mean_flow else 10)
        times = torch.linspace(0, 1, steps + 1, device=mu.device, dtype=mu.dtype)
        if not self._mean_flow and self._flow.decoder.t_scheduler == "cosine":
            times = 1 - torch.cos(times * 0.5 * torch.pi)
        given = torch.cat((mu, speakers[:, :, None].expand(-1, -1, mu.shape[2]), prompt), dim=1)
        if not self._mean_flow:  # guidance: a second half that is given nothing
            given, mask = torch.cat((given, torch.zeros_like(given))), torch.cat((mask, mask))
        seen = None if len(set(lengths)) == 1 else mask.bool()[:, None]
        rate = self._flow.decoder.inference_cfg_rate
        for start, end in itertools.pairwise(times):
            alive()
            doubled = x if self._mean_flow else torch.cat((x, x))
            slope = self._estimator(torch.cat((doubled, given), dim=1), mask, seen, start[None], end[None])
            if not self._mean_flow:
                guided, unguided = slope.chunk(2)
                slope = (1 + rate) * guided - rate * unguided
            x = x + (end - start) * slope
        return x


class _Estimator:
    """The slope of the flow: upstream's `ConditionalDecoder` without its questions to the device."""

    def __init__(self, module: Any, dtype: torch.dtype, kernel: Kernel) -> None:
        self._clock = module
        "the module as it is: in half precision times from 0 to 1000 would run into each other"
        self._dtype = dtype
        if dtype != torch.float32:
            module = copy.deepcopy(module).to(dtype)
        self._module = module

        def stage(group: Any) -> tuple[Any, list[_Block], Any]:
            resnet, blocks, *rest = group
            return resnet, [_Block(block, kernel) for block in blocks], rest[0] if rest else None

        self._down, self._mid, self._up = (
            [stage(group) for group in groups]
            for groups in (module.down_blocks, module.mid_blocks, module.up_blocks)
        )

    def __call__(self, x: Tensor, mask: Tensor, seen: Tensor | None, start: Tensor, end: Tensor) -> Tensor:
        """(rows, 80, frames) from (rows, 320, frames): state, meaning, speaker and prompt; fp32 both."""
        module, time = self._module, self._time(start, end)
        x, mask = x.to(self._dtype), mask.to(self._dtype)
        skipped = []
        for resnet, blocks, down in self._down:
            x = _transform(blocks, resnet(x, mask, time), seen)
            skipped.append(x)
            x = down(x * mask)
        for resnet, blocks, _ in self._mid:
            x = _transform(blocks, resnet(x, mask, time), seen)
        for resnet, blocks, up in self._up:
            x = _transform(blocks, resnet(torch.cat((x, skipped.pop()), dim=1), mask, time), seen)
            x = up(x * mask)
        return (module.final_proj(module.final_block(x, mask) * mask) * mask).float()

    def _time(self, start: Tensor, end: Tensor) -> Tensor:
        clock = self._clock
        time = clock.time_mlp(clock.time_embeddings(start))
        if clock.meanflow:
            ahead = clock.time_mlp(clock.time_embeddings(end))
            time = clock.time_embed_mixer(torch.cat((time, ahead), dim=1))
        return time.to(self._dtype)


class _Block:
    """Attention and two products (upstream's `BasicTransformerBlock`), queries, keys and values as one."""

    def __init__(self, module: Any, kernel: Kernel) -> None:
        attention, (inner, _, outer) = module.attn1, module.ff.net
        self._heads = int(attention.heads)
        self._before, self._between = module.norm1, module.norm3
        qkv = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
        self._qkv = dense(qkv, kernel=kernel)
        self._tiled = kernel != "plain" and has_onednn(qkv.device.type, qkv.dtype)
        self._out = dense(attention.to_out[0].weight, attention.to_out[0].bias, kernel=kernel)
        self._inner = dense(inner.proj.weight, inner.proj.bias, kernel=kernel, activation="gelu")
        self._outer = dense(outer.weight, outer.bias, kernel=kernel)

    def __call__(self, x: Tensor, rows: int, seen: Tensor | None) -> Tensor:
        """`x` (rows x frames, width), which may be overwritten."""
        qkv = self._qkv.activated(self._before(x))
        query, key, value = qkv.view(rows, -1, 3, self._heads, qkv.shape[1] // 3 // self._heads).permute(
            2, 0, 3, 1, 4
        )
        if seen is None and self._tiled:
            found = tiles.attention(query, key, value)
        else:
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2)
        x = self._out.plus(found.reshape(len(x), -1), x)
        return self._outer.plus(self._inner.activated(self._between(x)), x)


def _transform(blocks: Sequence[_Block], x: Tensor, seen: Tensor | None) -> Tensor:
    """`x` (rows, width, frames) through all blocks."""
    rows, width, frames = x.shape
    x = x.transpose(1, 2).reshape(rows * frames, width)
    for block in blocks:
        x = block(x, rows, seen)
    return x.view(rows, frames, width).transpose(1, 2).contiguous()


def _mask(lengths: Sequence[int], longest: int, device: torch.device) -> Tensor:
    """1 within a row and 0 behind its end, (rows, 1, longest)."""
    ends = torch.tensor(lengths, device=device)[:, None, None]
    return (torch.arange(longest, device=device) < ends).float()
