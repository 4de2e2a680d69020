"""What Prometheus is told of the daemon, as a textfile for node_exporter's textfile collector.

Takes values from the ledger, the watch and the disks; decides nothing. Invariants: names and labels are
stable, in base units; the file is replaced whole, every fifteen seconds at most; a file that cannot be
written is a note in the status and stops nothing.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline import __version__
from pipeline.intake.settle import State
from pipeline.intake.watch import Seen
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.tallies import Tally

WRITE_SECONDS = 15.0
PREFIX = "voxspool_"
STATES = ("running", "paused", "stopping", "stopped")
OUTCOMES = ("done", "failed", "cancelled", "interrupted", "environment", "died", "lost")
SOURCES = ("events", "scan")
WAITING = (*(state.value for state in State if state not in (State.SETTLED, State.GONE)), "waiting")
READABLE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Everything that is measured, at one moment."""

    state: str
    started_at: float
    "seconds since the epoch"
    troubles: int
    "sentences that say what keeps the work from going on"
    seen: Seen
    queued_seconds: float | None = None
    "age of the oldest job that was not started"
    jobs: Mapping[str, int] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[Tally, float] = field(default_factory=dict)
    realtime_factor: float | None = None
    "seconds of work for a second of speech since the start; None before there was any"
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    free_files: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    "number of each code, ever"


def families(now: Measures) -> Iterator[Metric]:
    """The measures under their names; docs/operations.md has a table of them."""
    versions = {"version": __version__, "python": platform.python_version()}
    yield InfoMetricFamily(f"{PREFIX}build", "What is running.", value=versions)
    yield _gauge("state", "1 for what the daemon does, 0 for the rest.", "state", _one_of(STATES, now.state))
    yield _gauge("start_time_seconds", "When the daemon started, since the epoch.", value=now.started_at)
    yield _gauge("troubles", "Things that keep the work from going on.", value=now.troubles)
    yield from _inbox(now)
    yield from _work(now)
    yield from _disks(now)
    yield _counter("errors", "What went wrong, by error code.", "code", now.errors)


def _inbox(now: Measures) -> Iterator[Metric]:
    seen = now.seen
    yield _gauge("inbox_files", "Files in the inbox that were not taken.", "state", _all(WAITING, seen.files))
    ages = dict(seen.oldest_seconds)
    if now.queued_seconds is not None:
        ages["queued"] = now.queued_seconds
    what = "Age of the oldest file that was not taken, and of the oldest job that was not started."
    yield _gauge("oldest_waiting_seconds", what, "state", ages)
    if seen.scan_seconds is not None:
        yield _gauge("scan_duration_seconds", "How long the last scan took.", value=seen.scan_seconds)
    yield _counter("scans", "Scans of the inbox since the start.", value=seen.scans)
    yield _event_source(seen)
    yield _counter("rescan_found", "Changes that no event told of.", value=seen.missed)
    yield _counter("event_overflows", "Times that the kernel lost events.", value=seen.overflows)
    yield _counter("watch_rebuilds", "Times that watching began anew.", value=seen.rebuilds)


def _event_source(seen: Seen) -> Metric:
    what = "1 for what drops are noticed by."
    family = GaugeMetricFamily(f"{PREFIX}event_source", what, labels=["root", "source"])
    roots = {"inbox": "events" if seen.events else "scan", **dict.fromkeys(seen.shares, "scan")}
    for root, chosen in roots.items():
        for name, number in _one_of(SOURCES, chosen).items():
            family.add_metric([root, name], number)
    return family


def _work(now: Measures) -> Iterator[Metric]:
    yield _gauge("jobs", "Jobs by state; those that have ended are all there ever were.", "state", now.jobs)
    attempts = _all(OUTCOMES, now.attempts)
    yield _counter("attempts", "Attempts at jobs that have ended.", "outcome", attempts)
    audio, work = now.sums.get(Tally.AUDIO_SECONDS, 0.0), now.sums.get(Tally.WORK_SECONDS, 0.0)
    yield _counter("audio_seconds", "Length of everything that was made.", value=audio)
    yield _counter("work_seconds", "What the workers took for it.", value=work)
    what = "Seconds of work for one second of speech, since the start."
    if now.realtime_factor is not None:
        yield _gauge("realtime_factor", what, value=now.realtime_factor)


def _disks(now: Measures) -> Iterator[Metric]:
    up = {name: int(there) for name, there in now.seen.roots.items()}
    yield _gauge("root_up", "Whether a folder is there and itself.", "root", up)
    yield _gauge("free_bytes", "Room for bytes on the disk of a folder.", "root", now.free_bytes)
    yield _gauge("free_files", "Room for files (inodes) on the disk of a folder.", "root", now.free_files)
    pruned = now.sums.get(Tally.PRUNED_BYTES, 0.0)
    yield _counter("prune_bytes", "What retention freed.", value=pruned)


def _gauge(
    name: str,
    what: str,
    label: str | None = None,
    values: Mapping[str, float] | None = None,
    *,
    value: float | None = None,
) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, what, value=value, labels=[label] if label else None)
    for key, number in (values or {}).items():
        family.add_metric([key], number)
    return family


def _counter(
    name: str,
    what: str,
    label: str | None = None,
    values: Mapping[str, float] | None = None,
    *,
    value: float | None = None,
) -> Metric:
    family = CounterMetricFamily(PREFIX + name, what, value=value, labels=[label] if label else None)
    for key, number in (values or {}).items():
        family.add_metric([key], number)
    return family


def _all(names: tuple[str, ...], numbers: Mapping[str, int]) -> dict[str, int]:
    """Every name with its number: a series that is there from the beginning can be added up."""
    return {**dict.fromkeys(names, 0), **numbers}


def _one_of(names: tuple[str, ...], chosen: str) -> dict[str, int]:
    return {name: int(name == chosen) for name in names}


class _Once(Collector):
    """Measures as the library wants them."""

    def __init__(self, now: Measures) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        return families(self._now)


class Textfile:
    """Measures what there is and writes it, seldom enough not to be noticed."""

    def __init__(
        self,
        path: Path,
        ledger: Ledger,
        layout: Layout,
        started_at: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._ledger, self._layout = path, ledger, layout
        self._clock, self._wall = clock, wall
        self._written_at = float("-inf")
        self._started_at = started_at
        self._sums_at_start = ledger.tallies.sums()
        self.note = ""
        "why the file cannot be written; empty if it can"

    def due(self) -> bool:
        """Whether enough time has passed for another look."""
        return self._clock() - self._written_at >= WRITE_SECONDS

    def write(self, state: str, troubles: int, seen: Seen) -> None:
        """Measure and write; raises EnvironmentFailure where the ledger does not answer."""
        self._written_at = self._clock()
        registry = CollectorRegistry()
        registry.register(_Once(self._measure(state, troubles, seen)))
        try:
            write_to_textfile(str(self._path), registry)
            self._path.chmod(READABLE)  # node_exporter is somebody else
        except OSError as error:
            self.note = f"The measures cannot be written to {self._path}: {error.strerror}."
        else:
            self.note = ""

    def _measure(self, state: str, troubles: int, seen: Seen) -> Measures:
        sums, queued = self._ledger.tallies.sums(), self._ledger.oldest_queued_at()
        disks = {name: os.statvfs(path) for name, path in self._disks(seen).items()}
        return Measures(
            state=state,
            started_at=self._started_at,
            troubles=troubles,
            seen=seen,
            queued_seconds=None if queued is None else max(0.0, self._wall() - queued),
            jobs=self._ledger.counts(),
            attempts=self._ledger.attempts_by_outcome(),
            sums=sums,
            realtime_factor=self._realtime_factor(sums),
            free_bytes={name: disk.f_bavail * disk.f_frsize for name, disk in disks.items()},
            free_files={name: disk.f_favail for name, disk in disks.items()},
            errors={kind.code: kind.count for kind in self._ledger.faults.kinds()},
        )

    def _disks(self, seen: Seen) -> dict[str, Path]:
        """Those that can be asked: one that does not answer would hold us up."""
        shared = {"inbox": self._layout.inbox, "outbox": self._layout.outbox}
        asked = {name: path for name, path in shared.items() if all(seen.roots.values())}
        return {**asked, "state": self._layout.state}

    def _realtime_factor(self, sums: Mapping[Tally, float]) -> float | None:
        made = {what: sums[what] - self._sums_at_start[what] for what in sums}
        audio = made[Tally.AUDIO_SECONDS]
        return made[Tally.WORK_SECONDS] / audio if audio else None
