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


LOADERS: dict[str, Callable[[Equipment], Transcriber]] = {
    "pocketsphinx": _pocketsphinx,
}


def load(name: str, equipment: Equipment = BARE) -> Transcriber:
    """The recogniser `name`, ready to listen on `equipment`; InputError if this version lacks it."""
    if name not in LOADERS:
        raise InputError(
            f"The recogniser {name} is not available in this version.",
            hint=f"Set `check: {{by: ...}}` to one that is ({', '.join(sorted(LOADERS))}), or to none.",
            code="recogniser_unavailable",
        )
    return LOADERS[name](equipment)
