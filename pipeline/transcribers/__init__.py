"""The speech recognisers, by the name `check.by` gives them.

A recogniser's module is imported when it is asked for and not before.
"""

from collections.abc import Callable

from pipeline.equipment import BARE, Equipment
from pipeline.errors import InputError
from pipeline.transcribers.base import Transcriber


def _pocketsphinx(_equipment: Equipment) -> Transcriber:
    from pipeline.transcribers.pocketsphinx import PocketsphinxTranscriber

    return PocketsphinxTranscriber()


def _whisper(equipment: Equipment) -> Transcriber:
    try:
        from pipeline.transcribers.whisper import load as load_whisper

        return load_whisper(equipment)
    except ModuleNotFoundError as error:
        package = equipment.listening.backend
        raise InputError(
            f"The recogniser whisper is not installed: {package} lacks its module {error.name}.",
            hint=f"Run {_HOW_TO_INSTALL[package]}, or set `check: {{by: none}}`.",
            code="recogniser_unavailable",
        ) from error


_HOW_TO_INSTALL = {
    "openai-whisper": "`pip install -r requirements.txt`",
    "faster-whisper": "`pip install faster-whisper`",
}

LOADERS: dict[str, Callable[[Equipment], Transcriber]] = {
    "pocketsphinx": _pocketsphinx,
    "whisper": _whisper,
}


ON_ONE_PROCESSOR = frozenset({"pocketsphinx"})
"a take keeps one processor busy, and several are heard side by side; the others use all there are for one"

MOST_PROCESSES = 8
"some 60 MB each; a container may be allowed fewer processors than it sees"


def processes(name: str, equipment: Equipment) -> int:
    """How many of the recogniser `name` make full use of `equipment`."""
    return min(MOST_PROCESSES, equipment.processors) if name in ON_ONE_PROCESSOR else 1


def device(name: str, equipment: Equipment) -> str:
    """Where the recogniser `name` computes."""
    return "cpu" if name in ON_ONE_PROCESSOR else equipment.listening_device


def load(name: str, equipment: Equipment = BARE) -> Transcriber:
    """The recogniser `name`, ready to listen on `equipment`; InputError if this version lacks it."""
    if name not in LOADERS:
        raise InputError(
            f"The recogniser {name} is not available in this version.",
            hint=f"Set `check: {{by: ...}}` to one that is ({', '.join(sorted(LOADERS))}), or to none.",
            code="recogniser_unavailable",
        )
    return LOADERS[name](equipment)
