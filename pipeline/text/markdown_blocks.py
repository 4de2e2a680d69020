"""The blocks of a Markdown text, in order, as tokens of markdown-it.

Knows where a long text may be cut, and how the library is made safe for strangers' texts. Two of its rules
are replaced: a table gives one token for each row, without the cells that nobody wrote (1.4 kB gave 65,000),
and what is nested too deeply is read line by line, where the library leaves it out. Invariant: tokens are
held for one piece of the text at a time, and tables and fenced code go on over a cut.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import escapedSplit, getLine, table
from markdown_it.token import Token

PIECE_CHARS = 1 << 14
"a new piece begins where a block does, once there are so many; the more tokens live, the slower are all"
_LONGEST_PIECES = 8
"a block longer than so many pieces is cut anywhere"
ROW = "table_row"
_DEEPEST = 18
"the library ends at 20, and a list takes two"
_DEEPEST_BRACKETS = 8
"links and pictures in each other; each further level takes as long again where brackets never close"
_FENCE = re.compile(r" {0,3}(`{3,}(?![^\n]*`)|~{3,})(.*)")
_RAW_START = re.compile(r" {0,3}<(script|style|pre|textarea)\b", re.IGNORECASE)
_BLOCK_START = re.compile(r"(?:#{1,6}|[-+*]|\d{1,9}[.)])[ \t]|\|(?![-:| \t]*$)")
_DEEP_MARKS = re.compile(r"\A(?:[ \t>]|(?:[-+*]|\d{1,9}[.)])(?=[ \t]|$))+")
_SOMEWHERE = {"href": "", "title": ""}
"where a link leads is not spoken"


def blocks(text: str) -> Iterator[Token]:
    """The tokens of `text`; those of type `inline` and ROW have their words as children."""
    pieces = list(_pieces(text))
    targets: dict[str, Any] = {}
    parser, inline = _block_parser(), _inline_parser()
    if len(pieces) > 1 and "]:" in text:  # what [a link][1] means may stand at the end
        for _, env in _parsed(pieces, parser, {}):
            targets.update(dict.fromkeys(env["references"], _SOMEWHERE))
    for tokens, env in _parsed(pieces, parser, targets):
        for token in tokens:
            if token.type in ("inline", ROW):
                _fill(token, inline, env)
            yield token
            token.children = None


def _inline_parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"maxNesting": _DEEPEST_BRACKETS}).enable("strikethrough")


def _block_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table").disable(["inline", "text_join"])
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.block.ruler.before("table", "too_deep", _too_deep)
    return parser


def _parsed(
    pieces: Iterable[str], parser: MarkdownIt, targets: dict[str, Any]
) -> Iterator[tuple[list[Token], dict[str, Any]]]:
    """The tokens of each piece, and what its links mean: `targets` and its own."""
    opening, is_row = "", False
    for piece in pieces:
        env: dict[str, Any] = {"references": targets or {}}  # while none are known, each piece has its own
        tokens = parser.parse(opening + piece, env)
        yield tokens[is_row:], env
        opening, is_row = _left_open(tokens, opening + piece, env)


def _left_open(tokens: list[Token], piece: str, env: dict[str, Any]) -> tuple[str, bool]:
    """What has to stand before the next piece, and whether that is the head of a table."""
    if "table_head" in env:
        return env["table_head"], True
    last = tokens[-1] if tokens else None
    if not last or last.type != "fence" or last.level or not last.map or not piece.endswith("\n"):
        return "", False
    start, end = last.map
    line = piece[piece.rfind("\n", 0, -1) + 1 :]
    is_open = end == piece.count("\n") and (end - start == 1 or _held_after(last.markup, line) != "")
    return (f"{last.markup}\n" if is_open else ""), False


def _fill(token: Token, parser: MarkdownIt, env: dict[str, Any]) -> None:
    """Parse the words of a paragraph or a row, a comma between its cells."""
    token.children = []
    for number, content in enumerate(token.meta["cells"] if token.type == ROW else [token.content]):
        if number:
            token.children.append(Token("text", "", 0, content=", "))
        token.children += parser.inline.parse(content, parser, env, [])


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of some PIECE_CHARS, cut where a new block begins anyway, if possible."""
    piece: list[str] = []
    size, held, blank = 0, "", False
    for line in _lines(text):
        if size > PIECE_CHARS:
            is_border = not held and (_BLOCK_START.match(line) or (blank and not line[0].isspace()))
            if is_border or size > _LONGEST_PIECES * PIECE_CHARS:
                yield "".join(piece)
                piece, size = [], 0
        held, blank = _held_after(held, line), not line.strip()
        piece.append(line)
        size += len(line)
    yield "".join(piece)


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, endless ones cut at a space."""
    longest = PIECE_CHARS * _LONGEST_PIECES // 2
    for line in text.splitlines(keepends=True):
        while len(line) > longest:
            cut = line.rfind(" ", 0, longest) + 1 or longest
            yield line[:cut]
            line = line[cut:]
        yield line


def _held_after(held: str, line: str) -> str:
    """What ends the fenced code or the script that is open after `line`, or nothing."""
    if held.startswith("</"):
        return "" if held in line.lower() else held
    if not held and (raw := _RAW_START.match(line)):
        return _held_after(f"</{raw[1].lower()}", line)
    match = _FENCE.match(line)
    if not match:
        return held
    if not held:
        return match[1]
    return "" if match[1].startswith(held) and not match[2].strip() else held


def _table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A table of GitHub's kind: the library says whether one begins, the rows are read here."""
    if not table(state, start, end, True):
        return False
    if silent:
        return True
    terminators = state.md.block.ruler.getRules("blockquote")
    around, state.parentType = state.parentType, "table"
    columns = len(_cells(state, start))
    _push_row(state, start, columns)
    line = start + 2
    while (
        line < end and _is_row(state, line) and not any(ends(state, line, end, True) for ends in terminators)
    ):
        _push_row(state, line, columns)
        line += 1
    state.parentType, state.line = around, line
    if state.level == 0 and line == state.lineMax:
        state.env["table_head"] = f"{getLine(state, start)}\n{getLine(state, start + 1)}\n"
    return True


def _is_row(state: StateBlock, line: int) -> bool:
    return not (state.isEmpty(line) or state.sCount[line] < state.blkIndent or state.is_code_block(line))


def _push_row(state: StateBlock, line: int, columns: int) -> None:
    """One row, without what is more than its table has columns, and without empty cells."""
    token = state.push(ROW, "", 0)
    token.meta = {"cells": [cell for cell in _cells(state, line)[:columns] if cell]}


def _cells(state: StateBlock, line: int) -> list[str]:
    cells = [cell.strip(" \t") for cell in escapedSplit(getLine(state, line).strip())]
    first, last = int(cells[0] == ""), len(cells) - (len(cells) > 1 and cells[-1] == "")
    return cells[first:last]


def _too_deep(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Below so many quotes and lists, each line is a paragraph: the library would drop it."""
    if silent or state.level < _DEEPEST:
        return False
    line = start
    while line < end and (state.isEmpty(line) or not 0 <= state.sCount[line] < state.blkIndent):
        content = _DEEP_MARKS.sub("", getLine(state, line), count=1)
        if content:
            state.push("paragraph_open", "p", 1)
            state.push("inline", "", 0).content = content
            state.push("paragraph_close", "p", -1)
        line += 1
    state.line = line
    return True
