"""The text that is read aloud in measurements is there in every clone, and the same in each."""

from pathlib import Path

import pytest

from bench import ground, spine
from bench.sentences import words_of
from pipeline.jobs.settings import Chunks
from pipeline.text.chunk import chunk


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone with nothing beside it."""
    monkeypatch.setattr(ground, "BOOK", tmp_path / "none.txt")


def test_a_clone_without_a_book_makes_up_its_text(bare: None) -> None:
    """As long as asked for, up to the last word's paragraph mark, and it is told."""
    text = ground.prose(3_000)
    assert 2_800 < len(text.split()) < 3_300
    assert ground.text_name() == "generated sentences (bench/sentences.py)"


def test_a_book_beside_the_clone_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And named; one that is too short repeats itself."""
    book = tmp_path / "tale.txt"
    book.write_text("Once upon a time there was a cat. ")
    monkeypatch.setattr(ground, "BOOK", book)
    assert ground.text_name() == "tale"
    assert ground.prose(20).startswith("Once upon a time there was a cat. ")


def test_the_text_is_always_the_same_and_hardly_repeats_itself() -> None:
    """Or the cache would do the work."""
    text = words_of(20_000)
    assert text == words_of(20_000)
    sentences = [part for paragraph in text.split("\n\n") for part in paragraph.split(". ")]
    assert len(set(sentences)) > 0.98 * len(sentences)


def test_the_text_is_cut_like_prose(bare: None) -> None:
    """The book of the measurements gives a thousand chunks, and one sentence of it can be changed."""
    text = ground.prose(spine.BOOK_WORDS)
    assert 80 < spine._max_chars(text) < 280
    pieces = chunk(text, Chunks(), "en")
    assert all(any(c.isalpha() for c in piece.text) for piece in pieces)
    changed = spine._one_sentence_changed(text)
    assert changed.count("Nobody had written this sentence before.") == 1
