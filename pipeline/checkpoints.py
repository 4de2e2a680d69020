"""The models that can be brought: which files each consists of, where they come from, what they weigh.

Knows names and sizes, downloads nothing and loads nothing. Invariant: a model is whole if all its
files are there; what is missing is told by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One model as its loader expects it."""

    name: str
    "its folder below `models.folder`, and what `fetch-models` calls it"
    files: tuple[str, ...]
    "without which it cannot be loaded"
    optional: tuple[str, ...] = ()
    "used where they are there"
    repository: str | None = None
    "on the Hugging Face hub"
    licence: str = ""


_S3GEN = "s3gen.safetensors"
CHATTERBOX = Checkpoint(
    name="chatterbox",
    files=("ve.safetensors", "t3_cfg.safetensors", _S3GEN, "tokenizer.json"),
    optional=("conds.pt",),
    repository="ResembleAI/chatterbox",
    licence="MIT",
)
MULTILINGUAL = Checkpoint(
    name="chatterbox-multilingual",
    files=("ve.pt", "t3_mtl23ls_v2.safetensors", "s3gen.pt", "grapheme_mtl_merged_expanded_v1.json"),
    optional=("conds.pt", "Cangjie5_TC.json"),
    repository="ResembleAI/chatterbox",
    licence="MIT",
)
TURBO = Checkpoint(
    name="chatterbox-turbo",
    files=(
        "ve.safetensors",
        "t3_turbo_v1.safetensors",
        "s3gen_meanflow.safetensors",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
    ),
    optional=("conds.pt", "special_tokens_map.json", "added_tokens.json"),
    repository="ResembleAI/chatterbox-turbo",
    licence="MIT",
)
HUB_CHECKPOINTS: Mapping[str, Checkpoint] = {
    checkpoint.name: checkpoint for checkpoint in (CHATTERBOX, MULTILINGUAL, TURBO)
}


def missing(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Which of its files are not in `folder`, its own folder."""
    return [name for name in checkpoint.files if not (folder / name).is_file()]


def folder_of(models: Path, checkpoint: Checkpoint) -> Path:
    """The checkpoint's own folder; InputError that says what to do where it is not whole."""
    folder = models / checkpoint.name
    absent = missing(folder, checkpoint)
    if absent:
        raise InputError(
            f"The model {checkpoint.name} is not whole in {folder}: {', '.join(absent)} missing.",
            code="model_missing",
            hint=f"Run `python daemon.py fetch-models {checkpoint.name}`; docs/models.md tells how by hand.",
        )
    return folder
