"""One job, from what was asked for to finished files in its work folder.

Reads as it happens: prepare, chunk, speak, check, choose, join, master, encode. Knows all those
rooms and none of their secrets; nothing of the inbox or of publishing. Invariants: every chunk of
the text is in the manifest, in order; memory does not grow with the length of the sound.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.booth import Booth
from pipeline.cache import TakeCache
from pipeline.engines.base import Engine, Utterance, Voice
from pipeline.errors import InputError, SynthesisError
from pipeline.files import sha256_of
from pipeline.jobs.job import Job, JobSpec
from pipeline.jobs.settings import Pauses, Settings, Synthesis
from pipeline.layout import Layout
from pipeline.listeners import Listeners
from pipeline.made import Made, Report, encoder_for, stated
from pipeline.outbox import ChunkRecord, Manifest, Rendered, Timings
from pipeline.recordings import concatenate, convert
from pipeline.references import bring
from pipeline.sound.assemble import Joiner, Placed
from pipeline.takes import Choice
from pipeline.text.chunk import Chunk, Pause, chunk
from pipeline.text.prepare import prepare
from pipeline.text.read import read
from pipeline.tools import Tools
from pipeline.web_address import is_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A finished job, not yet published."""

    files: tuple[Rendered, ...]
    manifest: Manifest
    chunks: int


def render(
    job: Job,
    layout: Layout,
    tools: Tools,
    report: Report,
    *,
    source: Path,
    sleep: Callable[[float], None] = time.sleep,
) -> Rendering:
    """Make everything that the job asks for; `source` is the folder that its files lie in.

    Raises InputError, SynthesisError, EnvironmentFailure and whatever `report` raises.
    """
    started = time.time()
    work = layout.work(job.id)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()  # where the state folder is away nothing is made in its place
    _refuse_changed_clip(job.spec, source)
    if job.spec.kind == "tts":
        made = speak(job, layout, tools, report, source=source, sleep=sleep)
    elif job.spec.kind == "vc":
        made = convert(job, work, tools, report, source=source)
    else:
        made = concatenate(job, work, report, source=source)
    manifest = _manifest(job, made, started)
    return Rendering(files=made.files, manifest=manifest, chunks=max(1, len(made.chunks)))


def speak(
    job: Job,
    layout: Layout,
    tools: Tools,
    report: Report,
    *,
    source: Path,
    sleep: Callable[[float], None],
) -> Made:
    """Text to speech, chunk by chunk; each is on its way into the file before the next is spoken."""
    settings = job.spec.settings
    made = Made()
    chunks = _chunks(job.spec, source, made)
    engine = _engine(tools, job.spec, made)
    listeners = _listeners(tools, settings, made)
    spec = bring(job.spec, layout.work(job.id), tools, report, made)
    booth = Booth(
        engine=engine,
        listeners=listeners,
        cache=TakeCache(layout.cache),
        settings=settings,
        voice=_voice(spec, source),
        made=made,
        still_wanted=lambda: report("speaking", len(made.chunks), len(chunks)),
        alive=lambda: report("speaking on", len(made.chunks), len(chunks)),
        sleep=sleep,
    )
    joiner = Joiner(engine.rate_hz, trim=settings.audio.trim, speed=settings.audio.speed)
    with (
        encoder_for(job, made, layout.work(job.id), engine.rate_hz, silent_ends=True) as sink,
        contextlib.closing(booth.record_all(piece.text for piece in chunks)) as choices,
    ):
        for piece, choice in zip(chunks, choices, strict=True):
            _refuse_bad_take(piece, choice, len(chunks), settings)
            placed = joiner.add(
                choice.take.speech.audio,
                pause_ms=_pause_ms(piece.pause, settings.pauses),
                speech_ends_seconds=choice.take.speech_ends_seconds,
            )
            sink.write(placed.audio)
            made.chunks.append(_record(piece, choice, placed, settings))
        sink.finish(lambda: report("encoding", len(chunks), len(chunks)))
    made.warnings += _warnings_of(made.chunks)
    return made


def _chunks(spec: JobSpec, source: Path, made: Made) -> list[Chunk]:
    text = spec.text
    if text is None:
        decoded = read(source / str(spec.file))
        text = decoded.text
        made.warnings += decoded.warnings
    prepared = prepare(text, spec.settings.text_rules, spec.settings.language)
    made.warnings += prepared.warnings
    language = spec.settings.language
    chunks = chunk(prepared.text, spec.settings.chunks.spoken_in(language), language)
    if not chunks:
        raise InputError(
            "There is nothing to speak: the text holds no letter and no digit.",
            code="text_empty",
            hint="Put some words into it.",
        )
    return chunks


def _engine(tools: Tools, spec: JobSpec, made: Made) -> Engine:
    """The job's engine, if it can speak the way the job wants."""
    settings = spec.settings
    engine = tools.engine(settings.engine)
    voice = Voice(name=spec.voice.name, clip=_path(spec.voice.clip), clip_sha256=spec.voice.clip_sha256)
    problems = engine.problems(voice, settings.language, settings.synthesis)
    if problems:
        origin = f" The voice is set in {spec.voice_from}." if spec.voice_from else ""
        raise InputError(
            " ".join(problems), code="engine_cannot", hint=f"Change these settings of the job.{origin}"
        )
    chosen = {name: getattr(settings.synthesis, name) for name in spec.synthesis_set}
    made.warnings += [
        f"{engine.name} has no use for synthesis.{name}." for name in engine.ignored(Synthesis(**chosen))
    ]
    made.engine = stated(engine)
    return engine


def _voice(spec: JobSpec, source: Path) -> Voice:
    """A clip that came with the job lies in its folder; one of the library, or fetched, has a full path."""
    clip = _path(spec.voice.clip)
    return Voice(
        name=spec.voice.name,
        clip=source / clip if clip is not None else None,
        clip_sha256=spec.voice.clip_sha256,
    )


def _refuse_changed_clip(spec: JobSpec, source: Path) -> None:
    """The clip that the job was taken with is part of what its takes are kept under."""
    if spec.voice.clip is None or is_url(spec.voice.clip):
        return
    clip = source / spec.voice.clip
    try:
        changed = sha256_of(clip) != spec.voice.clip_sha256
    except FileNotFoundError:
        changed = True
    if changed:
        raise InputError(
            f"The recording of the voice {spec.voice.name} was changed or removed after the job was taken.",
            code="voice_changed",
            hint="Try again with the recording as it is now.",
        )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _listeners(tools: Tools, settings: Settings, made: Made) -> Listeners | None:
    listeners = tools.listeners(settings.check, settings.engine)
    if listeners is None:
        made.check = "none: switched off"
        return None
    who = listeners.recogniser
    if not who.supports(settings.language):
        made.check = f"none: {who.name} has no model for {settings.language}"
        made.warnings.append(f"Not checked: {who.name} has no model for {settings.language}.")
        return None
    made.check = f"{who.name} {who.version}"
    return listeners


def _pause_ms(pause: Pause, pauses: Pauses) -> int:
    return {
        Pause.NONE: 0,
        Pause.CLAUSE: pauses.sentence_ms // 3,
        Pause.SENTENCE: pauses.sentence_ms,
        Pause.PARAGRAPH: pauses.paragraph_ms,
    }[pause]


def _refuse_bad_take(piece: Chunk, choice: Choice, count: int, settings: Settings) -> None:
    if choice.take.passed or settings.check.on_failure == "best":
        return
    verdict = choice.take.verdict
    assert verdict is not None
    raise SynthesisError(
        f"Chunk {piece.index + 1} of {count} did not pass the check in {choice.tries} tries"
        f" ({'; '.join(verdict.reasons)}): {piece.text!r} was heard as {verdict.transcript!r}.",
        code="check_failed",
        hint="Allow a higher check.max_word_error_rate, or set check.on_failure: best to keep the best take.",
    )


def _record(piece: Chunk, choice: Choice, placed: Placed, settings: Settings) -> ChunkRecord:
    take = choice.take
    verdict = take.verdict
    return ChunkRecord(
        index=piece.index,
        text=piece.text,
        seed=take.utterance.seed,
        tries=choice.tries,
        cached=take.cached,
        passed=None if verdict is None else verdict.passed,
        word_error_rate=None if verdict is None else round(verdict.word_error_rate, 4),
        transcript=None if verdict is None else verdict.transcript,
        start_seconds=round(placed.start_seconds, 3),
        end_seconds=round(placed.end_seconds, 3),
        reasons=() if verdict is None else tuple(verdict.reasons),
        settings=_varied(take.utterance, settings),
    )


def _varied(utterance: Utterance, settings: Settings) -> dict[str, Any]:
    """What a later try used instead of the job's own settings."""
    own, used = settings.synthesis.model_dump(), utterance.synthesis.model_dump()
    changed = {name: value for name, value in used.items() if value != own[name]}
    if utterance.voice.name != (settings.voice or "") and utterance.voice.clip is None and changed:
        changed["voice"] = utterance.voice.name
    return changed


def _warnings_of(records: list[ChunkRecord]) -> list[str]:
    """One warning for each chunk that nobody heard right."""
    return [
        f"Chunk {record.index + 1} did not pass the check in {record.tries} tries"
        f" ({'; '.join(record.reasons)}); the best take was kept: {record.text!r}"
        for record in records
        if record.passed is False
    ]


def _manifest(job: Job, made: Made, started: float) -> Manifest:
    now = time.time()
    timings = Timings(
        queued_seconds=round(max(0.0, started - job.submitted_at), 3),
        synthesis_seconds=round(made.synthesis_seconds, 3),
        check_seconds=round(made.check_seconds, 3),
        encode_wait_seconds=round(made.encode_wait_seconds, 3),
        total_seconds=round(now - started, 3),
    )
    return Manifest(
        job_id=job.id,
        status="done",
        kind=job.spec.kind,
        source=job.source,
        engine=made.engine,
        settings=job.spec.settings.model_dump(mode="json", by_alias=True),
        chunks=tuple(made.chunks),
        timings=timings,
        warnings=(*job.spec.warnings, *made.warnings),
        check=made.check,
        voxspool=__version__,
        fetched=tuple(made.fetched),
    )
