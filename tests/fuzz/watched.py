"""One input after the other, held to what every input is promised.

No exception but those that the program documents, no more than 2 s of processor time, no more than 200 MB.
Knows nothing of what is tried. Invariant: the input at hand lies in a file that outlives this process, so
that whoever kills or buries it knows the input too.
"""

import hashlib
import mmap
import resource
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_SECONDS = 2.0
MAX_GROWTH_MB = 200
LARGEST_INPUT_BYTES = 4 << 20
_HEADER = struct.Struct("<6Q")

Target = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How far a child is."""

    inputs: int = 0
    worst_seconds: float = 0.0
    peak_mb: float = 0.0
    findings: int = 0
    done: bool = False
    current: bytes = b""
    "the input at hand"


def read_tally(path: Path, *, current: bool = True) -> Tally:
    """What a child has written there so far."""
    with open(path, "rb") as stream:
        data = stream.read(_HEADER.size + (LARGEST_INPUT_BYTES if current else 0))
    if len(data) < _HEADER.size:
        return Tally()
    inputs, worst_us, peak_kb, findings, done, length = _HEADER.unpack_from(data)
    return Tally(
        inputs=inputs,
        worst_seconds=worst_us / 1e6,
        peak_mb=peak_kb / 1024,
        findings=findings,
        done=bool(done),
        current=data[_HEADER.size : _HEADER.size + length],
    )


class Watched:
    """A target under watch; what breaks a promise is kept in `folder` and does not stop the others."""

    def __init__(self, name: str, target: Target, tally: Path, folder: Path) -> None:
        self._name, self._target, self._folder = name, target, folder
        tally.write_bytes(bytes(_HEADER.size + LARGEST_INPUT_BYTES))
        with open(tally, "r+b") as stream:
            self._page = mmap.mmap(stream.fileno(), 0)
        self._inputs = self._findings = 0
        self._worst_seconds = 0.0
        self._known: set[str] = set()
        self._base_mb: float | None = None

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self._inputs

    def __call__(self, data: bytes) -> None:
        """Try one input."""
        data = data[:LARGEST_INPUT_BYTES]
        self._page[_HEADER.size : _HEADER.size + len(data)] = data
        self._note(len(data))
        if self._base_mb is None:
            self._base_mb = peak_mb()
        started = processor_seconds()
        try:
            self._target(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 (a panic of a library is no Exception)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self._found(
                data, f"{type(error).__name__} at {frame.filename}:{frame.lineno}", traceback.format_exc()
            )
        seconds = processor_seconds() - started
        self._inputs += 1
        if seconds > self._worst_seconds:
            self._worst_seconds = seconds
            if seconds > MAX_SECONDS / 4:
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / f"slowest-{self._name}").write_bytes(data)
        if seconds > MAX_SECONDS:
            self._found(data, f"slow {len(self._known)}", f"{seconds:.1f} s of processor time")
        if peak_mb() - self._base_mb > MAX_GROWTH_MB:
            self._found(data, "memory", f"{peak_mb() - self._base_mb:.0f} MB")
            self._base_mb = peak_mb()
        self._note(len(data))

    def end(self) -> None:
        """All were tried."""
        self._note(0, done=True)

    def _note(self, length: int, *, done: bool = False) -> None:
        facts = (
            self._inputs,
            int(self._worst_seconds * 1e6),
            int(peak_mb() * 1024),
            self._findings,
            done,
            length,
        )
        _HEADER.pack_into(self._page, 0, *facts)

    def _found(self, data: bytes, kind: str, told: str) -> None:
        self._findings += 1
        if kind not in self._known:
            self._known.add(kind)
            keep(self._folder, self._name, data, f"{kind}\n\n{told}")


def keep(folder: Path, name: str, data: bytes, told: str) -> Path:
    """Keep an input that broke a promise, and why, for `corpus/`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}"
    path.write_bytes(data)
    path.with_name(path.name + ".txt").write_text(told, errors="backslashreplace")
    return path


def peak_mb() -> float:
    """The most memory that this process or one of its children ever held."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) / 1024


def processor_seconds() -> float:
    """Of this process and its ended children: others may use the machine, too."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
