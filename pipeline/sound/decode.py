"""Foreign recordings into samples: nothing in such a file is believed.

Lets ffmpeg decode a file as the one container its first bytes show it to be; playlists and other
formats that name further files are never tried. Invariant: what is returned is the whole
recording, finite and at the asked rate, or an InputError says in one sentence why not.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.errors import EnvironmentFailure, InputError
from pipeline.files import ENVIRONMENT_ERRNOS, display, open_regular
from pipeline.sound.audio import Audio, Samples
from pipeline.sound.containers import HEAD_BYTES, TAIL_BYTES, container_of, id3_bytes, shortfall
from pipeline.sound.ffmpeg import Ffmpeg, last_words

KNOWN_FORMATS = "wav, mp3, flac, ogg, opus, m4a or aac"
MIN_RATE_HZ = 2000
"the lowest that any telephone or toy records at is 4000"
_BYTES_PER_SAMPLE = 4
# Containers round their duration; what is missing beyond this was cut off.
_LENGTH_TOLERANCE_SECONDS, _LENGTH_TOLERANCE_SHARE = 0.25, 0.005
_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
_STREAM = re.compile(r"^  Stream #0:\d+.*?: Audio: (\w+).*?, (\d+) Hz, ([^,]+)", re.MULTILINE)
_ESTIMATED = "Estimating duration from bitrate"
_CHANNELS = {"mono": 1, "stereo": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a recording says of itself."""

    seconds: float | None
    "None where the file cannot tell before it is decoded"
    rate_hz: int
    channels: int
    codec: str
    "ffmpeg's word: pcm_s16le, mp3, opus, ..."


def probe(path: Path) -> Recording:
    """Length, rate and channels as the header tells them. Raises InputError if it is no recording."""
    with _open(path) as stream:
        arguments = _input_arguments(stream, path)
        # No output is asked for, so ffmpeg ends with an error after it has told of the input.
        with Ffmpeg(arguments, stdin=stream) as process:
            process.finish()
            log = process.log
    found = _STREAM.search(log)
    if found is None:
        raise _unreadable(path, last_words(log))
    _refuse_stretched(path, log)
    channels = _CHANNELS.get(found[3].strip()) or _channel_count(found[3])
    return Recording(seconds=_declared_seconds(log), rate_hz=int(found[2]), channels=channels, codec=found[1])


def decode(path: Path, rate_hz: int, *, max_seconds: float | None = None) -> Audio:
    """The whole recording as mono at `rate_hz`, or its first `max_seconds`.

    Raises InputError (audio_unreadable, audio_truncated, audio_empty).
    """
    blocks = list(decode_blocks(path, rate_hz, 10.0, max_seconds=max_seconds))
    return Audio(np.concatenate(blocks), rate_hz)


def decode_blocks(
    path: Path, rate_hz: int, block_seconds: float, *, max_seconds: float | None = None
) -> Iterator[Samples]:
    """The recording as mono blocks of `block_seconds`, the last one shorter; one block is held at a time.

    Raises InputError like `decode`; a file cut short whose header hides it is found only at its end.
    """
    with _open(path) as stream:
        arguments = [*_input_arguments(stream, path), *_output_arguments(rate_hz, max_seconds)]
        with Ffmpeg(arguments, stdin=stream) as process:
            count = 0
            for block in _blocks(process, max(1, round(block_seconds * rate_hz))):
                if count == 0:
                    _refuse_stretched(path, process.log)
                if not np.isfinite(block).all():
                    raise _unreadable(path, "it holds values that are not numbers")
                count += len(block)
                yield block
            status, log = process.finish(), process.log
    _check_whole(path, status, log, count / rate_hz, max_seconds)


def _refuse_stretched(path: Path, log: str) -> None:
    """One sample a second, as a damaged header may say, makes hours of a few kilobytes."""
    found = _STREAM.search(log)
    if found is not None and int(found[2]) < MIN_RATE_HZ:
        raise _unreadable(path, f"its header claims {int(found[2]):,} samples a second, too few for speech")


def _open(path: Path) -> IO[bytes]:
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno in ENVIRONMENT_ERRNOS:
            raise EnvironmentFailure(f"{display(path.name)} cannot be read: {error.strerror}.") from error
        raise _unreadable(path, str(error.strerror)) from error


def _input_arguments(stream: IO[bytes], path: Path) -> list[str]:
    """Have ffmpeg read the open file, as the one container it is; its name never reaches ffmpeg."""
    size = os.fstat(stream.fileno()).st_size
    head = os.pread(stream.fileno(), HEAD_BYTES, 0)
    if not head.strip(b"\0"):
        raise _empty(path, f"it is {size} bytes of nothing")
    # A picture in the tag may be longer than the head: look behind it.
    container = container_of(head) or container_of(os.pread(stream.fileno(), 16, id3_bytes(head)))
    if container is None:
        raise _unreadable(path, f"its content is none of {KNOWN_FORMATS}, whatever its name says")
    tail = os.pread(stream.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))
    if missing := shortfall(container, head, tail, size):
        raise _truncated(path, missing)
    whitelist = ["-protocol_whitelist", "file,pipe"]
    return ["-loglevel", "info", "-threads", "1", *whitelist, "-f", container, "-i", "file:/dev/stdin"]


def _output_arguments(rate_hz: int, max_seconds: float | None) -> list[str]:
    cut = [] if max_seconds is None else ["-t", f"{max_seconds:.6f}"]
    first_sound = ["-map", "0:a:0", "-vn", "-sn", "-dn"]
    # Left to itself ffmpeg mixes to floating point 3 dB louder for two channels, more for five.
    mono = f"aresample={rate_hz}:ochl=mono:rematrix_maxval=1"
    return [*first_sound, *cut, "-af", mono, "-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]


def _blocks(process: Ffmpeg, block_samples: int) -> Iterator[Samples]:
    wanted = block_samples * _BYTES_PER_SAMPLE
    buffer = bytearray()
    while data := process.read(wanted):
        buffer += data
        while len(buffer) >= wanted:
            yield np.frombuffer(bytes(buffer[:wanted]), dtype="<f4").astype(np.float32, copy=False)
            del buffer[:wanted]
    whole = len(buffer) - len(buffer) % _BYTES_PER_SAMPLE
    if whole:
        yield np.frombuffer(bytes(buffer[:whole]), dtype="<f4").astype(np.float32, copy=False)


def _declared_seconds(log: str) -> float | None:
    found = _DURATION.search(log)
    if found is None or _ESTIMATED in log:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _channel_count(layout: str) -> int:
    """Channels of a layout as ffmpeg prints it: `5.1(side)`, `quad`, `6 channels`."""
    numbers = re.match(r"(\d+)(?:\.(\d))?", layout.strip())
    return int(numbers[1]) + int(numbers[2] or 0) if numbers else 1


def _check_whole(path: Path, status: int, log: str, seconds: float, max_seconds: float | None) -> None:
    if "moov atom not found" in log:
        raise _truncated(path, "its table of contents, which stands at its end, is missing")
    if seconds == 0:
        raise _empty(path, last_words(log)) if status == 0 else _unreadable(path, last_words(log))
    declared = _declared_seconds(log)
    if declared is None:
        return
    expected = min(declared, max_seconds) if max_seconds is not None else declared
    if seconds < expected - max(_LENGTH_TOLERANCE_SECONDS, _LENGTH_TOLERANCE_SHARE * expected):
        raise _truncated(path, f"it promises {expected:.1f} s of sound and holds {seconds:.1f} s")


def _empty(path: Path, reason: str) -> InputError:
    return InputError(
        f"{display(path.name)} holds no sound: {reason}.",
        hint="It was probably not copied whole: play it to see what is in it, then drop it again.",
        code="audio_empty",
    )


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{display(path.name)} cannot be read as a recording: {reason}.",
        hint=f"Drop the recording as {KNOWN_FORMATS}.",
        code="audio_unreadable",
    )


def _truncated(path: Path, reason: str) -> InputError:
    return InputError(
        f"{display(path.name)} is cut short: {reason}.",
        hint="It was probably not copied whole: drop it again.",
        code="audio_truncated",
    )
