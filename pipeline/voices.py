"""The voice library: reference clips and their sheets, by name.

Knows `voices/` and what a voice sheet says; loads no engine. Invariant: a name means the same clip
for the whole life of a job, because the clip's hash is frozen with it.
"""

import difflib
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, SpecError
from pipeline.files import display, sha256_of
from pipeline.jobs.job import VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.jobs.spec import AUDIO_SUFFIXES, VoiceSheet, as_set, parse_voice_sheet
from pipeline.strict_yaml import read

SHEET_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryVoice:
    """One voice of the library."""

    name: str
    clip: Path | None
    sheet: VoiceSheet

    @property
    def defaults(self) -> Settings:
        """The voice's own layer of the cascade."""
        values = as_set(self.sheet.defaults)
        if self.sheet.language is not None:
            values.setdefault("language", self.sheet.language)
        return Settings.model_validate(values)


class Library:
    """The voices folder, read anew at each question: it is small, and people edit it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[tuple[str, int, int], str] = {}

    def hash_of(self, clip: Path) -> str:
        """SHA-256 of a clip, remembered while its size and mtime stay; InputError if it cannot be read."""
        try:
            status = clip.stat()
            key = (str(clip), status.st_size, status.st_mtime_ns)
            if key not in self._hashes:
                self._hashes[key] = sha256_of(clip)
        except OSError as error:
            raise _unreadable(clip, error) from error
        return self._hashes[key]

    def choice(self, voice: "LibraryVoice", engine: str) -> VoiceChoice:
        """`voice` as `engine` can use it."""
        if engine == "espeak" and voice.sheet.espeak is not None:
            return VoiceChoice(name=voice.sheet.espeak)
        if engine == "espeak":
            raise InputError(
                f"The voice {voice.name} has no stand-in for the engine espeak, which imitates no clips.",
                code="voice_needs_other_engine",
                hint=f"Name one with `espeak: VOICE` in voices/{voice.name}.yaml, or set another voice.",
            )
        if voice.clip is None:
            raise InputError(
                f"The voice {voice.name} has no recording, so {engine} cannot use it.",
                code="voice_without_clip",
                hint=f"Put {voice.name}.wav into the voices folder, or set another voice.",
            )
        return VoiceChoice(
            name=voice.name, clip=str(voice.clip.resolve()), clip_sha256=self.hash_of(voice.clip)
        )

    def find(self, name: str) -> LibraryVoice | None:
        """The voice of this name, or None; raises SpecError if its sheet is wrong."""
        if "/" in name or name.startswith("."):
            return None
        files = [path for path in self._files() if _name(path) == unicodedata.normalize("NFC", name)]
        if not files:
            return None
        clips = sorted(path for path in files if path.suffix.lower() in AUDIO_SUFFIXES)
        if len(clips) > 1:
            raise InputError(
                f"The voice {name} has several recordings: {', '.join(c.name for c in clips)}.",
                code="voice_ambiguous",
                hint="Keep one of them in the voices folder.",
            )
        sheets = sorted(path for path in files if path.suffix.lower() in SHEET_SUFFIXES)
        sheet = _sheet(sheets[0]) if sheets else VoiceSheet()
        return LibraryVoice(name=name, clip=clips[0] if clips else None, sheet=sheet)

    def names(self) -> list[str]:
        """All voices, sorted."""
        return sorted({display(_name(path)) for path in self._files()})

    def nearest(self, name: str) -> list[str]:
        """Names that somebody may have meant."""
        return difflib.get_close_matches(name, self.names(), n=3, cutoff=0.5)

    def _files(self) -> list[Path]:
        known = AUDIO_SUFFIXES | set(SHEET_SUFFIXES)
        try:
            with os.scandir(self._folder) as entries:
                return [
                    Path(entry.path)
                    for entry in entries
                    if not entry.name.startswith(".")
                    and Path(entry.name).suffix.lower() in known
                    and _is_file(entry)
                ]
        except FileNotFoundError:
            return []


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _name(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)


def _sheet(path: Path) -> VoiceSheet:
    shown = f"voices/{display(path.name)}"
    try:
        with open(path, "rb") as stream:
            return parse_voice_sheet(read(stream, shown), shown)
    except SpecError as error:
        raise SpecError(error.message, problems=error.problems, hint="Mend the voice sheet.") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"voices/{display(path.name)} cannot be read: {error.strerror}.",
        code="voice_unreadable",
        hint=f"User {os.geteuid()} must be allowed to read it.",
    )
