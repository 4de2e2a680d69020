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
RECOGNISER_SECONDS = 0.01
"for a chunk: Whisper on a GPU"
WORDS = 40_000
TARGET, MOST_FOR_CHECKING = 0.95, 0.15


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the engine is, and what its speech is written to."""

    name: str
    seconds: float
    "a chunk; of 12 s, which those of 280 characters are on average"
    format: str


PACES = (
    Pace("60 times real time, to mp3", 0.2, "mp3"),
    Pace("400 times real time, to mp3", 0.03, "mp3"),
    Pace("400 times real time, to wav", 0.03, "wav"),
)


def main() -> None:
    """Print some lines for each pace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    chunks = parser.parse_args().chunks
    text = _text(chunks)
    print(f"text: {text_name()}, {chunks} chunks; target: at least {TARGET:.0%} of the time is the engine's")
    for pace in PACES:
        unchecked = _told(pace, text, chunks, checked=False)
        checked = _told(pace, text, chunks, checked=True)
        print(
            f"  checking {RECOGNISER_SECONDS * 1000:.0f} ms a chunk adds {checked / unchecked - 1:.1%}"
            f" (target: under {MOST_FOR_CHECKING:.0%}); one after the other it would be"
            f" {RECOGNISER_SECONDS * chunks / unchecked:.1%}"
        )


def _told(pace: Pace, text: str, chunks: int, *, checked: bool) -> float:
    """One run, told; its seconds."""
    alone = _alone(pace)
    timings = _timings(pace, text, checked=checked)
    wall, engine = timings["total_seconds"], alone * chunks
    print(
        f"{pace.name}, {'checked' if checked else 'unchecked'}: {engine / wall:.1%} of {wall:.1f} s;"
        f" {(wall - engine) / chunks * 1000:.1f} ms a chunk beyond the engine alone ({alone * 1000:.1f} ms)"
    )
    speaking, hearing, encoder = (
        timings[f"{name}_seconds"] for name in ("synthesis", "check", "encode_wait")
    )
    print(
        f"  the engine worked for {speaking:.1f} s, {speaking / wall:.1%};"
        f" with check and encoder the worker was busy for {hearing:.1f} and {encoder:.1f} s"
    )
    return wall


def _alone(pace: Pace) -> float:
    """Seconds a chunk of the engine by itself."""
    asked = [
        Asked(text="", clip=None, clip_sha256=None, exaggeration=0.5, seed=1, settings={})
    ] * CHUNKS_ALONE
    started = time.perf_counter()
    list(PacedSlots(pace.seconds).speak_all(asked, unheeded))
    return (time.perf_counter() - started) / CHUNKS_ALONE


def _timings(pace: Pace, text: str, *, checked: bool) -> dict[str, float]:
    defaults = {
        "engine": "chatterbox",
        "check": {"by": "whisper" if checked else "none"},
        "output": {"formats": [pace.format]},
    }
    with ground() as place:
        place.write_config(defaults=defaults, intake={"settle_seconds": 0.1})
        place.drop("book.txt", text)
        place.run_once(
            "bench/paced_daemon.py",
            PACED_ENGINE=str(pace.seconds),
            PACED_RECOGNISER=str(RECOGNISER_SECONDS),
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
