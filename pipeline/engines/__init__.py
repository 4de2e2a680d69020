"""The speech engines, by the name a job gives them.

An engine's module is imported when it is asked for and not before, so that nobody pays for torch
who does not use it.
"""

from collections.abc import Callable

from pipeline.engines.base import Engine
from pipeline.equipment import BARE, Equipment
from pipeline.errors import InputError


def _espeak(_equipment: Equipment) -> Engine:
    from pipeline.engines.espeak import EspeakEngine

    return EspeakEngine()


def _chatterbox(name: str) -> Callable[[Equipment], Engine]:
    def load_it(equipment: Equipment) -> Engine:
        from pipeline.engines import chatterbox

        return chatterbox.load(name, equipment)

    return load_it


LOADERS: dict[str, Callable[[Equipment], Engine]] = {
    "espeak": _espeak,
    "chatterbox": _chatterbox("chatterbox"),
    "chatterbox-multilingual": _chatterbox("chatterbox-multilingual"),
    "chatterbox-turbo": _chatterbox("chatterbox-turbo"),
}

ON_ONE_PROCESSOR = frozenset({"espeak"})
"which it leaves mostly idle; the others, on the device cpu, compute on all there are"


def load(name: str, equipment: Equipment = BARE) -> Engine:
    """The engine `name`, ready to speak on `equipment`; InputError if this version lacks it."""
    if name not in LOADERS:
        raise InputError(
            f"The engine {name} is not available in this version.",
            hint=f"Set `engine` to one that is: {', '.join(sorted(LOADERS))}.",
            code="engine_unavailable",
        )
    return LOADERS[name](equipment)
