"""The words that are spoken, for comparing a text with a transcript of it.

Knows spelling out and Unicode; nothing of error rates or recognisers. Invariant: both sides of a
comparison go through here, and going through twice changes nothing more.
"""

import re
import unicodedata
from collections.abc import Iterator

from pipeline.text.english import COUNTING, LARGE, SHORT_WORDS
from pipeline.text.spell import spell_out

_APOSTROPHES = str.maketrans("’ʼ＇‘`´", "''''''")
_LETTERS_WITH_STOPS = re.compile(
    r"(?<![^\W_])(?:[^\W\d_]\.){2,}|(?<![^\W_])(?:[^\W\d_]\.)+[^\W\d_](?![^\W_])"
)
_LATIN_MARKS = re.compile("[\u0300-\u036f\u0591-\u05bd\u064b-\u0652\u0670]")
# Scripts written without spaces between words: each character counts as one.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)


def spoken_words(text: str, language: str, *, every_and: bool = False) -> list[str]:
    """The words of `text`, lower case, without punctuation or accents, all spelled out.

    `language` is a BCP 47 tag. “$200 for Dr. Smith’s café” gives two hundred dollars for doctor smith's cafe.
    With `every_and` the “and” of “two hundred and five” stays, for who listens rather than compares.
    """
    english = language.split("-")[0].lower() == "en"
    spelled = spell_out(text.translate(_APOSTROPHES), language)
    apart = _LETTERS_WITH_STOPS.sub(lambda m: f" {' '.join(m[0].replace('.', ''))} ", spelled)
    words = _tokens(_folded(apart))
    return list(_english(words, every_and=every_and)) if english else words


def _folded(text: str) -> str:
    """Lower case, compatibility forms plain, accents of Latin, Greek and Cyrillic gone; others kept."""
    for _ in range(2):  # folding may uncover what folds again
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        text = unicodedata.normalize("NFC", _LATIN_MARKS.sub("", text)).translate(_APOSTROPHES)
    return text


def _tokens(text: str) -> list[str]:
    """Runs of letters, digits and their marks, with apostrophes inside words."""
    kept = "".join(c if c.isalnum() or c == "'" or unicodedata.category(c)[0] == "M" else " " for c in text)
    words = (word.strip("'") for word in _UNSPACED.sub(r" \1 ", kept).split())
    return [word for word in words if any(c.isalnum() for c in word)]


def _english(words: list[str], *, every_and: bool) -> Iterator[str]:
    """Short forms in full; “two hundred and five” as “two hundred five”, since both are said."""
    for index, word in enumerate(words):
        between = not every_and and word == "and" and 0 < index < len(words) - 1
        if between and words[index - 1] in LARGE and words[index + 1] in COUNTING:
            continue
        yield from SHORT_WORDS.get(word, word).split()
