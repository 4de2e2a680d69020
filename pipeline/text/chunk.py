"""Cuts prepared text into the pieces an engine speaks at once.

Knows sentences, clauses and lengths; nothing of engines or sound. Invariant: the spans of the
chunks join to the whole text, nothing between them is lost, and no chunk is longer than the limit
or without something to say. Time is linear in the text, also without any space in it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, pairwise
from typing import Protocol

from pipeline.text.sentences import inner_starts, sentence_starts
from pipeline.text.speakable import is_speakable


class Limits(Protocol):
    """How long chunks may be, in characters (`chunks` of a job)."""

    @property
    def max_chars(self) -> int:
        """Never longer."""

    @property
    def min_chars(self) -> int:
        """Not shorter where a neighbour in the same paragraph can take it."""


class Pause(StrEnum):
    """What follows a chunk."""

    NONE = "none"
    "the clause goes on: speak on at once"
    CLAUSE = "clause"
    "a comma, a dash, a semicolon"
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    "also the end of the text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of prepared text."""

    index: int
    "0, 1, 2, ..."
    start: int
    end: int
    "prepared[start:end] of all chunks join to the whole prepared text"
    text: str
    "what is spoken: the span without outer whitespace and without neighbours that say nothing"
    pause: Pause
    "what follows it"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A trimmed span, with what follows it."""

    start: int
    end: int
    pause: Pause


_Span = tuple[int, int]

_PARAGRAPH_BREAK = re.compile(r"\n\s*\n\s*")
_SPACE = re.compile(r"\s*")
_CONJUNCTIONS = {
    "en": "and|or|but|nor|so|yet|for|that|which|who|whom|whose|where|when|while|because|although|though|if"
    "|unless|until|since|as|than|then|before|after|with|without|in|on|at|from|to|by|into|through",
    "de": "und|oder|aber|denn|sondern|dass|weil|wenn|als|ob|wobei|während|der|die|das|mit|ohne|in|auf|von|zu",
    "fr": "et|ou|mais|donc|or|ni|car|que|qui|dont|où|quand|si|comme|lorsque|puisque|avec|sans|dans|sur|pour",
    "es": "y|e|o|u|pero|sino|que|quien|cual|donde|cuando|si|como|porque|aunque|con|sin|en|de|para|por",
    "it": "e|ed|o|ma|però|che|chi|cui|dove|quando|se|come|perché|anche|con|senza|in|su|per|da",
    "pt": "e|ou|mas|que|quem|onde|quando|se|como|porque|embora|com|sem|em|de|para|por",
    "nl": "en|of|maar|want|dus|dat|die|wie|waar|wanneer|als|omdat|hoewel|met|zonder|in|op|van|naar",
}
# What a cut costs by what it falls on; an imbalance of a whole chunk length costs 1.
_COSTS = {"strong": 0.0, "comma": 0.15, "conjunction": 0.4, "space": 0.55}
_PAUSES = {"strong": Pause.CLAUSE, "comma": Pause.CLAUSE, "conjunction": Pause.NONE, "space": Pause.NONE}
_TINY_COST = 3.0
_CLOSERS = r"[\"'”’»›)\]]*"


def chunk(text: str, limits: Limits, language: str = "en") -> list[Chunk]:
    """Cut `text` into chunks, in order; empty only if nothing in it can be spoken.

    `language` is a BCP 47 tag. Offsets count characters of `text`.
    """
    cutter = _Cutter(text, limits, language)
    pieces = [piece for paragraph in _paragraphs(text) for piece in cutter.pieces(*paragraph)]
    return _spans_around(text, _speakable_only(text, pieces))


def _paragraphs(text: str) -> Iterator[_Span]:
    """Trimmed spans between blank lines."""
    start = 0
    for match in _PARAGRAPH_BREAK.finditer(text):
        yield _trim(text, start, match.start())
        start = match.end()
    yield _trim(text, start, len(text))


def _trim(text: str, start: int, end: int) -> _Span:
    """The span without whitespace at its ends."""
    start = min(_skip_space(text, start), end)
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _skip_space(text: str, position: int) -> int:
    """The first place at or after `position` that is no whitespace."""
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _speakable_only(text: str, pieces: Sequence[_Piece]) -> list[_Piece]:
    """The pieces that say something; one that does not leaves its pause to the piece before it."""
    kept: list[_Piece] = []
    for piece in pieces:
        if is_speakable(text[piece.start : piece.end]):
            kept.append(piece)
        elif kept and piece.pause is Pause.PARAGRAPH:
            kept[-1] = _Piece(kept[-1].start, kept[-1].end, Pause.PARAGRAPH)
    return kept


def _spans_around(text: str, pieces: Sequence[_Piece]) -> list[Chunk]:
    """Chunks whose spans reach to the next piece, so that they cover the whole text."""
    starts = [0, *(piece.start for piece in pieces[1:]), len(text)]
    return [
        Chunk(index=i, start=start, end=end, text=text[piece.start : piece.end], pause=piece.pause)
        for i, (piece, (start, end)) in enumerate(zip(pieces, pairwise(starts), strict=False))
    ]


class _Cutter:
    """One text's way into pieces: sentences grouped, long ones cut."""

    def __init__(self, text: str, limits: Limits, language: str) -> None:
        self._text = text
        self._language = language
        self._max = limits.max_chars
        self._short = min(limits.min_chars, limits.max_chars // 3)
        self._breaks = _clause_breaks(language)

    def pieces(self, start: int, end: int) -> Iterator[_Piece]:
        """The pieces of one paragraph, the last with the paragraph's pause."""
        held: _Piece | None = None
        for span in self._groups(start, end):
            for piece in self._cut(*span):
                if held:
                    yield held
                held = piece
        if held:
            yield _Piece(held.start, held.end, Pause.PARAGRAPH)

    def _groups(self, start: int, end: int) -> Iterator[_Span]:
        """Sentences joined while they fit; a span longer than the limit comes out only to be cut."""
        done: _Span | None = None
        group: _Span | None = None
        for sentence in self._sentences(start, end):
            if group is None:
                group = sentence
            elif self._fits((group[0], sentence[1])) or self._is_short(group):
                group = (group[0], sentence[1])
            else:
                if done:
                    yield done
                done, group = group, sentence
        if done and group and self._is_short(group):
            group = (done[0], group[1])
            done = None
        yield from (span for span in (done, group) if span)

    def _sentences(self, start: int, end: int) -> Iterator[_Span]:
        """Trimmed sentences; of one that is too long, the sentences inside its quotes."""
        for sentence in self._between(sentence_starts(self._text, start, end, self._language), end):
            if self._fits(sentence):
                yield sentence
            else:
                yield from self._between(inner_starts(self._text, *sentence, self._language), sentence[1])

    def _between(self, starts: Iterator[int], end: int) -> Iterator[_Span]:
        """Trimmed spans from each start to the next; those that say nothing fall to their neighbours."""
        start = next(starts)
        for following in chain(starts, (end,)):
            span = _trim(self._text, start, following)
            if is_speakable(self._text[span[0] : span[1]]):
                yield span
            start = following

    def _fits(self, span: _Span) -> bool:
        return span[1] - span[0] <= self._max

    def _is_short(self, span: _Span) -> bool:
        return span[1] - span[0] < self._short

    def _cut(self, start: int, end: int) -> Iterator[_Piece]:
        """Pieces of a span, none longer than the limit, about equally long."""
        while end - start > self._max:
            at, pause = self._best_cut(start, end)
            yield _Piece(*_trim(self._text, start, at), pause)
            start = _skip_space(self._text, at)
        if start < end:
            yield _Piece(start, end, Pause.SENTENCE)

    def _best_cut(self, start: int, end: int) -> tuple[int, Pause]:
        """Where to end the piece that begins at `start`, and what follows there."""
        ideal = start + -(-(end - start) // -(-(end - start) // self._max))
        for floor in (ideal - self._max // 3, start + 1):
            found = self._cheapest(start, end, max(floor, start + 1), ideal)
            if found:
                return found
        return self._hard_cut(start, ideal), Pause.NONE

    def _cheapest(self, start: int, end: int, floor: int, ideal: int) -> tuple[int, Pause] | None:
        """The best place from `floor` on to cut at punctuation or a space."""
        best_cost, best = float("inf"), None
        for match in self._breaks.finditer(self._text, floor, start + self._max + 1):
            at, kind = match.end(), match.lastgroup or "space"
            if _trimmed_length(self._text, start, at) > self._max or at >= end:
                continue
            tiny = min(at - start, end - at) < max(self._short, 1)
            cost = _COSTS[kind] + abs(at - ideal) / self._max + _TINY_COST * tiny
            if cost < best_cost:
                best_cost, best = cost, (at, _PAUSES[kind])
        return best

    def _hard_cut(self, start: int, at: int) -> int:
        """`at` or the nearest place before it that is not inside a character as people see it.

        A single such character longer than the limit (piled-up marks) is cut all the same.
        """
        place = at
        while place > start and _joins(self._text, place):
            place -= 1
        return place if place > start else at


def _trimmed_length(text: str, start: int, end: int) -> int:
    """Length of text[start:end] without whitespace at its end."""
    while end > start and text[end - 1].isspace():
        end -= 1
    return end - start


def _clause_breaks(language: str) -> re.Pattern[str]:
    """Where a sentence may be cut; the cut is at the end of the match, the group names its kind."""
    words = _CONJUNCTIONS.get(language.split("-")[0].lower())
    conjunction = rf"(?P<conjunction>\s+(?=(?:{words})\b))|" if words else ""
    return re.compile(
        rf"(?P<strong>[;:…]{_CLOSERS}\s+|[.!?]{_CLOSERS}\s+|\.\.\.\s+|—{_CLOSERS}\s*|[；：。！？]{_CLOSERS}"
        r"|\s+[–-]\s+)"
        rf"|(?P<comma>[,)\]،]{_CLOSERS}\s+|\s+(?=[(\[])|[，、])|{conjunction}(?P<space>\s+)",
        re.IGNORECASE,
    )


def _joins(text: str, at: int) -> bool:
    """Whether the characters on both sides of `at` are seen as one (Unicode UAX 29, the usual cases)."""
    before, after = text[at - 1], text[at]
    return (
        unicodedata.category(after) in ("Mn", "Me", "Mc")
        or after in "\u200d\u200c"
        or before == "\u200d"
        or unicodedata.combining(before) == 9  # a virama ties the next consonant on
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= after <= "\U000e007f"  # the tags of subdivision flags
        or (_is_regional(before) and _is_regional(after) and _regionals_before(text, at) % 2 == 1)
        or ("\u1160" <= after <= "\u11ff" and "\u1100" <= before <= "\u11ff")  # loose Hangul letters
    )


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regionals_before(text: str, at: int) -> int:
    """How many flag letters stand directly before `at`."""
    count = 0
    while at - count > 0 and count < 1000 and _is_regional(text[at - count - 1]):
        count += 1
    return count
