"""One loaded model that speaks: seeded, guarded, and as if nobody had used it before.

Knows what the package does to its own state, and undoes it. Invariants: the same text, voice, settings and
seed give the same samples whatever was spoken before; what comes out is finite, audible and whole, or a
SynthesisError says what it was not.
"""

import gc
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.chatterbox import models
from pipeline.chatterbox.measured import Measured
from pipeline.chatterbox.models import MULTILINGUAL, Family, Loaded
from pipeline.chatterbox.package import LOCK, quiet
from pipeline.equipment import Equipment
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Samples

RATE_HZ = 24_000
TOKENS_PER_SECOND = 25
MAX_TOKENS = 1000
"40 s: beyond them the package stops in the middle of a word and says nothing"
LEAST_TOKENS = 6
"a fifth of a second holds no word"
SPEECH_TOKENS = 6561
"numbers from here on are signs, not sound"
STOP_TOKEN = 6562
LEAST_PEAK = 1e-3
LEAST_TEXT_TOKENS = 8
"the multilingual model's alignment check looks at the last five and needs some before them (issue 548)"


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one text."""

    samples: Samples
    "float32 at 24 kHz, finite and within full scale"
    fault: str | None = None
    "why it cannot be right"


class Speaker:
    """A model on its device, with the voices that it knows."""

    def __init__(self, family: Family, equipment: Equipment) -> None:
        with LOCK:
            self._loaded: Loaded | None = models.load(family, equipment)
            self.version = self._loaded.version
            self.watermark = self._loaded.watermark
            self.folder = self._loaded.folder
            self._measured: Measured | None = Measured(self._loaded, equipment.measured)
            self._fault: str | None = None
            self._guard()

    def speak(
        self,
        text: str,
        *,
        clip: Path | None,
        clip_sha256: str | None,
        exaggeration: float,
        seed: int,
        settings: Mapping[str, Any],
    ) -> Said:
        """Say `text` with the voice of `clip`, or the checkpoint's own.

        `settings` are what the model's `generate` is called with. Raises InputError for the clip,
        SynthesisError (no_speech, out_of_memory, synthesis) where there is no sound.
        """
        with LOCK, quiet():
            model = self._model()
            try:
                return self._with_room(
                    lambda: self._attempt(model, text, clip, clip_sha256, exaggeration, seed, settings)
                )
            finally:
                model.conds = None

    def close(self) -> None:
        """Free the model and what was measured."""
        with LOCK:
            self._loaded = None
            self._measured = None
            _free_memory()

    def _model(self) -> Any:
        assert self._loaded is not None, "spoken to after close"
        return self._loaded.model

    def _voices(self) -> Measured:
        assert self._measured is not None, "spoken to after close"
        return self._measured

    def _attempt(
        self,
        model: Any,
        text: str,
        clip: Path | None,
        clip_sha256: str | None,
        exaggeration: float,
        seed: int,
        settings: Mapping[str, Any],
    ) -> Said:
        import torch

        self._fault = None
        model.conds = self._voices().voice(clip, clip_sha256, exaggeration)
        # Without inference_mode the watermarker keeps half a gigabyte of gradients a call.
        with seeded(seed), _state_restored(model.t3), torch.inference_mode():
            spoken = model.generate(text, **settings)
        samples: Samples = np.ascontiguousarray(spoken.squeeze(0).numpy(), dtype=np.float32)
        return Said(_usable(samples, text), self._fault)

    def _with_room(self, attempt: Callable[[], Said]) -> Said:
        """Once more with everything freed where memory ran out; then it is told."""
        try:
            return _translated(attempt)
        except _OutOfMemory:
            self._voices().drop()
            _free_memory()
        try:
            return _translated(attempt)
        except _OutOfMemory as error:
            raise SynthesisError(
                "The device ran out of memory twice, the second time with nothing else kept on it.",
                hint="Make chunks.max_chars smaller, or free memory on the device.",
                code="out_of_memory",
            ) from error

    def _guard(self) -> None:
        """Look at the speech tokens before sound is made of them."""
        model = self._model()
        t3 = model.t3
        turbo = t3.is_gpt
        name, limit = ("inference_turbo", "max_gen_len") if turbo else ("inference", "max_new_tokens")
        original = getattr(t3, name)
        family = self._loaded.family if self._loaded else None

        def watched(*arguments: Any, **named: Any) -> Any:
            named[limit] = MAX_TOKENS
            if family is not None and family.name == MULTILINGUAL.name:
                named["text_tokens"] = _lengthened(model, named["text_tokens"])
            tokens = original(*arguments, **named)
            spoken = _without_signs(tokens)
            self._fault = _fault_of(tokens, spoken, turbo=turbo)
            return spoken

        setattr(t3, name, watched)


class _OutOfMemory(Exception):
    """Ours for what torch calls by several names."""


def _translated(attempt: Callable[[], Said]) -> Said:
    """What the package raises, as one of our errors."""
    import torch

    try:
        return attempt()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _OutOfMemory from error
    except (RuntimeError, ValueError, IndexError, AssertionError, UnicodeError) as error:
        if any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise _OutOfMemory from error
        first_line = (str(error) or "no reason given").splitlines()[0]
        raise SynthesisError(f"The model failed: {type(error).__name__}: {first_line}") from error


def _without_signs(tokens: Any) -> Any:
    """Shape (1, n): only what has a sound.

    The multilingual class passes signs on to S3Gen, which fails on them.
    """
    spoken = tokens[:, tokens[0] < SPEECH_TOKENS]
    if not spoken.shape[1]:
        raise SynthesisError("The model ended before it had said anything.", code="no_speech")
    return spoken


def _fault_of(tokens: Any, spoken: Any, *, turbo: bool) -> str | None:
    """Why a take of these tokens cannot be right: cut off at the ceiling, or over at once.

    Turbo leaves out the stop token and makes one token more than it is allowed; the others return it.
    """
    stopped = tokens.shape[1] <= MAX_TOKENS if turbo else bool((tokens == STOP_TOKEN).any())
    if not stopped:
        return (
            f"the model was still speaking after {MAX_TOKENS / TOKENS_PER_SECOND:.0f} s, where it is cut off"
        )
    if spoken.shape[1] < LEAST_TOKENS:
        return f"the model ended after {spoken.shape[1] / TOKENS_PER_SECOND:.2f} s, too soon for any word"
    return None


def _lengthened(model: Any, text_tokens: Any) -> Any:
    """`text_tokens`, shape (2, n), with spaces before the stop token of a very short text."""
    import torch

    lacking = LEAST_TEXT_TOKENS - text_tokens.size(1)
    if lacking <= 0:
        return text_tokens
    space = model.tokenizer.tokenizer.token_to_id("[SPACE]")
    spaces = torch.full((text_tokens.size(0), lacking), space).to(text_tokens)
    return torch.cat([text_tokens[:, :-1], spaces, text_tokens[:, -1:]], dim=1)


def _usable(samples: Samples, text: str) -> Samples:
    if not np.isfinite(samples).all():
        raise SynthesisError(f"The model made no sound of {text[:60]!r}, but values that are not numbers.")
    if float(np.abs(samples).max(initial=0.0)) < LEAST_PEAK:
        raise SynthesisError(f"The model was silent over {text[:60]!r}.", code="no_speech")
    clipped: Samples = np.clip(samples, -1.0, 1.0)
    return clipped


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All randomness from `seed` on, and Python's and numpy's as they were afterwards.

    torch's is left: nobody else here draws from it.
    """
    import torch

    python, numeric = random.getstate(), np.random.get_state()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numeric)


@contextmanager
def _state_restored(t3: Any) -> Iterator[None]:
    """Undo what a call leaves on T3: in 0.1.7 hooks pile up, and slow attention stays on (issue 504)."""
    configuration = t3.tfmr.config
    before = {
        name: getattr(configuration, name)
        for name in ("output_attentions", "_attn_implementation")
        if hasattr(configuration, name)
    }
    hooks = {module: set(module._forward_hooks) for module in t3.tfmr.modules()}
    try:
        yield
    finally:
        for module, known in hooks.items():
            for number in set(module._forward_hooks) - known:
                del module._forward_hooks[number]
        for name, value in before.items():
            setattr(configuration, name, value)
        t3.patched_model = None  # holds the check of this call, with everything that it looked at
        t3.compiled = False


def _free_memory() -> None:
    """Give back what torch keeps for later."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
