"""Markdown as a person would read it aloud."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import markdown_blocks
from pipeline.text.markdown import plain
from pipeline.text.markdown_blocks import ROW, blocks
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
        ("|a|b|\n|-|-|\n|*1*||\n|2|3|4|\n||5|\n6\n> 7", "a, b\n\n1\n\n2, 3\n\n5\n\n6\n\n7"),
        ("a \\| b | c\n-|-\n1", "a | b, c\n\n1"),
        ("Dear John,\n\nwords", "Dear John,\n\nwords"),
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
        monkeypatch.setattr(markdown_blocks, "PIECE_CHARS", size)
        assert len(list(markdown_blocks._pieces(book))) > len(book) / size / 4
        assert plain(book) == whole, size


@given(st.text(alphabet="ab \n`~-*", max_size=400), st.integers(1, 50))
def test_pieces_are_the_text(text: str, size: int) -> None:
    """Nothing is lost between them, and none is much longer than it may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markdown_blocks, "PIECE_CHARS", size)
        pieces = list(markdown_blocks._pieces(text))
    assert "".join(pieces) == text and all(len(piece) <= 12 * size + 1 for piece in pieces)


def test_memory_does_not_grow_with_the_marks() -> None:
    """A fifth of a megabyte of them took 90 MB, eight would take more than the machine has."""
    memory = Memory()
    plain("a\n\n" * 70_000)
    assert memory.taken_mb() < 60


def test_tables_and_code_go_on_over_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they are: rows stay rows, and no heading is spoken twice."""
    table = "| a | b |\n|---|---|\n" + "".join(f"[r{i}]: b | *c*\n" for i in range(300))
    code = "```\n" + "# no *heading*\n" * 300
    for text in (
        table,
        table + "\nafter",
        table + "# after\n\nmore",
        code,
        code + "```\nafter",
        f"{code}~~~\n",
    ):
        monkeypatch.setattr(markdown_blocks, "PIECE_CHARS", 1 << 20)
        whole = plain(text)
        for size in (30, 61, 100, 300):
            monkeypatch.setattr(markdown_blocks, "PIECE_CHARS", size)
            assert len(list(markdown_blocks._pieces(text))) > 1
            assert plain(text).split() == whole.split(), (text[:20], size)
    assert whole.count("# no *heading*") == 300 and plain(table).count("]: b, c\n\n[r") == 299


def test_scripts_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank lines and what looks like a list inside of them are nobody's words."""
    monkeypatch.setattr(markdown_blocks, "PIECE_CHARS", 20)
    assert plain("before\n\n<script>\nlet a = 1\n\n- b\n\nc\n\nd\n</script>\n\nafter") == "before\n\nafter"


@pytest.mark.parametrize("mark", [">", "> ", "- ", "1. ", "> - "])
@pytest.mark.parametrize("depth", [5, 17, 18, 19, 20, 40, 900])
def test_what_is_nested_deeply_is_read(mark: str, depth: int) -> None:
    """The library leaves out what stands deeper than twenty quotes, or ten lists."""
    words = plain(f"{mark * depth} word\n\nafter").split()
    assert [word for word in words if word != "1."] == ["word", "after"]


def test_each_item_of_a_deep_list_is_a_paragraph() -> None:
    """As outlines have it; and what follows it is not drawn in."""
    outline = "".join(f"{'  ' * depth}- item {depth}\n" for depth in range(30)) + "- last\n\n# after"
    assert plain(outline) == "\n\n".join([*(f"item {depth}" for depth in range(30)), "last", "after"])


def test_a_row_costs_one_token_whatever_the_table() -> None:
    """131 kB gave 144,000 tokens, which took 1.9 s; 32 kB in wide tables gave 1.4 million cells in 22 s."""
    long = "| a | b |\n|---|---|\n" + "[a]: b\n" * 2000
    assert [token.type for token in blocks(long)] == [ROW] * 2001
    wide = "|a" * 180 + "\n" + "|-" * 180 + "\n" + "x\n" * 360
    assert [len(token.children or ()) for token in blocks(wide)] == [359, *[1] * 360]
    assert len(plain(wide)) < 2 * len(wide)


def _calls(work: Callable[[], object]) -> int:
    """How many functions it calls: no clock, so a busy machine changes nothing."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


# fmt: off
UNITS = [
    "[", "![", "*a ", "`", "<!--", "<?", '<a b="', "> ", "- ", "[a](", "_a_", "&", "[a]: b\n", "> a\n",
    "- a\n", "- a\n\n", "- a\n* b\n", "1. a\n", "[a](b) ", "![a](b)\n", "[a\n", "[a](b 'c\n",
    "**a *b ~~c __d ", "a**b", "~~a ", "# a\n", "a\n=\n", "<div>a</div>\n\n", "<div>\n", "<div ",
    "<a@b.", "&amp;", "&#", "\\*", "a  \n", "a\n", "a\n\n", "```\na\n```\n", "~~~\n", "    a\n", "***\n",
    "- |a|b|\n  |-|-|\n", "|a|b|\n|-|-|\n|1|2|\n\n", "|-|\n", "> - a\n", "- > a\n", "a <b ",
    ">" * 17 + "a\n", "- " * 9 + "a\n",
]
# fmt: on


@pytest.mark.parametrize(
    ("start", "unit"),
    [
        *(("", unit) for unit in UNITS),
        *(("| a | b |\n|---|---|\n", unit) for unit in ("[a]: b\n", "a|b\n", "|", "\\|", "[a](b) ")),
        *((">" * 17 + "a\n", unit) for unit in ("a\n", "> a\n", "- a\n", "|-|\n")),
        *(("- " * 9 + "a\n", unit) for unit in ("a\n", "\n", " " * 18 + "- a\n")),
    ],
)
def test_hostile_markdown_costs_no_more_than_its_length(start: str, unit: str) -> None:
    """Eight times the marks, eight times the work."""
    few, many = (
        _calls(lambda size=size: plain(start + unit * (size // len(unit)))) for size in (3_000, 24_000)
    )
    assert many < 8 * 1.3 * few + 2000
