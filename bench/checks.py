"""How well the embedded checker tells right speech from faulty: `python -m bench.checks [--write]`.

Speaks sentences of a book, damages the sound in seeded ways at word borders, has every version
transcribed and judged, and prints a table of how many of each kind were refused. The checker was
tuned on the first half of the book; what is reported comes from the second half.
"""

import argparse
import math
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import NormalDist

import numpy as np

from pipeline.engines import load as load_engine
from pipeline.engines.base import Engine, Utterance, Voice
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Audio, Samples, Speech
from pipeline.transcribers import load as load_transcriber
from pipeline.transcribers.base import Transcriber
from pipeline.verify import Transcript, Verdict, verify

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "checks.md"
BEGIN, END = "<!-- bench.checks begin -->", "<!-- bench.checks end -->"
BOOK = ROOT.parent / "shared" / "data" / "the-time-machine.txt"
SENTENCE_CHARS = (20, 280)
THRESHOLDS = (0.0, 0.02, 0.05, 0.1, 0.2)
VOICES = ("en-us", "en-us+m3", "en-us+f3", "en-gb+f2", "en-gb")
OTHER_VOICE_SENTENCES = 50
_SMALL_WORDS_TEXT = """
a all am an and any are as at be been but by could did do does down for from had has have he her him
his how i if in into is it its more most my no not of on one or our out over said shall she should
so some such than that the their them then there they this to up upon us very was we were what when
where which who will with would you your
"""
SMALL_WORDS = frozenset(_SMALL_WORDS_TEXT.split())
HARD_SENTENCES = (
    "The bill came to $3.50, plus 15% for service.",
    "In 1895 he was 42 years old and had £1,250 in the bank.",
    "Dr. Smith and Mrs. Jones met Prof. Brown at 7:30 p.m. on Monday.",
    "The 21st of June 2024 was the hottest day in 100 years.",
    "Add 2.5 kg of flour and 3/4 of a cup of milk.",
    "Mr. Xanthopoulos lives at No. 7, St. James's Street.",
    "Siobhan and Nguyen flew from Reykjavik to Kuala Lumpur.",
    "The U.S. and the U.K. signed it on 4 July 1999.",
    "Chapter 12: The 3rd Morlock.",
    "He ran 5 km in 25 minutes, i.e. 12 km/h.",
    "Weena, the Eloi, and the Morlocks of 802,701.",
    "It weighs 1,000,000 tons & costs €99.",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One version of one sentence as it was judged."""

    kind: str
    text: str
    transcript: Transcript
    seconds: float
    "of sound"
    work_seconds: float
    "of processor time to transcribe and judge it"


Fault = Callable[[Speech, Random, Speech], Samples | None]


def sentences(text: str) -> list[str]:
    """Sentences of `text` that are as long as a chunk may be."""
    found = [
        part.strip()
        for paragraph in text.split("\n")
        for part in re.split(r"(?<=[.!?])[”’\"]*\s+", paragraph.strip())
    ]
    return [
        part
        for part in found
        if SENTENCE_CHARS[0] <= len(part) <= SENTENCE_CHARS[1] and len(part.split()) > 3
    ]


def half_of_book(half: str) -> list[str]:
    """The sentences for tuning or for reporting."""
    book = BOOK.read_text(encoding="utf-8")
    middle = len(book) // 2
    return sentences(book[:middle] if half == "tune" else book[middle:])


def chosen(half: str, count: int, seed: int) -> list[str]:
    """`count` sentences of that half."""
    return Random(seed).sample(half_of_book(half), count)


def _borders(speech: Speech) -> list[int]:
    """First sample of each word, and the end."""
    assert speech.words is not None
    rate = speech.audio.rate_hz
    return [round(word.start_seconds * rate) for word in speech.words] + [len(speech.audio.samples)]


def _clause(speech: Speech, random: Random) -> tuple[int, int] | None:
    """Samples of three to eight words in a row, at most half the sentence."""
    borders = _borders(speech)
    words = len(borders) - 1
    if words < 6:
        return None
    length = random.randint(3, min(8, words // 2))
    first = random.randint(0, words - length)
    return borders[first], borders[first + length]


def missing_clause(speech: Speech, random: Random, _other: Speech) -> Samples | None:
    """Three to eight words in a row cut out."""
    span = _clause(speech, random)
    return None if span is None else np.delete(speech.audio.samples, slice(*span))


def repeated_clause(speech: Speech, random: Random, _other: Speech) -> Samples | None:
    """Three to eight words in a row said twice."""
    span = _clause(speech, random)
    samples = speech.audio.samples
    return None if span is None else np.concatenate([samples[: span[1]], samples[span[0] :]])


def other_text(_speech: Speech, _random: Random, other: Speech) -> Samples:
    """Another sentence of about the same length."""
    return other.audio.samples


def cut_end(speech: Speech, random: Random, _other: Speech) -> Samples:
    """The last 15 to 40 % gone, and the last word at least."""
    samples = speech.audio.samples
    end = round(len(samples) * (1 - random.uniform(0.15, 0.4)))
    return samples[: min(end, _borders(speech)[-2])]


def _is_small(text: str) -> bool:
    return text.lower() in SMALL_WORDS


def _without_word(speech: Speech, random: Random, *, small: bool) -> Samples | None:
    assert speech.words is not None
    borders = _borders(speech)
    choices = [at for at, word in enumerate(speech.words)
               if _is_small(word.text) == small and (small or len(word.text) >= 4)]  # fmt: skip
    if not choices:
        return None
    at = random.choice(choices)
    return np.delete(speech.audio.samples, slice(borders[at], borders[at + 1]))


def missing_word(speech: Speech, random: Random, _other: Speech) -> Samples | None:
    """One word of four letters or more that carries meaning cut out."""
    return _without_word(speech, random, small=False)


def missing_small_word(speech: Speech, random: Random, _other: Speech) -> Samples | None:
    """One word like `the`, `of`, `it` cut out."""
    return _without_word(speech, random, small=True)


def swapped_words(speech: Speech, random: Random, _other: Speech) -> Samples | None:
    """Two neighbours in the wrong order, one of them carrying meaning."""
    words = speech.words or ()
    choices = [
        at
        for at in range(len(words) - 1)
        if words[at].text.lower() != words[at + 1].text.lower()
        and not (_is_small(words[at].text) and _is_small(words[at + 1].text))
    ]
    if not choices:
        return None
    samples, borders, at = speech.audio.samples, _borders(speech), random.choice(choices)
    first, second, end = borders[at : at + 3]
    parts: list[Samples] = [samples[:first], samples[second:end], samples[first:second], samples[end:]]
    return np.concatenate(parts)


def _stretch(speech: Speech, random: Random) -> slice | None:
    """0.6 to 1.2 s within the speech."""
    rate, seconds = speech.audio.rate_hz, speech.audio.seconds
    length = random.uniform(0.6, 1.2)
    if seconds < length + 0.6:
        return None
    start = random.uniform(0.1, seconds - length - 0.3)
    return slice(round(start * rate), round((start + length) * rate))


def noise(speech: Speech, random: Random, _other: Speech) -> Samples | None:
    """0.6 to 1.2 s replaced by white noise as loud as the speech."""
    where = _stretch(speech, random)
    if where is None:
        return None
    samples = speech.audio.samples.copy()
    loudness = float(np.sqrt(np.mean(samples**2)))
    samples[where] = np.random.default_rng(random.getrandbits(32)).normal(
        0, loudness, where.stop - where.start
    )
    return samples


def garble(speech: Speech, random: Random, _other: Speech) -> Samples | None:
    """0.6 to 1.2 s played backwards: the same voice saying nothing."""
    where = _stretch(speech, random)
    if where is None:
        return None
    samples = speech.audio.samples.copy()
    samples[where] = samples[where][::-1].copy()
    return samples


def long_silence(speech: Speech, random: Random, _other: Speech) -> Samples:
    """2 s of silence between two words."""
    at = random.choice(_borders(speech)[1:-1])
    return np.insert(speech.audio.samples, at, np.zeros(2 * speech.audio.rate_hz, dtype=np.float32))


FAULTS: dict[str, Fault] = {
    "missing clause (3-8 words)": missing_clause,
    "repeated clause (3-8 words)": repeated_clause,
    "other text": other_text,
    "cut end": cut_end,
    "one missing word": missing_word,
    "one missing small word": missing_small_word,
    "two words swapped": swapped_words,
    "noise burst": noise,
    "garbled stretch": garble,
    "long silence": long_silence,
}
RIGHT = "right speech"


def speak(engine: Engine, text: str, voice: str = "", try_number: int = 1) -> Speech:
    """The sentence as the engine says it at the given try."""
    usual = Utterance(text=text, voice=Voice(name=voice), language="en", synthesis=Synthesis(), seed=1)
    return engine.speak(engine.vary(usual, try_number))


def versions(texts: Sequence[str], spoken: Sequence[Speech], seed: int) -> Iterator[tuple[str, str, Speech]]:
    """(kind, text, speech): each sentence right and with each fault; the word times stay the engine's."""
    by_length = sorted(range(len(texts)), key=lambda at: spoken[at].audio.seconds)
    for rank, at in enumerate(by_length):
        neighbour = spoken[by_length[rank + 1 if rank + 1 < len(texts) else rank - 1]]
        yield RIGHT, texts[at], spoken[at]
        for kind, fault in FAULTS.items():
            samples = fault(spoken[at], Random(f"{seed} {kind} {texts[at]}"), neighbour)
            if samples is not None:
                audio = Audio(np.ascontiguousarray(samples, dtype=np.float32), spoken[at].audio.rate_hz)
                yield kind, texts[at], replace(spoken[at], audio=audio)


def judge(transcriber: Transcriber, kind: str, text: str, speech: Speech) -> Case:
    """Transcribe and judge once, timed."""
    start = time.process_time()
    transcript = transcriber.transcribe(speech, text, "en")
    verdict(text, transcript, transcriber.max_word_error_rate)
    return Case(kind, text, transcript, speech.audio.seconds, time.process_time() - start)


def verdict(text: str, transcript: Transcript, limit: float) -> Verdict:
    """As a job without settings of its own is judged."""
    return verify(text, transcript, language="en", max_word_error_rate=limit)


def refused(cases: Sequence[Case], limit: float, *, word_times: bool) -> str:
    """`97.5 %` of the cases, judged with or without the engine's word times."""
    if not cases:
        return "-"
    judged = [
        verdict(
            case.text,
            case.transcript if word_times else without_times(case),
            limit,
        )
        for case in cases
    ]
    return f"{100 * sum(not one.passed for one in judged) / len(judged):.1f} %"


def without_times(case: Case) -> Transcript:
    """What was heard, as of an engine that does not tell when it spoke each word."""
    return replace(case.transcript, displacement_seconds=None)


def table(cases: Sequence[Case], limit: float) -> Iterator[str]:
    """Markdown rows: how many of each kind were refused."""
    yield "| speech | cases | refused, without the engine's word times | refused, with them |"
    yield "| --- | ---: | ---: | ---: |"
    for kind in (RIGHT, *FAULTS):
        of_kind = [case for case in cases if case.kind == kind]
        cells = (refused(of_kind, limit, word_times=times) for times in (False, True))
        yield f"| {kind} | {len(of_kind)} | {' | '.join(cells)} |"


def pace(cases: Sequence[Case]) -> float:
    """Seconds of work per second of sound."""
    return sum(case.work_seconds for case in cases) / sum(case.seconds for case in cases)


def measured(texts: Sequence[str], seed: int) -> list[Case]:
    """Every version of every sentence, judged."""
    engine, transcriber = load_engine("espeak"), load_transcriber("pocketsphinx")
    spoken = [speak(engine, text) for text in texts]
    cases = [judge(transcriber, *version) for version in versions(texts, spoken, seed)]
    transcriber.close()
    return cases


def shared_out(texts: Sequence[str], seed: int, jobs: int) -> list[Case]:
    """`measured` over several processes; a sentence's neighbours, for `other text`, stay with it."""
    parts = [sorted(texts, key=len)[at::jobs] for at in range(jobs)]
    with ProcessPoolExecutor(jobs) as pool:
        return [case for part in pool.map(measured, parts, [seed] * jobs) for case in part]


def thresholds(cases: Sequence[Case]) -> Iterator[str]:
    """Markdown rows: the same transcripts judged by other thresholds, without word times."""
    kinds = (RIGHT, "missing clause (3-8 words)", "one missing word", "two words swapped", "garbled stretch")
    yield f"| `max_word_error_rate` | {' | '.join(kinds)} |"
    yield "| ---: |" + " ---: |" * len(kinds)
    for limit in THRESHOLDS:
        cells = (refused([c for c in cases if c.kind == kind], limit, word_times=False) for kind in kinds)
        yield f"| {limit:.2f} | {' | '.join(cells)} |"


def other_voices(transcriber: Transcriber, texts: Sequence[str], seed: int) -> Iterator[str]:
    """Markdown rows: right speech and missing clauses of voices other than the default."""
    engine = load_engine("espeak")
    yield "| voice | right speech refused at 0.00 | at 0.05 | at 0.10 | missing clause refused at 0.10 |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for voice in VOICES:
        speeches = [speak(engine, text, voice) for text in texts]
        right = [judge(transcriber, RIGHT, *pair) for pair in zip(texts, speeches, strict=True)]
        cut = [
            judge(transcriber, "", text, replace(speech, audio=Audio(samples, speech.audio.rate_hz)))
            for text, speech in zip(texts, speeches, strict=True)
            if (samples := missing_clause(speech, Random(f"{seed} {text}"), speech)) is not None
        ]
        cells = [refused(right, limit, word_times=False) for limit in (0.0, 0.05, 0.1)]
        yield f"| {voice} | {' | '.join(cells)} | {refused(cut, 0.1, word_times=False)} |"


def still_refused(transcriber: Transcriber, engine: Engine, texts: Sequence[str]) -> int:
    """How many of the texts no take passes, of the four that a job makes at most by default."""
    limit = transcriber.max_word_error_rate
    return sum(
        not any(
            verdict(text, transcriber.transcribe(speak(engine, text, try_number=n), text, "en"), limit).passed
            for n in range(2, 5)
        )
        for text in texts
    )


def report(arguments: argparse.Namespace) -> list[str]:
    """The whole measurement as lines of markdown."""
    engine, transcriber = load_engine("espeak"), load_transcriber("pocketsphinx")
    limit = transcriber.max_word_error_rate
    texts = chosen(arguments.half, arguments.sentences, arguments.seed)
    cases = shared_out(texts, arguments.seed, arguments.jobs)
    right = [case for case in cases if case.kind == RIGHT]
    wrongly = [case.text for case in right if not verdict(case.text, case.transcript, limit).passed]
    hard = [judge(transcriber, RIGHT, text, speak(engine, text)) for text in HARD_SENTENCES]
    passed = sum(verdict(case.text, case.transcript, limit).passed for case in hard)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {len(texts)} sentences of the "
        f"{'first' if arguments.half == 'tune' else 'second'} half of the book (seed {arguments.seed}), "
        f"engine {engine.name} {engine.version}, checker {transcriber.name} {transcriber.version}, "
        f"threshold {limit:.2f}, Python {platform.python_version()}.",
        "",
        *table(cases, limit),
        "",
        f"Right speech still refused after four takes: {still_refused(transcriber, engine, wrongly)} "
        f"of {len(right)}.",
        f"Sentences full of numbers, money, abbreviations and names: {passed} of {len(hard)} passed.",
        f"Processor time per second of sound: {pace(right):.3f} s for right speech, "
        f"{pace(cases):.3f} s over all of the above.",
        "",
        "The same transcripts under other thresholds, without word times:",
        "",
        *thresholds(cases),
        "",
        f"Other voices, {OTHER_VOICE_SENTENCES} sentences each, without word times:",
        "",
        *other_voices(transcriber, texts[:OTHER_VOICE_SENTENCES], arguments.seed),
    ]
    transcriber.close()
    return lines


def report_right(half: str, jobs: int) -> list[str]:
    """Right speech alone, over every sentence of that half."""
    texts = half_of_book(half)
    with ProcessPoolExecutor(jobs) as pool:
        parts = pool.map(heard_right, [texts[at::jobs] for at in range(jobs)])
        cases = [case for part in parts for case in part]
    engine, transcriber = load_engine("espeak"), load_transcriber("pocketsphinx")
    limit = transcriber.max_word_error_rate
    bare = [case for case in cases if not verdict(case.text, without_times(case), limit).passed]
    timed = [case.text for case in cases if not verdict(case.text, case.transcript, limit).passed]
    return [
        "Right speech refused on the first take,",
        f"without the engine's word times: {share(len(bare), len(cases))}",
        f"with them: {share(len(timed), len(cases))}",
        f"after four takes: {share(still_refused(transcriber, engine, timed), len(cases))}",
    ]


def share(hits: int, cases: int) -> str:
    """`24 of 910, 2.6 %`, with what chance alone may do to it."""
    low, high = (100 * bound for bound in wilson(hits, cases))
    return f"{hits} of {cases}, {100 * hits / cases:.1f} % (95 % interval {low:.1f} to {high:.1f} %)"


def heard_right(texts: Sequence[str]) -> list[Case]:
    """Each text spoken as it is, and judged."""
    engine, transcriber = load_engine("espeak"), load_transcriber("pocketsphinx")
    cases = [judge(transcriber, RIGHT, text, speak(engine, text)) for text in texts]
    transcriber.close()
    return cases


def wilson(hits: int, cases: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (E. B. Wilson, 1927)."""
    z = NormalDist().inv_cdf(0.975)
    rate, spread = hits / cases, z / (2 * cases)
    middle = (rate + z * spread) / (1 + 2 * z * spread)
    reach = z / (1 + 2 * z * spread) * math.sqrt(rate * (1 - rate) / cases + spread**2)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def write(lines: Sequence[str]) -> None:
    """Put the lines between the marks in docs/checks.md."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), encoding="utf-8")


def main() -> None:
    """Measure and print; with --write also into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--half", choices=("report", "tune"), default="report")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--right", action="store_true", help="right speech only, every sentence of the half")
    parser.add_argument("--write", action="store_true", help="rewrite the table in docs/checks.md")
    arguments = parser.parse_args()
    if arguments.right:
        print("\n".join(report_right(arguments.half, arguments.jobs)))
        return
    lines = report(arguments)
    print("\n".join(lines))
    if arguments.write:
        write(lines)


if __name__ == "__main__":
    main()
