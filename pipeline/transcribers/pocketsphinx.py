"""The embedded recogniser: pocketsphinx, biased to the text that the speech should say.

It listens twice or three times. First it decodes with a bigram model of the expected words; if that
finds other words than expected, it decodes once more with a wider search. Then it lays the expected
words over the sound and asks of each how well it fits: a word that was decoded but does not fit is
doubted and taken out, one that was not decoded but fits well is put back. Knows English only.
Invariant: each word of the transcript is borne out by the sound, not by the expectation.
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
from typing import Any

import numpy as np
from pocketsphinx import Config, Decoder, get_model_path
from rapidfuzz.distance import Levenshtein

from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, Samples, Speech, Word, to_pcm16
from pipeline.sound.resample import resample
from pipeline.text.spoken import spoken_words
from pipeline.transcribers.pronunciation import Pronunciations
from pipeline.verify import Transcript

RATE_HZ = 16_000
FRAMES_PER_SECOND = 100

# The recogniser loses the first short word of speech that starts at the first sample, and its search
# breaks down on digital silence; a little noise before, after and beneath mends both.
LEAD_SECONDS = 0.25
NOISE_AMPLITUDE = 1e-3
LEVEL = 0.1
"root mean square to which speech is brought"
MAX_GAIN = 30.0
SILENT_AMPLITUDE = 3e-4
"speech whose loudest 20 ms stay below this is silence"

# How well a word fits the sound: log10 of its acoustic likelihood a frame against the best phones there.
# A decoded word that fits worse than this is not what is heard there; by length in frames, since a word
# laid over sound that lacks it is squeezed, and one of middling length has the least to show for itself.
DOUBTED_SCORES = ((10, -2.0), (15, -2.3), (30, -2.0), (math.inf, -1.9))
BORNE_OUT_SCORE = -1.5
"an expected word that fits better is there, even if the decoder took another path"
USUAL_FIT = -0.75
"median of a sentence by a voice that the model hears well; a worse one shifts both bounds, as far as:"
MAX_SHIFT = -0.5

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
class Piece:
    """A stretch of sound that the recogniser gave to a word or, if `word` is empty, to silence or noise."""

    word: str
    first_frame: int
    end_frame: int
    score: float
    "log10 likelihood a frame, 0 at best"


class PocketsphinxTranscriber:
    """pocketsphinx behind the Transcriber Protocol."""

    name = "pocketsphinx"
    max_word_error_rate = 0.0

    def __init__(self) -> None:
        self.version = f"{package_version('pocketsphinx')}-2"
        self._pronunciations = Pronunciations()
        self._folder = tempfile.TemporaryDirectory(prefix="voxspool-")

    def supports(self, language: str) -> bool:
        """English of any country."""
        return language.lower().partition("-")[0] == "en"

    def transcribe(self, speech: Speech, expected: str, language: str) -> Transcript:
        """Listen; raises SynthesisError for a language it has no model for."""
        if not self.supports(language):
            raise SynthesisError(f"pocketsphinx has no model for the language {language}.")
        wanted = spoken_words(expected, language)
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

    def close(self) -> None:
        """Remove its temporary folder."""
        self._folder.cleanup()

    def _listen(self, sound: Audio, wanted: Sequence[str]) -> Transcript:
        pcm = to_pcm16(with_lead(sound)).tobytes()
        ways = self._pronunciations.of(wanted)
        files = self._write_models(wanted, ways)
        decoder = _decoder(files, thorough=False)
        decoded, looks = _pieces(decoder, pcm), 1
        fitted = _fitted(decoder, pcm, [word for word in wanted if ways[word]])
        if _words(decoded) != list(wanted):
            again, looks = _pieces(_decoder(files, thorough=True), pcm), 2
            decoded = min(decoded, again, key=lambda pieces: Levenshtein.distance(wanted, _words(pieces)))
        heard, doubted = reconcile(wanted, decoded, fitted)
        return _transcript(sound, wanted, heard, doubted, fitted, ways, looks)

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
    if len(audio.samples) == 0 or loudness(audio).max() < SILENT_AMPLITUDE:
        return None
    frames = loudness(audio)
    speaking = frames[frames > 0.1 * frames.max()]
    gain = min(MAX_GAIN, LEVEL / float(np.sqrt(np.mean(speaking**2))))
    return Audio(np.clip(audio.samples * np.float32(gain), -1, 1), audio.rate_hz)


def loudness(audio: Audio) -> Samples:
    """Root mean square of each 10 ms, shape (ceil(seconds * 100),)."""
    step = audio.rate_hz // FRAMES_PER_SECOND
    count = math.ceil(len(audio.samples) / step)
    padded = np.zeros(count * step, dtype=np.float32)
    padded[: len(audio.samples)] = audio.samples
    return np.asarray(np.sqrt(np.mean(padded.reshape(count, step) ** 2, axis=1)), dtype=np.float32)


def with_lead(audio: Audio) -> Audio:
    """The sound with a lead-in, a lead-out and faint noise, always the same."""
    lead = round(LEAD_SECONDS * audio.rate_hz)
    noise = np.random.default_rng(0).normal(0, NOISE_AMPLITUDE, len(audio.samples) + 2 * lead)
    samples = noise.astype(np.float32)
    samples[lead : lead + len(audio.samples)] += audio.samples
    return Audio(samples, audio.rate_hz)


def reconcile(
    wanted: Sequence[str], decoded: Sequence[Piece], fitted: Sequence[Piece]
) -> tuple[list[Piece], list[str]]:
    """What was heard, and the words that were decoded but are doubted.

    `fitted` has the expected words laid over the sound, or is empty if they cannot be.
    """
    pieces = [piece for piece in decoded if piece.word]
    fits = [piece for piece in fitted if piece.word]
    if [piece.word for piece in fits] != list(wanted):
        return pieces, []
    shift = max(MAX_SHIFT, min(0.0, median(fit.score for fit in fits) - USUAL_FIT))
    heard: list[Piece] = []
    doubted: list[str] = []
    for code in Levenshtein.opcodes(wanted, [piece.word for piece in pieces]):
        there = fits[code.src_start : code.src_end]
        taken = pieces[code.dest_start : code.dest_end]
        if code.tag == "equal":
            heard += [fit for fit in there if not is_doubted(fit, shift)]
            doubted += [fit.word for fit in there if is_doubted(fit, shift)]
        elif code.tag != "insert" and all(fit.score >= BORNE_OUT_SCORE + shift for fit in there):
            heard += there
        else:
            heard += taken
    return heard, doubted


def is_doubted(fit: Piece, shift: float = 0.0) -> bool:
    """Whether a word laid over the sound fits too badly to be there, for a voice that fits `shift` worse."""
    frames = fit.end_frame - fit.first_frame
    return fit.score < shift + next(bound for limit, bound in DOUBTED_SCORES if frames < limit)


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

    None where the engine reports no times or fewer than three words can be compared.
    """
    if not reported:
        return None
    starts = [(part, word.start_seconds, at == 0)
              for word in reported for at, part in enumerate(spoken_words(word.text, language))]  # fmt: skip
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
    fitted: Sequence[Piece], ways: Mapping[str, Sequence[str]], looks: int,
) -> Transcript:  # fmt: skip
    frames = loudness(sound)
    sounding = frames > 0.03 * LEVEL
    return Transcript(
        text=" ".join(piece.word for piece in heard),
        words=tuple(_word(piece) for piece in heard),
        looks=looks,
        doubted=tuple(doubted),
        fits=bool(fitted),
        sounding_seconds=round(float(sounding.sum()) / FRAMES_PER_SECOND, 2),
        expected_seconds=_expected_seconds(wanted, heard, ways),
        longest_pause_seconds=round(longest_pause(sounding) / FRAMES_PER_SECOND, 2),
    )


def longest_pause(sounding: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """Frames of the longest run of silence between two sounds."""
    at = np.flatnonzero(sounding)
    return int(np.diff(at).max()) - 1 if len(at) > 1 else 0


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


def _fitted(decoder: Decoder, pcm: bytes, words: Sequence[str]) -> list[Piece]:
    """The words laid over the sound in order; empty if no path through it says them all."""
    if not words:
        return []
    decoder.set_align_text(" ".join(words))
    return _pieces(decoder, pcm)


def _pieces(decoder: Decoder, pcm: bytes) -> list[Piece]:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    return [
        Piece(
            "" if segment.word[0] in "<[" else _ALTERNATE.sub("", segment.word),
            segment.start_frame,
            segment.end_frame + 1,
            # Likelihoods of long bad words run out of a double's range.
            math.log10(max(segment.ascore, 1e-308)) / (segment.end_frame - segment.start_frame + 1),
        )
        for segment in decoder.seg() or ()
    ]


def _words(pieces: Iterable[Piece]) -> list[str]:
    return [piece.word for piece in pieces if piece.word]
