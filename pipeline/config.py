"""`config.yaml`: every key typed, ranged and defaulted; unknown keys are errors.

Knows nothing of what the rooms do with their section. Invariant: `config.yaml` in the repository
holds every key below at its default, and a test compares the two.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.errors import ConfigError, SpecError
from pipeline.jobs.settings import Settings, Strict
from pipeline.jobs.spec import problems_of
from pipeline.mounts import real_path
from pipeline.strict_yaml import Document, load_documents, validate

ROOTS = ("inbox", "outbox", "voices", "state")
PathText = Annotated[str, Field(min_length=1, max_length=4000)]
MAX_NOTIFY_SECONDS = 45.0
"who tells does nothing else meanwhile: a worker, or the daemon to systemd, must not seem to hang"


class Intake(Strict):
    """When and how dropped files are taken."""

    source: Literal["move", "leave", "delete"] = "move"
    "what happens to a dropped file after success"
    settle_seconds: Annotated[float, Field(ge=0, le=120)] = 2.0
    settle_network_seconds: Annotated[float, Field(ge=0, le=120)] = 10.0
    events: bool = True
    "let the kernel's file events make a scan run sooner"
    ignore: Annotated[tuple[str, ...], Field(strict=False)] = ()
    "further patterns of names that are no drops"
    wait_for_parts_seconds: Annotated[float, Field(ge=0, le=86_400)] = 900.0
    "how long a job file waits for the files that it names"


class Workers(Strict):
    """The processes that do the work."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    "on the CPU"
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    "worker deaths until a job is given up"
    stall_seconds: Annotated[float, Field(ge=5, le=86_400)] = 600.0
    "a worker that shows no progress for so long is killed"
    stop_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    "time to finish a chunk when asked to stop"
    min_free_mb: Annotated[float, Field(ge=0, le=10_000_000)] = 64.0
    "10^6 bytes; a job that would leave less on the disk of state or outbox waits"

    @property
    def min_free_bytes(self) -> int:
        """The same in bytes."""
        return round(self.min_free_mb * 1_000_000)


Device = Annotated[str, Field(pattern=r"^(cpu|mps|cuda:[0-9]{1,2})$")]


class Whisper(Strict):
    """The recogniser behind the Chatterbox engines."""

    size: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,39}$")] = "base"
    "tiny, base, small, medium, large-v3, turbo, each of the first four also with .en"
    backend: Literal["openai-whisper", "faster-whisper"] = "openai-whisper"
    device: Device | None = None
    "null: that of the engine"


class Models(Strict):
    """Engines, recognisers and converters."""

    folder: PathText = "models"
    "checkpoints, one folder for each; relative to the configuration file"
    devices: Annotated[tuple[Device, ...], Field(min_length=1, max_length=16, strict=False)] = ("cpu",)
    "one worker process for each; for cpu as many as `workers.count` says"
    engine_mode: Literal["upstream", "exact", "fast"] = "fast"
    "how the Chatterbox engines speak"
    int8: bool = False
    "whether they round weights to eight bits, on the processor in the mode fast"
    load_seconds: Annotated[float, Field(ge=1, le=3600)] = 300.0
    "a worker that loads for longer is killed and its job fails"
    idle_unload_seconds: Annotated[float, Field(ge=1, le=31_536_000)] | None = 900.0
    "an idle worker lets go of its models after so long; null: never"
    whisper: Whisper = Whisper()


class Fetch(Strict):
    """Recordings that jobs name by https address."""

    voice_max_mb: Annotated[int, Field(ge=1, le=100_000)] = 50
    "10^6 bytes"
    audio_max_mb: Annotated[int, Field(ge=1, le=100_000)] = 500
    max_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    "for each, with redirects and all tries"


class Retention(Strict):
    """What is pruned, and when."""

    every_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 5.0
    outbox_max_gb: Annotated[float, Field(gt=0)] = 5.0
    "10^9 bytes; whole jobs, oldest first"
    warn_percent: Annotated[int, Field(ge=1, le=100)] = 80
    work_max_files: Annotated[int, Field(ge=1)] = 200
    work_max_days: Annotated[float, Field(gt=0)] = 7.0
    vc_inputs_max_gb: Annotated[float, Field(gt=0)] = 2.0
    cache_max_gb: Annotated[float, Field(gt=0)] = 20.0
    "finished takes, least recently used first"
    done_max_days: Annotated[float, Field(gt=0)] | None = None
    "processed sources in the hidden done folder; null: kept for ever"
    history_max_days: Annotated[float, Field(gt=0)] = 365.0
    "what the ledger knows of drops of which nothing is left"
    history_max_jobs: Annotated[int, Field(ge=1000)] = 100_000
    keep_newest: Annotated[int, Field(ge=0)] = 20
    keep_hours: Annotated[float, Field(ge=0)] = 24.0
    deletes_propagate: Literal["accepted"] | None = None
    "say `accepted` where a synced outbox may be pruned too"


class Notify(Strict):
    """Somebody to tell."""

    command: Annotated[tuple[str, ...], Field(strict=False)] = ()
    "run after each job with the event as JSON on its standard input"
    when: Annotated[tuple[Literal["done", "failed", "cancelled"], ...], Field(strict=False)] = ("failed",)
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_NOTIFY_SECONDS)] = 10.0


class Log(Strict):
    """What is told on the console and in state/logs."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    rotate_mb: Annotated[int, Field(ge=1)] = 10
    keep_files: Annotated[int, Field(ge=1)] = 5


class Metrics(Strict):
    """Measures for Prometheus."""

    file: PathText | None = None
    "a `.prom` file for node_exporter's textfile collector; null: none"


class ConfigFile(Strict):
    """The whole of `config.yaml`."""

    inbox: PathText = "inbox"
    outbox: PathText = "outbox"
    voices: PathText = "voices"
    state: PathText = "state"
    defaults: Settings = Settings()
    intake: Intake = Intake()
    workers: Workers = Workers()
    models: Models = Models()
    fetch: Fetch = Fetch()
    retention: Retention = Retention()
    notify: Notify = Notify()
    log: Log = Log()
    metrics: Metrics = Metrics()


class Config(ConfigFile):
    """A loaded configuration: paths are absolute."""

    file: Path | None = None

    @property
    def inbox_path(self) -> Path:
        """Where files are dropped."""
        return Path(self.inbox)

    @property
    def outbox_path(self) -> Path:
        """Where results appear."""
        return Path(self.outbox)

    @property
    def voices_path(self) -> Path:
        """The voice library."""
        return Path(self.voices)

    @property
    def state_path(self) -> Path:
        """Ledger, work folders, cache, logs; a local disk."""
        return Path(self.state)

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The device of each worker process, by its place in the pool."""
        shares = [(name,) * (self.workers.count if name == "cpu" else 1) for name in self.models.devices]
        return tuple(device for share in shares for device in share)

    @property
    def models_path(self) -> Path:
        """Where the checkpoints lie."""
        return self._beside(self.models.folder)

    @property
    def metrics_path(self) -> Path | None:
        """Where the measures are written, relative to the configuration file."""
        return self._beside(self.metrics.file) if self.metrics.file else None

    def _beside(self, path: str) -> Path:
        """Relative paths start at the configuration file."""
        base = self.file.parent if self.file else Path()
        return base / Path(path).expanduser()


def load_config(path: Path) -> Config:
    """The configuration in `path`; raises ConfigError with every problem."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read: {error.strerror}.",
            hint="Name another with --config FILE.",
        ) from error
    try:
        return resolve(_parse(data, path), path)
    except SpecError as error:
        raise ConfigError(
            str(error), hint=error.hint or "docs/configuration.md explains each key."
        ) from error


def _parse(data: bytes, path: Path) -> ConfigFile:
    documents = load_documents(data, path.name)
    if len(documents) > 1:
        raise SpecError(f"{path.name} holds {len(documents)} YAML documents; a configuration is one.")
    document = documents[0] if documents else Document(path.name, {}, {})
    return validate(ConfigFile, document)


def resolve(parsed: ConfigFile, path: Path) -> Config:
    """Paths made absolute, relative to the file, and checked against each other."""
    base = path.resolve().parent
    roots = {name: _absolute(base, getattr(parsed, name), name) for name in ROOTS}
    _refuse_overlap(roots, path.name)
    problems = problems_of(parsed.defaults)
    if problems:
        raise ConfigError(f"{path.name}, defaults: {' '.join(problems)}")
    _refuse_misplaced_int8(parsed.models, path.name)
    values = {
        name: getattr(parsed, name) for name in ConfigFile.model_fields if name in parsed.model_fields_set
    }
    return Config(**{**values, **{name: str(root) for name, root in roots.items()}}, file=path.resolve())


def _refuse_misplaced_int8(models: Models, source: str) -> None:
    if models.int8 and (models.engine_mode != "fast" or set(models.devices) != {"cpu"}):
        raise ConfigError(
            f"{source}: models.int8 works on the processor in the mode fast; here models.devices is"
            f" {', '.join(models.devices)} and models.engine_mode is {models.engine_mode}.",
            hint="Set models.int8 to false, or models.devices to [cpu] and models.engine_mode to fast.",
        )


def _absolute(base: Path, text: str, name: str) -> Path:
    try:
        return real_path(base / Path(text).expanduser())
    except (RuntimeError, OSError) as error:  # no such user, or a ring of symbolic links
        raise ConfigError(f"{name}: {text} leads nowhere: {error}.") from error


def _refuse_overlap(roots: dict[str, Path], source: str) -> None:
    names = list(roots)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            a, b = roots[first], roots[second]
            if a == b or a in b.parents or b in a.parents:
                raise ConfigError(
                    f"{source}: {first} ({a}) and {second} ({b}) must be separate folders.",
                    hint="Neither may lie inside the other.",
                )
