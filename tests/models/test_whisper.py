"""openai-whisper itself on a small random checkpoint: what it is asked, and how it ends."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.equipment import Equipment, Listening
from pipeline.errors import InputError, SynthesisError
from pipeline.sound.audio import Audio, Speech
from pipeline.transcribers import load
from pipeline.transcribers.whisper import WhisperTranscriber
from pipeline.verify import Transcript
from tests.models.whisper_samples import (
    ENGLISH_ONLY,
    equipment_of,
    listening,
    need,
    random_equipment,
    verdict_on,
    write_checkpoint,
)


@pytest.fixture(autouse=True, scope="module")
def _packages() -> None:
    need("torch", "whisper")


@pytest.fixture(scope="module")
def equipment(tmp_path_factory: pytest.TempPathFactory) -> Equipment:
    """A small random multilingual checkpoint."""
    return random_equipment(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def ears(equipment: Equipment) -> Iterator[WhisperTranscriber]:
    """Whisper with it."""
    with listening(equipment) as loaded:
        yield loaded


def noise(seconds: float, seed: int = 1) -> Speech:
    """Something to listen to."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(24_000 * seconds))
    return Speech(audio=Audio(samples.astype(np.float32), 24_000))


class Decoding:
    """Stands for `whisper.decode`: notes what it is asked, and answers as the script says."""

    def __init__(self, answer: Any = None) -> None:
        from pipeline.transcribers import whisper_openai

        self.real, self.answer = whisper_openai.decode, answer
        self.asked: list[Any] = []
        "DecodingOptions of each call"
        self.batches: list[int] = []

    def __call__(self, model: Any, mels: Any, options: Any) -> Any:
        """Note and answer."""
        self.asked.append(options)
        self.batches.append(len(mels))
        return self.real(model, mels, options) if self.answer is None else self.answer(model, mels)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    """In place of the package's `decode`."""
    stands = Decoding()
    monkeypatch.setattr("pipeline.transcribers.whisper_openai.decode", stands)
    return stands


def answers(*texts: str, **measured: float) -> Any:
    """A decoder that hears these texts, one for each window."""

    def answer(model: Any, mels: Any) -> list[Any]:
        from whisper.decoding import DecodingResult
        from whisper.tokenizer import get_tokenizer

        tokenizer = get_tokenizer(True, num_languages=99)
        return [
            DecodingResult(audio_features=features, language="en", tokens=tokenizer.encode(text), text=text,
                           **{"no_speech_prob": 0.0, "avg_logprob": -0.1, **measured})
            for features, text in zip(model.encoder(mels), texts, strict=True)
        ]  # fmt: skip

    return answer


def test_parameters_ignored(ears: WhisperTranscriber, decoding: Decoding) -> None:
    """Every choice reaches the decoder: language, no sampling, no prompt, no prefix, no half precision."""
    ears.transcribe(noise(1), "The expected text.", "pt-BR")
    (options,) = decoding.asked
    assert options.task == "transcribe"
    assert options.language == "pt"
    assert options.temperature == 0.0
    assert options.without_timestamps is True
    assert options.prompt is options.prefix is options.beam_size is options.best_of is None
    assert options.fp16 is False
    assert options.suppress_tokens == "-1"


def test_language_token_reaches_the_model(ears: WhisperTranscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chatterbox-TTS-Extended let Whisper guess: here the decoder starts from the job's language."""
    from whisper.decoding import PyTorchInference
    from whisper.tokenizer import get_tokenizer

    first: list[list[int]] = []
    real = PyTorchInference.logits

    def noted(self: Any, tokens: Any, features: Any) -> Any:
        first.append(tokens[0].tolist())
        return real(self, tokens, features)

    monkeypatch.setattr(PyTorchInference, "logits", noted)
    for language in ("de", "en"):
        first.clear()
        ears.transcribe(noise(1), "", language)
        wanted = get_tokenizer(True, num_languages=99, language=language, task="transcribe")
        assert first[0] == [*wanted.sot_sequence, wanted.no_timestamps]


def test_multilingual_knows_a_hundred_languages(ears: WhisperTranscriber) -> None:
    """By the checkpoint's own number, and no others."""
    assert all(ears.supports(language) for language in ("en", "de-AT", "zh", "pt-BR", "nb", "he"))
    assert not ears.supports("tlh")


def test_english_only_knows_english(tmp_path: Path) -> None:
    """A checkpoint for English alone claims no other language and refuses it."""
    ears = load("whisper", random_equipment(tmp_path, "tiny.en", vocabulary=ENGLISH_ONLY))
    assert ears.supports("en-GB") and not ears.supports("de")
    ears.transcribe(noise(1), "", "en")
    with pytest.raises(SynthesisError, match="de"):
        ears.transcribe(noise(1), "", "de")
    ears.close()


def test_batch_equals_single(ears: WhisperTranscriber, decoding: Decoding) -> None:
    """A speech's transcript does not depend on what else was in the batch."""
    spoken = [(noise(0.5 + at / 3, at), "en" if at % 3 else "de") for at in range(4)]
    together = ears.transcribe_batch(spoken)
    assert decoding.batches == [2, 2]
    assert together == [ears.transcribe(speech, "", language) for speech, language in spoken]


def test_signs_are_no_words(ears: WhisperTranscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of times and tasks are left out, though the package decodes them as `<|notimestamps|>`."""
    texts = [ears.transcribe(noise(1, seed), "", "en").text for seed in range(3)]
    assert not any("<|" in text for text in texts)


def test_hallucinated_text_on_silence(ears: WhisperTranscriber, decoding: Decoding) -> None:
    """What Whisper makes up where it says itself that nobody speaks, and is unsure of, is not heard."""
    decoding.answer = answers(" Thanks for watching", no_speech_prob=0.9, avg_logprob=-1.5)
    transcript = ears.transcribe(noise(1), "", "en")
    assert transcript.text == "" and transcript.words == ()
    assert transcript.no_speech_probability == 0.9
    decoding.answer = answers(" Thanks for watching", no_speech_prob=0.9, avg_logprob=-0.5)
    assert ears.transcribe(noise(1), "", "en").text == "Thanks for watching"


def test_repeated_text_is_noted(tmp_path: Path, decoding: Decoding) -> None:
    """A text that goes round in circles shows in its compression ratio, and all of it is there."""
    ears = load("whisper", random_equipment(tmp_path, positions=32))
    decoding.answer = answers(" and then" * 12)
    transcript = ears.transcribe(noise(2), "", "en")
    assert transcript.text.count("and then") == 12
    assert transcript.compression_ratio is not None and transcript.compression_ratio > 2.4
    ears.close()


def test_extended_issue_40_closing_frees_the_model(equipment: Equipment) -> None:
    """Closing frees the model: nothing holds it any more."""
    ears = load("whisper", equipment)
    ears.transcribe(noise(1), "", "en")
    model = weakref.ref(ears._model._model)  # type: ignore[attr-defined]
    assert model() is not None
    ears.close()
    gc.collect()
    assert model() is None


def test_extended_issue_40_a_batch_too_large_for_the_device_is_heard_one_by_one(
    ears: WhisperTranscriber, decoding: Decoding
) -> None:
    """Where a batch is too much for the device, windows are heard one by one; then it fails in words."""
    import torch

    def scarce(model: Any, mels: Any) -> Any:
        if len(mels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return answers(" yes")(model, mels)

    decoding.answer = scarce
    spoken = [(noise(1, at), "en") for at in range(3)]
    assert [heard.text for heard in ears.transcribe_batch(spoken)] == ["yes"] * 3
    assert decoding.batches == [3, 1, 1, 1]

    def none_left(model: Any, mels: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    decoding.answer = none_left
    with pytest.raises(SynthesisError, match="out of memory") as caught:
        ears.transcribe(noise(1), "", "en")
    assert "models.whisper" in caught.value.hint


def test_a_missing_checkpoint_is_never_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and the command; nothing is asked of the network, whatever the name."""
    import whisper

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(whisper, "load_model", refused)
    monkeypatch.setattr(whisper, "_download", refused)
    with pytest.raises(InputError, match=r"base\.pt") as caught:
        load("whisper", equipment_of(tmp_path, "base"))
    assert caught.value.code == "model_missing"
    assert "python daemon.py fetch-models whisper-base" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    """Half a file is told from a whole one, with what to do."""
    path = tmp_path / "models" / "whisper" / "base.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as caught:
        load("whisper", equipment_of(tmp_path, "base"))
    assert caught.value.code == "model_missing" and "fetch-models" in caught.value.hint


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    """As well as a file with other weights."""
    write_checkpoint(tmp_path / "models" / "whisper" / "base.pt", {"n_mels": 80}, {})
    with pytest.raises(InputError, match="cannot be read"):
        load("whisper", equipment_of(tmp_path, "base"))


@pytest.mark.parametrize(("device", "says"), [("cuda:99", "cuda:99"), ("mps", "mps")])
def test_a_device_that_is_not_there(equipment: Equipment, device: str, says: str) -> None:
    """No falling back to another: the job says what to set."""
    elsewhere = Equipment(
        models=equipment.models, measured=equipment.measured, listening=Listening(size="tiny", device=device)
    )
    with pytest.raises(InputError, match=says) as caught:
        load("whisper", elsewhere)
    assert "models.whisper.device" in caught.value.hint


def test_its_own_device_wins(equipment: Equipment) -> None:
    """`models.whisper.device` over that of the engine."""
    ears = load(
        "whisper",
        Equipment(
            models=equipment.models,
            measured=equipment.measured,
            device="cuda:99",
            listening=Listening(size="tiny", device="cpu"),
        ),
    )
    ears.close()


def test_version_tells_checkpoints_apart(ears: WhisperTranscriber, tmp_path: Path) -> None:
    """Package, size and a fingerprint: another file of the same name gives another cache key."""
    import torch

    equipment = random_equipment(tmp_path)
    path = equipment.models / "whisper" / "tiny.pt"
    saved = torch.load(path, weights_only=True)
    saved["model_state_dict"]["decoder.ln.bias"] += 1
    torch.save(saved, path)
    other = load("whisper", equipment)
    assert ears.version.startswith("openai-whisper 20250625 tiny ")
    assert other.version.startswith("openai-whisper 20250625 tiny ") and other.version != ears.version
    other.close()


def test_published_models_have_their_alignment_heads(tmp_path: Path) -> None:
    """For a name and shape that OpenAI published its heads; for others the later half of the layers."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    from pipeline.transcribers.whisper_openai import _set_alignment_heads

    dims = ModelDimensions(
        n_mels=80, n_audio_ctx=2, n_audio_state=8, n_audio_head=6, n_audio_layer=0,
        n_vocab=2, n_text_ctx=2, n_text_state=6, n_text_head=6, n_text_layer=4,
    )  # fmt: skip
    heads = {}
    for size in ("tiny", "small"):
        model = Whisper(dims)
        _set_alignment_heads(model, size)
        heads[size] = model.alignment_heads.to_dense()
    assert heads["tiny"].sum() == 6 and not torch.equal(heads["tiny"], heads["small"])
    assert heads["small"].tolist() == [[False] * 6] * 2 + [[True] * 6] * 2


NORMALISED = [
    ("The colour of the theatre", "the color of the theater"),
    ("I'm sure he won't", "I am sure he will not"),
    ("Um, he paid $200", "he paid two hundred dollars"),
    ("Dr. Smith's naïve café", "doctor smith's naive cafe"),
    ("In 1895 he was 42.", "In eighteen ninety-five he was forty-two"),
    ("(He laughed.) It’s late", "he laughed it is late"),
]


@pytest.mark.parametrize(("expected", "heard"), NORMALISED)
def test_whispers_normaliser_on_both_sides(ears: WhisperTranscriber, expected: str, heard: str) -> None:
    """What Whisper writes otherwise is no error: spelling, short forms, numbers, hesitation."""
    verdict = verdict_on(ears, Transcript(text=heard), expected, 0.0)
    assert verdict.passed, verdict


@pytest.mark.parametrize("heard", ["two thousand dollars", "two hundred pounds", "to hundred dollar"])
def test_normaliser_hides_no_errors(ears: WhisperTranscriber, heard: str) -> None:
    """Other amounts stay other amounts."""
    assert not verdict_on(ears, Transcript(text=heard), "$200", 0.0).passed
