"""Sound to be dropped."""

import os
import wave
from pathlib import Path

RATE_HZ = 24_000


def recording(path: Path, seconds: float) -> bytes:
    """A WAV file of noise, which no compression on the way makes smaller."""
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE_HZ)
        sound.writeframes(os.urandom(int(seconds * RATE_HZ) * 2))
    return path.read_bytes()
