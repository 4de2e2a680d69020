"""Recognisers at work beside the engine: processes that listen to takes and judge them.

Knows recognisers and verdicts; nothing of jobs, ladders or the cache. A process is given takes when it has
nothing to do and not before, so that handing over never waits. Invariants: what comes of a take does not
depend on which process heard it, nor beside which other; a process dies with its worker; one that
died is told and never replaced in silence.
"""

import functools
import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as readable
from typing import Protocol, TypeVar

from pipeline import transcribers
from pipeline.children import die_with_parent
from pipeline.equipment import Equipment
from pipeline.errors import RecogniserDied, SynthesisError, VoxspoolError
from pipeline.jobs.settings import PRIORITIES, Priority
from pipeline.sound.audio import Speech
from pipeline.transcribers.base import Recogniser, Transcriber, introduction
from pipeline.verify import Transcript, Verdict, verify

T = TypeVar("T")
AHEAD = 2
"batches for each process: one in its hands and one to follow"
END_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Does this take say this text?"""

    text: str
    language: str
    max_word_error_rate: float | None
    "None: the recogniser's own"
    heard: Speech | Transcript
    "the take, or what was heard in it before: then it is only judged"
    priority: Priority = "normal"
    "of its job: the more urgent is heard first"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was heard, and whether that is right."""

    transcript: Transcript
    verdict: Verdict


@dataclass(eq=False, slots=True)
class Hearing:
    """A question on its way; `answer` comes with one of the next calls of `Listeners.work`."""

    question: Question
    answer: Answer | Exception | None = None
    "the error of a recogniser that could not listen, or of the machine"


class Listeners(Protocol):
    """Who listens beside the engine, to several jobs' takes if need be."""

    recogniser: Recogniser
    ahead: int
    "so many takes keep them busy"
    device: str
    "cpu, cuda:0"

    def give(self, question: Question) -> Hearing:
        """To be heard as soon as somebody has nothing to do."""
        ...

    def give_up(self, hearing: Hearing) -> None:
        """It is not wanted any more."""
        ...

    def work(self, *, wait: bool) -> None:
        """Hand out questions and take in answers; `wait`: not before there was one to take in.

        Raises RecogniserDied.
        """
        ...

    def rest(self) -> None:
        """A job has ended: free what only a long one needs."""
        ...

    def close(self) -> None:
        """End all."""
        ...


class ListenerProcesses:
    """A recogniser in processes of its own: one, or one for each processor where a take keeps just one busy.

    multiprocessing's own processes and pipes. An executor would need threads and named semaphores, which a
    killed worker leaves behind, and does not say why a process could not start.
    """

    def __init__(self, name: str, equipment: Equipment) -> None:
        """Starts the first; raises what `transcribers.load` raises."""
        self._name, self._equipment = name, equipment
        self._most = transcribers.processes(name, equipment)
        self._waiting: list[Hearing] = []
        self._processes = [_Process(name, equipment)]
        try:
            self._processes[0].take_in()
        except Exception:
            self.close()
            raise
        self.recogniser = self._processes[0].recogniser
        self.ahead = AHEAD * self._most * self.recogniser.batch
        self.device = transcribers.device(name, equipment)

    def give(self, question: Question) -> Hearing:
        """To be heard as soon as somebody has nothing to do."""
        hearing = Hearing(question)
        self._waiting.append(hearing)
        return hearing

    def give_up(self, hearing: Hearing) -> None:
        """It is not wanted any more; what is in somebody's hands is heard to its end."""
        if hearing in self._waiting:
            self._waiting.remove(hearing)

    def work(self, *, wait: bool) -> None:
        """Hand out questions and take in answers; `wait`: not before there was one to take in."""
        self._hand_out()
        busy = [process for process in self._processes if process.is_busy]
        if busy:
            spoken_up = readable([process.pipe for process in busy], None if wait else 0)
            for process in busy:
                if process.pipe in spoken_up:
                    process.take_in()
            self._hand_out()

    def rest(self) -> None:
        """End all but the first, unless they are busy with another job."""
        for process in [process for process in self._processes[1:] if not process.has_takes]:
            self._processes.remove(process)
            process.end()

    def close(self) -> None:
        """End all."""
        while self._processes:
            self._processes.pop().end()

    def _hand_out(self) -> None:
        for process in self._processes:
            if self._waiting and not process.is_busy:
                self._waiting.sort(key=lambda hearing: PRIORITIES.index(hearing.question.priority))
                process.hand(self._waiting[: self.recogniser.batch])
                del self._waiting[: self.recogniser.batch]
        # To start one takes as long as to hear a take or two.
        if len(self._waiting) > AHEAD * len(self._processes) and len(self._processes) < self._most:
            self._processes.append(_Process(self._name, self._equipment))


class _Process:
    """One of them, from this side."""

    recogniser: Recogniser

    def __init__(self, name: str, equipment: Equipment) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._name = name
        self._hands: list[Hearing] | None = []
        "None: nothing to do; empty at first, while it loads"
        # daemon: a worker that ends without a word to it takes it along
        self._process = context.Process(
            target=_listen, args=(theirs, name, equipment, os.getpid()), name=f"voxspool-{name}", daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def is_busy(self) -> bool:
        """Whether something will come from it."""
        return self._hands is not None

    @property
    def has_takes(self) -> bool:
        """Whether it is listening; not so while it loads."""
        return bool(self._hands)

    def hand(self, hearings: list[Hearing]) -> None:
        """Give it something to do."""
        self._hands = hearings
        try:
            self.pipe.send([hearing.question for hearing in hearings])
        except OSError as error:
            raise self._died() from error

    def take_in(self) -> None:
        """What it has to say; waits for it."""
        try:
            said: Recogniser | Exception | list[Answer | Exception] = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        hands, self._hands = self._hands, None
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Recogniser):
            self.recogniser = said
            return
        for hearing, answer in zip(hands or [], said, strict=True):
            hearing.answer = answer

    def end(self) -> None:
        """It ends by itself where it is idle, else it is ended."""
        self.pipe.close()
        self._process.join(0.0 if self.is_busy else END_SECONDS)
        self._process.kill()
        self._process.join()
        self._process.close()

    def _died(self) -> RecogniserDied:
        self._process.join(END_SECONDS)
        return RecogniserDied(f"The process of the recogniser {self._name} died ({self._process.exitcode}).")


def answers(transcriber: Transcriber, questions: Sequence[Question]) -> list[Answer | SynthesisError]:
    """Listen to the takes that nobody has heard yet, and judge them all."""
    found: dict[int, Transcript | SynthesisError] = {}
    unheard: dict[str, dict[int, tuple[Speech, str]]] = {}
    for place, question in enumerate(questions):
        if isinstance(question.heard, Transcript):
            found[place] = question.heard
        else:
            unheard.setdefault(question.language, {})[place] = (question.heard, question.text)
    for language, takes in unheard.items():
        found |= zip(takes, _heard(transcriber, list(takes.values()), language), strict=True)
    return [_judged(transcriber, question, found[place]) for place, question in enumerate(questions)]


def _heard(
    transcriber: Transcriber, takes: Sequence[tuple[Speech, str]], language: str
) -> list[Transcript | SynthesisError]:
    """All at once; where that fails one by one, so that none suffers for another."""
    try:
        return list(transcriber.transcribe_all(takes, language))
    except SynthesisError as error:
        if len(takes) == 1:
            return [error]
    return [heard for take in takes for heard in _heard(transcriber, [take], language)]


def _judged(
    transcriber: Transcriber, question: Question, heard: Transcript | SynthesisError
) -> Answer | SynthesisError:
    if isinstance(heard, SynthesisError):
        return heard
    limit = question.max_word_error_rate
    verdict = verify(
        question.text,
        heard,
        language=question.language,
        max_word_error_rate=transcriber.max_word_error_rate if limit is None else limit,
        normalise=transcriber.normalise,
    )
    return Answer(heard, verdict)


def _listen(pipe: Connection, name: str, equipment: Equipment, parent_pid: int) -> None:
    """The body of such a process: load, say who listens, then answer until the pipe closes."""
    die_with_parent(parent_pid)
    transcriber = _tried(lambda: transcribers.load(name, equipment))
    if isinstance(transcriber, Exception):
        pipe.send(transcriber)
        return
    pipe.send(introduction(transcriber))
    while (questions := _next(pipe)) is not None:
        said = _tried(functools.partial(answers, transcriber, questions))
        pipe.send([said] * len(questions) if isinstance(said, Exception) else said)
    transcriber.close()


def _tried(attempt: Callable[[], T]) -> T | Exception:
    """What came of it; what went wrong is for the worker to judge."""
    try:
        return attempt()
    except Exception as error:  # noqa: BLE001 - the job fails or waits for it, not this process
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """What the worker raises for it: ours and the system's as they are, others with where they came from."""
    if isinstance(error, VoxspoolError | OSError | MemoryError):
        return error
    told = RuntimeError(f"{type(error).__name__} in the recogniser's process: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told


def _next(pipe: Connection) -> list[Question] | None:
    try:
        questions: list[Question] = pipe.recv()
    except (EOFError, OSError):
        return None
    return questions
