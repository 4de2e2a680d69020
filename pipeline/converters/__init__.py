"""Voice converters: one Protocol (`base.Converter`), one table, one contract test."""

from collections.abc import Callable, Mapping

from pipeline.converters.base import Converter
from pipeline.equipment import BARE, Equipment
from pipeline.errors import InputError


def _praat(_equipment: Equipment) -> Converter:
    from pipeline.converters.praat import Praat

    return Praat()


def _chatterbox(equipment: Equipment) -> Converter:
    from pipeline.converters import chatterbox

    return chatterbox.load(equipment)


# Imported when loaded: the supervisor reads this table and must stay small.
CONVERTERS: Mapping[str, Callable[[Equipment], Converter]] = {
    "praat": _praat,
    "chatterbox": _chatterbox,
}
BY_ENGINE: Mapping[str, str] = {
    "espeak": "praat",
    "chatterbox": "chatterbox",
    "chatterbox-multilingual": "chatterbox",
    "chatterbox-turbo": "chatterbox",
}
"""Which converter a job's `engine` means."""


def load(name: str, equipment: Equipment = BARE) -> Converter:
    """A converter, ready to convert on `equipment`. InputError if this version lacks it."""
    if name in CONVERTERS:
        return CONVERTERS[name](equipment)
    raise InputError(
        f"There is no voice converter {name!r}.",
        hint=f"There is: {', '.join(sorted(CONVERTERS))}.",
        code="converter_unknown",
    )
