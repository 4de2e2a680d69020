"""What is told of reference clips: length, level, clipping, noise, channels, rate."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.sound.audio import Audio, Samples
from pipeline.sound.decode import Recording, decode, probe
from pipeline.voice_check import NOISY_DB, Measured, measure, remarks

RATE_HZ = 24_000
FINE = Recording(seconds=None, rate_hz=RATE_HZ, channels=1, codec="pcm_s16le")


def speech(seconds: float = 8.0, level: float = 0.3, noise: float = 0.0) -> Audio:
    """Vowels of 300 ms with pauses of 100 ms, over noise."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    voice = sum(np.sin(2 * np.pi * 130 * k * time + k) / k for k in range(1, 12))
    gate = (time % 0.4) < 0.3
    rng = np.random.default_rng(1)
    sound = voice / np.max(np.abs(voice), initial=1e-9) * gate * level + noise * rng.standard_normal(
        len(time)
    )
    return Audio(sound.astype(np.float32), RATE_HZ)


def told(audio: Audio, recording: Recording = FINE, engine: str = "") -> list[str]:
    """`kind: sentence` for everything there is to say."""
    return [f"{remark.kind}: {remark.text}" for remark in remarks(measure(audio), recording, engine=engine)]


def test_a_good_clip_gets_no_advice() -> None:
    """Eight seconds, clean, loud enough."""
    assert told(speech()) == [] and told(speech(), engine="chatterbox-turbo") == []


@pytest.mark.parametrize(
    ("seconds", "engine", "kind", "word"),
    [
        (0.6, "chatterbox", "fails", "too short to hear a voice in: 5 to 15 s are best"),
        (2.0, "chatterbox", "advice", "too short for a good likeness"),
        (4.0, "chatterbox", "advice", "chatterbox-turbo takes more than 5 s"),
        (4.0, "chatterbox-turbo", "fails", "chatterbox-turbo takes more than 5 s"),
        (5.0, "chatterbox-turbo", "fails", "chatterbox-turbo takes more than 5 s"),
        (40.0, "chatterbox", "advice", "the rest costs time"),
    ],
)
def test_length(seconds: float, engine: str, kind: str, word: str) -> None:
    """Too short is worse than too long."""
    (said,) = told(speech(seconds), engine=engine)
    assert said.startswith(f"{kind}: it lasts") and word in said


@pytest.mark.parametrize("seconds", [5.2, 15.0, 29.0])
def test_no_length_in_between_is_spoken_of(seconds: float) -> None:
    """Even where it is not the best."""
    assert told(speech(seconds), engine="chatterbox-turbo") == []


def test_silence_fails_and_whispering_is_told() -> None:
    """By the level of the whole, and of where it speaks."""
    (said,) = told(Audio(np.zeros(8 * RATE_HZ, np.float32), RATE_HZ))
    assert said.startswith("fails: it is silent")
    (said,) = told(speech(level=0.012))
    assert said.startswith("advice: it is very quiet")
    assert told(speech(level=0.05)) == []


@pytest.mark.parametrize("afterwards", [1.0, 0.5, 2**0.5])
def test_clipping_is_seen(afterwards: float) -> None:
    """Also of what was made quieter afterwards, or mixed from two channels; a loud clip is not clipped."""
    loud = speech(level=0.999)
    assert told(loud) == []
    clipped = np.clip(loud.samples * 2, -1, 1) * np.float32(afterwards)
    (said,) = told(Audio(clipped, RATE_HZ))
    assert said.startswith("advice: it is overdriven")


def test_a_few_cut_peaks_are_no_matter() -> None:
    """One in two seconds."""
    samples = speech(10.0).samples.copy()
    for start in (1000, 50_000, 100_000, 150_000):
        samples[start : start + 5] = 1.0
    assert told(Audio(samples, RATE_HZ)) == []


@pytest.mark.parametrize(("noise_db", "noisy"), [(-60, False), (-40, False), (-20, True), (-10, True)])
def test_noise_is_estimated_from_the_quiet_parts(noise_db: float, noisy: bool) -> None:
    """Relative to the speech."""
    said = told(speech(noise=0.1 * 10 ** (noise_db / 20)))
    assert bool(said) is noisy
    assert not noisy or "dB below the speech" in said[0]


def test_rate_and_channels_are_told() -> None:
    """A telephone's rate is worth a word, a second channel a note."""
    said = told(speech(), Recording(seconds=8.0, rate_hz=8000, channels=2, codec="mp3"))
    assert [line.partition(":")[0] for line in said] == ["advice", "note"]
    assert "8 kHz, like a telephone" in said[0] and "2 channels are mixed" in said[1]


@pytest.mark.parametrize("count", [0, 1, 100])
def test_hardly_any_samples_are_measured_too(count: int) -> None:
    """A file of one sample is a recording."""
    found = measure(Audio(np.ones(count, np.float32), RATE_HZ))
    assert isinstance(found, Measured) and found.seconds == count / RATE_HZ


def with_noise(audio: Audio, ratio_db: float) -> Audio:
    """White noise so far below the clip's mean power."""
    power = float(np.mean(np.square(audio.samples)))
    noise = (
        np.random.default_rng(2).standard_normal(len(audio.samples)) * (power / 10 ** (ratio_db / 10)) ** 0.5
    )
    mixed: Samples = (audio.samples + noise).astype(np.float32)
    return Audio(mixed, audio.rate_hz)


@pytest.mark.parametrize("name", ["jfk.flac", "lj050-0131.wav"])
def test_real_recordings(data: Path, name: str) -> None:
    """Of 1961 and of a studio: both fine, but not with noise 15 dB below, or four times too loud."""
    recording = probe(data / name)
    audio = decode(data / name, recording.rate_hz)
    kinds = {remark.kind for remark in remarks(measure(audio), recording, engine="chatterbox-turbo")}
    assert kinds <= {"note"}
    assert measure(with_noise(audio, 15)).noise_db < NOISY_DB < measure(with_noise(audio, 30)).noise_db
    louder = audio.samples * (4 / np.abs(audio.samples).max())
    (said,) = [line for line in told(Audio(np.clip(louder, -1, 1), audio.rate_hz)) if "overdriven" in line]
    assert said.startswith("advice")
