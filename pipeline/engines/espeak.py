"""The embedded engine: espeak-ng, a formant synthesiser for a hundred languages, on the processor.

Knows which of its voices serves which language and what another try changes. It has no randomness:
`vary` changes rate, then voice variant, so that no try repeats another. Invariant: the same
utterance gives the same samples, and text is text, never markup.
"""

import difflib
import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.alive import Alive, unheeded
from pipeline.engines.base import Speaking, Utterance, Voice, one_by_one
from pipeline.errors import InputError, SynthesisError
from pipeline.jobs.settings import Synthesis
from pipeline.sound import espeak_library
from pipeline.sound.audio import Samples, Speech, Word, from_pcm16
from pipeline.sound.espeak_library import MAX_WORDS_PER_MINUTE, MIN_WORDS_PER_MINUTE
from pipeline.text.spell import spell_out

# The recogniser hears this variant best; see docs/checks.md.
DEFAULT_VARIANT = "f2"
# Variants for later tries, in order.
OTHER_VARIANTS = ("f3", "m3", "f4", "m7")
# Rates of later tries, as parts of the rate asked for; enough that five differ after clamping.
RATE_FACTORS = (1.0, 0.94, 1.06, 0.88, 1.12, 0.82, 1.18, 0.76, 1.24)
RATES_PER_VARIANT = 5

_USED_SETTINGS = frozenset({"words_per_minute", "pitch"})
# The British voice calls itself `en`; English without a country is American here.
_USUAL_LANGUAGE = {"en": "en-us"}
_SILENCE_AMPLITUDE = 40 / 32768
# A word of the text: dashes and ellipses part words, apostrophes and points do not.
_TOKEN = re.compile(r"[^\s—–…]+")
_EDGES = re.compile(r"^[^\w$€£¥%&+#]+|[^\w$€£¥%&+#]+$")


class EspeakEngine:
    """espeak-ng behind the Engine Protocol."""

    name = "espeak"
    device = "cpu"
    rate_hz = espeak_library.RATE_HZ
    random = False
    batch = 1

    def __init__(self) -> None:
        self.version = espeak_library.version()

    def problems(self, voice: Voice, language: str, synthesis: Synthesis) -> Sequence[str]:  # noqa: ARG002
        """Why it cannot speak so: a voice or language it does not have, or a recording to imitate."""
        if voice.clip is not None:
            return [
                "The engine espeak cannot imitate a recording; name one of its own voices (en-gb, de+m3) "
                "or choose another engine."
            ]
        try:
            voice_identifier(voice.name, language)
        except InputError as error:
            return [error.message]
        return []

    def ignored(self, synthesis: Synthesis) -> Sequence[str]:
        """Names of settings that were set and that a formant synthesiser has no use for."""
        return sorted(synthesis.model_fields_set - _USED_SETTINGS)

    def vary(self, utterance: Utterance, try_number: int) -> Utterance:
        """Try 1 unchanged; tries 2-5 at other rates; then the next variant at five rates, and so on.

        With 24 rungs after the first all of the 20 tries a job may ask for differ. Raises ValueError
        beyond them.
        """
        if try_number == 1:
            return utterance
        identifier = voice_identifier(utterance.voice.name, utterance.language)
        rungs = list(_ladder(identifier, utterance.synthesis.words_per_minute))
        if not 1 <= try_number <= len(rungs):
            raise ValueError(f"try {try_number} of {len(rungs)}")
        name, words_per_minute = rungs[try_number - 1]
        return Utterance(
            text=utterance.text,
            voice=Voice(name=name),
            language=utterance.language,
            synthesis=utterance.synthesis.model_copy(update={"words_per_minute": words_per_minute}),
            seed=utterance.seed,
        )

    def speak(self, utterance: Utterance) -> Speech:
        """Speak at 22,050 Hz with the times of the words, numbers and abbreviations read out in full.

        Raises SynthesisError where the text has no sound.
        """
        # Left to itself espeak-ng reads $3.50 as "dollar three point five zero" and kg as letters.
        text = espeak_library.only_text(spell_out(utterance.text, utterance.language))
        spoken = espeak_library.synthesise(
            text,
            voice_identifier(utterance.voice.name, utterance.language),
            words_per_minute=utterance.synthesis.words_per_minute,
            pitch=utterance.synthesis.pitch,
        )
        audio = from_pcm16(spoken.pcm, self.rate_hz)
        if not spoken.words or not np.any(np.abs(audio.samples) > _SILENCE_AMPLITUDE):
            raise SynthesisError(
                f"espeak has no sound for this text: {utterance.text[:60]!r}.",
                hint="It may hold nothing but signs, or letters that this language's voice does not know.",
            )
        return Speech(audio=audio, words=tuple(_timed_words(text, spoken, audio.samples)))

    def speak_all(self, utterances: Sequence[Utterance], alive: Alive = unheeded) -> Speaking:
        """One by one: it has one core and needs a millisecond."""
        return one_by_one(self, utterances, alive)

    def close(self) -> None:
        """Nothing to free: the library is not kept in memory between calls."""


def voice_identifier(name: str, language: str) -> str:
    """What the library calls the voice that a job names, or its usual one for `language` if `name` is empty.

    `name` is a language code, a voice's own name or its identifier, with `+variant` after it if
    wished, in any case. Raises InputError with the nearest names.
    """
    base, plus, variant = name.partition("+")
    if not base and not plus:
        return f"{_for_language(language)}+{DEFAULT_VARIANT}"
    identifier = _named(base) if base else _for_language(language)
    return f"{identifier}+{_variant(variant)}" if plus else identifier


@functools.cache
def _codes() -> dict[str, str]:
    """Identifier of the usual voice for each language code, lower case."""
    ranked = sorted(
        ((rank, order, code, voice.identifier)
         for order, voice in enumerate(espeak_library.voices())
         for code, rank in voice.languages),
        reverse=True,
    )  # fmt: skip
    return {code: identifier for _, _, code, identifier in ranked}


@functools.cache
def _names() -> dict[str, str]:
    """Identifier of each voice by its own name or identifier, lower case."""
    voices = espeak_library.voices()
    return {v.name.lower(): v.identifier for v in voices} | {
        v.identifier.lower(): v.identifier for v in voices
    }


def _for_language(language: str) -> str:
    """The voice for the longest part of a tag like `de-AT` that has one."""
    tag = language.lower()
    while tag:
        usual = _USUAL_LANGUAGE.get(tag, tag)
        if usual in _codes():
            return _codes()[usual]
        tag = tag.rpartition("-")[0]
    raise InputError(f"The engine espeak does not speak {language}{_nearest(language, sorted(_codes()))}.")


def _named(name: str) -> str:
    wanted = name.lower()
    usual = _codes().get(_USUAL_LANGUAGE.get(wanted, wanted))
    identifier = usual or _names().get(wanted)
    if identifier is None:
        known = [*sorted(_codes()), *sorted(_names())]
        raise InputError(f"The engine espeak has no voice {name}{_nearest(name, known)}.")
    return identifier


def _variant(name: str) -> str:
    by_lower_case = {variant.lower(): variant for variant in espeak_library.variants()}
    if name.lower() not in by_lower_case:
        known = sorted(espeak_library.variants())
        raise InputError(f"The engine espeak has no voice variant {name}{_nearest(name, known)}.")
    return by_lower_case[name.lower()]


def _nearest(wanted: str, known: Sequence[str]) -> str:
    """The end of a sentence that names up to three near names, or nothing."""
    near = difflib.get_close_matches(wanted.lower(), known, n=3, cutoff=0.5)
    return f"; the nearest it has: {', '.join(near)}" if near else ""


def _ladder(identifier: str, words_per_minute: int) -> Iterator[tuple[str, int]]:
    """(voice, rate) of each try, the first as asked for, no two alike."""
    base, _, own = identifier.partition("+")
    names = [identifier, *(f"{base}+{variant}" for variant in OTHER_VARIANTS if variant != own)]
    rates = list(_rates(words_per_minute))[:RATES_PER_VARIANT]
    for name in names:
        for rate in rates:
            yield name, rate


def _rates(words_per_minute: int) -> Iterator[int]:
    seen = set()
    for factor in RATE_FACTORS:
        rate = min(MAX_WORDS_PER_MINUTE, max(MIN_WORDS_PER_MINUTE, round(words_per_minute * factor)))
        if rate not in seen:
            seen.add(rate)
            yield rate


def _timed_words(text: str, spoken: espeak_library.Spoken, samples: Samples) -> Iterator[Word]:
    """When each word of the text was spoken; a word ends with its own sound, before any pause."""
    starts = _first_samples(text, spoken)
    borders = np.array(sorted({*starts.values(), *spoken.clause_ends, len(samples)}))
    for (start, end), first in starts.items():
        after = borders[borders > first]
        last = _sound_end(samples, first, int(after[0]) if len(after) else len(samples))
        word = _EDGES.sub("", text[start:end])
        yield Word(
            text=word,
            start_seconds=first / espeak_library.RATE_HZ,
            end_seconds=last / espeak_library.RATE_HZ,
        )


def _first_samples(text: str, spoken: espeak_library.Spoken) -> dict[tuple[int, int], int]:
    """First sample of each spoken token, by the token's place in the text, in order."""
    tokens = [match.span() for match in _TOKEN.finditer(text)]
    firsts: dict[tuple[int, int], int] = {}
    at = 0
    for position, sample in spoken.words:
        # espeak places some words just before their token (after an opening quote or a space).
        while at < len(tokens) - 1 and position >= tokens[at][1]:
            at += 1
        if tokens and _EDGES.sub("", text[slice(*tokens[at])]):
            firsts.setdefault(tokens[at], sample)
    return firsts


def _sound_end(samples: Samples, first: int, limit: int) -> int:
    heard = np.flatnonzero(np.abs(samples[first:limit]) > _SILENCE_AMPLITUDE)
    return first + int(heard[-1]) + 1 if len(heard) else limit
