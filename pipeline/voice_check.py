"""What a reference clip is worth: length, level, clipping, noise, and what to do about them in plain words.

Pure: samples and what the file's header says in, sentences out. Engines refuse by themselves when they
measure a clip. Invariant: a clip that fails a job for sure is told as `fails`, everything else is advice.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.sound.audio import Audio, Samples
from pipeline.sound.decode import Recording

LEAST_SECONDS = 1.0
"below this every engine refuses"
SHORT_SECONDS = 3.0
BEST_SECONDS = (5.0, 15.0)
LONG_SECONDS = 30.0
TURBO_SECONDS = 5.1
"chatterbox-turbo refuses five seconds and less (chatterbox/tts_turbo.py, prepare_conditionals)"
HEARD_SECONDS = 10.0
"what Chatterbox's decoder takes of a clip; its other parts take 6 to 15 s"
SILENT_DBFS, QUIET_DBFS = -55.0, -35.0
NOISY_DB = 25.0
"white noise 20 dB below the speech gives 25 to 27 in the two recordings that were tried"
LOW_RATE_HZ = 16_000
USED_RATE_HZ = 24_000
CLIPPED_RUNS_PER_SECOND = 0.5
_FULL_SCALE, _LEAST_TOP = 0.985, 0.1
_FLAT_SAMPLES = 3
"in a row, at full scale: a single sample there is a peak"
_FRAME_SECONDS = 0.03
_LOUD_PERCENTILE, _QUIET_PERCENTILE = 95, 10
_FLOOR_DBFS = -96.0
"of 16 bits; what is below is digital silence"

Kind = Literal["fails", "advice", "note"]
Levels = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A clip in figures."""

    seconds: float
    rms_dbfs: float
    "of the whole clip: what engines judge silence by"
    speech_dbfs: float
    "of its loud parts"
    noise_db: float
    "how far the quietest parts lie below the loud ones: an estimate of the signal-to-noise ratio"
    clipped_runs: int
    "places where the tops of the wave are cut off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing to know of a clip. `fails`: a job with it fails; `note`: nothing is to be done."""

    kind: Kind
    text: str


def measure(audio: Audio) -> Measured:
    """Look at a clip, mono, at its own rate: clipping is no longer to be seen after a change of rate."""
    levels = _levels_dbfs(audio)
    loud = float(np.percentile(levels, _LOUD_PERCENTILE)) if len(levels) else _FLOOR_DBFS
    quiet = float(np.percentile(levels, _QUIET_PERCENTILE)) if len(levels) else _FLOOR_DBFS
    power = float(np.mean(np.square(audio.samples, dtype=np.float64))) if len(audio.samples) else 0.0
    return Measured(
        seconds=audio.seconds,
        rms_dbfs=_dbfs(power),
        speech_dbfs=loud,
        noise_db=loud - quiet,
        clipped_runs=_clipped_runs(audio.samples),
    )


def _levels_dbfs(audio: Audio) -> Levels:
    """The level of each frame of 30 ms."""
    frame = max(1, round(_FRAME_SECONDS * audio.rate_hz))
    count = len(audio.samples) // frame
    frames = audio.samples[: count * frame].reshape(count, frame).astype(np.float64)
    power = np.mean(np.square(frames), axis=1)
    levels: Levels = 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DBFS / 10)))
    return levels


def _dbfs(power: float) -> float:
    return float(10 * np.log10(max(power, 10 ** (_FLOOR_DBFS / 10))))


def _clipped_runs(samples: Samples) -> int:
    """How often several samples in a row stand at the clip's own top.

    At full scale near it is enough, for what a lossy format made of it; two channels mixed into one may reach
    beyond. A clip that was cut off and then made quieter has equal ones there.
    """
    sizes = np.abs(samples)
    top = float(sizes.max(initial=0.0))
    if top >= _FULL_SCALE:
        return _runs(sizes >= _FULL_SCALE * top)
    if top < _LEAST_TOP:
        return 0
    equal: npt.NDArray[np.bool_] = (sizes[1:] >= _FULL_SCALE * top) & (samples[1:] == samples[:-1])
    return _runs(equal)


def _runs(there: npt.NDArray[np.bool_]) -> int:
    """How many times at least `_FLAT_SAMPLES` in a row are true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], there, [False])).astype(np.int8)))
    return int(np.count_nonzero(edges[1::2] - edges[::2] >= _FLAT_SAMPLES))


def remarks(clip: Measured, recording: Recording, *, engine: str = "") -> tuple[Remark, ...]:
    """What there is to say of a clip; `engine` is the one that will most likely speak with it."""
    found = [_length(clip, engine), _level(clip), _clipping(clip), _noise(clip), *_format(recording)]
    return tuple(remark for remark in found if remark is not None)


def _length(clip: Measured, engine: str) -> Remark | None:
    seconds, (low, high) = clip.seconds, BEST_SECONDS
    best = f"{low:.0f} to {high:.0f} s are best"
    if seconds < LEAST_SECONDS:
        return _fails(f"it lasts {seconds:.1f} s, too short to hear a voice in: {best}")
    if seconds < TURBO_SECONDS and engine == "chatterbox-turbo":
        return _fails(f"it lasts {seconds:.1f} s, and chatterbox-turbo takes more than 5 s")
    if seconds < SHORT_SECONDS:
        return _advice(f"it lasts {seconds:.1f} s, too short for a good likeness: {best}")
    if seconds < TURBO_SECONDS:
        return _advice(f"it lasts {seconds:.1f} s: {best}, and chatterbox-turbo takes more than 5 s")
    if seconds > LONG_SECONDS:
        return _advice(
            f"it lasts {seconds:.0f} s, of which engines hear the first {HEARD_SECONDS:.0f} or so, and the"
            f" rest costs time: {best}"
        )
    return None


def _level(clip: Measured) -> Remark | None:
    if clip.rms_dbfs < SILENT_DBFS:
        return _fails(f"it is silent, or nearly so ({clip.rms_dbfs:.0f} dBFS): record it anew")
    if clip.speech_dbfs < QUIET_DBFS:
        return _advice(
            f"it is very quiet ({clip.speech_dbfs:.0f} dBFS where it speaks): record it louder, nearer to the"
            " microphone"
        )
    return None


def _clipping(clip: Measured) -> Remark | None:
    if clip.clipped_runs <= CLIPPED_RUNS_PER_SECOND * clip.seconds:
        return None
    return _advice(
        f"it is overdriven: the wave is cut off in {clip.clipped_runs} places, which the copy of the voice"
        " learns: record it with less gain"
    )


def _noise(clip: Measured) -> Remark | None:
    if clip.rms_dbfs < SILENT_DBFS or clip.noise_db >= NOISY_DB:
        return None
    return _advice(
        f"its quietest parts are only {clip.noise_db:.0f} dB below the speech: noise, music, echo, or no"
        " pause at all; a quiet room or another recording gives a cleaner voice"
    )


def _format(recording: Recording) -> list[Remark]:
    found = []
    if recording.rate_hz < LOW_RATE_HZ:
        found.append(
            _advice(
                f"it has only {recording.rate_hz / 1000:g} kHz, like a telephone, and so will the voice:"
                f" record it with {USED_RATE_HZ // 1000} kHz or more"
            )
        )
    if recording.channels > 1:
        found.append(_note(f"its {recording.channels} channels are mixed into one when it is used"))
    return found


def _fails(text: str) -> Remark:
    return Remark(kind="fails", text=text)


def _advice(text: str) -> Remark:
    return Remark(kind="advice", text=text)


def _note(text: str) -> Remark:
    return Remark(kind="note", text=text)
