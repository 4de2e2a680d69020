"""What people write, parsed: job files, folder defaults, voice sheets, and the cascade between them.

Knows YAML models, file names and web addresses, reads no file. Invariants: every problem of a file
is told at once with its line; a reference to a file never leads out of the job file's folder.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.errors import InputError, SpecError
from pipeline.jobs.job import Part
from pipeline.jobs.settings import Conversion, Kind, Settings, Sound, Strict
from pipeline.strict_yaml import Document, Path_, load_documents, summary, validate
from pipeline.web_address import is_url, parse, shown

AUDIO_SUFFIXES = frozenset({".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"})
TEXT_SUFFIXES = frozenset({".txt", ".md"})
MAX_DOCUMENTS = 1000
# Where an https address may stand instead of a file.
_FETCHED: tuple[Path_, ...] = (("voice",), ("audio",))
MAX_BROKEN_LINE_CHARS = 1000
_OWN_COMPUTER = re.compile(r"[A-Za-z]:|~[^/]*/")
# Where a job file names files: behind these keys, as items of a list, and in a list between brackets.
_NAMED_IN_BROKEN = re.compile(
    r"""(?:\b(?:text_file|audio|file|voice)["']?\s*:\s*|^\s*-\s+(?!\w+\s*:))["']?(?P<name>[^"'\[\]{},#:]+)"""
    r"""|\[(?P<list>[^\[\]{}]+)"""
)
Reference = Annotated[str, Field(min_length=1, max_length=4000)]


class TtsFile(Settings):
    """A `kind: tts` document."""

    kind: Literal["tts"] = "tts"
    text: Annotated[str, Field(min_length=1)] | None = None
    text_file: Reference | None = None


class VcSound(Sound):
    """`audio:` of a `kind: vc` document: the recording, and what is done to the result."""

    file: Reference


class VcFile(Settings):
    """A `kind: vc` document."""

    kind: Literal["vc"]
    audio: VcSound


class PartEntry(Strict):
    """One of `parts`: a file or a silence."""

    file: Reference | None = None
    silence_ms: Annotated[int, Field(ge=10, le=60_000)] | None = None


class ConcatFile(Settings):
    """A `kind: concat` document."""

    kind: Literal["concat"]
    parts: Annotated[tuple[PartEntry, ...], Field(min_length=1, max_length=10_000, strict=False)]
    crossfade_ms: Annotated[int, Field(ge=0, le=5000)] = 0
    level: bool = True


class VoiceSheet(Strict):
    """`voices/<name>.yaml`."""

    description: str = ""
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")] | None = None
    espeak: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    "the espeak-ng voice that stands in for this one on the embedded engine"
    defaults: Settings = Settings()


JobFile = TtsFile | VcFile | ConcatFile
KINDS: Mapping[str, type[JobFile]] = {"tts": TtsFile, "vc": VcFile, "concat": ConcatFile}
# Keys of a job document that are no settings and take no part in the cascade.
_OWN_KEYS = frozenset({"kind", "text", "text_file", "parts", "crossfade_ms", "level"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One job as it was asked for, before the cascade."""

    kind: Kind
    settings: Settings
    "with only the keys set that the job file set"
    text: str | None = None
    file: str | None = None
    "text file or recording, relative to the job file's folder, normalised, or a recording's https address"
    parts: tuple[Part, ...] = ()
    crossfade_ms: int = 0
    level: bool = True

    @property
    def references(self) -> tuple[str, ...]:
        """Files that it names, relative to the job file's folder; what is fetched is none of them."""
        voice = self.settings.voice
        named = [self.file, *(part.file for part in self.parts)]
        named += [normalised(voice)] if voice is not None and looks_like_clip(voice) else []
        return tuple(dict.fromkeys(name for name in named if name is not None and not is_url(name)))


def parse_job_file(data: bytes, name: str) -> tuple[Request, ...]:
    """Every job of a job file; raises SpecError with the problems of all its documents."""
    documents = load_documents(data, name)
    if not documents:
        raise SpecError(f"{name} holds no job.", hint="docs/job-file.md shows a complete one.")
    if len(documents) > MAX_DOCUMENTS:
        raise SpecError(f"{name} holds {len(documents)} jobs; a file may hold {MAX_DOCUMENTS}.")
    requests: list[Request] = []
    problems: list[str] = []
    for document in documents:
        try:
            requests.append(_request(document))
        except SpecError as error:
            problems += error.problems or (error.message,)
    if problems:
        raise SpecError(
            summary(name, problems),
            problems=tuple(problems),
            hint="docs/job-file.md lists every key.",
        )
    return tuple(requests)


def parse_defaults(data: bytes, name: str) -> Settings:
    """A `_defaults.yaml`; an empty one sets nothing."""
    document = _single(data, name)
    defaults = validate(Settings, document)
    if defaults.voice is not None and looks_like_clip(defaults.voice):
        what = "a web address" if is_url(defaults.voice) else "a file"
        raise SpecError(
            document.problem(
                ("voice",), f"{shown(defaults.voice)} is {what}; only a job file can bring its voice."
            ),
            hint="Put the recording into the voices folder and give its name without the extension.",
        )
    return defaults


def parse_voice_sheet(data: bytes, name: str) -> VoiceSheet:
    """A `voices/<name>.yaml`."""
    document = _single(data, name)
    sheet = validate(VoiceSheet, document)
    if sheet.defaults.voice is not None:
        raise SpecError(document.problem(("defaults", "voice"), "a voice cannot name another voice."))
    return sheet


def _single(data: bytes, name: str) -> Document:
    documents = load_documents(data, name)
    if len(documents) > 1:
        raise SpecError(f"{name} holds {len(documents)} YAML documents; it may hold one.")
    return documents[0] if documents else Document(name, {}, {})


def _request(document: Document) -> Request:
    model = _model_for(document)
    document = _expand(document)
    problems = [*_kind_problems(document), *_reference_problems(document)]
    try:
        parsed = validate(model, document)
    except SpecError as error:
        told = error.problems or (error.message,)
        raise SpecError(error.message, problems=(*told, *problems)) from error
    if problems:
        raise SpecError("\n".join(problems), problems=tuple(problems))
    return _as_request(parsed)


def _model_for(document: Document) -> type[JobFile]:
    value = document.value
    kind = value.get("kind", "tts") if isinstance(value, dict) else "tts"
    if not isinstance(kind, str) or kind not in KINDS:
        raise SpecError(document.problem(("kind",), f"expected tts, vc or concat, found {kind!r}."))
    return KINDS[kind]


def _expand(document: Document) -> Document:
    """Short forms written out: `audio: x.wav` in a vc job, a bare file name among `parts`."""
    value = document.value
    if not isinstance(value, dict):
        return document
    value = dict(value)
    if value.get("kind") == "vc" and isinstance(value.get("audio"), str):
        value["audio"] = {"file": value["audio"]}
    if isinstance(value.get("parts"), list):
        value["parts"] = [{"file": part} if isinstance(part, str) else part for part in value["parts"]]
    return replace(document, value=value)


def _kind_problems(document: Document) -> Iterator[str]:
    """What the model alone cannot say: which keys belong together."""
    value = document.value
    if not isinstance(value, dict):
        return
    if value.get("kind", "tts") == "tts":
        given = [key for key in ("text", "text_file") if value.get(key) is not None]
        if len(given) != 1:
            said = "has both text and text_file" if given else "has neither text nor text_file"
            yield document.problem((), f"a tts job needs exactly one of text and text_file; this one {said}.")
    parts = value.get("parts")
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, dict) and (part.get("file") is None) == (part.get("silence_ms") is None):
            yield document.problem(("parts", index), "needs either file or silence_ms.")


def _reference_problems(document: Document) -> Iterator[str]:
    for path, reference in _named(document.value if isinstance(document.value, dict) else {}):
        problem = _why_refused(reference, path)
        if problem:
            yield document.problem(path, problem)


def _named(value: dict[str, Any]) -> Iterator[tuple[Path_, str]]:
    """Every file name in a raw document, so that a wrong one is told beside all other problems."""
    candidates: list[tuple[Path_, Any]] = [(("text_file",), value.get("text_file"))]
    sound = value.get("audio")
    candidates.append((("audio",), sound.get("file") if isinstance(sound, dict) else None))
    parts = value.get("parts")
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        candidates.append((("parts", index), part.get("file") if isinstance(part, dict) else None))
    voice = value.get("voice")
    candidates.append((("voice",), voice if isinstance(voice, str) and looks_like_clip(voice) else None))
    yield from ((path, name) for path, name in candidates if isinstance(name, str) and name)


def _why_refused(reference: str, path: Path_) -> str | None:
    if is_url(reference):
        return _why_not_fetched(reference, path)
    if "\0" in reference or "\\" in reference:
        return f"{reference!r} is no file name; separate folders by a forward slash."
    if _OWN_COMPUTER.match(reference):
        return (
            f"{reference} is a path on somebody's own computer; put the file beside the job file and name it"
            " here without drive or home folder."
        )
    pure = PurePosixPath(reference)
    if pure.is_absolute() or ".." in pure.parts:
        return f"{reference} leads out of the job file's folder; files must lie beside or below the job file."
    if any(part.startswith(".") for part in pure.parts):
        return f"{reference} names a hidden file; rename it."
    wanted = TEXT_SUFFIXES if path == ("text_file",) else AUDIO_SUFFIXES
    if pure.suffix.lower() not in wanted:
        return f"{reference} must end in one of {', '.join(sorted(wanted))}."
    return None


def names_in_broken(data: bytes) -> tuple[str, ...]:
    """Files that a job file seems to name of which no sense can be made otherwise, normalised.

    They belong to it all the same: without it they would be taken for jobs of their own.
    """
    lines = data.decode("utf-8", "replace").splitlines()
    found = (_NAMED_IN_BROKEN.finditer(line) for line in lines if len(line) <= MAX_BROKEN_LINE_CHARS)
    names = (
        name.strip(" \t\"'")
        for match in chain.from_iterable(found)
        for name in (match["name"] or match["list"]).split(",")
    )
    return tuple(dict.fromkeys(normalised(name) for name in dict.fromkeys(names) if _is_reference(name)))


def _is_reference(name: str) -> bool:
    is_text = PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES
    return not is_url(name) and _why_refused(name, ("text_file",) if is_text else ("parts",)) is None


def _why_not_fetched(url: str, path: Path_) -> str | None:
    if path not in _FETCHED:
        return (
            f"{shown(url)} is a web address; only `voice` and `audio` may be one."
            " Put the file beside the job file and name it here."
        )
    try:
        parse(url)
    except InputError as error:
        return error.message
    return None


def looks_like_clip(voice: str) -> bool:
    """Whether a `voice:` names a file or an address rather than a voice by name."""
    return is_url(voice) or PurePosixPath(voice).suffix.lower() in AUDIO_SUFFIXES


def normalised(reference: str) -> str:
    """`./a//b.wav` as `a/b.wav`, in NFC: editors and disks disagree on how é is spelled. A URL stays."""
    if is_url(reference):
        return reference
    return unicodedata.normalize("NFC", str(PurePosixPath(reference)))


def _as_request(parsed: JobFile) -> Request:
    settings = _settings_of(parsed)
    if isinstance(parsed, VcFile):
        return Request(kind="vc", settings=settings, file=normalised(parsed.audio.file))
    if isinstance(parsed, ConcatFile):
        parts = tuple(
            Part(file=normalised(p.file) if p.file is not None else None, silence_ms=p.silence_ms)
            for p in parsed.parts
        )
        return Request(
            kind="concat",
            settings=settings,
            parts=parts,
            crossfade_ms=parsed.crossfade_ms,
            level=parsed.level,
        )
    file = normalised(parsed.text_file) if parsed.text_file is not None else None
    return Request(kind="tts", settings=settings, text=parsed.text, file=file)


def _settings_of(parsed: JobFile) -> Settings:
    """Only the cascading keys, and of those only what the file set."""
    values = {key: value for key, value in as_set(parsed).items() if key not in _OWN_KEYS}
    if isinstance(parsed, VcFile):
        values["audio"] = {key: value for key, value in values["audio"].items() if key != "file"}
    return Settings.model_validate(values)


def as_set(settings: Settings) -> dict[str, Any]:
    """The keys that somebody set, as nested plain values."""
    return settings.model_dump(exclude_unset=True, by_alias=True)


def cascade(*layers: Settings) -> Settings:
    """One Settings from several, the first winning key by key. Lists are taken whole."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(merged, as_set(layer))
    return Settings.model_validate(merged)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        result[key] = _merge(below[key], value) if both else value
    return result


def complete(settings: Settings) -> Settings:
    """Every key written out, so that a later change of defaults cannot change a frozen job."""
    return Settings.model_validate(settings.model_dump(by_alias=True))


def problems_of(settings: Settings) -> Sequence[str]:
    """What is wrong between keys that are each right."""
    found = []
    if settings.chunks.min_chars > settings.chunks.max_chars:
        found.append("chunks.min_chars is larger than chunks.max_chars.")
    if settings.takes.max_tries < settings.takes.per_chunk:
        found.append("takes.max_tries is smaller than takes.per_chunk.")
    if _overlap_too_long(settings.conversion):
        found.append("conversion.overlap_seconds must be less than half of conversion.chunk_seconds.")
    if len(set(settings.output.formats)) != len(settings.output.formats):
        found.append("output.formats names a format twice.")
    return found


def _overlap_too_long(conversion: Conversion) -> bool:
    return conversion.overlap_seconds * 2 >= conversion.chunk_seconds
