"""A daemon whose whole process tree is one forked process, killed by SIGKILL at a named step.

The supervisor is the real one with the real worker in its hands instead of in a process of its own: so a
life costs a tenth of a second and every step on a file's way can be tried. The real tree of processes is
killed by `bench/crashes.py`. The steps are those that `pipeline/crash.py` tells to audit hooks.
"""

import errno
import functools
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import soundfile
import yaml
from loguru import logger

from bench.ground import Ground
from pipeline import supervisor
from pipeline.audit import Audit, audit
from pipeline.config import Config, load_config
from pipeline.crash import EVENT
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.pools.base import Ended
from pipeline.worker import Worker

IDS = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


class OwnHands:
    """A pool whose only worker is the daemon itself."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._worker: Worker | None = None

    def names(self) -> list[str]:
        """It needs no reaping."""
        return []

    def fill(self) -> list[str]:
        """Do one job, if there is one; there is a ledger by now."""
        if self._worker is None:
            self._worker = Worker(self._config, "1-own-1", stop=threading.Event())
        job = self._worker._next()
        if job is not None:
            self._worker.do(job)
        return []

    def reap(self) -> list[Ended]:
        """It cannot die alone."""
        return []

    def name_of(self, pid: int) -> str:
        """It has no process of its own."""
        return ""

    def kill(self, worker: str) -> None: ...

    def stop(self) -> None: ...

    def kill_all(self) -> None: ...


@dataclass(slots=True)
class House:
    """Four folders and the lives that a daemon has in them."""

    root: Path
    apart: bool = False
    "whether inbox, outbox and state are on filesystems of their own, as far as renames can tell"
    at: dict[str, Callable[[], None]] = field(default_factory=dict)
    "what somebody does in the moment of a step, once, in the next life"

    def __post_init__(self) -> None:
        for name in ("inbox", "outbox", "voices", "state"):
            (self.root / name).mkdir(parents=True)
        self.configure()

    def configure(self, **sections: Any) -> None:
        """Write the configuration: files settle at once, nothing is checked."""
        defaults = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}
        fixed = {
            "intake": {"settle_seconds": 0.0, "events": False},
            "defaults": defaults,
            "workers": {"max_attempts": 10},
        }
        merged = {name: {**fixed.get(name, {}), **sections.get(name, {})} for name in {*fixed, *sections}}
        (self.root / "config.yaml").write_text(yaml.safe_dump(merged), encoding="utf-8")

    @property
    def config(self) -> Config:
        """As the daemon reads it."""
        return load_config(self.root / "config.yaml")

    @property
    def layout(self) -> Layout:
        """Where things lie."""
        return layout_of(self.config)

    def drop(self, name: str, content: str | bytes) -> Path:
        """Put a file into the inbox."""
        path = self.root / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def live(self, *, until: tuple[str, int] | None = None) -> int:
        """One life with `--once`, ended by SIGKILL after the step `until` was made so many times.

        Returns what `os.waitpid` told: 9 for SIGKILL, the exit code times 256 otherwise.
        """
        child = os.fork()
        if child == 0:
            self._be_the_daemon(until)
        self.at.clear()
        return os.waitpid(child, 0)[1]

    def steps(self) -> list[str]:
        """Every step of the last life, in order."""
        return (self.root / "steps").read_text().split()

    def _be_the_daemon(self, until: tuple[str, int] | None) -> NoReturn:
        try:
            os._exit(self._once(until))
        finally:  # nothing of the test may go on in here
            (self.root / "traceback").write_text(traceback.format_exc())
            os._exit(3)

    def _once(self, until: tuple[str, int] | None) -> int:
        logger.remove()
        logger.add(self.root / "daemon.log")
        steps = os.open(self.root / "steps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        made: list[str] = []

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event != EVENT:
                return
            made.append(arguments[0])
            os.write(steps, f"{arguments[0]}\n".encode())
            action = self.at.pop(arguments[0], None)
            if action is not None:
                action()
            if until is not None and made[-1] == until[0] and made.count(until[0]) == until[1]:
                os.kill(os.getpid(), signal.SIGKILL)

        if self.apart:
            os.link = self._refusing(os.link)
            os.rename = self._refusing(os.rename)
        sys.addaudithook(hook)
        # a process of its own each time would cost more than all the rest, and prunes nothing here
        supervisor.Pruner = functools.partial(supervisor.Pruner, command=["true"])  # type: ignore
        config = self.config
        return supervisor.Supervisor(config, once=True, pool=OwnHands(config)).run()

    def _refusing(self, call: Callable[..., None]) -> Callable[..., None]:
        """`call`, from one of the four folders into another, fails as between filesystems."""

        def wrapped(source: Path, target: Path, **options: Any) -> None:
            tops = {self._top(Path(os.path.realpath(place.parent))) for place in (source, target)}
            if len(tops) > 1:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
            call(source, target, **options)

        return wrapped

    def _top(self, folder: Path) -> str:
        return folder.relative_to(self.root.resolve()).parts[0]

    # -- what stands there -------------------------------------------------------------------------

    def ground(self) -> Ground:
        """The same folders as the benchmarks know them."""
        return Ground(self.root)

    def audit(self) -> Audit:
        """As `daemon.py audit --deep`."""
        ledger = Ledger(self.layout.ledger_file, clock=time.time)
        try:
            return audit(ledger, self.layout, deep=True, sleep=lambda seconds: None)
        finally:
            ledger.close()

    def takes(self) -> dict[str, int]:
        """When each finished take was written."""
        sheets = (self.root / "state" / "cache").glob("*/*.json")
        sounds = (sheet.with_suffix(".wav") for sheet in sheets)
        return {sound.name: sound.stat().st_mtime_ns for sound in sounds if sound.exists()}

    def tree(self) -> dict[str, list[str]]:
        """Everything in inbox and outbox and the rooms for half-done work, with ids and times left out."""
        found: dict[str, list[str]] = {}
        for top in ("inbox", "outbox", "state/work", "state/spool"):
            for folder, _, names in os.walk(self.root / top):
                for name in names:
                    path = Path(folder, name)
                    place = IDS.sub("ID", str(path.relative_to(self.root)))
                    if name not in ("status.json", ".voxspool-root", "lock"):
                        found.setdefault(place, []).append(_content(path))
        return {place: sorted(contents) for place, contents in found.items()}


def _content(path: Path) -> str:
    """What must be the same each time: not the tags of a sound, nor how long it took."""
    data = path.read_bytes()
    if path.suffix == ".log":
        return "a log"
    if path.suffix in (".wav", ".flac"):
        return hashlib.sha256(soundfile.read(path)[0].data).hexdigest()
    if path.suffix == ".json":
        facts = json.loads(data)
        for name in ("timings", "chunks", "outputs"):
            facts.pop(name, None)
        data = json.dumps(facts).encode()
    return IDS.sub("ID", data.decode())
