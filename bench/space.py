"""How far the estimates of room are from what jobs take up: `python -m bench.space`.

A ratio over 1 is room that was asked for and not needed; under 1 a job may meet a full disk half-way.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.ground import BOOK, Ground, ground, wait_for

DATA = BOOK.parent
SAMPLE_SECONDS = 0.02
PROSE_CHARS = 6000
UNCHECKED = {"check": {"by": "none"}}
FIGURES = "On 12/05/1987 the total was 1234567 and 89.25 per cent. "
CHINESE = "今天天气很好，我们一起去公园散步吧。孩子们在草地上玩耍，老人们坐在长椅上聊天。"


@dataclass(frozen=True, slots=True)
class Sort:
    """One kind of job."""

    name: str
    document: dict[str, object]


def sorts(prose: str) -> Iterator[Sort]:
    """Jobs of each kind, with each thing that takes room."""
    pieces = (prose[start : start + PROSE_CHARS] for start in range(0, len(prose), PROSE_CHARS))
    for formats in (["mp3"], ["wav"], ["flac"], ["opus"], ["m4a"], ["wav", "mp3", "flac", "opus"]):
        yield Sort(
            f"prose, {'+'.join(formats)}", {"text": next(pieces), **UNCHECKED, "output": {"formats": formats}}
        )
    yield Sort("prose, levelled", {"text": next(pieces), **UNCHECKED, "audio": {"loudness_lufs": -16.0}})
    yield Sort("prose, slow", {"text": next(pieces), **UNCHECKED, "audio": {"speed": 0.5}})
    quick = {"words_per_minute": 300}
    yield Sort("prose, 300 words/min", {"text": next(pieces), **UNCHECKED, "synthesis": quick})
    yield Sort("prose, checked", {"text": next(pieces)[:2000]})
    yield Sort("prose, 3 takes", {"text": next(pieces)[:3000], "takes": {"per_chunk": 3}, **UNCHECKED})
    yield Sort("figures", {"text": FIGURES * 40, **UNCHECKED})
    yield Sort("Chinese", {"text": CHINESE * 20, "language": "cmn", **UNCHECKED})
    yield Sort("one word", {"text": "Hello.", **UNCHECKED})
    conversion = {"kind": "vc", "audio": "jfk.flac", "voice": "lj050-0131.wav"}
    yield Sort("conversion", {**conversion, "output": {"formats": ["wav", "mp3"]}})
    parts = [{"file": "jfk.flac"}, {"silence_ms": 500}, {"file": "lj050-0131.wav"}]
    yield Sort("joining, levelled", {"kind": "concat", "parts": parts, "audio": {"loudness_lufs": -16.0}})


def main() -> None:
    """Print estimate, actual and their ratio for each."""
    with ground() as place:
        place.write_config(intake={"settle_seconds": 0.1})
        daemon = place.start()
        try:
            print(f"{'bytes':24}{'state: estimate, taken':>30}{'ratio':>7}", end="")
            print(f"{'outbox: estimate, taken':>30}{'ratio':>7}")
            for number, sort in enumerate(sorts(BOOK.read_text(encoding="utf-8")[5000:])):
                _measure(place, f"job{number}", sort)
        finally:
            daemon.terminate()
            daemon.wait()


def _measure(place: Ground, name: str, sort: Sort) -> None:
    before_state, before_outbox = _taken(place.root / "state" / "cache"), _taken(place.root / "outbox")
    folder = place.root / "inbox" / name
    folder.mkdir(parents=True)
    for recording in ("jfk.flac", "lj050-0131.wav"):
        if recording in json.dumps(sort.document):
            (folder / recording).write_bytes((DATA / recording).read_bytes())
    with _highest(place.root / "state", "work", "spool") as work:
        (folder / f"{name}.yaml").write_text(
            yaml.safe_dump(sort.document, allow_unicode=True), encoding="utf-8"
        )
        wait_for((place.root / "outbox" / name / f"{name}.json").exists, seconds=600)
    spec = json.loads(place.query(f"SELECT spec FROM jobs WHERE stem = '{name}'")[0][0])
    state = _taken(place.root / "state" / "cache") - before_state + work[0]
    outbox = _taken(place.root / "outbox") - before_outbox
    need = spec["need"]
    print(
        f"{sort.name:24}{need['state_bytes']:>15,}{state:>15,}{need['state_bytes'] / state:>7.1f}"
        f"{need['outbox_bytes']:>15,}{outbox:>15,}{need['outbox_bytes'] / outbox:>7.1f}"
    )


@contextmanager
def _highest(root: Path, *names: str) -> Iterator[list[int]]:
    """The most that the folders held at any moment of the block."""
    highest, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            highest[0] = max(highest[0], sum(_taken(root / name) for name in names))

    thread = threading.Thread(target=watch)
    thread.start()
    yield highest
    over.set()
    thread.join()


def _taken(folder: Path) -> int:
    """Bytes on the disk, whole blocks."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


if __name__ == "__main__":
    main()
