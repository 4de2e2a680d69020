"""The embedded recogniser's parts: pronunciations, models, sound, and how its looks are brought together."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pocketsphinx import Decoder, get_model_path

from pipeline.engines import load
from pipeline.engines.base import Utterance, Voice
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Audio, Speech, Word
from pipeline.transcribers.pocketsphinx import (
    BORNE_OUT_SCORE,
    DOUBTED_PAIR_SCORE,
    DOUBTED_SCORES,
    LEAD_SECONDS,
    LEVEL,
    MANNERS,
    RIVALS,
    SHORT_CHUNK_WORDS,
    Look,
    Piece,
    PocketsphinxTranscriber,
    bigram_model,
    displacement_seconds,
    doubts,
    level,
    longest_pause,
    loudness,
    weigh,
    with_lead,
)
from pipeline.transcribers.pronunciation import Pronunciations, arpabet

# Pieces here last 20 frames.
DOUBTED_SCORE = dict(DOUBTED_SCORES)[30]
WORDS = st.lists(
    st.sampled_from(["the", "time", "traveller", "said", "that", "it", "was", "so", "i", "a"]),
    min_size=1,
    max_size=25,
)


def tone(amplitude: float, seconds: float = 1.0, rate_hz: int = 16_000) -> Audio:
    """A sine that stands for speech."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return Audio((amplitude * np.sin(2 * np.pi * 200 * time)).astype(np.float32), rate_hz)


def pieces(text: str, score: float = -0.7, **scores: float) -> list[Piece]:
    """One piece of 20 frames a word, with this score or the one given for the word."""
    return [
        Piece(word, 20 * at, 20 * at + 20, scores.get(word, score)) for at, word in enumerate(text.split())
    ]


def texts(found: list[Piece]) -> str:
    """The words of pieces."""
    return " ".join(piece.word for piece in found)


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("həlˈoʊ", "HH AH L OW"),
        ("mˈɔːɹlɑːks", "M AO R L AA K S"),
        ("tʃˈɜːnɪŋ", "CH ER N IH NG"),
        ("dʒˈʌɡd", "JH AH G D"),
        ("bˈʌʔn̩", "B AH T AH N"),
        ("lˈɪɾəl", "L IH T AH L"),
        ("fˈaɪɚ", "F AY ER"),
        ("", ""),
        ("ˈˌ (en)", "EH N"),
    ],
)
def test_ipa_to_arpabet(ipa: str, phones: str) -> None:
    """Longest signs first; stress and unknown signs leave nothing behind."""
    assert arpabet(ipa) == phones


def test_only_phones_of_the_model() -> None:
    """Every pronunciation is made of phones the acoustic model has, for names and for foreign words too."""
    model = Path(get_model_path("en-us/en-us"), "mdef").read_bytes()
    known = set(re.findall(rb"[A-Z]{1,2}", model[:4000]))
    odd = [
        "xanthippe",
        "zürich",
        "loch",
        "nguyen",
        "señor",
        "façade",
        "bjørk",
        "ångström",
        "reykjavik",
        "łódź",
        "œuvre",
        "rendezvous",
    ]
    for ways in Pronunciations().of(odd).values():
        assert ways
        assert {phone.encode() for way in ways for phone in way.split()} <= known


def test_known_words_keep_their_dictionary_pronunciations() -> None:
    """The dictionary's ways come first, espeak-ng's is added, and nothing stands twice."""
    ways = Pronunciations().of(["tomato", "the", "the"])
    assert set(ways) == {"tomato", "the"}
    assert ways["tomato"][:2] == ("T AH M EY T OW", "T AH M AA T OW")
    assert all(len(set(said)) == len(said) for said in ways.values())


def test_unknown_words_come_from_espeak() -> None:
    """A name that no dictionary has can be listened for."""
    assert Pronunciations().of(["morlocks"]) == {"morlocks": ("M AO R L AA K S",)}


def test_words_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A book's names do not cost a call to the library in every chunk."""
    asked: list[list[str]] = []
    from pipeline.sound import espeak_library

    real = espeak_library.phonemes
    monkeypatch.setattr(
        espeak_library, "phonemes", lambda words, voice: asked.append(words) or real(words, voice)
    )
    found = Pronunciations()
    found.of(["weena", "eloi"])
    found.of(["weena", "eloi"])
    found.of(["weena", "filby"])
    assert asked == [["eloi", "weena"], ["filby"]]


@given(WORDS)
def test_bigram_model_adds_up(words: list[str]) -> None:
    """Successors of each word share 0.9, single words share 1, and the counts in the head are right."""
    model = bigram_model(words)
    singles, pairs = model.split("\\1-grams:\n")[1].split("\n\n\\2-grams:\n")
    lines = [line.split() for line in pairs.split("\n\n")[0].splitlines()]
    for first in {line[1] for line in lines}:
        assert sum(10 ** float(line[0]) for line in lines if line[1] == first) == pytest.approx(0.9, abs=1e-3)
    single = [line.split() for line in singles.splitlines()]
    assert sum(10 ** float(line[0]) for line in single) == pytest.approx(1, abs=1e-3)
    assert f"ngram 1={len(single)}" in model
    assert f"ngram 2={len(lines)}" in model


def test_bigram_model_is_read_by_the_decoder(tmp_path: Path) -> None:
    """The file is an ARPA model as pocketsphinx wants it, rivals included."""
    (tmp_path / "m.lm").write_text(bigram_model(["the", "time", "traveller"], ("a", "it")))
    (tmp_path / "m.dict").write_text("the DH AH\ntime T AY M\ntraveller T R AE V L ER\na AH\nit IH T\n")
    decoder = Decoder(lm=str(tmp_path / "m.lm"), dict=str(tmp_path / "m.dict"), loglevel="FATAL")
    language_model = decoder.get_lm()
    assert language_model.prob(["time", "the"]) > language_model.prob(["the", "time"])


@pytest.mark.parametrize("amplitude", [0.005, 0.05, 0.5, 1.0])
def test_level_is_the_same_whatever_came_in(amplitude: float) -> None:
    """Quiet and loud speech reach the recogniser alike, pauses not counted."""
    quiet = np.zeros(16_000, dtype=np.float32)
    spoken = Audio(np.concatenate([tone(amplitude).samples, quiet]), 16_000)
    found = level(spoken)
    assert found is not None
    assert np.sqrt(np.mean(found.samples[:16_000] ** 2)) == pytest.approx(LEVEL, rel=0.05)


def test_silence_has_no_level() -> None:
    """Nothing, digital silence and the faintest hiss are not brought up to speech."""
    assert level(Audio(np.zeros(0, dtype=np.float32), 16_000)) is None
    assert level(Audio(np.zeros(16_000, dtype=np.float32), 16_000)) is None
    assert level(tone(1e-4)) is None


def test_faint_sound_is_not_blown_up_without_end() -> None:
    """The gain is bounded, so that hiss stays hiss."""
    found = level(tone(0.001))
    assert found is not None
    assert np.abs(found.samples).max() < 0.05


def test_loudness_covers_every_sample() -> None:
    """One value for each 10 ms, the last piece included."""
    assert len(loudness(Audio(np.ones(161, dtype=np.float32), 16_000))) == 2
    assert loudness(Audio(np.ones(160, dtype=np.float32), 16_000)) == pytest.approx(1.0)


def test_lead_is_quiet_and_always_the_same() -> None:
    """The speech stands in the middle, the noise is the same in every run."""
    sound = tone(0.3)
    first, second = with_lead(sound), with_lead(sound)
    lead = round(LEAD_SECONDS * 16_000)
    assert np.array_equal(first.samples, second.samples)
    assert len(first.samples) == len(sound.samples) + 2 * lead
    assert np.abs(first.samples[:lead]).max() < 0.01
    assert np.abs(first.samples[lead:-lead] - sound.samples).max() < 0.01
    assert len({with_lead(sound, manner).samples.tobytes() for manner in MANNERS}) == len(MANNERS)


@pytest.mark.parametrize(
    ("pattern", "frames"),
    [("", 0), ("000", 0), ("1", 0), ("111", 0), ("0110", 0), ("1001", 2), ("10110001", 3)],
)
def test_longest_pause_lies_between_sounds(pattern: str, frames: int) -> None:
    """Silence before and after the speech is no pause in it."""
    assert longest_pause(np.array([digit == "1" for digit in pattern], dtype=bool)) == frames


def look(decoded: str, fitted: list[Piece]) -> Look:
    """A look that decoded these words and laid the expected ones over the sound so."""
    return Look(tuple(pieces(decoded)), tuple(fitted))


def test_decoded_words_that_fit_are_heard() -> None:
    """Decoding and fit agree in the first look, as is usual."""
    text = "the time traveller said"
    heard, doubted = weigh(text.split(), [look(text, pieces(text))])
    assert texts(heard) == text
    assert doubted == []


def test_decoded_words_that_do_not_fit_are_doubted() -> None:
    """A word that the expectation alone put there is taken out again and named."""
    text = "the time traveller said"
    heard, doubted = weigh(text.split(), [look(text, pieces(text, time=DOUBTED_SCORE - 0.1))])
    assert texts(heard) == "the traveller said"
    assert doubted == ["time"]


def test_a_second_look_may_dispel_a_doubt() -> None:
    """A word that fits in one of the looks is heard."""
    text = "the time traveller said"
    bad, good = pieces(text, time=-3.0), pieces(text, time=-1.6)
    assert weigh(text.split(), [look(text, bad), look(text, good)])[1] == []
    assert weigh(text.split(), [look(text, bad), look(text, bad)])[1] == ["time"]


@pytest.mark.parametrize("decoded", ["the traveller said", "the dime traveller said"])
def test_words_that_fit_well_are_heard_though_not_decoded(decoded: str) -> None:
    """What the decoder lost or took for another word is heard if its sound is there in every look."""
    text = "the time traveller said"
    good, fair = pieces(text, time=BORNE_OUT_SCORE + 0.1), pieces(text, time=BORNE_OUT_SCORE - 0.1)
    assert texts(weigh(text.split(), [look(decoded, good)])[0]) == text
    assert texts(weigh(text.split(), [look(decoded, fair)])[0]) == decoded
    assert texts(weigh(text.split(), [look(decoded, good), look(decoded, fair)])[0]) == decoded


def test_the_decoding_that_is_nearest_counts() -> None:
    """A better second decoding replaces the first."""
    text = "the time traveller said"
    fair = pieces(text, time=-1.6)
    heard, _ = weigh(text.split(), [look("the dime traveller", fair), look("the time traveller said", fair)])
    assert texts(heard) == text


def test_extra_words_stay() -> None:
    """A word said twice is not argued away by how well the text fits."""
    text = "the time traveller said"
    heard, _ = weigh(text.split(), [look("the time time traveller said", pieces(text))])
    assert texts(heard) == "the time time traveller said"


@pytest.mark.parametrize("fitted", ["", "the time"])
def test_without_a_fit_the_decoder_stands(fitted: str) -> None:
    """If the text cannot be laid over the sound, nothing is put back and nothing doubted."""
    heard, doubted = weigh("the time traveller".split(), [look("time flies", pieces(fitted))])  # noqa: SIM905
    assert texts(heard) == "time flies"
    assert doubted == []


@pytest.mark.parametrize("frames", [3, 9, 10, 14, 15, 29, 30, 200])
def test_every_length_has_its_bound(frames: int) -> None:
    """Words of every length can be doubted and believed."""
    assert doubts([Piece("it", 0, frames, -2.4)]) == [True]
    assert doubts([Piece("it", 0, frames, -1.7)]) == [False]


def test_two_middling_neighbours_are_doubted_together() -> None:
    """What garbles a stretch spoils several words a little; one middling word alone is believed."""
    middling = DOUBTED_PAIR_SCORE - 0.1
    assert doubts(pieces("it was so late", was=middling)) == [False] * 4
    assert doubts(pieces("it was so late", was=middling, so=middling)) == [False, True, True, False]


@given(WORDS, WORDS, st.floats(-10, 0))
def test_what_is_heard_was_decoded_or_fits(wanted: list[str], decoded: list[str], score: float) -> None:
    """No word of the transcript comes from the expectation alone."""
    heard, _ = weigh(wanted, [look(" ".join(decoded), pieces(" ".join(wanted), score))])
    if score < DOUBTED_SCORE:
        assert len(heard) <= len(decoded)
    borne_out = set(wanted) if score >= BORNE_OUT_SCORE else set()
    assert set(texts(heard).split()) <= set(decoded) | borne_out


@pytest.fixture
def speech_of() -> Callable[[str], Speech]:
    """Speech by the embedded engine's usual voice."""

    def speak(text: str) -> Speech:
        said = Utterance(text=text, voice=Voice(name=""), language="en", synthesis=Synthesis(), seed=1)
        return load("espeak").speak(said)

    return speak


def test_right_speech_takes_one_look_and_doubtful_speech_three(speech_of: Callable[[str], Speech]) -> None:
    """Time is spent where something is not as expected."""
    speech = speech_of("The fire burned brightly.")
    transcriber = PocketsphinxTranscriber()
    assert transcriber.transcribe(speech, "The fire burned brightly.", "en").looks == 1
    assert transcriber.transcribe(speech, "The fire burned.", "en").looks == len(MANNERS)
    transcriber.close()


def test_the_and_of_a_number_is_listened_for(speech_of: Callable[[str], Speech]) -> None:
    """The comparison leaves it out, but a voice says it."""
    text = "It was the year Eight Hundred and Two, and I was alone."
    transcriber = PocketsphinxTranscriber()
    heard = transcriber.transcribe(speech_of(text), text, "en")
    assert heard.text == "it was the year eight hundred and two and i was alone"
    transcriber.close()


def words_at(text: str, *starts: float) -> list[Word]:
    """Words of 0.2 s at these starts."""
    return [
        Word(text=word, start_seconds=start, end_seconds=start + 0.2)
        for word, start in zip(text.split(), starts, strict=True)
    ]


def test_displacement_of_words_in_place_is_small() -> None:
    """Times that agree are told as agreeing, and one stray word does not count."""
    reported = words_at("In 1895 we met Weena there", 0.0, 0.5, 1.5, 2.0, 2.5, 3.0)
    heard = words_at("in eighteen ninety five we met weena there", 0.02, 0.5, 0.8, 1.1, 1.52, 3.9, 2.5, 3.02)
    assert displacement_seconds(reported, heard, "en") == pytest.approx(0.02, abs=0.005)


def test_displacement_after_a_cut() -> None:
    """Words after a cut lie earlier than the engine said."""
    reported = words_at("one day we met weena there again", 0, 1, 2, 3, 4, 5, 6)
    heard = words_at("one we met weena there again", 0, 1, 2, 3, 4, 5)
    assert displacement_seconds(reported, heard, "en") == 1.0


@pytest.mark.parametrize("reported", [None, [], words_at("one two", 0, 1)])
def test_displacement_needs_words_to_compare(reported: list[Word] | None) -> None:
    """Without reported times, or with too few, it is not measured."""
    assert displacement_seconds(reported, words_at("one two", 0, 1), "en") is None


def test_rivals_are_told_from_the_expected() -> None:
    """A homophone of an expected word does not compete with it."""
    transcriber = PocketsphinxTranscriber()
    ways = transcriber._pronunciations.of(["no", "two"])
    assert {"know", "to"}.isdisjoint(transcriber._rivals(ways))
    assert len(transcriber._rivals(ways)) > len(RIVALS) - 10
    transcriber.close()


def test_words_without_any_sound_are_never_heard() -> None:
    """A long chunk in a script the model cannot say is listened to all the same, and not heard."""
    transcriber = PocketsphinxTranscriber()
    transcriber._pronunciations._from_espeak.update(dict.fromkeys(("ꙮ", "ꙭ"), ""))
    text = "ꙮ ꙭ " * SHORT_CHUNK_WORDS
    heard = transcriber.transcribe(Speech(audio=tone(0.3)), text, "en")
    assert not {"ꙮ", "ꙭ"} & set(heard.text.split())
    transcriber.close()


def test_a_decoder_that_breaks_down_is_a_synthesis_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the library becomes a sentence, so that the take is tried again."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("failed to decode")

    monkeypatch.setattr("pipeline.transcribers.pocketsphinx.Decoder", broken)
    transcriber = PocketsphinxTranscriber()
    with pytest.raises(SynthesisError, match="could not listen"):
        transcriber.transcribe(Speech(audio=tone(0.3)), "hello", "en")
    transcriber.close()


def test_close_leaves_no_files() -> None:
    """The folder for its models is removed."""
    transcriber = PocketsphinxTranscriber()
    folder = Path(transcriber._folder.name)
    transcriber.transcribe(Speech(audio=tone(0.3)), "hello there", "en")
    assert list(folder.iterdir())
    transcriber.close()
    assert not folder.exists()
