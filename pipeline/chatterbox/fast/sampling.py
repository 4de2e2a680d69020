"""From logits to the next token of every row, each row with settings of its own; upstream's order of
processors.

English and multilingual: guidance, repetition penalty, temperature, min_p, top_p. Turbo and Nano:
temperature, top_k, top_p, repetition penalty (after the filters). Knows logits and nothing of where they
come from. Invariant: nothing here waits for the device, and no row's token depends on another row.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.chatterbox.fast.shape import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one utterance; the defaults are upstream's for English. What a model has not, it ignores."""

    temperature: float = 0.8
    cfg_weight: float = 0.5
    "0: no guidance, and half the work where nobody beside it wants any (upstream's `generate` fails)"
    min_p: float = 0.05
    top_p: float = 1.0
    top_k: int = 0
    "0: all; Turbo and Nano: 1000"
    repetition_penalty: float = 1.2

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be greater than 0.")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}; it must be greater than 0.")
        if not (0 <= self.min_p <= 1 and 0 <= self.top_p <= 1):
            raise ValueError(
                f"min_p is {self.min_p} and top_p is {self.top_p}; both must be between 0 and 1."
            )
        if self.cfg_weight < 0 or self.top_k < 0:
            raise ValueError(
                f"cfg_weight is {self.cfg_weight} and top_k is {self.top_k}; neither may be below 0."
            )


TURBO = Settings(top_p=0.95, top_k=1000)
"upstream's defaults for Turbo and Nano"


class Sampler:
    """Settings, penalties and logits of all slots."""

    def __init__(self, shape: Shape, slots: int, device: str) -> None:
        self._shape = shape
        rows = 2 * slots if shape.llama else slots
        self.logits = torch.zeros(rows, shape.speech_vocabulary, device=device)
        "of the next token; rows from `slots` on are the unconditional ones"
        self._slots = slots
        self._guided, self._unguided = self.logits[:slots], self.logits[slots:]
        self._seen = torch.zeros(slots, shape.speech_vocabulary, dtype=torch.bool, device=device)
        self._seen_start = self._seen[:, shape.start_speech : shape.start_speech + 1]
        names = ("temperature", "cfg_weight", "min_p", "removed", "repetition_penalty")
        self._values = {name: torch.ones(slots, 1, device=device) for name in names}
        self._ranks = torch.arange(shape.speech_vocabulary, device=device)
        self._top_k = torch.full((slots, 1), shape.speech_vocabulary, device=device)
        self._slot_index = torch.arange(slots, device=device)
        self._yes = torch.tensor(True, device=device)
        self._widest: int | None = None

    def admit(self, slot: int, settings: Settings) -> None:
        """A new utterance in a slot."""
        for name in ("temperature", "cfg_weight", "min_p", "repetition_penalty"):
            self._values[name][slot] = getattr(settings, name)
        self._values["removed"][slot] = 1 - settings.top_p
        self._top_k[slot] = self._top_k_of(settings)
        self._seen[slot] = False
        self._seen[slot, self._shape.start_speech] = True

    def begin(self, among: Iterable[Settings]) -> None:
        """Whose turn it is from now on: what nobody wants is left out."""
        among = tuple(among)
        self._wants_guidance = self._shape.llama and any(s.cfg_weight > 0 for s in among)
        every = self._shape.speech_vocabulary
        widest = max(self._top_k_of(s) for s in among)
        self._widest = widest if widest < every or any(s.top_p < 1 for s in among) else None

    @property
    def plan(self) -> tuple[bool, int | None]:
        """What tells the operations of one turn from those of another."""
        return self._wants_guidance, self._widest

    def _top_k_of(self, settings: Settings) -> int:
        every = self._shape.speech_vocabulary
        return every if self._shape.llama else min(settings.top_k or every, every)

    def scores(self) -> Tensor:
        """Logits (slots, vocabulary) after all processors, -inf for what was filtered out."""
        if not self._shape.llama:
            return self._penalise(self._nucleus(self._guided / self._values["temperature"]))
        logits = self._guided
        if self._wants_guidance:
            logits = logits + self._values["cfg_weight"] * (logits - self._unguided)
        return self._nucleus(self._drop_unlikely(self._penalise(logits) / self._values["temperature"]))

    def record(self, tokens: Tensor, counts: Tensor) -> None:
        """Remember the new tokens (slots,), of which `counts` came before."""
        if not self._shape.llama:  # upstream penalises BOS before the first token only
            self._seen_start.logical_and_((counts > 0)[:, None])
        self._seen.index_put_((self._slot_index, tokens), self._yes)

    def _penalise(self, scores: Tensor) -> Tensor:
        penalty = self._values["repetition_penalty"]
        weaker = torch.where(scores < 0, scores * penalty, scores / penalty)
        return torch.where(self._seen, weaker, scores)

    def _drop_unlikely(self, scores: Tensor) -> Tensor:
        """min_p: nothing whose probability is below that share of the greatest."""
        probabilities = torch.softmax(scores, -1)
        least = self._values["min_p"] * probabilities.amax(-1, keepdim=True)
        return scores.masked_fill_(probabilities < least, -torch.inf)

    def _nucleus(self, scores: Tensor) -> Tensor:
        """top_k, then top_p: the smallest set of tokens that holds so much probability, never empty."""
        if self._widest is None:
            return scores
        best = torch.topk(scores, self._widest).values
        best = best.masked_fill(self._ranks[: self._widest] >= self._top_k, -torch.inf)
        rising = best.flip(-1)
        # the least likely tokens go that together hold no more than 1 - top_p (upstream's TopPLogitsWarper)
        gone = torch.softmax(rising, -1).cumsum(-1) <= self._values["removed"]
        gone.logical_or_(rising == -torch.inf)
        least = rising.masked_fill_(gone, torch.inf).amin(-1, keepdim=True)
        least = torch.minimum(least, best[:, :1])
        return scores.masked_fill_(scores < least, -torch.inf)
