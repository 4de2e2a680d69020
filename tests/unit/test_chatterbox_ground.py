"""What is looked at before a Chatterbox model is loaded: devices, memory, files, reference clips."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.chatterbox import device, models
from pipeline.chatterbox.reference import TOKEN_SAMPLES, checked, read
from pipeline.errors import EnvironmentFailure, InputError
from pipeline.sound.audio import Audio

GB = 1_000_000_000


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 of 16 GB free and no container around it."""
    tell(tmp_path, free=8 * GB, total=16 * GB)
    monkeypatch.setattr(device, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    return tmp_path


def tell(folder: Path, *, free: int, total: int) -> None:
    """What /proc/meminfo says."""
    (folder / "meminfo").write_text(f"MemTotal: {total // 1024} kB\nMemAvailable: {free // 1024} kB\n")


def weighing(folder: Path, *sizes: int) -> list[Path]:
    """Files of these sizes that take no room."""
    paths = []
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number}.safetensors")
        with open(paths[-1], "wb") as stream:
            stream.truncate(size)
    return paths


def test_a_model_that_fits_is_loaded(memory: Path) -> None:
    """3 GB of weights, as files and as networks, and room to work; 4 GB would be too much."""
    device.refuse_lack_of_memory("cpu", weighing(memory, 2 * GB, GB))
    with pytest.raises(EnvironmentFailure):
        device.refuse_lack_of_memory("cpu", weighing(memory, 2 * GB, 2 * GB))


def test_a_model_larger_than_the_machine_fails_the_job(memory: Path) -> None:
    """No waiting helps."""
    with pytest.raises(
        InputError, match=r"takes about 20\.5 GB of memory; cpu has 16\.0 GB in all"
    ) as caught:
        device.refuse_lack_of_memory("cpu", weighing(memory, 10 * GB))
    assert caught.value.code == "device_memory"


def test_a_model_that_does_not_fit_now_waits(memory: Path) -> None:
    """Another program holds the memory; the job loses no attempt over it."""
    tell(memory, free=3 * GB, total=16 * GB)
    with pytest.raises(EnvironmentFailure, match=r"cpu has 3\.0 GB of 16\.0 GB free"):
        device.refuse_lack_of_memory("cpu", weighing(memory, 2 * GB))


def test_a_containers_limit_counts(memory: Path) -> None:
    """What /proc tells is the whole machine's."""
    (memory / "memory.max").write_text(f"{4 * GB}\n")
    (memory / "memory.current").write_text(f"{GB}\n")
    with pytest.raises(InputError, match=r"cpu has 4\.0 GB in all"):
        device.refuse_lack_of_memory("cpu", weighing(memory, 2 * GB))
    (memory / "memory.max").write_text("max\n")
    device.refuse_lack_of_memory("cpu", weighing(memory, 2 * GB))


def test_a_system_that_does_not_tell_is_believed(memory: Path) -> None:
    """There is no /proc on a Mac."""
    (memory / "meminfo").unlink()
    device.refuse_lack_of_memory("cpu", weighing(memory, 100 * GB))


def test_checkpoints_are_told_apart(tmp_path: Path) -> None:
    """By what is in the files, wherever they lie; a take of other weights is another take."""
    first = weighing(tmp_path, 300_000)
    before = models.fingerprint(first)
    assert models.fingerprint(first) == before
    for at in (0, 299_999):
        with open(first[0], "r+b") as stream:
            stream.seek(at)
            stream.write(b"x")
        assert models.fingerprint(first) != before
        before = models.fingerprint(first)


def noise(seconds: float, level: float = 0.1) -> Audio:
    """A clip with something to hear."""
    samples = np.random.default_rng(1).standard_normal(round(seconds * 24_000))
    return Audio((level * samples).astype(np.float32), 24_000)


def test_extended_issue_31_a_clip_is_cut_to_whole_tokens() -> None:
    """Uneven clips gave "Reference mel length is not equal" and, in another tool, the voice before."""
    assert len(checked(noise(2.01), 1.0).samples) % TOKEN_SAMPLES == 0


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_subtitle_edit_pr_10972_a_clip_of_any_rate_and_channels_is_the_voice(
    rate_hz: int, tmp_path: Path
) -> None:
    """Elsewhere only 24 kHz mono was; others were copied as they were, and the usual voice spoke."""
    at = np.arange(2 * rate_hz) / rate_hz
    left, right = (0.4 * np.sin(2 * np.pi * hz * at) for hz in (220, 330))
    soundfile.write(tmp_path / "clip.flac", np.stack([left, right], axis=1), rate_hz)
    clip = read(tmp_path / "clip.flac", 1.0)
    assert (clip.rate_hz, clip.seconds) == (24_000, 2.0)
    spectrum = np.abs(np.fft.rfft(clip.samples))
    assert sorted(np.argsort(spectrum)[-2:] / 2) == pytest.approx([220, 330], abs=0.5)


@pytest.mark.parametrize(
    ("clip", "code"),
    [(noise(0.5), "reference_short"), (noise(3, level=1e-4), "reference_silent")],
    ids=["short", "silent"],
)
def test_a_clip_that_tells_no_voice_is_refused_with_advice(clip: Audio, code: str) -> None:
    """Before the model hears it."""
    with pytest.raises(InputError) as caught:
        checked(clip, 1.0)
    assert caught.value.code == code
    assert "5 to 30 s of one person" in caught.value.hint
