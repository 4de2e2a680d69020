"""Many utterances at once through the real package on small models: the same speech as one by one."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from pipeline import ahead, engines
from pipeline.chatterbox import batched, speaker
from pipeline.chatterbox.fast.slots import SlotEngine
from pipeline.chatterbox.fast.vocoder import Vocoder
from pipeline.chatterbox.package import LOCK
from pipeline.engines.base import Utterance, Voice
from pipeline.engines.chatterbox import ChatterboxEngine
from pipeline.equipment import Equipment
from pipeline.errors import Interrupted, SynthesisError
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Samples

torch = pytest.importorskip("torch") if os.environ.get("VOXSPOOL_TEST_MODELS") != "1" else __import__("torch")
TEXTS = (
    "Nobody minds.",
    "It rained all day, and nobody minded that at all.",
    "Go!",
    "A light in the window.",
)
NAMES = ("chatterbox", "chatterbox-turbo", "chatterbox-multilingual")
Load = Callable[[str, str], ChatterboxEngine]


@pytest.fixture(scope="module")
def loaded(small_equipment: Equipment) -> Iterator[Load]:
    """`loaded(name, mode)`, each loaded once."""
    held: dict[tuple[str, str], ChatterboxEngine] = {}

    def get(name: str, mode: str) -> ChatterboxEngine:
        if (name, mode) not in held:
            held[name, mode] = engines.load(name, replace(small_equipment, engine_mode=mode))  # type: ignore[assignment]
        return held[name, mode]

    yield get
    for engine in held.values():
        engine.close()


def utterances(texts: Sequence[str] = TEXTS, *, seed: int = 1, **synthesis: Any) -> list[Utterance]:
    """One for each text, in the checkpoint's own voice."""
    return [
        Utterance(
            text=text,
            voice=Voice(name=""),
            language="en",
            synthesis=Synthesis(**synthesis),
            seed=seed + number,
        )
        for number, text in enumerate(texts)
    ]


def say(engine: ChatterboxEngine, asked: Sequence[Utterance]) -> list[Samples]:
    """The samples of all, in order."""
    found: dict[int, Samples] = {}
    for spoken in engine.speak_all(asked):
        assert not isinstance(spoken.outcome, SynthesisError), spoken.outcome
        found[spoken.index] = spoken.outcome.audio.samples
    return [found[index] for index in range(len(asked))]


@contextmanager
def plain_t3(engine: ChatterboxEngine) -> Iterator[None]:
    """The package's T3 by its weights alone: without the small models' length-keeping last layer, and
    without the multilingual AlignmentStreamAnalyzer, which the slots leave out.
    """
    t3 = engine._speaker.t3  # type: ignore[attr-defined]
    before = type(t3.speech_head)
    t3.speech_head.__class__ = torch.nn.Linear
    near = None if t3.is_gpt else vars(t3.speech_pos_emb).pop("get_fixed_embedding")
    with patch.object(type(t3.hp), "is_multilingual", property(lambda _: False)):
        yield
    t3.speech_head.__class__ = before
    if near is not None:
        t3.speech_pos_emb.get_fixed_embedding = near


@pytest.mark.parametrize("name", NAMES)
def test_exact_says_what_the_package_says(loaded: Load, name: str) -> None:
    """Sample by sample, for the same seeds, with texts of different lengths beside each other."""
    upstream = loaded(name, "upstream")
    with plain_t3(upstream):
        alone = say(upstream, utterances())
    assert len({len(samples) for samples in alone}) > 1
    together = say(loaded(name, "exact"), utterances())
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other)
        assert np.abs(one - other).max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_fast_says_the_same_whoever_is_beside_it(loaded: Load, name: str) -> None:
    """Alone, last or among others; the same seed is the same take, another seed another."""
    engine = loaded(name, "fast")
    asked = utterances()
    together = say(engine, asked)
    (alone,) = say(engine, asked[1:2])
    turned = say(engine, asked[::-1])
    assert len(alone) == len(together[1]) and np.abs(alone - together[1]).max() < 1e-4
    assert np.abs(turned[2] - together[1]).max() < 1e-4
    (other,) = say(engine, utterances(TEXTS[1:2], seed=99))
    assert len(other) != len(alone) or np.abs(other - alone).max() > 1e-2


def test_chatterbox_issue_549_two_equal_tokens_in_a_row_do_not_end_it(loaded: Load) -> None:
    """0.1.7 takes them for a fault and ends the speech; a long vowel is nothing else."""
    asked = utterances(TEXTS[1:2], temperature=0.05, repetition_penalty=1.0)
    upstream, ours = (loaded("chatterbox-multilingual", mode) for mode in ("upstream", "exact"))
    (left_to_itself,), (whole,) = say(upstream, asked), say(ours, asked)
    assert len(left_to_itself) < 0.5 * 24_000 < len(whole)


def faults(engine: ChatterboxEngine) -> list[str | None]:
    """What is wrong with each take, in the order in which they are done."""
    spoken = [one.outcome for one in engine.speak_all(utterances())]
    return [outcome.fault for outcome in spoken if not isinstance(outcome, SynthesisError)]


@pytest.mark.parametrize("name", NAMES)
def test_chatterbox_issue_43_being_cut_off_is_told_of_many_at_once(
    loaded: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of one; what comes to its end is not told of."""
    engine = loaded(name, "exact")
    assert faults(engine) == [None] * len(TEXTS)
    for module in (batched, speaker):
        monkeypatch.setattr(module, "MAX_TOKENS", 15)
    assert ["cut off" in (fault or "") for fault in faults(engine)] == [True] * len(TEXTS)


def test_settings_are_each_ones_own(loaded: Load) -> None:
    """A guided utterance beside one without guidance, warm beside cold."""
    engine = loaded("chatterbox", "exact")
    mixed = [
        replace(asked, synthesis=Synthesis(cfg_weight=weight, temperature=temperature, exaggeration=emotion))
        for asked, weight, temperature, emotion in zip(
            utterances(), (0.0, 0.9, 0.5, 0.0), (0.8, 0.3, 1.2, 0.5), (0.5, 1.0, 0.2, 0.7), strict=True
        )
    ]
    together = say(engine, mixed)
    for number, asked in enumerate(mixed):
        (alone,) = say(engine, [asked])
        assert len(alone) == len(together[number]) and np.abs(alone - together[number]).max() < 1e-4


def test_what_cannot_be_spoken_keeps_nobody_from_speaking(loaded: Load) -> None:
    """It comes with its error."""
    engine = loaded("chatterbox", "fast")
    outcomes = {
        spoken.index: spoken.outcome for spoken in engine.speak_all(utterances(("...", "Hello there.")))
    }
    assert isinstance(outcomes[0], SynthesisError) and outcomes[0].code == "no_speech"
    assert not isinstance(outcomes[1], SynthesisError)


def test_a_text_too_long_for_a_slot_is_told(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do; the short one beside it is spoken."""
    monkeypatch.setattr(batched, "LONGEST_TEXT_TOKENS", 30)
    outcomes = {
        spoken.index: spoken.outcome
        for spoken in loaded("chatterbox", "fast").speak_all(utterances(("word " * 100, "Hello there.")))
    }
    assert isinstance(outcomes[0], SynthesisError) and outcomes[0].code == "length_limit"
    assert "chunks.max_chars" in outcomes[0].hint
    assert not isinstance(outcomes[1], SynthesisError)


def test_where_memory_runs_out_fewer_are_spoken_at_a_time(
    small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halved until it fits, and nobody is left out; of a single one that does not fit it is told."""
    engine: Any = engines.load("chatterbox", replace(small_equipment, engine_mode="fast"))
    room, run = [3], SlotEngine.run

    def run_within(self: SlotEngine, requests: Any, alive: Any) -> Any:
        if self._slots > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        yield from run(self, requests, alive)

    expected = say(engine, utterances())
    monkeypatch.setattr(SlotEngine, "run", run_within)
    found = say(engine, utterances())
    assert 1 <= engine.batch <= 3
    for one, other in zip(expected, found, strict=True):
        assert np.abs(one - other).max() < 1e-4
    room[0] = 0
    outcomes = [spoken.outcome for spoken in engine.speak_all(utterances())]
    assert [getattr(outcome, "code", "") for outcome in outcomes] == ["out_of_memory"] * 4
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_sound_of_several_is_made_at_once_where_that_pays(
    loaded: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: in batches of like lengths; everybody sounds as alone."""
    engine: Any = loaded(name, "fast")
    alone = say(engine, utterances())
    sizes, waves = [], Vocoder.waves
    monkeypatch.setattr(
        Vocoder, "waves", lambda self, mels, chances: sizes.append(len(mels)) or waves(self, mels, chances)
    )
    monkeypatch.setattr(engine._slots._decoder, "_frames", 5000)
    together = say(engine, utterances())
    assert sum(sizes) == len(TEXTS) and max(sizes) > 1
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other) and np.abs(one - other).max() < 2e-4


def test_where_memory_runs_out_fewer_sounds_are_made_at_a_time(
    small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halved until it fits, and nobody is left out; of a single one that does not fit it is told."""
    engine: Any = engines.load("chatterbox", replace(small_equipment, engine_mode="fast"))
    expected = say(engine, utterances())
    monkeypatch.setattr(engine._slots._decoder, "_frames", 5000)
    room, waves = [1], Vocoder.waves

    def waves_within(self: Vocoder, mels: Any, chances: Any) -> Any:
        if len(mels) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return waves(self, mels, chances)

    monkeypatch.setattr(Vocoder, "waves", waves_within)
    for one, other in zip(expected, say(engine, utterances()), strict=True):
        assert np.abs(one - other).max() < 2e-4
    room[0] = 0
    outcomes = [spoken.outcome for spoken in engine.speak_all(utterances())]
    assert [getattr(outcome, "code", "") for outcome in outcomes] == ["out_of_memory"] * 4
    room[0] = 9
    say(engine, utterances())
    engine.close()


def test_a_failing_sound_keeps_nobody_from_sounding(
    small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with its error, and the others with their sound."""
    engine: Any = engines.load("chatterbox", replace(small_equipment, engine_mode="fast"))
    calls, waves = [], Vocoder.waves

    def second_fails(self: Vocoder, mels: Any, chances: Any) -> Any:
        calls.append(mels)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return waves(self, mels, chances)

    monkeypatch.setattr(Vocoder, "waves", second_fails)
    outcomes = [spoken.outcome for spoken in engine.speak_all(utterances())]
    failed = [outcome for outcome in outcomes if isinstance(outcome, SynthesisError)]
    assert len(outcomes) == 4 and len(failed) == 1 and "illegal memory access" in failed[0].message
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_eight_bits_speak_too(small_equipment: Equipment, name: str) -> None:
    """As long a text, in a voice nearby; told apart in the manifest and in the cache."""
    exact: Any = engines.load(name, replace(small_equipment, engine_mode="fast"))
    rounded: Any = engines.load(name, replace(small_equipment, engine_mode="fast", int8=True))
    assert rounded.version != exact.version and "int8" in rounded.version
    for one, other in zip(say(exact, utterances()), say(rounded, utterances()), strict=True):
        assert len(other) > len(one) / 3
        assert len(one) != len(other) or not np.array_equal(one, other)
    exact.close()
    rounded.close()


def test_giving_up_in_the_middle_leaves_the_engine_fit(loaded: Load) -> None:
    """A stop comes between two takes; the lock is free after it, and the next round finds all slots empty."""
    engine = loaded("chatterbox", "fast")
    expected = say(engine, utterances())
    running = engine.speak_all(utterances())
    next(running)
    running.close()
    assert LOCK.acquire(blocking=False)
    LOCK.release()
    for one, other in zip(expected, say(engine, utterances()), strict=True):
        assert np.abs(one - other).max() < 1e-4


@pytest.mark.parametrize(("failures", "helps"), [(1, True), (100, False)])
def test_where_there_is_no_memory_to_take_in_a_voice_there_are_fewer_slots(
    small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch, failures: int, helps: bool
) -> None:
    """And where that does not help each utterance is told why."""
    engine: Any = engines.load("chatterbox", replace(small_equipment, engine_mode="fast"))
    prepare, left, before = SlotEngine.prepare, iter(range(failures)), engine.batch

    def short_of_memory(self: SlotEngine, voice: Any) -> Any:
        if next(left, None) is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return prepare(self, voice)

    monkeypatch.setattr(SlotEngine, "prepare", short_of_memory)
    outcomes = [spoken.outcome for spoken in engine.speak_all(utterances())]
    assert len(outcomes) == len(TEXTS) and engine.batch == (before // 2 if helps else 1)
    assert [isinstance(one, SynthesisError) for one in outcomes] == [not helps] * len(TEXTS)
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_it_is_alive_long_before_the_first_take(loaded: Load, name: str) -> None:
    """Every few tokens and with each step of the flow; whoever raises then leaves an engine that is fit."""
    engine: Any = loaded(name, "fast")
    calls: list[int] = []
    expected = [len(samples) for samples in say(engine, utterances())]
    slots, asked = engine._slots, [engine._asked(utterance) for utterance in utterances()]
    first = next(slots.speak_all(asked, lambda: calls.append(1)))
    assert len(calls) > 10 and not isinstance(first.said, SynthesisError)
    for number in (1, 5, len(calls) - 1):
        left = iter(range(number))

        def stop(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Interrupted("stop")

        with pytest.raises(Interrupted):
            list(slots.speak_all(asked, stop))
        assert LOCK.acquire(blocking=False)
        LOCK.release()
    assert [len(samples) for samples in say(engine, utterances())] == expected


@pytest.mark.parametrize("mode", ["upstream", "fast"])
def test_a_stop_reaches_the_engine_in_its_own_thread(
    loaded: Load, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the caller hears that it was heeded, nobody speaks any more and the engine is fit."""
    monkeypatch.setattr(ahead, "LOOK_SECONDS", 0.001)
    engine = loaded("chatterbox", mode)

    def stop() -> None:
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        list(engine.speak_all(utterances(), stop))
    assert LOCK.acquire(blocking=False)
    LOCK.release()
    assert len(say(engine, utterances())) == len(TEXTS)


def test_the_manifest_can_tell_the_modes_apart(loaded: Load) -> None:
    """The mode is part of what a take is kept under, too."""
    told = {mode: loaded("chatterbox", mode) for mode in ("upstream", "exact", "fast")}
    assert {mode: engine.mode for mode, engine in told.items()} == {mode: mode for mode in told}
    assert len({engine.version for engine in told.values()}) == 3
    assert told["upstream"].batch == 1 < told["fast"].batch


@pytest.mark.parametrize(("slots", "fit"), [(0.5, 1), (3.5, 3), (1000, 8)])
def test_as_many_slots_as_memory_allows(
    loaded: Load, monkeypatch: pytest.MonkeyPatch, slots: float, fit: int
) -> None:
    """Half of what is free beside the weights; one at least, and no more than are of use."""
    engine: Any = loaded("chatterbox", "fast")
    many = engine._slots
    own = 4 * sum(weight.numel() for weight in engine._speaker.t3.tfmr.parameters())
    each = many._shape.cache_bytes(many._length)
    monkeypatch.setattr(batched, "free_bytes", lambda _: own + int(2 * slots * each))
    assert batched.Batched(engine._speaker, "fast").slots == fit
    monkeypatch.setattr(batched, "free_bytes", lambda _: None)
    assert batched.Batched(engine._speaker, "fast").slots == 8
