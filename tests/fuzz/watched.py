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
MAX_MB = 200
LARGEST_INPUT_BYTES = 4 << 20
_HEADER = struct.Struct("<6Q")

Target = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How far a child is."""

    inputs: int = 0
    worst_seconds: float = 0.0
    most_mb: float = 0.0
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
    inputs, worst_us, most_kb, findings, done, length = _HEADER.unpack_from(data)
    return Tally(
        inputs=inputs,
        worst_seconds=worst_us / 1e6,
        most_mb=most_kb / 1024,
        findings=findings,
        done=bool(done),
        current=data[_HEADER.size : _HEADER.size + length],
    )


class Watched:
    """A target under watch; what breaks a promise is kept in `folder` and does not stop the others."""

    def __init__(self, name: str, target: Target, tally: Path, folder: Path) -> None:
        self._name, self._target, self._folder = name.replace(" ", "-"), target, folder
        tally.write_bytes(bytes(_HEADER.size + LARGEST_INPUT_BYTES))
        with open(tally, "r+b") as stream:
            self._page = mmap.mmap(stream.fileno(), 0)
        self._inputs = self._findings = 0
        self._worst_seconds = self._most_mb = 0.0
        self._known: set[str] = set()

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self._inputs

    def __call__(self, data: bytes) -> None:
        """Try one input."""
        data = data[:LARGEST_INPUT_BYTES]
        self._page[_HEADER.size : _HEADER.size + len(data)] = data
        self._note(len(data))
        memory, started = Memory(), processor_seconds()
        try:
            self._target(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 (a panic of a library is no Exception)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
            self._found(data, kind, traceback.format_exc())
        self._inputs += 1
        self._judge(data, processor_seconds() - started, memory.taken_mb())
        self._note(len(data))

    def _judge(self, data: bytes, seconds: float, megabytes: float) -> None:
        if seconds > max(self._worst_seconds, MAX_SECONDS / 4):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"slowest-{self._name}").write_bytes(data)
        self._worst_seconds = max(self._worst_seconds, seconds)
        self._most_mb = max(self._most_mb, megabytes)
        if seconds > MAX_SECONDS:
            self._found(data, f"slow {len(self._known)}", f"{seconds:.1f} s of processor time")
        if megabytes > MAX_MB:
            self._found(data, f"memory {len(self._known)}", f"{megabytes:.0f} MB")

    def end(self) -> None:
        """All were tried."""
        self._note(0, done=True)

    def _note(self, length: int, *, done: bool = False) -> None:
        numbers = (self._inputs, int(self._worst_seconds * 1e6), int(self._most_mb * 1024), self._findings)
        _HEADER.pack_into(self._page, 0, *numbers, done, length)

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


class Memory:
    """What is taken from now on: by this process (proc(5), clear_refs), or by a child that ends meanwhile."""

    def __init__(self) -> None:
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")  # the peak begins anew
        self._before_mb = _status_mb("VmRSS")
        self._children_before = resource.getrusage(resource.RUSAGE_CHILDREN)

    def taken_mb(self) -> float:
        """At its highest; of children it is the most that any ever took."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = _status_mb("VmHWM") - self._before_mb
        return own if children == self._children_before else max(own, children.ru_maxrss / 1024)


def _status_mb(field: str) -> float:
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) / 1024 for line in stream if line.startswith(field))


def processor_seconds() -> float:
    """Of this process and its ended children: others may use the machine, too."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
