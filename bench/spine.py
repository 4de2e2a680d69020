"""How much the pipeline costs beside engine, checker and encoder, and what the cache saves."""

import time

from bench.ground import Ground, ground, prose, text_name
from pipeline import engines
from pipeline.engines.base import Utterance, Voice
from pipeline.jobs.settings import Chunks, Synthesis, TextRules
from pipeline.text.chunk import chunk
from pipeline.text.prepare import prepare

BOOK_WORDS = 30_000
BOOK_CHUNKS = 1_000
PLAIN_WORDS = 10_000


def main() -> None:
    """Print all three, and what is read aloud."""
    print(f"text: {text_name()}")
    beside_the_bare_engine()
    book()


def beside_the_bare_engine() -> None:
    """Unchecked, to wav: the whole job against the engine alone over the same chunks."""
    text = prose(PLAIN_WORDS)
    prepared = prepare(text, TextRules(), "en").text
    pieces = [piece.text for piece in chunk(prepared, Chunks(), "en")]
    bare = min(_bare_seconds(pieces) for _ in range(2))
    with ground() as place:
        place.write_config(
            defaults={"check": {"by": "none"}, "output": {"formats": ["wav"]}}, intake={"settle_seconds": 0.1}
        )
        place.drop("plain.txt", text)
        place.run_once()
        whole = place.job_seconds()
        speech = place.manifest("plain")["outputs"][0]["duration_seconds"]
    print(f"unchecked to wav, {PLAIN_WORDS:,} words, {len(pieces)} chunks, {speech / 60:.0f} min of speech:")
    print(f"  bare engine {bare:.2f} s ({speech / bare:.0f} x real time), whole job {whole:.2f} s")
    print(f"  speed of the whole against the bare engine: {bare / whole:.2f} (target: at least 0.50)")


def _bare_seconds(pieces: list[str]) -> float:
    engine = engines.load("espeak")
    started = time.perf_counter()
    for piece in pieces:
        engine.speak(
            Utterance(text=piece, voice=Voice(name=""), language="en", synthesis=Synthesis(), seed=1)
        )
    return time.perf_counter() - started


def book() -> None:
    """Checked, to mp3, a whole book; then the same with one sentence changed."""
    text = prose(BOOK_WORDS)
    with ground() as place:
        place.write_config(
            defaults={"chunks": {"max_chars": _max_chars(text)}}, intake={"settle_seconds": 0.1}
        )
        place.drop("book.txt", text)
        place.run_once()
        first = place.job_seconds()
        _tell_first(place, first)
        place.drop("book.txt", _one_sentence_changed(text))
        place.run_once()
        again = place.job_seconds()
        chunks = place.manifest("book")["chunks"]
    spoken = sum(not record["cached"] for record in chunks)
    print(f"the same with one sentence changed: {again:.1f} s, {spoken} of {len(chunks)} chunks spoken")
    print(f"  cost against the first run: {again / first:.1%} (target: under 5 %)")


def _max_chars(text: str) -> int:
    """A chunk size that cuts the book into about a thousand chunks."""
    prepared = prepare(text, TextRules(), "en").text
    for max_chars in range(280, 80, -10):
        if len(chunk(prepared, Chunks(max_chars=max_chars), "en")) >= BOOK_CHUNKS:
            return max_chars
    raise SystemExit("the text is too short")


def _tell_first(place: Ground, seconds: float) -> None:
    manifest = place.manifest("book")
    timings = manifest["timings"]
    speech = manifest["outputs"][0]["duration_seconds"]
    inside = timings["synthesis_seconds"] + timings["check_seconds"] + timings["encode_wait_seconds"]
    failed = sum(record["passed"] is False for record in manifest["chunks"])
    tries = sum(record["tries"] for record in manifest["chunks"])
    print(
        f"checked to mp3, {BOOK_WORDS:,} words, {len(manifest['chunks'])} chunks,"
        f" {speech / 3600:.1f} h of speech: {seconds:.0f} s ({speech / seconds:.1f} x real time)"
    )
    print(
        f"  speaking {timings['synthesis_seconds']:.0f} s, checking {timings['check_seconds']:.0f} s,"
        f" waiting for the encoder {timings['encode_wait_seconds']:.1f} s;"
        f" {tries} takes, {failed} chunks not passed"
    )
    print(f"  outside engine, checker and encoder: {1 - inside / seconds:.1%} (target: under 10 %)")


def _one_sentence_changed(text: str) -> str:
    middle = text.index(". ", len(text) // 2)
    return text[: middle + 2] + "Nobody had written this sentence before. " + text[middle + 2 :]


if __name__ == "__main__":
    main()
