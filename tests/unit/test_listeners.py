"""Those who listen beside the engine: real processes, and what becomes of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import ScriptedTranscriber

from pipeline import engines
from pipeline.engines.base import Utterance, Voice
from pipeline.equipment import BARE, Listening
from pipeline.errors import InputError, RecogniserDied, SynthesisError
from pipeline.jobs.settings import Priority, Synthesis
from pipeline.listeners import Answer, Hearing, ListenerProcesses, Question, answers
from pipeline.sound.audio import Speech
from pipeline.transcribers import ON_ONE_PROCESSOR, device, load, processes
from pipeline.transcribers.base import Transcriber
from pipeline.verify import Transcript
from tests.conftest import REPOSITORY

FOXES = ("quick", "brown", "old", "young", "grey", "sly", "wild", "tame")
TEXTS = [f"The {fox} fox ran over the hill." for fox in FOXES]


def said(text: str, of: str | None = None) -> Question:
    """Whether espeak's speech of `of`, else of `text` itself, says `text`."""
    utterance = Utterance(text=of or text, voice=Voice(name=""), language="en", synthesis=Synthesis(), seed=1)
    speech = engines.load("espeak").speak(utterance)
    return Question(text=text, language="en", max_word_error_rate=None, heard=speech)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """Of eight takes the third says something else."""
    return [said(text, of="It rained all day." if place == 2 else None) for place, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def listeners() -> Iterator[ListenerProcesses]:
    """pocketsphinx, on a machine of three processors."""
    begun = ListenerProcesses("pocketsphinx", replace(BARE, processors=3))
    yield begun
    begun.close()


@pytest.fixture(scope="module")
def ears() -> Iterator[Transcriber]:
    """The same recogniser in this process."""
    loaded = load("pocketsphinx")
    yield loaded
    loaded.close()


def heard(listeners: ListenerProcesses, hearings: list[Hearing]) -> list[Answer | SynthesisError | None]:
    """Work until all are heard."""
    while any(hearing.answer is None for hearing in hearings):
        listeners.work(wait=True)
    return [hearing.answer for hearing in hearings]


def children() -> set[str]:
    """Process ids of this process's children."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_they_hear_what_the_recogniser_hears(
    listeners: ListenerProcesses, questions: list[Question], ears: Transcriber
) -> None:
    """Transcripts and verdicts are the same, whoever was asked; more processes begin where many wait."""
    before = children()
    found = heard(listeners, [listeners.give(question) for question in questions])
    assert found == answers(ears, questions)
    assert [isinstance(one, Answer) and one.verdict.passed for one in found] == [True] * 2 + [False] + [
        True
    ] * 5
    assert len(children() - before) == 2
    listeners.rest()
    assert children() == before, "those that were still loading have ended, too"
    assert heard(listeners, [listeners.give(questions[0])]) == found[:1]


def test_what_was_heard_before_is_only_judged(
    listeners: ListenerProcesses, questions: list[Question]
) -> None:
    """Under the threshold of this job."""
    kept = Transcript(text="The quick fox ran over a hill.")
    strict = replace(questions[0], heard=kept)
    lenient = replace(strict, max_word_error_rate=0.5)
    found = heard(listeners, [listeners.give(strict), listeners.give(lenient)])
    assert [isinstance(one, Answer) and one.transcript == kept for one in found] == [True, True]
    assert [isinstance(one, Answer) and one.verdict.passed for one in found] == [False, True]


def test_what_is_given_up_is_not_heard(listeners: ListenerProcesses, questions: list[Question]) -> None:
    """Unless it was in somebody's hands already; then nobody is told of it."""
    hearings = [listeners.give(question) for question in questions]
    listeners.work(wait=False)
    for hearing in hearings:
        listeners.give_up(hearing)
    last = listeners.give(questions[0])
    assert isinstance(heard(listeners, [last])[0], Answer)
    assert all(hearing.answer is None for hearing in hearings[3:])


def test_who_listens_says_so(listeners: ListenerProcesses, ears: Transcriber) -> None:
    """What stands in manifests, and what keeps them busy."""
    who = listeners.recogniser
    assert (who.name, who.version) == ("pocketsphinx", ears.version)
    assert who.supports("en-GB") and who.supports("EN") and not who.supports("de")
    assert listeners.ahead == 6


def test_one_process_for_each_processor_only_where_that_helps() -> None:
    """Whisper takes all processors, or the GPU, for one batch."""
    four = replace(BARE, processors=4)
    assert frozenset({"pocketsphinx"}) == ON_ONE_PROCESSOR
    assert (processes("pocketsphinx", four), processes("whisper", four)) == (4, 1)
    on_gpu = replace(four, device="cuda:0")
    assert (device("pocketsphinx", on_gpu), device("whisper", on_gpu)) == ("cpu", "cuda:0")
    assert device("whisper", replace(on_gpu, listening=Listening(device="cpu"))) == "cpu"


def test_why_one_could_not_begin_is_told() -> None:
    """As the recogniser itself says it, with what to do."""
    with pytest.raises(InputError) as caught:
        ListenerProcesses("whisper", BARE)
    assert caught.value.code in ("model_missing", "recogniser_unavailable") and caught.value.hint


def test_one_that_died_is_told(questions: list[Question]) -> None:
    """While it listens, and while it has nothing to do."""
    for give_first in (True, False):
        begun = ListenerProcesses("pocketsphinx", BARE)
        (process,) = begun._processes
        assert process._process.pid is not None
        if give_first:
            begun.give(questions[0])
            os.kill(process._process.pid, signal.SIGSTOP)
            begun.work(wait=False)
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.join()
        begun.give(questions[1])
        with pytest.raises(RecogniserDied, match=r"recogniser pocketsphinx died \(-9\)"):
            while True:
                begun.work(wait=True)
        begun.close()


WORKER = """
import os
import signal
from pipeline.equipment import BARE
from pipeline.listeners import ListenerProcesses
if __name__ == "__main__":
    begun = ListenerProcesses("pocketsphinx", BARE)
    pid = begun._processes[0]._process.pid
    os.kill(pid, signal.SIGSTOP)  # so that it cannot see the pipe close
    print(pid, flush=True)
    input()
    os._exit(0)
"""


def test_they_die_with_the_worker(tmp_path: Path) -> None:
    """However it ended."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    ) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        worker.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}/exe").exists()


def test_the_more_urgent_job_is_heard_first(ears: Transcriber, questions: list[Question]) -> None:
    """Whatever waits for it; among equals who came first."""
    begun = ListenerProcesses("pocketsphinx", BARE)
    priorities: tuple[Priority, ...] = ("low", "normal", "high", "normal", "high")
    hearings = [begun.give(replace(questions[0], priority=priority)) for priority in priorities]
    order: list[int] = []
    while len(order) < len(hearings):
        begun.work(wait=True)
        order += [n for n, one in enumerate(hearings) if one.answer is not None and n not in order]
    begun.close()
    assert order == [2, 4, 1, 3, 0]


FAULTY = """
import sys
from dataclasses import replace
from pipeline import transcribers
from pipeline.equipment import BARE
from pipeline.listeners import ListenerProcesses, Question
from pipeline.sound.audio import silence, Speech
from scripted import ScriptedTranscriber

class Faulty(ScriptedTranscriber):
    def transcribe(self, speech, expected, language):
        raise {"disk": OSError(28, "No space left on device", "/x"), "ours": KeyError("odd")}[expected]

def load(_equipment):
    if "load" in sys.argv:
        raise ImportError("libfoo.so: cannot open")
    return Faulty()

transcribers.LOADERS["pocketsphinx"] = load
if __name__ == "__main__":
    try:
        begun = ListenerProcesses("pocketsphinx", BARE)
    except RuntimeError as error:
        print("at the start:", error)
        sys.exit()
    for text in ("disk", "ours"):
        hearing = begun.give(Question(text=text, language="en", max_word_error_rate=None,
                                      heard=Speech(audio=silence(0.1, 16000))))
        while hearing.answer is None:
            begun.work(wait=True)
        print(repr(hearing.answer), *getattr(hearing.answer, "__notes__", [""])[0].splitlines()[-1:])
    begun.close()
"""


def test_what_goes_wrong_in_a_recogniser_is_for_the_worker_to_judge(tmp_path: Path) -> None:
    """A full disk is no death, and a fault of ours comes with where it was made."""
    script = tmp_path / "worker.py"
    script.write_text(FAULTY)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}"}

    def said(*arguments: str) -> list[str]:
        ended = subprocess.run(
            [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
        return ended.stdout.splitlines()

    disk, ours = said()
    assert disk.strip() == "OSError(28, 'No space left on device')"
    assert ours.startswith("RuntimeError(\"KeyError in the recogniser's process: 'odd'\")")
    assert ours.endswith("KeyError: 'odd'")
    assert said("load") == ["at the start: ImportError in the recogniser's process: libfoo.so: cannot open"]


class OneMisbehaves(ScriptedTranscriber):
    """Cannot listen to a text with `bad` in it, nor to others beside it."""

    def transcribe(self, speech: Speech, expected: str, language: str) -> Transcript:
        """Or raises."""
        if "bad" in expected:
            raise SynthesisError(f"cannot hear {expected}")
        return super().transcribe(speech, expected, language)


def test_none_suffers_for_another(questions: list[Question]) -> None:
    """An error of one take is the answer to that one alone."""
    texts = ["good one", "bad one", "good two", "bad two"]
    asked = [replace(questions[0], text=text) for text in texts]
    found = answers(OneMisbehaves(), asked)
    assert [str(one) if isinstance(one, SynthesisError) else one.transcript.text for one in found] == [
        "good one",
        "cannot hear bad one",
        "good two",
        "cannot hear bad two",
    ]


def test_takes_of_several_languages_are_heard_apart(questions: list[Question]) -> None:
    """Whisper is told one language for all that it is given at once."""
    ears = ScriptedTranscriber()
    languages = ["en", "de", "en", "de", "fr"]
    found = answers(ears, [replace(questions[0], text=tag, language=tag) for tag in languages])
    assert [one.transcript.text for one in found if isinstance(one, Answer)] == languages
    assert sorted(ears.given) == [1, 2, 2]
