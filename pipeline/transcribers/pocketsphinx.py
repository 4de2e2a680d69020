"""The embedded recogniser: pocketsphinx, biased to the text that the speech should say.

A look decodes the sound with a bigram model of the expected words, then lays the expected words over
it and asks of each how well it fits: a word that was decoded but does not fit is doubted and taken
out, one that was not decoded but fits well is put back. Where that is not yet the expected text, it
looks again, a little differently, up to twice. Knows English only. Invariant: each word of the
transcript is borne out by the sound, not by the expectation.
"""

import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from pocketsphinx import Config, Decoder, Segment, get_model_path
from rapidfuzz.distance import Levenshtein

from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, Speech, Word, to_pcm16
from pipeline.sound.resample import resample
from pipeline.text.spoken import spoken_words
from pipeline.transcribers.base import knows
from pipeline.transcribers.loudness import FRAMES_PER_SECOND, is_silent, longest_pause, loudness, speech_level
from pipeline.transcribers.pronunciation import Pronunciations
from pipeline.verify import Transcript

RATE_HZ = 16_000

# The recogniser loses the first short word of speech that starts at the first sample, and its search
# breaks down on digital silence; a little noise before, after and beneath mends both.
LEAD_SECONDS = 0.25
LEVEL = 0.1
"root mean square to which speech is brought"
MAX_GAIN = 30.0

# How well a word fits the sound: log10 of its acoustic likelihood a frame against the best phones there.
# A decoded word that fits worse than this is not what is heard there; by length in frames, since a word
# laid over sound that lacks it is squeezed, and one of middling length has the least to show for itself.
DOUBTED_SCORES = ((10, -2.0), (15, -2.3), (30, -2.0), (math.inf, -1.9))
DOUBTED_PAIR_SCORE = -1.4
"two neighbours that both fit worse are both doubted"
BORNE_OUT_SCORE = -1.3
"an expected word that fits better in every look is there, even if the decoder took another path"

# Words that compete with the expected ones in a short chunk, which would else be all there is to hear.
_RIVALS_TEXT = """
a about and any are back be been but can come could day did do down even first for from get give go
good had has have he her him his how i if in into is it its just know like look make man me more my
new no not now of on one only or other our out over people say see she so some take than that the
them then there they think this time to two up us want was way we well what when who will with work
would year yes you each high voice love hands must place long turn use church law
"""
RIVALS = tuple(_RIVALS_TEXT.split())
SHORT_CHUNK_WORDS = 8
MIN_COMPARED_WORDS = 3
"reported and heard, for a displacement"

_ALTERNATE = re.compile(r"\(\d+\)$")
# Where a word's confidence is put at one half.
_MIDDLING_SCORE = -2.0
_BACKOFF_MASS = 0.1
_LANGUAGE_WEIGHT = 12


@dataclass(frozen=True, slots=True)
class Manner:
    """How the recogniser looks: what it puts under the sound, and how widely it searches."""

    noise_amplitude: float
    late_samples: int
    "moved so far against the frames of 10 ms"
    thorough: bool
    "with the decoder's second pass"


MANNERS = (Manner(1e-3, 0, False), Manner(3e-3, 0, True), Manner(1e-3, 80, True))


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of sound that the recogniser gave to a word."""

    word: str
    first_frame: int
    end_frame: int
    score: float
    "log10 likelihood a frame, 0 at best"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found; words only."""

    decoded: tuple[Piece, ...]
    "the words that the decoder took the sound for"
    fitted: tuple[Piece, ...]
    "the expected words laid over the sound; empty if no path through it says them all"


class PocketsphinxTranscriber:
    """pocketsphinx behind the Transcriber Protocol."""

    name = "pocketsphinx"
    max_word_error_rate = 0.0
    languages = frozenset({"en"})
    batch = 1

    def __init__(self) -> None:
        self.version = f"{package_version('pocketsphinx')}-4"
        self._pronunciations = Pronunciations()
        self._folder = tempfile.TemporaryDirectory(prefix="voxspool-")

    def supports(self, language: str) -> bool:
        """English of any country."""
        return knows(self.languages, language)

    def transcribe(self, speech: Speech, expected: str, language: str) -> Transcript:
        """Listen; raises SynthesisError for a language it has no model for."""
        if not self.supports(language):
            raise SynthesisError(f"pocketsphinx has no model for the language {language}.")
        wanted = spoken_words(expected, language, every_and=True)
        sound = level(resample(speech.audio, RATE_HZ))
        if sound is None or not wanted:
            return Transcript(text="", sounding_seconds=0.0)
        try:
            heard = self._listen(sound, wanted)
        except RuntimeError as error:
            raise SynthesisError(
                f"pocketsphinx could not listen to {speech.audio.seconds:.1f} s: {error}."
            ) from error
        return replace(heard, displacement_seconds=displacement_seconds(speech.words, heard.words, language))

    def transcribe_all(self, spoken: Sequence[tuple[Speech, str]], language: str) -> list[Transcript]:
        """One after the other: each needs a language model of its own."""
        return [self.transcribe(speech, expected, language) for speech, expected in spoken]

    def normalise(self, text: str, language: str) -> str:  # noqa: ARG002
        """As it is: its transcripts are spoken words."""
        return text

    def close(self) -> None:
        """Remove its temporary folder."""
        self._folder.cleanup()

    def _listen(self, sound: Audio, wanted: Sequence[str]) -> Transcript:
        ways = self._pronunciations.of(wanted)
        files = self._write_models(wanted, ways)
        looks: list[Look] = []
        heard: list[Piece] = []
        doubted: list[str] = []
        for manner in MANNERS:
            looks.append(_look(sound, wanted, files, manner))
            heard, doubted = weigh(wanted, looks)
            if _texts(heard) == list(wanted) or not looks[0].fitted:
                break
        return _transcript(sound, wanted, heard, doubted, looks, ways)

    def _write_models(self, wanted: Sequence[str], ways: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
        sayable = [word for word in wanted if ways[word]]
        rivals = self._rivals(ways) if len(sayable) <= SHORT_CHUNK_WORDS else {}
        ways = {**rivals, **ways}
        dictionary = Path(self._folder.name, "words.dict")
        dictionary.write_text("".join(_dictionary_lines(ways)), encoding="utf-8")
        model = Path(self._folder.name, "words.lm")
        model.write_text(bigram_model(sayable, rivals), encoding="utf-8")
        return {"dict": str(dictionary), "lm": str(model)}

    def _rivals(self, ways: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
        """Common words that sound like none of the expected: nobody can hear `know` from `no`."""
        taken = {sound for said in ways.values() for sound in said}
        rivals = self._pronunciations.of(RIVALS)
        return {word: said for word, said in rivals.items() if taken.isdisjoint(said)}


def level(audio: Audio) -> Audio | None:
    """The sound at the level the recogniser's model was trained on; None for silence."""
    if is_silent(audio):
        return None
    gain = min(MAX_GAIN, LEVEL / speech_level(loudness(audio)))
    return Audio(np.clip(audio.samples * np.float32(gain), -1, 1), audio.rate_hz)


def with_lead(audio: Audio, manner: Manner = MANNERS[0]) -> Audio:
    """The sound with a lead-in, a lead-out and faint noise, always the same."""
    lead = round(LEAD_SECONDS * audio.rate_hz)
    random = np.random.default_rng(manner.late_samples)
    noise = random.normal(0, manner.noise_amplitude, len(audio.samples) + 2 * lead)
    samples = noise.astype(np.float32)
    first = lead + manner.late_samples
    samples[first : first + len(audio.samples)] += audio.samples
    return Audio(samples, audio.rate_hz)


def weigh(wanted: Sequence[str], looks: Sequence[Look]) -> tuple[list[Piece], list[str]]:
    """What was heard in all looks together, and the words that were decoded but are doubted.

    Counts the decoding that is nearest to what is wanted, and for each word the look in which it fits
    best; but what the decoder did not find must fit well in every look to be heard.
    """
    decoded = min((look.decoded for look in looks), key=lambda found: _distance(wanted, found))
    fits = [look.fitted for look in looks if _texts(look.fitted) == list(wanted)]
    if not fits:
        return list(decoded), []
    best = [max(same, key=lambda piece: piece.score) for same in zip(*fits, strict=True)]
    surely = [all(piece.score >= BORNE_OUT_SCORE for piece in same) for same in zip(*fits, strict=True)]
    unlike = doubts(best)
    heard: list[Piece] = []
    doubted: list[str] = []
    for code in Levenshtein.opcodes(wanted, _texts(decoded)):
        there = range(code.src_start, code.src_end)
        if code.tag == "equal":
            heard += [best[at] for at in there if not unlike[at]]
            doubted += [wanted[at] for at in there if unlike[at]]
        elif code.tag != "insert" and all(surely[at] for at in there):
            heard += [best[at] for at in there]
        else:
            heard += decoded[code.dest_start : code.dest_end]
    return heard, doubted


def doubts(fits: Sequence[Piece]) -> list[bool]:
    """For each word laid over the sound, whether it fits too badly to be there, alone or with a neighbour."""
    unlike = [fit.score < _doubted_score(fit) for fit in fits]
    for at, (one, other) in enumerate(pairwise(fits)):
        if max(one.score, other.score) < DOUBTED_PAIR_SCORE:
            unlike[at] = unlike[at + 1] = True
    return unlike


def _doubted_score(fit: Piece) -> float:
    frames = fit.end_frame - fit.first_frame
    return next(bound for limit, bound in DOUBTED_SCORES if frames < limit)


def bigram_model(words: Sequence[str], rivals: Iterable[str] = ()) -> str:
    """An ARPA language model: each observed successor shares 0.9, the rest backs off over all words."""
    vocabulary = sorted({*words, *rivals})
    successors: dict[str, Counter[str]] = defaultdict(Counter)
    sentence = ["<s>", *words, "</s>"]
    for word, after in pairwise(sentence):
        successors[word][after] += 1
    unigram = -math.log10(len(vocabulary) + 1)
    backoff = math.log10(_BACKOFF_MASS)
    pairs = [
        f"{math.log10((1 - _BACKOFF_MASS) * count / counts.total()):.4f} {word} {after}"
        for word, counts in successors.items()
        for after, count in counts.items()
    ]
    return "\n".join(
        [
            "\\data\\", f"ngram 1={len(vocabulary) + 2}", f"ngram 2={len(pairs)}", "",
            "\\1-grams:", f"-99 <s> {backoff:.4f}",
            *(f"{unigram:.4f} {word} {backoff:.4f}" for word in vocabulary), f"{unigram:.4f} </s>", "",
            "\\2-grams:", *pairs, "",
            "\\end\\", "",
        ]
    )  # fmt: skip


def displacement_seconds(
    reported: Sequence[Word] | None, heard: Sequence[Word], language: str
) -> float | None:
    """The farthest that five words in a row lie, at the median, from where the engine reported them.

    None where the engine reports no times or fewer than three words can be compared. Words are taken one
    by one, in lower case, since a lone `I` would be read as a number.
    """
    if not reported:
        return None
    starts = [
        (part, word.start_seconds, at == 0)
        for word in reported
        for at, part in enumerate(spoken_words(word.text.lower(), language))
    ]
    blocks = Levenshtein.opcodes([part for part, _, _ in starts], [word.text for word in heard])
    apart = [
        heard[code.dest_start + n].start_seconds - starts[code.src_start + n][1]
        for code in blocks
        if code.tag == "equal"
        for n in range(code.src_end - code.src_start)
        if starts[code.src_start + n][2]
    ]
    if len(apart) < MIN_COMPARED_WORDS:
        return None
    runs = [apart[at : at + 5] for at in range(max(1, len(apart) - 4))]
    return round(max(abs(median(run)) for run in runs), 3)


def _transcript(
    sound: Audio, wanted: Sequence[str], heard: Sequence[Piece], doubted: Sequence[str],
    looks: Sequence[Look], ways: Mapping[str, Sequence[str]],
) -> Transcript:  # fmt: skip
    frames = loudness(sound)
    sounding = frames > 0.03 * LEVEL
    return Transcript(
        text=" ".join(piece.word for piece in heard),
        words=tuple(_word(piece) for piece in heard),
        looks=len(looks),
        doubted=tuple(doubted),
        fits=bool(looks[0].fitted),
        sounding_seconds=round(float(sounding.sum()) / FRAMES_PER_SECOND, 2),
        expected_seconds=_expected_seconds(wanted, heard, ways),
        longest_pause_seconds=round(longest_pause(sounding) / FRAMES_PER_SECOND, 2),
    )


def _expected_seconds(
    wanted: Sequence[str], heard: Sequence[Piece], ways: Mapping[str, Sequence[str]]
) -> float | None:
    """How long the wanted words sound at the median pace of those heard, by number of phones."""
    phones = {word: len(said[0].split()) for word, said in ways.items() if said}
    paces = [(p.end_frame - p.first_frame) / phones[p.word] for p in heard if p.word in phones]
    if not paces:
        return None
    return round(median(paces) * sum(phones.get(word, 0) for word in wanted) / FRAMES_PER_SECOND, 2)


def _word(piece: Piece) -> Word:
    return Word(
        text=piece.word,
        start_seconds=round(piece.first_frame / FRAMES_PER_SECOND - LEAD_SECONDS, 2),
        end_seconds=round(piece.end_frame / FRAMES_PER_SECOND - LEAD_SECONDS, 2),
        confidence=round(1 / (1 + math.exp(4 * (_MIDDLING_SCORE - piece.score))), 3),
    )


def _dictionary_lines(ways: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for word, said in ways.items():
        for number, phones in enumerate(said, start=1):
            yield f"{word}{'' if number == 1 else f'({number})'} {phones}\n"


def _decoder(files: Mapping[str, str], *, thorough: bool) -> Decoder:
    """A decoder that holds these words only: made in 10 ms, where the whole dictionary takes seconds."""
    return Decoder(
        Config(
            hmm=get_model_path("en-us/en-us"),
            loglevel="FATAL",
            lw=_LANGUAGE_WEIGHT,
            fwdflat=thorough,
            **files,
        )
    )


def _look(sound: Audio, wanted: Sequence[str], files: Mapping[str, str], manner: Manner) -> Look:
    decoder = _decoder(files, thorough=manner.thorough)
    pcm = to_pcm16(with_lead(sound, manner)).tobytes()
    decoded = _pieces(decoder, pcm)
    sayable = [word for word in wanted if decoder.lookup_word(word) is not None]
    if not sayable:
        return Look(decoded, ())
    decoder.set_align_text(" ".join(sayable))
    return Look(decoded, _pieces(decoder, pcm))


def _pieces(decoder: Decoder, pcm: bytes) -> tuple[Piece, ...]:
    """The words found in the sound."""
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    return tuple(_piece(segment) for segment in decoder.seg() or () if segment.word[0] not in "<[")


def _piece(segment: Segment) -> Piece:
    frames = segment.end_frame - segment.start_frame + 1
    # Likelihoods of long bad words run out of a double's range.
    score = math.log10(max(segment.ascore, 1e-308)) / frames
    return Piece(_ALTERNATE.sub("", segment.word), segment.start_frame, segment.end_frame + 1, score)


def _texts(pieces: Iterable[Piece]) -> list[str]:
    return [piece.word for piece in pieces]


def _distance(wanted: Sequence[str], found: Iterable[Piece]) -> int:
    return Levenshtein.distance(wanted, _texts(found))
