"""The embedded voice converter: pitch and formants moved toward those of the target, by Praat.

Knows sound only. It changes how high, how lively and how large a voice is, nothing else: whose voice it
is can still be heard. Invariant: what it returns has the rate, the length and the level of its input.
"""

import warnings
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import parselmouth
from parselmouth.praat import call, run

from pipeline.converters.base import Target
from pipeline.errors import InputError, SynthesisError
from pipeline.sound.audio import Audio
from pipeline.sound.level import level_as, level_dbfs

LEAST_REFERENCE_SECONDS = 2.0
LEAST_REFERENCE_LEVEL_DBFS = -55.0
LEAST_VOICED_SECONDS = 0.5
LEAST_HARMONICITY_DB = 7.0
"harmonics over noise; clean speech has 9 to 15, speech in noise as loud as itself 5 to 6.6"
MEASURED_SECONDS = 60.0
_SHORTEST_SECONDS = 0.1
_STEP_SECONDS = 0.01
_FLOOR_HZ, _CEILING_HZ = 60.0, 600.0
# De Looze & Hirst 2008: a second look between these multiples of the quartiles loses octave errors.
_FLOOR_OF_LOWER_QUARTILE, _CEILING_OF_UPPER_QUARTILE = 0.75, 1.9
# The first formant tells the vowel more than the speaker; the others scale with the vocal tract.
_FORMANTS, _MAX_FORMANT_HZ, _FORMANT_COUNT = (2, 3, 4), 5500.0, 5
_FORMANT_RATIOS = (0.75, 1.35)
_RANGE_FACTORS = (0.6, 1.6)
_MEASURING_RATE_HZ, _MEASURING_PRECISION = 16_000, 10
_OCTAVE_SEMITONES = 12
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiceprint:
    """What is measured of a voice."""

    pitch_median_hz: float
    pitch_spread: float
    "distance of the quartiles over the median"
    formants_hz: tuple[float, ...]
    "medians of the second to the fourth in voiced speech"
    harmonicity_db: float
    voiced_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PraatTarget:
    """The target voice, and the source voice once it is known."""

    voice: Voiceprint
    source: Voiceprint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What takes one voice to another."""

    pitch_ratio: float
    range_factor: float
    formant_ratio: float


class Praat:
    """Converter `praat`: Praat's "Change gender" (PSOLA and resampling), GPL-3."""

    name = "praat"
    version = f"{version('praat-parselmouth')} (Praat {parselmouth.PRAAT_VERSION})"
    device = "cpu"
    rate_hz = 44_100

    def measure(self, reference: Audio) -> PraatTarget:
        """Measure a clip of the target voice; its first minute tells. Raises InputError with advice."""
        clip = reference.between(0, MEASURED_SECONDS)
        if problem := _clip_problem(clip):
            raise problem
        voice = voiceprint(clip)
        if problem := _voice_problem(voice):
            raise problem
        assert voice is not None
        return PraatTarget(voice=voice)

    def fit(self, target: Target, source: Audio) -> PraatTarget:
        """Measure the source, so that every chunk is changed by the same amounts."""
        own = _own(target)
        return replace(own, source=voiceprint(source.between(0, MEASURED_SECONDS)))

    def convert(self, audio: Audio, target: Target, *, pitch_shift_semitones: float) -> Audio:
        """Change `audio`; what holds no voice at all is returned as it is.

        An unfitted target takes `audio` itself as what the source is like.
        """
        own = _own(target)
        source = own.source or voiceprint(audio)
        if source is None or audio.seconds < _SHORTEST_SECONDS:
            return audio
        return level_as(_changed(audio, change(source, own.voice, pitch_shift_semitones)), audio)

    def close(self) -> None:
        """Nothing is held."""


def shift_pitch(audio: Audio, semitones: float) -> Audio:
    """Raise or lower a voice's pitch and leave its formants, level and length; what has no pitch stays."""
    if audio.seconds < _SHORTEST_SECONDS:
        return audio
    ratio = 2 ** (semitones / _OCTAVE_SEMITONES)
    return level_as(_changed(audio, Change(pitch_ratio=ratio, range_factor=1.0, formant_ratio=1.0)), audio)


def change(source: Voiceprint, target: Voiceprint, pitch_shift_semitones: float) -> Change:
    """The change from `source` to `target`, kept within what still sounds like a person. Pure."""
    spread = target.pitch_spread / source.pitch_spread if source.pitch_spread > 0 else 1.0
    ratios = np.divide(target.formants_hz, source.formants_hz)
    return Change(
        pitch_ratio=target.pitch_median_hz
        / source.pitch_median_hz
        * 2 ** (pitch_shift_semitones / _OCTAVE_SEMITONES),
        range_factor=float(np.clip(spread, *_RANGE_FACTORS)),
        formant_ratio=float(np.clip(np.exp(np.log(ratios).mean()), *_FORMANT_RATIOS)),
    )


def voiceprint(audio: Audio) -> Voiceprint | None:
    """Measure a voice; None where less than `LEAST_VOICED_SECONDS` are voiced."""
    if audio.seconds < LEAST_VOICED_SECONDS:
        return None
    # Pitch and the formants looked for lie below 6 kHz.
    sound = _sound(audio).resample(_MEASURING_RATE_HZ, _MEASURING_PRECISION)
    pitch = _pitch(sound)
    contour = pitch.selected_array["frequency"]
    voiced = contour > 0
    if voiced.sum() * _STEP_SECONDS < LEAST_VOICED_SECONDS:
        return None
    lower, median, upper = np.percentile(contour[voiced], (25, 50, 75))
    times = pitch.xs()[voiced]
    return Voiceprint(
        pitch_median_hz=float(median),
        pitch_spread=float((upper - lower) / median),
        formants_hz=_formants_hz(sound, times),
        harmonicity_db=_harmonicity_db(pitch),
        voiced_seconds=float(voiced.sum() * _STEP_SECONDS),
    )


def _clip_problem(clip: Audio) -> InputError | None:
    level = level_dbfs(clip.samples)
    if clip.seconds < LEAST_REFERENCE_SECONDS:
        return _unusable(
            f"The voice clip lasts {clip.seconds:.1f} s; it takes {LEAST_REFERENCE_SECONDS:.0f} s or more.",
            "reference_short",
        )
    if level < LEAST_REFERENCE_LEVEL_DBFS:
        return _unusable(f"The voice clip is silent, or nearly so ({level:.0f} dBFS).", "reference_silent")
    return None


def _voice_problem(voice: Voiceprint | None) -> InputError | None:
    if voice is None:
        return _unusable("No voice can be found in the voice clip.", "reference_no_voice")
    if voice.harmonicity_db < LEAST_HARMONICITY_DB:
        return _unusable("The voice clip is too noisy to measure the voice in it.", "reference_noisy")
    return None


def _unusable(message: str, code: str) -> InputError:
    advice = "Use 5 to 30 s of one person speaking, clean and without music or echo."
    return InputError(message, hint=advice, code=code)


def _own(target: Target) -> PraatTarget:
    if not isinstance(target, PraatTarget):
        raise TypeError(f"a target measured by praat is needed, got {type(target).__name__}")
    return target


def _sound(audio: Audio) -> parselmouth.Sound:
    return parselmouth.Sound(audio.samples.astype(np.float64), audio.rate_hz)


def _pitch(sound: parselmouth.Sound) -> parselmouth.Pitch:
    """The pitch contour, looked for a second time around where the first look found most of it."""
    wide = sound.to_pitch_ac(time_step=_STEP_SECONDS, pitch_floor=_FLOOR_HZ, pitch_ceiling=_CEILING_HZ)
    contour = wide.selected_array["frequency"]
    if not (contour > 0).any():
        return wide
    lower, upper = np.percentile(contour[contour > 0], (25, 75))
    floor = max(_FLOOR_HZ, _FLOOR_OF_LOWER_QUARTILE * lower)
    ceiling = min(_CEILING_HZ, _CEILING_OF_UPPER_QUARTILE * upper)
    return sound.to_pitch_ac(time_step=_STEP_SECONDS, pitch_floor=floor, pitch_ceiling=ceiling)


def _formants_hz(sound: parselmouth.Sound, times: Floats) -> tuple[float, ...]:
    formants = sound.to_formant_burg(_STEP_SECONDS, _FORMANT_COUNT, _MAX_FORMANT_HZ)
    tracks = [[formants.get_value_at_time(number, at) for at in times] for number in _FORMANTS]
    return tuple(float(median) for median in np.nanmedian(tracks, axis=1))


def _harmonicity_db(pitch: parselmouth.Pitch) -> float:
    """Harmonics over noise from the height r of the autocorrelation's peak: r / (1 - r) (Boersma 1993)."""
    candidates = pitch.selected_array
    strength = np.clip(candidates["strength"][candidates["frequency"] > 0], 0.0001, 0.9999)
    return float(np.median(10 * np.log10(strength / (1 - strength))))


def _changed(audio: Audio, wanted: Change) -> Audio:
    sound = _sound(audio)
    try:
        pitch = _pitch(sound)
        contour = pitch.selected_array["frequency"]
        # Praat sets the chunk's own median; 0 leaves a chunk without voice at its pitch.
        median_hz = (
            float(np.median(contour[contour > 0])) * wanted.pitch_ratio if (contour > 0).any() else 0.0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", parselmouth.PraatWarning)
            # Praat strews the periods of unvoiced sound at random; a retry must give the same file.
            run("random_initializeWithSeedUnsafelyButPredictably(1)")
            changed = call(
                [sound, pitch], "Change gender", wanted.formant_ratio, median_hz, wanted.range_factor, 1.0
            )
    except parselmouth.PraatError as error:
        raise SynthesisError(f"Praat could not convert the recording: {error}", code="conversion") from error
    return _as_long_as(changed.values[0].astype(np.float32), audio)


def _as_long_as(samples: npt.NDArray[np.float32], audio: Audio) -> Audio:
    """Praat rounds to its own periods: cut or pad the last milliseconds."""
    count = len(audio.samples)
    return Audio(np.pad(samples[:count], (0, max(0, count - len(samples)))), audio.rate_hz)
