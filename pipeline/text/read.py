"""Reads a dropped text file, whatever encoding it was saved in.

Knows sizes, names and Markdown; nothing of rules or chunks. Invariant: what comes out is text with
something to speak in it; anything else is an InputError that names the file and says what to do.
"""

import errno
from dataclasses import replace
from pathlib import Path

from pipeline.errors import EnvironmentFailure, InputError
from pipeline.files import ENVIRONMENT_ERRNOS, display, open_regular
from pipeline.text.encoding import Decoded, decode_bytes
from pipeline.text.markdown import plain
from pipeline.text.speakable import is_speakable

SIZE_MAX_BYTES = 64 << 20
MARKDOWN_MAX_BYTES = 8 << 20
MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})

_UNREADABLE = {
    errno.ENOENT: ("is not there any more", "Drop it again.", "text_missing"),
    errno.ELOOP: ("is a symbolic link, which is not followed", "Drop the file itself.", "text_not_a_file"),
    errno.EINVAL: ("is not a regular file", "Drop a text file.", "text_not_a_file"),
    errno.EISDIR: ("is a folder", "Drop the text files in it.", "text_not_a_file"),
    errno.ENXIO: ("is not a regular file", "Drop a text file.", "text_not_a_file"),
    errno.EACCES: ("may not be read by the daemon", "Give it read permission.", "text_unreadable"),
    errno.EPERM: ("may not be read by the daemon", "Give it read permission.", "text_unreadable"),
}


def read(path: Path) -> Decoded:
    """The text of a file, line ends as \\n, Markdown as plain paragraphs, with what was guessed.

    InputError with one of the codes `text_empty`, `text_binary`, `text_nul_padded`, `text_cut_off`,
    `text_too_large`, `text_missing`, `text_not_a_file`, `text_unreadable`; EnvironmentFailure if the disk
    fails.
    """
    name = display(path.name)
    is_markdown = path.suffix.lower() in MARKDOWN_SUFFIXES
    decoded = decode(_bytes_of(path, name, MARKDOWN_MAX_BYTES if is_markdown else SIZE_MAX_BYTES), name)
    if not is_markdown:
        return decoded
    text = plain(decoded.text)
    _refuse_silence(text, name)
    return replace(decoded, text=text)


def decode(data: bytes, name: str) -> Decoded:
    """The text in `data`, line ends as \\n; `name` is how messages call it. Same InputErrors as `read`."""
    if not data:
        raise _empty(f"{name} is empty.")
    decoded = decode_bytes(data, name)
    text = decoded.text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a")
    _refuse_silence(text, name)
    return replace(decoded, text=text)


def _refuse_silence(text: str, name: str) -> None:
    if not is_speakable(text):
        held = "punctuation or symbols" if text.strip() else "spaces and line breaks"
        raise _empty(f"{name} holds only {held}, nothing that can be spoken.")


def _empty(message: str) -> InputError:
    return InputError(message, hint="Put some words into it and drop it again.", code="text_empty")


def _bytes_of(path: Path, name: str, max_bytes: int) -> bytes:
    try:
        with open_regular(path) as stream:
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise _explained(error, name) from error
    if len(data) > max_bytes:
        raise InputError(
            f"{name} is larger than {max_bytes >> 20} MB, the most that is read of one text.",
            hint="Divide it into several files, a chapter each.",
            code="text_too_large",
        )
    return data


def _explained(error: OSError, name: str) -> InputError | EnvironmentFailure | OSError:
    """What a person needs to know of an OSError; one without an explanation is returned as it is."""
    if error.errno in _UNREADABLE:
        what, hint, code = _UNREADABLE[error.errno]
        return InputError(f"{name} {what}.", hint=hint, code=code)
    if error.errno in ENVIRONMENT_ERRNOS:
        return EnvironmentFailure(
            f"{name} could not be read: {error.strerror}.", hint="Check the disk or the mount."
        )
    return error
