"""Names that every disk takes: safe for Windows, macOS, ext4 and network shares.

Pure. Invariant: a name returned here is NFC, non-empty, without control or reserved characters,
and short enough to take every suffix that we may append.
"""

import hashlib
import os
import re
import unicodedata
from pathlib import PurePosixPath

MAX_NAME_BYTES = 255
# Room for "~9999", ".error.json" and the hidden name that a file has while it is written.
SUFFIX_ROOM_BYTES = 24
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]')
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\.|$)", re.IGNORECASE)
# Stripped from both ends: Windows drops dots and spaces at the end, and nobody sees the others.
_EDGE = re.compile(r"^\s+|[\s.]+$")


def safe_name(name: str) -> str:
    """`name` as the nearest name that is valid everywhere.

    Undecodable bytes and forbidden characters become `_`. A name that was too long keeps its
    beginning and takes eight hex digits of its hash, so that two long names stay two.
    """
    text = name.encode("utf-8", "replace").decode("utf-8")
    text = _EDGE.sub("", _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text)))
    if not text or _RESERVED.match(text):
        text = "_" + text
    if text.startswith("."):
        text = "_" + text[1:]
    limit = MAX_NAME_BYTES - SUFFIX_ROOM_BYTES
    return text if len(text.encode()) <= limit else _shortened(text, limit, name)


def distinct_name(name: str) -> str:
    """`safe_name`, but two names never become one: what had to be changed is told apart by its hash."""
    safe = safe_name(name)
    if safe == unicodedata.normalize("NFC", name):
        return safe
    return _shortened(safe, MAX_NAME_BYTES - SUFFIX_ROOM_BYTES, name)


def _shortened(text: str, limit: int, original: str) -> str:
    digest = hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = text.encode()[: limit - 9].decode("utf-8", "ignore")
    while kept and unicodedata.combining(kept[-1]):
        kept = kept[:-1]
    return f"{kept.rstrip('. ')}~{digest}"


def safe_folder(folder: PurePosixPath) -> PurePosixPath:
    """A relative folder, each of its names made safe."""
    return PurePosixPath(*(safe_name(part) for part in folder.parts))


def numbered(name: str, number: int) -> str:
    """`story.txt` as `story~2.txt`, its bytes as they are but for a stem too long for that.

    Number 1 is the name itself.
    """
    if number == 1:
        return name
    pure = PurePosixPath(name)
    tail = os.fsencode(f"~{number}{pure.suffix}")
    return os.fsdecode(os.fsencode(pure.stem)[: MAX_NAME_BYTES - len(tail)] + tail)
