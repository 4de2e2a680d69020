"""What is done to the text before it is cut into chunks: one clean form for all engines.

Knows the user's text rules; nothing of files, chunks or engines. Invariant: preparing twice gives
what preparing once gave (but for the user's own replacements), paragraphs are divided by exactly
one blank line and hold no line break, and digits never go lost but in a bracketed citation.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from pipeline.errors import InputError
from pipeline.text.english import ACRONYMS, STARTERS
from pipeline.text.speakable import is_speakable


class Replace(Protocol):
    """One literal replacement."""

    @property
    def from_(self) -> str:
        """What is looked for, as written."""

    @property
    def to(self) -> str:
        """What stands there instead."""


class Rules(Protocol):
    """What the user wants done (`text_rules` of a job)."""

    @property
    def lowercase(self) -> bool:
        """Everything in lower case."""

    @property
    def initials(self) -> bool:
        """J.R.R. becomes J R R."""

    @property
    def citations(self) -> bool:
        """[1] and [2, 3] are left out."""

    @property
    def replace(self) -> Sequence[Replace]:
        """In this order, before all else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Text ready for `chunk`."""

    text: str
    warnings: tuple[str, ...] = ()
    "what was left out and could be missed, one sentence each"


_WIDTH_MAX = 120
"a longer line was not wrapped by hand: each line is a paragraph"
_WIDTH_MIN = 40
"nobody wraps prose narrower: verse, addresses, headings"
_FULL = 0.6
"a line shorter than this part of the longest ends on purpose"
_MARKS_MAX = 30
"as in the Stream-Safe Text Format of Unicode UAX 15"
_CITATION_NESTING_MAX = 10
_INITIALS_PASSES_MAX = 10

_SOFT_BREAK = re.compile("\u00ad[ \t]*\r?\n[ \t]*")
_LINE_BREAKS = re.compile("\r\n|[\r\x85\u2028]")
_PARAGRAPH_BREAKS = re.compile("[\u2029\x0b\x0c\x1c-\x1e]+")
_SPACES = re.compile("[\t\x1f\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffc\U000e0000-\U000e007f]"
)
# Joiners shape Persian, Indic scripts and emoji; beside Latin letters, accents or not, and at edges they
# are debris.
_STRAY_JOINER = re.compile("(?<![\u0370-\U0010ffff])[\u200c\u200d]+|[\u200c\u200d]+(?![\u0370-\U0010ffff])")
_UNREADABLE = re.compile("[\ufffd-\uffff\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\U000f0000-\U0010ffff]")
_CITATIONS = re.compile(
    r"( ?)(?:\[\d{1,3}(?: ?[,;–-] ?\d{1,3})*\] ?)*\[\d{1,3}(?: ?[,;–-] ?\d{1,3})*\](?=(\w)?)", re.ASCII
)
_TIGHT_INITIALS = re.compile(r"(?<![\w.])(?:[^\W\d_]\.){2,}+(?![a-z0-9])")
_SPACED_INITIALS = re.compile(r"(?<![\w.])((?:[^\W\d_]\. ){2,8}+)(?=([^\W\d_]{2,}))")
_NEXT_WORD = re.compile(r" ([^\W\d_]+)|[,;:]|([^\W\d_]{2,})")
_SCENE_BREAK = re.compile(r"[ *#~=_•·—–.+-]+")
_BULLETS = re.compile(r"(?:[*•‣◦▪●○■□] +)+")
_LIST_ITEM = re.compile(r"(?:[*•‣◦▪●○■□–—+-]|\(?\d{1,3}[.)]|\(?[a-zA-Z]\)) ")
_BROKEN_WORD = re.compile(r"([^\W\d_]+)-$")
_WORDS = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def prepare(text: str, rules: Rules, language: str) -> Prepared:
    """Apply `rules` and clean up; InputError (`text_empty`) if nothing is left that can be spoken.

    `language` is a BCP 47 tag: initials and citations are understood in every language alike, but
    initials before a sentence beginning only in English.
    """
    for rule in rules.replace:
        text = text.replace(rule.from_, rule.to)
    text, unreadable = _UNREADABLE.subn("", text)
    text = _lowered(_normal(_without_invisible(text)), rules.lowercase)
    text = _without_stray_joiners(text)
    paragraphs = [done for raw in _paragraphs(text) if (done := _polished(raw, rules, language))]
    prepared = _normal("\n\n".join(paragraphs))
    if not is_speakable(prepared):
        raise InputError(
            "There is nothing in this text that can be spoken.",
            hint="It needs at least one letter or digit that the text rules do not remove.",
            code="text_empty",
        )
    return Prepared(text=prepared, warnings=_warnings(unreadable))


def _warnings(unreadable: int) -> tuple[str, ...]:
    if not unreadable:
        return ()
    noun = "character that no font or reader knows was" if unreadable == 1 else "unreadable characters were"
    return (f"{unreadable} {noun} left out; the file may have been saved in the wrong encoding.",)


def _without_invisible(text: str) -> str:
    """Line ends as \\n, every space as a space, nothing that cannot be seen or heard."""
    text = _SOFT_BREAK.sub("", text)
    text = _LINE_BREAKS.sub("\n", text)
    text = _PARAGRAPH_BREAKS.sub("\n\n", text)
    text = _SPACES.sub(" ", text)
    return _INVISIBLE.sub("", text)


def _without_stray_joiners(text: str) -> str:
    """Once the letters beside them are the final ones: an accent may be a letter's own only in NFC."""
    return _normal(_STRAY_JOINER.sub("", text)) if "\u200c" in text or "\u200d" in text else text


def _normal(text: str) -> str:
    """Unicode NFC. Mountains of marks are cut first: normalising them takes quadratic time."""
    if text.isascii():
        return text
    marks = re.escape("".join(sorted(c for c in set(text) if unicodedata.combining(c))))
    if marks:
        text = re.sub(f"([{marks}]{{{_MARKS_MAX}}})[{marks}]+", r"\1", text)
    return unicodedata.normalize("NFC", text)


def _lowered(text: str, wanted: bool) -> str:
    return unicodedata.normalize("NFC", text.lower()) if wanted else text


def _paragraphs(text: str) -> list[str]:
    """Paragraphs without line breaks, from lines that were wrapped or were not."""
    lines = [line.rstrip() for line in text.split("\n")]
    known = _known_words(text, lines)
    found: list[str] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line:
            block.append(line)
        elif block:
            found += _unwrapped(block, known)
            block = []
    return found


def _unwrapped(block: list[str], known: Callable[[str], bool]) -> list[str]:
    """The paragraphs of lines without a blank one between them."""
    width = max(map(len, block))
    found: list[str] = []
    parts = [block[0].strip()]
    for line, following in pairwise(block):
        if _ends_on_purpose(line, following, width):
            found.append("".join(parts))
            parts = [following.strip()]
        else:
            parts[-1:] = [*_joint(parts[-1], following.strip(), known), following.strip()]
    return [*found, "".join(parts)]


def _ends_on_purpose(line: str, following: str, width: int) -> bool:
    """Whether the break between two lines was meant, and not only the edge of the page."""
    bare = following.lstrip()
    if _SCENE_BREAK.fullmatch(line) or _SCENE_BREAK.fullmatch(following):
        return True
    if width > _WIDTH_MAX or _LIST_ITEM.match(bare):
        return True
    if bare[0].islower():
        return False
    indented = len(following) - len(bare) > len(line) - len(line.lstrip())
    return (
        width < _WIDTH_MIN or len(line) < _FULL * width or (indented and not _LIST_ITEM.match(line.lstrip()))
    )


def _joint(line: str, following: str, known: Callable[[str], bool]) -> tuple[str, ...]:
    """`line` and what joins it to the next; a divided word loses its hyphen only if seen whole elsewhere."""
    broken = _BROKEN_WORD.search(line[-60:])
    if not broken or not following[0].islower():
        return line, " "
    rest = _WORDS.match(following)
    whole = broken[1] + (rest[0] if rest else "")
    return (line[:-1] if known(whole) else line,)


def _known_words(text: str, lines: Sequence[str]) -> Callable[[str], bool]:
    """Tells whether a word stands undivided in the text; the text is searched only if a line was divided."""
    divided = any(line.endswith("-") for line in lines)
    words = {match[0].lower() for match in _WORDS.finditer(text)} if divided else set()
    return lambda word: word.lower() in words


def _polished(paragraph: str, rules: Rules, language: str) -> str:
    """One paragraph with the rules applied and its spaces evened."""
    text = re.sub(" {2,}", " ", paragraph).strip()
    if not _SCENE_BREAK.fullmatch(text):
        text = _BULLETS.sub("", text, count=1) if _BULLETS.match(text) else text
    if rules.citations and "[" in text:
        text = _without_citations(text)
    if rules.initials and "." in text:
        text = _spelled_initials(text, english=language.split("-")[0].lower() == "en")
    return text


def _without_citations(text: str) -> str:
    """Without [1] and [2, 3]; digits anywhere else stay."""
    for _ in range(_CITATION_NESTING_MAX):
        shorter = _CITATIONS.sub(lambda m: m[1] if m[2] else "", text)
        if shorter == text:
            break
        text = shorter
    return re.sub(" {2,}", " ", text).strip()


def _spelled_initials(text: str, *, english: bool) -> str:
    """J.R.R. Tolkien as J R R Tolkien; a stop that may end a sentence stays, so do U.S. and the like."""

    def tight(match: re.Match[str]) -> str:
        initials = match[0]
        if not initials.replace(".", "").isupper() or initials in ACRONYMS:
            return initials
        spaced = " ".join(initials.replace(".", ""))
        return spaced + _after(match.string, match.end(), english=english)

    def loose(match: re.Match[str]) -> str:
        letters = match[1].replace(".", "")
        name = match[2]
        if not letters.replace(" ", "").isupper() or not name[0].isupper() or (english and name in STARTERS):
            return match[0]
        return letters

    for _ in range(_INITIALS_PASSES_MAX):  # spelling some out may uncover others: J.R.U.S. R. Smith
        shorter = _TIGHT_INITIALS.sub(tight, _SPACED_INITIALS.sub(loose, text))
        if shorter == text:
            break
        text = shorter
    return text


def _after(text: str, end: int, *, english: bool) -> str:
    """What the last stop of initials becomes: nothing before a name or inside a sentence, else itself."""
    following = _NEXT_WORD.match(text, end)
    if not following:
        return "."
    if following[2]:
        return " "
    word = following[1]
    if word is None or word[0].islower():
        return ""
    is_name = len(word) > 1 and word[0].isupper() and not (english and word in STARTERS)
    return "" if is_name else "."
