"""Sounds that the tests of the sound room and of the converters share."""

import functools
import subprocess
from pathlib import Path

import numpy as np
import soundfile

from pipeline import engines
from pipeline.engines.base import Utterance, Voice
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Audio, to_pcm16
from pipeline.sound.ffmpeg import executable

RATE_HZ = 22_050


def tone(seconds: float, *, hz: float = 220.0, peak: float = 0.3, rate_hz: int = RATE_HZ) -> Audio:
    """A steady sine."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    return Audio((peak * np.sin(2 * np.pi * hz * at)).astype(np.float32), rate_hz)


def noise(seconds: float, *, rms: float = 0.1, seed: int = 1, rate_hz: int = RATE_HZ) -> Audio:
    """White noise."""
    drawn = np.random.default_rng(seed).standard_normal(round(seconds * rate_hz))
    return Audio((rms * drawn).astype(np.float32), rate_hz)


@functools.cache
def spoken(text: str, voice: str = "") -> Audio:
    """`text` said by the embedded engine."""
    engine = engines.load("espeak")
    utterance = Utterance(text=text, voice=Voice(name=voice), language="en", synthesis=Synthesis(), seed=1)
    return engine.speak(utterance).audio


def read_wav(path: Path) -> Audio:
    """What stands in a file that we wrote."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return Audio(np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32)), int(rate_hz))


def write_wav(path: Path, audio: Audio) -> None:
    """As 16-bit PCM."""
    soundfile.write(path, to_pcm16(audio), audio.rate_hz, subtype="PCM_16", format="WAV")


def recording(path: Path, audio: Audio, *arguments: str) -> Path:
    """`audio` as a foreign file of the kind that the name of `path` says."""
    plain = path.with_name("plain.wav")
    write_wav(plain, audio)
    command = [executable(), "-loglevel", "error", "-nostdin", "-y", "-i", str(plain), *arguments, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def rms_db(audio: Audio) -> float:
    """Level in dBFS."""
    return float(10 * np.log10(np.mean(np.square(audio.samples, dtype=np.float64)) + 1e-20))
