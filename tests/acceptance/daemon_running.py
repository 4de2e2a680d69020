"""The real daemon as a subprocess, in folders of its own."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 60.0
SPOKEN = "This sentence is number {}. It says nothing new, but it takes a while to be heard."


class Daemon:
    """Four folders, a configuration, and the commands run on them."""

    program = REPOSITORY / "daemon.py"
    before: tuple[str, ...] = ()
    "a command that starts it, as somebody else for instance"

    def __init__(self, root: Path, **sections: Any) -> None:
        self.root = root
        self.inbox, self.outbox, self.voices, self.state = (
            root / name for name in ("inbox", "outbox", "voices", "state")
        )
        self.config = root / "config.yaml"
        self.configure(**sections)
        self.process: subprocess.Popen[bytes] | None = None
        self.inbox.mkdir()

    def configure(self, **sections: Any) -> None:
        """Write the configuration; files settle at once unless it says otherwise."""
        sections.setdefault("intake", {}).setdefault("settle_seconds", 0.1)
        self.config.write_text(yaml.safe_dump(sections), encoding="utf-8")

    def command(self, *words: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
        """One command of the command line."""
        return subprocess.run(
            [*self.before, sys.executable, str(self.program), "--config", str(self.config), *words],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=check,
            timeout=PATIENCE_SECONDS * 2,
        )

    def start(self) -> "Daemon":
        """`daemon.py run`, until it says that it is running."""
        pid = self.launch()
        self.wait(lambda: self.status().get("pid") == pid)
        return self

    def launch(self) -> int:
        """`daemon.py run`, wherever that leads; its process id."""
        with open(self.root / "daemon.log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.before, sys.executable, str(self.program), "run", "--config", str(self.config)],
                cwd=self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process.pid

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """SIGKILL for the whole process tree, if any of it lives."""
        if self.process is not None and self.process.poll() is None:
            for process in self.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.kill()
            self.process.wait()

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in command_of(child)]

    def drop(self, name: str, content: str | bytes) -> Path:
        """Put a file into the inbox."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(".arriving")
        hidden.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(hidden, path)
        return path

    def status(self) -> dict[str, Any]:
        """What `status.json` says; empty before there is one."""
        try:
            found: dict[str, Any] = json.loads((self.outbox / "status.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def manifest(self, name: str) -> dict[str, Any]:
        """A manifest, once it is there."""
        path = self.outbox / f"{name}.json"
        self.wait(path.exists)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def wait(self, condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
        """Until `condition()` is true; shows the daemon's log if it never is."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                log = self.root / "daemon.log"
                raise AssertionError(f"waited in vain:\n{log.read_text() if log.exists() else ''}")
            time.sleep(0.02)

    def progress(self) -> tuple[int, int]:
        """Chunks done and chunks in all of the running job; (0, 0) if none runs."""
        found = self.query("SELECT done_chunks, total_chunks FROM jobs WHERE state = 'running'")
        return found[0] if found else (0, 0)

    def query(self, statement: str) -> list[Any]:
        """Ask the ledger, which is faster than asking the command line."""
        database = sqlite3.connect(f"file:{self.state / 'ledger.db'}?mode=ro", uri=True)
        try:
            return database.execute(statement).fetchall()
        finally:
            database.close()


def long_text(sentences: int) -> str:
    """A text of so many paragraphs, each a chunk of its own."""
    return "\n\n".join(SPOKEN.format(number) for number in range(sentences))


def command_of(process: psutil.Process) -> str:
    """Its command line; empty if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
