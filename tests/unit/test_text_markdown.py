"""Markdown as a person would read it aloud."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.markdown import plain


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


@pytest.mark.parametrize(
    "unit", ["[", "![", "*a ", "`", "<!--", "<?", '<a b="', "> ", "- ", "[a](", "_a_", "&"]
)
def test_hostile_markdown_takes_no_longer(unit: str) -> None:
    """A hundred thousand characters of unclosed marks are parsed in seconds."""
    started = time.perf_counter()
    plain(unit * (100_000 // len(unit)))
    assert time.perf_counter() - started < 10
