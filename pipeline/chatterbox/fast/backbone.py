"""The transformer of a T3, Llama or GPT-2, in plain torch with upstream's state-dict keys.

Queries, keys and values are one product, and the scale of a Llama norm is folded into the product that
follows it. Knows rows of hidden values and nothing of tokens: who calls it says by `attend` where a row
looks. Invariant: the residual stream, the norms and the last output are in fp32, whatever the weights are.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.chatterbox.fast.dense import Dense, Kernel, dense
from pipeline.chatterbox.fast.shape import Shape

State = Mapping[str, Tensor]


class Attend(Protocol):
    """Where rows look: `attention.Prompt` or `attention.Step`."""

    qkv: Tensor
    "(rows, 3 x heads x head width), to be filled before the call"

    def __call__(self, layer: int) -> Tensor:
        """What the rows found, (rows, heads x head width)."""
        ...


class Layer(Protocol):
    """One block."""

    def __call__(self, hidden: Tensor, attend: Attend, index: int) -> Tensor:
        """`hidden` (rows, width) after the block; the argument may be overwritten."""
        ...


class Backbone:
    """All blocks and the last norm."""

    def __init__(self, state: State, shape: Shape, *, dtype: torch.dtype, kernel: Kernel) -> None:
        kind = _LlamaLayer if shape.llama else _GptLayer
        self._layers: list[Layer] = [kind(state, i, shape, dtype, kernel) for i in range(shape.layers)]
        self._shape = shape
        if shape.llama:
            self._last_scale = state["tfmr.norm.weight"].float() * math.sqrt(shape.width)
            self._norm = _RootMeanSquare(shape, torch.float32, self._last_scale.device)
        else:
            self._last = _Normal(state, "tfmr.ln_f", shape, torch.float32)

    def __call__(self, hidden: Tensor, attend: Attend) -> Tensor:
        """Hidden values (rows, width) in fp32, which may be overwritten, to the last norm's output."""
        for index, layer in enumerate(self._layers):
            hidden = layer(hidden, attend, index)
        if self._shape.llama:
            return self._norm(hidden) * self._last_scale
        return self._last(hidden)


class _RootMeanSquare:
    """x / sqrt(sum(x²) + width x epsilon): RMSNorm but for its scale and a root, which weights carry."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._floor = torch.tensor(math.sqrt(shape.width * shape.norm_epsilon), device=device)
        self._dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        normal = x / length.hypot_(self._floor)
        return normal if self._dtype == torch.float32 else normal.to(self._dtype)


class _LlamaLayer:
    def __init__(self, state: State, index: int, shape: Shape, dtype: torch.dtype, kernel: Kernel) -> None:
        def weight(name: str) -> Tensor:
            return state[f"tfmr.layers.{index}.{name}.weight"].float()

        root = math.sqrt(shape.width)
        before, after = weight("input_layernorm") * root, weight("post_attention_layernorm") * root
        qkv = torch.cat([weight(f"self_attn.{name}_proj") for name in "qkv"]) * before
        self._norm = _RootMeanSquare(shape, dtype, qkv.device)
        self._qkv = dense(qkv.to(dtype), kernel=kernel)
        self._out = dense(weight("self_attn.o_proj").to(dtype), kernel=kernel)
        gate, up = weight("mlp.gate_proj") * after, weight("mlp.up_proj") * after
        self._mlp = _gated(gate.to(dtype), up.to(dtype), kernel)
        self._down = dense(weight("mlp.down_proj").to(dtype), kernel=kernel)

    def __call__(self, hidden: Tensor, attend: Attend, index: int) -> Tensor:
        self._qkv.into(self._norm(hidden), attend.qkv)
        hidden = self._out.plus(attend(index), hidden)
        return self._down.plus(self._mlp(self._norm(hidden)), hidden)


class _Gated(Protocol):
    def __call__(self, x: Tensor) -> Tensor: ...


def _gated(gate: Tensor, up: Tensor, kernel: Kernel) -> _Gated:
    return (
        _Fused(dense(torch.cat((gate, up)), kernel=kernel)) if kernel == "plain" else _Apart(gate, up, kernel)
    )


class _Fused:
    """silu(x G') * (x U') in one product."""

    def __init__(self, both: Dense) -> None:
        self._both = both

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = self._both.activated(x).chunk(2, -1)
        return functional.silu(gate, inplace=True).mul_(up)


class _Apart:
    """The same in two, where the kernel takes activation and factor along."""

    def __init__(self, gate: Tensor, up: Tensor, kernel: Kernel) -> None:
        self._gate = dense(gate, kernel=kernel, activation="silu")
        self._up = dense(up, kernel=kernel)

    def __call__(self, x: Tensor) -> Tensor:
        return self._up.times(x, self._gate.activated(x))


class _GptLayer:
    def __init__(self, state: State, index: int, shape: Shape, dtype: torch.dtype, kernel: Kernel) -> None:
        def part(name: str) -> Tensor:
            return state[f"tfmr.h.{index}.{name}"].float()

        def conv1d(
            name: str, **more: str
        ) -> Dense:  # transformers' Conv1D keeps its weight as (inputs, outputs)
            weight, bias = part(f"{name}.weight").t().to(dtype), part(f"{name}.bias").to(dtype)
            return dense(weight, bias, kernel=kernel, **more)  # type: ignore[arg-type]

        self._first, self._second = (
            _Normal(state, f"tfmr.h.{index}.{name}", shape, dtype) for name in ("ln_1", "ln_2")
        )
        self._qkv, self._out = conv1d("attn.c_attn"), conv1d("attn.c_proj")
        self._inner, self._down = conv1d("mlp.c_fc", activation="gelu_tanh"), conv1d("mlp.c_proj")

    def __call__(self, hidden: Tensor, attend: Attend, index: int) -> Tensor:
        self._qkv.into(self._first(hidden), attend.qkv)
        hidden = self._out.plus(attend(index), hidden)
        return self._down.plus(self._inner.activated(self._second(hidden)), hidden)


class _Normal:
    """LayerNorm."""

    def __init__(self, state: State, name: str, shape: Shape, dtype: torch.dtype) -> None:
        self._scale, self._shift = state[f"{name}.weight"].float(), state[f"{name}.bias"].float()
        self._width, self._epsilon, self._dtype = shape.width, shape.norm_epsilon, dtype

    def __call__(self, x: Tensor) -> Tensor:
        normal = functional.layer_norm(x, (self._width,), self._scale, self._shift, self._epsilon)
        return normal if self._dtype == torch.float32 else normal.to(self._dtype)
