"""Jobs that start from recordings: voice conversion and joining.

Knows the converters and the sound rooms; nothing of text. Invariants: sound streams, so memory
does not grow with the length of a recording; a part that cannot be read fails the job.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.converters.base import Converter, Target
from pipeline.converters.stream import convert_stream
from pipeline.errors import InputError
from pipeline.files import display
from pipeline.jobs.job import Job, Part
from pipeline.made import Made, Report, encoder_for, stated
from pipeline.references import bring
from pipeline.sound import concat
from pipeline.sound.audio import Samples, silence
from pipeline.sound.decode import decode, decode_blocks, probe
from pipeline.tools import Tools

BLOCK_SECONDS = 10.0
REFERENCE_SECONDS = 60.0
"a longer reference tells a voice no better"
CONCAT_MAX_RATE_HZ = 48_000


def convert(job: Job, work: Path, tools: Tools, report: Report, *, source: Path) -> Made:
    """Voice conversion of one recording."""
    conversion = job.spec.settings.conversion
    converter = tools.converter(job.spec.settings.engine)
    made = Made(
        engine=stated(converter),
        check="none: conversions are not checked",
    )
    spec = bring(job.spec, work, tools, report, made)
    recording = source / str(spec.file)
    seconds = probe(recording).seconds
    total = max(1, round((seconds or 0.0) / conversion.chunk_seconds))
    report("listening", 0, total)
    target = _measure(converter, source / str(spec.voice.clip))
    with encoder_for(job, made, work, converter.rate_hz) as sink:
        converted = convert_stream(
            decode_blocks(recording, converter.rate_hz, BLOCK_SECONDS),
            converter,
            target,
            chunk_seconds=conversion.chunk_seconds,
            overlap_seconds=conversion.overlap_seconds,
            pitch_shift_semitones=conversion.pitch_shift_semitones,
        )
        for window in converted:
            report("converting", min(window.index + 1, total), total)
            sink.write(window.audio)
        sink.finish(lambda: report("encoding", total, total))
    return made


def _measure(converter: Converter, clip: Path) -> Target:
    try:
        return converter.measure(decode(clip, converter.rate_hz, max_seconds=REFERENCE_SECONDS))
    except InputError as error:
        if clip.name in error.message:
            raise
        # the converter sees sound only; the person has several files
        named = f"{display(clip.name)}: {error.message}"
        raise InputError(named, hint=error.hint, code=error.code) from error


def concatenate(job: Job, work: Path, report: Report, *, source: Path) -> Made:
    """Recordings and silences joined into one."""
    spec = job.spec
    files = [source / part.file for part in spec.parts if part.file is not None]
    if not files:
        raise InputError(
            "A concat job needs at least one file among its parts.", code="parts", hint="Name a recording."
        )
    rate_hz = min(CONCAT_MAX_RATE_HZ, max(probe(path).rate_hz for path in files))
    made = Made(engine={"name": "none", "version": "", "device": "cpu"}, check="none: recordings as they are")
    surveys = [
        concat.survey(_reported(path, rate_hz, report, "measuring", index, len(files)), rate_hz)
        for index, path in enumerate(files)
    ]
    gains = concat.level_gains_db([s.level_db if spec.level else None for s in surveys])
    lead_ms, gaps_ms = silences(spec.parts, spec.settings.pauses.sentence_ms, spec.crossfade_ms)
    parts = [
        concat.Part(
            blocks=_reported(path, rate_hz, report, "joining", index, len(files)),
            survey=surveys[index],
            trim=spec.settings.audio.trim,
            gain_db=gains[index],
            silence_after_ms=gaps_ms[index],
        )
        for index, path in enumerate(files)
    ]
    with encoder_for(job, made, work, rate_hz) as sink:
        sink.write(silence(lead_ms / 1000, rate_hz))
        for stretch in concat.join(parts, rate_hz, crossfade_ms=spec.crossfade_ms):
            sink.write(stretch)
        sink.write(silence((gaps_ms[-1] or 0) / 1000, rate_hz))
        sink.finish(lambda: report("encoding", len(files), len(files)))
    return made


def silences(parts: Sequence[Part], pause_ms: int, crossfade_ms: int) -> tuple[int, list[int | None]]:
    """The silence before the first file, and after each: a written one beats the pause and the cross-fade.

    None stands for a cross-fade into the next file; after the last there is only what was written.
    """
    lead_ms, after = 0, []
    for part in parts:
        if part.file is not None:
            after.append(0)
        elif after:
            after[-1] += part.silence_ms or 0
        else:
            lead_ms += part.silence_ms or 0
    between = None if crossfade_ms else pause_ms
    return lead_ms, [*(gap or between for gap in after[:-1]), after[-1]]


def _reported(
    path: Path, rate_hz: int, report: Report, stage: str, index: int, total: int
) -> Iterator[Samples]:
    """A recording's blocks, with word of how far we are."""
    for block in decode_blocks(path, rate_hz, BLOCK_SECONDS):
        report(stage, index, total)
        yield block
