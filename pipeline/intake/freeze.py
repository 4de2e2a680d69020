"""What a claimed file asks for, with its settings frozen: parse, cascade, resolve the voice.

Knows job files, folder defaults and the voice library; moves nothing and knows no ledger. Invariant: a
JobSpec holds every setting in full, so that later changes of defaults or voices do not reach it.
"""

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path, PurePosixPath

from pipeline.config import Config
from pipeline.errors import InputError, SpecError
from pipeline.files import ENVIRONMENT_ERRNOS, display, open_beneath
from pipeline.intake.ignore import DEFAULTS_NAMES
from pipeline.jobs.job import Drop, JobSpec, Need, VoiceChoice
from pipeline.jobs.settings import Kind, Settings
from pipeline.jobs.spec import (
    AUDIO_SUFFIXES,
    Request,
    as_set,
    cascade,
    complete,
    looks_like_clip,
    normalised,
    parse_defaults,
    parse_job_file,
    problems_of,
)
from pipeline.layout import Layout
from pipeline.space import need_of_recordings, need_of_text, recording_seconds
from pipeline.strict_yaml import read
from pipeline.voices import Library, LibraryVoice
from pipeline.web_address import is_url, shown

SAMPLE_BYTES = 1 << 20
"so much of a text tells how long the rest will take"


class Freezer:
    """Turns claimed files into job specifications."""

    def __init__(self, layout: Layout, config: Config) -> None:
        self._layout = layout
        self._config = config
        self._library = Library(layout.voices)

    def specs(self, drop: Drop) -> Iterator[JobSpec]:
        """What a claimed drop asks for, one specification a job; raises InputError."""
        folder = self._layout.source_folder(drop.id, drop.mode)
        kind = PurePosixPath(drop.relative).suffix.lower()
        layers = self.folder_layers(drop.folder)
        for request in _requests(folder, drop.name, kind):
            for name in request.references:
                try:
                    _require(folder, name).close()
                except FileNotFoundError as error:
                    raise _missing(self._layout.inbox / drop.folder, name) from error
            yield self._freeze(request, layers, folder)

    def _freeze(self, request: Request, layers: Mapping[str, Settings], folder: Path) -> JobSpec:
        """The cascade: job file, voice, folders upward, configuration."""
        below = (*layers.values(), self._config.defaults)
        named = cascade(request.settings, *below).voice
        library_voice = self._library_voice(named, request)
        own = (library_voice.defaults,) if library_voice else ()
        settings = cascade(request.settings, *own, *below)
        problems = problems_of(settings)
        if problems:
            raise InputError(" ".join(problems), code="settings", hint="Mend these settings.")
        # a conversion needs the recording itself, never an engine's stand-in for it
        user = "conversion" if request.kind == "vc" else settings.engine
        origin = _who_set_voice(request, layers, self._config.defaults)
        try:
            voice = self._voice(named if request.kind != "concat" else None, library_voice, user, folder)
        except InputError as error:
            if origin:
                error.hint = f"{error.hint} The voice is set in {origin}.".strip()
            raise
        seed = settings.seed or _seed_for(settings, voice)
        settings = complete(settings.model_copy(update={"seed": seed, "voice": named}))
        return JobSpec(
            kind=request.kind,
            settings=settings,
            voice=voice,
            text=request.text,
            file=request.file,
            parts=request.parts,
            crossfade_ms=request.crossfade_ms,
            level=request.level,
            voice_from=origin,
            synthesis_set=tuple(
                as_set(cascade(request.settings, *own, *layers.values())).get("synthesis", {})
            ),
            need=_need(request, settings, folder),
        )

    def _library_voice(self, named: str | None, request: Request) -> LibraryVoice | None:
        if named is None or request.kind == "concat":
            return None
        if looks_like_clip(named):
            _refuse_foreign_clip(named, request)
            return None
        return self._library.find(named)

    def _voice(
        self, named: str | None, library_voice: LibraryVoice | None, user: str, folder: Path
    ) -> VoiceChoice:
        if named is None and user == "conversion":
            raise InputError(
                "A recording was dropped, but no voice is set for it to be converted to.",
                code="voice_missing",
                hint="Put recordings into a subfolder with a _defaults.yaml that says `voice: NAME`,"
                " NAME.wav (or .flac, .mp3, ...) being a clip of that voice in the voices folder.",
            )
        if named is None:
            return VoiceChoice(name="")
        if library_voice is not None:
            return self._library.choice(library_voice, user)
        if is_url(named):
            return VoiceChoice(name=named, clip=named)  # fetched, and hashed, by the worker
        if looks_like_clip(named):
            with _require(folder, normalised(named)) as clip:
                digest = hashlib.file_digest(clip, "sha256").hexdigest()
            return VoiceChoice(name=named, clip=normalised(named), clip_sha256=digest)
        if user != "espeak":
            near = self._library.nearest(named)
            raise InputError(
                f"There is no voice {named} in the voices folder.",
                code="voice_unknown",
                hint=f"Did you mean {near[0]}?" if near else f"Put {named}.wav into the voices folder.",
            )
        return VoiceChoice(name=named)

    def folder_layers(self, folder: PurePosixPath) -> dict[str, Settings]:
        """`_defaults.yaml` of the folder and of each above it, nearest first, by path."""
        layers = {}
        for place in (folder, *folder.parents):
            for name in DEFAULTS_NAMES:
                if os.path.lexists(self._layout.inbox / place / name):
                    layers[str(place / name)] = _defaults(self._layout.inbox, str(place / name))
        return layers


def _who_set_voice(request: Request, layers: Mapping[str, Settings], configured: Settings) -> str:
    """Where the voice comes from, if the job did not name one itself."""
    if request.settings.voice is not None:
        return ""
    files = (name for name, layer in layers.items() if layer.voice is not None)
    return next(files, "config.yaml" if configured.voice is not None else "")


def kind_of(name: str) -> Kind:
    """The kind of job that a dropped text or recording is."""
    return "vc" if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES else "tts"


def _requests(folder: Path, name: str, suffix: str) -> tuple[Request, ...]:
    """What a claimed file asks for."""
    if suffix in (".yaml", ".yml"):
        return parse_job_file(read_yaml(folder, name), display(name))
    return (Request(kind=kind_of(name), settings=Settings(), file=name),)


def read_yaml(root: Path, relative: str) -> bytes:
    """The bytes of a YAML file beneath `root`; raises SpecError if they are too many."""
    with open_beneath(root, relative) as stream:
        return read(stream, display(PurePosixPath(relative).name))


def _require(folder: Path, name: str) -> BufferedReader:
    """A file that a job names, opened; it may not be a link to somewhere else."""
    try:
        return open_beneath(folder, name)
    except OSError as error:
        if error.errno == errno.ENOENT or error.errno in ENVIRONMENT_ERRNOS:
            raise
        raise _unreadable(name, error) from error


def _need(request: Request, settings: Settings, folder: Path) -> Need:
    """How much room the job will take up, from its text or from the size of its recordings."""
    if request.text is not None:
        return need_of_text(request.text, settings)
    named = [request.file, *(part.file for part in request.parts)]
    files = [name for name in named if name and not is_url(name)]
    sizes, samples = [], []
    for name in files:
        with open_beneath(folder, name) as stream:
            sizes.append(os.fstat(stream.fileno()).st_size)
            samples.append(stream.read(SAMPLE_BYTES) if request.kind == "tts" else b"")
    if request.kind == "tts" and samples:
        part = max(1, len(samples[0])) / max(1, sizes[0])
        return need_of_text(samples[0].decode("utf-8", "replace"), settings, part=part)
    seconds = sum(recording_seconds(*item) for item in zip(files, sizes, strict=True))
    return need_of_recordings(seconds, settings)


def _missing(lay_in: Path, name: str) -> InputError:
    """Only files are claimed along with a job file: of what else lies there, the reason is told."""
    try:
        _require(lay_in, name).close()
    except InputError as error:
        return error
    except FileNotFoundError:
        pass
    return InputError(
        f"The job names {display(name)}, which did not arrive.",
        code="part_missing",
        hint="Drop both together. A clip that many jobs use belongs into the voices folder.",
    )


def _unreadable(name: str, error: OSError) -> InputError:
    return InputError(
        f"The job names {display(name)}, which cannot be read: {error.strerror}.",
        code="part_unreadable",
        hint="It must be an ordinary file, not a link.",
    )


def _defaults(inbox: Path, name: str) -> Settings:
    try:
        return parse_defaults(read_yaml(inbox, name), display(name))
    except OSError as error:
        raise SpecError(f"{display(name)} cannot be read: {error.strerror}.") from error


def _refuse_foreign_clip(named: str, request: Request) -> None:
    """A recording by its path must have come with the job file, or it may lie anywhere."""
    if request.settings.voice is None:
        what = "a web address" if is_url(named) else "a file"
        raise InputError(
            f"The voice {shown(named)} is {what}; only a job file can bring its voice.",
            code="voice_not_a_name",
            hint="Put the recording into the voices folder and give its name without the extension.",
        )


def _seed_for(settings: Settings, voice: VoiceChoice) -> int:
    """The seed for `seed: 0`: the same engine and voice get the same one, so that the cache can serve."""
    facts = [settings.engine, settings.language, voice.name, voice.clip_sha256]
    return zlib.crc32(json.dumps(facts).encode()) or 1
