"""Log lines as systemd's journal wants them, and only where it reads."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import journal
from tests.conftest import REPOSITORY

LOGS = """
import sys
from pathlib import Path
from loguru import logger
from pipeline.config import Log
from pipeline.logs import log_to
log_to(Log(), Path(sys.argv[1]), "test")
logger.info("all is well")
logger.error("two lines\\nof trouble")
"""


def written(tmp_path: Path, command: list[str], *, told: bool) -> str:
    """What a program writes to stderr, a socket as the journal's; `told`: JOURNAL_STREAM names it."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        place = os.fstat(ours.fileno())
        stream = f"{place.st_dev}:{place.st_ino if told else place.st_ino + 1}"
        subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**os.environ, "JOURNAL_STREAM": stream},
            stderr=ours,
            check=False,
        )
        ours.close()
        return theirs.recv(65536).decode()


def test_each_line_carries_its_priority(tmp_path: Path) -> None:
    """Also the second line of an entry; no time and no colour, which the journal has itself."""
    assert written(tmp_path, ["-c", LOGS, str(tmp_path)], told=True) == (
        "<6>all is well\n<3>two lines\n<3>of trouble\n"
    )


def test_a_package_that_is_kept_quiet_does_not_silence_us(tmp_path: Path) -> None:
    """Models speak in a thread of their own, with standard error put away for the whole process."""
    aside = "with contextlib.redirect_stderr(io.StringIO()):\n    logger.error('meanwhile')"
    quiet = f"import contextlib, io\n{LOGS}\n{aside}"
    assert "<3>meanwhile\n" in written(tmp_path, ["-c", quiet, str(tmp_path)], told=True)


def test_another_stream_is_left_alone(tmp_path: Path) -> None:
    """JOURNAL_STREAM is inherited by programs whose output goes into a file."""
    lines = written(tmp_path, ["-c", LOGS, str(tmp_path)], told=False)
    assert "INFO" in lines and "<6>" not in lines


def test_the_last_words_carry_it_too(tmp_path: Path) -> None:
    """Why the daemon did not start is what `journalctl -p err` is asked for."""
    (tmp_path / "config.yaml").write_text("inbux: here\n")
    lines = written(tmp_path, ["daemon.py", "--config", str(tmp_path / "config.yaml")], told=True)
    assert lines.startswith("<3>config.yaml, line 1: inbux: unknown key")
    assert all(line.startswith("<3>") for line in lines.splitlines())


def test_a_stream_that_is_no_file_is_not_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed ones neither."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    with open(os.devnull, "w") as stream:
        pass
    assert not journal.reads(stream)
