"""The three Chatterbox engines: English, multilingual and Turbo, neural voices that imitate a recording.

Knows what each may be asked, and the ladder of settings that later tries climb; the package itself is known
to `pipeline/chatterbox` alone. Invariant: a voice is the job's own, given anew with every chunk.
"""

import re
import unicodedata
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pipeline.ahead import Ahead
from pipeline.alive import Alive, unheeded
from pipeline.chatterbox.models import BUILTIN_VOICE, ENGLISH, MULTILINGUAL, TURBO, Family
from pipeline.chatterbox.speaker import LEAST_GUIDANCE, Asked, Outcome, Said
from pipeline.engines.base import Speaking, Spoken, Utterance, Voice
from pipeline.equipment import Equipment
from pipeline.errors import SynthesisError
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Audio, Speech

RATE_HZ = 24_000
LONGEST_TEXT = 800
"characters; at the fastest that people speak these take 40 s"
MAX_CFG_WEIGHT = 1.0

LANGUAGES = {
    "ar": "Arabic",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "ms": "Malay",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sv": "Swedish",
    "sw": "Swahili",
    "tr": "Turkish",
    "zh": "Chinese",
}
_OTHER_TAGS = {"nb": "no", "nn": "no", "iw": "he", "cmn": "zh", "yue": "zh"}
CHINESE_FILE = "Cangjie5_TC.json"

# Tokens that mean something to the model and must not come out of a text.
_SIGNS = re.compile(r"\[(START|STOP|UNK|SPACE|PAD|SEP|CLS|MASK)\]|<\|(endoftext)\|>")
_LANGUAGE_SIGNS = re.compile(rf"\[({'|'.join(LANGUAGES)}|cj_.{{1,3}})\]", re.IGNORECASE)
_DOUBLE_QUOTES = re.compile('["“”„‟«»]')
# Tries from here on are made with ever calmer settings; the second has those that were asked for.
FIRST_CALMER_TRY = 3
_TEMPERATURE_STEP, _TEMPERATURE_FLOOR = 0.05, 0.4
_EXAGGERATION_STEP, _EXAGGERATION_FLOOR = 0.05, 0.25
_CFG_STEP, _CFG_CEILING = 0.04, 0.8
_TOP_P_STEP, _TOP_P_FLOOR = 0.02, 0.7
_PENALTY_STEP, _PENALTY_CEILING = 0.05, 2.0


class Speaks(Protocol):
    """What an engine needs of a loaded model (`chatterbox.speaker.Speaker`)."""

    version: str
    watermark: str
    folder: Path

    def speak(self, asked: Asked) -> Said:
        """Say it."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class Slots(Protocol):
    """What an engine needs to speak several at once (`chatterbox.batched.Batched`)."""

    @property
    def at_once(self) -> int:
        """How many it is best given at once."""
        ...

    def speak_all(self, asked: Sequence[Asked], alive: Alive) -> Iterator[Outcome]:
        """Say all."""
        ...

    def close(self) -> None:
        """Free what it holds beside the model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one of the engines differs from the others."""

    family: Family
    languages: frozenset[str]
    settings: tuple[str, ...]
    "of `synthesis`: those that its `generate` takes and heeds"
    prepare: Callable[[str], str]
    "what is done to a text before it is spoken"


class ChatterboxEngine:
    """A Chatterbox model behind the Engine Protocol."""

    rate_hz = RATE_HZ
    random = True

    def __init__(
        self, manner: Manner, speaker: Speaks, equipment: Equipment, slots: Slots | None = None
    ) -> None:
        """`slots`: where several are spoken at once; without, the package speaks them one by one."""
        self.name = manner.family.name
        self.mode = equipment.engine_mode
        self.version = f"{speaker.version}, {self.mode}{', int8' if equipment.int8 else ''}"
        self.watermark = speaker.watermark
        self.device = equipment.device
        self._manner, self._speaker, self._slots = manner, speaker, slots
        self._ahead = Ahead(self.name)

    @property
    def batch(self) -> int:
        """How many utterances it is best given at once."""
        return 1 if self._slots is None else self._slots.at_once

    def problems(self, voice: Voice, language: str, synthesis: Synthesis) -> Sequence[str]:
        """Why it cannot speak so: a language or voice it lacks, a setting out of its range."""
        return [
            *self._language_problems(language),
            *self._voice_problems(voice),
            *self._setting_problems(synthesis),
        ]

    def ignored(self, synthesis: Synthesis) -> Sequence[str]:
        """Names of settings that were set and that this model does not heed."""
        return sorted(synthesis.model_fields_set - set(self._manner.settings))

    def vary(self, utterance: Utterance, try_number: int) -> Utterance:
        """Tries 1 and 2 as asked, later ones calmer; each is given a seed of its own besides."""
        if try_number < FIRST_CALMER_TRY:
            return utterance
        steps = try_number - FIRST_CALMER_TRY + 1
        return replace(utterance, synthesis=calmer(utterance.synthesis, steps, heeded=self._manner.settings))

    def speak(self, utterance: Utterance) -> Speech:
        """Speak at 24 kHz; raises SynthesisError where the text has no words or nothing usable came out."""
        (spoken,) = self.speak_all([utterance])
        if isinstance(spoken.outcome, SynthesisError):
            raise spoken.outcome
        return spoken.outcome

    def speak_all(self, utterances: Sequence[Utterance], alive: Alive = unheeded) -> Speaking:
        """All at once where there are slots for them, else one by one.

        In a thread of its own: the device does not wait while somebody looks after what it has made.
        """
        for done in self._ahead.run(lambda tell: self._said_all(utterances, tell), alive):
            outcome, said = done.made, done.made.said
            speech = said if isinstance(said, SynthesisError) else _speech_of(said)
            yield Spoken(outcome.index, speech, done.seconds)

    def _said_all(self, utterances: Sequence[Utterance], alive: Alive) -> Generator[Outcome, None, None]:
        asked: dict[int, Asked] = {}
        for index, utterance in enumerate(utterances):
            try:
                asked[index] = self._asked(utterance)
            except SynthesisError as error:
                yield Outcome(index, error)
        if self._slots is None:
            yield from self._one_by_one(asked)
            return
        places = list(asked)
        for outcome in self._slots.speak_all(list(asked.values()), alive):
            yield Outcome(places[outcome.index], outcome.said)

    def _one_by_one(self, asked: Mapping[int, Asked]) -> Iterator[Outcome]:
        for index, one in asked.items():
            try:
                yield Outcome(index, self._speaker.speak(one))
            except SynthesisError as error:
                yield Outcome(index, error)

    def _asked(self, utterance: Utterance) -> Asked:
        """What the model is asked for; SynthesisError for what it must not be asked."""
        text = self._manner.prepare(plain(utterance.text))
        if not any(character.isalnum() for character in text):
            # Given no text at all the model speaks a sentence of its own.
            raise SynthesisError(
                f"There is nothing to say in {utterance.text[:60]!r}: no letter and no digit.",
                hint="Put some words into it.",
                code="no_speech",
            )
        if len(text) > LONGEST_TEXT:
            raise SynthesisError(
                f"{len(text)} characters take longer than the 40 s after which the model is cut off.",
                hint="Make chunks.max_chars smaller: 300 or fewer are spoken well.",
                code="length_limit",
            )
        voice = utterance.voice
        return Asked(
            text=text,
            clip=voice.clip,
            clip_sha256=voice.clip_sha256,
            exaggeration=utterance.synthesis.exaggeration,
            seed=utterance.seed,
            settings=self._arguments(utterance),
        )

    def close(self) -> None:
        """Free the model."""
        self._ahead.close()
        if self._slots is not None:
            self._slots.close()
            self._slots = None  # it holds parts of the model
        self._speaker.close()

    def _arguments(self, utterance: Utterance) -> dict[str, Any]:
        """What the model's `generate` is called with beside the text."""
        arguments: dict[str, Any] = {
            name: float(getattr(utterance.synthesis, name)) for name in self._manner.settings
        }
        if "cfg_weight" in arguments:
            arguments["cfg_weight"] = max(LEAST_GUIDANCE, arguments["cfg_weight"])
        if self._manner.family is MULTILINGUAL:
            arguments["language_id"] = model_language(utterance.language)
        return arguments

    def _language_problems(self, language: str) -> list[str]:
        known = model_language(language)
        if known not in self._manner.languages:
            offered = ", ".join(sorted(self._manner.languages))
            other = "" if self._manner.family is MULTILINGUAL else "; chatterbox-multilingual speaks 23"
            return [f"The engine {self.name} does not speak {language}, only {offered}{other}."]
        if known == "zh" and not (self._speaker.folder / CHINESE_FILE).is_file():
            return [f"For Chinese the engine {self.name} needs {CHINESE_FILE} in {self._speaker.folder}."]
        return []

    def _voice_problems(self, voice: Voice) -> list[str]:
        if voice.clip is not None:
            return []
        if voice.name:
            return [
                f"The engine {self.name} has no voice {voice.name}: it imitates recordings, so name one, or"
                " none for its own voice."
            ]
        if not (self._speaker.folder / BUILTIN_VOICE).is_file():
            return [
                f"The engine {self.name} has no voice of its own here ({BUILTIN_VOICE} is missing in"
                f" {self._speaker.folder}): name a recording."
            ]
        return []

    def _setting_problems(self, synthesis: Synthesis) -> list[str]:
        if "cfg_weight" in self._manner.settings and synthesis.cfg_weight > MAX_CFG_WEIGHT:
            return [
                f"synthesis.cfg_weight is {synthesis.cfg_weight:g}; the engine {self.name} takes 0 to"
                f" {MAX_CFG_WEIGHT:g}."
            ]
        return []


def calmer(asked: Synthesis, steps: int, *, heeded: Sequence[str]) -> Synthesis:
    """`asked`, `steps` steps nearer to what speaks most reliably; never wilder than asked. Pure."""

    def down(value: float, step: float, floor: float) -> float:
        return round(max(value - step * steps, min(value, floor)), 4)

    def up(value: float, step: float, ceiling: float) -> float:
        return round(min(value + step * steps, max(value, ceiling)), 4)

    changed = {
        "temperature": down(asked.temperature, _TEMPERATURE_STEP, _TEMPERATURE_FLOOR),
        "exaggeration": down(asked.exaggeration, _EXAGGERATION_STEP, _EXAGGERATION_FLOOR),
        "cfg_weight": up(asked.cfg_weight, _CFG_STEP, _CFG_CEILING),
        "top_p": down(asked.top_p, _TOP_P_STEP, _TOP_P_FLOOR),
        "repetition_penalty": up(asked.repetition_penalty, _PENALTY_STEP, _PENALTY_CEILING),
    }
    return asked.model_copy(update={name: value for name, value in changed.items() if name in heeded})


def model_language(tag: str) -> str:
    """The model's own code of a BCP 47 tag: `de-AT` is de, `nb` is no."""
    primary = tag.split("-")[0].lower()
    return _OTHER_TAGS.get(primary, primary)


def plain(text: str) -> str:
    """Text without what a tokenizer cannot take or would take for a sign of its own."""
    printable = "".join(
        " " if unicodedata.category(character) in ("Cc", "Cs") else character for character in text
    )
    return _SIGNS.sub(lambda found: found[1] or found[2], printable)


def _as_it_is(text: str) -> str:
    return text


def without_language_signs(text: str) -> str:
    """The multilingual tokenizer takes [de] in a text for a change of language."""
    return _LANGUAGE_SIGNS.sub(lambda found: found[1], text)


def without_double_quotes(text: str) -> str:
    """Turbo sighs at quotation marks (resemble-ai/chatterbox issue 433); tags in brackets stay."""
    return _DOUBLE_QUOTES.sub("", text)


_ALL = ("temperature", "exaggeration", "cfg_weight", "min_p", "top_p", "repetition_penalty")
MANNERS = {
    manner.family.name: manner
    for manner in (
        Manner(family=ENGLISH, languages=frozenset({"en"}), settings=_ALL, prepare=_as_it_is),
        Manner(
            family=MULTILINGUAL,
            languages=frozenset(LANGUAGES),
            settings=_ALL,
            prepare=without_language_signs,
        ),
        Manner(
            family=TURBO,
            languages=frozenset({"en"}),
            settings=("temperature", "top_p", "repetition_penalty"),
            prepare=without_double_quotes,
        ),
    )
}


def load(name: str, equipment: Equipment) -> ChatterboxEngine:
    """One of the three, loaded; raises what `chatterbox.models.load` raises."""
    from pipeline.chatterbox.speaker import Speaker

    manner = MANNERS[name]
    speaker = Speaker.load(manner.family, equipment)
    if equipment.engine_mode == "upstream":
        return ChatterboxEngine(manner, speaker, equipment)
    from pipeline.chatterbox.batched import Batched

    slots = Batched(speaker, equipment.engine_mode, int8=equipment.int8)
    return ChatterboxEngine(manner, speaker, equipment, slots)


def _speech_of(said: Said) -> Speech:
    return Speech(audio=Audio(said.samples, RATE_HZ), fault=said.fault)
