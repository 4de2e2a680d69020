"""S3Gen on its own: from a recording's speech tokens to the same speech in another voice.

Knows the package's converter class. Invariants: one S3Gen serves engine and converter of a device; nothing of
a target voice stays behind on the model, where it could be the next job's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import checkpoints
from pipeline.chatterbox import decoders, device
from pipeline.chatterbox.models import told_as_ours, version
from pipeline.chatterbox.package import LOCK, package, quiet, self_check
from pipeline.chatterbox.reference import RATE_HZ, TOKEN_SAMPLES
from pipeline.chatterbox.speaker import free_memory, seeded
from pipeline.checkpoints import Checkpoint
from pipeline.equipment import Equipment
from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, Samples

FILES = Checkpoint(
    name=checkpoints.CHATTERBOX.name,
    files=("s3gen.safetensors",),
    repository=checkpoints.CHATTERBOX.repository,
    licence=checkpoints.CHATTERBOX.licence,
)
SEED = 1
"the same for every recording, so that a retry gives the same file"
PROMPT_SECONDS = 10.0
LEAST_SAMPLES = 10 * TOKEN_SAMPLES
"shorter sounds are converted with silence behind them: the spectrogram looks 60 ms to each side"
_TOKEN_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What S3Gen is told of a voice; never changed."""

    values: dict[str, Any]


class TokenVoice:
    """S3Gen on its device."""

    def __init__(self, equipment: Equipment) -> None:
        with LOCK:
            folder = checkpoints.folder_of(equipment.models, FILES)
            file = folder / FILES.files[0]
            found = package()
            device.refuse_missing(equipment.device)
            shared = decoders.find(file, equipment.device)
            with quiet(), told_as_ours(FILES.name, folder, equipment.device):
                if shared is None:
                    device.refuse_lack_of_memory(equipment.device, [file])
                    self._model: Any = found.converter.from_local(folder, equipment.device)
                    decoders.share(self._model, file, equipment.device)
                else:
                    self._model = found.converter(shared, equipment.device)
                self_check(self._model.watermarker)
            # The loader leaves the checkpoint's own voice here, where a failed target would fall back to it.
            self._model.ref_dict = None
            self.version = version(found, [file])
            self.watermark = found.watermark

    def measure(self, reference: Audio) -> Conditions:
        """Learn a voice from a clip at 24 kHz."""
        import torch

        clip = reference.between(0, PROMPT_SECONDS)
        with LOCK, quiet(), torch.no_grad():
            measured = self._s3gen().embed_ref(clip.samples.copy(), RATE_HZ, device=self._model.device)
        return Conditions(values=measured)

    def speak(self, audio: Audio, conditions: Conditions) -> Samples:
        """`audio` (24 kHz) in the voice, up to 40 ms longer.

        Raises SynthesisError (conversion, out_of_memory).
        """
        import torch

        with LOCK, quiet(), seeded(SEED), torch.inference_mode():
            try:
                heard = self._at_token_rate(audio)
                tokens, _ = self._s3gen().tokenizer(heard)
                spoken, _ = self._s3gen().inference(speech_tokens=tokens, ref_dict=dict(conditions.values))
                samples: Samples = spoken.squeeze(0).float().cpu().numpy()
            except (torch.OutOfMemoryError, MemoryError) as error:
                free_memory()
                raise SynthesisError(
                    "The device ran out of memory during the conversion.",
                    hint="Make conversion.chunk_seconds smaller: memory grows with its square.",
                    code="out_of_memory",
                ) from error
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                raise SynthesisError(
                    f"The recording could not be converted: {type(error).__name__}: {error}",
                    code="conversion",
                ) from error
        if not np.isfinite(samples).all():
            raise SynthesisError("The converter returned values that are not numbers.", code="conversion")
        lengthened = max(0, LEAST_SAMPLES - _whole_tokens(len(audio.samples)))
        return samples[: len(samples) - lengthened]

    def mark(self, samples: Samples) -> Samples:
        """The watermark goes on last: only the level may be changed after it."""
        import torch

        padded = np.pad(samples, (0, max(0, LEAST_SAMPLES - len(samples))))
        with LOCK, quiet(), torch.inference_mode():
            marked = self._model.watermarker.apply_watermark(padded, sample_rate=RATE_HZ)
        result: Samples = np.asarray(marked, dtype=np.float32)[: len(samples)]
        return result

    def close(self) -> None:
        """Let go of S3Gen; an engine that uses it keeps it."""
        with LOCK:
            self._model = None
            free_memory()

    def _s3gen(self) -> Any:
        return self._model.s3gen

    def _at_token_rate(self, audio: Audio) -> Any:
        """Shape (1, n) at 16 kHz, a whole number of tokens long."""
        import torch
        import torchaudio

        samples = audio.samples
        wanted = max(LEAST_SAMPLES, _whole_tokens(len(samples)))
        padded = torch.from_numpy(np.pad(samples, (0, wanted - len(samples))))[None]
        resampled = torchaudio.functional.resample(padded, RATE_HZ, _TOKEN_RATE_HZ)
        return resampled.to(self._model.device)


def _whole_tokens(samples: int) -> int:
    """The next whole number of tokens, in samples."""
    return -(-samples // TOKEN_SAMPLES) * TOKEN_SAMPLES
