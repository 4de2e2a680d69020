"""Loudness and the ceiling: measured on the files that come out, by EBU R128."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sound_samples import RATE_HZ, noise, spoken, tone

from pipeline.sound.audio import Audio, silence
from pipeline.sound.encode import Encoder
from pipeline.sound.master import Mastering, levelling, next_gain_db, shaping
from pipeline.sound.measure import Loudness, measure_blocks, measure_file

SENTENCES = (
    "The Time Traveller was expounding a recondite matter to us. His pale grey eyes shone and twinkled."
)


def mastered(path: Path, audio: Audio, mastering: Mastering) -> tuple[Loudness, float | None]:
    """What the finished file measures, and what the encoder says it reached."""
    with Encoder({path.suffix[1:]: path}, audio.rate_hz, mastering=mastering) as encoder:
        encoder.write(audio)
        encoder.finish()
    return measure_file(path), encoder.loudness_lufs


def nasty() -> dict[str, Audio]:
    """Sounds whose true peaks lie between their samples, or far over full scale."""
    at = np.arange(3 * RATE_HZ)
    quarter = np.sin(np.pi / 2 * at + np.pi / 4) * 1.3
    odd = np.sin(2 * np.pi * at / 2.3) * 1.2
    square = np.sign(np.sin(2 * np.pi * 220.3 * at / RATE_HZ))
    clicks = (np.random.default_rng(2).random(len(at)) < 0.002) * 1.5
    waves = {"quarter": quarter, "odd": odd, "square": square, "clicks": clicks}
    return {name: Audio(wave.astype(np.float32), RATE_HZ) for name, wave in waves.items()} | {
        "noise": noise(3.0, rms=0.4),
        "speech": Audio(spoken(SENTENCES).samples * 8, RATE_HZ),
    }


@pytest.mark.parametrize("name", ["quarter", "odd", "square", "clicks", "noise", "speech"])
@pytest.mark.parametrize("ceiling_db", [-1.5, -6.0])
def test_true_peaks_stay_under_the_ceiling(tmp_path: Path, name: str, ceiling_db: float) -> None:
    """However loud and odd the sound, no true peak passes the ceiling, and it is not thrown away."""
    got, _ = mastered(tmp_path / "a.wav", nasty()[name], Mastering(true_peak_db=ceiling_db))
    assert ceiling_db - 4 < got.true_peak_db <= ceiling_db


def test_lossy_files_overshoot_by_little(tmp_path: Path) -> None:
    """Encoders add about a decibel to a limited master; the default ceiling leaves room for it."""
    for name in ("mp3", "opus", "m4a"):
        got, _ = mastered(tmp_path / f"a.{name}", nasty()["speech"], Mastering())
        assert got.true_peak_db < 0


def test_what_is_under_the_ceiling_is_not_made_louder(tmp_path: Path) -> None:
    """Without a loudness to reach the level stays: the ceiling is no automatic gain."""
    quiet = Audio(spoken(SENTENCES).samples * 0.05, RATE_HZ)
    got, reached = mastered(tmp_path / "a.wav", quiet, Mastering())
    assert got.integrated_lufs == pytest.approx(
        measure_blocks([quiet.samples], RATE_HZ).integrated_lufs, abs=0.1
    )
    assert reached is None


@pytest.mark.parametrize("target_lufs", [-14.0, -16.0, -19.0, -23.0, -35.0])
@pytest.mark.parametrize("level", [0.02, 1.0, 6.0])
def test_the_asked_loudness_is_reached(tmp_path: Path, target_lufs: float, level: float) -> None:
    """Speech of any level comes out within half a unit of the target, under the ceiling, at its rate."""
    source = Audio(spoken(SENTENCES).samples * np.float32(level), RATE_HZ)
    got, reached = mastered(tmp_path / "a.wav", source, Mastering(loudness_lufs=target_lufs))
    assert got.integrated_lufs == pytest.approx(target_lufs, abs=0.5)
    assert reached == pytest.approx(got.integrated_lufs, abs=0.2)
    assert got.true_peak_db <= -1.5


@pytest.mark.parametrize("name", ["mp3", "opus", "m4a", "flac"])
def test_every_format_has_the_loudness(tmp_path: Path, name: str) -> None:
    """Encoding does not undo it."""
    got, _ = mastered(tmp_path / f"a.{name}", spoken(SENTENCES), Mastering(loudness_lufs=-18))
    assert got.integrated_lufs == pytest.approx(-18, abs=0.5)


def test_loudness_speed_and_denoise_together(tmp_path: Path) -> None:
    """The loudness is that of the finished sound, after tempo and noise reduction."""
    mastering = Mastering(loudness_lufs=-20, speed=1.3, denoise=True)
    got, _ = mastered(tmp_path / "a.wav", spoken(SENTENCES), mastering)
    assert got.integrated_lufs == pytest.approx(-20, abs=0.5)


def test_out_of_reach_is_told(tmp_path: Path) -> None:
    """A loudness the ceiling does not allow is approached, and the encoder says what was reached."""
    mastering = Mastering(loudness_lufs=-5, true_peak_db=-12)
    got, reached = mastered(tmp_path / "a.wav", spoken(SENTENCES), mastering)
    assert got.true_peak_db <= -12
    assert reached is not None
    assert reached < -8
    assert reached == pytest.approx(got.integrated_lufs, abs=0.2)


@pytest.mark.parametrize("audio", [silence(2.0, RATE_HZ), tone(0.2)], ids=["silence", "too short to measure"])
def test_what_cannot_be_measured_keeps_its_level(tmp_path: Path, audio: Audio) -> None:
    """Silence is not blown up, and a sound shorter than a measuring window stays as it is."""
    got, reached = mastered(tmp_path / "a.wav", audio, Mastering(loudness_lufs=-16))
    peak_db = 20 * np.log10(max(1e-9, float(np.abs(audio.samples).max())))
    assert reached is None
    assert got.true_peak_db == -np.inf or got.true_peak_db == pytest.approx(peak_db, abs=0.3)


def test_work_files_go(tmp_path: Path) -> None:
    """The raw master between the passes is gone when the files are there."""
    mastered(tmp_path / "a.mp3", tone(1.0), Mastering(loudness_lufs=-16))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp3"]


@given(st.floats(-50, -5), st.floats(-60, 0))
def test_the_first_gain_is_the_difference(target_lufs: float, measured_lufs: float) -> None:
    """Below the ceiling one decibel is one unit."""
    assert next_gain_db([(0.0, measured_lufs)], target_lufs, 99.0) == pytest.approx(
        target_lufs - measured_lufs
    )


def test_later_gains_make_up_for_the_ceiling() -> None:
    """If half of the last decibels arrived, twice what is missing is added, but never without bound."""
    assert next_gain_db([(0.0, -20.0), (8.0, -16.0)], -14.0, 99.0) == pytest.approx(12.0)
    assert next_gain_db([(0.0, -20.0), (8.0, -20.0)], -14.0, 99.0) == pytest.approx(32.0)
    assert next_gain_db([(0.0, -20.0), (8.0, -20.0)], -14.0, 20.0) == 20.0
    assert next_gain_db([(3.0, -20.0), (3.0, -20.0)], -19.0, 99.0) == pytest.approx(4.0)


def test_only_what_is_asked_is_done() -> None:
    """The default shapes nothing; the ceiling is always the end of the chain."""
    assert shaping(Mastering(), RATE_HZ) == []
    assert len(levelling(Mastering(), RATE_HZ, 0.0)) == 3
    assert levelling(Mastering(), RATE_HZ, 3.0)[0] == "volume=3.000dB:precision=float"
