"""Finished takes by content, so that nothing is spoken twice.

Knows utterances and sound; nothing of jobs. An entry is a wave file and a small JSON beside it,
written last; transcripts are kept beside their take by recogniser. Invariant: what `speech`
returns is byte for byte what the engine returned; a damaged entry counts as absent.
"""

import hashlib
import io
import json
import os
import wave
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from pipeline import crash
from pipeline.engines.base import Utterance
from pipeline.sound.audio import Speech, Word, from_pcm16, to_pcm16
from pipeline.verify import Transcript

FORMAT = 2


def take_key(utterance: Utterance, engine_name: str, engine_version: str, *, random: bool) -> str:
    """What makes one take the same as another: everything that reaches the engine."""
    facts = {
        "format": FORMAT,
        "engine": [engine_name, engine_version],
        "text": utterance.text,
        "voice": utterance.voice.fingerprint,
        "language": utterance.language,
        "synthesis": utterance.synthesis.model_dump(),
        "seed": utterance.seed if random else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


class TakeCache:
    """A folder of takes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def speech(self, key: str) -> Speech | None:
        """The take stored under `key`, or None."""
        sound, sheet = self._paths(key)
        try:
            speech = _speech(sound, _read(sheet))
            os.utime(sheet)  # least recently used goes first
        except (OSError, ValueError, KeyError, TypeError, soundfile.SoundFileError):
            return None  # absent, cut off by a crash, damaged, or pruned meanwhile: it is simply spoken again
        return speech

    def keep(self, key: str, speech: Speech) -> Speech:
        """Store a take; returns it exactly as `speech` will, so that first and later runs agree."""
        sound, sheet = self._paths(key)
        sound.parent.mkdir(exist_ok=True)  # where the state folder is away nothing is made in its place
        samples, rate_hz = to_pcm16(speech.audio), speech.audio.rate_hz
        _write(sound, _wav(samples, rate_hz))
        crash.point("take.written")
        words = None if speech.words is None else [asdict(word) for word in speech.words]
        facts = {"rate_hz": rate_hz, "crc32": zlib.crc32(samples.data), "words": words, "fault": speech.fault}
        _write_json(sheet, facts)
        crash.point("take.kept")
        return Speech(audio=from_pcm16(samples, rate_hz), words=speech.words, fault=speech.fault)

    def transcript(self, key: str, recogniser: str) -> Transcript | None:
        """What `recogniser` (name and version) heard in the take `key`, or None."""
        try:
            return Transcript.from_dict(_read(self._heard(key, recogniser)))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_transcript(self, key: str, recogniser: str, transcript: Transcript) -> None:
        """Remember what was heard."""
        _write_json(self._heard(key, recogniser), transcript.to_dict())

    def _paths(self, key: str) -> tuple[Path, Path]:
        stem = self._folder / key[:2] / key
        return stem.with_suffix(".wav"), stem.with_suffix(".json")

    def _heard(self, key: str, recogniser: str) -> Path:
        digest = hashlib.sha256(recogniser.encode()).hexdigest()[:12]
        return self._folder / key[:2] / f"{key}.{digest}.json"


def _wav(samples: npt.NDArray[np.int16], rate_hz: int) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as stream:
        stream.setparams((1, samples.itemsize, rate_hz, len(samples), "NONE", ""))
        stream.writeframesraw(samples.astype("<i2", copy=False).tobytes())
    return data.getvalue()


def _speech(sound: Path, facts: dict[str, Any]) -> Speech:
    samples, rate_hz = soundfile.read(sound, dtype="int16")
    if (rate_hz, zlib.crc32(samples.data)) != (facts["rate_hz"], facts["crc32"]):
        raise ValueError("the sound is not what was kept")
    words = None if facts["words"] is None else tuple(Word(**word) for word in facts["words"])
    return Speech(audio=from_pcm16(samples, rate_hz), words=words, fault=facts["fault"])


def _write_json(path: Path, value: object) -> None:
    """JSON after its checksum: a damaged time of a word looks as good as a right one."""
    data = json.dumps(value).encode()
    _write(path, b"%08x " % zlib.crc32(data) + data)


def _read(path: Path) -> Any:
    checksum, _, data = path.read_bytes().partition(b" ")
    if int(checksum, 16) != zlib.crc32(data):
        raise ValueError("damaged")
    return json.loads(data)


def _write(path: Path, data: bytes) -> None:
    """Atomic, not durable: an entry lost in a power cut is only spoken again."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
