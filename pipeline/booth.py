"""The recording booth: chunk after chunk, take after take, spoken or from the cache, and listened to.

Knows an engine, a recogniser and the cache; which take wins is decided in `takes`. Invariant: a take
or a transcript that is in the cache is never made again.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from loguru import logger

from pipeline.cache import TakeCache, take_key
from pipeline.engines.base import Engine, Spoken, Utterance, Voice
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Settings
from pipeline.made import Made
from pipeline.sound.audio import Speech, silence
from pipeline.takes import Choice, Ladder, Take, derive_seed
from pipeline.transcribers.base import Transcriber
from pipeline.verify import Transcript, Verdict, refused, verify

GENERATION_RETRY_SECONDS = 2.0


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A take that is being made."""

    ladder: Ladder
    utterance: Utterance
    key: str
    "in the cache"
    speech: Speech | None = None
    cached: bool = False


@dataclass(slots=True, kw_only=True)
class Booth:
    """Everything that stays the same from chunk to chunk of one job."""

    engine: Engine
    transcriber: Transcriber | None
    "None: nothing is checked"
    cache: TakeCache
    settings: Settings
    voice: Voice
    made: Made
    still_wanted: Callable[[], None]
    "asked before each round of takes; raises Interrupted or Cancelled"
    alive: Callable[[], None] = lambda: None
    "told of each take while others of its round are in hand; raises the same"
    sleep: Callable[[float], None] = time.sleep

    def record_all(self, texts: Iterable[str]) -> Iterator[Choice]:
        """The best take of each chunk, in order.

        The engine gets the next try of the first `engine.batch` chunks that need one, round after round, so
        that a chunk that fails holds nobody up.
        """
        rest = iter(texts)
        ladders: deque[tuple[str, Ladder]] = deque()
        while True:
            climbing = [(text, ladder) for text, ladder in ladders if not ladder.ended]
            for text in itertools.islice(rest, max(0, self.engine.batch - len(climbing))):
                ladders.append((text, Ladder(self.settings.takes)))
                climbing.append(ladders[-1])
            if not climbing:
                return
            self._round(climbing[: self.engine.batch])
            while ladders and ladders[0][1].ended:
                choice = ladders.popleft()[1].choice
                _refuse_nothing(choice)
                yield choice

    def _round(self, climbing: Sequence[tuple[str, Ladder]]) -> None:
        """One more take on each ladder; of two that would be the same one waits for the other's."""
        self.still_wanted()
        attempts: dict[str, Attempt] = {}
        for text, ladder in climbing:
            attempt = self._attempt(text, ladder)
            attempts.setdefault(attempt.key, attempt)
        for attempt in attempts.values():
            speech = self.cache.speech(attempt.key)
            attempt.speech, attempt.cached = speech, speech is not None
        self._speak([attempt for attempt in attempts.values() if not attempt.cached])
        heard = self._listen(list(attempts.values()))
        for attempt in attempts.values():
            attempt.ladder.takes.append(self._take(attempt, heard.get(attempt.key)))

    def _attempt(self, text: str, ladder: Ladder) -> Attempt:
        utterance = self._utterance(text, ladder.next_try)
        key = take_key(utterance, self.engine.name, self.engine.version, random=self.engine.random)
        return Attempt(ladder=ladder, utterance=utterance, key=key)

    def _take(self, attempt: Attempt, heard: Transcript | None) -> Take:
        speech = attempt.speech
        assert speech is not None
        verdict = None if heard is None else self._judge(heard, attempt.utterance.text)
        return Take(
            try_number=attempt.ladder.next_try,
            utterance=attempt.utterance,
            speech=speech,
            cached=attempt.cached,
            verdict=verdict if speech.fault is None else refused(verdict, speech.fault),
        )

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

    def _speak(self, attempts: Sequence[Attempt]) -> None:
        """Speak them, with one more try after an error: a driver's hiccup should not cost a book."""
        errors = self._speak_once(attempts)
        if not errors:
            return
        again = list(errors)
        first = next(iter(errors.values()))
        logger.warning("{} failed, trying once more: {}", self.engine.name, first.message)
        self.sleep(GENERATION_RETRY_SECONDS)
        still = self._speak_once([attempts[index] for index in again])
        if still:
            raise next(iter(still.values()))

    def _speak_once(self, attempts: Sequence[Attempt]) -> dict[int, SynthesisError]:
        """Each take is kept as soon as it is there; returns the errors of the others by their index."""
        errors: dict[int, SynthesisError] = {}
        if not attempts:
            return errors
        for spoken in self._timed(self.engine.speak_all([attempt.utterance for attempt in attempts])):
            attempt = attempts[spoken.index]
            if isinstance(spoken.outcome, SynthesisError):
                if self.engine.random and spoken.outcome.code == "no_speech":
                    attempt.speech = self._nothing(spoken.outcome)
                else:
                    errors[spoken.index] = spoken.outcome
                continue
            attempt.speech = self.cache.keep(attempt.key, spoken.outcome)
            if len(attempts) > 1:
                self.alive()
        return errors

    def _nothing(self, error: SynthesisError) -> Speech:
        """A take of no length: the same seed would be silent again, the next try's may speak."""
        return Speech(audio=silence(0, self.engine.rate_hz), fault=error.message)

    def _timed(self, spoken: Iterator[Spoken]) -> Iterator[Spoken]:
        """The same; only the time that the engine takes counts as synthesis."""
        while True:
            started = time.perf_counter()
            one = next(spoken, None)
            self.made.synthesis_seconds += time.perf_counter() - started
            if one is None:
                return
            yield one

    def _listen(self, attempts: Sequence[Attempt]) -> dict[str, Transcript]:
        """What is heard in each take that sounds, by its key; those not heard before all at once."""
        heard: dict[str, Transcript] = {}
        if self.transcriber is None:
            return heard
        started = time.perf_counter()
        recogniser = f"{self.transcriber.name} {self.transcriber.version} {self.settings.language}"
        unheard: dict[str, tuple[Speech, str]] = {}
        for attempt in attempts:
            assert attempt.speech is not None
            known = self.cache.transcript(attempt.key, recogniser)
            if known is not None:
                heard[attempt.key] = known
            elif len(attempt.speech.audio.samples):
                unheard[attempt.key] = (attempt.speech, attempt.utterance.text)
        if unheard:
            found = self.transcriber.transcribe_all(list(unheard.values()), self.settings.language)
            for key, transcript in zip(unheard, found, strict=True):
                self.cache.keep_transcript(key, recogniser, transcript)
                heard[key] = transcript
        self.made.check_seconds += time.perf_counter() - started
        return heard

    def _judge(self, heard: Transcript, text: str) -> Verdict:
        assert self.transcriber is not None
        started = time.perf_counter()
        limit = self.settings.check.max_word_error_rate
        verdict = verify(
            text,
            heard,
            language=self.settings.language,
            max_word_error_rate=self.transcriber.max_word_error_rate if limit is None else limit,
            normalise=self.transcriber.normalise,
        )
        self.made.check_seconds += time.perf_counter() - started
        return verdict


def _refuse_nothing(choice: Choice) -> None:
    """A chunk that is silent in every take is not left out: the job fails."""
    speech = choice.take.speech
    if not len(speech.audio.samples):
        raise SynthesisError(
            f"In {choice.tries} tries nothing was said of {choice.take.utterance.text!r}: {speech.fault}",
            code="no_speech",
        )
