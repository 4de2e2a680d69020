"""The daemon with an engine and a recogniser that take a set time and no processor, as if they had a GPU.

`python bench/paced_daemon.py ARGUMENTS`, as `daemon.py`. What they take stands in the environment, in seconds
a chunk: PACED_ENGINE, PACED_RECOGNISER. The sound is noise with the loudness of speech, as long as the text
would be; the recogniser hears every word. Workers, and those who listen for them, run these lines as well.
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
from pipeline.alive import Alive, unheeded
from pipeline.engines.base import Spoken, Utterance, Voice, one_by_one
from pipeline.equipment import Equipment
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Audio, Speech
from pipeline.verify import Transcript

RATE_HZ = 24_000
LETTERS_PER_SECOND = 15.0
LONGEST_SECONDS = 60
BATCH = 256
"of engine utterances: 64 slots, filled four times"


class PacedEngine:
    """Speaks a chunk in so many seconds."""

    name = "chatterbox"
    version = "paced"
    rate_hz = RATE_HZ
    random = True
    batch = BATCH
    device = "cuda:0"

    def __init__(self, _equipment: Equipment) -> None:
        self._seconds = float(os.environ["PACED_ENGINE"])
        noise = np.random.default_rng(1).standard_normal(LONGEST_SECONDS * RATE_HZ)
        syllables = np.abs(np.sin(2 * np.pi * 2 * np.arange(len(noise)) / RATE_HZ))
        self._noise = (0.1 * noise * syllables).astype(np.float32)

    def problems(self, _voice: Voice, _language: str, _synthesis: Synthesis) -> Sequence[str]:
        """None."""
        return ()

    def ignored(self, _synthesis: Synthesis) -> Sequence[str]:
        """None."""
        return ()

    def vary(self, utterance: Utterance, _try_number: int) -> Utterance:
        """Only the seed changes."""
        return utterance

    def speak(self, utterance: Utterance) -> Speech:
        """After the set time, which begins when it is asked: what is done between two chunks adds up."""
        time.sleep(self._seconds)
        samples = round(RATE_HZ * min(LONGEST_SECONDS, len(utterance.text) / LETTERS_PER_SECOND))
        return Speech(audio=Audio(self._noise[:samples], RATE_HZ))

    def speak_all(self, utterances: Sequence[Utterance], _alive: Alive = unheeded) -> Iterator[Spoken]:
        """One after the other."""
        return one_by_one(self, utterances)

    def close(self) -> None:
        """Nothing to free."""


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
