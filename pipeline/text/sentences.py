"""Where sentences begin: a thin, bounded skin over the sentencex library.

Knows abbreviations and quotes only through the library (docs/adr/0003). Invariant: memory and time
are linear in the text whatever it holds, since no more than a block of it is looked at at once.
"""

from collections.abc import Iterator

import sentencex

from pipeline.errors import InputError

# Small, because the library is quadratic in quotes that open and never close.
BLOCK_CHARS = 10_000
_WIDE_SPACES = "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
# The library panics on an initial before a space of several bytes; each is one character, as " " is.
_PLAIN_SPACES = str.maketrans(dict.fromkeys(_WIDE_SPACES, " "))
_QUOTES = "\"'“”‘’„‚«»‹›「」『』()[]{}"
_WITHOUT_QUOTES = str.maketrans(dict.fromkeys(_QUOTES, " "))


def sentence_starts(text: str, start: int, end: int, language: str) -> Iterator[int]:
    """Where sentences begin within text[start:end], ascending; `start` itself is the first.

    `language` is a BCP 47 tag. InputError if the library breaks on the text.
    """
    position = start
    yield position
    while position < end:
        stop = min(position + BLOCK_CHARS, end)
        inner = [position + offset for offset in _offsets(text[position:stop], language)]
        if stop == end:
            yield from inner
            return
        # The last sentence of a block is unfinished: the next block begins with it, unless that is too slow.
        settled = inner if inner and inner[-1] - position >= BLOCK_CHARS // 2 else [*inner, stop]
        yield from settled
        position = settled[-1]


def inner_starts(text: str, start: int, end: int, language: str) -> Iterator[int]:
    """Like `sentence_starts`, but sentences inside quotes and brackets count too.

    For sentences that are too long: a speech is then better cut between its sentences than in one.
    """
    bare = text[start:end].translate(_WITHOUT_QUOTES)
    yield start
    for offset in sentence_starts(bare, 0, len(bare), language):
        position = _before_opening_quotes(text, start, start + offset)
        if position > start:
            yield position


def _before_opening_quotes(text: str, floor: int, position: int) -> int:
    """The place before the quotes that open at `position`, if there are any."""
    before = position
    while before > floor and text[before - 1] in _QUOTES:
        before -= 1
    return before if before > floor and text[before - 1].isspace() else position


def _offsets(block: str, language: str) -> list[int]:
    """Where the second and later sentences of `block` begin."""
    try:
        found = sentencex.get_sentence_boundaries(language, block.translate(_PLAIN_SPACES))
    except BaseException as error:
        # A panic in the library is no Exception and would take the worker with it.
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(
            f"The text near “{block.strip()[:60]}” cannot be divided into sentences.",
            hint="Look for unusual characters there, remove them and drop the text again.",
            code="text_sentences",
        ) from error
    return [int(sentence["start_index"]) for sentence in found[1:]]
