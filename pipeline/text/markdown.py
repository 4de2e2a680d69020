"""Markdown as plain paragraphs: what a person would read aloud.

Knows CommonMark through markdown-it-py, with tables and strike-through. Invariants: every word a reader
sees comes through, in order; only marks, link targets, comments and front matter go. Memory does not grow
with the text: a long one is parsed piece by piece, since each mark of it may cost a kilobyte.
"""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from itertools import chain
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:[^\n]*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_BLOCK_ENDS = frozenset(
    {"paragraph_close", "heading_close", "tr_close", "fence", "code_block", "html_block", "hr"}
)
PIECE_CHARS = 1 << 16
_FENCE = re.compile(r" {0,3}(`{3,}(?![^\n]*`)|~{3,})(.*)")
_CELL_ENDS = frozenset({"th_close", "td_close"})
_UNSEEN_TAGS = frozenset({"script", "style", "template"})


def plain(text: str) -> str:
    """`text` without Markdown: paragraphs, headings, list items and table rows divided by blank lines."""
    pieces = list(_pieces(_without_comments(_FRONT_MATTER.sub("", text, count=1))))
    targets: dict[str, Any] = {}
    if len(pieces) > 1:  # what [a link][1] means may stand at the end
        collector = _parser().disable("inline")
        for piece in pieces:
            collector.parse(piece, targets)
    paragraphs = chain.from_iterable(_paragraphs(piece, targets) for piece in pieces)
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _paragraphs(piece: str, targets: dict[str, Any]) -> Iterator[str]:
    parts: list[str] = []
    for token in _parser().parse(piece, targets):
        parts.append(_shown(token))
        if token.type in _BLOCK_ENDS:
            yield "".join(parts).strip().removesuffix(",")
            parts = []
    yield "".join(parts).strip()


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of some PIECE_CHARS, cut where a new block begins anyway, if possible."""
    piece: list[str] = []
    size, fence, blank = 0, "", False
    for line in _lines(text):
        is_border = blank and not fence and not line[0].isspace()
        if size > 2 * PIECE_CHARS or (size > PIECE_CHARS and is_border):
            yield "".join(piece)
            piece, size = [], 0
        fence, blank = _fence_after(fence, line), not line.strip()
        piece.append(line)
        size += len(line)
    yield "".join(piece)


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, endless ones cut at a space."""
    for line in text.splitlines(keepends=True):
        while len(line) > PIECE_CHARS:
            cut = line.rfind(" ", 0, PIECE_CHARS) + 1 or PIECE_CHARS
            yield line[:cut]
            line = line[cut:]
        yield line


def _fence_after(fence: str, line: str) -> str:
    """The marks of the fenced code that is open after `line`, or nothing."""
    match = _FENCE.match(line)
    if not match:
        return fence
    if not fence:
        return match[1]
    return "" if match[1].startswith(fence) and not match[2].strip() else fence


def _without_comments(text: str) -> str:
    """Without <!-- comments -->; marks of unclosed ones go too, since the parser is quadratic in them."""
    parts: list[str] = []
    position = 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        parts.append(text[position:start])
        position = end + 3
    return "".join([*parts, text[position:]]).replace("<!", "").replace("<?", "")


def _shown(token: Token) -> str:
    """What a block token puts on the page."""
    if token.type == "inline":
        return _line(token.children or ())
    if token.type in ("fence", "code_block"):
        return token.content
    if token.type == "html_block":
        return _visible(token.content)
    if token.type == "list_item_open" and token.info:
        return f"{token.info}{token.markup} "
    return ", " if token.type in _CELL_ENDS else ""


def _line(tokens: Iterable[Token]) -> str:
    """The text of a paragraph: emphasis and links as their words, pictures as their description."""
    return "".join(_inline(token) for token in tokens)


def _inline(token: Token) -> str:
    if token.type in ("text", "code_inline"):
        return token.content
    if token.type == "image":
        return _line(token.children or ())
    return {"softbreak": " ", "hardbreak": "\n"}.get(token.type, "")


class _Visible(HTMLParser):
    """Collects the text between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        """Scripts and styles begin to be skipped."""
        self._unseen += tag in _UNSEEN_TAGS

    def handle_endtag(self, tag: str) -> None:
        """... and end."""
        self._unseen -= tag in _UNSEEN_TAGS and self._unseen > 0

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        if not self._unseen:
            self.parts.append(data)


def _visible(html: str) -> str:
    """The text of an HTML block, without comments, scripts and styles."""
    parser = _Visible()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts)
