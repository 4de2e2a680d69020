"""Keys and values of all rows, and attention over them: for a prompt at once, and for one token of every
row.

The cache is ragged and static: every row has room for the same number of positions, `lengths` says how many
are filled, a token is written where its row ends, and whoever comes next into a row overwrites what was
there. Invariant: no row reads what another wrote, nor what lies beyond its own length.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.chatterbox.fast.shape import Rope, Shape

BUCKET = 64
"positions; attention looks at a multiple of this, as few as hold every row"


class Positions:
    """Cosines and signed sines of rotary positions; none where positions are learned."""

    def __init__(self, shape: Shape, length: int, device: str, dtype: torch.dtype) -> None:
        self.cosines: Tensor | None = None
        self.sines: Tensor | None = None
        if shape.rope is None:
            return
        angles = torch.arange(length, device=device).float()[:, None] * _frequencies(
            shape.rope, shape.head_width, device
        )
        both = torch.cat((angles, angles), dim=-1)
        self.cosines = both.cos().to(dtype)
        # negated in the first half, so that rotating by half a head is a roll
        self.sines = torch.cat((-angles.sin(), angles.sin()), dim=-1).to(dtype)


def _frequencies(rope: Rope, head_width: int, device: str) -> Tensor:
    """Radians per position, (head_width / 2,), fp32; transformers' `_compute_llama3_parameters`."""
    pairs = torch.arange(0, head_width, 2, device=device).float() / head_width
    frequency = 1.0 / (rope.theta**pairs)
    wavelength = 2 * torch.pi / frequency
    longest = rope.trained_positions / rope.low_frequency_factor
    shortest = rope.trained_positions / rope.high_frequency_factor
    slowed = torch.where(wavelength > longest, frequency / rope.factor, frequency)
    span = rope.high_frequency_factor - rope.low_frequency_factor
    smooth = (rope.trained_positions / wavelength - rope.low_frequency_factor) / span
    between = (1 - smooth) * slowed / rope.factor + smooth * slowed
    return torch.where((wavelength < shortest) | (wavelength > longest), slowed, between)


def rotate_(x: Tensor, cosines: Tensor, sines: Tensor) -> None:
    """Rotary positions in place; x and its table end in the width of a head."""
    turned = torch.roll(x, x.shape[-1] // 2, -1)
    x.mul_(cosines).addcmul_(turned, sines)


class Cache:
    """Keys and values: for each layer (rows, 2 x heads, length, head width), keys before values."""

    def __init__(self, shape: Shape, rows: int, length: int, device: str, dtype: torch.dtype) -> None:
        self.shape = shape
        self.rows = rows
        self.length = length
        self.positions = Positions(shape, length, device, dtype)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        size = (rows, 2 * shape.heads, length, shape.head_width)
        self.layers = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.layers)]

    def keep(self, row: int, length: int) -> list[Tensor]:
        """A copy of what a row holds up to `length`, to be given to `put`."""
        return [layer[row, :, :length].clone() for layer in self.layers]

    def put(self, row: int, kept: list[Tensor], length: int | None = None) -> None:
        """Begin a row with the first `length` positions of what was kept."""
        for layer, values in zip(self.layers, kept, strict=True):
            layer[row, :, : values.shape[1] if length is None else length].copy_(values[:, :length])


class Prompt:
    """Attention of several tokens of one row, written behind the `start` positions that it has."""

    def __init__(self, cache: Cache, row: int, start: int, tokens: int, dtype: torch.dtype) -> None:
        shape = cache.shape
        self._cache, self._row, self._start, self._end = cache, row, start, start + tokens
        device = cache.lengths.device
        self.qkv = torch.empty(tokens, 3 * shape.attention_width, dtype=dtype, device=device)
        self._heads = self.qkv.view(tokens, 3 * shape.heads, shape.head_width)
        # token i sees what was there before, itself and the i tokens before it
        self._seen = torch.ones(tokens, self._end, dtype=torch.bool, device=device).tril(start)

    def __call__(self, layer: int) -> Tensor:
        """Attend with what stands in `qkv`; (tokens, heads x head width)."""
        cache, heads = self._cache, self._cache.shape.heads
        if cache.positions.cosines is not None and cache.positions.sines is not None:
            here = slice(self._start, self._end)
            rotate_(
                self._heads[:, : 2 * heads],
                cache.positions.cosines[here, None],
                cache.positions.sines[here, None],
            )
        stored = cache.layers[layer][self._row]
        stored[:, self._start : self._end].copy_(self._heads[:, heads:].transpose(0, 1))
        query = self._heads[:, :heads].transpose(0, 1)
        keys, values = stored[:heads, : self._end], stored[heads:, : self._end]
        out = functional.scaled_dot_product_attention(
            query[None], keys[None], values[None], attn_mask=self._seen
        )
        return out[0].transpose(0, 1).reshape(self.qkv.shape[0], -1)


class Step:
    """Attention of one token of each of the first `rows` rows, on fixed memory of its own."""

    def __init__(self, cache: Cache, rows: int, dtype: torch.dtype) -> None:
        shape, device = cache.shape, cache.lengths.device
        self._cache, self._rows = cache, rows
        self.qkv = torch.zeros(rows, 3 * shape.attention_width, dtype=dtype, device=device)
        heads = self.qkv.view(rows, 3 * shape.heads, 1, shape.head_width)
        self._query, self._rotated = heads[:, : shape.heads], heads[:, : 2 * shape.heads]
        self._new = heads[:, shape.heads :]
        self.lengths = cache.lengths[:rows]
        row_index = torch.arange(rows, device=device).view(rows, 1, 1)
        head_index = torch.arange(2 * shape.heads, device=device).view(1, -1, 1)
        self._target = (row_index, head_index, self.lengths.view(rows, 1, 1))
        self._all_positions = torch.arange(cache.length, device=device)
        self._seen, self._unseen = (torch.tensor(v, dtype=dtype, device=device) for v in (0.0, -torch.inf))
        self._cosines = torch.zeros(rows, shape.head_width, dtype=dtype, device=device)
        self._sines = torch.zeros_like(self._cosines)
        self._of_head = (rows, 1, 1, shape.head_width)
        self._tables = self._cosines.view(self._of_head), self._sines.view(self._of_head)
        self._views: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._mask = self._seen

    def begin(self, bucket: int) -> None:
        """Look at the first `bucket` positions from now on; all rows end before that."""
        positions = self._cache.positions
        if positions.cosines is not None and positions.sines is not None:
            torch.index_select(positions.cosines, 0, self.lengths, out=self._cosines)
            torch.index_select(positions.sines, 0, self.lengths, out=self._sines)
        seen = self._all_positions[:bucket] <= self.lengths[:, None]
        self._mask = torch.where(seen, self._seen, self._unseen)[:, None, None]
        self._bucket = self._views_of(bucket)

    def _views_of(self, bucket: int) -> list[tuple[Tensor, Tensor]]:
        if bucket not in self._views:
            heads, rows = self._cache.shape.heads, self._rows
            self._views[bucket] = [
                (layer[:rows, :heads, :bucket], layer[:rows, heads:, :bucket]) for layer in self._cache.layers
            ]
        return self._views[bucket]

    def __call__(self, layer: int) -> Tensor:
        """Attend with what stands in `qkv`; (rows, heads x head width)."""
        if self._cache.positions.cosines is not None:
            rotate_(self._rotated, *self._tables)
        self._cache.layers[layer].index_put_(self._target, self._new)
        keys, values = self._bucket[layer]
        out = functional.scaled_dot_product_attention(self._query, keys, values, attn_mask=self._mask)
        return out.view(self._rows, -1)
