"""Where log lines go: to the console, and to rotated files in `state/logs`.

Knows loguru. Invariant: one line per change of state; a job enters a line by its id and source.
"""

import sys
from pathlib import Path

from loguru import logger

from pipeline.config import Log

CONSOLE = "{time:HH:mm:ss} <level>{level: <7}</level> {message}"
FILE = "{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level: <7} {process} {message}"


def log_to(config: Log, folder: Path, name: str) -> None:
    """Log to stderr and to `<folder>/<name>.log`; several processes never share a file."""
    logger.remove()
    logger.add(sys.stderr, level=config.level, format=CONSOLE)
    folder.mkdir(parents=True, exist_ok=True)
    logger.add(
        folder / f"{name}.log",
        level="DEBUG",
        format=FILE,
        rotation=f"{config.rotate_mb} MB",
        retention=config.keep_files,
        encoding="utf-8",
        errors="backslashreplace",
    )
