"""The models of the family: which class loads which files, and what each wants of a reference clip.

Knows the package's classes and the checkpoints' folders. Invariant: a model is loaded from its own folder
and from nowhere else, onto the device that was named, and only where it fits.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline import checkpoints
from pipeline.chatterbox import decoders, device
from pipeline.chatterbox.package import LOCK, Package, package, quiet, self_check
from pipeline.checkpoints import Checkpoint
from pipeline.equipment import Equipment
from pipeline.errors import EnvironmentFailure, InputError

THIRD_MULTILINGUAL = "t3_mtl23ls_v3.safetensors"
SECOND_MULTILINGUAL = "t3_mtl23ls_v2.safetensors"
BUILTIN_VOICE = "conds.pt"
_END_BYTES = 65_536

NANO = Checkpoint(
    name="chatterbox-nano",
    files=tuple(
        "t3_nano_v1.safetensors" if name == "t3_turbo_v1.safetensors" else name
        for name in checkpoints.TURBO.files
    ),
    optional=checkpoints.TURBO.optional,
    repository="ResembleAI/chatterbox-nano",
    licence="MIT",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One of the package's speech models."""

    name: str
    "the engine, as in the job file"
    checkpoint: Checkpoint
    model_class: str
    "the field of `Package` that holds it"
    prompt_seconds: float
    "how much of a reference clip T3 listens to"
    least_reference_seconds: float
    loudness_rule: str = ""
    "what the model does to the level of a clip before it measures the voice"
    features: Mapping[str, Any] = field(default_factory=dict)
    "what `from_local` is given beside folder and device"
    feature: str = ""
    "the same for people"

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that loading reads, where it is there."""
        return (*self.checkpoint.files, *self.checkpoint.optional)


ENGLISH = Family(
    name="chatterbox",
    checkpoint=checkpoints.CHATTERBOX,
    model_class="english",
    prompt_seconds=6.0,
    least_reference_seconds=1.0,
)
MULTILINGUAL = Family(
    name="chatterbox-multilingual",
    checkpoint=checkpoints.MULTILINGUAL,
    model_class="multilingual",
    prompt_seconds=6.0,
    least_reference_seconds=1.0,
)
TURBO = Family(
    name="chatterbox-turbo",
    checkpoint=checkpoints.TURBO,
    model_class="turbo",
    prompt_seconds=15.0,
    # The package asserts more than five seconds.
    least_reference_seconds=5.1,
    loudness_rule="-27 LUFS",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model on its device."""

    model: Any
    "an instance of the package's class"
    family: Family
    folder: Path
    device: str
    version: str
    "of the package and the checkpoint; part of every cache key"
    watermark: str


def load(family: Family, equipment: Equipment) -> Loaded:
    """Load onto `equipment.device`.

    Raises InputError (engine_unavailable, model_missing, device_missing, device_memory) and
    EnvironmentFailure where another program holds the memory that it takes.
    """
    with LOCK:
        family, folder = chosen(family, equipment.models)
        found = package()
        family = with_features(family, folder, found)
        device.refuse_missing(equipment.device)
        files = [folder / name for name in family.files if (folder / name).is_file()]
        device.refuse_lack_of_memory(equipment.device, files)
        kind = getattr(found, family.model_class)
        with quiet(), told_as_ours(family.checkpoint.name, folder, equipment.device):
            model = kind.from_local(folder, equipment.device, **dict(family.features))
        self_check(model.watermarker)
        decoders.share(model, decoder_file(family, folder), equipment.device)
        return Loaded(
            model=model,
            family=family,
            folder=folder,
            device=equipment.device,
            version=version(found, files, family.feature),
            watermark=found.watermark,
        )


@contextmanager
def told_as_ours(name: str, folder: Path, where: str) -> Iterator[None]:
    """What loading raises: InputError (model_broken) for files that are not the model's.

    EnvironmentFailure for a device whose memory ran out in spite of the estimate.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EnvironmentFailure(f"The memory of {where} ran out while {name} was loaded.") from error
    except (
        RuntimeError,
        ValueError,
        KeyError,
        AssertionError,
        EOFError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"The files of the model {name} in {folder} cannot be loaded: {reason}",
            hint="They are damaged or another model's: delete them and run"
            f" `python daemon.py fetch-models {name}`.",
            code="model_broken",
        ) from error


def chosen(family: Family, models: Path) -> tuple[Family, Path]:
    """What to load, and where it lies: Nano in place of Turbo where Nano alone was brought.

    Raises InputError (model_missing).
    """
    if family is TURBO and checkpoints.missing(models / family.checkpoint.name, family.checkpoint):
        nano = models / NANO.name
        if not checkpoints.missing(nano, NANO):
            _refuse_unknown_nano()
            return replace(family, checkpoint=NANO, features={"nano": True}, feature="nano"), nano
    return family, checkpoints.folder_of(models, family.checkpoint)


def _refuse_unknown_nano() -> None:
    found = package()
    if not found.knows_nano:
        raise InputError(
            f"The installed chatterbox-tts {found.version} cannot load the model chatterbox-nano.",
            hint="Install a later one, or run `python daemon.py fetch-models chatterbox-turbo`.",
            code="engine_unavailable",
        )


def with_features(family: Family, folder: Path, found: Package) -> Family:
    """The third multilingual T3 where the package can be told to load it and the file was brought."""
    third = folder / THIRD_MULTILINGUAL
    if family is not MULTILINGUAL or not found.knows_third_multilingual or not third.is_file():
        return family
    files = tuple(
        THIRD_MULTILINGUAL if name == SECOND_MULTILINGUAL else name for name in family.checkpoint.files
    )
    return replace(
        family,
        checkpoint=replace(family.checkpoint, files=files),
        features={"t3_model": "v3"},
        feature="multilingual v3",
    )


def decoder_file(family: Family, folder: Path) -> Path:
    """The file with S3Gen's weights."""
    return folder / next(name for name in family.checkpoint.files if name.startswith("s3gen"))


def version(found: Package, files: list[Path], feature: str = "") -> str:
    """`0.1.7 (checkpoint 1a2b3c4d)`: what speaks, for manifests and cache keys."""
    told = f"{feature}, " if feature else ""
    return f"{found.version} ({told}checkpoint {fingerprint(files)})"


def fingerprint(files: list[Path]) -> str:
    """Tells checkpoints apart by size and both ends of each file; reading gigabytes would take a minute."""
    digest = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        with open(path, "rb") as stream:
            head = stream.read(_END_BYTES)
            stream.seek(max(0, size - _END_BYTES))
            digest.update(f"{path.name} {size} ".encode() + head + stream.read())
    return digest.hexdigest()[:8]
