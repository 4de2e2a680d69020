"""Markdown as a person would read it aloud."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import markdown
from pipeline.text.markdown import plain
from tests.fuzz.watched import Memory


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("# Title\nText", "Title\n\nText"),
        ("Title\n=====\nText", "Title\n\nText"),
        ("one\ntwo\n\nthree", "one two\n\nthree"),
        ("one  \ntwo", "one\ntwo"),
        ("**bold** *it* __b__ ~~gone~~ `code`", "bold it b gone code"),
        ("snake_case_name and 2*3*4", "snake_case_name and 234"),
        ("[link](https://example.com 'title') and <https://example.com>", "link and https://example.com"),
        ("[ref][1]\n\n[1]: https://example.com", "ref"),
        ("See ![a red fox](fox.png).", "See a red fox."),
        ("- one\n- two\n  - three", "one\n\ntwo\n\nthree"),
        ("1. one\n2. two", "1. one\n\n2. two"),
        ("> quoted\n> text", "quoted text"),
        ("before\n\n***\n\nafter", "before\n\nafter"),
        ("```python\nprint(1)\n```\nafter", "print(1)\n\nafter"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a, b\n\n1, 2"),
        ("a<!-- hidden\n\nwords -->b", "ab"),
        ("before <!-- never closed\n\nafter", "before -- never closed\n\nafter"),
        ("<div>in <b>a</b> box</div>\n\nafter", "in a box\n\nafter"),
        ("<style>p {color: red}</style>\n\nafter", "after"),
        ("a<br>b <b>c</b>", "ab c"),
        ("AT&amp;T \\*star\\* &copy;", "AT&T *star* ©"),
        ("---\ntitle: X\n---\nText", "Text"),
        ("Text\n\n---\n\nmore", "Text\n\nmore"),
        ("", ""),
    ],
)  # fmt: skip
def test_marks_go_and_words_stay(markdown: str, expected: str) -> None:
    """Each construct gives its words, headings and items as paragraphs."""
    assert plain(markdown) == expected


@given(
    st.lists(st.sampled_from(["word", "zwei", "*", "_", "# ", "\n", "\n\n", "> ", "- ", "(", ")", " ", "**"]))
)
def test_no_word_is_lost(parts: list[str]) -> None:
    """Whatever the marks around them, words come through in order."""
    text = "".join(parts)
    assert plain(text).count("word") == text.count("word")
    assert plain(text).count("zwei") == text.count("zwei")


BOOK = (
    "# Chapter *one*\n\nIt was **dark** and [stormy][1], as in [the other](x.md).\n\n"
    "```\n# no heading\n\nat all\n```\n\n1. first\n\n   still first\n\n2. second\n\n"
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    "> said\n> he\n\n"
)


def test_a_long_book_is_parsed_in_pieces_and_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut where something new begins: not in code, not in a list; links find their targets at the end."""
    book = BOOK * 60 + "[1]: https://example.org\n"
    whole = plain(book)
    assert "[1]" not in whole and whole.count("# no heading\n\nat all") == 60
    for size in (50, 100, 333, 1000, 5000):
        monkeypatch.setattr(markdown, "PIECE_CHARS", size)
        assert len(list(markdown._pieces(book))) > len(book) / size / 4
        assert plain(book) == whole, size


@given(st.text(alphabet="ab \n`~-*", max_size=400), st.integers(1, 50))
def test_pieces_are_the_text(text: str, size: int) -> None:
    """Nothing is lost between them, and none is much longer than it may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markdown, "PIECE_CHARS", size)
        pieces = list(markdown._pieces(text))
    assert "".join(pieces) == text and all(len(piece) <= 3 * size + 1 for piece in pieces)


def test_memory_does_not_grow_with_the_marks() -> None:
    """A fifth of a megabyte of them took 90 MB, eight would take more than the machine has."""
    memory = Memory()
    plain("a\n\n" * 70_000)
    assert memory.taken_mb() < 60


@pytest.mark.parametrize(
    "unit", ["[", "![", "*a ", "`", "<!--", "<?", '<a b="', "> ", "- ", "[a](", "_a_", "&"]
)
def test_hostile_markdown_takes_no_longer(unit: str) -> None:
    """A hundred thousand characters of unclosed marks are parsed in seconds."""
    started = time.perf_counter()
    plain(unit * (100_000 // len(unit)))
    assert time.perf_counter() - started < 10
