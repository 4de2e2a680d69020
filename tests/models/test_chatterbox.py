"""The adapter of chatterbox-tts on small models: what reaches the package, and what its faults do to us.

Tests of known faults are named after them: chatterbox is resemble-ai/chatterbox, devnen its TTS server,
extended petermg/Chatterbox-TTS-Extended, openclaw mdlmarkham/openclaw-voice.
"""

import gc
import os
import random
import shutil
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipeline import engines
from pipeline.chatterbox import decoders, models, speaker
from pipeline.chatterbox.measured import ON_DEVICE
from pipeline.chatterbox.models import ENGLISH, MULTILINGUAL, NANO, TURBO
from pipeline.chatterbox.package import LOCK, package, quiet
from pipeline.engines.base import Utterance, Voice
from pipeline.engines.chatterbox import ChatterboxEngine
from pipeline.equipment import Equipment
from pipeline.errors import InputError, SynthesisError
from pipeline.files import sha256_of
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Samples
from tests.models import checkpoints

torch = pytest.importorskip("torch") if os.environ.get("VOXSPOOL_TEST_MODELS") != "1" else __import__("torch")
TEXT = "Nobody minds."
NAMES = ("chatterbox", "chatterbox-multilingual", "chatterbox-turbo")


@pytest.fixture(scope="module")
def loaded(small_equipment: Equipment) -> Iterator[Callable[[str], ChatterboxEngine]]:
    """Engines by name, each loaded once."""
    held: dict[str, ChatterboxEngine] = {}

    def get(name: str) -> ChatterboxEngine:
        if name not in held:
            held[name] = engines.load(name, small_equipment)  # type: ignore[assignment]
        return held[name]

    yield get
    for engine in held.values():
        engine.close()


@pytest.fixture(scope="module")
def english(loaded: Callable[[str], ChatterboxEngine]) -> ChatterboxEngine:
    """The English engine."""
    return loaded("chatterbox")


@pytest.fixture(scope="module")
def multilingual(loaded: Callable[[str], ChatterboxEngine]) -> ChatterboxEngine:
    """The multilingual engine."""
    return loaded("chatterbox-multilingual")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Voice]:
    """`clips(number, seconds)`: a voice, the same for the same number."""
    folder = tmp_path_factory.mktemp("clips")

    def make(number: int = 1, seconds: float = 1.2) -> Voice:
        path = folder / f"{number}-{seconds}.wav"
        at = np.arange(round(seconds * 24_000)) / 24_000
        hum = sum(np.sin(2 * np.pi * (90 + 30 * number) * partial * at) / partial for partial in range(1, 9))
        breath = np.random.default_rng(number).standard_normal(len(at))
        soundfile.write(path, (0.1 * hum + 0.01 * breath) * (1 + np.sin(8 * at)) / 2, 24_000)
        return Voice(name=path.name, clip=path, clip_sha256=sha256_of(path))

    return make


def utterance(voice: Voice | None = None, text: str = TEXT, *, seed: int = 1, **synthesis: Any) -> Utterance:
    """One chunk, in the checkpoint's own voice unless another is given."""
    return Utterance(
        text=text, voice=voice or Voice(name=""), language="en", synthesis=Synthesis(**synthesis), seed=seed
    )


def say(engine: ChatterboxEngine, *arguments: Any, **named: Any) -> Samples:
    """The samples of one chunk."""
    return engine.speak(utterance(*arguments, **named)).audio.samples


def model_of(engine: ChatterboxEngine) -> Any:
    """The package's own object."""
    return engine._speaker._model()  # type: ignore[attr-defined]


def measured_of(engine: ChatterboxEngine) -> Any:
    """The voices that an engine knows."""
    return engine._speaker._measured  # type: ignore[attr-defined]


class Spy:
    """Stands before a function and remembers what it was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls: list[dict[str, Any]] = []
        original = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            self.calls.append({"arguments": arguments, **named})
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)


WANTED = {
    "temperature": 0.7,
    "exaggeration": 0.9,
    "cfg_weight": 0.25,
    "min_p": 0.02,
    "top_p": 0.9,
    "repetition_penalty": 1.5,
}


@pytest.mark.parametrize("name", ["chatterbox", "chatterbox-multilingual"])
def test_each_setting_reaches_the_network(
    name: str, loaded: Callable[[str], ChatterboxEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As T3 is called in the end, not only as it was handed to the package."""
    engine = loaded(name)
    spy = Spy(monkeypatch, model_of(engine).t3, "inference")
    say(engine, **WANTED)
    (call,) = spy.calls
    assert {key: call[key] for key in WANTED if key != "exaggeration"} == pytest.approx(
        {key: value for key, value in WANTED.items() if key != "exaggeration"}
    )
    assert float(call["t3_cond"].emotion_adv) == pytest.approx(0.9)


def test_each_setting_reaches_turbos_network(
    loaded: Callable[[str], ChatterboxEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three that Turbo heeds."""
    engine = loaded("chatterbox-turbo")
    spy = Spy(monkeypatch, model_of(engine).t3, "inference_turbo")
    say(engine, **WANTED)
    (call,) = spy.calls
    assert [call[key] for key in ("temperature", "top_p", "repetition_penalty")] == [0.7, 0.9, 1.5]


def test_the_language_reaches_the_tokenizer(
    multilingual: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another language is another sound."""
    spy = Spy(monkeypatch, model_of(multilingual).tokenizer, "text_to_tokens")
    german, italian = (
        multilingual.speak(replace(utterance(), language=tag)).audio.samples for tag in ("de-AT", "it")
    )
    assert [call["language_id"] for call in spy.calls] == ["de", "it"]
    assert not np.array_equal(german, italian)


def test_chinese_is_read_by_the_table_in_the_folder(multilingual: ChatterboxEngine) -> None:
    """No hub is asked for it."""
    tokenizer = model_of(multilingual).tokenizer
    tags = {f"[cj_{letter}]" for letter in "cae."}
    ids = tokenizer.text_to_tokens("你好", language_id="zh")[0].tolist()
    assert {tokenizer.tokenizer.id_to_token(number) for number in ids} >= tags


def test_turbos_tags_are_tokens_of_their_own(loaded: Callable[[str], ChatterboxEngine]) -> None:
    """They pass through to the model."""
    tokenizer = model_of(loaded("chatterbox-turbo")).tokenizer
    assert tokenizer.tokenize("Well [sigh] yes")[4:6] == ["Ġ", "[sigh]"]


@pytest.mark.parametrize("name", NAMES)
def test_another_voice_is_another_sound(
    name: str, loaded: Callable[[str], ChatterboxEngine], clips: Callable[..., Voice]
) -> None:
    """Two clips and the checkpoint's own voice differ, whatever was spoken before."""
    engine = loaded(name)
    voices = [clips(1, 5.4), clips(2, 5.4), None]
    first = [say(engine, voice) for voice in voices]
    again = [say(engine, voice) for voice in reversed(voices)][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not any(np.array_equal(first[one], first[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_exaggeration_is_not_kept_with_a_voice(
    english: ChatterboxEngine, clips: Callable[..., Voice]
) -> None:
    """The same voice serves all degrees, and none changes the next."""
    plain = say(english, clips(1))
    assert not np.array_equal(say(english, clips(1), exaggeration=0), plain)
    assert np.array_equal(say(english, clips(1)), plain)


def test_what_was_measured_is_found_again_on_disk(
    english: ChatterboxEngine,
    clips: Callable[..., Voice],
    small_equipment: Equipment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A later worker hears the same voice without measuring it; a damaged file is measured anew."""
    before = say(english, clips(3))
    later = engines.load("chatterbox", small_equipment)
    assert isinstance(later, ChatterboxEngine)
    spy = Spy(monkeypatch, model_of(later), "prepare_conditionals")
    assert np.array_equal(say(later, clips(3)), before)
    assert spy.calls == []
    measured_of(later).drop()
    for path in small_equipment.measured.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(say(later, clips(3)), before)
    assert len(spy.calls) == 1
    later.close()


def test_a_measured_folder_that_cannot_be_written_costs_no_job(
    small_equipment: Equipment, clips: Callable[..., Voice], tmp_path: Path
) -> None:
    """It only costs time."""
    (tmp_path / "measured").write_text("in the way")
    engine = engines.load("chatterbox", replace(small_equipment, measured=tmp_path / "measured"))
    assert isinstance(engine, ChatterboxEngine)
    assert len(say(engine, clips(1)))
    engine.close()


def test_devnen_pr_160_no_more_than_four_voices_stay_on_the_device(
    english: ChatterboxEngine, clips: Callable[..., Voice]
) -> None:
    """Each new one puts out the least recently used."""
    for number in range(1, ON_DEVICE + 3):
        say(english, clips(number))
    assert measured_of(english).held == ON_DEVICE == 4


def test_chatterbox_issue_218_memory_of_conditionals(
    english: ChatterboxEngine, clips: Callable[..., Voice]
) -> None:
    """The package measures a voice with gradients on, which pins hundreds of megabytes; we do not."""
    model = model_of(english)
    with LOCK, quiet():
        model.prepare_conditionals(str(clips(7).clip))
        assert model.conds.gen["embedding"].requires_grad  # left to itself
        model.conds = None
        kept = measured_of(english).voice(clips(7).clip, clips(7).clip_sha256, 0.5)
    tensors = [value for value in kept.gen.values() if torch.is_tensor(value)]
    assert len(tensors) >= 3
    assert not any(tensor.requires_grad for tensor in [*tensors, kept.t3.speaker_emb])


def test_devnen_pr_164_the_watermarker_keeps_no_gradients(
    loaded: Callable[[str], ChatterboxEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a gigabyte a call where they are kept; Turbo's class calls it so."""
    engine = loaded("chatterbox-turbo")
    watermarker = model_of(engine).watermarker
    modes: list[bool] = []
    mark = watermarker.apply_watermark

    def watched(*arguments: Any, **named: Any) -> Any:
        modes.append(torch.is_inference_mode_enabled())
        return mark(*arguments, **named)

    monkeypatch.setattr(watermarker, "apply_watermark", watched)
    say(engine)
    assert modes == [True]


def hooks(t3: Any) -> int:
    """How many functions are called after the layers of T3."""
    return sum(len(module._forward_hooks) for module in t3.tfmr.modules())


def test_chatterbox_issue_504_no_hook_outlives_its_call(multilingual: ChatterboxEngine) -> None:
    """0.1.7 leaves three on T3 with each call, and attention switched to its slow form."""
    t3 = model_of(multilingual).t3
    attention = t3.tfmr.config._attn_implementation
    say(multilingual)
    say(multilingual)
    assert hooks(t3) == 0
    assert (t3.tfmr.config._attn_implementation, t3.tfmr.config.output_attentions) == (attention, False)
    model = model_of(multilingual)
    with LOCK, quiet(), speaker._state_restored(t3):
        for calls in (1, 2):  # left to itself
            model.conds = measured_of(multilingual).voice(None, None, 0.5)
            model.generate(TEXT, language_id="en")
            assert hooks(t3) == 3 * calls
        model.conds = None
    assert hooks(t3) == 0


def test_chatterbox_issue_548_and_435_very_short_texts_do_not_fail(
    multilingual: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alignment check of 0.1.7 fails on five tokens; a short text is given spaces."""
    spy = Spy(monkeypatch, model_of(multilingual).t3, "prepare_input_embeds")
    assert len(say(multilingual, text="I"))
    tokens = spy.calls[0]["text_tokens"]
    assert tokens.shape == (2, speaker.LEAST_TEXT_TOKENS)
    assert tokens[0].tolist()[-4:] == [2, 2, 2, 0]


def test_signs_among_the_speech_tokens_make_no_sound() -> None:
    """The multilingual class passes them on, and S3Gen has no entry for them."""
    tokens = torch.tensor([[1, 6561, 2, 8000, 3, 6562]])
    assert speaker._without_signs(tokens).tolist() == [[1, 2, 3]]
    with pytest.raises(SynthesisError) as caught:
        speaker._without_signs(torch.tensor([[6562]]))
    assert caught.value.code == "no_speech"


@pytest.mark.parametrize("name", NAMES)
def test_chatterbox_issue_43_being_cut_off_is_told(
    name: str, loaded: Callable[[str], ChatterboxEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package stops after 1000 tokens and says nothing of it."""
    monkeypatch.setattr(speaker, "MAX_TOKENS", 15)
    speech = loaded(name).speak(utterance())
    assert speech.fault is not None
    assert "cut off" in speech.fault
    assert speech.audio.seconds < 1.0


def test_chatterbox_issue_97_a_take_of_five_tokens_is_told() -> None:
    """A fifth of a second holds no word."""
    short = torch.tensor([[1, 2, 3, 4, 5, 6562]])
    fault = speaker._fault_of(short, speaker._without_signs(short), turbo=False)
    assert fault == "the model ended after 0.20 s, too soon for any word"
    whole = torch.tensor([[1, 2, 3, 4, 5, 6, 6562]])
    assert speaker._fault_of(whole, speaker._without_signs(whole), turbo=False) is None


def test_no_guidance_can_be_asked_for(english: ChatterboxEngine) -> None:
    """The English class fails on it."""
    model = model_of(english)
    with LOCK, quiet():
        model.conds = measured_of(english).voice(None, None, 0.5)
        with pytest.raises(RuntimeError):
            model.generate(TEXT, cfg_weight=0.0)
        model.conds = None
    assert len(say(english, cfg_weight=0))


def test_extended_issue_31_no_voice_stays_behind(
    english: ChatterboxEngine, clips: Callable[..., Voice], tmp_path: Path
) -> None:
    """Neither a job's voice nor one that failed is there for the next."""
    own = say(english)
    say(english, clips(1))
    assert model_of(english).conds is None
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(48_000), 24_000)
    with pytest.raises(InputError) as caught:
        say(english, Voice(name="silent.wav", clip=silent, clip_sha256=sha256_of(silent)))
    assert caught.value.code == "reference_silent"
    assert caught.value.message.startswith("silent.wav: The voice clip is silent")
    assert model_of(english).conds is None
    assert np.array_equal(say(english), own)


def test_turbo_wants_more_than_five_seconds(
    loaded: Callable[[str], ChatterboxEngine], clips: Callable[..., Voice]
) -> None:
    """The package would end with an assertion."""
    with pytest.raises(InputError, match=r"lasts 4\.0 s; it takes 5\.1 s or more") as caught:
        say(loaded("chatterbox-turbo"), clips(1, 4.0))
    assert caught.value.code == "reference_short"


def test_openclaw_issue_27_two_who_speak_at_once_do_not_mix(
    english: ChatterboxEngine, clips: Callable[..., Voice]
) -> None:
    """The model has one voice at a time, and randomness is global: one waits for the other."""
    alone = [say(english, clips(number), seed=number) for number in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda number: say(english, clips(number), seed=number), (1, 2)))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_nobody_elses_randomness_is_touched(english: ChatterboxEngine) -> None:
    """Seeds are for speech."""
    random.seed(5)
    np.random.seed(5)
    python, numeric = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    say(english)
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numeric)  # type: ignore[index]


def test_memory_that_runs_out_once_costs_a_second_try(
    english: ChatterboxEngine, clips: Callable[..., Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything freed that can be."""
    before = say(english, clips(1))
    failing(english, monkeypatch, torch.OutOfMemoryError("CUDA out of memory."), times=1)
    assert np.array_equal(say(english, clips(1)), before)
    assert measured_of(english).held == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_memory_that_runs_out_twice_is_told(
    english: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """By its own code, with what helps."""
    failing(english, monkeypatch, error, times=2)
    with pytest.raises(SynthesisError) as caught:
        say(english)
    assert caught.value.code == "out_of_memory"
    assert len(say(english))


def failing(
    engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, *, times: int
) -> None:
    """The next `times` calls of the model raise `error`."""
    model = model_of(engine)
    original, left = model.generate, [error] * times

    def generate(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return original(*arguments, **named)

    monkeypatch.setattr(model, "generate", generate)


@pytest.mark.parametrize("value", [0.0, float("nan")], ids=["silence", "nan"])
def test_what_is_no_sound_is_an_error(
    english: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Never handed on as speech."""
    monkeypatch.setattr(model_of(english), "generate", lambda *_, **__: torch.full((1, 24_000), value))
    with pytest.raises(SynthesisError):
        say(english)


def test_what_the_package_raises_becomes_ours(
    english: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its first line; the rest is for the log."""
    failing(english, monkeypatch, RuntimeError("shapes differ\nat line 7"), times=1)
    with pytest.raises(SynthesisError, match=r"^The model failed: RuntimeError: shapes differ$"):
        say(english)


@pytest.mark.parametrize("mode", ["upstream", "fast"])
def test_closing_lets_go_of_the_model(small_equipment: Equipment, mode: str) -> None:
    """Nothing else holds it; what several are spoken with goes too, with its copies of weights."""
    engine = engines.load("chatterbox", replace(small_equipment, engine_mode=mode))
    assert isinstance(engine, ChatterboxEngine)
    say(engine)
    held = [weakref.ref(model_of(engine).t3)]
    held += [] if engine._slots is None else [weakref.ref(engine._slots)]
    engine.close()
    gc.collect()
    assert [one() for one in held] == [None] * len(held)


def test_two_engines_of_one_file_hold_one_decoder(
    english: ChatterboxEngine, small_equipment: Equipment, small_checkpoints: Path
) -> None:
    """A file that was replaced is loaded anew."""
    again = engines.load("chatterbox", small_equipment)
    assert isinstance(again, ChatterboxEngine)
    file = small_checkpoints / "chatterbox" / "s3gen.safetensors"
    assert model_of(again).s3gen is model_of(english).s3gen is decoders.find(file, "cpu")
    os.utime(file)
    assert decoders.find(file, "cpu") is None
    again.close()


def test_chatterbox_issue_533_the_device_is_a_string(
    small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package compares it with strings, and loads to the wrong place otherwise."""
    devices: list[object] = []
    kind = package().english
    original = kind.from_local.__func__

    def from_local(cls: Any, folder: Path, device: object) -> Any:
        devices.append(device)
        return original(cls, folder, device)

    monkeypatch.setattr(kind, "from_local", classmethod(from_local))
    engines.load("chatterbox", small_equipment).close()
    assert devices == ["cpu"]
    assert type(devices[0]) is str


def saved_on_a_gpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the file again as if its tensors had been on a GPU, which each of them says in it."""
    content = torch.load(path, weights_only=True)
    with monkeypatch.context() as patched:
        patched.setattr("torch.serialization.location_tag", lambda _storage: "cuda:0")
        torch.save(content, path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_chatterbox_issue_85_and_96_files_saved_on_a_gpu_load_without_one(
    small_equipment: Equipment, small_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the checkpoint's own and the voices that a worker on the GPU has measured."""
    folder = tmp_path / "chatterbox-multilingual"
    shutil.copytree(small_checkpoints / folder.name, folder)
    for path in folder.glob("*.pt"):
        saved_on_a_gpu(path, monkeypatch)
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)  # left to itself
    engine = engines.load(folder.name, replace(small_equipment, models=tmp_path))
    assert isinstance(engine, ChatterboxEngine)
    assert len(say(engine))
    engine.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_chatterbox_issue_85_a_voice_measured_on_a_gpu_is_used_without_one(
    small_equipment: Equipment, clips: Callable[..., Voice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which device measured it is not in its name: the next worker may have another."""
    equipment = replace(small_equipment, measured=tmp_path)
    monkeypatch.setattr("torch.serialization.location_tag", lambda _storage: "cuda:0")
    before, after = (engines.load("chatterbox", equipment) for _ in range(2))
    assert isinstance(before, ChatterboxEngine) and isinstance(after, ChatterboxEngine)
    said = say(before, clips(8))
    spy = Spy(monkeypatch, model_of(after), "prepare_conditionals")
    assert np.array_equal(say(after, clips(8)), said)
    assert spy.calls == []
    before.close()
    after.close()


def test_chatterbox_issue_365_nothing_is_asked_of_the_network(multilingual: ChatterboxEngine) -> None:
    """Loading went without; both clients are told to stay at home (and no test may reach out)."""
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
    from chatterbox.models.tokenizers import tokenizer

    asked = tokenizer.hf_hub_download(repo_id="some/where", filename="x.json", cache_dir="/models")
    assert asked == "/models/x.json"
    assert model_of(multilingual).tokenizer.cangjie_converter.segmenter is None


def test_chatterbox_issue_198_and_390_a_missing_watermarker_is_told(
    small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's constructor would fail with "NoneType object is not callable"."""
    monkeypatch.setattr("perth.PerthImplicitWatermarker", None)
    with pytest.raises(InputError, match="setuptools left out") as caught:
        engines.load("chatterbox", small_equipment)
    assert caught.value.code == "engine_unavailable"
    assert caught.value.hint == 'Run: pip install "setuptools<81"'


def test_a_watermarker_that_marks_nothing_is_told(
    small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the manifest says of the watermark must be so."""
    monkeypatch.setattr("perth.PerthImplicitWatermarker.apply_watermark", lambda self, signal, **_: signal)
    with pytest.raises(InputError, match="does not mark"):
        engines.load("chatterbox", small_equipment)


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_watermarked(name: str, loaded: Callable[[str], ChatterboxEngine]) -> None:
    """What comes out carries the mark that the engine states."""
    engine = loaded(name)
    assert engine.watermark == "perth 1.0.1"
    with quiet():
        found = model_of(engine).watermarker.get_watermark(say(engine), sample_rate=24_000, round=False)
        empty = model_of(engine).watermarker.get_watermark(
            np.random.default_rng(1).standard_normal(48_000).astype(np.float32) * 0.1,
            sample_rate=24_000,
            round=False,
        )
    assert np.mean(found) > 0.9
    assert np.mean(empty) < 0.6


def test_a_missing_package_is_told(small_equipment: Equipment, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that brings it."""
    monkeypatch.setitem(sys.modules, "chatterbox.tts", None)
    with pytest.raises(InputError, match="chatterbox-tts cannot be used here") as caught:
        engines.load("chatterbox", small_equipment)
    assert caught.value.code == "engine_unavailable"
    assert "pip install -r requirements.txt" in caught.value.hint


def test_a_model_that_was_not_brought_is_told(small_equipment: Equipment, tmp_path: Path) -> None:
    """File by file."""
    with pytest.raises(InputError, match=r"t3_cfg\.safetensors") as caught:
        engines.load("chatterbox", replace(small_equipment, models=tmp_path))
    assert caught.value.code == "model_missing"


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_model_is_told(
    name: str, small_equipment: Equipment, small_checkpoints: Path, tmp_path: Path
) -> None:
    """A file that was cut off or is another model's is no mistake of ours."""
    shutil.copytree(small_checkpoints / name, tmp_path / name)
    for other in (tmp_path / name).glob("t3_*"):
        other.write_bytes(other.read_bytes()[:5000])
    with pytest.raises(InputError, match=f"The files of the model {name} in") as caught:
        engines.load(name, replace(small_equipment, models=tmp_path))
    assert caught.value.code == "model_broken"
    assert caught.value.message.count("\n") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize("device", ["cuda:0", "cuda:7"])
def test_a_device_that_is_not_there_is_told(small_equipment: Equipment, device: str) -> None:
    """There is no falling back to the processor, which would take hours for minutes."""
    with pytest.raises(InputError, match=f"There is no device {device} here") as caught:
        engines.load("chatterbox", replace(small_equipment, device=device))
    assert caught.value.code == "device_missing"


def test_the_third_multilingual_model_is_taken_where_it_can_be(
    small_checkpoints: Path, tmp_path: Path
) -> None:
    """By what the class understands, not by the package's version, which does not tell."""
    (tmp_path / models.THIRD_MULTILINGUAL).touch()
    old = package()
    assert models.with_features(MULTILINGUAL, tmp_path, old) is MULTILINGUAL
    new = replace(old, multilingual=types.SimpleNamespace(from_local=lambda folder, device, t3_model="v2": 0))
    found = models.with_features(MULTILINGUAL, tmp_path, new)
    assert found.features == {"t3_model": "v3"}
    assert models.THIRD_MULTILINGUAL in found.files
    assert models.SECOND_MULTILINGUAL not in found.files
    assert "multilingual v3" in models.version(new, [], found.feature)
    assert models.with_features(MULTILINGUAL, small_checkpoints, new) is MULTILINGUAL
    assert models.with_features(ENGLISH, tmp_path, new) is ENGLISH


def test_nano_stands_in_for_turbo_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Nano was brought: a package that knows it loads it, another says so."""
    (tmp_path / NANO.name).mkdir()
    for name in NANO.files:
        (tmp_path / NANO.name / name).touch()
    with pytest.raises(InputError, match="cannot load the model chatterbox-nano") as caught:
        models.chosen(TURBO, tmp_path)
    assert caught.value.code == "engine_unavailable"
    knowing = replace(package(), turbo=types.SimpleNamespace(from_local=lambda folder, device, nano=False: 0))
    monkeypatch.setattr(models, "package", lambda: knowing)
    family, folder = models.chosen(TURBO, tmp_path)
    assert (family.features, family.feature, folder) == ({"nano": True}, "nano", tmp_path / NANO.name)
    assert family.name == "chatterbox-turbo"


def test_small_checkpoints_differ_by_seed(small_equipment: Equipment, tmp_path: Path) -> None:
    """Another checkpoint is another version, so that no take of one is found for the other."""
    with quiet():
        other = checkpoints.english(tmp_path / "chatterbox", seed=9).parent
    engine = engines.load("chatterbox", replace(small_equipment, models=other))
    again = engines.load("chatterbox", small_equipment)
    assert engine.version != again.version
    assert engine.version.startswith("0.1.7 (checkpoint ")
    engine.close()
    again.close()
