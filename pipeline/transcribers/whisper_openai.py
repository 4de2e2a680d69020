"""openai-whisper, loaded from a file and never by name: by name it would download.

The only page that knows the package `whisper`. Greedy at temperature 0 and nothing else: the package's
own way of sampling hotter where it is unsure gives another text each time. Invariant: after `close`
nothing of the model is left in memory.
"""

import base64
import gc
import gzip
import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from whisper.audio import N_SAMPLES, log_mel_spectrogram
from whisper.decoding import DecodingOptions, DecodingResult, decode
from whisper.model import ModelDimensions, Whisper
from whisper.timing import add_word_timestamps
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer
from whisper.utils import compression_ratio

from pipeline.equipment import Equipment
from pipeline.errors import InputError, SynthesisError
from pipeline.sound.audio import Samples, Word
from pipeline.transcribers.whisper import RATE_HZ, Heard
from pipeline.transcribers.whisper_words import english_normaliser, files_left_open

BATCH = 16
"windows decoded at once; 16 of the medium model take some 3 GB"
BATCH_ON_PROCESSOR = 2
"more gain little there, and a stop would have to wait for them"
# whisper.transcribe's own rule for silence: both must hold.
NO_SPEECH_PROBABILITY = 0.6
SPEECHLESS_LOG_PROBABILITY = -1.0
_FRAMES_PER_SECOND = 100
_UNREADABLE = (RuntimeError, pickle.UnpicklingError, KeyError, EOFError, TypeError, ValueError, OSError)


class OpenAIWhisper:
    """A Whisper checkpoint as OpenAI publishes them."""

    def __init__(self, equipment: Equipment) -> None:
        size = equipment.listening.size
        path = equipment.models / "whisper" / f"{size}.pt"
        self._device = _device(equipment.listening_device)
        self.batch = BATCH if self._device.type == "cuda" else BATCH_ON_PROCESSOR
        model, fingerprint = _read(path, size)
        # The table of heads stays on the processor: sparse tensors do not live everywhere.
        self._heads = model.alignment_heads
        model.register_buffer("alignment_heads", None, persistent=False)
        _tokenizer(model, "en")  # its tables are read once and kept
        self._model: Whisper | None = model.to(self._device).eval()
        self.version = f"openai-whisper {whisper.__version__} {size} {fingerprint}"
        self.languages = _languages(model)
        self._normalise = english_normaliser()

    def hear(self, windows: Sequence[Samples], language: str) -> list[Heard]:
        """Listen, BATCH windows at a time."""
        heard: list[Heard] = []
        for first in range(0, len(windows), BATCH):
            heard += self._hear(windows[first : first + BATCH], language)
        return heard

    def normalise(self, words: str) -> str:
        """Whisper's English normaliser."""
        return self._normalise(words)

    def close(self) -> None:
        """Give the memory back, on the device as well."""
        self._model = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _hear(self, windows: Sequence[Samples], language: str) -> list[Heard]:
        model = self._model
        assert model is not None, "closed"
        try:
            mels = torch.stack([self._mel(window, model.dims.n_mels) for window in windows])
            results = self._decode(model, mels, language)
            tokenizer = _tokenizer(model, language)
            return [
                self._heard(model, tokenizer, result, mel, len(window) / RATE_HZ)
                for result, mel, window in zip(results, mels, windows, strict=True)
            ]
        except RuntimeError as error:
            raise SynthesisError(
                f"Whisper could not listen on {self._device}: {_first_line(error)}",
                hint="Where memory ran out, set a smaller models.whisper.size or models.whisper.device: cpu.",
            ) from error

    def _mel(self, window: Samples, n_mels: int) -> torch.Tensor:
        """Shape (n_mels, 3000): the window, with silence up to 30 s."""
        samples = torch.from_numpy(np.array(window, dtype=np.float32)).to(self._device)
        mel = log_mel_spectrogram(samples, n_mels, padding=N_SAMPLES - len(window))
        return mel.half() if self._half else mel

    def _decode(self, model: Whisper, mels: torch.Tensor, language: str) -> list[DecodingResult]:
        """Decode together; if the device lacks the memory, one after the other."""
        options = DecodingOptions(
            task="transcribe", language=language, temperature=0.0, without_timestamps=True, fp16=self._half
        )
        try:
            return list(decode(model, mels, options))
        except torch.OutOfMemoryError:
            if len(mels) == 1:
                raise
        gc.collect()
        torch.cuda.empty_cache()
        return [decode(model, mel[None], options)[0] for mel in mels]

    def _heard(
        self, model: Whisper, tokenizer: Tokenizer, result: DecodingResult, mel: torch.Tensor, seconds: float
    ) -> Heard:
        no_speech = float(result.no_speech_prob)
        if no_speech > NO_SPEECH_PROBABILITY and result.avg_logprob < SPEECHLESS_LOG_PROBABILITY:
            return Heard(no_speech_probability=no_speech)
        # Above the end of text lie signs and times: no words, though the package decodes them all the same.
        tokens = [token for token in result.tokens if token < tokenizer.eot]
        text = tokenizer.decode(tokens).strip()
        listened = _Listened(model, self._heads, result.audio_features)
        return Heard(
            text=text,
            words=tuple(_word_times(listened, tokenizer, tokens, mel, seconds)),
            no_speech_probability=no_speech,
            compression_ratio=float(compression_ratio(text)) if text else None,
        )

    @property
    def _half(self) -> bool:
        return bool(self._device.type == "cuda")


class _Listened:
    """Stands for the model where words are timed, so that nothing is encoded a second time."""

    def __init__(self, model: Whisper, heads: torch.Tensor, features: torch.Tensor) -> None:
        self.dims, self.device, self.decoder = model.dims, model.device, model.decoder
        self.alignment_heads = heads
        self._features = features

    def __call__(self, _mel: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.decoder(tokens, self._features[None])
        return logits


def _word_times(
    model: _Listened, tokenizer: Tokenizer, tokens: list[int], mel: torch.Tensor, seconds: float
) -> list[Word]:
    """The words with their times, from where the alignment heads look, by dynamic time warping."""
    segment: dict[str, Any] = {"seek": 0, "start": 0.0, "end": seconds, "tokens": tokens}
    add_word_timestamps(
        segments=[segment],
        model=model,
        tokenizer=tokenizer,
        mel=mel,
        num_frames=max(2, round(seconds * _FRAMES_PER_SECOND)),
        last_speech_timestamp=0.0,
    )
    return [
        Word(
            text=word["word"].strip(),
            start_seconds=float(word["start"]),
            end_seconds=float(word["end"]),
            confidence=min(1.0, max(0.0, round(float(word["probability"]), 2))),
        )
        for word in segment["words"]
        if word["word"].strip()
    ]


def _read(path: Path, size: str) -> tuple[Whisper, str]:
    """The model on the processor, and the start of the file's SHA-256."""
    hint = f"Run `python daemon.py fetch-models whisper-{size}`; docs/models.md tells how by hand."
    if not path.is_file():
        raise InputError(f"The Whisper model {size} is not there: {path}.", code="model_missing", hint=hint)
    try:
        with path.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model = Whisper(ModelDimensions(**saved["dims"]))
        model.load_state_dict(saved["model_state_dict"])
    except _UNREADABLE as error:
        raise InputError(
            f"The Whisper model {size} in {path} cannot be read: {_first_line(error)}",
            code="model_missing",
            hint=hint,
        ) from error
    _set_alignment_heads(model, size)
    return model, fingerprint


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _set_alignment_heads(model: Whisper, size: str) -> None:
    """The heads that OpenAI found to follow the words, for a model of this name and shape."""
    known = whisper._ALIGNMENT_HEADS.get(size)
    if known is not None:
        heads = len(gzip.decompress(base64.b85decode(known)))
        if heads == model.dims.n_text_layer * model.dims.n_text_head:
            model.set_alignment_heads(known)


def _tokenizer(model: Whisper, language: str) -> Tokenizer:
    with files_left_open():
        return get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=language, task="transcribe"
        )


def _languages(model: Whisper) -> frozenset[str]:
    return frozenset(tuple(LANGUAGES)[: model.num_languages] if model.is_multilingual else ("en",))


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "mps":
        raise InputError(
            "openai-whisper cannot time words on mps, which has no double precision.",
            code="recogniser_unavailable",
            hint="Set models.whisper.device: cpu.",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"Whisper should run on {name}, but torch finds {torch.cuda.device_count()} CUDA devices.",
            code="recogniser_unavailable",
            hint="Set models.whisper.device to one that is there, or to cpu.",
        )
    return device
