"""The ladder of takes: no try too many, none twice, and the right one wins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.base import Utterance, Voice
from pipeline.jobs.settings import MAX_SEED, Synthesis, Takes
from pipeline.sound.audio import Audio, Speech
from pipeline.takes import Choice, Ladder, Take, best, derive_seed
from pipeline.verify import Verdict

UTTERANCE = Utterance(text="Hi.", voice=Voice(name=""), language="en", synthesis=Synthesis(), seed=1)


def take(
    number: int = 1, *, seconds: float = 1.0, passed: bool | None = True, rate: float = 0.0, reasons: int = 0
) -> Take:
    """A take with that outcome; `passed` None: not checked."""
    verdict = None if passed is None else Verdict(
        passed=passed, word_error_rate=rate, max_word_error_rate=0.1, transcript="", reasons=("x",) * reasons
    )  # fmt: skip
    speech = Speech(audio=Audio(np.zeros(round(seconds * 1000), np.float32), 1000))
    return Take(try_number=number, utterance=UTTERANCE, speech=speech, cached=False, verdict=verdict)


def climb(outcomes: list[Take], **takes: int) -> tuple[Choice, list[int]]:
    """The choice, and which tries were made."""
    ladder = Ladder(Takes(**takes))
    while not ladder.ended:
        ladder.takes.append(outcomes[ladder.next_try - 1])
    return ladder.choice, [take.try_number for take in ladder.takes]


def test_the_first_pass_ends_it() -> None:
    """Nothing is made that is not needed."""
    choice, made = climb([take(1, passed=False), take(2), take(3)])
    assert made == [1, 2] and choice.tries == 2 and choice.take.passed


def test_an_unchecked_take_passes() -> None:
    """One try a chunk."""
    assert climb([take(passed=None), take()])[1] == [1]


def test_chatterbox_issue_48_of_the_passing_takes_that_were_asked_for_the_shortest_wins() -> None:
    """The shortest of them wins: what follows the words only makes a take longer."""
    outcomes = [
        take(1, seconds=2),
        take(2, seconds=0.5, passed=False),
        take(3, seconds=1),
        take(4, seconds=1.5),
        take(5),
    ]
    choice, made = climb(outcomes, per_chunk=3, max_tries=9)
    assert made == [1, 2, 3, 4] and choice.take.try_number == 3


def test_the_tries_are_limited() -> None:
    """What passed by then wins, even if it is one of the three that were asked for."""
    outcomes = [take(1, passed=False), take(2, seconds=3), take(3, passed=False, seconds=0.1)]
    choice, made = climb(outcomes, per_chunk=3, max_tries=3)
    assert made == [1, 2, 3] and choice.take.try_number == 2


def test_of_failing_takes_the_one_with_the_fewest_wrong_words_wins() -> None:
    """Then that with fewer other reasons, then the shorter."""
    bad = {"passed": False}
    assert (
        best([take(1, rate=0.5, **bad), take(2, rate=0.2, **bad), take(3, rate=0.3, **bad)]).try_number == 2
    )
    assert best([take(1, rate=0.2, reasons=2, **bad), take(2, rate=0.2, reasons=1, **bad)]).try_number == 2
    assert best([take(1, seconds=2, **bad), take(2, seconds=1, **bad)]).try_number == 2


def test_among_equals_the_first_wins() -> None:
    """So that a resumed job chooses as an uninterrupted one."""
    assert best([take(1), take(2)]).try_number == 1
    assert best([take(1, passed=False), take(2, passed=False)]).try_number == 1


outcomes = st.lists(st.sampled_from([True, False]), min_size=20, max_size=20)


@given(outcomes, st.integers(1, 10), st.integers(1, 20))
def test_the_ladder_keeps_its_promises(passes: list[bool], per_chunk: int, max_tries: int) -> None:
    """For every run of luck: tries in order, none more than needed, a passing one if there is one."""
    takes = [take(n, seconds=1 + n % 5, passed=ok, rate=n / 20) for n, ok in enumerate(passes, start=1)]
    choice, made = climb(takes, per_chunk=per_chunk, max_tries=max_tries)
    assert made == list(range(1, len(made) + 1)) and choice.tries == len(made) <= max_tries
    assert len(made) == max_tries or sum(passes[: len(made)]) == per_chunk
    assert sum(passes[: len(made) - 1]) < per_chunk
    assert choice.take.passed == any(passes[: len(made)])


@given(st.integers(1, MAX_SEED), st.text(), st.text())
def test_seeds_depend_on_job_text_and_try_and_nothing_else(job_seed: int, text: str, other: str) -> None:
    """Each is one that every engine takes; the tries of a text differ, and so do the texts."""
    seeds = [derive_seed(job_seed, text, number) for number in range(1, 21)]
    assert all(1 <= seed <= MAX_SEED for seed in seeds)
    assert len(set(seeds)) == 20
    assert seeds == [derive_seed(job_seed, text, number) for number in range(1, 21)]
    if text != other:
        assert derive_seed(job_seed, other, 1) != seeds[0]


@pytest.mark.parametrize("text", ["\ud800", "a\0b", ""])
def test_a_seed_can_be_had_for_any_text(text: str) -> None:
    """Also for text that no file can hold."""
    assert derive_seed(1, text, 1) > 0
