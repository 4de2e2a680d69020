"""Matrix products with fixed weights, in the three ways that T3's backbone and the flow can have them.

`plain` is what every device has. `packed` keeps the weights in oneDNN's own order, which a processor reads
two to three times as fast, with the same numbers up to rounding. `int8` rounds them to eight
bits, one scale for each output: faster still, and no longer exact. Knows nothing of what the weights mean.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Literal["plain", "packed", "int8"]
Activation = Literal["none", "silu", "gelu", "gelu_tanh"]
"gelu_tanh is what transformers calls gelu_new"


# without VNNI instructions sums of two products saturate at 16 bits; inputs of seven bits keep clear of that
_SEVEN_BITS = not getattr(torch.cpu, "_is_vnni_supported", bool)()


class Dense(Protocol):
    """x W' + b for x of the shape (rows, inputs)."""

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write the product to `out`, which is of the shape (rows, outputs)."""
        ...

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product and `residual`, which may be overwritten."""
        ...

    def activated(self, x: Tensor) -> Tensor:
        """The product after the activation that it was made with."""
        ...

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The product times `factor`, which may be overwritten."""
        ...


def dense(
    weight: Tensor, bias: Tensor | None = None, *, kernel: Kernel, activation: Activation = "none"
) -> Dense:
    """Make one of `weight` (outputs, inputs)."""
    if kernel == "int8":
        return _Int8(weight, bias, activation)
    if kernel == "packed":
        return _Packed(weight, bias, activation)
    return _Plain(weight, bias, activation)


def best_kernel(device: str, dtype: torch.dtype) -> Kernel:
    """The fastest that is exact on this device."""
    return "packed" if has_onednn(device, dtype) else "plain"


def has_onednn(device: str, dtype: torch.dtype) -> bool:
    """Whether oneDNN's own products can be called for them."""
    there = device == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return there and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "silu":
        return functional.silu(x, inplace=True)
    if activation == "none":
        return x
    return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class _Plain:
    """torch's own."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        self._weight = weight.contiguous().t()
        self._bias = bias
        self._activation = activation

    def into(self, x: Tensor, out: Tensor) -> None:
        if self._bias is None:
            torch.mm(x, self._weight, out=out)
        else:
            torch.addmm(self._bias, x, self._weight, out=out)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        if residual.dtype == x.dtype:
            residual.addmm_(x, self._weight)
        else:  # the residual stream stays in fp32 where weights are halved
            residual.add_(torch.mm(x, self._weight))
        return residual if self._bias is None else residual.add_(self._bias)

    def activated(self, x: Tensor) -> Tensor:
        return _activate(self._product(x), self._activation)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return factor.mul_(self._product(x))

    def _product(self, x: Tensor) -> Tensor:
        return torch.mm(x, self._weight) if self._bias is None else torch.addmm(self._bias, x, self._weight)


_ONEDNN_NAMES = {
    "none": ("none", ""),
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}


class _Packed:
    """oneDNN's, with its fused activations and sums."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous().clone(), 8)
        self._bias = None if bias is None else bias.clone()
        self._activation, self._algorithm = _ONEDNN_NAMES[activation]

    def into(self, x: Tensor, out: Tensor) -> None:
        out.copy_(torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], ""))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")

    def activated(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, self._activation, [], self._algorithm
        )

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(x, factor, self._weight, self._bias, "mul")


class _Int8:
    """Weights rounded once, inputs on the way in, sums in 32 bits."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        weight = weight.float()
        scales = weight.abs().amax(1).clamp_min(1e-12) / 127
        zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
        rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rounded, None if bias is None else bias.float())
        self._activation = activation

    def into(self, x: Tensor, out: Tensor) -> None:
        out.copy_(self._product(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual.add_(self._product(x))

    def activated(self, x: Tensor) -> Tensor:
        return _activate(self._product(x), self._activation)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return factor.mul_(self._product(x))

    def _product(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self._packed, _SEVEN_BITS)
