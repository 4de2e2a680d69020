"""The recording booth: one chunk, take after take, spoken or from the cache, and listened to.

Knows an engine, a recogniser and the cache; which take wins is decided in `takes`. Invariant: a take
or a transcript that is in the cache is never made again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from loguru import logger

from pipeline.cache import TakeCache, take_key
from pipeline.engines.base import Engine, Utterance, Voice
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Settings
from pipeline.made import Made
from pipeline.sound.audio import Speech
from pipeline.takes import Choice, Take, choose, derive_seed
from pipeline.transcribers.base import Transcriber
from pipeline.verify import Transcript, Verdict, verify

GENERATION_RETRY_SECONDS = 2.0


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
    "asked before each take; raises Interrupted or Cancelled"
    sleep: Callable[[float], None] = time.sleep

    def record(self, text: str) -> Choice:
        """The chunk's best take."""
        return choose(self.settings.takes, lambda try_number: self._attempt(text, try_number))

    def _attempt(self, text: str, try_number: int) -> Take:
        self.still_wanted()
        utterance = self._utterance(text, try_number)
        key = take_key(utterance, self.engine.name, self.engine.version, random=self.engine.random)
        speech = self.cache.speech(key)
        cached = speech is not None
        if speech is None:
            speech = self.cache.keep(key, self._speak(utterance))
        verdict = self._listen(key, speech, text)
        return Take(try_number=try_number, utterance=utterance, speech=speech, cached=cached, verdict=verdict)

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

    def _speak(self, utterance: Utterance) -> Speech:
        """Speak, with one more try after an error: a driver's hiccup should not cost a book."""
        started = time.perf_counter()
        try:
            return self.engine.speak(utterance)
        except SynthesisError as error:
            logger.warning("{} failed, trying once more: {}", self.engine.name, error.message)
            self.sleep(GENERATION_RETRY_SECONDS)
            return self.engine.speak(utterance)
        finally:
            self.made.synthesis_seconds += time.perf_counter() - started

    def _listen(self, key: str, speech: Speech, text: str) -> Verdict | None:
        if self.transcriber is None:
            return None
        started = time.perf_counter()
        transcript = self._transcript(key, speech, text, self.transcriber)
        limit = self.settings.check.max_word_error_rate
        verdict = verify(
            text,
            transcript,
            language=self.settings.language,
            max_word_error_rate=self.transcriber.max_word_error_rate if limit is None else limit,
        )
        self.made.check_seconds += time.perf_counter() - started
        return verdict

    def _transcript(self, key: str, speech: Speech, text: str, transcriber: Transcriber) -> Transcript:
        recogniser = f"{transcriber.name} {transcriber.version} {self.settings.language}"
        heard = self.cache.transcript(key, recogniser)
        if heard is None:
            heard = transcriber.transcribe(speech, text, self.settings.language)
            self.cache.keep_transcript(key, recogniser, heard)
        return heard
