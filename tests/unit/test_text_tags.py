"""HTML without its tags."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.tags import visible


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<div>in <b>a</b> box</div>", "in a box"),
        ("<p class=big title='a > b' lang=\"<en>\">word</p >", "word"),
        ("<br/>a<hr />b", "ab"),
        ("<a href='x>y'>it's</a>", "it's"),
        ("1 < 2, 3 > 2 and <3", "1 < 2, 3 > 2 and <3"),
        ("<style>p > a {}</style>x<SCRIPT>if (a<b) '</p>'</script>y", "xy"),
        ("<script>if (a", ""),
        ("a<template><b>c</b><template>d</template>e</template>f</template>g", "afg"),
        ("word <a href='x", "word <a href='x"),
        ("<p>word</p><a", "word<a"),
        ("AT&amp;T &copy &#65;&#x42; &nobody; a&b", "AT&T © AB &nobody; a&b"),
        ("&lt;b&gt;", "<b>"),
        ("", ""),
    ],
)
def test_tags_go_and_text_stays(markup: str, expected: str) -> None:
    """What a browser would show."""
    assert visible(markup) == expected


def test_a_reference_to_no_character_is_text() -> None:
    """Python's own would read five thousand digits as a number, and refuses to with an error."""
    for reference in ("&#" + "9" * 5000 + ";", "&#x" + "f" * 5000 + ";", "&" + "a" * 5000 + ";"):
        assert visible(reference) == reference


@given(
    st.lists(
        st.sampled_from(["word ", "<b>", "</b>", "<p a='b>c'>", "<br/>", "&amp;", "'", '"', "=", ">", "\n"])
    )
)
def test_no_word_outside_of_a_tag_is_lost(parts: list[str]) -> None:
    """Complete tags take nothing with them."""
    assert visible("".join(parts)).count("word ") == parts.count("word ")


# fmt: off
UNITS = [
    "<", "</", "<a", "<a ", '<a b="', "<a b='\"", "<a b='\" c=\"'", "<a b=\"'\" ", "<a\n", "<a b=",
    "<script>", "<style></style>", "<template>", "</script", "&", "&#", "&a", "&#1", "=", "<a =", "<b>",
]
# fmt: on


@pytest.mark.parametrize("start", ["", "<script>", "<a b='"])
@pytest.mark.parametrize("unit", UNITS)
def test_unclosed_tags_cost_no_more_than_their_length(unit: str, start: str) -> None:
    """Sixteen times as many take sixteen times as long, not 256 times."""

    def seconds(size: int) -> float:
        markup = start + unit * (size // len(unit))
        return min(_processor_seconds(markup) for _ in range(3))

    assert seconds(320_000) < 64 * seconds(20_000) + 0.05


def _processor_seconds(markup: str) -> float:
    started = time.process_time()
    visible(markup)
    return time.process_time() - started
