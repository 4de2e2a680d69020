"""Names that every disk takes: safe for Windows, macOS, ext4 and network shares.

Pure. Invariant: a name returned here is NFC, non-empty, without control, invisible or reserved
characters, and short enough to take every suffix that we may append. `folded` tells which names
some disk would take for one.
"""

import hashlib
import os
import re
import unicodedata
from pathlib import PurePosixPath

MAX_NAME_BYTES = 255
MAX_EXTENSION_BYTES = 32
"what is longer is the end of a name with a stop in it"
# Room for "~9999", ".error.json" and the hidden name that a file has while it is written.
SUFFIX_ROOM_BYTES = 24
# Refused by Windows and its shares.
_FORBIDDEN = frozenset('<>:"/\\|?*')
# Controls, also those that only turn the direction of writing; line ends; surrogates; what is for private use
# (macOS writes forbidden characters so on shares) or stands for nothing, which APFS and strict ext4 refuse.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks of no width, which look like nothing and which case-blind ext4 skips (UTR 44:
# Default_Ignorable_Code_Point).
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
_VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\.|$)", re.IGNORECASE)
# Stripped from both ends: Windows drops dots and spaces at the end, and nobody sees the others.
_EDGE = re.compile(r"^\s+|[\s.]+$")


def safe_name(name: str) -> str:
    """`name` as the nearest name that is valid everywhere.

    Undecodable bytes and forbidden characters become `_`. A name that was too long keeps its
    beginning and takes eight hex digits of its hash, so that two long names stay two.
    """
    text = name.encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if _is_plain(c) else "_" for c in unicodedata.normalize("NFC", text))
    text = _EDGE.sub("", text)
    if not text or _RESERVED.match(text):
        text = "_" + text
    if text.startswith("."):
        text = "_" + text[1:]
    return text if _fits(text, 0) else _shortened(text, name)


def _is_plain(character: str) -> bool:
    if character in _FORBIDDEN or character in _UNSEEN:
        return False
    return unicodedata.category(character) not in _UNSEEN_CATEGORIES


def _fits(text: str, more_bytes: int) -> bool:
    """In bytes, and in the units of the older Mac disks: UTF-16 with every accent by itself."""
    room = MAX_NAME_BYTES - SUFFIX_ROOM_BYTES - more_bytes
    decomposed = unicodedata.normalize("NFD", text).encode("utf-16-le")
    return len(text.encode()) <= room and len(decomposed) // 2 <= room


def distinct_name(name: str) -> str:
    """`safe_name`, but two names never become one: what had to be changed is told apart by its hash."""
    safe = safe_name(name)
    return safe if safe == unicodedata.normalize("NFC", name) else _shortened(safe, name)


def _shortened(text: str, original: str) -> str:
    digest = hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = text.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    while kept and (not _fits(kept, len(digest) + 1) or unicodedata.combining(kept[-1])):
        kept = kept[:-1]
    return f"{kept.rstrip('. ')}~{digest}"


def folded(name: str) -> str:
    """The same for all names that some case-blind or normalising disk takes for one.

    Canonical caseless matching (Unicode D145), and by capitals too, as NTFS compares; what case-blind
    ext4 skips is left out.
    """
    text = _VARIATION_SELECTORS.sub("", unicodedata.normalize("NFD", name))
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text.upper()).casefold())


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
    is_extension = len(os.fsencode(pure.suffix)) <= MAX_EXTENSION_BYTES
    stem, suffix = (pure.stem, pure.suffix) if is_extension else (name, "")
    tail = os.fsencode(f"~{number}{suffix}")
    return os.fsdecode(os.fsencode(stem)[: MAX_NAME_BYTES - len(tail)] + tail)
