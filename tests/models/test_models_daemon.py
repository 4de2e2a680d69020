"""Every Chatterbox engine and the converter through the whole real daemon, on small models."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from pipeline import engines
from pipeline.engines.base import Utterance, Voice
from pipeline.jobs.settings import Synthesis
from pipeline.sound.decode import decode
from tests.acceptance.daemon_running import Daemon
from tests.conftest import DATA

TEXT = "Nobody minds the rain. It will be over soon, they say."
PATIENCE_SECONDS = 110.0
pytestmark = pytest.mark.timeout(240)


class SmallDaemon(Daemon):
    """The daemon whose workers build small models."""

    program = Path(__file__).with_name("small_daemon.py")


def recording(path: Path, text: str, voice: str, *, gain: float = 1.0) -> Path:
    """A sentence of the embedded engine as a file."""
    spoken = engines.load("espeak").speak(
        Utterance(text=text, voice=Voice(name=voice), language="en", synthesis=Synthesis(), seed=1)
    )
    soundfile.write(path, gain * spoken.audio.samples, spoken.audio.rate_hz)
    return path


LONG = (
    "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob."
)


@pytest.fixture(scope="module")
def house(small_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDaemon]:
    """One daemon for all these tests: its worker loads each model once."""
    root = tmp_path_factory.mktemp("house")
    (root / "voices").mkdir()
    recording(root / "voices" / "ann.wav", LONG, "en-us+f2")
    recording(root / "voices" / "bob.wav", LONG, "en-us+m3")
    daemon = SmallDaemon(
        root, models={"folder": str(small_checkpoints)}, workers={"count": 1, "min_free_mb": 1}
    )
    yield daemon.start()  # type: ignore[misc]
    daemon.kill()


def done(house: SmallDaemon, name: str) -> dict[str, Any]:
    """The manifest of a job, once it is there; an error where it failed."""
    manifest, note = house.outbox / f"{name}.json", house.outbox / "failed"
    house.wait(lambda: manifest.exists() or list(note.glob(f"**/{Path(name).name}*")), PATIENCE_SECONDS)
    assert manifest.exists(), [path.read_text() for path in note.glob("**/*.json")]
    found: dict[str, Any] = json.loads(manifest.read_bytes())
    assert found["status"] == "done"
    return found


def job(engine: str, voice: str | None = None, **more: Any) -> str:
    """A job file."""
    settings = {"text": TEXT, "engine": engine, "seed": 7, "check": {"by": "none"}, **more}
    settings["output"] = {"formats": ["wav"]}
    return yaml.safe_dump(settings if voice is None else settings | {"voice": voice})


@pytest.mark.parametrize("engine", ["chatterbox", "chatterbox-multilingual", "chatterbox-turbo"])
def test_an_engine_speaks_through_the_whole_daemon(house: SmallDaemon, engine: str) -> None:
    """From a dropped job file to sound and manifest, in two voices; the voices differ."""
    for voice in ("ann", "bob"):
        house.drop(f"{engine}-{voice}.yaml", job(engine, voice))
    sounds = []
    for voice in ("ann", "bob"):
        manifest = done(house, f"{engine}-{voice}")
        assert manifest["engine"]["name"] == engine
        assert manifest["engine"]["device"] == "cpu"
        assert manifest["engine"]["version"].startswith("0.1.7 (checkpoint ")
        assert manifest["engine"]["watermark"] == "perth 1.0.1"
        assert manifest["check"] == "none: switched off"
        (output,) = manifest["outputs"]
        assert output["sample_rate_hz"] == 24_000
        assert len(TEXT) / 30 < output["duration_seconds"] < len(TEXT) / 6
        assert all(chunk["seed"] for chunk in manifest["chunks"])
        sounds.append(decode(house.outbox / output["path"], 24_000).samples)
    assert not np.array_equal(*sounds)


def test_the_checkpoints_own_voice_speaks_another_language(house: SmallDaemon) -> None:
    """No clip is needed where the checkpoint brings a voice."""
    house.drop("wetter.yaml", job("chatterbox-multilingual", language="de-AT"))
    assert done(house, "wetter")["warnings"] == []


def test_what_a_model_cannot_do_fails_the_job_with_a_sentence(house: SmallDaemon) -> None:
    """Before anything is spoken."""
    house.drop("temps.yaml", job("chatterbox", "ann", language="fr"))
    house.wait(lambda: list((house.outbox / "failed").glob("**/temps*.json")), PATIENCE_SECONDS)
    (note,) = (house.outbox / "failed").glob("**/temps*.json")
    error = json.loads(note.read_bytes())["error"]
    assert error["code"] == "engine_cannot"
    assert "does not speak fr" in error["message"]


def test_extended_issue_57_recordings_dropped_together_are_converted_to_the_voice_of_their_folder(
    house: SmallDaemon, tmp_path: Path
) -> None:
    """Many files, one default, a result for each: as long as its source, and all of them different."""
    house.drop("radio/_defaults.yaml", "engine: chatterbox\nvoice: bob\noutput: {formats: [wav]}\n")
    sources = {"speech": real_recording(tmp_path)}
    for number, text in enumerate(("Good evening.", "The news at nine, read by Ann.")):
        sources[f"item{number}"] = recording(tmp_path / f"item{number}.wav", text, "en-us+f2")
    for name, path in sources.items():
        house.drop(f"radio/{name}{path.suffix}", path.read_bytes())
    sounds = []
    for name, path in sources.items():
        manifest = done(house, f"radio/{name}")
        assert (manifest["kind"], manifest["engine"]["name"]) == ("vc", "chatterbox")
        assert manifest["engine"]["watermark"] == "perth 1.0.1"
        (output,) = manifest["outputs"]
        source = decode(path, 24_000)
        assert output["sample_rate_hz"] == 24_000
        assert output["duration_seconds"] == pytest.approx(source.seconds, abs=0.05)
        sound = decode(house.outbox / output["path"], 24_000).samples[: len(source.samples)]
        assert not np.allclose(sound, source.samples[: len(sound)], atol=0.01)
        sounds.append(sound)
    assert len({sound.tobytes() for sound in sounds}) == len(sources)


def real_recording(folder: Path) -> Path:
    """President Kennedy where the sample data is there, otherwise the embedded engine."""
    if (DATA / "jfk.flac").is_file() and not os.environ.get("VOXSPOOL_NO_DATA"):
        return DATA / "jfk.flac"
    return recording(folder / "speech.wav", f"{LONG} {LONG}", "en-us+m7")


def test_devnen_issue_168_an_idle_worker_lets_go_of_its_models_and_the_next_job_loads_them(
    small_checkpoints: Path, tmp_path: Path
) -> None:
    """The process that held them ends, and another does the next job; no job hears of it."""
    daemon = SmallDaemon(
        tmp_path,
        models={"folder": str(small_checkpoints), "idle_unload_seconds": 1},
        workers={"count": 1, "min_free_mb": 1},
    )
    daemon.start()
    try:
        daemon.drop("first.yaml", job("chatterbox"))
        first = done(daemon, "first")  # type: ignore[arg-type]
        log = tmp_path / "daemon.log"
        daemon.wait(lambda: "the models are let go" in log.read_text(), PATIENCE_SECONDS)
        daemon.drop("second.yaml", job("chatterbox"))
        second = done(daemon, "second")  # type: ignore[arg-type]
        assert first["engine"] == second["engine"]
        assert "killed" not in log.read_text()
    finally:
        daemon.kill()
