"""The recording booth: chunk after chunk, take after take, spoken or from the cache, and heard meanwhile.

Knows an engine, those who listen and the cache; which take wins is decided in `takes`. Invariant: a take
or a transcript that is in the cache is never made again.
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from loguru import logger

from pipeline.alive import Alive, unheeded
from pipeline.cache import TakeCache, take_key
from pipeline.engines import ON_ONE_PROCESSOR
from pipeline.engines.base import Engine, Utterance, Voice
from pipeline.errors import Overtaken, SynthesisError
from pipeline.jobs.settings import Settings
from pipeline.listeners import Hearing, Listeners, Question
from pipeline.made import Made
from pipeline.sound.audio import Speech, silence
from pipeline.takes import Choice, Ladder, Take, derive_seed
from pipeline.verify import Verdict, refused

GENERATION_RETRY_SECONDS = 2.0
MOST_ROUNDS_HELD = 4
"so many are spoken and heard beyond a chunk that nobody has passed yet"


@dataclass(slots=True)
class Climb:
    """A chunk on its ladder."""

    text: str
    ladder: Ladder
    in_hand: bool = False
    "a take of it is being spoken or heard"


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A take that is being made."""

    climb: Climb
    utterance: Utterance
    key: str
    "in the cache"
    speech: Speech | None = None
    cached: bool = False
    hearing: Hearing | None = None


@dataclass(slots=True, kw_only=True)
class Booth:
    """Everything that stays the same from chunk to chunk of one job."""

    engine: Engine
    listeners: Listeners | None
    "None: nothing is checked"
    cache: TakeCache
    settings: Settings
    voice: Voice
    made: Made
    still_wanted: Callable[[], None]
    "asked before each round of takes, does what is more urgent; raises Interrupted or Cancelled"
    alive: Alive = unheeded
    "told now and then while takes are in hand; raises the same, or Overtaken"
    sleep: Callable[[float], None] = time.sleep
    _gained: bool = field(default=True, init=False)
    "a take was kept since something more urgent came between"

    def record_all(self, texts: Iterable[str]) -> Generator[Choice, None, None]:
        """The best take of each chunk, in order, as soon as it is known.

        The engine gets the next try of the first `engine.batch` chunks that need one, round after round, so
        that a chunk that fails holds nobody up; meanwhile the takes of the last round are heard.
        """
        waiting, climbs = deque(texts), deque[Climb]()
        unheard: dict[str, Attempt] = {}
        try:
            while waiting or climbs:
                attempts = self._ready(waiting, climbs, unheard)
                try:
                    for _ in self._round(attempts, unheard) if attempts else self._wait():
                        self._take_in(unheard)
                        while climbs and climbs[0].ladder.ended:
                            choice = climbs.popleft().ladder.choice
                            _refuse_nothing(choice)
                            yield choice
                except Overtaken:
                    self._gained = False
                    _put_down(attempts)
                    self.still_wanted()
        finally:
            self._leave(unheard)

    def _ready(self, waiting: deque[str], climbs: deque[Climb], unheard: dict[str, Attempt]) -> list[Attempt]:
        """What the engine gets next, each with a key of its own; nothing while more can be told of soon.

        Of two takes that would be the same one waits for the other's.
        """
        if unheard and self._by_turns:
            return []
        climbing = [climb for climb in climbs if not climb.ladder.ended]
        idle = [climb for climb in climbing if not climb.in_hand]
        in_hand = self.engine.batch + (0 if self.listeners is None else self.listeners.ahead)
        attempts: dict[str, Attempt] = {}
        while len(attempts) < self.engine.batch:
            if idle:
                attempt = self._attempt(idle.pop(0))
                if attempt.key not in unheard:
                    attempts.setdefault(attempt.key, attempt)
            elif waiting and len(climbing) < in_hand and len(climbs) < MOST_ROUNDS_HELD * in_hand:
                climbs.append(Climb(waiting.popleft(), Ladder(self.settings.takes)))
                climbing.append(climbs[-1])
                idle.append(climbs[-1])
            else:
                break
        wait = unheard and waiting and len(attempts) < self.engine.batch
        return [] if wait else list(attempts.values())

    def _round(self, attempts: Sequence[Attempt], unheard: dict[str, Attempt]) -> Iterator[None]:
        """One more take of each; comes back after each."""
        self.still_wanted()
        for attempt in attempts:
            attempt.climb.in_hand = True
            speech = self.cache.speech(attempt.key)
            attempt.speech, attempt.cached = speech, speech is not None
        unspoken = [attempt for attempt in attempts if not attempt.cached]
        spoken = (attempt for attempt in attempts if attempt.cached)
        for attempt in itertools.chain(spoken, self._speak(unspoken)):
            self._check(attempt, unheard)
            yield

    def _wait(self) -> Iterator[None]:
        """Until something more was heard."""
        self._let_listen(wait=True)
        self._gained = True
        yield
        self._go_on()

    def _go_on(self) -> None:
        """Overtaken again and again before it gained anything, a job would never end."""
        try:
            self.alive()
        except Overtaken:
            if self._gained:
                raise

    def _attempt(self, climb: Climb) -> Attempt:
        utterance = self._utterance(climb.text, climb.ladder.next_try)
        key = take_key(utterance, self.engine.name, self.engine.version, random=self.engine.random)
        return Attempt(climb=climb, utterance=utterance, key=key)

    def _utterance(self, text: str, try_number: int) -> Utterance:
        first = Utterance(
            text=text,
            voice=self.voice,
            language=self.settings.language,
            synthesis=self.settings.synthesis,
            seed=derive_seed(self.settings.seed, text, 1),
        )
        varied = self.engine.vary(first, try_number)
        return replace(varied, seed=derive_seed(self.settings.seed, text, try_number))

    def _speak(self, attempts: Sequence[Attempt]) -> Iterator[Attempt]:
        """Each as it is done, with one more try after an error: a driver's hiccup should not cost a book."""
        errors = yield from self._speak_once(attempts)
        if not errors:
            return
        first = next(iter(errors.values()))
        logger.warning("{} failed, trying once more: {}", self.engine.name, first.message)
        self.sleep(GENERATION_RETRY_SECONDS)
        still = yield from self._speak_once([attempts[index] for index in errors])
        if still:
            raise next(iter(still.values()))

    def _speak_once(self, attempts: Sequence[Attempt]) -> Generator[Attempt, None, dict[int, SynthesisError]]:
        """Each take is kept as soon as it is there; returns the errors of the others by their index."""
        errors: dict[int, SynthesisError] = {}
        if not attempts:
            return errors
        utterances = [attempt.utterance for attempt in attempts]
        with contextlib.closing(self.engine.speak_all(utterances, self._go_on)) as speaking:
            for spoken in speaking:
                self.made.synthesis_seconds += spoken.seconds
                attempt = attempts[spoken.index]
                if not isinstance(spoken.outcome, SynthesisError):
                    attempt.speech = self.cache.keep(attempt.key, spoken.outcome)
                    self._gained = True
                elif self.engine.random and spoken.outcome.code == "no_speech":
                    attempt.speech = self._nothing(spoken.outcome)
                else:
                    errors[spoken.index] = spoken.outcome
                    continue
                yield attempt
        return errors

    def _nothing(self, error: SynthesisError) -> Speech:
        """A take of no length: the same seed would be silent again, the next try's may speak."""
        return Speech(audio=silence(0, self.engine.rate_hz), fault=error.message)

    def _check(self, attempt: Attempt, unheard: dict[str, Attempt]) -> None:
        """Have somebody listen to it, unless nobody does or there is nothing to hear."""
        assert attempt.speech is not None
        if self.listeners is None or not len(attempt.speech.audio.samples):
            self._taken(attempt, None)
            return
        question = Question(
            text=attempt.utterance.text,
            language=self.settings.language,
            max_word_error_rate=self.settings.check.max_word_error_rate,
            heard=self.cache.transcript(attempt.key, self._recogniser) or attempt.speech,
            priority=self.settings.priority,
        )
        attempt.hearing = self.listeners.give(question)
        unheard[attempt.key] = attempt

    def _take_in(self, unheard: dict[str, Attempt]) -> None:
        """What was heard meanwhile."""
        if not self._by_turns:
            self._let_listen(wait=False)
        for key, attempt in list(unheard.items()):
            assert attempt.hearing is not None
            answer = attempt.hearing.answer
            if answer is None:
                continue
            del unheard[key]
            if isinstance(answer, Exception):
                raise answer
            if isinstance(attempt.hearing.question.heard, Speech):
                self.cache.keep_transcript(key, self._recogniser, answer.transcript)
            self._taken(attempt, answer.verdict)

    def _taken(self, attempt: Attempt, verdict: Verdict | None) -> None:
        """One more take on its ladder."""
        speech, climb = attempt.speech, attempt.climb
        assert speech is not None
        climb.in_hand = False
        take = Take(
            try_number=climb.ladder.next_try,
            utterance=attempt.utterance,
            speech=speech,
            cached=attempt.cached,
            verdict=verdict if speech.fault is None else refused(verdict, speech.fault),
        )
        climb.ladder.takes.append(take)

    def _let_listen(self, *, wait: bool) -> None:
        """The time that the job waits for it counts as checking."""
        if self.listeners is None:
            return
        started = time.perf_counter()
        self.listeners.work(wait=wait)
        self.made.check_seconds += time.perf_counter() - started

    def _leave(self, unheard: dict[str, Attempt]) -> None:
        """Nothing more is wanted of those who listen."""
        if self.listeners is None:
            return
        for attempt in unheard.values():
            assert attempt.hearing is not None
            self.listeners.give_up(attempt.hearing)
        self.listeners.rest()

    @property
    def _by_turns(self) -> bool:
        """Threads of two that share the processors wait for one another: both together take twice as long."""
        if self.listeners is None or self.engine.name in ON_ONE_PROCESSOR:
            return False
        return self.engine.device == self.listeners.device == "cpu"

    @property
    def _recogniser(self) -> str:
        """What transcripts are kept under."""
        assert self.listeners is not None
        who = self.listeners.recogniser
        return f"{who.name} {who.version} {self.settings.language}"


def _put_down(attempts: Sequence[Attempt]) -> None:
    """What was not spoken to its end is begun anew."""
    for attempt in attempts:
        if attempt.speech is None:
            attempt.climb.in_hand = False


def _refuse_nothing(choice: Choice) -> None:
    """A chunk that is silent in every take is not left out: the job fails."""
    speech = choice.take.speech
    if not len(speech.audio.samples):
        raise SynthesisError(
            f"In {choice.tries} tries nothing was said of {choice.take.utterance.text!r}: {speech.fault}",
            code="no_speech",
        )
