"""What a worker's models run on: the device, the folder of the checkpoints, where measured voices are kept.

A value that the families' loaders are given; knows no configuration and loads nothing. Invariant: the
device is the one that was asked for, there is no other to fall back to.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How Whisper listens."""

    size: str = "base"
    "its checkpoint is `<models>/whisper/<size>.pt`, or the folder `<models>/faster-whisper/<size>`"
    backend: str = "openai-whisper"
    "or faster-whisper"
    device: str | None = None
    "None: that of the engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """Everything a loader may need to know."""

    models: Path
    "the folder of all checkpoints, one folder below it for each"
    measured: Path
    "where what was measured of reference voices is kept; may be deleted at any time"
    device: str = "cpu"
    "cpu, mps or cuda:N, as torch names it; always a string (resemble-ai/chatterbox issue 533)"
    processors: int = 1
    "this worker's share of the machine's"
    engine_mode: str = "upstream"
    "how the Chatterbox engines speak: upstream | exact | fast"
    int8: bool = False
    "whether they round the weights of their products to eight bits (cpu and fast only)"
    listening: Listening = Listening()

    @property
    def listening_device(self) -> str:
        """Where the recogniser runs."""
        return self.listening.device or self.device


BARE = Equipment(models=Path("/nonexistent/models"), measured=Path("/nonexistent/measured"))
"for the embedded members, which need nothing of it"
