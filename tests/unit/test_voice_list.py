"""`voices`: what is shown of the library, and the jobs of its previews."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest
from ledger_samples import a_drop
from rich.console import Console

from pipeline import cli, voice_list
from pipeline.config import Config, load_config
from pipeline.engines import chatterbox
from pipeline.intake.freeze import Freezer
from pipeline.jobs.spec import parse_job_file
from pipeline.layout import Layout
from pipeline.voices import Library

RATE_HZ = 24_000


def clip(path: Path, seconds: float = 8.0, level: float = 0.3, channels: int = 1) -> None:
    """Bursts of a vowel, as wav."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * 130 * time) * ((time % 0.4) < 0.3) * level
    pcm = np.repeat((tone * 32767).astype("<i2"), channels)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels), file.setsampwidth(2), file.setframerate(RATE_HZ)
        file.writeframes(pcm.tobytes())


@pytest.fixture
def config_file(tmp_path: Path, config: Config) -> Path:
    """A configuration whose four folders lie beside it; chatterbox speaks."""
    path = tmp_path / "config.yaml"
    path.write_text("defaults: {engine: chatterbox}\nintake: {settle_seconds: 0}\n")
    return path


@pytest.fixture
def voices(layout: Layout) -> Path:
    """A library with one voice of each kind."""
    folder = layout.voices
    clip(folder / "anna.wav")
    (folder / "anna.yaml").write_text(
        "description: Reads, calm\nlanguage: de-AT\nespeak: de\n"
        "defaults: {engine: chatterbox-multilingual, seed: 7}\n"
    )
    clip(folder / "brief.wav", seconds=2.0, channels=2)
    clip(folder / "mute.wav", level=0.0)
    (folder / "text.wav").write_text("no sound")
    (folder / "typo.yaml").write_text("languag: de\n")
    (folder / "robot.yaml").write_text("espeak: en-gb\n")
    return folder


def run(config_file: Path, *words: str) -> int:
    """`daemon.py voices`."""
    return cli.main(["--config", str(config_file), "voices", *words])


def test_every_voice_has_its_line_and_what_is_wrong_fails(
    config_file: Path, voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One wrong sheet keeps no other voice from being shown; the exit code tells scripts."""
    assert run(config_file) == 1
    assert capsys.readouterr().out.splitlines() == [
        "anna: ok, 8.0 s, 24 kHz, mono, de-AT",
        "  Reads, calm",
        "  defaults: engine chatterbox-multilingual, seed 7",
        "brief: advice, 2.0 s, 24 kHz, stereo",
        "  it lasts 2.0 s, too short for a good likeness: 5 to 15 s are best.",
        "  its 2 channels are mixed into one when it is used.",
        "mute: does not work, 8.0 s, 24 kHz, mono",
        "  it is silent, or nearly so (-96 dBFS): record it anew.",
        "robot: does not work",
        "  it has no recording, and chatterbox needs one.",
        "text: does not work",
        "  text.wav cannot be read as a recording: its content is none of wav, mp3, flac, ogg, opus, m4a or"
        " aac, whatever its name says. Drop the recording as wav, mp3, flac, ogg, opus, m4a or aac.",
        "typo: does not work",
        "  voices/typo.yaml, line 1: languag: unknown key; did you mean language? Mend the voice sheet.",
    ]
    assert run(config_file, "anna", "brief") == 0
    assert run(config_file, "ana") == 1
    assert "there is no voice ana in the voices folder Did you mean anna?" in capsys.readouterr().out


def test_on_a_terminal_it_is_a_table(config_file: Path, voices: Path) -> None:
    """Facts in columns, words below; eighty columns are enough."""
    config = load_config(config_file)
    library = Library(config.voices_path)
    rows = list(voice_list.look(library, library.names(), config))
    console = Console(width=80, file=io.StringIO())
    with console.capture() as captured:
        console.print(voice_list.table(rows))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[0].split() == ["voice", "state", "length", "rate", "channels", "language"]
    assert lines[1].split() == ["anna", "ok", "8.0", "s", "24", "kHz", "mono", "de-AT"]
    assert "  defaults: engine chatterbox-multilingual, seed 7" in lines
    assert max(map(len, lines)) <= 80


def test_an_empty_library_says_how_to_begin(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is no fault."""
    assert run(config_file) == 0
    assert "There is no voice in" in capsys.readouterr().out


def test_what_speaks_decides_what_is_wrong(config_file: Path, voices: Path) -> None:
    """A voice's own engine goes before the configuration's; a stand-in makes up for a bad clip."""
    clip(voices / "turbo.wav", seconds=4.0)
    (voices / "turbo.yaml").write_text("defaults: {engine: chatterbox-turbo}\n")
    (voices / "mute.yaml").write_text("espeak: en\n")

    def states(text: str) -> dict[str, str]:
        config_file.write_text(text)
        library = Library(voices)
        return {
            row.name: row.state for row in voice_list.look(library, library.names(), load_config(config_file))
        }

    assert states("defaults: {engine: chatterbox}") == {
        "anna": "ok",
        "brief": "advice",
        "mute": "does not work",
        "robot": "does not work",
        "text": "does not work",
        "turbo": "does not work",
        "typo": "does not work",
    }
    embedded = states("")
    assert (embedded["mute"], embedded["robot"], embedded["turbo"]) == ("advice", "ok", "does not work")


def test_a_long_recording_is_told_by_its_whole_length(config_file: Path, layout: Layout) -> None:
    """Though only two minutes of it are looked at."""
    clip(layout.voices / "long.wav", seconds=130.0)
    (row,) = voice_list.look(Library(layout.voices), ["long"], load_config(config_file))
    assert row.measured is not None and row.measured.seconds == 130.0 and row.state == "advice"


# -- previews --------------------------------------------------------------------------------------


def test_a_preview_is_a_job_in_the_inbox(
    config_file: Path, voices: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    """For each voice that works, in its language; of the others it is told why. The same again is no harm."""
    assert run(config_file, "--preview") == 1
    said = capsys.readouterr()
    folder = layout.inbox / "voices"
    assert said.out.split() == [str(folder / "anna.yaml"), str(folder / "brief.yaml")]
    assert "mute: it is silent" in said.err and "typo: voices/typo.yaml, line 1" in said.err
    assert sorted(path.name for path in folder.iterdir()) == ["anna.yaml", "brief.yaml"]
    (request,) = parse_job_file((folder / "anna.yaml").read_bytes(), "anna.yaml")
    assert (request.text, request.settings.voice) == (voice_list.PREVIEWS["de"], "anna")
    assert request.settings.language == "en" and "language" not in request.settings.model_fields_set
    assert run(config_file, "--preview", "anna") == 0


def test_a_language_without_a_sentence_gets_the_english_one(config_file: Path, layout: Layout) -> None:
    """And says so to the engine."""
    clip(layout.voices / "a.wav")
    (layout.voices / "a.yaml").write_text("language: is\nespeak: is\ndefaults: {engine: espeak}\n")
    config = load_config(config_file)
    (row,) = voice_list.look(Library(layout.voices), ["a"], config)
    (request,) = parse_job_file(voice_list.preview_job(row, Library(layout.voices), config), "a.yaml")
    assert (request.text, request.settings.language) == (voice_list.PREVIEWS["en"], "en")


def test_there_is_a_sentence_for_each_language_of_the_multilingual_engine() -> None:
    """One chunk each: a preview is one take."""
    assert set(voice_list.PREVIEWS) == set(chatterbox.LANGUAGES)
    for language, text in voice_list.PREVIEWS.items():
        assert 20 <= len(text) <= 100, language


def test_a_preview_has_the_voices_own_defaults(config_file: Path, voices: Path, layout: Layout) -> None:
    """Frozen as any job: the clip by its hash, language and settings of the sheet, the rest as configured."""
    (voices / "anna.yaml").write_text(
        "language: de\ndefaults: {engine: chatterbox-multilingual, pauses: {sentence_ms: 400}, seed: 7}\n"
    )
    run(config_file, "--preview", "anna")
    layout.claimed("d1").mkdir(parents=True)
    (layout.inbox / "voices" / "anna.yaml").rename(layout.claimed("d1") / "anna.yaml")
    (spec,) = Freezer(layout, load_config(config_file)).specs(a_drop(relative="voices/anna.yaml"))
    assert spec.voice.clip == str(voices / "anna.wav") and len(spec.voice.clip_sha256 or "") == 64
    settings = spec.settings
    assert (settings.engine, settings.language, settings.seed) == ("chatterbox-multilingual", "de", 7)
    assert (settings.pauses.sentence_ms, settings.pauses.paragraph_ms) == (400, 800)


def test_an_english_engine_is_not_asked_for_german(config_file: Path, voices: Path) -> None:
    """It would refuse each job; the multilingual one does not."""
    (voices / "brief.yaml").write_text("language: de\ndefaults: {engine: chatterbox-turbo}\n")
    library, config = Library(voices), load_config(config_file)
    (row,) = voice_list.look(library, ["brief"], config)
    assert "it speaks de, and chatterbox-turbo speaks English only" in " ".join(r.text for r in row.remarks)
    (voices / "brief.yaml").write_text("language: de\ndefaults: {engine: chatterbox-multilingual}\n")
    (row,) = voice_list.look(library, ["brief"], config)
    assert row.state == "advice"
