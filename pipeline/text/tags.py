"""HTML without its tags: what of a piece of markup a person would see.

Knows no layout and no structure: tags go, text stays. Invariant: the time is linear in the text, also for
tags, quotes and scripts that never close, and no reference to a character is too large to be read. (Python's
html.parser goes over the rest again at each tag that does not close: 64 kB of "<a " took it 26 s.)
"""

import re
from collections.abc import Iterator
from html import unescape

_UNSEEN = frozenset({"script", "style", "template"})
_RAW = frozenset({"script", "style"})
"no tags inside of these"
_START = re.compile(r"<(/?)([A-Za-z][^\s/>]*+)")
# A quote counts only where a value begins; one that never closes is looked for once.
_REST = re.compile(r"""(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+>""")
_REFERENCE = re.compile(r"&(?:#\d{1,7}(?!\d)|#[xX][\da-fA-F]{1,6}(?![\da-fA-F])|[A-Za-z][A-Za-z\d]{1,31});?")


def visible(markup: str) -> str:
    """The text of `markup`, without scripts and styles; a tag that never closes is text."""
    return _REFERENCE.sub(lambda match: unescape(match[0]), "".join(_texts(markup)))


def _texts(markup: str) -> Iterator[str]:
    """What stands between the tags."""
    position = unseen = 0
    while start := _START.search(markup, position):
        if not unseen:
            yield markup[position : start.start()]
        rest = _REST.match(markup, start.end())
        if not rest:
            position = start.start()
            break
        name, is_end = start[2].lower(), bool(start[1])
        position = rest.end() if is_end or name not in _RAW else _raw_end(markup, rest.end(), name)
        if name in _UNSEEN:
            unseen = max(0, unseen - 1) if is_end else unseen + 1
    if not unseen:
        yield markup[position:]


def _raw_end(markup: str, position: int, name: str) -> int:
    """Where the end tag of a script begins, or the end of the text."""
    end = re.compile(f"</{name}", re.IGNORECASE).search(markup, position)
    return end.start() if end else len(markup)
