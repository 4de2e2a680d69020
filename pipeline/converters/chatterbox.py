"""Voice conversion by Chatterbox: the recording's speech tokens, spoken by S3Gen in the target's voice.

Knows the Converter Protocol and what S3Gen wants; lengths and levels are the recording's. Invariants: the
same recording and target give the same samples; the result has the length of its input to the sample; a
failure is raised, and silence comes out only where silence went in.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.chatterbox.converting import Conditions, TokenVoice
from pipeline.chatterbox.reference import checked
from pipeline.converters.base import Target
from pipeline.converters.praat import shift_pitch
from pipeline.equipment import Equipment
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio
from pipeline.sound.level import level_as, level_dbfs

LEAST_REFERENCE_SECONDS = 1.0
SILENCE_DBFS = -65.0
"quieter than this there is no voice to convert, and S3Gen would invent one"
LEAST_RESULT_DBFS = SILENCE_DBFS - 20
"quieter than this S3Gen has said nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatterboxTarget:
    """The target voice as S3Gen is conditioned on it."""

    conditions: Conditions


class ChatterboxConverter:
    """S3Gen behind the Converter Protocol."""

    name = "chatterbox"
    rate_hz = 24_000

    def __init__(self, voice: TokenVoice, device: str) -> None:
        self._voice = voice
        self.version = voice.version
        self.watermark = voice.watermark
        self.device = device

    def measure(self, reference: Audio) -> ChatterboxTarget:
        """Learn the target voice; its first ten seconds tell. Raises InputError with advice."""
        return ChatterboxTarget(conditions=self._voice.measure(checked(reference, LEAST_REFERENCE_SECONDS)))

    def fit(self, target: Target, source: Audio) -> ChatterboxTarget:  # noqa: ARG002
        """The target itself: tokens say what is spoken and not by whom."""
        return _own(target)

    def convert(self, audio: Audio, target: Target, *, pitch_shift_semitones: float) -> Audio:
        """Speak `audio` with the target voice, then shift the pitch of that; SynthesisError if it cannot."""
        conditions = _own(target).conditions
        if level_dbfs(audio.samples) < SILENCE_DBFS:
            return audio
        spoken = as_long_as(Audio(self._voice.speak(audio, conditions), self.rate_hz), audio)
        if pitch_shift_semitones:
            spoken = shift_pitch(spoken, pitch_shift_semitones)
        marked = as_long_as(Audio(self._voice.mark(spoken.samples), self.rate_hz), audio)
        if level_dbfs(marked.samples) < LEAST_RESULT_DBFS:
            raise SynthesisError(
                "The converter returned silence for a recording that is not.", code="no_speech"
            )
        return level_as(marked, audio)

    def close(self) -> None:
        """Free what no engine uses besides."""
        self._voice.close()


def as_long_as(spoken: Audio, model: Audio) -> Audio:
    """`spoken` with exactly the samples of `model`: S3Gen rounds up to 40 ms. SynthesisError beyond 80."""
    count = len(model.samples)
    missing = count - len(spoken.samples)
    if abs(missing) > 2 * spoken.rate_hz // 25:
        raise SynthesisError(
            f"The converter returned {spoken.seconds:.2f} s for {model.seconds:.2f} s.",
            code="conversion_length",
        )
    return Audio(np.pad(spoken.samples[:count], (0, max(0, missing))), spoken.rate_hz)


def _own(target: Target) -> ChatterboxTarget:
    if not isinstance(target, ChatterboxTarget):
        raise TypeError(f"a target measured by chatterbox is needed, got {type(target).__name__}")
    return target


def load(equipment: Equipment) -> ChatterboxConverter:
    """The converter, loaded or standing on what an engine has loaded."""
    return ChatterboxConverter(TokenVoice(equipment), equipment.device)
