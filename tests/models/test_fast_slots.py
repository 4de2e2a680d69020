"""The slot engine says what upstream's loops say, token for token, whoever sits beside a row."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("chatterbox")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from pipeline.chatterbox.fast.noise import Hashed, generator_after  # noqa: E402
from pipeline.chatterbox.fast.sampling import TURBO, Settings  # noqa: E402
from pipeline.chatterbox.fast.slots import Request, SlotEngine  # noqa: E402
from tests.models import fast_samples as samples  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

ENGLISH = Settings()
ENGLISH_SETTINGS = {
    "defaults": ENGLISH,
    "greedy": dataclasses.replace(ENGLISH, min_p=1.0),
    "temperature off": dataclasses.replace(ENGLISH, temperature=1.0),
    "cold": dataclasses.replace(ENGLISH, temperature=0.3),
    "no guidance": dataclasses.replace(ENGLISH, cfg_weight=0.0),
    "much guidance": dataclasses.replace(ENGLISH, cfg_weight=1.5),
    "min_p off": dataclasses.replace(ENGLISH, min_p=0.0),
    "min_p high": dataclasses.replace(ENGLISH, min_p=0.4),
    "top_p": dataclasses.replace(ENGLISH, top_p=0.6, min_p=0.0),
    "top_p and min_p": dataclasses.replace(ENGLISH, top_p=0.8),
    "penalty off": dataclasses.replace(ENGLISH, repetition_penalty=1.0),
    "penalty high": dataclasses.replace(ENGLISH, repetition_penalty=3.0),
    "everything off": Settings(temperature=1.0, cfg_weight=0.0, min_p=0.0, top_p=1.0, repetition_penalty=1.0),
}
TURBO_SETTINGS = {
    "defaults": TURBO,
    "greedy": dataclasses.replace(TURBO, top_k=1),
    "temperature off": dataclasses.replace(TURBO, temperature=1.0),
    "top_k off": dataclasses.replace(TURBO, top_k=0),
    "top_k small": dataclasses.replace(TURBO, top_k=7, top_p=1.0),
    "top_p off": dataclasses.replace(TURBO, top_p=1.0),
    "top_p small": dataclasses.replace(TURBO, top_p=0.3),
    "penalty off": dataclasses.replace(TURBO, repetition_penalty=1.0),
    "penalty high": dataclasses.replace(TURBO, repetition_penalty=3.0),
    "everything off": dataclasses.replace(TURBO, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0),
}


def engine(model: Any, slots: int = 3, **more: Any) -> SlotEngine:
    """Small, and equal to upstream for a seed."""
    return SlotEngine(model, slots=slots, max_length=200, **{"mode": "compatible", **more})


@pytest.mark.parametrize("kernel", ["plain", "packed"])
@pytest.mark.parametrize("kind", samples.KINDS)
def test_a_ragged_batch_with_refills_says_what_upstream_says_one_by_one(kind: str, kernel: Any) -> None:
    """Five texts of different lengths share three slots."""
    model, conditioning = samples.t3(kind), samples.voice(kind)
    fast = engine(model, kernel=kernel)
    asked = samples.requests(
        kind, fast.prepare(conditioning, longest_text=12)
    )  # longer texts than that come, too

    said = samples.spoken(fast, asked)

    assert said == {request.key: samples.upstream(kind, model, conditioning, request) for request in asked}
    assert len(set(map(tuple, said.values()))) == len(asked)


@pytest.mark.parametrize("kind", samples.KINDS)
def test_every_row_has_its_own_settings_each_processor_on_and_off(kind: str) -> None:
    """Ten and more settings side by side, each as upstream has them one by one."""
    model, conditioning = samples.t3(kind), samples.voice(kind)
    table = ENGLISH_SETTINGS if kind in ("english", "multilingual") else TURBO_SETTINGS
    fast = engine(model, slots=4)
    asked = samples.requests(
        kind, fast.prepare(conditioning), settings=list(table.values()), count=len(table), cap=20
    )

    said = samples.spoken(fast, asked)

    for name, request in zip(table, asked, strict=True):
        assert said[request.key] == samples.upstream(kind, model, conditioning, request), name


@pytest.mark.parametrize("mode", ["compatible", "fast"])
@pytest.mark.parametrize("kind", ["english", "turbo"])
def test_a_row_says_the_same_alone_among_others_elsewhere_and_after_a_refill(kind: str, mode: Any) -> None:
    """Neither company nor place nor predecessor can be heard."""
    model = samples.t3(kind)
    fast = engine(model, mode=mode)
    voice, other = fast.prepare(samples.voice(kind)), fast.prepare(samples.voice(kind, seed=9, prompt=25))
    mine = dataclasses.replace(samples.requests(kind, voice)[2], key="mine")
    mates = samples.requests(
        kind, other, settings=[dataclasses.replace(mine.settings, temperature=1.3)], cap=12
    )

    alone = samples.spoken(fast, [mine])["mine"]

    assert len(alone) == mine.cap
    for place in range(len(mates)):  # in each of three slots at first, then in one that another has left
        asked = [*mates[:place], mine, *mates[place:]]
        assert samples.spoken(fast, asked)["mine"] == alone
    assert samples.spoken(engine(model, slots=5, mode=mode, poll_every=8), [*mates, mine])["mine"] == alone


def test_without_guidance_half_the_rows_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unconditional rows run only while somebody is guided."""
    fast = engine(samples.t3("english"))
    unguided = dataclasses.replace(ENGLISH, cfg_weight=0.0)
    voice = fast.prepare(samples.voice("english"))
    rows = Counter[int]()
    run = fast._backbone

    def counted(hidden: Any, attend: Any) -> Any:
        rows[len(hidden)] += 1
        return run(hidden, attend)

    monkeypatch.setattr(fast, "_backbone", counted)
    samples.spoken(fast, samples.requests("english", voice, settings=[unguided], count=3, cap=20))
    assert rows[6] == 0
    assert rows[3] >= 20
    samples.spoken(fast, samples.requests("english", voice, settings=[unguided, ENGLISH], count=3, cap=20))
    assert rows[6] >= 20


@pytest.mark.parametrize("poll_every", [1, 5])
@pytest.mark.parametrize("kind", ["english", "turbo"])
def test_a_row_ends_where_upstream_ends(kind: str, poll_every: int) -> None:
    """EOS so likely that each row comes upon it at a moment of its own."""
    model, conditioning = samples.copy_of(kind), samples.voice(kind)
    with torch.no_grad():
        model.speech_head.weight[model.hp.stop_speech_token] *= 2
    fast = engine(model, poll_every=poll_every)
    asked = samples.requests(kind, fast.prepare(conditioning), count=12, cap=60)

    said = {done.key: done for done in fast.run(asked)}

    lengths = {request.key: len(samples.upstream(kind, model, conditioning, request)) for request in asked}
    assert {key: len(done.tokens) for key, done in said.items()} == lengths
    assert len(set(lengths.values())) > 4
    for request in asked:
        assert said[request.key].tokens.tolist() == samples.upstream(kind, model, conditioning, request)
        assert said[request.key].capped == (lengths[request.key] == request.cap)


@pytest.mark.parametrize(
    ("cap", "spoken", "capped"), [(4, 4, True), (7, 7, True), (8, 7, False), (30, 7, False)]
)
def test_what_is_not_over_at_its_cap_has_failed(cap: int, spoken: int, capped: bool) -> None:
    """EOS is forced as the eighth token; a cap of eight lets it be said."""
    fast = engine(samples.ending("english", 7))
    voice = fast.prepare(samples.voice("english"))
    request = dataclasses.replace(samples.requests("english", voice)[0], cap=cap)

    (done,) = fast.run([request])

    assert (len(done.tokens), done.capped) == (spoken, capped)


@pytest.mark.parametrize("kind", ["english", "turbo"])
def test_rows_end_at_the_steps_that_were_chosen(kind: str) -> None:
    """Turbo's positions count voice and text, so each of its rows ends at a step of its own."""
    position = 11 if kind == "english" else 70
    model, conditioning = samples.ending(kind, position), samples.voice(kind)
    fast = engine(model, slots=2, poll_every=3)
    asked = samples.requests(kind, fast.prepare(conditioning), cap=40)

    said = {done.key: done for done in fast.run(asked)}

    for request in asked:
        before = 1 + 40 + len(request.text_tokens)  # of BOS: speaker, prompt, text
        assert len(said[request.key].tokens) == (position if kind == "english" else position - before)
        assert said[request.key].tokens.tolist() == samples.upstream(kind, model, conditioning, request)
        assert not said[request.key].capped


def test_finished_rows_are_given_out_while_others_speak_on() -> None:
    """Continuous batching: a short text does not wait for a long one."""
    fast = engine(samples.t3("english"), slots=2)
    voice = fast.prepare(samples.voice("english"))
    long, short = (
        dataclasses.replace(samples.requests("english", voice)[0], key=cap, cap=cap) for cap in (60, 5)
    )
    taken: list[int] = []

    def asked() -> Iterator[Request]:
        for request in (long, short, dataclasses.replace(short, key=6, cap=6)):
            taken.append(request.cap)
            yield request

    running = fast.run(asked())
    assert next(running).key == 5
    assert taken == [60, 5]  # no request is taken before there is a slot for it
    assert [done.key for done in running] == [6, 60]


def test_leaving_in_the_middle_frees_the_slots() -> None:
    """Whoever stops listening leaves an engine that can be used."""
    fast = engine(samples.t3("english"), slots=2)
    asked = samples.requests("english", fast.prepare(samples.voice("english")), cap=6)
    expected = samples.spoken(fast, asked)
    running = fast.run(asked)
    next(running)
    running.close()
    assert samples.spoken(fast, asked) == expected


class Counting(TorchDispatchMode):  # type: ignore[misc]
    """Counts what is dispatched while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


WAITS = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "_to_copy",
    "nonzero",
    "masked_select",
    "lift_fresh",
)
"what asks the device for a value, or brings one from the host"


@pytest.mark.parametrize("kernel", ["plain", "packed"])
@pytest.mark.parametrize(("kind", "most"), [("english", 650), ("turbo", 400)])
def test_a_token_takes_few_operations_and_never_waits_for_the_device(
    kind: str, most: int, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the full number of layers, counted as upstream is counted beside it."""
    size = samples.Size(layers=30 if kind == "english" else 24)
    model, conditioning = samples.t3(kind, size), samples.voice(kind)
    fast = engine(model, slots=2, mode="fast", kernel=kernel, poll_every=8)
    (request,) = samples.requests(kind, fast.prepare(conditioning), count=1, cap=24)
    ours, bursts, burst = Counting(), 0, fast._burst

    def counted(steps: int) -> None:
        nonlocal bursts
        bursts += 1
        if bursts == 2:  # the first makes views that are kept
            with ours:
                return burst(steps)
        return burst(steps)

    monkeypatch.setattr(fast, "_burst", counted)
    samples.spoken(fast, [request])
    per_token = ours.seen.total() / 8
    theirs = (
        _upstream_operations(kind, model, conditioning, request, 8)
        - _upstream_operations(kind, model, conditioning, request, 4)
    ) / 4

    print(f"{kind}, {kernel}: {per_token:.0f} operations a token, upstream {theirs:.0f}")
    assert per_token <= most
    assert per_token < 0.8 * theirs
    waiting = [name for name in ours.seen if name.split(".")[1].strip("_") in [w.strip("_") for w in WAITS]]
    assert not waiting


def _upstream_operations(kind: str, model: Any, conditioning: Any, request: Request, tokens: int) -> int:
    with Counting() as mode:
        samples.upstream(kind, model, conditioning, dataclasses.replace(request, cap=tokens))
    return mode.seen.total()


@pytest.mark.parametrize(("more", "bound"), [({"dtype": torch.bfloat16}, 0.02), ({"kernel": "int8"}, 0.04)])
@pytest.mark.parametrize("kind", ["english", "turbo"])
def test_rounded_weights_drift_no_further_than_this(kind: str, more: dict[str, Any], bound: float) -> None:
    """Relative distance of the logits after a text: bf16 and int8 are not exact, and say by how much."""
    model = samples.t3(kind, samples.Size(layers=4, width=128, heads=4, inner=256))

    def logits(**more: Any) -> Any:
        fast = engine(model, slots=1, **more)
        samples.spoken(fast, samples.requests(kind, fast.prepare(samples.voice(kind)), count=1, cap=1))
        assert fast._sampler.logits.dtype == torch.float32
        return first[-1]

    first: list[Any] = []
    project = SlotEngine._project

    def kept(self: SlotEngine, hidden: Any, out: Any) -> None:
        project(self, hidden, out)
        if not self._taken and (not self.shape.llama or out.data_ptr() == self._sampler.logits.data_ptr()):
            first.append(out.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlotEngine, "_project", kept)
        exact, rounded = logits(kernel="plain"), logits(**more)
    drift = float((rounded - exact).norm() / exact.norm())
    print(f"{kind} {more}: {drift:.4f}")
    assert 0 < drift <= bound


def test_rounded_weights_speak_to_the_end() -> None:
    """bf16 and int8 go through the same engine."""
    for more in ({"dtype": torch.bfloat16}, {"kernel": "int8"}):
        for kind in ("english", "turbo"):
            fast = engine(samples.t3(kind), **more)
            asked = samples.requests(kind, fast.prepare(samples.voice(kind)), cap=15)
            assert [len(tokens) for _, tokens in sorted(samples.spoken(fast, asked).items())] == [
                15,
                16,
                17,
                18,
                19,
            ]


def test_hashed_noise_depends_on_seed_step_and_token_only() -> None:
    """Two slots with one seed hear the same noise."""
    noise = Hashed(3, 5000, "cpu", 9)
    for slot, seed in enumerate((7, 8, 7)):
        noise.admit(slot, seed)
    first = noise.draw(torch.tensor([4, 4, 4])).clone()
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[2], noise.draw(torch.tensor([1, 2, 4]))[2])


def test_hashed_noise_is_exponential_and_of_one_piece() -> None:
    """Mean and variance 1, no correlation between steps, seeds or neighbours."""
    noise = Hashed(2, 4096, "cpu", 64)
    noise.admit(0, 1)
    noise.admit(1, 2**32 - 1)
    drawn = torch.stack([noise.draw(torch.tensor([step, step])) for step in range(64)])
    assert drawn.min() > 0
    assert abs(float(drawn.mean()) - 1) < 0.01
    assert abs(float(drawn.var()) - 1) < 0.02
    for one, other in (
        (drawn[1:, 0], drawn[:-1, 0]),
        (drawn[:, 0], drawn[:, 1]),
        (drawn[..., 1:], drawn[..., :-1]),
    ):
        assert abs(float(((one - 1) * (other - 1)).mean())) < 0.01


def test_hashed_noise_draws_what_is_likely() -> None:
    """Four thousand draws come out as their probabilities say."""
    likely = torch.tensor([0.5, 0.3, 0.15, 0.05])
    noise = Hashed(1, 4, "cpu", 4000)
    noise.admit(0, 3)
    drawn = torch.stack([(likely / noise.draw(torch.tensor([step]))).argmax(-1) for step in range(4000)])
    share = torch.bincount(drawn.flatten(), minlength=4) / 4000
    assert torch.allclose(share, likely, atol=0.025)


def test_the_generator_goes_on_where_upstreams_would() -> None:
    """After five tokens the next normal numbers are those after five multinomials."""
    torch.manual_seed(3)
    for _ in range(5):
        torch.multinomial(torch.ones(1, 8194), 1)
    assert torch.equal(torch.randn(4), torch.randn(4, generator=generator_after(3, 5, 8194)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cap": 190}, "needs room for"),
        ({"cap": 0}, "must be allowed one"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], why: str) -> None:
    """Before anything is computed."""
    fast = engine(samples.t3("english"))
    request = dataclasses.replace(
        samples.requests("english", fast.prepare(samples.voice("english")))[0], **change
    )
    with pytest.raises(ValueError, match=why):
        list(fast.run([request]))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0}, {"repetition_penalty": 0}, {"top_p": 1.2}, {"min_p": -1}, {"cfg_weight": -0.1}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]
