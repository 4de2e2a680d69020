"""The daemon with an engine and a recogniser that take a set time, as if they had a GPU.

`python bench/paced_daemon.py ARGUMENTS`, as `daemon.py`. What they take stands in the environment, in seconds
a chunk: PACED_ENGINE, PACED_RECOGNISER. Of the engine's time a half is Python's work, as of a thread that
launches one small operation after the other, and a half is waiting. The sound is noise with the loudness of
speech, as long as the text would be; the recogniser hears every word. Workers, and those who listen for them,
run these lines as well.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import daemon
from pipeline import engines, transcribers
from pipeline.alive import Alive
from pipeline.chatterbox.speaker import Asked, Outcome, Said
from pipeline.engines.base import Voice
from pipeline.engines.chatterbox import MANNERS, ChatterboxEngine
from pipeline.equipment import Equipment
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Speech
from pipeline.verify import Transcript

RATE_HZ = 24_000
LETTERS_PER_SECOND = 15.0
LONGEST_SECONDS = 60
BATCH = 256
"of engine utterances: 64 slots, filled four times"
PIECES = 10
"the work and the waiting of a chunk come in so many turns"


class PacedSlots:
    """Say a chunk in so many seconds."""

    at_once = BATCH

    def __init__(self, seconds: float) -> None:
        self._nap = seconds / 2 / PIECES
        noise = np.random.default_rng(1).standard_normal(LONGEST_SECONDS * RATE_HZ)
        syllables = np.abs(np.sin(2 * np.pi * 2 * np.arange(len(noise)) / RATE_HZ))
        self._noise = (0.1 * noise * syllables).astype(np.float32)

    def speak_all(self, asked: Sequence[Asked], alive: Alive) -> Iterator[Outcome]:
        """One after the other; the time begins when it is asked: what is done between two chunks adds up."""
        for index, one in enumerate(asked):
            for _ in range(PIECES):
                _work(self._nap)
                time.sleep(self._nap)
                alive()
            samples = round(RATE_HZ * min(LONGEST_SECONDS, len(one.text) / LETTERS_PER_SECOND))
            yield Outcome(index, Said(self._noise[:samples]))

    def close(self) -> None:
        """Nothing to free."""


class NoModel:
    """In the place of a loaded model."""

    version, watermark, folder = "paced", "none", Path()

    def speak(self, asked: Asked) -> Said:
        """The slots do."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to free."""


class PacedEngine(ChatterboxEngine):
    """The real one but for the model."""

    def __init__(self, equipment: Equipment) -> None:
        slots = PacedSlots(float(os.environ["PACED_ENGINE"]))
        super().__init__(MANNERS["chatterbox"], NoModel(), equipment, slots)
        self.device = "cuda:0"

    def problems(self, _voice: Voice, _language: str, _synthesis: Synthesis) -> Sequence[str]:
        """None."""
        return ()


def _work(seconds: float) -> None:
    """So long of this thread's processor time, however long it has to wait for that."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class PacedTranscriber:
    """Listens to a take for so many seconds and hears what it should."""

    name = "whisper"
    version = "paced"
    max_word_error_rate = 0.15
    languages = frozenset({"en"})
    batch = 16

    def __init__(self, _equipment: Equipment) -> None:
        self._seconds = float(os.environ["PACED_RECOGNISER"])

    def supports(self, language: str) -> bool:
        """English."""
        return language in self.languages

    def transcribe(self, _speech: Speech, expected: str, _language: str) -> Transcript:
        """After the set time."""
        time.sleep(self._seconds)
        return Transcript(text=expected)

    def transcribe_all(self, spoken: Sequence[tuple[Speech, str]], language: str) -> list[Transcript]:
        """Each in its time."""
        return [self.transcribe(speech, expected, language) for speech, expected in spoken]

    def normalise(self, text: str, _language: str) -> str:
        """As it is."""
        return text

    def close(self) -> None:
        """Nothing to free."""


if __name__ == "__main__":
    sys.exit(daemon.run(sys.argv[1:]))
elif __name__ == "__mp_main__":
    engines.LOADERS["chatterbox"] = PacedEngine
    transcribers.LOADERS["whisper"] = PacedTranscriber
