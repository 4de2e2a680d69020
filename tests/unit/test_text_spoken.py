"""Spelling out, and the words that text and transcript are compared by."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import numbers
from pipeline.text.speakable import is_speakable
from pipeline.text.spell import spell_out
from pipeline.text.spoken import spoken_words

PROSE = Path("/work/shared/data/the-time-machine.txt")
PARTS = [
    "Dr. ",
    "St. ",
    "etc.",
    "U.S.",
    "p.m.",
    "10:30",
    "$3",
    ".50",
    "£",
    "1999",
    "1st",
    "IV",
    "Chapter ",
    "½",
    "²",
    "%",
]
MIXED = st.lists(st.sampled_from([*"aBi 0123456789.,:/-–'’&@#°x√é中", *PARTS]), max_size=60).map("".join)
LANGUAGES = st.sampled_from(
    ["en", "en-GB", "de", "fr", "es", "ja", "ko", "ru", "hi", "zh", "pt-BR", "pl", "ar", "th"]
)


def said(text: str, language: str = "en") -> str:
    """The spoken words, joined."""
    return " ".join(spoken_words(text, language))


@given(MIXED, LANGUAGES)
def test_going_through_twice_changes_nothing_more(text: str, language: str) -> None:
    """The words of the words are the words."""
    words = spoken_words(text, language)
    assert spoken_words(" ".join(words), language) == words


@given(MIXED)
def test_the_spelled_out_text_says_the_same(text: str) -> None:
    """An engine that is given `spell_out` is checked against the same words."""
    spelled = spell_out(text, "en")
    assert spell_out(spelled, "en") == spelled
    assert spoken_words(spelled, "en") == spoken_words(text, "en")


@given(MIXED)
def test_english_words_hold_no_digits(text: str) -> None:
    """Every number is spelled out, and every word is lower case and alphabetic."""
    for word in spoken_words(text, "en"):
        assert not any(c.isdigit() for c in word)
        assert word == word.casefold()
        assert is_speakable(word)


@given(st.text(max_size=120), LANGUAGES)
def test_any_unicode_has_words(text: str, language: str) -> None:
    """Never a crash, and the same twice, for text from all of Unicode."""
    words = spoken_words(text, language)
    assert spoken_words(" ".join(words), language) == words
    assert all(is_speakable(word) for word in words)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("$200", "two hundred dollars"),
        ("$1", "one dollar"),
        ("$3.50", "three dollars and fifty cents"),
        ("$0.99", "ninety-nine cents"),
        ("£3.50", "three pounds and fifty pence"),
        ("€5 or 5€", "five euros or five euros"),
        ("$1.5 million, $2bn", "one point five million dollars, two billion dollars"),
        ("Dr. Smith and Mr Jones", "doctor smith and mister jones"),
        ("naïve café", "naive cafe"),
        ("don’t", "don't"),
        ("well-known", "well known"),
        ("1999", "nineteen ninety nine"),
        ("in 1905, 1900, 2005 and 2024",
         "in nineteen oh five, nineteen hundred, two thousand five and twenty twenty four"),
        ("the 1980s and the '90s", "the nineteen eighties and the nineties"),
        ("1,234,567", "one million two hundred thirty four thousand five hundred sixty seven"),
        ("205", "two hundred and five"),
        ("3.14", "three point one four"),
        ("v1.2.3 and .5", "v one point two point three and zero point five"),
        ("1st 2nd 23rd 100th", "first second twenty third one hundredth"),
        ("10:30, 10:05, 9:00, 14:00", "ten thirty, ten oh five, nine o'clock, fourteen hundred"),
        ("5pm, 10:30 a.m.", "five p m, ten thirty a m"),
        ("50% of 20°C", "fifty percent of twenty degrees celsius"),
        ("5 km at 1 km/h", "five kilometers at one kilometer per hour"),
        ("1/2, 3/4, 2/3, ½", "one half, three quarters, two thirds, one half"),
        ("-5 and −5", "minus five and minus five"),
        ("1990–1995, pp. 5-10", "nineteen ninety to nineteen ninety five, pages five to ten"),
        ("007", "zero zero seven"),
        ("Chapter IV, Henry VIII, World War II", "chapter four, henry the eighth, world war two"),
        ("St. Peter on Main St.", "saint peter on main street"),
        ("No. 5, e.g. that, i.e. this, etc.", "number five, for example that, that is this, et cetera"),
        ("J.R.R. Tolkien of the U.S.A.", "j r r tolkien of the u s a"),
        ("AT&T, MP3, B2B", "at and t, mp three, b two b"),
        ("www.example.com", "www dot example dot com"),
        ("x² + ①", "x two plus one"),
        ("2020-05-01", "may first twenty twenty"),
        ("Jan. 5", "january five"),
    ],
)  # fmt: skip
def test_castwright_issue_976_what_is_written_equals_what_is_said(one: str, other: str) -> None:
    """Both spellings of a pair have the same words."""
    assert said(one) == said(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He moved to Acme Inc. Then he left.", "He moved to Acme Incorporated. Then he left."),
        ("apples, etc., and so on", "apples, et cetera, and so on"),
        ("apples etc. and so on", "apples et cetera and so on"),
        ("He came at 5 p.m. He left.", "He came at five p.m. He left."),
        ("It is 5. Then 6.", "It is five. Then six."),
        ("“No.” No. 5 came.", "“No.” Number five came."),
        ("He lives on Main St. He likes it.", "He lives on Main Street. He likes it."),
        ("Mount St. Helens", "Mount Saint Helens"),
        ("Mix it; I am MIX, VIVID, a C and Malcolm X.", "Mix it; I am MIX, VIVID, a C and Malcolm X."),
        ("Charles I think is here.", "Charles I think is here."),
        ("She has a Ph.D. He has none.", "She has a P.H.D. He has none."),
        ("call 555-1234", "call five hundred fifty-five twelve thirty-four"),
        ("5-year-old", "five-year-old"),
        ("IV", "Four."),
        ("# V```", "Five."),
        ("I", "One."),
        ("I.", "One."),
        ("I am", "I am"),
    ],
)
def test_sentences_and_words_survive_spelling_out(text: str, expected: str) -> None:
    """A stop that ends a sentence stays, and what only looks like a numeral is left alone."""
    assert spell_out(text, "en") == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Es kostet 3,5 Euro, oder 1.000.000.", "es kostet drei komma funf euro oder eine million"),
        ("de", "21 Bäume", "einundzwanzig baume"),
        ("fr", "l’été 71", "l'ete soixante et onze"),
        ("es", "21 años", "veintiuno anos"),
        ("ko", "한국어 21", "한국어 이십일"),
        ("ar", "مرحبا ٣", "مرحبا ثلاثة"),
        ("hi", "नमस्ते 12", "नमस्ते 12"),
        ("zh", "我有12个。", "我 有 12 个"),
        ("xx", "ab 12", "ab 12"),
    ],
)
def test_other_languages(language: str, text: str, expected: str) -> None:
    """Numbers where the words are known; vowel signs and syllables of other scripts stay whole."""
    assert said(text, language) == expected


@pytest.mark.parametrize("language", sorted({name.replace("_", "-") for name in numbers.CONVERTER_CLASSES}))
def test_no_language_breaks_on_a_number(language: str) -> None:
    """What num2words cannot say stays as digits; nothing raises."""
    for number in (
        "0",
        "7",
        "21",
        "100",
        "1999",
        "3,5",
        "3.5",
        "1.000.000",
        "123456789012345",
        "1" * 40,
        "007",
    ):
        assert said(f"a {number} b", language).split()[0] == "a"


@pytest.mark.skipif(not PROSE.exists(), reason="the-time-machine.txt is not on this machine")
def test_prose_keeps_its_words() -> None:
    """A novel without numbers has as many words as it shows."""
    text = PROSE.read_text(encoding="utf-8").replace("-", " ").replace("—", " ").replace("…", " ")
    shown = [word for line in text.split("\n\n")[1:200:2] for word in line.split() if is_speakable(word)]
    spoken = [word for line in text.split("\n\n")[1:200:2] for word in spoken_words(line, "en")]
    assert abs(len(spoken) - len(shown)) <= 0.01 * len(shown)


UNITS = [
    "1",
    "1,",
    "1.",
    "1/",
    "A.",
    "a.",
    "-1",
    "$1",
    "1:0",
    "IV ",
    "St. ",
    "' ",
    "X",
    "1 ",
    "\u0301",
    "no.",
]


@pytest.mark.parametrize("unit", UNITS)
def test_time_grows_with_the_text_and_no_faster(unit: str) -> None:
    """Twenty thousand characters of anything, ten times the longest chunk, take a moment."""
    started = time.perf_counter()
    spoken_words(unit * (20_000 // len(unit)), "en")
    assert time.perf_counter() - started < 3


YEARS = {1100: "eleven hundred", 1805: "eighteen oh five", 2000: "two thousand", 2009: "two thousand nine"}


@pytest.mark.parametrize(
    ("number", "words"), [*YEARS.items(), (2010, "twenty ten"), (2099, "twenty ninety-nine")]
)
def test_years(number: int, words: str) -> None:
    """As most people say them."""
    assert numbers.year(number) == words
