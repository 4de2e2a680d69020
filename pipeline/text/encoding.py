"""From bytes to text: which encoding a file was saved in, or that it is no text.

Knows byte patterns only. Order: what cannot be text by its first bytes, byte-order marks, UTF-16 and
UTF-32 without one, UTF-8, Windows-1252 where that reads like a western language, and charset-normalizer
for the rest. Invariant: no byte is replaced or dropped without a warning.
"""

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from charset_normalizer import from_bytes

from pipeline.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Text out of a file."""

    text: str
    encoding: str
    "as Python names it, such as utf-8 or cp1252"
    warnings: tuple[str, ...] = ()
    "what was guessed, one sentence each"


_BYTE_ORDER_MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_SIGNATURES = (
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"PK\x03\x04", "a ZIP, Word, OpenDocument or EPUB file"),
    (b"\xd0\xcf\x11\xe0", "an old Word document"),
    (b"\x1f\x8b", "a compressed file"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"ID3", "a sound recording"),
    (b"OggS", "a sound recording"),
    (b"fLaC", "a sound recording"),
    (b"RIFF", "a sound recording"),
)
_LEGACY = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "cp866"),
    *("mac_roman", "cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_SAMPLE_BYTES = 64 << 10
_CONTROLS_MAX = 0.01
_HOLE = re.compile(rb"\x00{16,}")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1c-\x1f\x7f]")
_ODD_INSIDE_WORD = re.compile(r"[^\W\d_][\xa1-\xac\xae-\xb3\xb5\xb6\xb8-\xbf\xd7\xf7•†‡‰][^\W\d_]")
_WESTERN_SHARE_MAX = 0.3
_ONE_SCRIPT_SHARE_MIN = 0.9
_UTF8_DAMAGE_MAX = 0.1
_SAVE_AS_TEXT = "Save it as plain text in UTF-8 and drop it again."


def decode_bytes(data: bytes, name: str) -> Decoded:
    """The text in `data`, which messages call `name`.

    InputError with code `text_binary`, `text_nul_padded` or `text_cut_off`.
    """
    _refuse_known_formats(data, name)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _marked(data[len(mark) :], encoding, name)
    if b"\x00" in data:
        return _with_nuls(data, name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(data, error, name)
    return _without_controls(data, text, name)


def _refuse_known_formats(data: bytes, name: str) -> None:
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            raise InputError(f"{name} is {kind}, not plain text.", hint=_SAVE_AS_TEXT, code="text_binary")


def _binary(name: str) -> InputError:
    return InputError(
        f"{name} does not hold text: its bytes make sense in no encoding.",
        hint=_SAVE_AS_TEXT,
        code="text_binary",
    )


def _padded(name: str) -> InputError:
    return InputError(
        f"{name} has stretches of empty (NUL) bytes: it looks cut off, or is still being written.",
        hint="Copy the file again in full and drop it again.",
        code="text_nul_padded",
    )


def _cut_off(name: str) -> InputError:
    return InputError(
        f"{name} ends in the middle of a character: it looks cut off, or is still being written.",
        hint="Copy the file again in full and drop it again.",
        code="text_cut_off",
    )


def _marked(data: bytes, encoding: str, name: str) -> Decoded:
    """Text behind a byte-order mark: the mark is believed, damage is not."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if error.end == len(data) and data:
            raise _cut_off(name) from error
        raise _binary(name) from error
    if "\x00" in text:
        raise _padded(name)
    return Decoded(text=text, encoding=encoding)


def _unmarked(data: bytes, encoding: str, name: str) -> Decoded:
    """Text in an encoding that was guessed: as if it were marked, and told."""
    warning = f"{name} has no byte-order mark and was read as {encoding.upper()}."
    return replace(_marked(data, encoding, name), warnings=(warning,))


def _with_nuls(data: bytes, name: str) -> Decoded:
    """UTF-16 or UTF-32 without a mark, a file with holes, or no text at all."""
    sample = data[:_SAMPLE_BYTES]
    for encoding in _WIDE:
        if _is_plausible(sample[: len(sample) // 4 * 4], encoding):
            return _unmarked(data, encoding, name)
    rest = _HOLE.sub(b"", data.strip(b"\x00"))
    if b"\x00" not in rest and not _CONTROL.search(rest[:_SAMPLE_BYTES].decode("latin-1")):
        raise _padded(name)
    raise _binary(name)


def _is_plausible(sample: bytes, encoding: str) -> bool:
    """Whether bytes, read so, are text: no controls, nearly all ASCII or of one 256-character block."""
    text = sample.decode(encoding, "replace").rstrip("\ufffd\x00")
    if not text or _CONTROL.search(text) or "\ufffd" in text:
        return False
    blocks = Counter(ord(c) >> 8 for c in text if not c.isascii())
    largest = max(blocks.values(), default=0)
    return largest + sum(c.isascii() for c in text) >= _ONE_SCRIPT_SHARE_MIN * len(text)


def _without_controls(data: bytes, text: str, name: str) -> Decoded:
    """UTF-8, unless its many control characters give it away as Cyrillic UTF-16 or as no text."""
    if len(_CONTROL.findall(text)) <= _CONTROLS_MAX * len(text):
        return Decoded(text=text, encoding="utf-8")
    for encoding in ("utf-16-le", "utf-16-be"):
        if len(data) % 2 == 0 and _is_plausible(data[:_SAMPLE_BYTES], encoding):
            return _unmarked(data, encoding, name)
    raise _binary(name)


def _not_utf8(data: bytes, error: UnicodeDecodeError, name: str) -> Decoded:
    """An eight-bit encoding, or UTF-8 with damage."""
    text = data.decode("utf-8", "replace")
    damage = text.count("\ufffd")
    intact = sum(not c.isascii() for c in text) - damage
    if damage == 1 and intact and error.start >= len(data) - 3:
        raise _cut_off(name) from error
    if damage <= _UTF8_DAMAGE_MAX * (damage + intact):
        return Decoded(text=text, encoding="utf-8", warnings=(_damaged(damage, name),))
    encoding = "cp1252" if _reads_as_western(data) else _guessed(data, name)
    text = data.decode(encoding)
    if len(_CONTROL.findall(text)) > _CONTROLS_MAX * len(text):
        raise _binary(name) from error
    warning = f"{name} is not UTF-8 and was read as {encoding}; if letters sound wrong, save it as UTF-8."
    return Decoded(text=text, encoding=encoding, warnings=(warning,))


def _damaged(count: int, name: str) -> str:
    return f"{name} is UTF-8 with {count} damaged character{'s' if count > 1 else ''}."


def _reads_as_western(data: bytes) -> bool:
    """Whether Windows-1252 (and so Latin-1) gives words of a western language."""
    try:
        text = data[:_SAMPLE_BYTES].decode("cp1252")
    except UnicodeDecodeError:
        return False
    letters: Sequence[str] = [c for c in text if c.isalpha()]
    foreign = sum(not c.isascii() for c in letters)
    return foreign <= _WESTERN_SHARE_MAX * len(letters) and not _ODD_INSIDE_WORD.search(text)


def _guessed(data: bytes, name: str) -> str:
    """The encoding that charset-normalizer finds likeliest."""
    sample = data[:_SAMPLE_BYTES]
    for found in from_bytes(sample, cp_isolation=_LEGACY):
        try:
            data.decode(found.encoding)
        except UnicodeDecodeError:
            continue
        return found.encoding
    raise _binary(name)
