"""A daemon of its own in a temporary folder, for measurements: the real command line, real processes."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.sentences import words_of

REPOSITORY = Path(__file__).resolve().parent.parent
BOOK = REPOSITORY.parent / "shared" / "data" / "the-time-machine.txt"


@dataclass(frozen=True, slots=True)
class Ground:
    """Four folders and a configuration."""

    root: Path

    def write_config(self, **sections: Any) -> None:
        """Replace the configuration; keys that are not given take their default."""
        (self.root / "config.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")

    def run_once(self, program: str = "daemon.py", **environment: str) -> None:
        """`daemon.py --once`, or another `program` of its kind; an unsuccessful end is an error here."""
        command = [sys.executable, program, "--config", str(self.root / "config.yaml"), "--once"]
        ended = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            raise SystemExit(f"the daemon ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")

    def start(self) -> "subprocess.Popen[bytes]":
        """`daemon.py run` in the background, its output in `daemon.log`."""
        command = [sys.executable, "daemon.py", "run", "--config", str(self.root / "config.yaml")]
        with open(self.root / "daemon.log", "ab") as log:
            return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)

    def drop(self, name: str, text: str) -> Path:
        """Put a text into the inbox."""
        path = self.root / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def manifest(self, name: str) -> dict[str, Any]:
        """A manifest from the outbox."""
        found: dict[str, Any] = json.loads((self.root / "outbox" / f"{name}.json").read_bytes())
        return found

    def query(self, statement: str) -> list[Any]:
        """Ask the ledger."""
        database = sqlite3.connect(f"file:{self.root / 'state' / 'ledger.db'}?mode=ro", uri=True)
        try:
            return database.execute(statement).fetchall()
        finally:
            database.close()

    def job_seconds(self) -> float:
        """From claim to done of the newest job: rendering and publishing."""
        rows = self.query("SELECT ended_at - started_at FROM jobs ORDER BY ended_at DESC LIMIT 1")
        return float(rows[0][0])


@contextmanager
def ground() -> Iterator[Ground]:
    """Fresh folders, gone afterwards. TMPDIR says where."""
    root = Path(tempfile.mkdtemp(prefix="voxspool-bench-"))
    try:
        for name in ("inbox", "outbox", "voices", "state"):
            (root / name).mkdir()
        yield Ground(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def text_name() -> str:
    """Which text `prose` takes: figures can only be compared over the same."""
    return BOOK.stem if BOOK.exists() else "generated sentences (bench/sentences.py)"


def prose(words: int) -> str:
    """So many words of a book; where the book is not there, of a text that is made up."""
    text = BOOK.read_text(encoding="utf-8") if BOOK.exists() else words_of(words)
    while text.count(" ") < words:
        text += "\n\n" + text
    position = 0
    for _ in range(words):
        position = text.find(" ", position + 1)
    return text[:position].rstrip() + "."


def processor_seconds(pid: int) -> float:
    """User and system time of a process and its living children (Linux)."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for text in _read_of_family(pid, "stat"):
        fields = text.rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def _read_of_family(pid: int, name: str) -> Iterator[str]:
    """What /proc says of a process and all below it; one may end meanwhile."""
    yield Path(f"/proc/{pid}/{name}").read_text(encoding="ascii")
    for child in children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield from _read_of_family(child, name)


def children(pid: int) -> list[int]:
    """Process ids of the living children of a process (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its living children; shared pages are shared out (PSS)."""
    lines = (line for text in _read_of_family(pid, "smaps_rollup") for line in text.splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def wait_for(condition: Any, *, seconds: float, step: float = 0.05) -> float:
    """Wait until `condition()`; returns how long it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise SystemExit(f"gave up after {seconds:.0f} s")
        time.sleep(step)
    return time.monotonic() - started
