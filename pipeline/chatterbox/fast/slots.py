"""Speech tokens for many utterances at once: a slot for each, and the next utterance into every slot that
falls free.

Takes the package's T3 (English, multilingual, Turbo or Nano) with upstream's weights and gives upstream's
tokens. In the `compatible` mode they are those of `T3.inference` and `T3.inference_turbo` for the same
seed. Not upstream's: the multilingual T3 of chatterbox-tts 0.1.7 watches its attention and forces or
forbids the end (AlignmentStreamAnalyzer); that is left out here, as later versions of the package have left
it out. Knows tokens, and neither text nor sound.

Invariant: between two polls nothing waits for the device, so a step is a fixed list of operations on fixed
memory.
"""

import functools
from collections.abc import Generator, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.alive import Alive, unheeded
from pipeline.chatterbox.fast.attention import BUCKET, Cache, Prompt, Step
from pipeline.chatterbox.fast.backbone import Backbone
from pipeline.chatterbox.fast.conditioning import condition
from pipeline.chatterbox.fast.dense import Kernel, best_kernel
from pipeline.chatterbox.fast.noise import Mode, noise
from pipeline.chatterbox.fast.replay import Replay
from pipeline.chatterbox.fast.sampling import Sampler, Settings
from pipeline.chatterbox.fast.shape import shape_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A voice as T3 begins with it: keys and values, computed once for all its utterances."""

    kept: list[Tensor]
    "for each layer (2 x heads, positions, head width)"
    unguided: list[Tensor]
    "the same with the positions of a text behind it, for the unconditional row; empty without guidance"
    length: int
    "positions of the voice itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One utterance to be spoken."""

    key: Hashable
    "comes back with the tokens"
    text_tokens: Tensor
    "(tokens,), with upstream's start and end where the model has them"
    voice: Prefix
    "from `SlotEngine.prepare`"
    settings: Settings
    seed: int
    cap: int = 1000
    "the greatest number of speech tokens, the end among them; 25 are a second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One utterance spoken."""

    key: Hashable
    tokens: Tensor
    "(tokens,) int64 on the CPU, without the end; ids from 6561 on are upstream's to drop"
    capped: bool
    "it never came to an end: a failure, to be tried with another seed"


@dataclass(slots=True)
class _Taken:
    request: Request
    started_at: int
    "positions filled before its first token"
    steps: int = 0
    "that it has been through, whether it was still speaking or not"


class SlotEngine:
    """As many utterances at a time as it has slots."""

    def __init__(
        self,
        t3: Any,
        *,
        slots: int,
        max_length: int,
        mode: Mode = "fast",
        dtype: torch.dtype = torch.float32,
        kernel: Kernel | None = None,
        poll_every: int | None = None,
    ) -> None:
        """Build from the package's `T3`, which is left as it is.

        `max_length` is the room of a slot in positions: voice, text, BOS and speech. `poll_every` is how many
        steps pass before the device is asked who has finished: 8, but 1 on a processor, where asking costs
        nothing.
        """
        self.shape = shape_of(t3)
        device = str(t3.device)
        state = t3.state_dict()
        on_cpu = t3.device.type == "cpu"
        self._poll_every = poll_every or (1 if on_cpu else 8)
        self._slots, self._max_length, self._device, self._dtype = slots, max_length, device, dtype
        with torch.inference_mode():
            self._conditioning = {k: v for k, v in state.items() if k.startswith(("cond_enc.", "speech_"))}
            self._backbone = Backbone(
                state, self.shape, dtype=dtype, kernel=kernel or best_kernel(t3.device.type, dtype)
            )
            self._embed(state)
            self._build(mode)

    def _embed(self, state: dict[str, Tensor]) -> None:
        """Embedding tables and the head, in fp32 whatever the rest is in."""
        self._text, self._speech = state["text_emb.weight"].float(), state["speech_emb.weight"].float()
        self._head = state["speech_head.weight"].float().t()
        self._head_bias = state.get("speech_head.bias")
        self._text_positions: Tensor | None = None
        self._speech_positions: Tensor | None = None
        if self.shape.learned_positions:
            self._text_positions = state["text_pos_emb.emb.weight"].float()
            self._speech_positions = state["speech_pos_emb.emb.weight"].float()
        self._absolute = None if self.shape.llama else state["tfmr.wpe.weight"].float()

    def _build(self, mode: Mode) -> None:
        shape, slots, device = self.shape, self._slots, self._device
        rows = 2 * slots if shape.llama else slots
        self._cache = Cache(shape, rows, self._max_length, device, self._dtype)
        self._scratch = Cache(shape, 1, self._max_length, device, self._dtype)
        "for voices while they are prepared"
        self._steps = {count: Step(self._cache, count, self._dtype) for count in {rows, slots}}
        self._sampler = Sampler(shape, slots, device)
        self._noise = noise(mode, slots, shape.speech_vocabulary, device, self._max_length + 1)
        self._hidden = torch.zeros(rows, shape.width, device=device)
        self._tokens = torch.zeros(slots, self._max_length + 1, dtype=torch.int64, device=device)
        self._counts = torch.zeros(slots, dtype=torch.int64, device=device)
        self._caps = torch.zeros(slots, dtype=torch.int64, device=device)
        self._alive = torch.zeros(slots, dtype=torch.bool, device=device)
        self._slot_index = torch.arange(slots, device=device)
        self._taken: dict[int, _Taken] = {}
        # torch's generators count on the host, which no graph would repeat
        self._replay = Replay(device if mode == "fast" else "cpu")

    # Voices

    def prepare(self, conditioning: Any, *, longest_text: int = 256) -> Prefix:
        """Run a voice (upstream's `T3Cond`) once; texts up to `longest_text` tokens need nothing more of it.

        The unconditional row does not see the text, only how long it is: so its keys for a short text are the
        beginning of those for a long one.
        """
        with torch.inference_mode():
            voice = condition(self._conditioning, self.shape, conditioning)
            length = len(voice)
            self._read(self._scratch, 0, 0, voice)
            kept = self._scratch.keep(0, length)
            unguided: list[Tensor] = []
            if self._text_positions is not None:
                texts = min(longest_text, len(self._text_positions), self._max_length - length)
                self._read(self._scratch, 0, length, self._text_positions[:texts])
                unguided = self._scratch.keep(0, length + texts)
            return Prefix(kept=kept, unguided=unguided, length=length)

    def _read(self, cache: Cache, row: int, start: int, embedded: Tensor) -> Tensor:
        """Take tokens (tokens, width) into a row; the last one's output (1, width)."""
        tokens = len(embedded)
        hidden = embedded.clone()
        if self._absolute is not None:
            hidden += self._absolute[start : start + tokens]
        attend = Prompt(cache, row, start, tokens, self._dtype)
        return self._backbone(hidden, attend)[-1:]

    # Utterances

    def run(self, requests: Iterable[Request], alive: Alive = unheeded) -> Generator[Done, None, None]:
        """Speak all, as they finish. A request is taken when a slot is free for it, not before.

        `alive` is called after each poll; what it raises passes, and frees the slots.
        """
        waiting = iter(requests)
        self._taken.clear()
        more = True
        try:
            while True:
                with torch.inference_mode():
                    while more and len(self._taken) < self._slots:
                        request = next(waiting, None)
                        more = request is not None
                        if request is not None:
                            self._admit(request)
                    if not self._taken:
                        return
                    self._burst(self._poll_every)
                    finished = self._finished()
                yield from finished
                alive()
        finally:
            for slot in tuple(self._taken):
                self._release(slot)

    def _admit(self, request: Request) -> None:
        self._check(request)
        slot = next(s for s in range(self._slots) if s not in self._taken)
        voice, text = request.voice, self._text_of(request)
        first = self._first()
        length = voice.length + len(text) + len(first)
        self._cache.put(slot, voice.kept)
        self._logits(slot, self._read(self._cache, slot, voice.length, torch.cat((text, first))))
        if self.shape.llama:
            if request.settings.cfg_weight > 0:
                self._admit_unguided(self._slots + slot, voice, len(text), first)
            self._cache.lengths[self._slots + slot] = length
        self._cache.lengths[slot] = length
        self._counts[slot], self._caps[slot], self._alive[slot] = 0, request.cap, True
        self._sampler.admit(slot, request.settings)
        self._noise.admit(slot, request.seed)
        self._taken[slot] = _Taken(request, started_at=length)

    def _check(self, request: Request) -> None:
        needed = request.voice.length + len(request.text_tokens) + self.shape.first_tokens + request.cap
        if needed > self._max_length:
            raise ValueError(
                f"This utterance needs room for {needed} positions ({request.voice.length} voice, "
                f"{len(request.text_tokens)} text, {request.cap} speech at most), and a slot has "
                f"{self._max_length}."
            )
        if request.cap < 1:
            raise ValueError(
                f"An utterance may have {request.cap} tokens at most, and must be allowed one at least."
            )
        positions = self._text_positions
        if positions is not None and len(request.text_tokens) > len(positions):
            raise ValueError(
                f"This text has {len(request.text_tokens)} tokens, and the model takes {len(positions)}."
            )

    def _text_of(self, request: Request) -> Tensor:
        text = self._text[request.text_tokens.to(self._device)]
        return text if self._text_positions is None else text + self._text_positions[: len(text)]

    def _first(self) -> Tensor:
        """BOS, (1 or 2, width): upstream feeds it twice where it guides, both at speech position 0."""
        start = self._speech[self.shape.start_speech]
        if self._speech_positions is not None:
            start = start + self._speech_positions[0]
        return start.expand(self.shape.first_tokens, -1)

    def _admit_unguided(self, row: int, voice: Prefix, text: int, first: Tensor) -> None:
        """The unconditional row: text positions without text, of which the voice has the first."""
        known = voice.unguided[0].shape[1] - voice.length
        have = min(known, text)
        self._cache.put(row, voice.unguided, voice.length + have)
        assert self._text_positions is not None
        rest = torch.cat((self._text_positions[have:text], first))
        self._logits(row, self._read(self._cache, row, voice.length + have, rest))

    def _logits(self, row: int, hidden: Tensor) -> None:
        out = self._sampler.logits[row : row + 1]
        self._project(hidden, out)

    def _project(self, hidden: Tensor, out: Tensor) -> None:
        if self._head_bias is None:
            torch.mm(hidden, self._head, out=out)
        else:
            torch.addmm(self._head_bias, hidden, self._head, out=out)

    # Steps

    def _burst(self, steps: int) -> None:
        """Some tokens for every slot, without asking the device anything."""
        among = [taken.request.settings for taken in self._taken.values()]
        self._sampler.begin(among)
        rows = self._slots
        if self.shape.llama and any(settings.cfg_weight > 0 for settings in among):
            rows = 2 * self._slots
        step = self._steps[rows]
        for _ in range(steps):
            bucket = self._bucket()
            self._replay(
                (rows, bucket, self._sampler.plan), functools.partial(self._advance, step, rows, bucket)
            )
            for taken in self._taken.values():
                taken.steps += 1

    def _bucket(self) -> int:
        """Positions that hold every row's next token, known without asking: a row grows by one a step."""
        longest = max(
            taken.started_at + min(taken.steps, taken.request.cap) for taken in self._taken.values()
        )
        return min(-(-(longest + 1) // BUCKET) * BUCKET, self._max_length)

    def _advance(self, step: Step, rows: int, bucket: int) -> None:
        """One token for every slot: fixed shapes, fixed memory, no question to the device."""
        scores = self._sampler.scores()
        tokens = torch.softmax(scores, -1).div_(self._noise.draw(self._counts)).argmax(-1)
        self._sampler.record(tokens, self._counts)
        self._tokens.index_put_((self._slot_index, self._counts), tokens)
        grows = self._alive.long()
        self._counts.add_(grows)
        self._alive.logical_and_(tokens != self.shape.stop_speech).logical_and_(self._counts < self._caps)
        hidden = self._hidden[:rows]
        self._embed_tokens(tokens, hidden)
        step.begin(bucket)
        self._project(self._backbone(hidden, step), self._sampler.logits[:rows])
        self._grow(step.lengths)

    def _embed_tokens(self, tokens: Tensor, hidden: Tensor) -> None:
        """The new tokens as hidden values, for both rows of a slot."""
        guided = hidden[: self._slots]
        torch.index_select(self._speech, 0, tokens, out=guided)
        if self._speech_positions is not None:
            guided.add_(self._speech_positions[self._counts])
        if self._absolute is not None:
            guided.add_(self._absolute[self._cache.lengths])
        if len(hidden) > self._slots:
            hidden[self._slots :].copy_(guided)

    def _grow(self, lengths: Tensor) -> None:
        lengths.view(-1, self._slots).add_(self._alive)

    def _finished(self) -> list[Done]:
        """Ask the device who has finished: the one place where it is waited for."""
        alive, counts = torch.stack((self._alive.long(), self._counts)).tolist()
        over = [slot for slot in self._taken if not alive[slot]]
        return [self._done(slot, int(counts[slot])) for slot in sorted(over)]

    def _done(self, slot: int, count: int) -> Done:
        tokens = self._tokens[slot, :count].to("cpu", copy=True)  # the next in this slot writes over it
        ended = bool(tokens[-1] == self.shape.stop_speech)
        request = self._release(slot)
        return Done(key=request.key, tokens=tokens[:-1] if ended else tokens, capped=not ended)

    def _release(self, slot: int) -> Request:
        with torch.inference_mode():
            self._noise.release(slot)
            self._alive[slot] = False
        return self._taken.pop(slot).request
