"""Which models there are to bring: their names, folders, files and where they come from.

Knows tables and the configuration; asks nobody and reads no disk. Invariant: what is fetched and under
which name it lies is said here and in `checkpoints`, never by a server.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.chatterbox.models import NANO
from pipeline.checkpoints import HUB_CHECKPOINTS, Checkpoint
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.tools import CHECKER_OF_ENGINE

RECORD = "source.json"
# Nano is no engine of its own: chatterbox-turbo speaks with it where it alone was brought.
ON_THE_HUB: Mapping[str, Checkpoint] = {**HUB_CHECKPOINTS, NANO.name: NANO}
WHISPER = "whisper-"
WHISPER_VARIABLE = "VOXSPOOL_WHISPER_ENDPOINT"
WHISPER_ADDRESS = "https://openaipublic.azureedge.net/main/whisper/models"
# openai-whisper 20250625, `whisper._MODELS`: the SHA-256 stands in the address, before the file's name there.
WHISPER_FILES: Mapping[str, tuple[str, str]] = {
    "tiny.en": ("d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03", "tiny.en.pt"),
    "tiny": ("65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9", "tiny.pt"),
    "base.en": ("25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead", "base.en.pt"),
    "base": ("ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e", "base.pt"),
    "small.en": ("f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872", "small.en.pt"),
    "small": ("9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794", "small.pt"),
    "medium.en": ("d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f", "medium.en.pt"),
    "medium": ("345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1", "medium.pt"),
    "large-v3": ("e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb", "large-v3.pt"),
    "turbo": ("aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a", "large-v3-turbo.pt"),
}
# faster-whisper 1.2.1, `faster_whisper.utils._MODELS`; the vocabulary is one of two files.
_SYSTRAN = "Systran/faster-whisper-"
_OTHER_REPOSITORIES = {"turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo"}
_FASTER_FILES = ("config.json", "model.bin", "tokenizer.json")
_FASTER_OPTIONAL = ("preprocessor_config.json", "vocabulary.json", "vocabulary.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFile:
    """A file at an address of its own, its hash known beforehand."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model that can be brought; of `repository` and `web` it has one."""

    name: str
    "what the command line calls it"
    folder: Path
    files: tuple[str, ...]
    "without which it cannot be loaded"
    optional: tuple[str, ...] = ()
    "taken where the repository has them"
    record: str = RECORD
    "the name of the file in `folder` that says what was brought"
    repository: str | None = None
    "on the Hugging Face hub"
    web: WebFile | None = None

    @property
    def every_file(self) -> tuple[str, ...]:
        """Needed and optional ones."""
        return (*self.files, *self.optional)

    @property
    def origin(self) -> str:
        """Where it comes from, for people: a repository, or a host."""
        return self.repository or (self.web.url.split("/")[2] if self.web else "")

    def missing(self) -> list[str]:
        """The needed files that are not there."""
        return [name for name in self.files if not (self.folder / name).is_file()]


def known(config: Config) -> list[Model]:
    """Every model that can be fetched with this configuration."""
    names = [*ON_THE_HUB, *(WHISPER + size for size in WHISPER_FILES)]
    return [named(name, config) for name in names]


def named(name: str, config: Config) -> Model:
    """The model of this name; raises InputError with the nearest ones if there is none."""
    folder = config.models_path
    if name in ON_THE_HUB:
        checkpoint = ON_THE_HUB[name]
        return Model(
            name=name,
            folder=folder / name,
            files=checkpoint.files,
            optional=checkpoint.optional,
            repository=checkpoint.repository,
        )
    size = name.removeprefix(WHISPER)
    if name.startswith(WHISPER) and size in WHISPER_FILES:
        faster = config.models.whisper.backend == "faster-whisper"
        return _faster_whisper(size, folder) if faster else _whisper(size, folder)
    raise _unknown(name)


def _whisper(size: str, folder: Path) -> Model:
    sha256, there = WHISPER_FILES[size]
    base = (os.environ.get(WHISPER_VARIABLE) or WHISPER_ADDRESS).rstrip("/")
    return Model(
        name=WHISPER + size,
        folder=folder / "whisper",
        files=(f"{size}.pt",),
        record=f"{size}.{RECORD}",
        web=WebFile(url=f"{base}/{sha256}/{there}", sha256=sha256),
    )


def _faster_whisper(size: str, folder: Path) -> Model:
    return Model(
        name=WHISPER + size,
        folder=folder / "faster-whisper" / size,
        files=_FASTER_FILES,
        optional=_FASTER_OPTIONAL,
        repository=_OTHER_REPOSITORIES.get(size, _SYSTRAN + size),
    )


def _unknown(name: str) -> InputError:
    names = [*ON_THE_HUB, *(WHISPER + size for size in WHISPER_FILES)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near else ""
    return InputError(
        f"There is no model {name} to fetch.",
        code="model_unknown",
        hint=f"{hint}These can be: {', '.join(names)}.",
    )


def needed(config: Config) -> list[Model]:
    """What the configuration's default engine and its recogniser are loaded from; none for embedded ones."""
    engine, by = config.defaults.engine, config.defaults.check.by
    checker = CHECKER_OF_ENGINE[engine] if by == "auto" else by
    names = [str(engine)] if engine in HUB_CHECKPOINTS else []
    names += [WHISPER + config.models.whisper.size] if checker == "whisper" else []
    return [named(name, config) for name in names]
