"""How loud sound is, by EBU R128 as ffmpeg's `ebur128` measures it.

Knows raw samples and ffmpeg's summary; changes nothing. Invariant: what is measured is the sound as it
would be heard, after the filters that are given.
"""

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SynthesisError
from pipeline.sound.audio import Samples, bytes_of
from pipeline.sound.decode import decode_blocks, probe
from pipeline.sound.ffmpeg import Ffmpeg, Report, last_words

MEASURE = "ebur128=peak=true:framelog=quiet"
_INTEGRATED = re.compile(r"^ +I: +(-?[\d.]+|-inf|nan) LUFS", re.MULTILINE)
_PEAK = re.compile(r"^ +Peak: +(-?[\d.]+|-inf|nan) dBFS", re.MULTILINE)
_BLOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loudness:
    """One measurement."""

    integrated_lufs: float
    "-70 for silence and for less than 0.4 s"
    true_peak_db: float
    "dBTP; -inf for silence"


def raw_input(rate_hz: int) -> list[str]:
    """ffmpeg's arguments for mono float32 samples that come next as an input."""
    return ["-f", "f32le", "-ar", str(rate_hz), "-ac", "1"]


def loudness_of(log: str) -> Loudness:
    """The measurement in the summary that a run with the `MEASURE` filter left in ffmpeg's log."""
    integrated, peaks = _INTEGRATED.findall(log), _PEAK.findall(log)
    if not integrated or not peaks:
        raise SynthesisError(f"The loudness could not be measured: {last_words(log)}", code="loudness")
    return Loudness(integrated_lufs=float(integrated[-1]), true_peak_db=float(peaks[-1]))


def measure_raw(
    path: Path, rate_hz: int, filters: Sequence[str] = (), *, report: Report | None = None
) -> Loudness:
    """Loudness of a file of raw float32 samples of ours, after `filters`; `report` as in `Ffmpeg.finish`."""
    source = [*raw_input(rate_hz), "-i", f"file:{path}"]
    arguments = [*source, "-af", ",".join((*filters, MEASURE)), "-f", "null", "-"]
    with Ffmpeg(arguments, stdin=None, tells_progress=True) as process:
        process.finish(report)
        return loudness_of(process.log)


def measure_blocks(blocks: Iterable[Samples], rate_hz: int) -> Loudness:
    """Loudness of a stream of samples."""
    arguments = [*raw_input(rate_hz), "-i", "pipe:0", "-af", MEASURE, "-f", "null", "-"]
    with Ffmpeg(arguments, stdin=subprocess.PIPE, tells_progress=True) as process:
        for block in blocks:
            process.write(bytes_of(block))
        process.finish()
        return loudness_of(process.log)


def measure_file(path: Path) -> Loudness:
    """Loudness of a recording at its own rate; raises InputError like `decode`."""
    rate_hz = probe(path).rate_hz
    return measure_blocks(decode_blocks(path, rate_hz, _BLOCK_SECONDS), rate_hz)
