"""What every speech engine is, as the rest of the house sees it.

Knows settings and sound; nothing of jobs, checks or files. Invariant: the same utterance gives
the same audio, and an engine never changes what it was given to speak.
"""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.alive import Alive, unheeded
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Speech


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A voice, resolved: either a name the engine itself knows, or a reference clip."""

    name: str
    "as the job names it; empty for the engine's own default"
    clip: Path | None = None
    "reference recording to imitate"
    clip_sha256: str | None = None

    @property
    def fingerprint(self) -> str:
        """What stands for this voice in a cache key."""
        return f"clip:{self.clip_sha256}" if self.clip_sha256 else f"name:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One chunk as it is to be spoken."""

    text: str
    voice: Voice
    language: str
    "BCP 47 tag, as in the job file"
    synthesis: Synthesis
    seed: int
    "1 to 2**32-1; an engine without randomness ignores it"


class Engine(Protocol):
    """A speech engine, loaded and ready. One call at a time."""

    name: str
    "as in the job file"
    version: str
    "of the package and the model; part of every cache key"
    device: str
    "cpu, cuda:0, mps"
    rate_hz: int
    "sample rate of all it returns"
    random: bool
    "whether the seed changes what it says"

    @property
    def batch(self) -> int:
        """How many utterances it is best given at once."""
        ...

    def problems(self, voice: Voice, language: str, synthesis: Synthesis) -> Sequence[str]:
        """Why it cannot speak so, one sentence each; empty if it can."""
        ...

    def ignored(self, synthesis: Synthesis) -> Sequence[str]:
        """Names of settings that were set (`synthesis.model_fields_set`) and that it has no use for."""
        ...

    def vary(self, utterance: Utterance, try_number: int) -> Utterance:
        """What try `try_number` (1, 2, ...) speaks; try 1 is `utterance` itself, no two are alike. Pure."""
        ...

    def speak(self, utterance: Utterance) -> Speech:
        """Speak; raises SynthesisError if nothing usable came out."""
        ...

    def speak_all(self, utterances: Sequence[Utterance], alive: Alive = unheeded) -> "Speaking":
        """Speak several, each as `speak` would; they come in the order in which they are done.

        What could not be spoken comes with its error and keeps no other from being spoken. While this goes
        on nothing else may be asked of the engine; closing it gives up what nobody has taken. `alive` is
        called now and then; what it raises passes, after what was done till then, and gives up the rest.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of one of several utterances."""

    index: int
    "into what was given"
    outcome: Speech | SynthesisError
    seconds: float
    "that the engine needed for it; of several at once, since the one before it was done"


Speaking = Generator[Spoken, None, None]


def one_by_one(engine: Engine, utterances: Sequence[Utterance], alive: Alive) -> Speaking:
    """`speak_all` for an engine that gains nothing by several at once."""
    for index, utterance in enumerate(utterances):
        if index:
            alive()
        started = time.perf_counter()
        outcome: Speech | SynthesisError
        try:
            outcome = engine.speak(utterance)
        except SynthesisError as error:
            outcome = error
        yield Spoken(index, outcome, time.perf_counter() - started)
