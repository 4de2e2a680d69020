"""One target in a process of its own: `python -m tests.fuzz.child TARGET ENGINE INPUTS SECONDS FOLDER`.

Whatever the target does to its process, the other targets and the table are not harmed. Engines: `atheris`
looks where the code has not been yet, `hypothesis` makes structured inputs, `large` makes long ones.
"""

import importlib
import random
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from loguru import logger

from tests.fuzz.watched import Watched

INSTRUMENTED = ["pipeline", "yaml", "markdown_it"]
MAX_LENGTH_BYTES = {"audio header": 16_384}
BATCH = 500
"Hypothesis remembers what it made, and more of it takes much memory"


class _Enough(KeyboardInterrupt):
    """The time is over; Hypothesis lets this pass."""


def main(target: str, engine: str, inputs: int, seconds: float, folder: Path) -> None:
    """Try so many inputs, or so long."""
    logger.remove()
    targets = _targets(engine)
    watched = Watched(target, targets.TARGETS[target], folder / "tally", folder / "findings")
    _warm_up(targets.TARGETS[target], target)
    if engine == "atheris":
        _by_coverage(watched, target, inputs, seconds, folder)
    else:
        _by_strategy(watched, target, engine, inputs, seconds)
    watched.end()


def _targets(engine: str):
    """The module of targets, its program instrumented where the engine wants that."""
    if engine != "atheris":
        return importlib.import_module("tests.fuzz.targets")
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        return importlib.import_module("tests.fuzz.targets")


def _warm_up(one, target: str) -> None:
    """Tables that are read once are nobody's memory or time."""
    from tests.fuzz import seeds

    for data in (*seeds.texts()[:4], *seeds.examples()):
        try:
            one(data)
        except Exception:  # noqa: BLE001 (what is wrong will be found again, and told)
            continue


def _by_strategy(watched: Watched, target: str, engine: str, inputs: int, seconds: float) -> None:
    from tests.fuzz import strategies

    strategy = strategies.large_of(target) if engine == "large" else strategies.of(target)
    deadline = time.monotonic() + seconds

    def one(data: bytes) -> None:
        if time.monotonic() > deadline:
            raise _Enough
        watched(data)

    try:
        while (left := inputs - watched.inputs) > 0:
            before = watched.inputs
            quiet = settings(
                max_examples=min(left, BATCH),
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            quiet(seed(random.getrandbits(32))(given(strategy)(one)))()
            if watched.inputs == before:
                return
    except _Enough:
        return


def _by_coverage(watched: Watched, target: str, inputs: int, seconds: float, folder: Path) -> None:
    """What leads to new code is kept in a corpus: the next run goes on from there."""
    import atheris

    from tests.fuzz import seeds

    words: dict[str, tuple[tuple[bytes, ...], list[bytes]]] = {
        "job file": (seeds.yaml_words(), seeds.examples()),
        "defaults": (seeds.yaml_words(), seeds.examples()),
        "text": (seeds.TEXT_TOKENS, seeds.texts()),
        "markdown": ((*seeds.MARKDOWN_TOKENS, *seeds.TEXT_TOKENS), seeds.texts()),
        "spelling": (seeds.TEXT_TOKENS, seeds.texts()),
        "audio header": (seeds.AUDIO_TOKENS, list(seeds.recordings())),
    }
    tokens, origins = words[target]
    corpus = folder / "corpus" / target.replace(" ", "-")
    for path in (corpus, folder / "findings"):
        path.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*origins, *seeds.kept(target)]):
        (corpus / f"seed-{number}").write_bytes(data)
    dictionary = folder / f"{target.replace(' ', '-')}.dict"
    dictionary.write_text("".join(f'"{_escaped(token)}"\n' for token in tokens))
    arguments = [
        *(f"-atheris_runs={inputs}", f"-max_total_time={max(1, int(seconds))}", f"-dict={dictionary}"),
        *(
            f"-max_len={MAX_LENGTH_BYTES.get(target, 4096)}",
            "-timeout=600",
            "-rss_limit_mb=0",
            "-verbosity=0",
        ),
        f"-artifact_prefix={folder / 'findings'}/",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], watched)
    atheris.Fuzz()


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
