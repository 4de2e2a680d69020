"""What was measured of reference voices: on disk, and on the device of the last four.

Knows clips and the package's Conditionals. Invariants: what is kept was saved before it was ever spoken
with, under everything that it depends on; whoever speaks is given a copy, never the kept one itself.
"""

import contextlib
import hashlib
import io
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from pipeline.chatterbox.models import BUILTIN_VOICE, Loaded
from pipeline.chatterbox.reference import as_wav, read
from pipeline.errors import InputError
from pipeline.files import atomic_write, sha256_of

FORMAT = 1
ON_DEVICE = 4
"each is under a megabyte, but whole libraries of voices go through a worker"
ON_DISK = 500
_DIGEST_BYTES = 32


class Measured:
    """The voices of one loaded model. Use it while holding the package's lock."""

    def __init__(self, loaded: Loaded, folder: Path) -> None:
        self._loaded = loaded
        self._folder = folder
        # The loader leaves the checkpoint's own voice on the model, where each call would fall back to it.
        self._builtin = loaded.model.conds
        self._on_device: OrderedDict[str, Any] = OrderedDict()
        loaded.model.conds = None

    def voice(self, clip: Path | None, clip_sha256: str | None, exaggeration: float) -> Any:
        """Conditionals to speak with once: a clip's, or the checkpoint's own. Raises InputError."""
        kept = self._own() if clip is None else self._of_clip(clip, clip_sha256)
        return _copy(kept, exaggeration)

    def drop(self) -> None:
        """Take what was measured off the device; it is on disk."""
        self._on_device.clear()

    @property
    def held(self) -> int:
        """How many are on the device."""
        return len(self._on_device)

    def _own(self) -> Any:
        if self._builtin is None:
            raise InputError(
                f"The model {self._loaded.family.checkpoint.name} came without a voice of its own.",
                hint=f"Name a recording as `voice`, or bring {BUILTIN_VOICE} (docs/models.md).",
                code="engine_cannot",
            )
        return self._builtin

    def _of_clip(self, clip: Path, clip_sha256: str | None) -> Any:
        key = self._key(clip_sha256 or sha256_of(clip))
        found = self._on_device.pop(key, None) or self._from_disk(key) or self._measure(key, clip)
        self._on_device[key] = found
        while len(self._on_device) > ON_DEVICE:
            self._on_device.popitem(last=False)
        return found

    def _key(self, clip_sha256: str) -> str:
        """Voices of one model are of no use to another, and a clip at another level is another voice."""
        loaded = self._loaded
        model = f"{type(loaded.model).__name__} {loaded.version} {loaded.family.loudness_rule}"
        return hashlib.sha256(f"{FORMAT} {clip_sha256} {model}".encode()).hexdigest()

    def _measure(self, key: str, clip: Path) -> Any:
        import torch

        model = self._loaded.model
        audio = read(clip, self._loaded.family.least_reference_seconds)
        try:
            # The package leaves gradients on: each voice would hold 200 to 300 MB (issues 205, 218).
            with torch.no_grad():
                model.prepare_conditionals(as_wav(audio))
            measured = model.conds
        finally:
            model.conds = None
        self._save(key, measured)
        return measured

    def _save(self, key: str, measured: Any) -> None:
        """Kept for later runs; a folder that cannot be written to costs time, not the job."""
        stream = io.BytesIO()
        measured.save(stream)
        data = stream.getvalue()
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            atomic_write(self._path(key), hashlib.sha256(data).digest() + data, durable=False)
            self._thin_out()

    def _from_disk(self, key: str) -> Any | None:
        path = self._path(key)
        try:
            whole = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, data = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None  # cut off or damaged: it is simply measured again
        kind: Any = type(self._loaded.model)
        conditionals = _module_of(kind).Conditionals
        return conditionals.load(io.BytesIO(data), map_location=self._loaded.device)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.pt"

    def _thin_out(self) -> None:
        """The least recently used go first."""
        kept = sorted(self._folder.glob("*.pt"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[: max(0, len(kept) - ON_DISK)]:
            path.unlink(missing_ok=True)


def _module_of(kind: Any) -> Any:
    import sys

    return sys.modules[kind.__module__]


def _copy(kept: Any, exaggeration: float) -> Any:
    """Speaking fills in T3's part and casts S3Gen's: that happens to this copy."""
    import torch

    condition = type(kept.t3)(
        speaker_emb=kept.t3.speaker_emb,
        cond_prompt_speech_tokens=kept.t3.cond_prompt_speech_tokens,
        emotion_adv=torch.full((1, 1, 1), exaggeration, device=kept.t3.speaker_emb.device),
    )
    return type(kept)(condition, dict(kept.gen))
