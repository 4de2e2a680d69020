"""The recording booth: spoken, kept, listened to, and never twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Nearby, ScriptedEngine, ScriptedTranscriber

from pipeline.booth import GENERATION_RETRY_SECONDS, MOST_ROUNDS_HELD, Booth
from pipeline.cache import TakeCache
from pipeline.engines.base import Utterance, Voice
from pipeline.errors import Interrupted, Overtaken, SynthesisError
from pipeline.jobs.settings import Settings
from pipeline.listeners import Hearing, Question
from pipeline.made import Made
from pipeline.sound.audio import Speech
from pipeline.takes import Choice
from pipeline.verify import Transcript

TEXT = "The quick brown fox jumps over the lazy dog."
WRONG = "something else was heard here"
RANDOM = pytest.mark.parametrize("random", [True, False], ids=["random", "not random"])


class OneByOne(Booth):
    """A booth for one chunk at a time."""

    def record(self, text: str) -> Choice:
        """The chunk's best take."""
        (choice,) = self.record_all([text])
        return choice


class Studio:
    """Booths on one cache."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.cache = TakeCache(folder)
        self.slept: list[float] = []
        self.asked = 0
        self.made = Made()
        self.lazy, self.ahead = False, 0

    def booth(
        self, engine: ScriptedEngine, transcriber: ScriptedTranscriber | None = None, **settings: Any
    ) -> OneByOne:
        """A booth for a new job."""
        self.made = Made()
        return OneByOne(
            engine=engine,
            listeners=None if transcriber is None else Nearby(transcriber, lazy=self.lazy, ahead=self.ahead),
            cache=self.cache,
            settings=Settings.model_validate({"seed": 7, **settings}),
            voice=Voice(name="en"),
            made=self.made,
            still_wanted=self.ask,
            sleep=self.slept.append,
        )

    def ask(self) -> None:
        """Counts how often it was asked whether to go on."""
        self.asked += 1


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """With an empty cache."""
    return Studio(tmp_path)


def failing(*tries: int) -> Callable[[str, int], str]:
    """A recogniser that hears something else in these takes."""
    return lambda text, number: WRONG if number in tries else text


def test_a_good_take_is_the_only_one(studio: Studio) -> None:
    """Spoken once, listened to once, with its evidence."""
    engine, ears = ScriptedEngine(), ScriptedTranscriber()
    choice = studio.booth(engine, ears).record(TEXT)
    assert choice.tries == len(engine.spoken) == len(ears.listened) == studio.asked == 1
    assert choice.take.verdict is not None and choice.take.verdict.transcript == TEXT
    assert not choice.take.cached and engine.spoken[0].text == TEXT
    assert studio.made.synthesis_seconds > 0 and studio.made.check_seconds > 0


@RANDOM
def test_no_try_repeats_an_earlier_one(studio: Studio, random: bool) -> None:
    """Another seed where that changes something, other settings where it does not."""
    engine, ears = ScriptedEngine(random=random), ScriptedTranscriber(hears=failing(*range(20)))
    choice = studio.booth(engine, ears, takes={"max_tries": 6}).record(TEXT)
    assert choice.tries == len(engine.spoken) == 6 and not choice.take.passed
    assert len({(u.seed, u.synthesis.words_per_minute) for u in engine.spoken}) == 6
    assert len({u.seed for u in engine.spoken}) == 6
    rates = {u.synthesis.words_per_minute for u in engine.spoken}
    assert len(rates) == (1 if random else 6)
    assert engine.spoken[0].synthesis == Settings().synthesis


@RANDOM
def test_extended_issue_44_it_stops_at_the_first_pass(studio: Studio, random: bool) -> None:
    """The third."""
    engine, ears = ScriptedEngine(random=random), ScriptedTranscriber(hears=failing(1, 2))
    choice = studio.booth(engine, ears).record(TEXT)
    assert (choice.tries, choice.take.try_number, len(engine.spoken)) == (3, 3, 3)
    assert choice.take.utterance == engine.spoken[2]


def test_several_passing_takes_can_be_wanted(studio: Studio) -> None:
    """The shortest passing one wins, though a failing one is shorter still."""
    lengths = iter([0.9, 0.1, 0.5, 0.7])
    engine = ScriptedEngine(seconds=lambda _: next(lengths))
    choice = studio.booth(engine, ScriptedTranscriber(hears=failing(2)), takes={"per_chunk": 3}).record(TEXT)
    assert choice.tries == 4 and choice.take.try_number == 3


def test_of_failing_takes_the_best_heard_wins(studio: Studio) -> None:
    """Two words wrong against all of them."""
    words = TEXT.split()
    ears = ScriptedTranscriber(hears=lambda text, n: " ".join(words[:-2]) if n == 2 else WRONG)
    choice = studio.booth(ScriptedEngine(), ears).record(TEXT)
    assert choice.tries == 4 and choice.take.try_number == 2 and not choice.take.passed


@RANDOM
def test_what_is_in_the_cache_is_neither_spoken_nor_heard_again(studio: Studio, random: bool) -> None:
    """Failed tries included, so that a second run takes the same way to the same take."""
    ears = ScriptedTranscriber(hears=failing(1))
    first = studio.booth(ScriptedEngine(random=random), ears).record(TEXT)
    engine, deaf = ScriptedEngine(random=random), ScriptedTranscriber()
    second = studio.booth(engine, deaf).record(TEXT)
    assert engine.spoken == [] and deaf.listened == []
    assert second.tries == first.tries == 2 and second.take.cached and not first.take.cached
    assert second.take.verdict == first.take.verdict
    assert (second.take.speech.audio.samples == first.take.speech.audio.samples).all()


def test_another_recogniser_listens_to_kept_takes(studio: Studio) -> None:
    """A new version of it: nothing is spoken again."""
    studio.booth(ScriptedEngine(), ScriptedTranscriber()).record(TEXT)
    engine, ears = ScriptedEngine(), ScriptedTranscriber(version="2")
    studio.booth(engine, ears).record(TEXT)
    assert engine.spoken == [] and ears.listened == [TEXT]


def test_another_threshold_judges_kept_transcripts(studio: Studio) -> None:
    """Nothing is spoken or heard again for it."""
    nearly = ScriptedTranscriber(hears=lambda text, _: text.replace("fox", "dog"))
    assert not studio.booth(ScriptedEngine(), nearly, takes={"max_tries": 1}).record(TEXT).take.passed
    engine, ears = ScriptedEngine(), ScriptedTranscriber()
    again = studio.booth(engine, ears, check={"max_word_error_rate": 0.5}).record(TEXT)
    assert again.take.passed and engine.spoken == [] and ears.listened == []
    assert again.take.verdict is not None and again.take.verdict.max_word_error_rate == 0.5


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"seed": 8}, True),
        ({"language": "en-GB"}, True),
        ({"synthesis": {"temperature": 0.1}}, True),
        ({"check": {"by": "none"}}, False),
        ({"audio": {"speed": 2.0}, "pauses": {"sentence_ms": 5}, "output": {"formats": ["wav"]}}, False),
    ],
)
def test_what_the_engine_does_not_see_does_not_make_it_speak(
    studio: Studio, change: Any, again: bool
) -> None:
    """The sound of a kept take can be used in another mix."""
    studio.booth(ScriptedEngine()).record(TEXT)
    engine = ScriptedEngine()
    studio.booth(engine, **change).record(TEXT)
    assert bool(engine.spoken) is again


def test_the_job_seed_means_nothing_to_an_engine_without_randomness(studio: Studio) -> None:
    """Its takes serve every job."""
    studio.booth(ScriptedEngine(random=False)).record(TEXT)
    engine = ScriptedEngine(random=False)
    studio.booth(engine, seed=8).record(TEXT)
    assert engine.spoken == []


def test_an_error_is_retried_once_after_two_seconds(studio: Studio) -> None:
    """It is the same try: the seed stays."""
    engine = ScriptedEngine(errors=[SynthesisError("hiccup")])
    choice = studio.booth(engine, ScriptedTranscriber()).record(TEXT)
    assert studio.slept == [GENERATION_RETRY_SECONDS] == [2.0]
    assert choice.tries == 1 and len(engine.spoken) == 2 and engine.spoken[0] == engine.spoken[1]


def test_a_second_error_is_the_end(studio: Studio) -> None:
    """The job says why; nothing is kept of it."""
    engine = ScriptedEngine(errors=[SynthesisError("first"), SynthesisError("out of memory")])
    booth = studio.booth(engine)
    with pytest.raises(SynthesisError, match="out of memory"):
        booth.record(TEXT)
    assert studio.slept == [2.0] and len(engine.spoken) == 2
    assert not booth.record(TEXT).take.cached


def test_every_try_may_stumble_once(studio: Studio) -> None:
    """The retry belongs to the try, not to the chunk."""
    engine = ScriptedEngine(errors=[SynthesisError("1"), None, SynthesisError("2"), None])
    choice = studio.booth(engine, ScriptedTranscriber(hears=failing(1))).record(TEXT)
    assert choice.tries == 2 and studio.slept == [2.0, 2.0]


def test_it_asks_before_each_take_whether_to_go_on(studio: Studio) -> None:
    """A stop comes between two takes; what was spoken is kept for the next run."""
    engine = ScriptedEngine()
    booth = studio.booth(engine, ScriptedTranscriber(hears=failing(1, 2, 3)))

    def ask() -> None:
        if len(engine.spoken) == 2:
            raise Interrupted("stop")

    booth.still_wanted = ask
    with pytest.raises(Interrupted):
        booth.record(TEXT)
    assert len(engine.spoken) == 2
    after = ScriptedEngine()
    choice = studio.booth(after, ScriptedTranscriber(hears=failing(1))).record(TEXT)
    assert choice.tries == 4 and len(after.spoken) == 2


def test_without_a_recogniser_every_take_will_do(studio: Studio) -> None:
    """No verdict, and no time spent."""
    choice = studio.booth(ScriptedEngine(), None).record(TEXT)
    assert choice.take.verdict is None and choice.take.passed
    assert studio.made.check_seconds == 0


def test_the_same_sentence_is_the_same_take_wherever_it_stands(studio: Studio) -> None:
    """That is what lets an edited text find its unchanged sentences."""
    engine = ScriptedEngine()
    booth = studio.booth(engine)
    seeds: list[Utterance] = [booth.record(text).take.utterance for text in (TEXT, "Another one.", TEXT)]
    assert seeds[0] == seeds[2] != seeds[1]
    assert len(engine.spoken) == 2


@pytest.mark.parametrize("ears", [None, ScriptedTranscriber()], ids=["unchecked", "checked"])
def test_a_take_that_cannot_be_right_is_not_used(studio: Studio, ears: ScriptedTranscriber | None) -> None:
    """Whatever is heard in it, and also where nobody listens; the next try may do."""
    engine = ScriptedEngine(faults=["did not end"])
    choice = studio.booth(engine, ears).record(TEXT)
    assert choice.tries == choice.take.try_number == 2 and choice.take.passed
    again = studio.booth(ScriptedEngine(), ears).record(TEXT)
    assert again.tries == 2 and again.take.cached, "the fault is kept with the take"


def test_if_no_take_can_be_right_the_reason_is_told(studio: Studio) -> None:
    """Beside what was heard."""
    engine = ScriptedEngine(faults=["did not end"] * 4)
    choice = studio.booth(engine, ScriptedTranscriber(hears=lambda *_: WRONG)).record(TEXT)
    assert choice.take.verdict is not None and not choice.take.passed
    assert choice.take.verdict.reasons[0] == "did not end" and len(choice.take.verdict.reasons) > 1


@pytest.mark.parametrize("ears", [None, ScriptedTranscriber()], ids=["unchecked", "checked"])
def test_a_try_that_says_nothing_makes_room_for_the_next(
    studio: Studio, ears: ScriptedTranscriber | None
) -> None:
    """With the same seed it would be silent again."""
    engine = ScriptedEngine(errors=[SynthesisError("silent", code="no_speech")])
    choice = studio.booth(engine, ears).record(TEXT)
    assert choice.tries == choice.take.try_number == 2 and choice.take.passed
    assert studio.slept == [] and len({u.seed for u in engine.spoken}) == 2


def test_a_chunk_that_is_silent_in_every_try_fails_the_job(studio: Studio) -> None:
    """It is never left out; a bad take is better than none, though."""
    silent = SynthesisError("silent", code="no_speech")
    with pytest.raises(SynthesisError, match="In 4 tries nothing was said of 'The quick") as caught:
        studio.booth(ScriptedEngine(errors=[silent] * 4), ScriptedTranscriber()).record(TEXT)
    assert caught.value.code == "no_speech"
    bad = ScriptedTranscriber(hears=lambda text, _: f"{WRONG} {text} {text}")
    choice = studio.booth(ScriptedEngine(errors=[silent, None, silent, silent]), bad).record(TEXT)
    assert choice.take.try_number == 2 and choice.take.verdict is not None
    assert choice.take.verdict.word_error_rate > 1


def test_an_engine_without_chance_is_not_asked_again_what_it_cannot_say(studio: Studio) -> None:
    """The next try would be the same text."""
    engine = ScriptedEngine(random=False, errors=[SynthesisError("silent", code="no_speech")] * 2)
    with pytest.raises(SynthesisError, match=r"^silent$"):
        studio.booth(engine).record(TEXT)


# -- several at once --------------------------------------------------------------------------------------


BOOK = [f"Sentence number {number} of this book." for number in range(10)]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 4, 100])
@pytest.mark.parametrize(("lazy", "ahead"), [(False, 0), (True, 0), (True, 1), (True, 3), (False, 3)])
def test_the_choices_are_the_same_whatever_the_batch(
    studio: Studio, batch: int, backwards: bool, lazy: bool, ahead: int
) -> None:
    """In the order of the chunks, and no take more than one by one, however slowly they are heard."""
    studio.lazy, studio.ahead = lazy, ahead
    hears = {text: number % 3 for number, text in enumerate(BOOK)}
    ears = ScriptedTranscriber(hears=lambda text, n: text if n > hears[text] else WRONG)
    engine = ScriptedEngine(batch=batch, backwards=backwards)
    choices = list(studio.booth(engine, ears).record_all(BOOK))
    assert [choice.take.utterance.text for choice in choices] == BOOK
    assert [choice.tries for choice in choices] == [1 + number % 3 for number in range(10)]
    assert len(engine.spoken) == sum(choice.tries for choice in choices)
    assert max(engine.given) == min(batch, len(BOOK))


def test_a_chunk_that_fails_holds_nobody_up(studio: Studio) -> None:
    """Its next try goes with the first takes of chunks further on."""
    ears = ScriptedTranscriber(hears=lambda text, n: text if n > 2 or text != BOOK[0] else WRONG)
    engine = ScriptedEngine(batch=4)
    list(studio.booth(engine, ears).record_all(BOOK))
    assert engine.given == [4, 4, 4] and sum(ears.given) == 12
    assert [u.text for u in engine.spoken[4:8]] == [BOOK[0], *BOOK[4:7]]


def test_the_engine_speaks_on_while_takes_are_heard(studio: Studio) -> None:
    """As far ahead as keeps those who listen busy, and in full rounds."""
    studio.lazy, studio.ahead = True, 4
    engine, ears = ScriptedEngine(batch=2), ScriptedTranscriber()
    spoken_at_first_look: list[int] = []

    def hears(text: str, _number: int) -> str:
        spoken_at_first_look.append(len(engine.spoken))
        return text

    ears.hears = hears
    list(studio.booth(engine, ears).record_all(BOOK))
    assert engine.given == [2] * 5
    assert spoken_at_first_look == [6] * 6 + [10] * 4


def test_where_both_need_all_processors_they_take_turns(studio: Studio) -> None:
    """No take is heard before the round is spoken, none spoken before the last one is heard."""
    events: list[str] = []
    ears = ScriptedTranscriber(hears=lambda text, _: events.append("heard") or text)
    engine = ScriptedEngine(batch=4, name="chatterbox", seconds=lambda _: events.append("spoken") or 0.1)
    studio.ahead = 8
    booth = studio.booth(engine, ears)
    list(booth.record_all(BOOK))
    assert events == (["spoken"] * 4 + ["heard"] * 4) * 2 + ["spoken"] * 2 + ["heard"] * 2
    events.clear()
    engine.device = "cuda:0"
    list(booth.record_all(["Another text.", "And another."]))
    assert events == ["spoken", "heard"] * 2


def test_it_waits_rather_than_speak_a_round_that_is_not_full(studio: Studio) -> None:
    """A round of one takes a GPU as long as one of many."""
    studio.lazy, studio.ahead = True, 1
    engine = ScriptedEngine(batch=4)
    list(studio.booth(engine, ScriptedTranscriber()).record_all(BOOK))
    assert engine.given == [4, 4, 2]


def test_a_chunk_is_handed_on_while_others_of_its_round_are_being_spoken(studio: Studio) -> None:
    """So that the encoder has something to do meanwhile, and never a whole round at once."""
    engine = ScriptedEngine(batch=5)
    spoken = [len(engine.spoken) for _ in studio.booth(engine, ScriptedTranscriber()).record_all(BOOK)]
    assert spoken == list(range(1, 11))


def test_what_nobody_heard_yet_is_given_up_with_the_job(studio: Studio) -> None:
    """The next job is not kept waiting for it."""
    studio.lazy, studio.ahead = True, 8
    booth = studio.booth(ScriptedEngine(batch=2), ScriptedTranscriber())
    booth.alive = iter_then_stop(3)
    with pytest.raises(Interrupted):
        list(booth.record_all(BOOK))
    assert isinstance(booth.listeners, Nearby) and booth.listeners.waiting == []
    assert booth.listeners.rested == 1


def iter_then_stop(calls: int) -> Callable[[], None]:
    """Raises Interrupted at the call of this number."""
    left = iter(range(calls - 1))

    def alive() -> None:
        if next(left, None) is None:
            raise Interrupted("stop")

    return alive


@pytest.mark.parametrize("within", [True, False], ids=["within a take", "between takes"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_what_is_more_urgent_is_done_in_the_middle_of_a_round(studio: Studio, at: int, within: bool) -> None:
    """The engine is let go of first; what it had not done is begun anew, and nothing is spoken twice."""
    engine = ScriptedEngine(batch=4)
    booth = studio.booth(engine, ScriptedTranscriber())
    urgent, asked_at, overtaken_at = [at], [], []

    def alive() -> None:
        if urgent and len(engine.spoken) >= urgent[0]:
            urgent.clear()
            overtaken_at.append(len(engine.spoken))
            raise Overtaken("now")

    def ask() -> None:
        assert not engine.speaking
        asked_at.append(len(engine.spoken))

    engine.tells = within
    booth.alive, booth.still_wanted = alive, ask
    choices = list(booth.record_all(BOOK))
    assert [choice.take.utterance.text for choice in choices] == BOOK
    assert [u.text for u in engine.spoken] == BOOK
    assert overtaken_at and overtaken_at[0] in asked_at


def test_what_is_more_urgent_comes_first_while_takes_are_being_heard(studio: Studio) -> None:
    """Nothing is spoken or heard twice for it, and the next is let pass only when something was gained."""
    studio.lazy, studio.ahead = True, 3
    engine, ears = ScriptedEngine(batch=2), ScriptedTranscriber()
    booth = studio.booth(engine, ears)
    passed: list[int] = []

    def alive() -> None:
        raise Overtaken("now, and always")

    booth.alive, booth.still_wanted = alive, lambda: passed.append(len(ears.listened))
    choices = list(booth.record_all([*BOOK, BOOK[0]]))
    assert [choice.take.utterance.text for choice in choices] == [*BOOK, BOOK[0]]
    assert sorted(u.text for u in engine.spoken) == BOOK == sorted(set(ears.listened))
    assert len(ears.listened) == len(BOOK) and len(passed) < 30
    assert passed[-1] == len(BOOK), "also after the last wait"


def test_a_job_that_is_overtaken_all_the_time_gets_on(studio: Studio) -> None:
    """A take is kept between one guest and the next, however long the first take of a round needs."""
    engine = ScriptedEngine(batch=4, tells=True)
    booth = studio.booth(engine, ScriptedTranscriber())

    def alive() -> None:
        raise Overtaken("now, and always")

    booth.alive = alive
    assert len(list(booth.record_all(BOOK))) == 10
    assert [u.text for u in engine.spoken] == BOOK and studio.asked <= 25


def test_a_chunk_that_nobody_passes_does_not_let_the_whole_book_pile_up(studio: Studio) -> None:
    """Only so many are spoken beyond it, so memory stays as it is and a recogniser that hangs is noticed."""
    studio.lazy, studio.ahead = False, 1
    engine, ears = ScriptedEngine(batch=2), ScriptedTranscriber()
    booth = studio.booth(engine, ears)
    assert isinstance(booth.listeners, Nearby)
    give, kept = booth.listeners.give, []

    def never_the_first(question: Question) -> Hearing:
        hearing = give(question)
        if question.text == BOOK[0]:
            booth.listeners.waiting.remove(hearing)  # type: ignore[union-attr]
            kept.append(hearing)
        return hearing

    booth.listeners.give = never_the_first  # type: ignore[method-assign]
    booth.listeners.give_up = lambda _: None  # type: ignore[method-assign]
    booth.alive = iter_then_stop(50)
    with pytest.raises(Interrupted):
        list(booth.record_all([*BOOK, *(f"And {number} more." for number in range(100))]))
    assert len(engine.spoken) == MOST_ROUNDS_HELD * 3


def test_what_cannot_be_heard_fails_the_job(studio: Studio) -> None:
    """With the recogniser's own words; the take is kept."""

    class Deaf(ScriptedTranscriber):
        def transcribe(self, speech: Speech, expected: str, language: str) -> Transcript:
            raise SynthesisError("The recogniser could not listen.")

    with pytest.raises(SynthesisError, match="could not listen"):
        studio.booth(ScriptedEngine(), Deaf()).record(TEXT)
    engine = ScriptedEngine()
    studio.booth(engine, ScriptedTranscriber()).record(TEXT)
    assert engine.spoken == []


def test_what_is_said_twice_in_a_batch_is_spoken_once(studio: Studio) -> None:
    """The second finds the first in the cache."""
    engine = ScriptedEngine(batch=4)
    choices = list(studio.booth(engine).record_all([TEXT, TEXT, "Another.", TEXT]))
    assert [u.text for u in engine.spoken] == [TEXT, "Another."]
    assert [choice.take.cached for choice in choices] == [False, True, False, True]


def test_an_error_of_one_costs_the_others_nothing(studio: Studio) -> None:
    """They are kept, and it alone is tried again."""
    engine = ScriptedEngine(batch=4, errors=[None, SynthesisError("hiccup"), None, None, None])
    choices = list(studio.booth(engine).record_all(BOOK[:4]))
    assert [choice.take.utterance.text for choice in choices] == BOOK[:4]
    assert engine.given == [4, 1] and studio.slept == [2.0]


def test_devnen_issue_76_what_a_batch_had_done_before_it_failed_is_kept(studio: Studio) -> None:
    """Only the failing one is spoken again in the next attempt at the job."""
    errors = [None, SynthesisError("first"), None, SynthesisError("second")]
    with pytest.raises(SynthesisError, match="second"):
        list(studio.booth(ScriptedEngine(batch=3, errors=errors)).record_all(BOOK[:3]))
    engine = ScriptedEngine(batch=3)
    list(studio.booth(engine).record_all(BOOK[:3]))
    assert [u.text for u in engine.spoken] == [BOOK[1]]


def test_a_stop_within_a_batch_keeps_what_is_done(studio: Studio) -> None:
    """It is heard of after each take."""
    engine = ScriptedEngine(batch=4)
    booth = studio.booth(engine)

    def stop_at_two() -> None:
        if len(engine.spoken) == 2:
            raise Interrupted("stop")

    booth.alive = stop_at_two
    with pytest.raises(Interrupted):
        list(booth.record_all(BOOK))
    after = ScriptedEngine(batch=4)
    list(studio.booth(after).record_all(BOOK))
    assert [u.text for u in after.spoken] == BOOK[2:]
