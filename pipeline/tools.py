"""The loaded engines, recognisers and converters of one worker, and its way to the Internet.

Knows the tables of the three families; loads a member when a job first needs it and keeps it.
Invariant: which member serves a job follows from the job alone, never from what is installed.
"""

from collections.abc import Callable

from pipeline import converters, engines
from pipeline.converters.base import Converter
from pipeline.engines.base import Engine
from pipeline.equipment import Equipment
from pipeline.fetch import Fetcher
from pipeline.jobs.settings import Check
from pipeline.listeners import ListenerProcesses, Listeners

# By engine and not by what happens to be installed: the same job gives the same check everywhere.
CHECKER_OF_ENGINE = {
    "espeak": "pocketsphinx",
    "chatterbox": "whisper",
    "chatterbox-multilingual": "whisper",
    "chatterbox-turbo": "whisper",
}
# Small and loaded in no time: no reason to let go of them.
EMBEDDED = frozenset({"espeak", "pocketsphinx", "praat"})


class Tools:
    """What a worker has at hand. `on_load` is told what is about to be loaded."""

    def __init__(
        self, equipment: Equipment, on_load: Callable[[str], None], fetcher: Fetcher | None = None
    ) -> None:
        self.fetcher = fetcher or Fetcher()
        self._equipment = equipment
        self._on_load = on_load
        self._engines: dict[str, Engine] = {}
        self._listeners: dict[str, Listeners] = {}
        self._converters: dict[str, Converter] = {}

    @property
    def hold_models(self) -> bool:
        """Whether anything large is loaded."""
        return not EMBEDDED.issuperset((*self._engines, *self._listeners, *self._converters))

    def engine(self, name: str) -> Engine:
        """The engine of this name; raises InputError for one that this installation lacks."""
        if name not in self._engines:
            self._on_load(f"loading {name}")
            self._engines[name] = engines.load(name, self._equipment)
        return self._engines[name]

    def listeners(self, check: Check, engine: str) -> Listeners | None:
        """Who checks this engine's speech; None where nothing is to be checked.

        Raises InputError for one that this installation lacks.
        """
        if check.by == "none":
            return None
        name = CHECKER_OF_ENGINE[engine] if check.by == "auto" else check.by
        if name not in self._listeners:
            self._on_load(f"loading {name}")
            self._listeners[name] = ListenerProcesses(name, self._equipment)
        return self._listeners[name]

    def converter(self, engine: str) -> Converter:
        """The voice converter that belongs to this engine."""
        name = converters.BY_ENGINE[engine]
        if name not in self._converters:
            self._on_load(f"loading {name}")
            self._converters[name] = converters.load(name, self._equipment)
        return self._converters[name]

    def close(self) -> None:
        """Free everything."""
        for family in (self._engines, self._listeners, self._converters):
            for member in family.values():
                member.close()
            family.clear()
