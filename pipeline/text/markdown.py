"""Markdown as plain paragraphs: what a person would read aloud.

Knows CommonMark through markdown-it-py, with tables and strike-through. Invariants: every word a reader
sees comes through, in order; only marks, link targets, comments and front matter go. Time and memory are
linear in the text, whatever it holds.
"""

import re
from collections.abc import Iterable, Iterator

from markdown_it.token import Token

from pipeline.text.markdown_blocks import ROW, blocks
from pipeline.text.tags import visible

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:[^\n]*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_BLOCK_ENDS = frozenset({"paragraph_close", "heading_close", ROW, "fence", "code_block", "html_block", "hr"})


def plain(text: str) -> str:
    """`text` without Markdown: paragraphs, headings, list items and table rows divided by blank lines."""
    bare = _without_comments(_FRONT_MATTER.sub("", text, count=1))
    return "\n\n".join(paragraph for paragraph in _paragraphs(bare) if paragraph)


def _paragraphs(text: str) -> Iterator[str]:
    parts: list[str] = []
    for token in blocks(text):
        parts.append(_shown(token))
        if token.type in _BLOCK_ENDS:
            yield "".join(parts).strip()
            parts = []
    yield "".join(parts).strip()


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
    if token.type in ("inline", ROW):
        return _line(token.children or ())
    if token.type in ("fence", "code_block"):
        return token.content
    if token.type == "html_block":
        return visible(token.content)
    if token.type == "list_item_open" and token.info:
        return f"{token.info}{token.markup} "
    return ""


def _line(tokens: Iterable[Token]) -> str:
    """The text of a paragraph: emphasis and links as their words, pictures as their description."""
    return "".join(_inline(token) for token in tokens)


def _inline(token: Token) -> str:
    if token.type in ("text", "text_special", "code_inline"):
        return token.content
    if token.type == "image":
        return _line(token.children or ())
    return {"softbreak": " ", "hardbreak": "\n"}.get(token.type, "")
