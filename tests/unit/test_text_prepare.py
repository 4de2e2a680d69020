"""Preparing text: one clean form, no damage to numbers, the same when done twice."""

import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.jobs.settings import TextRules
from pipeline.text.prepare import Prepared, prepare
from pipeline.text.speakable import is_speakable

PROSE = Path("/work/shared/data/the-time-machine.txt")
PARTS = [
    "A.B.",
    "J. R. ",
    "U.S.",
    "[1]",
    " [2, 3]",
    "3.5",
    "v1.2",
    "2,000",
    "e.g. ",
    "\n",
    "\n\n",
    "\r\n",
    "\u00ad\n",
    "-\n",
]
CHARACTERS = st.sampled_from(
    [*"aBIé.,:!?[]()1 *-—\t\x00\u200b\u200d\u202e\ufeff\ufffd\u0301\xa0\u2028İßǅ中", *PARTS]
)
TEXTS = st.lists(CHARACTERS, max_size=120).map("".join).filter(lambda text: any(c in "aBI中" for c in text))
RULES = st.builds(TextRules, lowercase=st.booleans(), initials=st.booleans(), citations=st.booleans())


def prepared(text: str, language: str = "en", **rules: object) -> str:
    """What text becomes under the default rules but for those given."""
    return prepare(text, TextRules.model_validate(rules), language).text


def paragraphs(*lines: str) -> list[str]:
    """The paragraphs that lines become."""
    return prepared("\n".join(lines)).split("\n\n")


@given(TEXTS, RULES, st.sampled_from(["en", "de", "zh"]))
def test_preparing_twice_changes_nothing_more(text: str, rules: TextRules, language: str) -> None:
    """Prepared text is its own prepared form."""
    once = prepare(text, rules, language).text
    assert prepare(once, rules, language) == Prepared(text=once)


@given(TEXTS, RULES)
def test_prepared_text_is_clean(text: str, rules: TextRules) -> None:
    """NFC, no controls but the blank lines, single spaces, no empty paragraph."""
    done = prepare(text, rules, "en").text
    assert unicodedata.is_normalized("NFC", done)
    assert not [c for c in done if unicodedata.category(c) in ("Cc", "Cs", "Co") and c != "\n"]
    assert "  " not in done
    assert "\n\n\n" not in done
    assert all(p and p == p.strip() and "\n" not in p for p in done.split("\n\n"))


@given(st.text(max_size=200).filter(is_speakable))
def test_any_unicode_can_be_prepared(text: str) -> None:
    """Text from all of Unicode is prepared, or refused as a whole; never a crash."""
    try:
        once = prepare(text, TextRules(), "en").text
    except InputError as error:
        assert error.code == "text_empty"
    else:
        assert prepare(once, TextRules(), "en").text == once


@given(
    st.lists(st.sampled_from("0123456789.,:;!?)\"'v$% abc-/\n"), max_size=80)
    .map("".join)
    .filter(is_speakable)
)
def test_digits_survive(text: str) -> None:
    """Without brackets, every digit stays, in order."""
    assert [c for c in prepared(text) if c.isdigit()] == [c for c in text if c.isdigit()]


@given(TEXTS)
def test_letters_survive(text: str) -> None:
    """No rule but lowercase and the user's own changes the letters."""

    def letters(any_text: str) -> list[str]:
        return [c for c in unicodedata.normalize("NFD", any_text) if c.isalpha() and c.isascii()]

    assert letters(prepared(text)) == letters(text)


@pytest.mark.parametrize(
    "text",
    [
        "It costs 3.5 dollars.",
        "Version v1.2 is out.",
        "About 2,000 came in 1999.",
        "At 10:30, see example.com/a?b=1.",
        "He said “1.” and 2) 3] too",
        "See [12345] and [a] and [sic].",
        "e.g. this, i.e. that, etc.",
        "They live in the U.S. Then they moved.",
        "The U.S. Army and the U.K. too.",
        "At 5 p.m. a Ph.D. came.",
        "George W. Bush and I. Newton met.",
        "See A.B.com and A.B.C.com today.",
        "You and I. We go.",
    ],
)
def test_what_only_looks_like_a_citation_or_initials_stays(text: str) -> None:
    """Decimals, versions, thousands, abbreviations and single initials are not touched."""
    assert prepared(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("J.R.R. Tolkien wrote.", "J R R Tolkien wrote."),
        ("J. R. R. Tolkien wrote.", "J R R Tolkien wrote."),
        ("It is by J.R.R.", "It is by J R R."),
        ("By J.R.U.S. R. Smith now.", "By J R U S R Smith now."),
        ("It is by J.R.R. Then he slept.", "It is by J R R. Then he slept."),
        ("J.R.R. was born, as was H.G., too.", "J R R was born, as was H G, too."),
        ("By J.R.R.Tolkien himself", "By J R R Tolkien himself"),
        ("“J.R.” He left.", "“J R.” He left."),
        ("By É.Ž. Novák", "By É Ž Novák"),
    ],
)
def test_initials_are_spaced_and_sentence_ends_kept(text: str, expected: str) -> None:
    """The last stop goes only where a name or the same sentence follows."""
    assert prepared(text) == expected
    assert prepared(text, initials=False) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So it is [1].", "So it is."),
        ("So it is.[1] And so on.", "So it is. And so on."),
        ("So it is. [2, 3] And so on.", "So it is. And so on."),
        ("One[1][2] two [3–5] three.", "One two three."),
        ("One [1]two.", "One two."),
        ("In 1999[12], in v1.2[3] and 2,000[4].", "In 1999, in v1.2 and 2,000."),
        ("Nested [[1]2] is gone.", "Nested is gone."),
    ],
)
def test_citations_are_left_out(text: str, expected: str) -> None:
    """Bracketed numbers go with the space before them."""
    assert prepared(text) == expected
    assert prepared(text, citations=False) == text


def test_replacements_come_first_and_in_order() -> None:
    """The user's own rules see the raw text, and each sees what the last one left."""
    rules = [{"from": "Dr.", "to": "Doctor"}, {"from": "Doctor X", "to": "J.K. Ex"}]
    assert prepared("Dr. X came.", replace=rules) == "J K Ex came."


def test_lowercase() -> None:
    """Lower case is one of the rules and off by default."""
    assert prepared("HELLO Ünïted I", lowercase=True) == "hello ünïted i"
    assert prepared("HELLO") == "HELLO"


def test_what_cannot_be_seen_is_removed() -> None:
    """Zero-width, soft hyphen, direction marks, byte-order mark and controls; wide spaces are spaces."""
    assert (
        prepared("\ufeffco\u00adope\u200bra\u2060te\u202e \x07a\xa0b\u3000c\u2009d\te")
        == "cooperate a b c d e"
    )


def test_joiners_stay_where_they_shape_the_text() -> None:
    """Emoji and Persian need them; between Latin letters they are debris."""
    assert prepared("a 👩\u200d🚀 نمی\u200cخواهم f\u200di") == "a 👩\u200d🚀 نمی\u200cخواهم fi"


@pytest.mark.parametrize("beside", ["\ufffd", "e\u0301", "\u212b", "e\u200d\u0301", "ẞ"])
def test_a_joiner_is_judged_by_the_letters_that_come_out(beside: str) -> None:
    """Beside what is left out, composed or lowered; else preparing again would find another one to remove."""
    rules = TextRules(lowercase=True)
    once = prepare(f"a{beside}\u200d中", rules, "en").text
    assert "\u200d" not in once and prepare(once, rules, "en").text == once


def test_text_is_composed() -> None:
    """e with a combining accent becomes é."""
    assert prepared("cafe\u0301") == "café"


def test_unreadable_characters_are_left_out_with_a_warning() -> None:
    """What a wrong decoding left is told, not spoken."""
    done = prepare("a\ufffdb\ue000c", TextRules(), "en")
    assert done.text == "abc"
    assert done.warnings == (
        "2 unreadable characters were left out; the file may have been saved in the wrong encoding.",
    )
    assert prepare("plain", TextRules(), "en").warnings == ()


@pytest.mark.parametrize("text", ["", "  \n", "…!?", "[1]", "\ufeff", "* * *"])
def test_nothing_left_to_speak_is_an_error(text: str) -> None:
    """Also if it was the rules that left nothing."""
    with pytest.raises(InputError, match=r"nothing in this text that can be spoken") as caught:
        prepared(text)
    assert caught.value.code == "text_empty"
    assert caught.value.hint


WRAPPED = [
    "This is the first line of a paragraph that was wrapped by hand at",
    "about seventy columns, as people and programs have done for ages,",
    "and it ends here.",
]


def test_wrapped_lines_are_joined() -> None:
    """One paragraph on three lines is one paragraph."""
    assert paragraphs(*WRAPPED) == [" ".join(WRAPPED)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_every_line_end_is_one(end: str) -> None:
    """Unix, Windows, old Mac and Unicode line ends are the same."""
    text = end.join([*WRAPPED, "", "Next."])
    assert prepared(text) == " ".join(WRAPPED) + "\n\nNext."


def test_blank_lines_divide_paragraphs() -> None:
    """However many, and also with spaces in them."""
    assert paragraphs("One.", "", " \t", "", "Two.", "\x0c", "Three.") == ["One.", "Two.", "Three."]


def test_a_short_line_ends_its_paragraph() -> None:
    """Where paragraphs follow each other without a blank line, the short last line tells."""
    assert paragraphs(*WRAPPED, *WRAPPED) == [" ".join(WRAPPED)] * 2


def test_an_indented_line_begins_a_paragraph() -> None:
    """Books mark paragraphs so."""
    assert paragraphs(*WRAPPED[:2], "    The next one begins with an indent and is just as long.") == [
        " ".join(WRAPPED[:2]),
        "The next one begins with an indent and is just as long.",
    ]


def test_unwrapped_lines_are_paragraphs() -> None:
    """One line a paragraph, as most editors save prose today."""
    long = "A very long line of prose that nobody wrapped, since the editor does it on the screen. " * 3
    assert paragraphs(long, "Short one.", long) == [long.strip(), "Short one.", long.strip()]


def test_verse_headings_and_lists_keep_their_lines() -> None:
    """Each gets its own pause."""
    assert paragraphs("Roses are red,", "Violets are blue") == ["Roses are red,", "Violets are blue"]
    assert paragraphs("CHAPTER I", *WRAPPED) == ["CHAPTER I", " ".join(WRAPPED)]
    assert paragraphs("* one thing", "* and another", "3. third", "(b) fourth") == [
        "one thing",
        "and another",
        "3. third",
        "(b) fourth",
    ]


def test_a_scene_break_stands_alone() -> None:
    """A line of asterisks inside a block divides it."""
    assert paragraphs(*WRAPPED, "* * *", *WRAPPED) == [" ".join(WRAPPED), "* * *", " ".join(WRAPPED)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("this line is long enough to be wrapped and was exam-", "ple", "exam-ple"),
        ("this example line is long enough to be wrapped: exam-", "ple", "wrapped: example"),
        ("this line is long enough to be wrapped and well-", "known", "well-known"),
        ("this line is long enough to be wrapped, twenty –", "thirty", "twenty – thirty"),
        ("this line is long enough to be wrapped by a soft\u00ad", "ened hyphen", "softened"),
    ],
)
def test_hyphens_at_line_ends(first: str, second: str, expected: str) -> None:
    """The hyphen goes only where the text itself shows the undivided word."""
    assert expected in prepared(f"{first}\n{second}")


@pytest.mark.skipif(not PROSE.exists(), reason="the-time-machine.txt is not on this machine")
def test_a_novel_keeps_its_words() -> None:
    """Real prose comes through word for word."""
    text = PROSE.read_text(encoding="utf-8")
    assert prepared(text).split() == text.split()
    assert len(prepared(text).split("\n\n")) == len([p for p in text.split("\n\n") if p.strip()])


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a ",
        "a\n",
        "a-\n",
        "A.",
        "A. ",
        "[1",
        "[1]",
        "[1,",
        "* ",
        "a\u0301\u0327",
        "\u0301\u0327",
        "\u200c",
        "\n",
        " \n",
        " ",
    ],
)
def test_time_grows_with_the_text_and_no_faster(unit: str) -> None:
    """Half a megabyte of anything takes a moment."""
    started = time.perf_counter()
    assert prepared("b" + unit * (500_000 // len(unit)) + "b")
    assert time.perf_counter() - started < 3
