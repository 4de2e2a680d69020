"""The faults that the checker is measured with do to the sound what their names say."""

from random import Random

import numpy as np
import pytest

from bench import checks
from pipeline.sound.audio import Audio, Speech, Word
from pipeline.verify import Transcript

RATE_HZ = 1_000
TEXT = "The fire burned brightly and the soft light caught the bubbles there"


def speech(text: str = TEXT) -> Speech:
    """Speech whose samples tell their word: a hundred of 1 for the first, of 2 for the second, and so on."""
    words = text.split()
    samples = np.repeat(np.arange(1, len(words) + 1), 100).astype(np.float32)
    return Speech(
        audio=Audio(samples, RATE_HZ),
        words=tuple(
            Word(text=word, start_seconds=at / 10, end_seconds=at / 10 + 0.1) for at, word in enumerate(words)
        ),
    )


def words_in(samples: np.ndarray) -> list[str]:
    """The words that stand whole in the samples, in order."""
    return [TEXT.split()[int(block[0]) - 1] for block in samples.reshape(-1, 100)]


@pytest.mark.parametrize("seed", range(20))
def test_missing_and_repeated_clauses(seed: int) -> None:
    """Three to eight words in a row go, or come twice; both faults take the same words."""
    missing = checks.missing_clause(speech(), Random(seed), speech())
    repeated = checks.repeated_clause(speech(), Random(seed), speech())
    assert missing is not None
    assert repeated is not None
    all_words = len(TEXT.split())
    lost = all_words - len(words_in(missing))
    assert 3 <= lost <= all_words // 2
    assert len(words_in(repeated)) == all_words + lost


@pytest.mark.parametrize("seed", range(20))
def test_single_words(seed: int) -> None:
    """One word goes, small or not as asked; two words change places."""
    kept = checks.missing_word(speech(), Random(seed), speech())
    small = checks.missing_small_word(speech(), Random(seed), speech())
    swapped = checks.swapped_words(speech(), Random(seed), speech())
    assert kept is not None
    assert small is not None
    assert swapped is not None
    assert len(words_in(kept)) == len(words_in(small)) == len(TEXT.split()) - 1
    assert words_in(kept).count("the") == 2
    assert sorted(words_in(swapped)) == sorted(TEXT.split())
    assert words_in(swapped) != TEXT.split()


@pytest.mark.parametrize("seed", range(20))
def test_the_end_is_cut_by_a_word_at_least(seed: int) -> None:
    """What is left is the beginning, unchanged, without the last word."""
    left = checks.cut_end(speech(), Random(seed), speech())
    whole = speech().audio.samples
    assert 0.6 * len(whole) <= len(left) <= len(whole) - 100
    assert np.array_equal(left, whole[: len(left)])


def test_noise_and_garble_keep_the_length_and_the_rest() -> None:
    """0.6 to 1.2 s change, the rest does not, and the original is left alone."""
    original = speech(TEXT * 2)
    for fault in (checks.noise, checks.garble):
        damaged = fault(original, Random(3), original)
        assert damaged is not None
        changed = np.flatnonzero(damaged != original.audio.samples)
        assert 0.3 < len(changed) / RATE_HZ <= 1.2
        assert changed.max() - changed.min() < 1.2 * RATE_HZ
    assert np.array_equal(original.audio.samples, speech(TEXT * 2).audio.samples)


def test_silence_lies_inside() -> None:
    """Two seconds of silence between words."""
    damaged = checks.long_silence(speech(), Random(1), speech())
    silent = np.flatnonzero(damaged == 0)
    assert len(silent) == 2 * RATE_HZ
    assert 0 < silent[0] < silent[-1] < len(damaged) - 1


@pytest.mark.parametrize("kind", ["missing clause (3-8 words)", "repeated clause (3-8 words)", "noise burst"])
def test_too_short_for_a_fault_is_left_out(kind: str) -> None:
    """A sentence without room for a fault is no case of it."""
    assert checks.FAULTS[kind](speech("Too short"), Random(1), speech()) is None


def test_versions_keep_the_engines_word_times_and_repeat() -> None:
    """The times are those of the undamaged speech, and a seed gives the same cases."""
    texts = [f"{TEXT} and {TEXT}", f"{TEXT} but {TEXT} indeed"]
    spoken = [speech(text) for text in texts]
    first, second = (list(checks.versions(texts, spoken, 5)) for _ in range(2))
    assert {kind for kind, _, _ in first} == {checks.RIGHT, *checks.FAULTS}
    for (kind, text, one), (_, _, other) in zip(first, second, strict=True):
        assert one.words == spoken[texts.index(text)].words, kind
        assert np.array_equal(one.audio.samples, other.audio.samples)


def test_refusals_are_counted_with_and_without_word_times() -> None:
    """The share refused is told in percent; without word times their reason does not count."""
    right = checks.Case("right", "one two", Transcript(text="one two", displacement_seconds=0.5), 1.0, 0.1)
    wrong = checks.Case("right", "one two", Transcript(text="one"), 1.0, 0.1)
    assert checks.refused([right, wrong], 0.0, word_times=False) == "50.0 %"
    assert checks.refused([right, wrong], 0.0, word_times=True) == "100.0 %"
    assert checks.refused([], 0.0, word_times=True) == "-"
    assert checks.pace([right, wrong]) == pytest.approx(0.1)


def test_sentences_are_as_long_as_chunks() -> None:
    """Short cries and endless periods are left out, paragraphs are never joined."""
    text = "Stop!\nThe fire burned brightly. And the soft radiance shone on.\n" + "word " * 100 + "."
    assert checks.sentences(text) == ["The fire burned brightly.", "And the soft radiance shone on."]


def test_tables_are_written_between_the_marks(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """The rest of the document stays, however often it is written."""
    document = tmp_path / "checks.md"
    document.write_text(f"before\n{checks.BEGIN}\nold\n{checks.END}\nafter\n")
    monkeypatch.setattr(checks, "DOCUMENT", document)
    for _ in range(2):
        checks.write(["new"])
    assert document.read_text() == f"before\n{checks.BEGIN}\n\nnew\n\n{checks.END}\nafter\n"


def test_the_interval_of_a_share() -> None:
    """Ten of a hundred: 5.5 to 17.4 % (the textbook example); never below nothing or above all."""
    low, high = checks.wilson(10, 100)
    assert (round(low, 4), round(high, 4)) == (0.0552, 0.1744)
    assert checks.wilson(0, 50)[0] == 0.0 and checks.wilson(50, 50)[1] == 1.0
