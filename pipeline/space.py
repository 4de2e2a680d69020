"""How much room a job will take up, and how much there is.

Estimates are pure: they follow from the frozen settings and the size of what was dropped alone. `look` asks
a disk. Knows usual sizes of sound, nothing of the ledger. Invariant: no estimate is below what the same job
takes in bench/space.py.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import shown_size
from pipeline.jobs.job import Need
from pipeline.jobs.settings import Settings
from pipeline.layout import Layout
from pipeline.mounts import mount_of, read_mounts

MARGIN = 1.5
"what is estimated is multiplied by this, as Postfix does"
RCLONE = "fuse.rclone"
MIN_FREE_FILES = 64
"files that must still fit on a disk before a job is started"
# Measured with espeak-ng at 150 words a minute (bench/space.py): prose takes 0.066 to 0.09 s a character;
# figures and the signs of Chinese are said as words.
WORDS_PER_MINUTE = 150
LETTER_SECONDS, DIGIT_SECONDS, SIGN_SECONDS = 0.075, 0.55, 0.32
_DIGIT, _SIGN = (
    re.compile("[0-9]"),
    re.compile("[\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"),
)
CHUNK_CHARS = 100
"a chunk is rarely shorter on average"
RATE_HZ = 24_000
CONVERSION_RATE_HZ = 48_000
TAKES_PER_CHUNK = 1.3
"the check has some chunks spoken again"
FILES_PER_TAKE = 3
SHEET_BYTES_PER_CHARACTER = 12
"words with their times, and what was heard"
BLOCK_BYTES = 4096
MANIFEST_BYTES_PER_CHARACTER = 8
# Bytes a second of mono speech; wav and flac depend on the rate.
BYTES_PER_SECOND: Mapping[str, float] = {"mp3": 8_000, "opus": 9_000, "m4a": 13_000, "m4b": 13_000}
PCM_BYTES, FLAC_BYTES, RAW_BYTES = 2.0, 1.2, 4.0
# What a second of a dropped recording takes at least, in kilobits: lower rates are rare in speech.
KBIT_PER_SECOND: Mapping[str, float] = {
    ".wav": 256,
    ".flac": 160,
    ".mp3": 48,
    ".m4a": 48,
    ".aac": 48,
    ".ogg": 32,
    ".opus": 24,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """What a disk has left for us."""

    bytes: int
    files: float
    "inodes; infinite where the filesystem does not count them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What jobs may take up, all together."""

    state_bytes: float
    state_files: float
    outbox_bytes: float


def look(path: Path) -> Free:
    """Ask the disk that `path` lies on; OSError where it does not answer."""
    disk = os.statvfs(path)
    # rclone's mounts say at all times that no more files fit
    counted = disk.f_files and (disk.f_favail or mount_of(str(path), read_mounts()).filesystem != RCLONE)
    return Free(bytes=disk.f_bavail * disk.f_frsize, files=disk.f_favail if counted else float("inf"))


def room(layout: Layout, min_free_bytes: int) -> Room:
    """What is left on the disks of state and outbox beyond what is kept free."""
    state, outbox = look(layout.state), look(layout.outbox)
    return Room(
        state_bytes=state.bytes - min_free_bytes,
        state_files=state.files - MIN_FREE_FILES,
        outbox_bytes=outbox.bytes - min_free_bytes,
    )


def shortage(need: Need, there: Room) -> str:
    """Why a job of this need does not fit, as part of a sentence; empty if it does."""
    if need.state_bytes > there.state_bytes:
        return _lacking(need.state_bytes, there.state_bytes, "state")
    if need.outbox_bytes > there.outbox_bytes:
        return _lacking(need.outbox_bytes, there.outbox_bytes, "outbox")
    if need.state_files > there.state_files:
        left = max(0, int(there.state_files))
        return (
            f"it needs about {need.state_files} files on the disk of the state, where {left} more may be made"
        )
    return ""


def _lacking(needed: float, left: float, role: str) -> str:
    wanted, there = shown_size(needed), shown_size(max(0.0, left))
    return f"it needs about {wanted} on the disk of the {role}, where {there} may be used"


# -- estimates ---------------------------------------------------------------------------------


def speech_seconds(text: str, settings: Settings) -> float:
    """How long a text will take to say, pauses included, before the tempo is changed."""
    digits, signs = _count(_DIGIT, text), _count(_SIGN, text)
    letters = len(text) - digits - signs
    said = LETTER_SECONDS * letters + DIGIT_SECONDS * digits + SIGN_SECONDS * signs
    if settings.engine == "espeak":
        said *= WORDS_PER_MINUTE / settings.synthesis.words_per_minute
    pauses_ms = settings.pauses.sentence_ms * _chunks(text) + settings.pauses.paragraph_ms * text.count(
        "\n\n"
    )
    return said + pauses_ms / 1000


def recording_seconds(name: str, size_bytes: int) -> float:
    """How long a recording may be, from its kind and size."""
    kbit = KBIT_PER_SECOND.get(Path(name).suffix.lower(), min(KBIT_PER_SECOND.values()))
    return size_bytes * 8 / 1000 / kbit


def need_of_text(text: str, settings: Settings, *, part: float = 1.0) -> Need:
    """Room for speaking a text: takes and their sheets, the work folder, the results.

    `part`: how much of the whole the text is, where only its beginning was read.
    """
    seconds, chars = speech_seconds(text, settings) / part, len(text) / part
    takes = max(settings.takes.per_chunk, TAKES_PER_CHUNK)
    files = round(takes * FILES_PER_TAKE * _chunks(text) / part)
    kept = takes * (PCM_BYTES * RATE_HZ * seconds + SHEET_BYTES_PER_CHARACTER * chars) + BLOCK_BYTES * files
    return _need(seconds, RATE_HZ, settings, kept_bytes=kept, files=files, chars=chars)


def need_of_recordings(seconds: float, settings: Settings) -> Need:
    """Room for converting or joining recordings of so many seconds."""
    return _need(seconds, CONVERSION_RATE_HZ, settings, kept_bytes=0.0, files=0, chars=0.0)


def _need(
    seconds: float, rate_hz: int, settings: Settings, *, kept_bytes: float, files: int, chars: float
) -> Need:
    played = seconds / settings.audio.speed
    results = sum(_bytes_per_second(name, rate_hz) * played for name in settings.output.formats)
    raw = RAW_BYTES * rate_hz * played if settings.audio.loudness_lufs is not None else 0.0
    beside = BLOCK_BYTES * (len(settings.output.formats) + 2)
    return Need(
        state_bytes=round(MARGIN * (kept_bytes + results + raw + beside)),
        state_files=round(MARGIN * files) + len(settings.output.formats) + 2,
        outbox_bytes=round(MARGIN * (results + MANIFEST_BYTES_PER_CHARACTER * chars + beside)),
    )


def _bytes_per_second(name: str, rate_hz: int) -> float:
    exact = {"wav": PCM_BYTES * rate_hz, "flac": FLAC_BYTES * rate_hz}
    return exact.get(name) or BYTES_PER_SECOND[name]


def _chunks(text: str) -> int:
    return 1 + len(text) // CHUNK_CHARS + text.count("\n\n")


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))
