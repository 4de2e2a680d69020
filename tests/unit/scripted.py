"""An engine and a recogniser that do what a test tells them, behind the real Protocols."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.alive import Alive, unheeded
from pipeline.engines.base import Spoken, Utterance, Voice, one_by_one
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Check, Synthesis
from pipeline.listeners import Hearing, Question, answers
from pipeline.sound.audio import Audio, Speech
from pipeline.transcribers.base import Transcriber, introduction, knows
from pipeline.verify import Transcript

RATE_HZ = 22_050


@dataclass(slots=True, kw_only=True)
class ScriptedEngine:
    """Speaks a tone for each utterance; `seconds` says how long try n of a text lasts."""

    name: str = "espeak"
    version: str = "1"
    device: str = "cpu"
    rate_hz: int = RATE_HZ
    random: bool = True
    batch: int = 1
    given: list[int] = field(default_factory=list)
    "how many utterances each call of `speak_all` brought"
    backwards: bool = False
    "the last utterance of several is done first"
    seconds: Callable[[Utterance], float] = lambda _: 0.3
    errors: list[SynthesisError | None] = field(default_factory=list)
    "what the next calls of `speak` raise; None: nothing"
    faults: list[str | None] = field(default_factory=list)
    "what is wrong with the next takes"
    spoken: list[Utterance] = field(default_factory=list)
    unused: Sequence[str] = ()
    cannot: Sequence[str] = ()
    tells: bool = False
    "whether it says before the first of several that it is alive, as between any two"
    speaking: bool = False
    closed: bool = False

    def problems(self, voice: Voice, language: str, synthesis: Synthesis) -> Sequence[str]:
        """None, but for those of the script."""
        return self.cannot

    def ignored(self, synthesis: Synthesis) -> Sequence[str]:
        """Those of the script that were set."""
        return sorted(synthesis.model_fields_set & set(self.unused))

    def vary(self, utterance: Utterance, try_number: int) -> Utterance:
        """Without randomness each try is a little faster, as espeak does it."""
        if self.random or try_number == 1:
            return utterance
        rate = utterance.synthesis.words_per_minute + try_number
        return replace(utterance, synthesis=utterance.synthesis.model_copy(update={"words_per_minute": rate}))

    def speak(self, utterance: Utterance) -> Speech:
        """The next error of the script, or a tone whose pitch depends on the seed."""
        self.spoken.append(utterance)
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        at = np.arange(round(self.seconds(utterance) * self.rate_hz)) / self.rate_hz
        tone = 0.3 * np.sin(2 * np.pi * (200 + utterance.seed % 200) * at)
        fault = self.faults.pop(0) if self.faults else None
        return Speech(audio=Audio(tone.astype(np.float32), self.rate_hz), fault=fault)

    def speak_all(self, utterances: Sequence[Utterance], alive: Alive = unheeded) -> Iterator[Spoken]:
        """In order, or the other way round."""
        self.given.append(len(utterances))
        order = list(range(len(utterances)))[:: -1 if self.backwards else 1]
        self.speaking = True
        try:
            for number, index in enumerate(order):
                if number or self.tells:
                    alive()
                (done,) = one_by_one(self, [utterances[index]], alive)
                yield Spoken(index, done.outcome, done.seconds)
        finally:
            self.speaking = False

    def close(self) -> None:
        """Remembers it."""
        self.closed = True


@dataclass(slots=True, kw_only=True)
class ScriptedTranscriber:
    """Hears what the script says: `hears(text, how often it was asked of this text)`; by default the text."""

    name: str = "pocketsphinx"
    version: str = "1"
    max_word_error_rate: float = 0.1
    languages: frozenset[str] = frozenset({"en"})
    batch: int = 100
    hears: Callable[[str, int], str] = lambda text, _: text
    given: list[int] = field(default_factory=list)
    "how many takes each call brought"
    listened: list[str] = field(default_factory=list)
    closed: bool = False

    def supports(self, language: str) -> bool:
        """As the script says."""
        return knows(self.languages, language)

    def transcribe(self, speech: Speech, expected: str, language: str) -> Transcript:
        """What the script says of the n-th take of this text."""
        self.listened.append(expected)
        return Transcript(text=self.hears(expected, self.listened.count(expected)))

    def transcribe_all(self, spoken: Sequence[tuple[Speech, str]], language: str) -> list[Transcript]:
        """One by one."""
        self.given.append(len(spoken))
        return [self.transcribe(speech, expected, language) for speech, expected in spoken]

    def normalise(self, text: str, language: str) -> str:
        """As it is."""
        return text

    def close(self) -> None:
        """Remembers it."""
        self.closed = True


class Nearby:
    """Listeners in this very process: `transcriber` hears what waits whenever it is asked to work.

    With `lazy` it does nothing until somebody waits for it.
    """

    def __init__(self, transcriber: Transcriber, *, ahead: int = 0, lazy: bool = False) -> None:
        self._transcriber, self._lazy = transcriber, lazy
        self.recogniser = introduction(transcriber)
        self.ahead = ahead
        self.device = "cpu"
        self.waiting: list[Hearing] = []
        self.rested = 0

    def give(self, question: Question) -> Hearing:
        """Comes to the others."""
        self.waiting.append(Hearing(question))
        return self.waiting[-1]

    def give_up(self, hearing: Hearing) -> None:
        """Forgets it."""
        if hearing in self.waiting:
            self.waiting.remove(hearing)

    def work(self, *, wait: bool) -> None:
        """Answer all that wait."""
        if self.waiting and (wait or not self._lazy):
            found = answers(self._transcriber, [hearing.question for hearing in self.waiting])
            for hearing, answer in zip(self.waiting, found, strict=True):
                hearing.answer = answer
            self.waiting.clear()

    def rest(self) -> None:
        """Remembers it."""
        self.rested += 1

    def close(self) -> None:
        """Closes the recogniser."""
        self._transcriber.close()


class ScriptedTools:
    """Stands for `tools.Tools`, with one engine and one recogniser."""

    def __init__(self, engine: ScriptedEngine, transcriber: ScriptedTranscriber | None = None) -> None:
        self._engine = engine
        self._listeners = Nearby(transcriber or ScriptedTranscriber())

    hold_models = False

    def engine(self, name: str) -> ScriptedEngine:
        """The one."""
        return self._engine

    def listeners(self, check: Check, engine: str) -> Nearby | None:
        """The one recogniser, unless nothing is to be checked."""
        return None if check.by == "none" else self._listeners

    def close(self) -> None:
        """Nothing to free."""
