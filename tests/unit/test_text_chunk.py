"""Chunks: nothing lost, nothing too long, cut where a reader would breathe."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.jobs.settings import Chunks
from pipeline.text import sentences
from pipeline.text.chunk import Chunk, Pause, chunk
from pipeline.text.speakable import is_speakable

PROSE = Path("/work/shared/data/the-time-machine.txt")
needs_prose = pytest.mark.skipif(not PROSE.exists(), reason="the-time-machine.txt is not on this machine")
PARTS = [
    "\u0301",
    "\u200d",
    "👩",
    "🇩",
    "\u1160",
    " and ",
    "Dr. ",
    "U.S. ",
    "\n\n",
    "\xa0",
    "\u2028",
    "\x85",
    "word ",
    "It is. ",
]
ALPHABET = st.sampled_from([*"aBz.!?…,;:—–-“”\"'()[]1 \n\t*。，！中é", *PARTS])
TEXTS = st.lists(ALPHABET, max_size=400).map("".join)
LIMITS = st.builds(Chunks, max_chars=st.integers(40, 300), min_chars=st.integers(0, 500))


def texts(text: str, language: str = "en", **limits: int) -> list[str]:
    """What the chunks of a text say."""
    return [piece.text for piece in chunk(text, Chunks(**limits), language)]


def assert_sound(text: str, chunks: list[Chunk], max_chars: int) -> None:
    """Everything that must hold of the chunks of any text."""
    assert "".join(text[c.start : c.end] for c in chunks) == (text if is_speakable(text) else "")
    for index, piece in enumerate(chunks):
        assert piece.index == index
        assert 0 < len(piece.text) <= max_chars
        assert piece.text == piece.text.strip()
        assert is_speakable(piece.text)
        assert piece.text in text[piece.start : piece.end]
    spoken = sum(sum(c.isalnum() for c in piece.text) for piece in chunks)
    assert spoken == sum(c.isalnum() for c in text)


@given(TEXTS, LIMITS, st.sampled_from(["en", "en-GB", "de", "fr", "zh", "ja", "xx"]))
def test_generated_text_is_covered_and_bounded(text: str, limits: Chunks, language: str) -> None:
    """The spans join to the text, every letter is spoken once, and no chunk breaks the limits."""
    assert_sound(text, chunk(text, limits, language), limits.max_chars)


@given(st.text(max_size=300))
def test_any_unicode_is_covered_and_bounded(text: str) -> None:
    """The same for text drawn from all of Unicode."""
    assert_sound(text, chunk(text, Chunks(max_chars=40)), 40)


@needs_prose
@pytest.mark.parametrize(("max_chars", "min_chars"), [(280, 20), (40, 20), (120, 0), (2000, 500)])
def test_real_prose_is_covered_and_bounded(max_chars: int, min_chars: int) -> None:
    """The same for a whole novel."""
    text = PROSE.read_text(encoding="utf-8")
    assert_sound(text, chunk(text, Chunks(max_chars=max_chars, min_chars=min_chars)), max_chars)


@needs_prose
def test_a_novel_is_cut_almost_only_between_sentences() -> None:
    """At the default limits, nine in ten chunks of real prose end with a sentence or paragraph."""
    chunks = chunk(PROSE.read_text(encoding="utf-8"), Chunks())
    whole = [c for c in chunks if c.pause in (Pause.SENTENCE, Pause.PARAGRAPH)]
    assert len(whole) >= 0.9 * len(chunks)
    assert sum(c.pause is Pause.NONE for c in chunks) <= 0.01 * len(chunks)
    assert sum(len(c.text) < 20 and c.pause is not Pause.PARAGRAPH for c in chunks) == 0


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith and Mr. Jones of No. 5 came on Jan. 5 at noon.",
        "He likes fruit, e.g. apples, i.e. what grows on trees.",
        "He lives near the U.S. Army base in J. R. R. Tolkien Street.",
        "It costs 3.5 dollars, or 2,000 in all, says v1.2 of www.example.com.",
        "Well... maybe so, and… then again perhaps rather not.",
    ],
)
def test_a_stop_inside_a_sentence_is_no_end(text: str) -> None:
    """Abbreviations, initials, decimals and ellipses do not end a sentence."""
    first = "This comes first, and it is about as long. "
    assert texts(first + text, max_chars=70) == [first.strip(), text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("“Stop where you are!” “But why should I stop?” “Because.”",
         ["“Stop where you are!”", "“But why should I stop?” “Because.”"]),
        ("Is that really so?! Yes, I should think so!! No, not at all.",
         ["Is that really so?!", "Yes, I should think so!! No, not at all."]),
        ("He moved to the big U.S. It was rather far away from home.",
         ["He moved to the big U.S.", "It was rather far away from home."]),
    ],
)  # fmt: skip
def test_sentences_end_after_their_quotes(text: str, expected: list[str]) -> None:
    """Closing quotes stay with their sentence, doubled marks end it once."""
    assert texts(text, max_chars=40, min_chars=5) == expected


def test_chinese_is_cut_at_its_own_marks() -> None:
    """Ideographic stops and commas are boundaries without any space."""
    sentence = "我們今天去公園散步，看見了很多花。"
    assert texts(sentence * 6, "zh", max_chars=40) == [sentence * 2] * 3
    clause = "看見了很多很多的花，"
    assert all(t.endswith("，") for t in texts(clause * 12 + "好。", "zh", max_chars=40)[:-1])


def test_german_ordinals_and_abbreviations_hold() -> None:
    """The language of the job decides which abbreviations count."""
    text = "Das ist z. B. am 3. Oktober ca. 5 Euro wert gewesen."
    assert texts("Der erste Satz ist auch recht lang. " + text, "de", max_chars=60)[1] == text


def test_sentences_are_grouped_while_they_fit() -> None:
    """Short sentences share a chunk, up to the limit and in order."""
    text = " ".join(["Ten chars."] * 12)
    assert texts(text, max_chars=43) == [" ".join(["Ten chars."] * 4)] * 3
    assert texts(text, max_chars=42) == [" ".join(["Ten chars."] * 3)] * 4


def test_paragraphs_are_never_joined() -> None:
    """A heading stays alone however short it is, and the pause after it is a paragraph's."""
    chunks = chunk("I\n\nIt was dark.\n\n“Yes.”\n\nEnd.", Chunks())
    assert [(c.text, c.pause) for c in chunks] == [
        ("I", Pause.PARAGRAPH),
        ("It was dark.", Pause.PARAGRAPH),
        ("“Yes.”", Pause.PARAGRAPH),
        ("End.", Pause.PARAGRAPH),
    ]


def test_pauses_tell_what_follows() -> None:
    """Sentence, paragraph, clause and no pause at all each appear where they belong."""
    long = "a rather long clause that goes on for a while, then another clause follows it"
    chunks = chunk(f"One short sentence here. {long}.\n\nNext.", Chunks(max_chars=50))
    assert [c.pause for c in chunks] == [Pause.SENTENCE, Pause.CLAUSE, Pause.PARAGRAPH, Pause.PARAGRAPH]
    assert chunk("wordy " * 20, Chunks(max_chars=60))[0].pause is Pause.NONE


def test_a_scene_break_becomes_a_pause() -> None:
    """Asterisks are never spoken; their span belongs to the chunk before them."""
    text = "He left. \n\n* * *\n\nShe stayed."
    first, second = chunk(text, Chunks())
    assert (first.text, first.pause) == ("He left.", Pause.PARAGRAPH)
    assert text[first.start : first.end] == "He left. \n\n* * *\n\n"
    assert second.text == "She stayed."


def test_what_says_nothing_at_the_start_belongs_to_the_first_chunk() -> None:
    """A leading ornament is covered but not spoken."""
    (only,) = chunk("—\n\n* * *\n\nGo on.", Chunks())
    assert (only.start, only.text) == (0, "Go on.")


@pytest.mark.parametrize("text", ["", " \n\n ", "…!", "* * *", "👩‍🚀"])
def test_nothing_to_say_gives_no_chunks(text: str) -> None:
    """Text without a letter or digit has no chunks."""
    assert chunk(text, Chunks()) == []


def test_chatterbox_issue_201_a_short_sentence_joins_its_neighbour() -> None:
    """Engines stumble over very short text: “Yes.” goes with the next sentence, “No.” with the last."""
    middle = "This is a sentence of forty characters it"
    assert texts(f"Yes. {middle}. No.", max_chars=60) == [f"Yes. {middle}. No."]
    cut = texts(f"{middle}, or so it seems to me. No.", max_chars=60)
    assert all(len(t) >= 13 for t in cut)
    assert " ".join(cut) == f"{middle}, or so it seems to me. No."


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("alpha beta gamma delta; epsilon, zeta eta theta iota kappa", "alpha beta gamma delta;"),
        ("alpha beta gamma delta epsilon, zeta eta theta iota kappa", "alpha beta gamma delta epsilon,"),
        ("alpha beta gamma delta—epsilon zeta eta theta iota kappa", "alpha beta gamma delta—"),
        ("alpha beta gamma delta epsilon and zeta eta theta iota kappa", "alpha beta gamma delta epsilon"),
        ("alpha beta gamma delta (epsilon zeta) eta theta iota kappa", "alpha beta gamma delta"),
    ],
)
def test_a_long_sentence_is_cut_at_its_best_place(text: str, first: str) -> None:
    """Punctuation wins over conjunctions, and those over any space."""
    assert texts(text, max_chars=45)[0] == first


def test_a_long_sentence_leaves_no_tiny_tail() -> None:
    """62 words of a limit of 60 become two halves, not 60 and 2."""
    pieces = texts("word " * 12 + "tail", max_chars=60)
    assert len(pieces) == 2
    assert abs(len(pieces[0]) - len(pieces[1])) < 10


def test_a_long_speech_is_cut_between_its_sentences() -> None:
    """Inside quotes too, a sentence end is the best place; an opening quote goes with what it opens."""
    speech = "“It was late when I came. I was tired by then. I slept,” he said."
    pieces = texts(speech, max_chars=50)
    assert pieces == ["“It was late when I came. I was tired by then.", "I slept,” he said."]
    asked = "(He said it all again. “And now you know it.” “I do not.” And so on.)"
    assert texts(asked, max_chars=50)[1].startswith("“")


LOVECRAFT = (
    "I have looked upon all that the universe has to hold of horror, and even the skies of spring and the "
    "flowers of summer must ever afterward be poison to me, "
)


def test_extended_issue_21_a_sentence_over_the_limit_is_cut_and_not_left_out() -> None:
    """Over 700 characters without a full stop; nor do the sentences around it fall out."""
    text = f"Now hear this. {LOVECRAFT * 5}and so I end. That was it."
    pieces = texts(text)
    assert len(LOVECRAFT) * 5 > 700
    assert " ".join(pieces).split() == text.split()
    assert pieces[0].startswith("Now hear this.") and pieces[-1].endswith("That was it.")


@pytest.mark.parametrize("sentence", [LOVECRAFT, "It rained. ", "word ", "x"])
def test_chatterbox_issue_60_no_piece_is_longer_than_is_spoken_well(sentence: str) -> None:
    """Over some 300 characters, or 25 s, the model drifts into gibberish (issues 76, 181, 385, 424, 543)."""
    pieces = texts(sentence * (3000 // len(sentence)))
    assert max(map(len, pieces)) <= 300
    assert sum(map(len, pieces)) > 2900


@pytest.mark.parametrize(
    ("language", "characters_a_second"),
    [("zh", 5.2), ("zh-TW", 5.2), ("ja-JP", 5.5), ("ko", 8.5), ("de", 13)],
)
def test_chatterbox_issue_543_no_piece_lasts_longer_than_is_spoken_well(
    language: str, characters_a_second: float
) -> None:
    """Not in writings either in which one character is a syllable or more: 280 of them take a minute."""
    limits = Chunks().spoken_in(language)
    assert 12 < limits.max_chars / characters_a_second < 25
    assert Chunks(max_chars=40).spoken_in(language).max_chars == 40


def test_words_are_cut_only_without_any_space() -> None:
    """A word longer than the limit is cut hard; one that fits never is."""
    assert texts("x" * 100, max_chars=40) == ["x" * 34, "x" * 33, "x" * 33]
    assert "y" * 39 in texts("a " + "y" * 39 + " b " + "z" * 39, max_chars=40, min_chars=0)


@pytest.mark.parametrize(
    "cluster",
    ["e\u0301\u0323", "👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "क\u094dष\u093f", "❤️", "\u1112\u1161\u11ab"],
)
def test_what_is_seen_as_one_character_is_never_cut(cluster: str) -> None:
    """Accents, joined emoji, flags, skin tones, Indic and Hangul syllables survive hard cuts."""
    for shift in range(len(cluster)):
        text = "x" * shift + "ab" + cluster * 60
        for piece in chunk(text, Chunks(max_chars=40)):
            body = text[piece.start : piece.end].lstrip("xab")
            assert body == cluster * (len(body) // len(cluster))


def test_a_mountain_of_marks_is_cut_at_the_limit() -> None:
    """One letter with a thousand accents still keeps to the limit."""
    text = "a" + "\u0301" * 1000 + "b"
    assert_sound(text, chunk(text, Chunks(max_chars=40)), 40)


@pytest.mark.parametrize("unit", ["a", "a ", "Ab. ", "“Hi. ", "a—", "* ", "中", "x\n", "a,", "\u0301", "🇩"])
def test_time_grows_with_the_text_and_no_faster(unit: str) -> None:
    """Half a megabyte of anything takes seconds at most, in one line."""
    text = "b" + unit * (500_000 // len(unit))
    started = time.perf_counter()
    chunks = chunk(text, Chunks())
    assert time.perf_counter() - started < 5
    assert chunks[-1].end == len(text)


@pytest.mark.slow
def test_fifty_megabytes_without_a_space() -> None:
    """A 50 MB line is chunked, in bounded time."""
    text = "a" * 50_000_000
    started = time.perf_counter()
    assert sum(len(c.text) for c in chunk(text, Chunks())) == len(text)
    assert time.perf_counter() - started < 60


def test_a_library_crash_is_told_as_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panic inside sentencex fails the job, not the worker."""

    class PanicException(BaseException):
        pass

    def panic(language: str, text: str) -> None:
        raise PanicException("byte index")

    monkeypatch.setattr(sentences.sentencex, "get_sentence_boundaries", panic)
    with pytest.raises(InputError, match=r"near “Some odd text[.]”") as caught:
        chunk("Some odd text.", Chunks())
    assert caught.value.code == "text_sentences"


def test_other_interruptions_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the split is no bad text."""

    def interrupt(language: str, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentences.sentencex, "get_sentence_boundaries", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chunk("Some text.", Chunks())


def test_an_initial_before_a_wide_space_is_no_crash() -> None:
    """The library panics there on the raw text."""
    assert texts("It was D.\xa0. A.\u2028B. So.") == ["It was D.\xa0. A.\u2028B. So."]
