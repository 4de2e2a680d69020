"""What the making of a job leaves behind, and the encoder that every kind of job ends in.

Shared by `render` (speech) and `recordings` (conversion, joining). Knows settings and sound.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.converters.base import Converter
from pipeline.engines.base import Engine
from pipeline.jobs.job import Job
from pipeline.jobs.settings import Sound
from pipeline.outbox import ChunkRecord, Rendered
from pipeline.sound.audio import Audio
from pipeline.sound.encode import Encoder
from pipeline.sound.limit import limit
from pipeline.sound.master import Mastering
from pipeline.web_address import Fetched, is_url, shown

Report = Callable[[str, int, int], None]
"stage, chunks done, chunks in all (0: not known); raises Interrupted, Cancelled or Overtaken"


@dataclass(slots=True, kw_only=True)
class Made:
    """Filled while a job is made."""

    files: tuple[Rendered, ...] = ()
    engine: dict[str, str] = field(default_factory=dict)
    "name, version, device, and the watermark where there is one"
    chunks: list[ChunkRecord] = field(default_factory=list)
    fetched: list[Fetched] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    check: str = "none"
    synthesis_seconds: float = 0.0
    check_seconds: float = 0.0
    encode_wait_seconds: float = 0.0
    "time spent waiting for the encoder, which runs beside"


@dataclass(slots=True)
class Sink:
    """Where the finished stream of a job goes."""

    encoder: Encoder
    made: Made
    ceiling_db: float | None = None
    "true peak to keep what is written under; None: the encoder does, over the whole stream"

    def write(self, audio: Audio) -> None:
        """Append sound."""
        if self.ceiling_db is not None:
            audio = limit(audio, self.ceiling_db)
        started = time.perf_counter()
        self.encoder.write(audio)
        self.made.encode_wait_seconds += time.perf_counter() - started

    def finish(self, report: Callable[[], None]) -> None:
        """End the stream; the files are whole then. `report` is called at once and every second till then."""
        report()
        started = time.perf_counter()
        encoded = self.encoder.finish(report)
        self.made.encode_wait_seconds += time.perf_counter() - started
        self.made.files = tuple(
            Rendered(
                format=item.format,
                path=item.path,
                duration_seconds=item.duration_seconds,
                sample_rate_hz=item.sample_rate_hz,
            )
            for item in encoded
        )


def stated(maker: Engine | Converter) -> dict[str, str]:
    """Who made the sound, for the manifest; some mark all that they make (`watermark`: "perth 1.0.1")."""
    told = {"name": maker.name, "version": maker.version, "device": maker.device}
    watermark = getattr(maker, "watermark", None)
    return told if watermark is None else told | {"watermark": watermark}


@contextmanager
def encoder_for(
    job: Job, made: Made, work: Path, rate_hz: int, *, silent_ends: bool = False
) -> Iterator[Sink]:
    """An encoder for all formats of the job, running until the block ends.

    `silent_ends`: each stretch that is written begins and ends in silence, so that it can be kept under
    the ceiling by itself, where nothing later changes its peaks.
    """
    settings = job.spec.settings
    sound = settings.audio
    by_itself = silent_ends and sound.speed == 1.0 and not sound.denoise and sound.loudness_lufs is None
    targets: dict[str, Path] = {name: work / f"audio.{name}" for name in settings.output.formats}
    tags = {"title": job.stem, "comment": f"voxspool {job.id}"}
    if settings.voice is not None:
        tags["artist"] = shown(settings.voice) if is_url(settings.voice) else settings.voice
    wanted = mastering(sound)
    if by_itself:
        wanted = replace(wanted, true_peak_db=None)
    with Encoder(targets, rate_hz, mastering=wanted, tags=tags) as encoder:
        yield Sink(encoder, made, ceiling_db=sound.true_peak_db if by_itself else None)


def mastering(sound: Sound) -> Mastering:
    """The part of the settings that is done to the finished stream."""
    return Mastering(
        speed=sound.speed,
        denoise=sound.denoise,
        loudness_lufs=sound.loudness_lufs,
        true_peak_db=sound.true_peak_db,
    )
