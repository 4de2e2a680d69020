"""ffmpeg as a child process: the only place that starts it.

Knows processes and pipes, nothing of formats or filters. Invariants: no process outlives its
`Ffmpeg` block, a full pipe on either side never locks up, and one that stops moving is killed.
"""

import contextlib
import fcntl
import functools
import io
import os
import select
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import imageio_ffmpeg

from pipeline.errors import EnvironmentFailure, SynthesisError

STALL_SECONDS = 120.0
REPORT_SECONDS = 1.0
"how often the caller of `finish` hears from it"
Report = Callable[[], None]
_QUERY_SECONDS = 30.0
_PIPE_BYTES = 1 << 20
HELD_BYTES = 8 << 20
"of what it is to read: a minute and more of speech, so that nobody waits for it between two chunks"
_LOG_LINE_BYTES = 4096
_LOG_FIRST_LINES, _LOG_LAST_LINES = 1000, 40
_NEEDED_ENCODERS = frozenset({"libmp3lame", "libopus", "aac", "flac", "pcm_s16le"})
# The limiter can only be told to make up for its own delay from ffmpeg 5.1 on.
_NEEDED_OPTION = ("alimiter", "latency")
_PROGRESS = ("-progress", "pipe:1", "-stats_period", "0.5")
# It tells its progress on the clock, moving or not: these are the parts that only movement changes.
_MOVEMENTS = (b"out_time_us=", b"total_size=")
_ENVIRONMENT_WORDS = {
    "No space left on device": ("the disk is full", "disk_full"),
    "Disk quota exceeded": ("the disk quota is used up", "quota"),
    "Read-only file system": ("the disk is read-only", "read_only"),
    "Input/output error": ("the disk fails", "disk"),
}


@functools.cache
def executable() -> str:
    """The ffmpeg to use: the system's if it can do all we need, else the one from the wheel."""
    system = shutil.which("ffmpeg")
    return system if system and _suits(system) else str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.cache
def ffmpeg_version() -> str:
    """Version word of `executable()`, as ffmpeg prints it."""
    words = _ask(executable(), "-version").split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else "unknown"


def _suits(path: str) -> bool:
    if "--enable-libsoxr" not in _ask(path, "-version"):
        return False
    name, option = _NEEDED_OPTION
    encoders = set(_ask(path, "-hide_banner", "-encoders").split())
    return encoders >= _NEEDED_ENCODERS and option in _ask(path, "-hide_banner", "-h", f"filter={name}")


def _ask(path: str, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            [path, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_QUERY_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.decode("utf-8", "replace")


def environment_failure(log: str, folder: Path) -> EnvironmentFailure | None:
    """What ffmpeg's words say about the machine when it wrote into `folder`; None if that is not at fault."""
    for words, (meaning, code) in _ENVIRONMENT_WORDS.items():
        if words in log:
            return EnvironmentFailure(
                f"The sound could not be written to {folder}: {meaning}.",
                hint="Make room or mend the disk; the job then goes on by itself.",
                code=code,
            )
    return None


def last_words(log: str) -> str:
    """The last thing ffmpeg said, for an error message."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


class Ffmpeg:
    """One running ffmpeg. Use as a context manager."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        stdin: int | IO[bytes] | None,
        tells_progress: bool = False,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Start it; `stdin` is an open file, `subprocess.PIPE` for `write`, or None for nothing.

        `tells_progress`: it writes files and not to its standard output, which then says how far it is;
        without that, work that goes on after its input has ended would be taken for a stall.
        """
        self._tells_progress = tells_progress
        self._stall_seconds = stall_seconds
        self._held: deque[memoryview] = deque()
        self._behind = 0
        "bytes that were written and that it has not taken"
        self._broken = self._ends = False
        self._fed = threading.Condition()
        self._feeder: threading.Thread | None = None
        self._moved_at = time.monotonic()
        self._first_lines: list[bytes] = []
        self._last_lines: deque[bytes] = deque(maxlen=_LOG_LAST_LINES)
        progress = _PROGRESS if tells_progress else ()
        command = [executable(), "-hide_banner", "-nostdin", "-nostats", *progress, *arguments]
        # A session of its own: Ctrl-C in a terminal is for us, we then tell ffmpeg.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        _make_fast(self._process.stdin)
        drains = [self._keep_log]
        if tells_progress:
            drains.append(self._watch_progress)
        else:
            _make_fast(self._process.stdout)
        self._drains = [threading.Thread(target=drain, name="ffmpeg-drain", daemon=True) for drain in drains]
        for thread in self._drains:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def write(self, data: memoryview) -> None:
        """Feed bytes, which must not change any more; waits only while it is HELD_BYTES behind.

        Raises BrokenPipeError if it has died, SynthesisError if it takes nothing more.
        """
        if self._feeder is None:
            self._feeder = threading.Thread(target=self._feed, name="ffmpeg-feed", daemon=True)
            self._feeder.start()
        with self._fed:
            self._held.append(data)
            self._behind += len(data)
            self._fed.notify_all()
        self._wait_until_behind(HELD_BYTES)

    def _wait_until_behind(self, most: int) -> None:
        """Until it has no more than that to take."""
        while self._behind > most and not self._broken:
            if not self._takes_something(self._behind):
                raise self._stalled()
        if self._broken:
            raise BrokenPipeError

    def _takes_something(self, behind: int) -> bool:
        """Whether it does so, or dies, before it counts as stalled."""
        with self._fed:
            return self._fed.wait_for(lambda: self._behind < behind or self._broken, self._stall_seconds)

    def _feed(self) -> None:
        """Runs beside: what is held goes into the pipe as it takes it."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            while (data := self._next_held()) is not None:
                while data:
                    written = _written(pipe, data)
                    data = data[written:]
                    with self._fed:
                        self._behind -= written
                        self._fed.notify_all()
            return
        with self._fed:
            self._broken = True
            self._fed.notify_all()

    def _next_held(self) -> memoryview | None:
        """Waits for it; None at the end."""
        with self._fed:
            self._fed.wait_for(lambda: self._held or self._ends)
            return self._held.popleft() if self._held else None

    def _end_feeding(self) -> None:
        """Nothing more will come, and what is held need not go."""
        if self._feeder is None:
            return
        with self._fed:
            self._ends = True
            self._fed.notify_all()
        self._feeder.join()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of its standard output; empty at the end."""
        pipe = self._process.stdout
        assert pipe is not None
        while True:
            with contextlib.suppress(BlockingIOError):
                return os.read(pipe.fileno(), size)
            self._wait_for_output(pipe)

    def finish(self, report: Report | None = None) -> int:
        """Close its input, wait for it to end by itself and return its exit status.

        `report` is called about once a second meanwhile. What it raises passes through: leaving the
        block then kills ffmpeg.
        """
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._wait_until_behind(0)
            self._end_feeding()
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if not self._tells_progress:
            while self.read(_PIPE_BYTES):
                pass
        self._moved_at = time.monotonic()
        while (status := self._ended_within(min(REPORT_SECONDS, self._stall_seconds))) is None:
            if report is not None:
                report()
            if time.monotonic() - self._moved_at > self._stall_seconds:
                raise self._stalled()
        self._join_drains()
        return status

    def _ended_within(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it now, if it still runs, and free its pipes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._end_feeding()
        self._join_drains()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    @property
    def log(self) -> str:
        """What it said: the first lines and the last; complete once it has ended."""
        return b"".join((*self._first_lines, *self._last_lines)).decode("utf-8", "replace")

    def _join_drains(self) -> None:
        for thread in self._drains:
            thread.join()

    def _watch_progress(self) -> None:
        pipe, last = self._process.stdout, dict.fromkeys(_MOVEMENTS, b"")
        assert isinstance(pipe, io.RawIOBase)
        with io.BufferedReader(pipe) as lines:
            while line := lines.readline(_LOG_LINE_BYTES):
                for name in _MOVEMENTS:
                    if line.startswith(name) and line != last[name]:
                        last[name], self._moved_at = line, time.monotonic()

    def _keep_log(self) -> None:
        pipe = self._process.stderr
        assert isinstance(pipe, io.RawIOBase)
        with io.BufferedReader(pipe) as lines:
            while line := lines.readline(_LOG_LINE_BYTES):
                kept = self._first_lines if len(self._first_lines) < _LOG_FIRST_LINES else self._last_lines
                kept.append(line)

    def _wait_for_output(self, pipe: IO[bytes]) -> None:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        if not poll.poll(self._stall_seconds * 1000):
            raise self._stalled()

    def _stalled(self) -> SynthesisError:
        self.kill()
        return SynthesisError(
            f"ffmpeg did not move for {self._stall_seconds:.0f} s and was stopped: {last_words(self.log)}",
            hint="Try again; if it happens again the sound file or the ffmpeg in use is at fault.",
            code="ffmpeg_stalled",
        )


def _written(pipe: IO[bytes], data: memoryview) -> int:
    """How much of it the pipe took, for which this waits."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    while True:
        with contextlib.suppress(BlockingIOError):
            return os.write(pipe.fileno(), data)
        poll.poll()


def _make_fast(pipe: IO[bytes] | None) -> None:
    """Never block on the pipe, and let it hold about ten seconds of speech instead of one."""
    if pipe is None:
        return
    os.set_blocking(pipe.fileno(), False)
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
