"""Many utterances at once through one loaded model: their speech tokens in slots, then their sound.

The package is asked what it would ask its T3 for, the slots (`fast.slots`) make those tokens, and `decoding`
gives them their sound. So nothing that the package does to a text is done again here. Knows a loaded model
and no jobs. Invariants: what comes of an utterance depends on it alone, whoever is spoken
beside it; in the mode `exact` it is what the package itself says for the same seed, token by token.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loguru import logger

from pipeline.alive import Alive, unheeded
from pipeline.chatterbox.decoding import Decoder, Spelt
from pipeline.chatterbox.device import free_bytes
from pipeline.chatterbox.fast.dense import Kernel
from pipeline.chatterbox.fast.sampling import Settings
from pipeline.chatterbox.fast.shape import Shape, shape_of
from pipeline.chatterbox.fast.slots import Done, Prefix, Request, SlotEngine
from pipeline.chatterbox.package import LOCK, quiet
from pipeline.chatterbox.speaker import (
    LEAST_GUIDANCE,
    MAX_TOKENS,
    Asked,
    Outcome,
    OutOfMemory,
    Speaker,
    free_memory,
    no_room,
    translated,
)
from pipeline.errors import SynthesisError

LONGEST_TEXT_TOKENS = 512
"of one utterance: 40 s of speech hold no more"
MOST_SLOTS = {"cpu": 8, "mps": 8}
MOST_SLOTS_ON_GPU = 64
"from here on a step reads more of keys and values than of weights"
ROUNDS_ON_GPU = 4
"so many times its slots a GPU is given at once: a slot that falls free is filled again"
SHARE_OF_FREE_MEMORY = 0.5
"the rest is for making the sound"
VOICES_KEPT = 4


class Batched:
    """The slots of one `Speaker`; there are half of them from then on where memory runs out."""

    def __init__(self, speaker: Speaker, mode: str, *, int8: bool = False) -> None:
        """`mode`: exact or fast. `int8`: the weights of products are rounded to eight bits."""
        self._speaker, self._mode = speaker, mode
        self._kernel: Kernel | None = "int8" if int8 else None
        self._shape = shape_of(speaker.t3)
        self._on_gpu = speaker.device.startswith("cuda")
        voice = speaker.t3.hp.speech_cond_prompt_len + 2
        self._length = voice + LONGEST_TEXT_TOKENS + self._shape.first_tokens + self._cap
        self._engine: SlotEngine | None = None
        self._voices: OrderedDict[tuple[str, float], Prefix] = OrderedDict()
        self.slots = self._slots_that_fit()
        self._decoder = Decoder(speaker, mode, self._kernel)

    @property
    def at_once(self) -> int:
        """How many utterances are best given at once."""
        return self.slots * (ROUNDS_ON_GPU if self._on_gpu else 1)

    def speak_all(self, asked: Sequence[Asked], alive: Alive = unheeded) -> Iterator[Outcome]:
        """Say all; each comes when it is done. InputError for a clip that is of no use.

        `alive` is called every few tokens and with every step of the flow; what it raises gives up the rest.
        """
        requests: dict[int, Request] = {}
        for index, one in enumerate(asked):
            try:
                requests[index] = self._request_that_fits(index, one)
            except SynthesisError as error:
                yield Outcome(index, error)
        spelt: list[Spelt] = []
        while requests:
            try:
                for done in self._tokens(list(requests.values()), alive):
                    index = int(str(done.key))
                    del requests[index]
                    spelt.append(self._spelt(index, asked[index], done))
                    if self._decoder.has_enough(spelt):
                        yield from self._decoder.sound_all(spelt, alive)
                        spelt.clear()
            except OutOfMemory:
                if not self._halve():
                    yield from _given_up(requests)
                    break
        yield from self._decoder.sound_all(spelt, alive)

    def close(self) -> None:
        """Free slots and voices."""
        self._voices.clear()
        self._engine = None

    @property
    def _cap(self) -> int:
        """Tokens of an utterance, the end among them; Turbo makes one more than it is allowed."""
        return MAX_TOKENS if self._shape.llama else MAX_TOKENS + 1

    def _request_that_fits(self, index: int, asked: Asked) -> Request:
        """Also where there is no memory left to measure a voice in; SynthesisError if nothing helps."""
        while True:
            try:
                return self._request(index, asked)
            except OutOfMemory:
                if not self._halve():
                    raise no_room("with a single utterance on it") from None

    def _request(self, index: int, asked: Asked) -> Request:
        voice, wanted = self._speaker.tokens_wanted(asked)
        tokens = wanted["text_tokens"][0]
        if len(tokens) > LONGEST_TEXT_TOKENS:
            raise SynthesisError(
                f"{asked.text[:60]!r} and what follows are {len(tokens)} tokens; an utterance may have"
                f" {LONGEST_TEXT_TOKENS}.",
                hint="Make chunks.max_chars smaller.",
                code="length_limit",
            )
        return Request(
            key=index,
            text_tokens=tokens,
            voice=self._prefix((asked.clip_sha256 or "", asked.exaggeration), voice),
            settings=_settings(wanted, self._shape),
            seed=asked.seed,
            cap=self._cap,
        )

    def _prefix(self, key: tuple[str, float], voice: Any) -> Prefix:
        """The voice as T3 begins with it, computed once."""
        if key not in self._voices:
            with LOCK, quiet():
                self._voices[key] = translated(lambda: self._slot_engine().prepare(voice))
        self._voices.move_to_end(key)
        while len(self._voices) > VOICES_KEPT:
            self._voices.popitem(last=False)
        return self._voices[key]

    def _tokens(self, requests: Sequence[Request], alive: Alive = unheeded) -> Iterator[Done]:
        """One after the other as they are done; the lock is held while the device works, and not between."""
        with contextlib.closing(self._slot_engine().run(requests, alive)) as running:
            while True:
                with LOCK, quiet():
                    done = translated(lambda: next(running, None))
                if done is None:
                    return
                yield done

    def _slot_engine(self) -> SlotEngine:
        if self._engine is None:
            self._engine = SlotEngine(
                self._speaker.t3,
                slots=self.slots,
                max_length=self._length,
                mode="compatible" if self._mode == "exact" else "fast",
                dtype=self._precision(),
                kernel=self._kernel,
            )
        return self._engine

    def _precision(self) -> Any:
        """Half of it only where that was asked for and the device computes in it."""
        import torch

        half = self._mode == "fast" and self._on_gpu and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if half else torch.float32

    def _slots_that_fit(self) -> int:
        """Beside the slots' own copy of the weights."""
        most = MOST_SLOTS.get(self._speaker.device, MOST_SLOTS_ON_GPU)
        free = free_bytes(self._speaker.device)
        if free is None:
            return most
        width = self._precision().itemsize
        own = sum(weight.numel() for weight in self._speaker.t3.tfmr.parameters()) * width
        each = self._shape.cache_bytes(self._length, width)
        return max(1, min(most, int(SHARE_OF_FREE_MEMORY * max(0, free - own)) // each))

    def _halve(self) -> bool:
        """Fewer slots; False if there is but one. The voices stay: they fit slots of any number."""
        self._engine = None
        free_memory()
        if self.slots == 1:
            return False
        self.slots //= 2
        logger.warning(
            "{} ran out of memory: {} utterances at a time from now on", self._speaker.device, self.slots
        )
        return True

    def _spelt(self, index: int, asked: Asked, done: Done) -> Spelt:
        return Spelt(
            index=index,
            asked=asked,
            tokens=_as_upstream(done, self._shape).to(self._speaker.device),
            draws=len(done.tokens) + (not done.capped),
        )


def _given_up(requests: Mapping[int, Request]) -> Iterator[Outcome]:
    for index in requests:
        yield Outcome(index, no_room("with a single utterance on it"))


def _as_upstream(done: Done, shape: Shape) -> Any:
    """Shape (1, n), as T3 returns them: English and multilingual with the end, Turbo without."""
    import torch

    ended = shape.llama and not done.capped
    end = torch.full((int(ended),), shape.stop_speech, dtype=done.tokens.dtype)
    return torch.cat((done.tokens, end))[None]


def _settings(wanted: Mapping[str, Any], shape: Shape) -> Settings:
    """What the package asks T3 for, as the slots have it."""
    known = {name: wanted[name] for name in Settings.__dataclass_fields__ if name in wanted}
    if not shape.llama or known["cfg_weight"] <= LEAST_GUIDANCE:
        known["cfg_weight"] = 0.0
    return Settings(**known)
