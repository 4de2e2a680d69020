"""What Voxspool stands on: Python, its libraries, ffmpeg, espeak-ng, the recogniser, GPU and models.

Loads the small ones, as the daemon will; looks up the version of the large ones without importing them, and
loads no model.
"""

import importlib
import importlib.metadata
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import engines, transcribers
from pipeline.config import Config
from pipeline.doctor.finding import Finding, Machine, failure, installed, warning, well
from pipeline.errors import VoxspoolError
from pipeline.files import display

OLDEST_PYTHON = (3, 11)
REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements-core.txt"
INSTALL = ".venv/bin/pip install -r requirements-core.txt"
MODEL_PACKAGES = ("torch", "chatterbox-tts", "openai-whisper")
GPU_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def examine(config: Config, here: Machine) -> Iterator[Finding]:
    """What is missing or of a wrong version."""
    yield _python(here)
    yield _libraries()
    yield _tool("ffmpeg", _ffmpeg)
    yield _tool("espeak-ng", _espeak)
    yield _tool("pocketsphinx", _pocketsphinx)
    yield from _gpu(here)
    yield _models()
    yield from _chosen(config)
    yield from _command(config)


def _python(here: Machine) -> Finding:
    version = ".".join(map(str, here.python))
    if here.python < OLDEST_PYTHON:
        return failure(
            f"Python {version}",
            "Install Python 3.11 or newer, remove .venv, and type `make run`: it is made anew.",
        )
    return well(f"Python {version}")


def _libraries() -> Finding:
    """Is what is installed what was tested?"""
    try:
        wanted = pins(REQUIREMENTS.read_text(encoding="utf-8"))
    except OSError:
        return warning(f"{REQUIREMENTS.name} is not there: versions of libraries were not looked at", INSTALL)
    wrong = [told for name, versions in wanted.items() if (told := _other(name, versions))]
    if wrong:
        return warning(f"libraries are not as they were tested: {'; '.join(wrong)}", INSTALL)
    return well(f"{len(wanted)} libraries at the versions that were tested")


def pins(requirements: str) -> dict[str, set[str | None]]:
    """The versions that a library may have; None where some Pythons do without it."""
    found: dict[str, set[str | None]] = {}
    for line in requirements.splitlines():
        pin = re.match(r"([\w.-]+)==([^\s;]+)\s*(;.*)?$", line)
        if pin:
            found.setdefault(pin[1], set()).update({pin[2]} | ({None} if pin[3] else set()))
    return found


def _other(name: str, versions: set[str | None]) -> str:
    there = installed(name)
    if there in versions:
        return ""
    wanted = " or ".join(sorted(version for version in versions if version))
    return f"{name} is {there or 'missing'}, not {wanted}"


def _tool(name: str, look: Callable[[], str]) -> Finding:
    try:
        return well(f"{name} {look()}")
    except (ImportError, OSError, VoxspoolError) as error:
        hint = getattr(error, "hint", "") or f"Install the requirements again: {INSTALL}"
        return failure(f"{name} does not work: {error}", hint)


def _ffmpeg() -> str:
    from pipeline.sound.ffmpeg import executable, ffmpeg_version

    version = ffmpeg_version()
    if version == "unknown":
        raise OSError(f"{executable()} does not answer")
    return f"{version} ({executable()})"


def _espeak() -> str:
    from pipeline.sound.espeak_library import version

    return version()


def _pocketsphinx() -> str:
    importlib.import_module("pocketsphinx")
    return importlib.metadata.version("pocketsphinx")


def _gpu(here: Machine) -> Iterator[Finding]:
    answer = here.ask(GPU_QUERY)
    if not answer:
        yield well("no NVIDIA GPU: the embedded engine needs none, Chatterbox is slow without")
        return
    for line in answer.splitlines():
        yield well(f"GPU {line.strip()}")


def _models() -> Finding:
    """By their entries in the package index alone: importing them takes half a minute."""
    found = {package: installed(package) for package in MODEL_PACKAGES}
    missing = [package for package, version in found.items() if version is None]
    if missing:
        return well(
            f"not installed: {', '.join(missing)}. Chatterbox and Whisper need them (requirements.txt), the"
            " embedded engine does not"
        )
    return well(", ".join(f"{package} {version}" for package, version in found.items()))


def _chosen(config: Config) -> Iterator[Finding]:
    """Does this version have what the configuration makes everybody's default?"""
    engine, checker = config.defaults.engine, config.defaults.check.by
    if engine not in engines.LOADERS:
        what = f"defaults.engine is {engine}, which is not available in this version: jobs fail"
        yield failure(what, f"Set it in config.yaml to one that is: {', '.join(sorted(engines.LOADERS))}.")
    if checker not in (*transcribers.LOADERS, "auto", "none"):
        what = f"defaults.check.by is {checker}, which is not available in this version: jobs fail"
        names = ", ".join(sorted(transcribers.LOADERS))
        yield failure(what, f"Set it in config.yaml to one that is: auto, none, {names}.")


def _command(config: Config) -> Iterator[Finding]:
    """Will anybody be told?"""
    command = config.notify.command
    if command and shutil.which(command[0]) is None:
        what = f"notify.command runs {display(command[0])}, which is not there"
        yield warning(what, "Install it, or give its whole path in config.yaml.")
