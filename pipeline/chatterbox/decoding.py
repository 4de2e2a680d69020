"""Sound of several utterances at once, from their speech tokens.

The package is asked what it would ask its S3Gen for, `fast.flow` and `fast.vocoder` make that, and the
package does with the sound what it does with its own: so what it drops, adds, trims and marks is its own
affair. Knows a loaded model and tokens; nothing of where these come from. Invariant: an utterance sounds as
it does alone, to 2e-4 of full scale and whatever stands beside it; only half precision (`fast` on a GPU) is
coarser.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from pipeline.alive import Alive, unheeded
from pipeline.chatterbox.device import free_bytes
from pipeline.chatterbox.fast.dense import Kernel
from pipeline.chatterbox.fast.flow import FRAMES_PER_TOKEN, Flow, Row
from pipeline.chatterbox.fast.noise import generator_after
from pipeline.chatterbox.fast.vocoder import Vocoder
from pipeline.chatterbox.fast.watermark import OnDevice
from pipeline.chatterbox.package import LOCK, quiet
from pipeline.chatterbox.speaker import (
    Asked,
    Outcome,
    OutOfMemory,
    Said,
    SoundWanted,
    Speaker,
    free_memory,
    no_room,
    translated,
)
from pipeline.errors import SynthesisError

MOST_FRAMES = 20_000
"of mel, of a batch on a GPU: some sixteen utterances with their voices; more bring nothing"
FRAMES_ON_CPU = 1
"one utterance: it has no time to spare that a batch could use, and would compute the padding"
BYTES_PER_FRAME = 300_000
"""of the greatest tensors that live at once, 120 samples of 64 values four times over for each frame in the
vocoder; estimated"""
SHARE_OF_FREE_MEMORY = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelt:
    """One utterance as speech tokens."""

    index: int
    "comes back with the sound"
    asked: Asked
    tokens: Any
    "(1, n) int64, as T3 returns them"
    draws: int
    "how often T3 drew for them: in the mode `exact` the sound's noise begins after that"


class Decoder:
    """Flow, vocoder and watermark of one `Speaker`."""

    def __init__(self, speaker: Speaker, mode: str, kernel: Kernel | None = None) -> None:
        """`mode`: exact or fast. `kernel`: of the flow; None for the fastest that is exact."""
        import torch

        on_gpu = speaker.device.startswith("cuda")
        half = mode == "fast" and on_gpu
        self._speaker, self._exact = speaker, mode == "exact"
        with LOCK, quiet():
            self._flow = Flow(speaker.s3gen, dtype=torch.float16 if half else torch.float32, kernel=kernel)
            self._vocoder = Vocoder(speaker.s3gen)
            self._watermarker = OnDevice.of(speaker.watermarker, speaker.device) if half else None
        self._frames = _frames_that_fit(speaker.device) if on_gpu else FRAMES_ON_CPU

    def has_enough(self, waiting: Sequence[Spelt]) -> bool:
        """Whether these fill a batch twice, from which batches of like lengths can be made."""
        return sum(_frames_of(spelt.tokens.shape[1]) for spelt in waiting) >= 2 * self._frames

    def sound_all(self, spelt: Sequence[Spelt], alive: Alive = unheeded) -> Iterator[Outcome]:
        """The sound of all; they come in the order in which they are done. `alive`: as in `Flow.mels`."""
        wanted: dict[int, SoundWanted] = {}
        for place, one in enumerate(spelt):
            try:
                wanted[place] = self._speaker.sound_wanted(one.asked, one.tokens)
            except SynthesisError as error:
                yield Outcome(one.index, error)
        while wanted:
            alive()
            group = _group(wanted, self._frames)
            try:
                waves = self._waves([(spelt[place], wanted[place]) for place in group], alive)
            except OutOfMemory:
                waves = (
                    [] if self._fewer(len(group)) else [no_room("with the sound of a single utterance on it")]
                )
            except SynthesisError as error:
                waves = [error] * len(group)
            for place, wave in zip(group, waves, strict=False):
                del wanted[place]
                yield Outcome(spelt[place].index, self._finished(spelt[place], wave))

    def _waves(self, rows: Sequence[tuple[Spelt, SoundWanted]], alive: Alive) -> list[Any]:
        """(samples,) of each."""
        chances = [self._chance(spelt) for spelt, _ in rows]
        asked = [
            Row(tokens=wanted.tokens, voice=wanted.reference, chance=chance)
            for (_, wanted), chance in zip(rows, chances, strict=True)
        ]
        steps = rows[0][1].steps  # the package takes as many for every text
        with LOCK, quiet():
            return translated(
                lambda: self._vocoder.waves(self._flow.mels(asked, steps=steps, alive=alive), chances)
            )

    def _chance(self, spelt: Spelt) -> Any:
        """Where the noise of one utterance comes from: no other draws from it."""
        import torch

        seed, device = spelt.asked.seed, self._speaker.device
        if self._exact:
            vocabulary = self._speaker.t3.hp.speech_tokens_dict_size
            return generator_after(seed, spelt.draws, vocabulary, device)
        return torch.Generator(device).manual_seed(seed)

    def _finished(self, spelt: Spelt, wave: Any) -> Said | SynthesisError:
        if isinstance(wave, SynthesisError):
            return wave
        try:
            return self._speaker.finished(spelt.asked, spelt.tokens, wave, self._watermarker)
        except SynthesisError as error:
            return error

    def _fewer(self, rows: int) -> bool:
        """Smaller batches from now on; False where one utterance was too much."""
        self._speaker.forget_voices()
        free_memory()
        if rows == 1 and self._frames == FRAMES_ON_CPU:
            return False
        self._frames = self._frames // 2 if rows > 1 else FRAMES_ON_CPU
        logger.warning("{} ran out of memory: smaller batches from now on", self._speaker.device)
        return True


def _frames_that_fit(device: str) -> int:
    free = free_bytes(device)
    if free is None:
        return MOST_FRAMES
    return max(FRAMES_ON_CPU, min(MOST_FRAMES, int(SHARE_OF_FREE_MEMORY * free) // BYTES_PER_FRAME))


def _frames_of(tokens: int) -> int:
    return FRAMES_PER_TOKEN * tokens


def _length(wanted: SoundWanted) -> int:
    """Frames of an utterance with the voice before it."""
    return _frames_of(len(wanted.tokens) + wanted.reference["prompt_token"].shape[-1])


def _group(wanted: Mapping[int, SoundWanted], frames: int) -> list[int]:
    """The longest and those that come next to it in length, within `frames` with their padding. Pure."""
    longest_first = sorted(wanted, key=lambda place: (-_length(wanted[place]), place))
    fit = max(1, frames // _length(wanted[longest_first[0]]))
    return longest_first[:fit]
