"""Where log lines go: to the console, and to rotated, compressed files in `state/logs`.

Knows loguru and the standard library's rotation. Invariants: one line per change of state; a job enters
a line by its id and source; each process has a file of its own; together the files of one process never
take more than `(log.keep_files + 1) * log.rotate_mb`; a log that cannot be written stops nothing and
floods nothing.
"""

import contextlib
import gzip
import logging
import os
import shutil
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from pipeline import journal
from pipeline.config import Log
from pipeline.repeats import Repeats, as_tally, is_told

if TYPE_CHECKING:
    from loguru import Message

CONSOLE = "{time:HH:mm:ss} <level>{level: <7}</level> {message}"
FILE = "{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level: <7} {process} {message}"
MB = 1_000_000


def log_to(config: Log, folder: Path, name: str) -> None:
    """Log to stderr and to `<folder>/<name>.log`; several processes never share a file."""
    logger.remove()
    logger.configure(patcher=Repeats(_tell).look)
    if journal.reads(sys.stderr):  # it adds time and process itself, and wants the level in its own way
        logger.add(_journal(sys.stderr), level=config.level, format="{message}", filter=is_told)
    else:
        logger.add(sys.stderr, level=config.level, format=CONSOLE, filter=is_told)
    with contextlib.suppress(OSError):  # whoever needs the state folder says what is wrong with it
        folder.mkdir(parents=True, exist_ok=True)
    file = LogFile(folder / f"{name}.log", max_bytes=config.rotate_mb * MB, keep=config.keep_files)
    logger.add(file, level="DEBUG", format=FILE, filter=is_told)


def _journal(stream: TextIO) -> "Callable[[Message], None]":
    """Writes to `stream`, whatever stands in its place while a package is kept quiet."""

    def write(message: "Message") -> None:
        stream.write(journal.marked(message.record["level"].name, message))
        stream.flush()

    return write


def _tell(level: str, message: str) -> None:
    logger.bind(**as_tally()).log(level, "{}", message)


class LogFile(RotatingFileHandler):
    """`<path>`, then `<path>.1.gz` and older ones.

    The standard library's, since loguru's own writes a page to stderr for each line that finds the disk full.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        super().__init__(
            path,
            maxBytes=max_bytes,
            backupCount=keep,
            encoding="utf-8",
            errors="backslashreplace",
            delay=True,
        )
        self._lost = 0
        self._complaints = sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; after a time without a disk, say how many are missing."""
        lost = self._lost
        if lost:
            record.msg = f"lines before this one that could not be written: {lost}\n{record.msg}"
        super().emit(record)
        if self._lost == lost:
            self._lost = 0

    def handleError(self, _record: logging.LogRecord) -> None:  # noqa: N802 (the standard library's name)
        """Say once that nothing can be written; the next line opens the file anew."""
        if not self._lost:
            self._complaints.write(f"The log {self.baseFilename} cannot be written: {sys.exc_info()[1]}.\n")
        self._lost += 1
        stream, self.stream = self.stream, None
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.close()

    def rotation_filename(self, default_name: str) -> str:
        """The name of a closed file."""
        return f"{default_name}.gz"

    def rotate(self, source: str, dest: str) -> None:
        """Close a file: compress it, or where that fails keep it as it is."""
        half = f"{dest}.tmp"
        try:
            with open(source, "rb") as plain, gzip.open(half, "wb") as packed:
                shutil.copyfileobj(plain, packed)
            os.replace(half, dest)
            os.unlink(source)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(half)
            os.replace(source, dest.removesuffix(".gz"))
