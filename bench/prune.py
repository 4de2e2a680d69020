"""Pruning many results and forgetting many drops: how long it takes, how long a worker waits meanwhile."""

import argparse
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from bench.ground import ground
from pipeline.config import Retention, load_config
from pipeline.jobs.job import Drop, DropState, Job, JobSpec, JobState, Source, VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.prune import apply, rehearse
from pipeline.results import ResultFile

T = TypeVar("T")
TWO_YEARS = 730 * 86_400.0
BATCH = 1000
SIZES = {"wav": 1000, "log": 100, "json": 500}


def main() -> None:
    """Make results of old jobs, prune half of them, then forget all of which nothing is left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=int, default=10_000)
    number: int = parser.parse_args().results
    with ground() as place:
        place.write_config()
        layout = layout_of(load_config(place.root / "config.yaml"))
        for folder in (layout.inbox, layout.outbox, layout.state):
            folder.mkdir(exist_ok=True)
        _make(layout, number)
        ledger = Ledger(layout.ledger_file, clock=time.time)
        print(f"{number:,} results of old jobs; the ledger takes {_size_mb(layout):.0f} MB")
        rules = Retention(outbox_max_gb=1e-9, keep_newest=0, keep_hours=0)
        plan, seconds = _timed(lambda: rehearse(ledger, layout, rules))
        print(f"  a rehearsal takes {seconds:.1f} s; {len(plan.going):,} results would go")
        outcome, seconds = _timed(lambda: apply(plan, ledger, layout))
        print(f"  removing {len(outcome.removed):,} takes {seconds:.1f} s, each read to the last byte before")
        _forget_all(ledger, layout, rules)
        ledger.close()


def _forget_all(ledger: Ledger, layout: Layout, rules: Retention) -> None:
    with ledger.one_commit():
        for result in ledger.results.all():
            ledger.results.forget(result.folder, result.stem)
    plan, seconds = _timed(lambda: rehearse(ledger, layout, rules))
    print(f"  finding {len(plan.forgotten):,} drops of which nothing is left takes {seconds:.1f} s")
    with _Worker(layout) as worker:
        outcome, seconds = _timed(lambda: apply(plan, ledger, layout))
    print(f"  forgetting {outcome.forgotten:,} takes {seconds:.1f} s, and leaves {_size_mb(layout):.0f} MB")
    print(f"  a worker's heartbeat waits {worker.longest_seconds * 1000:.0f} ms at most meanwhile")


class _Worker:
    """Somebody who writes into the ledger all the time."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._over = layout, threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self.longest_seconds, self.beats = 0.0, 0

    def __enter__(self) -> "_Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        ledger = Ledger(self._layout.ledger_file, clock=time.time)
        while not self._over.wait(0.05):
            begun = time.monotonic()
            ledger.set_meta("heartbeat", str(self.beats))
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)
            self.beats += 1
        ledger.close()


def _make(layout: Layout, number: int) -> None:
    """Finished jobs with three files each, all of two years ago."""
    ledger = Ledger(layout.ledger_file, clock=lambda: time.time() - TWO_YEARS)
    contents = {suffix: suffix.encode() * (size // len(suffix)) for suffix, size in SIZES.items()}
    for first in range(0, number, BATCH):
        with ledger.one_commit():
            for index in range(first, min(first + BATCH, number)):
                _make_one(ledger, layout.outbox, f"job-{index:07}", contents)
    ledger.close()


def _make_one(ledger: Ledger, outbox: Path, name: str, contents: dict[str, bytes]) -> None:
    folder = PurePosixPath(name[:8])
    (outbox / folder).mkdir(exist_ok=True)
    then = time.time() - TWO_YEARS
    drop = Drop(
        id=name,
        relative=f"{name}.txt",
        state=DropState.CLAIMING,
        mode="delete",
        members=(f"{name}.txt",),
        stamp=(1, 2, 3, 4),
        sha256="",
        claimed_at=then,
    )
    job = Job(
        id=f"{name}-1",
        drop_id=name,
        index=0,
        state=JobState.QUEUED,
        priority="normal",
        folder=folder,
        stem=name,
        spec=JobSpec(kind="tts", settings=Settings(), voice=VoiceChoice(name="")),
        source=Source(name=f"{name}.txt", sha256="", bytes=2),
        submitted_at=then,
    )
    ledger.plan_claim(drop)
    ledger.submit(drop, [job])
    ledger.claim("bench")
    ledger.results.reserve(
        folder, name, source=drop.relative, index=0, job_id=job.id, may_use=lambda *_: True
    )
    files = []
    for suffix, content in contents.items():
        path = outbox / folder / f"{name}.{suffix}"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(
            ResultFile(name=path.name, bytes=len(content), mtime_ns=path.stat().st_mtime_ns, sha256=digest)
        )
    ledger.results.publish(folder, name, files)
    ledger.finish(job.id, JobState.DONE)
    ledger.end_drop(name, DropState.DONE, "")


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    begun = time.monotonic()
    return call(), time.monotonic() - begun


def _size_mb(layout: Layout) -> float:
    files = layout.state.glob("ledger.db*")
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    main()
