"""faster-whisper: Whisper on CTranslate2, where it is installed; needs no torch.

The only page that knows the package. A checkpoint is a folder as CTranslate2's converter makes it, with
its `tokenizer.json`: without that file the package would fetch one. Windows are heard one after the
other, since the package batches pieces of one recording only.
"""

import gc
import hashlib
from collections.abc import Sequence
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel

from pipeline.equipment import Equipment
from pipeline.errors import InputError, SynthesisError
from pipeline.sound.audio import Samples, Word
from pipeline.transcribers.whisper import RATE_HZ, WINDOW_SECONDS, Heard
from pipeline.transcribers.whisper_words import english_normaliser

WINDOW_SAMPLES = round(WINDOW_SECONDS * RATE_HZ)
FILES = ("model.bin", "config.json", "tokenizer.json")


class FasterWhisper:
    """A Whisper checkpoint in CTranslate2's form."""

    batch = 1

    def __init__(self, equipment: Equipment) -> None:
        size = equipment.listening.size
        folder = equipment.models / "faster-whisper" / size
        _insist_on_files(folder, size)
        device, _, index = equipment.listening_device.partition(":")
        try:
            self._model: WhisperModel | None = WhisperModel(
                str(folder),
                device=device,
                device_index=int(index or 0),
                compute_type="float16" if device == "cuda" else "float32",
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"faster-whisper cannot load {folder} on {equipment.listening_device}: {error}",
                code="recogniser_unavailable",
                hint="Is it a folder of CTranslate2's, and the device there? docs/models.md tells more.",
            ) from error
        with (folder / "model.bin").open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        self.version = f"faster-whisper {package_version('faster-whisper')} {size} {fingerprint}"
        self.languages = frozenset(self._model.supported_languages)
        self._normalise = english_normaliser()

    def hear(self, windows: Sequence[Samples], language: str) -> list[Heard]:
        """Listen to one window after the other."""
        return [self._hear(window, language) for window in windows]

    def normalise(self, words: str) -> str:
        """Whisper's English normaliser where openai-whisper is installed, too; else the words as they are."""
        return self._normalise(words)

    def close(self) -> None:
        """Give the memory back, on the device as well."""
        if self._model is not None:
            self._model.model.unload_model()
        self._model = None
        gc.collect()

    def _hear(self, window: Samples, language: str) -> Heard:
        assert self._model is not None, "closed"
        try:
            found, _ = self._model.transcribe(
                # Silence up to 30 s, as Whisper was trained; the package fills up with what is no silence.
                np.pad(np.asarray(window, dtype=np.float32), (0, WINDOW_SAMPLES - len(window))),
                language=language,
                beam_size=1,
                best_of=1,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
                word_timestamps=True,
                vad_filter=False,
            )
            segments = list(found)
        except (RuntimeError, ValueError) as error:
            raise SynthesisError(f"faster-whisper could not listen: {error}") from error
        return Heard(
            text=" ".join(segment.text.strip() for segment in segments),
            words=tuple(
                Word(
                    text=word.word.strip(),
                    start_seconds=float(word.start),
                    end_seconds=float(word.end),
                    confidence=min(1.0, max(0.0, round(float(word.probability), 2))),
                )
                for segment in segments
                for word in segment.words or ()
                if word.word.strip()
            ),
            no_speech_probability=max((float(s.no_speech_prob) for s in segments), default=None),
            compression_ratio=max((float(s.compression_ratio) for s in segments), default=None),
        )


def _insist_on_files(folder: Path, size: str) -> None:
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"The faster-whisper model {size} is not whole in {folder}: {', '.join(absent)} missing.",
            code="model_missing",
            hint=f"Run `python daemon.py fetch-models whisper-{size}`; docs/models.md tells how by hand.",
        )
