"""How much of a long job is engine time, where the engine is as fast as a GPU should make it.

The real daemon over 1,000 chunks; only model and recogniser stand in (`paced_daemon`): they take a set time.
Before each run the engine is timed alone; what a chunk takes beyond that is what Voxspool adds, and whatever
slows the engine down is part of it.
"""

import argparse
import time
from dataclasses import dataclass

from bench.ground import ground, prose, text_name
from bench.paced_daemon import PacedSlots
from pipeline.alive import unheeded
from pipeline.chatterbox.speaker import Asked
from pipeline.jobs.settings import Chunks, TextRules
from pipeline.text.chunk import chunk
from pipeline.text.prepare import prepare

CHUNKS = 1_000
CHUNKS_ALONE = 50
WORDS = 40_000
TARGET, MOST_FOR_CHECKING = 0.95, 0.15


@dataclass(frozen=True, slots=True)
class Pace:
    """An engine and a recogniser, in seconds a chunk."""

    name: str
    engine: float
    recogniser: float | None
    "None: unchecked"


PACES = (
    Pace("60 times real time", 0.2, None),
    Pace("60 times real time, checked", 0.2, 0.01),
    Pace("400 times real time", 0.03, None),
    Pace("400 times real time, checked", 0.03, 0.01),
)
"for chunks of 12 s, which those of 280 characters are on average"


def main() -> None:
    """Print a line for each pace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    chunks = parser.parse_args().chunks
    text = _text(chunks)
    print(f"text: {text_name()}, {chunks} chunks, to mp3")
    walls: dict[float, float] = {}
    for pace in PACES:
        alone = _alone(pace)
        timings = _timings(pace, text)
        wall, engine = timings["total_seconds"], alone * chunks
        share = f"{engine / wall:.1%} of {wall:.1f} s is engine time (target: at least {TARGET:.0%})"
        print(f"{pace.name}: {share}; {(wall - engine) / chunks * 1000:.1f} ms a chunk beyond it,")
        waits = ", ".join(f"{timings[f'{name}_seconds']:.1f} s" for name in ("check", "encode_wait"))
        print(
            f"  waiting for check and encoder: {waits}; in the engine: {timings['synthesis_seconds']:.1f} s"
        )
        if pace.recogniser is None:
            walls[pace.engine] = wall
        else:
            more = wall / walls[pace.engine] - 1
            print(
                f"  checking {pace.recogniser * 1000:.0f} ms a chunk adds {more:.1%}"
                f" (target: under {MOST_FOR_CHECKING:.0%}); one after the other it would be"
                f" {pace.recogniser / (walls[pace.engine] / chunks):.1%}"
            )


def _alone(pace: Pace) -> float:
    """Seconds a chunk of the engine by itself."""
    asked = [
        Asked(text="", clip=None, clip_sha256=None, exaggeration=0.5, seed=1, settings={})
    ] * CHUNKS_ALONE
    started = time.perf_counter()
    list(PacedSlots(pace.engine).speak_all(asked, unheeded))
    return (time.perf_counter() - started) / CHUNKS_ALONE


def _timings(pace: Pace, text: str) -> dict[str, float]:
    check = {"by": "none" if pace.recogniser is None else "whisper"}
    with ground() as place:
        place.write_config(defaults={"engine": "chatterbox", "check": check}, intake={"settle_seconds": 0.1})
        place.drop("book.txt", text)
        place.run_once(
            "bench/paced_daemon.py",
            PACED_ENGINE=str(pace.engine),
            PACED_RECOGNISER=str(pace.recogniser or 0.0),
        )
        timings: dict[str, float] = place.manifest("book")["timings"]
    return timings


def _text(chunks: int) -> str:
    """So many chunks of prose."""
    pieces = chunk(prepare(prose(WORDS), TextRules(), "en").text, Chunks(), "en")
    if len(pieces) < chunks:
        raise SystemExit(f"the text has only {len(pieces)} chunks")
    return "\n\n".join(piece.text for piece in pieces[:chunks])


if __name__ == "__main__":
    main()
