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
from typing import Any, Self, TypeVar

import numpy as np

from pipeline.chatterbox import models
from pipeline.chatterbox.measured import Measured
from pipeline.chatterbox.models import MULTILINGUAL, Family, Loaded
from pipeline.chatterbox.package import LOCK, quiet
from pipeline.equipment import Equipment
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Samples

T = TypeVar("T")
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
LEAST_GUIDANCE = 0.0001
"""A `cfg_weight` of 0 is spoken with this: without guidance the English class makes one sequence where it
reckons with two, and fails. As little changes no token; slots take it for none, at half the work."""
LEAST_TEXT_TOKENS = 8
"the multilingual model's alignment check looks at the last five and needs some before them (issue 548)"


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one text."""

    samples: Samples
    "float32 at 24 kHz, finite and within full scale"
    fault: str | None = None
    "why it cannot be right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One text to be said."""

    text: str
    clip: Path | None
    "None: the checkpoint's own voice"
    clip_sha256: str | None
    exaggeration: float
    seed: int
    settings: Mapping[str, Any]
    "what the model's `generate` is called with beside the text"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one of several texts."""

    index: int
    said: Said | SynthesisError


Source = Callable[..., Any]
"""Stands for T3, called as `T3.inference` (Turbo: `inference_turbo`), or for S3Gen, called as its
`inference`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundWanted:
    """What S3Gen is asked for to give speech tokens their sound."""

    tokens: Any
    "(n,) speech tokens, all of them with a sound; Turbo's with the silence that the package adds"
    reference: Mapping[str, Any]
    "the voice, as S3Gen takes it"
    steps: int | None
    "of the flow; None: as many as S3Gen itself takes"


class _Captured(Exception):
    """Carries what a part of the model was asked for out of the package's `generate`."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def _capture(**arguments: Any) -> Any:
    raise _Captured(arguments)


class _Decoder:
    """In the place of S3Gen while `generate` runs: its own but for the sound."""

    def __init__(self, s3gen: Any, inference: Source) -> None:
        self._s3gen, self.inference = s3gen, inference

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3gen, name)


class Speaker:
    """A model on its device, with the voices that it knows."""

    def __init__(self, loaded: Loaded, measured: Path) -> None:
        """`measured`: the folder where voices are kept."""
        with LOCK:
            self._loaded: Loaded | None = loaded
            self.version = loaded.version
            self.watermark = loaded.watermark
            self.folder = loaded.folder
            self.device = loaded.device
            self._measured: Measured | None = Measured(loaded, measured)
            self._fault: str | None = None
            self._source: Source | None = None
            self._guard()

    @classmethod
    def load(cls, family: Family, equipment: Equipment) -> Self:
        """One with the model that the equipment has; raises what `models.load` raises."""
        return cls(models.load(family, equipment), equipment.measured)

    @property
    def t3(self) -> Any:
        """The package's model of speech tokens."""
        return self._model().t3

    def speak(self, asked: Asked) -> Said:
        """Say it.

        Raises InputError for the clip, SynthesisError (no_speech, out_of_memory, synthesis) where there is no
        sound.
        """
        with LOCK, quiet():
            return self._with_room(lambda: self._attempt(asked))

    def tokens_wanted(self, asked: Asked) -> tuple[Any, Mapping[str, Any]]:
        """The voice's conditionals, and what T3 is asked for to say it: tokens of the text and settings."""
        with LOCK, quiet():
            return self._with_room(
                lambda: (self._conditionals(asked).t3, self._captured(asked, tokens=_capture))
            )

    def sound_wanted(self, asked: Asked, tokens: Any) -> SoundWanted:
        """What S3Gen is asked for where T3 answered with `tokens`, shape (1, n).

        Raises SynthesisError (no_speech) where none of them has a sound.
        """
        with LOCK, quiet():
            arguments = self._with_room(
                lambda: self._captured(asked, tokens=lambda **_: tokens, sound=_capture)
            )
            return SoundWanted(
                tokens=arguments["speech_tokens"].reshape(-1),
                reference=arguments["ref_dict"],
                steps=arguments.get("n_cfm_timesteps"),
            )

    def finished(self, asked: Asked, tokens: Any, wave: Any, watermarker: Any = None) -> Said:
        """What the package makes of S3Gen's `wave`, shape (samples,): marked, and checked by us.

        `watermarker`: in the place of the package's.
        """
        with LOCK, quiet():
            return self._with_room(
                lambda: self._attempt(
                    asked,
                    tokens=lambda **_: tokens,
                    sound=lambda **_: (wave[None], None),
                    watermarker=watermarker,
                )
            )

    @property
    def s3gen(self) -> Any:
        """The package's model of sound."""
        return self._model().s3gen

    @property
    def watermarker(self) -> Any:
        """The package's watermarker, on the processor."""
        return self._model().watermarker

    def forget_voices(self) -> None:
        """Take what was measured off the device, for memory."""
        with LOCK:
            self._voices().drop()

    def close(self) -> None:
        """Free the model and what was measured."""
        with LOCK:
            self._loaded = None
            self._measured = None
            free_memory()

    def _model(self) -> Any:
        assert self._loaded is not None, "spoken to after close"
        return self._loaded.model

    def _voices(self) -> Measured:
        assert self._measured is not None, "spoken to after close"
        return self._measured

    def _conditionals(self, asked: Asked) -> Any:
        return self._voices().voice(asked.clip, asked.clip_sha256, asked.exaggeration)

    def _captured(self, asked: Asked, **parts: Source) -> Mapping[str, Any]:
        """What the part that is `_capture` was asked for."""
        try:
            self._attempt(asked, **parts)
        except _Captured as captured:
            return captured.arguments
        raise AssertionError("the package never asked for anything")

    def _attempt(
        self,
        asked: Asked,
        *,
        tokens: Source | None = None,
        sound: Source | None = None,
        watermarker: Any = None,
    ) -> Said:
        """Say it, with `tokens` for T3 and `sound` for S3Gen where these are given."""
        import torch

        model = self._model()
        self._fault, self._source = None, tokens
        # The loaded S3Gen is others', too: what stands in for it does so on this model alone.
        parts = {"s3gen": sound and _Decoder(model.s3gen, sound), "watermarker": watermarker}
        try:
            model.conds = self._conditionals(asked)
            # Without inference_mode the watermarker keeps half a gigabyte of gradients a call.
            with (
                seeded(asked.seed),
                _state_restored(model.t3),
                _replaced(model, parts),
                torch.inference_mode(),
            ):
                spoken = model.generate(asked.text, **asked.settings)
        finally:
            model.conds = self._source = None
        samples: Samples = np.ascontiguousarray(spoken.squeeze(0).numpy(), dtype=np.float32)
        return Said(_usable(samples, asked.text), self._fault)

    def _with_room(self, attempt: Callable[[], T]) -> T:
        """Once more with everything freed where memory ran out; then it is told."""
        try:
            return translated(attempt)
        except OutOfMemory:
            self._voices().drop()
            free_memory()
        try:
            return translated(attempt)
        except OutOfMemory as error:
            raise no_room("twice, the second time with nothing else kept on it") from error

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
            tokens = (self._source or original)(*arguments, **named)
            spoken = _without_signs(tokens)
            self._fault = _fault_of(tokens, spoken, turbo=turbo)
            return spoken

        setattr(t3, name, watched)


class OutOfMemory(Exception):
    """Ours for what torch calls by several names."""


def no_room(how: str) -> SynthesisError:
    """`how`: follows "The device ran out of memory"."""
    return SynthesisError(
        f"The device ran out of memory {how}.",
        hint="Make chunks.max_chars smaller, or free memory on the device.",
        code="out_of_memory",
    )


def translated(attempt: Callable[[], T]) -> T:
    """What the package raises, as one of our errors."""
    import torch

    try:
        return attempt()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory from error
    except (RuntimeError, ValueError, IndexError, AssertionError, UnicodeError) as error:
        if any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise OutOfMemory from error
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


@contextmanager
def _replaced(model: Any, parts: Mapping[str, Any]) -> Iterator[None]:
    """Meanwhile `model` has these parts, but for those that are None."""
    before = {name: getattr(model, name) for name, part in parts.items() if part is not None}
    for name in before:
        setattr(model, name, parts[name])
    try:
        yield
    finally:
        for name, part in before.items():
            setattr(model, name, part)


def free_memory() -> None:
    """Give back what torch keeps for later."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
