"""Mel and sound of a batch are those of the package's S3Gen, one by one and for the same seed."""

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("chatterbox")

from pipeline.chatterbox.fast.flow import Flow, Row  # noqa: E402
from pipeline.chatterbox.fast.noise import generator_after  # noqa: E402
from pipeline.chatterbox.fast.slots import SlotEngine  # noqa: E402
from pipeline.chatterbox.fast.vocoder import SAMPLES_PER_FRAME, Vocoder  # noqa: E402
from tests.models import fast_samples as samples  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = ((7, 12), (31, 5), (18, 12), (4, 20))
"tokens of speech and of prompt"


def tokens(length: int) -> Any:
    """Speech that nobody said."""
    return torch.randint(0, 6561, (length,), generator=torch.Generator().manual_seed(length))


def row(index: int) -> Row:
    """One of `LENGTHS`, with its voice and its seed."""
    length, prompt = LENGTHS[index]
    chance = torch.Generator().manual_seed(50 + index)
    return Row(tokens=tokens(length), voice=samples.reference(index, prompt), chance=chance)


def upstream(model: Any, index: int) -> tuple[Any, Any]:
    """Mel and sound, as the package makes them of this row alone."""
    length, prompt = LENGTHS[index]
    made: list[Any] = []
    hook = model.mel2wav.f0_predictor.register_forward_pre_hook(lambda _, given: made.append(given[0]))
    torch.manual_seed(50 + index)
    wave, _ = model.inference(tokens(length)[None], ref_dict=samples.reference(index, prompt))
    hook.remove()
    return made[0][0], wave[0]


def ours(model: Any, indices: Sequence[int]) -> list[tuple[Any, Any]]:
    """Mel and sound of these rows together."""
    rows = [row(index) for index in indices]
    mels = Flow(model).mels(rows)
    return list(zip(mels, Vocoder(model).waves(mels, [one.chance for one in rows]), strict=True))


def worst(found: Any, expected: Any) -> float:
    """The greatest difference; they must be of one shape."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


@pytest.mark.parametrize("mean_flow", [False, True])
def test_rows_of_unequal_length_sound_as_the_package_makes_them_one_by_one(mean_flow: bool) -> None:
    """To the last sample, with a prompt, a voice and a seed for each."""
    model = samples.s3gen(mean_flow=mean_flow)
    for index, (mel, wave) in enumerate(ours(model, range(len(LENGTHS)))):
        expected_mel, expected_wave = upstream(model, index)
        assert expected_mel.std() > 0.3
        assert expected_wave.std() > 0.01
        assert len(wave) == SAMPLES_PER_FRAME * 2 * LENGTHS[index][0]
        assert worst(mel, expected_mel) < 1e-4
        assert worst(wave, expected_wave) < 2e-4


@pytest.mark.parametrize("mean_flow", [False, True])
def test_a_row_sounds_the_same_alone_and_among_others(mean_flow: bool) -> None:
    """Shortest and longest, in any place."""
    model = samples.s3gen(mean_flow=mean_flow)
    for index in (1, 3):
        ((mel, wave),) = ours(model, [index])
        for company in ([0, index, 2], [index, 2], [2, 0, 1 if index == 3 else 3, index]):
            mel_among, wave_among = ours(model, company)[company.index(index)]
            assert worst(mel_among, mel) < 1e-4
            assert worst(wave_among, wave) < 2e-4


def test_the_package_itself_does_not_take_rows_of_unequal_length() -> None:
    """Why there is a flow of our own: upstream's hears the padding."""
    model = samples.s3gen(mean_flow=True)
    short, long = (tokens(length) for length in (7, 31))
    given = samples.reference(0, 12)
    padded = torch.stack((torch.nn.functional.pad(short, (0, 24)), long))
    lengths = torch.tensor([7, 31])

    def encoded(batch: Any, lengths: Any) -> Any:
        count = len(batch)
        everything = torch.cat((given["prompt_token"].expand(count, -1), batch), 1)
        mask = (torch.arange(everything.shape[1]) < 12 + lengths[:, None])[..., None]
        with torch.inference_mode():
            embedded = model.flow.input_embedding(everything) * mask
            return model.flow.encoder(embedded, 12 + lengths)[0][0, : 2 * 19]

    assert worst(encoded(padded, lengths), encoded(short[None], lengths[:1])) > 1e-3


def test_neither_the_package_nor_the_voice_is_changed() -> None:
    """Upstream's own `forward` casts the tokens of the voice that it is given."""
    model = samples.s3gen(mean_flow=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = row(0)
    Vocoder(model).waves(Flow(model).mels([one], steps=1), [one.chance])
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert one.voice["prompt_token"].dtype == torch.int64


def test_a_mean_flow_takes_two_steps_and_the_other_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless told otherwise."""
    for mean_flow, steps in ((True, 2), (False, 10)):
        flow, asked = Flow(samples.s3gen(mean_flow=mean_flow)), []
        run = flow._estimator
        monkeypatch.setattr(
            flow, "_estimator", lambda *given, run=run, asked=asked: asked.append(1) or run(*given)
        )
        flow.mels([row(0)])
        assert len(asked) == steps
        flow.mels([row(0)], steps=3)
        assert len(asked) == steps + 3


@pytest.mark.parametrize("mean_flow", [False, True])
@pytest.mark.parametrize(
    ("more", "bound"), [({"dtype": torch.float16}, 0.002), ({"kernel": "int8"}, 0.02)], ids=["fp16", "int8"]
)
def test_a_rounded_estimator_drifts_no_further_than_this(
    mean_flow: bool, more: dict[str, Any], bound: float
) -> None:
    """Relative distance of the mels: half precision and eight bits are not exact, and say by how much."""
    model = samples.s3gen(mean_flow=mean_flow)
    exact = torch.cat(Flow(model).mels([row(index) for index in range(len(LENGTHS))]), 1)
    rounded = torch.cat(Flow(model, **more).mels([row(index) for index in range(len(LENGTHS))]), 1)
    assert rounded.dtype == torch.float32
    drift = float((rounded - exact).norm() / exact.norm())
    print(f"mean flow {mean_flow}, {more}: {drift:.5f}")
    assert 0 < drift <= bound


def test_in_half_precision_time_is_still_told_exactly() -> None:
    """Times from 0 to 1000 are half a step apart in fp16; so they are not given to it."""
    model = samples.s3gen(mean_flow=True)
    flow = Flow(model, dtype=torch.float16)
    for start in (0.2041, 0.2043):
        told = flow._estimator._time(torch.tensor([start]), torch.tensor([0.9]))
        exact = Flow(model)._estimator._time(torch.tensor([start]), torch.tensor([0.9]))
        assert float((told.float() - exact).norm() / exact.norm()) < 1e-3


@pytest.mark.parametrize("kind", ["english", "turbo"])
def test_one_seed_goes_through_text_tokens_and_sound_as_in_the_package(kind: str) -> None:
    """What the package's `generate` does between tokenizer and watermark; several at once here."""
    t3, conditioning = samples.t3(kind), samples.voice(kind)
    s3gen, given = samples.s3gen(mean_flow=kind == "turbo"), samples.reference(1, 9)
    engine = SlotEngine(t3, slots=2, max_length=200, mode="compatible")
    asked = samples.requests(kind, engine.prepare(conditioning), count=3, cap=12)
    done = {one.key: one.tokens for one in engine.run(asked)}
    vocabulary = engine.shape.speech_vocabulary
    rows = [
        Row(
            tokens=done[one.key][done[one.key] < 6561],
            voice=given,
            chance=generator_after(one.seed, len(done[one.key]), vocabulary),
        )
        for one in asked
    ]
    waves = Vocoder(s3gen).waves(Flow(s3gen).mels(rows), [row.chance for row in rows])

    for request, wave in zip(asked, waves, strict=True):
        said = torch.tensor(samples.upstream(kind, t3, conditioning, request))
        expected, _ = s3gen.inference(said[said < 6561][None], ref_dict=dict(given))
        assert worst(wave, expected[0]) < 2e-4
