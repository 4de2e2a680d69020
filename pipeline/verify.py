"""Text against transcript: did the take say what it should? Pure.

Both sides are brought to spoken words (`text.spoken`) and compared; what else a recogniser measured
(pauses, pace, word times) is judged here too, so that a kept transcript can be judged again under
another threshold. Knows nothing of engines, recognisers or files. Invariants: a Verdict carries its
evidence, and hearing nothing never passes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

from pipeline.sound.audio import Word
from pipeline.text.spoken import spoken_words

# Faults that matter however long the chunk and however lenient the threshold.
RUN_WORDS = 3
"so many words in a row, missing, repeated or foreign, refuse a take whatever its error rate"
CUT_WORDS = 2
"so many words missing at the very end"
# Bounds that right speech keeps; docs/checks.md has the measurements.
LONGEST_PAUSE_SECONDS = 1.2
DURATION_RATIOS = (0.6, 1.6)
DURATION_SLACK_SECONDS = 1.0
"a lone word may well take half as long as within a sentence"
DISPLACEMENT_SECONDS = 0.12
QUOTED_WORDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What a recogniser heard, with whatever else it measured; None where it does not measure that."""

    text: str
    words: tuple[Word, ...] = ()
    "when each word was heard, where the recogniser tells"
    looks: int = 1
    "how often it listened"
    doubted: tuple[str, ...] = ()
    "words that it would have taken for heard, but whose sound is not theirs; not in `text`"
    fits: bool | None = None
    "whether the expected words, in order, can be laid over the sound at all"
    sounding_seconds: float | None = None
    "without silence"
    expected_seconds: float | None = None
    "how long the expected words would sound at the pace of those that were heard"
    longest_pause_seconds: float | None = None
    "silence between two sounds"
    displacement_seconds: float | None = None
    "how far words lie from where the engine reported them"
    speech_ends_seconds: float | None = None
    "when the last heard word ended, where words are timed by the sound alone; no speech follows"
    no_speech_probability: float | None = None
    "how surely there is no speech at all; evidence, not judged"
    compression_ratio: float | None = None
    "of the transcript's text: over 2.4 it repeats itself; evidence, not judged: the text may do so"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transcript":
        """Read what `to_dict` wrote, also after JSON; TypeError or KeyError for anything else."""
        words = tuple(Word(**word) for word in values["words"])
        return cls(**{**values, "words": words, "doubted": tuple(values["doubted"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement on one take, with its evidence."""

    passed: bool
    word_error_rate: float
    "wrong, missing and extra words per expected word; over 1 if more was said than expected"
    max_word_error_rate: float
    "the threshold it was judged by"
    transcript: str
    "what was heard, as the recogniser wrote it"
    reasons: tuple[str, ...] = ()
    "why it did not pass, one line each"
    speech_ends_seconds: float | None = None
    "when its last word ended, where that is known and it passed: what follows is no speech"


@dataclass(frozen=True, slots=True)
class Edit:
    """One place where the heard words differ from the expected: `wanted` was to be there, `heard` was."""

    at: int
    "index into the expected words"
    wanted: tuple[str, ...]
    heard: tuple[str, ...]

    @property
    def errors(self) -> int:
        """Words to change, remove or add."""
        return max(len(self.wanted), len(self.heard))

    @property
    def only_spacing(self) -> bool:
        """Whether the same letters stand on both sides."""
        return "".join(self.wanted) == "".join(self.heard)


def verify(
    expected: str, transcript: Transcript, *, language: str, max_word_error_rate: float,
    normalise: Callable[[str, str], str] = lambda text, _language: text,
) -> Verdict:  # fmt: skip
    """Judge a transcript of speech that should say `expected`.

    `normalise` is the recogniser's own, applied to both sides before they are spelled out.

    Passes if the word error rate is not above `max_word_error_rate` and no reason of another kind
    speaks against it: a run of words missing or repeated, an end cut off, a silence inside, a duration or
    word times that do not fit.
    """
    wanted = spoken_words(normalise(expected, language), language)
    heard = spoken_words(normalise(transcript.text, language), language)
    edits = tuple(differences(wanted, heard))
    rate = sum(edit.errors for edit in edits) / max(1, len(wanted))
    reasons = (
        *_about_hearing(wanted, heard, transcript),
        *_about_rate(rate, max_word_error_rate, transcript),
        *_about_words(wanted, edits, all_of_them=rate > max_word_error_rate),
        *_about_sound(transcript),
    )
    whole = not reasons and wanted[-1:] == heard[-1:]
    return Verdict(
        passed=not reasons,
        word_error_rate=round(rate, 4),
        max_word_error_rate=max_word_error_rate,
        transcript=transcript.text,
        reasons=reasons,
        speech_ends_seconds=transcript.speech_ends_seconds if whole else None,
    )


def refused(verdict: Verdict | None, fault: str) -> Verdict:
    """The judgement on a take that cannot be right, whatever was heard in it, or if nobody listened."""
    if verdict is None:
        return Verdict(
            passed=False, word_error_rate=1.0, max_word_error_rate=0.0, transcript="", reasons=(fault,)
        )
    return dataclasses.replace(verdict, passed=False, reasons=(fault, *verdict.reasons))


def differences(wanted: Sequence[str], heard: Sequence[str]) -> Iterator[Edit]:
    """The edits between two word lists; words written apart or together (`every day`) are no difference.

    Method: Levenshtein alignment over words, neighbouring operations joined.
    """
    pending: Edit | None = None
    for code in Levenshtein.opcodes(wanted, heard):
        if code.tag == "equal":
            if pending is not None and not pending.only_spacing:
                yield pending
            pending = None
            continue
        before = pending or Edit(code.src_start, (), ())
        pending = Edit(
            before.at,
            before.wanted + tuple(wanted[code.src_start : code.src_end]),
            before.heard + tuple(heard[code.dest_start : code.dest_end]),
        )
    if pending is not None and not pending.only_spacing:
        yield pending


def _about_hearing(wanted: Sequence[str], heard: Sequence[str], transcript: Transcript) -> Iterator[str]:
    if wanted and not heard:
        yield "nothing was heard"
    elif transcript.fits is False:
        yield "the text cannot be laid over the sound"


def _about_rate(rate: float, limit: float, transcript: Transcript) -> Iterator[str]:
    if rate > limit:
        yield f"word_error_rate {rate:.2f} over {limit:.2f}"
        if transcript.doubted:
            yield f"sounds unlike itself: {_quote(transcript.doubted)}"


def _about_words(wanted: Sequence[str], edits: Sequence[Edit], *, all_of_them: bool) -> Iterator[str]:
    """Name the edits that refuse by themselves, or every edit if the rate has refused already."""
    for edit in edits:
        lost = len(edit.wanted) - len(edit.heard)
        if edit.at + len(edit.wanted) == len(wanted) and lost >= CUT_WORDS:
            yield f"cut off at the end: {_quote(edit.wanted)}"
        elif lost >= RUN_WORDS or (all_of_them and lost > 0):
            yield f"missing: {_quote(edit.wanted)}"
        elif -lost >= RUN_WORDS or (all_of_them and lost < 0):
            yield f"{_kind_of_extra(wanted, edit)}: {_quote(edit.heard)}"
        elif all_of_them:
            yield f"heard {_quote(edit.heard)} for {_quote(edit.wanted)}"


def _kind_of_extra(wanted: Sequence[str], edit: Edit) -> str:
    """`repeated` if most of the extra words stand in the text close by, else `not in the text`."""
    reach = 2 * len(edit.heard)
    near = set(wanted[max(0, edit.at - reach) : edit.at + reach])
    known = sum(word in near for word in edit.heard)
    return "repeated" if 2 * known > len(edit.heard) else "not in the text"


def _about_sound(transcript: Transcript) -> Iterator[str]:
    pause = transcript.longest_pause_seconds
    if pause is not None and pause > LONGEST_PAUSE_SECONDS:
        yield f"silence of {pause:.1f} s inside"
    if transcript.sounding_seconds is not None and transcript.expected_seconds:
        ratio = transcript.sounding_seconds / transcript.expected_seconds
        off_seconds = abs(transcript.sounding_seconds - transcript.expected_seconds)
        within = DURATION_RATIOS[0] <= ratio <= DURATION_RATIOS[1]
        if not within and off_seconds > DURATION_SLACK_SECONDS:
            yield f"duration {ratio:.1f} times expected"
    displacement = transcript.displacement_seconds
    if displacement is not None and displacement > DISPLACEMENT_SECONDS:
        yield f"words lie {displacement:.2f} s from where the engine put them"


def _quote(words: Sequence[str]) -> str:
    shown = " ".join(words[:QUOTED_WORDS])
    return shown if len(words) <= QUOTED_WORDS else f"{shown} ..."
