"""The settings of a job, as people write them in YAML.

Strict: an unknown key, a wrong type or a value out of range is an error. Knows nothing of files or
of the cascade (`spec` does). Invariant: every key stands in `docs/job-file.md` at its default.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

MAX_SEED = 2**32 - 1


class Strict(BaseModel):
    """Base of everything written in YAML: no unknown keys, no silent conversions, no mutation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Kind = Literal["tts", "vc", "concat"]
Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"the most urgent first"


class Synthesis(Strict):
    """How the engine speaks. Each engine uses its own; the manifest warns of those it ignored."""

    exaggeration: Annotated[float, Field(ge=0, le=2)] = 0.5
    cfg_weight: Annotated[float, Field(ge=0, le=2)] = 0.5
    temperature: Annotated[float, Field(ge=0.05, le=5)] = 0.8
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.05
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(ge=1, le=2)] = 1.2
    words_per_minute: Annotated[int, Field(ge=80, le=450)] = 150
    "espeak only"
    pitch: Annotated[int, Field(ge=0, le=99)] = 50
    "espeak only; 50 is the voice's own"


class Replacement(Strict):
    """A literal text replacement, applied before anything else is done to the text."""

    from_: Annotated[str, Field(alias="from", min_length=1, max_length=200)]
    to: Annotated[str, Field(max_length=1000)]


class TextRules(Strict):
    """What is done to the text before it is cut into chunks."""

    lowercase: bool = False
    initials: bool = True
    "J.R.R. becomes J R R"
    citations: bool = True
    "[1] and [2, 3] are left out"
    replace: Annotated[tuple[Replacement, ...], Field(strict=False)] = ()


LEAST_MAX_CHARS = 40
LETTERS_WORTH = {"zh": 3, "yue": 3, "cmn": 3, "ja": 3, "ko": 2}
"""How many letters one character of a language is worth when it is spoken: English has some 14 characters a
second, Chinese 5, Japanese 5 to 6, Korean 8 to 9 (from the syllable rates of Coupe et al. 2019)."""


class Chunks(Strict):
    """How long the pieces are that the engine speaks at once, in characters."""

    max_chars: Annotated[int, Field(ge=LEAST_MAX_CHARS, le=2000)] = 280
    min_chars: Annotated[int, Field(ge=0, le=500)] = 20

    def spoken_in(self, language: str) -> "Chunks":
        """Limits in that language's own characters for pieces that last as long as with letters."""
        worth = LETTERS_WORTH.get(language.split("-")[0].lower(), 1)
        return Chunks(
            max_chars=max(LEAST_MAX_CHARS, self.max_chars // worth), min_chars=self.min_chars // worth
        )


class Takes(Strict):
    """How many takes of each chunk are made."""

    per_chunk: Annotated[int, Field(ge=1, le=10)] = 1
    "passing takes wanted; the shortest of them wins"
    max_tries: Annotated[int, Field(ge=1, le=20)] = 4
    "takes made at most"


class Check(Strict):
    """How each take is checked."""

    by: Literal["auto", "none", "whisper", "pocketsphinx"] = "auto"
    max_word_error_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    "null: the checker's own"
    on_failure: Literal["best", "fail"] = "best"
    "best: keep the best take and warn; fail: fail the job"


class Pauses(Strict):
    """Silence between chunks, in milliseconds."""

    sentence_ms: Annotated[int, Field(ge=0, le=10_000)] = 300
    paragraph_ms: Annotated[int, Field(ge=0, le=30_000)] = 800


class Sound(Strict):
    """What is done to the finished speech."""

    speed: Annotated[float, Field(ge=0.5, le=2.0)] = 1.0
    "tempo; pitch stays"
    trim: bool = True
    "cut silence at the edges of each chunk"
    loudness_lufs: Annotated[float, Field(ge=-50, le=-5)] | None = None
    "EBU R128 integrated loudness; null: left as it is"
    true_peak_db: Annotated[float, Field(ge=-20, le=0)] = -1.5
    "ceiling, dBTP"
    denoise: bool = False
    "remove steady background noise"


class Output(Strict):
    """What comes out, and under which name."""

    formats: Annotated[
        tuple[Literal["wav", "mp3", "flac", "opus", "m4a", "m4b"], ...], Field(min_length=1, strict=False)
    ] = ("mp3",)
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    "null: the dropped file's own name without its extension"


class Conversion(Strict):
    """Voice conversion (`kind: vc`)."""

    chunk_seconds: Annotated[float, Field(ge=5, le=300)] = 60.0
    overlap_seconds: Annotated[float, Field(ge=0, le=2)] = 0.1
    pitch_shift_semitones: Annotated[float, Field(ge=-24, le=24)] = 0.0


class Settings(Strict):
    """The settings that cascade: job file, voice, `_defaults.yaml`, `config.yaml`."""

    voice: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    engine: Literal["espeak", "chatterbox", "chatterbox-multilingual", "chatterbox-turbo"] = "espeak"
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")] = "en"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    "0: one is chosen and recorded"
    synthesis: Synthesis = Synthesis()
    text_rules: TextRules = TextRules()
    chunks: Chunks = Chunks()
    takes: Takes = Takes()
    check: Check = Check()
    pauses: Pauses = Pauses()
    audio: Sound = Sound()
    conversion: Conversion = Conversion()
    output: Output = Output()
    priority: Priority = "normal"
