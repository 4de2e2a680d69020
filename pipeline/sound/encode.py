"""Finished speech into files: one ffmpeg beside the caller writes all formats at once.

Knows formats, tags and the order of mastering; not what is said. Invariants: memory is flat however
long the speech is, and a target exists only after `finish` returned; it is whole then.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import SynthesisError
from pipeline.sound.audio import Audio, bytes_of
from pipeline.sound.ffmpeg import STALL_SECONDS, Ffmpeg, Report, environment_failure, last_words
from pipeline.sound.master import (
    LOUDNESS_TOLERANCE_LU,
    MEASURABLE_LUFS,
    Mastering,
    levelling,
    most_gain_db,
    next_gain_db,
    shaping,
)
from pipeline.sound.measure import measure_raw, raw_input

MAX_TAG_CHARS = 2000
_LOUDNESS_ROUNDS = 5
_MP3_RATES = _AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (48000,)
_MP4 = ("-c:a", "aac", "-b:a", "96k", "-movflags", "+faststart", "-f", "ipod")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    arguments: tuple[str, ...]
    rates_hz: tuple[int, ...] = ()
    "empty: any"


# Speech in mono: mp3 comes to about 50 kbit/s at 22 kHz; lame at level 7 takes 0.6 of its default time.
# Opus below 64 kbit/s, and in its voice mode, returns speech 1 LU softer than it got it.
# RF64 takes over where a wav file would pass 4 GB, which is 27 hours at 22 kHz and 12 at 48.
FORMATS: Mapping[str, _Format] = {
    "wav": _Format(arguments=("-c:a", "pcm_s16le", "-rf64", "auto", "-f", "wav")),
    "flac": _Format(arguments=("-c:a", "flac", "-sample_fmt", "s16", "-f", "flac")),
    "mp3": _Format(
        arguments=("-c:a", "libmp3lame", "-q:a", "3", "-compression_level", "7", "-f", "mp3"),
        rates_hz=_MP3_RATES,
    ),
    "opus": _Format(
        arguments=("-c:a", "libopus", "-b:a", "64k", "-application", "audio", "-f", "opus"),
        rates_hz=_OPUS_RATES,
    ),
    "m4a": _Format(arguments=_MP4, rates_hz=_AAC_RATES),
    "m4b": _Format(arguments=(*_MP4, "-brand", "M4B "), rates_hz=_AAC_RATES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One file that was written."""

    format: str
    path: Path
    duration_seconds: float
    sample_rate_hz: int


class Encoder:
    """Streams speech into files. Use as a context manager; left without `finish` it leaves no file."""

    def __init__(
        self,
        targets: Mapping[str, Path],
        rate_hz: int,
        *,
        mastering: Mastering | None = None,
        tags: Mapping[str, str] | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """`targets` maps a key of `FORMATS` to the file to write (replaced if it is there).

        `tags` are title, artist, album, comment and the like. With a loudness to reach, the speech
        is first kept raw beside the first target, and encoded once it has been measured.
        """
        self._targets = dict(targets)
        self._rate_hz = rate_hz
        self._mastering = mastering or Mastering()
        self._tags = dict(tags or {})
        self._stall_seconds = stall_seconds
        self._samples = 0
        self._finished = False
        self.loudness_lufs: float | None = None
        "what was reached, after `finish`, where a loudness was asked for and there was sound to measure"
        self._raw = self._raw_path() if self._mastering.loudness_lufs is not None else None
        self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        if self._raw is not None:
            self._raw.unlink(missing_ok=True)
        if not self._finished:
            for path in filter(_is_ours, self._targets.values()):
                path.unlink(missing_ok=True)

    def write(self, audio: Audio) -> None:
        """Append `audio`; waits only while ffmpeg is a minute of speech behind.

        Raises EnvironmentFailure if the disk is full, SynthesisError if ffmpeg gave up.
        """
        if audio.rate_hz != self._rate_hz:
            raise ValueError(f"expected {self._rate_hz} Hz, got {audio.rate_hz}")
        try:
            self._process.write(bytes_of(audio.samples))
        except BrokenPipeError:
            self._end(self._process)
            raise
        self._samples += len(audio.samples)

    def finish(self, report: Report | None = None) -> tuple[Encoded, ...]:
        """End the stream and return the files, in the order of the targets.

        `report` is called about once a second while ffmpeg is at work, which with a loudness to reach may be
        for many minutes; if it raises, no file is left and the exception passes.
        """
        if self._samples == 0:
            raise SynthesisError("There was no sound to write.", code="no_sound")
        self._end(self._process, report)
        if self._raw is not None:
            self._encode_measured(self._raw, report)
        self._finished = True
        return tuple(self._encoded(name, path) for name, path in self._targets.items())

    @property
    def seconds(self) -> float:
        """How long the files will play, for what was written so far."""
        return self._samples / self._rate_hz / self._mastering.speed

    def _start(self) -> Ffmpeg:
        source = ["-loglevel", "error", *raw_input(self._rate_hz), "-i", "pipe:0"]
        shape = shaping(self._mastering, self._rate_hz)
        if self._raw is None:
            outputs = self._outputs([*shape, *levelling(self._mastering, self._rate_hz, 0.0)])
        else:
            filters = ",".join(shape) or "anull"
            outputs = ["-af", filters, "-c:a", "pcm_f32le", "-f", "f32le", "-y", f"file:{self._raw}"]
        return self._ffmpeg([*source, *outputs], stdin=subprocess.PIPE)

    def _ffmpeg(self, arguments: Sequence[str], *, stdin: int | None) -> Ffmpeg:
        return Ffmpeg(arguments, stdin=stdin, tells_progress=True, stall_seconds=self._stall_seconds)

    def _outputs(self, filters: Sequence[str]) -> list[str]:
        """Filter once, then write every format from the same samples."""
        copies = [f"[copy{number}]" for number in range(len(self._targets))]
        graph = f"[0:a]{','.join((*filters, f'asplit={len(copies)}'))}{''.join(copies)}"
        arguments = ["-filter_complex_threads", "1", "-filter_complex", graph]
        for copy, (name, path) in zip(copies, self._targets.items(), strict=True):
            rate = str(output_rate_hz(name, self._rate_hz))
            arguments += ["-map", copy, "-ar", rate, *_tag_arguments(self._tags)]
            arguments += ["-threads", "1", *FORMATS[name].arguments, "-y", f"file:{path}"]
        return arguments

    def _encode_measured(self, raw: Path, report: Report | None) -> None:
        gain_db = self._gain_db(raw, report)
        filters = levelling(self._mastering, self._rate_hz, gain_db)
        source = ["-loglevel", "error", *raw_input(self._rate_hz), "-i", f"file:{raw}"]
        with self._ffmpeg([*source, *self._outputs(filters)], stdin=None) as process:
            self._end(process, report)

    def _gain_db(self, raw: Path, report: Report | None) -> float:
        """The one gain that brings the speech, limited, to the loudness asked for; 0 for silence."""
        target = self._mastering.loudness_lufs
        before = measure_raw(raw, self._rate_hz, report=report)
        if target is None or before.integrated_lufs < MEASURABLE_LUFS:
            return 0.0
        most_db = most_gain_db(self._mastering, before.true_peak_db)
        tried = [(0.0, before.integrated_lufs)]
        while abs(tried[-1][1] - target) > LOUDNESS_TOLERANCE_LU and len(tried) <= _LOUDNESS_ROUNDS:
            gain_db = next_gain_db(tried, target, most_db)
            if gain_db == tried[-1][0]:
                break
            filters = levelling(self._mastering, self._rate_hz, gain_db)
            after = measure_raw(raw, self._rate_hz, filters, report=report)
            tried.append((gain_db, after.integrated_lufs))
        gain_db, self.loudness_lufs = tried[-1]
        return gain_db

    def _end(self, process: Ffmpeg, report: Report | None = None) -> None:
        """Let ffmpeg end; whatever it complained of is an error, since a file may be short of it."""
        status = process.finish(report)
        log = process.log
        if status == 0 and not log.strip():
            return
        folder = next(iter(self._targets.values())).parent
        raise environment_failure(log, folder) or SynthesisError(
            f"ffmpeg could not write the sound (status {status}): {last_words(log)}",
            hint="Try other output formats; if all of them fail, look at the ffmpeg in use (doctor).",
            code="encode",
        )

    def _encoded(self, name: str, path: Path) -> Encoded:
        rate = output_rate_hz(name, self._rate_hz)
        return Encoded(format=name, path=path, duration_seconds=self.seconds, sample_rate_hz=rate)

    def _raw_path(self) -> Path:
        first = next(iter(self._targets.values()))
        return first.with_name(f".{first.name}.f32")


def _is_ours(path: Path) -> bool:
    """Whether a half-written target may go: a file or a link, never a device."""
    return path.is_symlink() or path.is_file()


def output_rate_hz(name: str, rate_hz: int) -> int:
    """The rate a format is written at: the sound's own, or the next one up that the format has."""
    rates = FORMATS[name].rates_hz
    return (
        min((rate for rate in rates if rate >= rate_hz), default=max(rates, default=rate_hz))
        if rates
        else rate_hz
    )


def clean_tag(value: str) -> str:
    """A tag value every format can hold: one line, no controls, no halves of characters."""
    whole = value.encode("utf-8", "replace").decode("utf-8")
    printable = "".join(c if c.isprintable() else " " for c in whole)
    return " ".join(printable.split())[:MAX_TAG_CHARS]


def _tag_arguments(tags: Mapping[str, str]) -> list[str]:
    pairs = ((name, clean_tag(value)) for name, value in tags.items())
    return [word for name, value in pairs if value for word in ("-metadata", f"{name}={value}")]
