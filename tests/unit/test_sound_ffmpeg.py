"""The process: found, fed, read, drained, killed; never a zombie, never a lock-up."""

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.errors import SynthesisError
from pipeline.sound import ffmpeg
from pipeline.sound.ffmpeg import (
    HELD_BYTES,
    Ffmpeg,
    environment_failure,
    executable,
    ffmpeg_version,
    last_words,
)

RAW = ["-loglevel", "error", "-f", "f32le", "-ar", "8000", "-ac", "1", "-i", "pipe:0"]


def fake(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in ffmpeg's place."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(path))


def children() -> set[str]:
    """Process ids of our children, zombies included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_there_is_an_ffmpeg_and_it_has_a_version() -> None:
    """The one in use exists and says a version."""
    assert os.access(executable(), os.X_OK)
    assert ffmpeg_version() not in ("", "unknown")


@pytest.mark.parametrize("script", ["exit 1", "echo ffmpeg version 4.2", "echo --enable-libsoxr libopus"])
def test_a_system_ffmpeg_that_lacks_something_is_passed_over(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old or crippled ffmpeg on the path is not used: the wheel's is."""
    fake(tmp_path, script, monkeypatch)
    assert not ffmpeg._suits(str(tmp_path / "ffmpeg"))


def test_an_able_system_ffmpeg_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own is used where it can do everything."""
    (tmp_path / "ffmpeg").symlink_to(executable())
    monkeypatch.setenv("PATH", str(tmp_path))
    executable.cache_clear()
    try:
        assert executable() == str(tmp_path / "ffmpeg")
    finally:
        executable.cache_clear()


def test_bytes_go_through_in_full(tmp_path: Path) -> None:
    """More than a pipe holds, both ways at once through a file, comes out as it went in."""
    data = os.urandom(4_000) * 1000
    target = tmp_path / "out.raw"
    with Ffmpeg([*RAW, "-c:a", "copy", "-f", "f32le", f"file:{target}"], stdin=subprocess.PIPE) as process:
        process.write(memoryview(data))
        assert process.finish() == 0
    assert target.read_bytes() == data


def test_leaving_the_block_kills_and_reaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process and no zombie is left when the caller gives up."""
    fake(tmp_path, "exec sleep 60", monkeypatch)
    before = children()
    with pytest.raises(KeyError), Ffmpeg([], stdin=subprocess.PIPE):
        assert children() > before
        raise KeyError
    assert children() == before


def test_a_flood_of_complaints_does_not_lock_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes on standard error are read on, and only their first and last lines are kept."""
    fake(tmp_path, "seq -f 'complaint %.0f' 400000 >&2; cat >/dev/null", monkeypatch)
    with Ffmpeg([], stdin=subprocess.PIPE) as process:
        process.write(memoryview(bytes(300_000)))
        assert process.finish() == 0
        assert last_words(process.log) == "complaint 400000"
        assert process.log.startswith("complaint 1\n")
        assert len(process.log) < 50_000


def test_one_that_takes_nothing_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging ffmpeg ends in an error after the stall time, not in a daemon that hangs."""
    fake(tmp_path, "echo thinking >&2; exec sleep 60", monkeypatch)
    started = time.monotonic()
    with (
        pytest.raises(SynthesisError, match=r"did not move for 0 s.*thinking") as caught,
        Ffmpeg([], stdin=subprocess.PIPE, stall_seconds=0.3) as process,
    ):
        process.write(memoryview(bytes(HELD_BYTES + (2 << 20))))
    assert caught.value.code == "ffmpeg_stalled"
    assert time.monotonic() - started < 10


def test_nobody_waits_for_one_that_is_a_little_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not take yet is held, and comes to it whole and in order."""
    fake(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; cat >{tmp_path}/got", monkeypatch)
    pieces = [bytes([number]) * (number * 50_000) for number in range(15)]
    with Ffmpeg([], stdin=subprocess.PIPE) as process:
        for piece in pieces:
            process.write(memoryview(piece))
        (tmp_path / "go").touch()
        assert process.finish() == 0
    assert (tmp_path / "got").read_bytes() == b"".join(pieces)


def test_one_that_takes_nothing_at_the_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with what was held for it."""
    fake(tmp_path, "exec sleep 60", monkeypatch)
    with (
        pytest.raises(SynthesisError, match="did not move"),
        Ffmpeg([], stdin=subprocess.PIPE, stall_seconds=0.3) as process,
    ):
        process.write(memoryview(bytes(HELD_BYTES)))
        process.finish()


def test_one_that_says_nothing_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same while we read from it, and while we wait for its end."""
    fake(tmp_path, "exec sleep 60", monkeypatch)
    with (
        pytest.raises(SynthesisError, match="said nothing"),
        Ffmpeg([], stdin=None, stall_seconds=0.2) as process,
    ):
        process.read(10)
    fake(tmp_path, "exec >&-; exec sleep 60", monkeypatch)
    with pytest.raises(SynthesisError), Ffmpeg([], stdin=None, stall_seconds=0.2) as process:
        process.finish()


def test_one_that_works_on_after_its_input_is_no_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it writes files it takes nothing and gives nothing, but tells that it gets on."""
    fake(tmp_path, "for n in 1 2 3 4 5 6; do echo out_time_us=$n; sleep 0.2; done", monkeypatch)
    with Ffmpeg([], stdin=None, tells_progress=True, stall_seconds=0.7) as process:
        assert process.finish() == 0


def test_one_that_tells_the_same_again_and_again_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reports come on the clock: that they come says nothing, that they differ does."""
    fake(tmp_path, "while sleep 0.1; do echo out_time_us=7; echo speed=$((n+=1)); done", monkeypatch)
    before = children()
    with (
        pytest.raises(SynthesisError, match="did not move"),
        Ffmpeg([], stdin=None, tells_progress=True, stall_seconds=0.5) as process,
    ):
        process.finish()
    assert children() == before


def test_its_progress_never_fills_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of it while we only write."""
    fake(tmp_path, "seq -f 'out_time_us=%.0f' 400000; cat >/dev/null", monkeypatch)
    with Ffmpeg([], stdin=subprocess.PIPE, tells_progress=True, stall_seconds=5) as process:
        process.write(memoryview(bytes(8 << 20)))
        assert process.finish() == 0


def test_ffmpeg_itself_tells_its_progress(tmp_path: Path) -> None:
    """Paced to real time it works for longer than it may stand still."""
    tone = ["-f", "lavfi", "-re", "-i", "sine=d=3", "-f", "wav", f"file:{tmp_path / 'a.wav'}"]
    with Ffmpeg(["-loglevel", "error", *tone], stdin=None, tells_progress=True, stall_seconds=1.5) as process:
        assert process.finish() == 0
        assert process.log == ""


def test_who_waits_for_the_end_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About once a second; what the report raises ends the wait and the process."""
    monkeypatch.setattr(ffmpeg, "REPORT_SECONDS", 0.05)
    fake(tmp_path, "sleep 0.5", monkeypatch)
    heard: list[float] = []
    begun = time.monotonic()
    with Ffmpeg([], stdin=None, tells_progress=True) as process:
        assert process.finish(lambda: heard.append(time.monotonic())) == 0
    assert 2 <= len(heard) <= (time.monotonic() - begun) / 0.05 + 1
    fake(tmp_path, "exec sleep 60", monkeypatch)
    before, started = children(), time.monotonic()
    with pytest.raises(KeyError), Ffmpeg([], stdin=None, tells_progress=True) as process:
        process.finish(lambda: {}["stop"])
    assert children() == before and time.monotonic() - started < 5


def test_one_that_died_breaks_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing on to a dead ffmpeg is noticed, and its last words are there."""
    fake(tmp_path, "echo out of ideas >&2; exit 3", monkeypatch)
    with Ffmpeg([], stdin=subprocess.PIPE) as process:
        with pytest.raises(BrokenPipeError):
            process.write(memoryview(bytes(HELD_BYTES + (2 << 20))))
        assert process.finish() == 3
        assert last_words(process.log) == "out of ideas"


@pytest.mark.parametrize(
    ("log", "code"),
    [
        ("av_interleaved_write_frame(): No space left on device\n", "disk_full"),
        ("Error: Disk quota exceeded", "quota"),
        ("Could not open: Read-only file system", "read_only"),
        ("Error writing trailer: Input/output error", "disk"),
    ],
)
def test_the_machine_is_told_from_the_job(log: str, code: str) -> None:
    """A full or read-only disk is the environment's fault, anything else is not."""
    failure = environment_failure(log, Path("/srv/state/work"))
    assert failure is not None
    assert failure.code == code and "to /srv/state/work: the disk" in failure.message
    assert environment_failure("Invalid data found", Path("/srv")) is None
