"""faster-whisper through its real package, on the trained checkpoint converted for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines.base import Engine
from pipeline.errors import InputError
from pipeline.transcribers import load
from pipeline.transcribers.whisper import WhisperTranscriber
from tests.models.whisper_converted import FILES, convert
from tests.models.whisper_samples import closed_equipment, equipment_of, listening, need, say, verdict_on

TEXT = "Seven birds came over the water."
OTHER = "Nobody knows the story of the young doctor."


@pytest.fixture(autouse=True, scope="module")
def _packages() -> None:
    need("torch", "whisper", "faster_whisper", "ctranslate2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the trained checkpoint in both forms."""
    made = tmp_path_factory.mktemp("faster")
    closed_equipment(made)
    convert(made / "models" / "whisper" / "base.pt", made / "models" / "faster-whisper" / "base")
    return made


@pytest.fixture(scope="module")
def ears(folder: Path) -> Iterator[WhisperTranscriber]:
    """faster-whisper with it."""
    with listening(equipment_of(folder, "base", backend="faster-whisper")) as loaded:
        yield loaded


def test_hears_what_is_said(ears: WhisperTranscriber, engine: Engine) -> None:
    """The converted weights hear the words; the small checkpoint does not always know where to stop here."""
    for text, other in ((TEXT, OTHER), (OTHER, TEXT)):
        heard = ears.transcribe(say(engine, text), text, "en-US")
        assert heard.text.startswith(" ".join(text.lower().split()[:3]))
        assert [word.text for word in heard.words] == heard.text.split()
        rates = [verdict_on(ears, heard, expected, 0.15).word_error_rate for expected in (text, other)]
        assert rates[0] < 0.5 < rates[1]


def test_same_speech_same_transcript(ears: WhisperTranscriber, engine: Engine) -> None:
    """Without its usual sampling where it is unsure, and in a batch as alone."""
    spoken = [(say(engine, text), "en") for text in (TEXT, OTHER)]
    first = ears.transcribe_batch(spoken)
    assert first == [ears.transcribe(speech, "", "en") for speech, _ in spoken]


def test_says_what_it_is(ears: WhisperTranscriber) -> None:
    """Package and size, for the manifest and the cache key; another package is another key."""
    assert ears.name == "whisper"
    assert ears.version.startswith("faster-whisper 1.")
    assert ears.supports("pt-BR") and not ears.supports("tlh")


@pytest.mark.parametrize("missing", FILES)
def test_missing_files_are_named(folder: Path, tmp_path: Path, missing: str) -> None:
    """Above all the tokenizer, which the package would else ask the network for."""
    whole, torn = (
        folder / "models" / "faster-whisper" / "base",
        tmp_path / "models" / "faster-whisper" / "base",
    )
    torn.mkdir(parents=True)
    for name in FILES:
        if name != missing:
            (torn / name).symlink_to(whole / name)
    with pytest.raises(InputError, match=missing) as caught:
        load("whisper", equipment_of(tmp_path, "base", backend="faster-whisper"))
    assert caught.value.code == "model_missing"
    assert "fetch-models whisper-base" in caught.value.hint


def test_a_damaged_folder(tmp_path: Path) -> None:
    """Files that are no model."""
    folder = tmp_path / "models" / "faster-whisper" / "base"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"{}")
    with pytest.raises(InputError, match="cannot load"):
        load("whisper", equipment_of(tmp_path, "base", backend="faster-whisper"))
