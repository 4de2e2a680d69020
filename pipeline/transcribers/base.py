"""What every speech recogniser is, as the rest of the house sees it.

Knows sound and text; nothing of jobs or takes. Invariant: a transcript says what was heard, never
what was expected, however strongly the recogniser was biased.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.sound.audio import Speech
from pipeline.verify import Transcript


class Transcriber(Protocol):
    """A recogniser, loaded and ready. One call at a time."""

    name: str
    "as in `check.by`"
    version: str
    "of the package and its model; part of every cache key"
    max_word_error_rate: float
    "its own threshold, used where the job sets none"
    languages: frozenset[str]
    "primary subtags of BCP 47 for which it has a model, in small letters"
    batch: int
    "how many takes it is best given at once"

    def supports(self, language: str) -> bool:
        """Whether it has a model for this language."""
        ...

    def transcribe(self, speech: Speech, expected: str, language: str) -> Transcript:
        """Listen to `speech`, which should say `expected`; raises SynthesisError if it cannot."""
        ...

    def transcribe_all(self, spoken: Sequence[tuple[Speech, str]], language: str) -> list[Transcript]:
        """Listen to several, each (speech, expected); each transcript is as if it had been alone."""
        ...

    def normalise(self, text: str, language: str) -> str:
        """A text as it is compared: expected and heard go through here, then `verify` spells both out."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recogniser:
    """What one says of itself, for those who do not have it at hand."""

    name: str
    version: str
    languages: frozenset[str]
    batch: int

    def supports(self, language: str) -> bool:
        """Whether it has a model for this language."""
        return knows(self.languages, language)


def introduction(transcriber: Transcriber) -> Recogniser:
    """Who it is."""
    return Recogniser(
        name=transcriber.name,
        version=transcriber.version,
        languages=transcriber.languages,
        batch=transcriber.batch,
    )


def knows(languages: frozenset[str], language: str) -> bool:
    """Whether the BCP 47 tag `language` is, in whatever region and script, one of `languages`."""
    return language.lower().partition("-")[0] in languages
