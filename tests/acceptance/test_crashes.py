"""Pulling the plug, at each step and at any moment: everything is done once and nothing is lost."""

import ast
import functools
import io
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import soundfile
from crash_house import House
from sound_samples import tone

from bench.crashes import Crashes, half_results
from bench.ground import Ground

PIPELINE = Path(__file__).resolve().parent.parent.parent / "pipeline"
PART = "Part one.\n\nAnd more of it."


# -- what is dropped -------------------------------------------------------------------------------


def text(house: House) -> None:
    """Two chunks."""
    house.drop("sub/a.txt", "Hello there.\n\nAnd hello again.")


def parts(house: House) -> None:
    """A job file with two jobs, one of which names a text beside it."""
    house.drop("sub/job.yaml", "text_file: part.txt\n---\ntext: Something else.\n")
    house.drop("sub/part.txt", PART)


def shared(house: House) -> None:
    """Two job files that name the same text: the first copies it, the last takes it away."""
    house.drop("one.yaml", "text_file: part.txt\n")
    house.drop("two.yaml", "text_file: part.txt\n")
    house.drop("part.txt", PART)


def recording(house: House) -> None:
    """A recording that is joined with itself: no text and no take."""
    house.drop("tone.wav", _sound())
    house.drop("joined.yaml", "kind: concat\nparts: [tone.wav, {silence_ms: 50}, tone.wav]\n")


def unreadable(house: House) -> None:
    """A job file with a mistake: it fails before it becomes a job."""
    house.drop("bad.yaml", "txt: Hello.\n")


def hopeless(house: House) -> None:
    """Fails in the worker, and what came with it goes along."""
    house.drop("sub/bad.yaml", "text_file: empty.txt\n")
    house.drop("sub/empty.txt", "... --- ...")


def hopeless_apart(house: House) -> None:
    """The same where the outbox is on another filesystem: moved by a copy."""
    house.apart = True
    hopeless(house)


def deleted(house: House) -> None:
    """The source is deleted after success."""
    house.configure(intake={"source": "delete"})
    text(house)


def left(house: House) -> None:
    """The source stays where it is."""
    house.configure(intake={"source": "leave"})
    parts(house)


def redropped(house: House) -> None:
    """Another version takes the place of an earlier result, in fewer formats."""
    house.configure(defaults={"check": {"by": "none"}, "output": {"formats": ["wav", "flac"]}})
    house.drop("a.txt", "The first version.\n\nAnd its end.")
    assert house.live() == 0
    house.configure()
    house.drop("a.txt", "The second version.\n\nAnd its end.")


def retried(house: House) -> None:
    """It failed before; now it comes out well, and the old notes go."""
    house.drop("a.yaml", "txt: Hello.\n")
    house.live()
    (house.root / "outbox" / "failed" / "a.yaml").unlink()
    house.drop("a.yaml", "text: Hello.\n")


def changing(house: House) -> None:
    """Somebody writes into it in the very moment of its claim: it is put back and taken later."""
    path = house.drop("a.txt", "Hello.")

    def write_on() -> None:
        with open(path, "ab") as stream:
            stream.write(b" And one more thing.")

    house.at["claim.planned"] = write_on


@functools.cache
def _sound() -> bytes:
    stream = io.BytesIO()
    sound = tone(0.2)
    soundfile.write(stream, sound.samples, sound.rate_hz, format="WAV")
    return stream.getvalue()


# -- where the plug is pulled ----------------------------------------------------------------------

PUBLISHED = (
    "publish.staged publish.planned move.linked publish.moved move.linked:2 publish.moved:2 move.linked:3"
    " publish.moved:3 publish.synced publish.entered job.published job.finished job.tidied end.moved"
    " end.entered"
)
WHOLE_WAY = (
    "claim.planned claim.taken claim.proven claim.durable claim.submitted job.taken take.written take.kept"
    f" take.written:2 take.kept:2 job.rendered {PUBLISHED}"
)
STEPS: dict[Callable[[House], None], str] = {
    text: WHOLE_WAY,
    parts: "claim.taken claim.taken:2 claim.submitted undo.returned job.finished job.taken:2 publish.moved:5"
    " job.finished:2 end.moved",
    shared: "claim.taken claim.taken:2 claim.taken:3 claim.taken:4 claim.submitted:2 end.moved",
    recording: "claim.taken:2 job.rendered publish.moved:2 end.entered",
    unreadable: "claim.taken claim.submitted end.noted move.linked end.moved end.entered",
    hopeless: "job.failed job.tidied end.noted move.linked move.linked:2 end.moved",
    hopeless_apart: "end.noted move.linked move.copied move.copied:2 end.moved",
    deleted: "job.tidied end.moved end.entered",
    left: "claim.copied claim.copied:2 claim.proven claim.durable claim.submitted end.moved end.entered",
    redropped: f"claim.submitted publish.cleared {PUBLISHED}",
    retried: "job.tidied end.moved end.entered",
    changing: "claim.taken move.linked undo.returned",
}
"""`name:2` is the second time that a life makes the step; marks of the folders are made beforehand."""
CASES = [(scene, step) for scene, steps in STEPS.items() for step in steps.split()]


def named(step: str) -> tuple[str, int]:
    """The step's name, and the how manieth it is."""
    name, _, number = step.partition(":")
    return name, int(number or 1)


# -- what must be, at the moment of the kill and in the end ----------------------------------------


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[[Callable[[House], None]], House]]:
    """A house whose folders carry their marks, with the scene's files dropped."""

    def make(scene: Callable[[House], None]) -> House:
        house = House(tmp_path / scene.__name__)
        assert house.live() == 0
        scene(house)
        return house

    yield make


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[House], None]], House]:
    """The same scene without a kill: what the others are compared with."""

    @functools.cache
    def make(scene: Callable[[House], None]) -> House:
        house = House(tmp_path_factory.mktemp("undisturbed") / scene.__name__)
        assert house.live() == 0
        scene(house)
        finish(house)
        return house

    return make


def finish(house: House) -> None:
    """One more life; and another if a file had changed under its claim and was put back."""
    house.live()
    if house.audit().counts["waiting"]:
        house.live()


def frozen(house: House) -> list[str]:
    """What is wrong right after a kill."""
    if not house.layout.ledger_file.exists():
        return []
    return [*half_results(house.ground()), *house.audit().problems]


def ended(house: House) -> dict[str, object]:
    """Everything that must be the same with and without a kill."""
    found = house.audit()
    finished = "SELECT job_id, COUNT(*) FROM attempts WHERE outcome = 'done' GROUP BY job_id"
    return {
        "files": house.tree(),
        "audit": (found.problems, len(found.notes), found.counts),
        "finished": sorted(times for _, times in house.ground().query(finished)),
        "drops": Counter(house.ground().query("SELECT state, mode FROM drops")),
    }


@pytest.mark.parametrize(("scene", "step"), CASES, ids=[f"{scene.__name__}-{step}" for scene, step in CASES])
def test_a_kill_right_after_any_step_loses_and_repeats_nothing(
    make_house: Callable[[Callable[[House], None]], House],
    undisturbed: Callable[[Callable[[House], None]], House],
    scene: Callable[[House], None],
    step: str,
) -> None:
    """Nothing half at the moment of the kill; in the end all files are as if it had never been."""
    house = make_house(scene)
    assert house.live(until=named(step)) == signal.SIGKILL, f"{step} is not reached: {house.steps()}"
    assert frozen(house) == []
    spoken = house.takes()
    finish(house)
    assert ended(house) == ended(undisturbed(scene))
    assert spoken.items() <= house.takes().items(), "a finished take was spoken again"


@pytest.mark.parametrize("scene", [redropped, hopeless])
def test_a_kill_after_each_step_in_turn_loses_and_repeats_nothing(
    make_house: Callable[[Callable[[House], None]], House],
    undisturbed: Callable[[Callable[[House], None]], House],
    scene: Callable[[House], None],
) -> None:
    """Each life is killed one step later than the one before it, while it still mends what that one left."""
    house = make_house(scene)
    for step in STEPS[scene].split():
        house.live(until=named(step))
        assert frozen(house) == [], step
    finish(house)
    assert ended(house) == ended(undisturbed(scene))


@pytest.mark.slow
def test_kills_of_the_real_tree_at_random_moments_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """The first few of the two hundred that `make crashes` does, with all of its load and questions."""
    for name in ("inbox", "outbox", "voices", "state"):
        (tmp_path / name).mkdir()
    crashes = Crashes(Ground(tmp_path), Random(3))
    assert crashes.run(8) == []
    assert crashes.struck == 4, "every second kill is to strike somebody at work"


def test_the_steps_come_in_their_order(undisturbed: Callable[[Callable[[House], None]], House]) -> None:
    """From the claim to the last move; the list above is the whole way."""
    assert undisturbed(text).steps() == [named(step)[0] for step in WHOLE_WAY.split()]


def test_no_step_is_left_out() -> None:
    """Every `crash.point` in the code is one that the plug is pulled at."""
    in_the_code = {name for path in PIPELINE.rglob("*.py") for name in _points(path)}
    assert in_the_code == {named(step)[0] for _, step in CASES}


def _points(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash.point":
            yield ast.literal_eval(node.args[0])
