"""Where chance comes from: one positive number for each slot and token, the least of noise over probability
wins.

With exponential noise e the token with the greatest p / e is a draw from p, which is how
`torch.multinomial` draws one. `Compatible` takes e from a torch generator for each row, in upstream's
order, and so draws what upstream draws for a seed. `Hashed` computes e from (seed, step, token) alone:
nothing to keep, nothing to wait for, no row depends on another, and the numbers are the same on every
device up to the rounding of a logarithm.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor

Mode = Literal["compatible", "fast"]
_WORD = 0xFFFFFFFF


class Noise(Protocol):
    """Exponential noise for all slots."""

    def admit(self, slot: int, seed: int) -> None:
        """A new utterance in a slot."""
        ...

    def release(self, slot: int) -> None:
        """Its utterance is over."""
        ...

    def draw(self, counts: Tensor) -> Tensor:
        """(slots, vocabulary), greater than 0; `counts` (slots,) is how many tokens each has drawn."""
        ...


def noise(mode: Mode, slots: int, vocabulary: int, device: str, steps: int) -> Noise:
    """Make one for up to `steps` tokens of an utterance."""
    if mode == "compatible":
        return Compatible(slots, vocabulary, device)
    return Hashed(slots, vocabulary, device, steps)


class Compatible:
    """A torch generator for each slot."""

    def __init__(self, slots: int, vocabulary: int, device: str) -> None:
        self._device = device
        self._drawn = torch.ones(slots, vocabulary, device=device)
        self._rows = self._drawn.split(1)
        self._generators: dict[int, torch.Generator] = {}

    def admit(self, slot: int, seed: int) -> None:
        """As `Noise` says."""
        self._generators[slot] = torch.Generator(self._device).manual_seed(seed)

    def release(self, slot: int) -> None:
        """As `Noise` says."""
        del self._generators[slot]

    def draw(self, counts: Tensor) -> Tensor:  # noqa: ARG002
        """As `Noise` says; a generator counts for itself."""
        for slot, generator in self._generators.items():
            self._rows[slot].exponential_(generator=generator)
        return self._drawn


def generator_after(seed: int, tokens: int, vocabulary: int, device: str = "cpu") -> torch.Generator:
    """Upstream's generator when so many tokens have been drawn: what comes next is S3Gen's noise."""
    generator = torch.Generator(device).manual_seed(seed)
    row = torch.empty(1, vocabulary, device=device)
    for _ in range(tokens):
        row.exponential_(generator=generator)
    return generator


class Hashed:
    """Chris Wellons' `lowbias32` hash over seed, step and token; 32 bits for each number."""

    def __init__(self, slots: int, vocabulary: int, device: str, steps: int) -> None:
        self._steps = torch.arange(steps, device=device)
        self._keys = torch.zeros(slots, steps, 1, dtype=torch.int64, device=device)
        self._factors = torch.zeros_like(self._keys)
        self._tokens = _hash(torch.arange(vocabulary, device=device))
        self._slots = torch.arange(slots, device=device)

    def admit(self, slot: int, seed: int) -> None:
        """The keys of all its steps at once."""
        start = _hash(_hash(self._steps[:1] * 0 + ((seed & _WORD) ^ 0x9E3779B9)) ^ (seed >> 32 & _WORD))
        keys = _hash(start + self._steps & _WORD)
        self._keys[slot, :, 0] = keys
        # two keys, so that two steps do not see the same numbers in another order
        self._factors[slot, :, 0] = _hash(keys) | 1

    def release(self, slot: int) -> None:
        """Nothing is held."""

    def draw(self, counts: Tensor) -> Tensor:
        """As `Noise` says."""
        here = (self._slots, counts)
        mixed = _hash((self._tokens ^ self._keys[here]) * self._factors[here] & _WORD)
        return (mixed.float() + 0.5).mul_(-(2.0**-32)).log1p_().neg_()


def _hash(x: Tensor) -> Tensor:
    """32 bits to 32 bits; int64 in and out, for torch has no unsigned arithmetic."""
    x = ((x >> 16) ^ x) * 0x7FEB352D & _WORD
    x = ((x >> 15) ^ x) * 0x846CA68B & _WORD
    return (x >> 16) ^ x
