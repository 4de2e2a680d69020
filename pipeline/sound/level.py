"""How strong sound is as a whole, and one sound brought to the level of another.

Knows samples; nothing of loudness as ears weigh it (`measure`). Pure. Invariant: what has been brought to a
level stays below full scale.
"""

import numpy as np

from pipeline.sound.audio import Audio, Samples

LEAST_DBFS = -180.0
"what digital silence is told as"
PEAK = 0.99
"the highest sample that `level_as` leaves; full scale is 1"


def rms(samples: Samples) -> float:
    """Root mean square; 0 where there are no samples."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def level_dbfs(samples: Samples) -> float:
    """Root mean square in dB below full scale, `LEAST_DBFS` at the lowest."""
    return float(20 * np.log10(max(rms(samples), 10 ** (LEAST_DBFS / 20))))


def level_as(audio: Audio, model: Audio) -> Audio:
    """`audio` at the level of `model`, lower where its peaks would not fit; silence stays as it is."""
    level = rms(audio.samples)
    if level == 0.0:
        return audio
    peak = float(np.abs(audio.samples).max())
    return Audio(audio.samples * np.float32(min(rms(model.samples) / level, PEAK / peak)), audio.rate_hz)
