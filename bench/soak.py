"""An hour of mixed load in fast motion: does anything grow, and is every file in its place at the end?

`make soak`. Drops, edits, renames, deletions, cancellations, retries, pauses, reloads, worker deaths, an
inbox that is away for a moment. Descriptors, threads and memory of supervisor and worker are sampled all
along; flat means that the last quarter is at most 5 % above the second (the first is warming up).
"""

import argparse
import contextlib
import csv
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from bench.ground import REPOSITORY, Ground, children, ground, wait_for
from bench.load import Load

SAMPLE_SECONDS = 5.0
ACT_SECONDS = 0.25
"on average; keeps about a third of a processor busy"
PATIENCE_SECONDS = 120.0
AWAY_SECONDS = 12.0
ALLOWED_GROWTH = 0.05
# Small enough that pruning has something to do within the hour.
RETENTION = {
    "every_hours": 0.02,
    "outbox_max_gb": 0.01,
    "cache_max_gb": 0.01,
    "keep_newest": 10,
    "keep_hours": 0.05,
    "done_max_days": 0.005,
}
DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured at one moment."""

    at_seconds: float
    supervisor_descriptors: int
    supervisor_threads: int
    supervisor_resident_mb: float
    supervisor_shared_out_mb: float
    "PSS: pages that others hold too count in part"
    supervisor_own_mb: float
    "anonymous memory: what it allocated itself"
    worker: int
    "process id: each life of a worker is its own story; 0 if none lives"
    worker_descriptors: int
    worker_threads: int
    worker_resident_mb: float
    worker_shared_out_mb: float
    worker_own_mb: float
    worker_listener_mb: float
    "what the first process that listens for it allocated; 0 if none does"
    processes: int
    "without ffmpeg, which comes and goes with each job, and without what belongs to the workers"
    ledger_mb: float
    cache_mb: float
    rest_of_state_mb: float
    outbox_mb: float
    jobs_ended: int


FLAT = (
    "supervisor_descriptors",
    "supervisor_threads",
    "supervisor_resident_mb",
    "supervisor_own_mb",
    "worker_descriptors",
    "worker_threads",
    "worker_resident_mb",
    "worker_own_mb",
    "worker_listener_mb",
    "processes",
)


@dataclass(slots=True)
class Soak:
    """One run."""

    place: Ground
    minutes: float
    random: Random
    load: Load = field(init=False)
    daemon: "subprocess.Popen[bytes]" = field(init=False)
    samples: list[Sample] = field(default_factory=list)
    happened: dict[str, int] = field(default_factory=dict)
    _mounted: bool = False

    def run(self) -> list[str]:
        """The whole of it; returns what was found."""
        self.load = Load(self.place, self.random)
        self._configure()
        self.load.prepare()
        self.daemon = self.place.start()
        wait_for((self.place.root / "outbox" / "status.json").exists, seconds=60)
        try:
            self._live()
            findings = self._settle()
        finally:
            self._come_back()
            self.daemon.terminate()
            self.daemon.wait(120)
        return findings + self._audit() + self.load.findings(results_kept=False)

    def _configure(self) -> None:
        self.place.write_config(
            defaults={"check": {"by": "none"}, "output": {"formats": ["wav"]}},
            intake={"settle_seconds": 0.3},
            workers={"count": 1, "stop_seconds": 20, "max_attempts": 10},
            retention=RETENTION,
            log={"level": "INFO", "rotate_mb": 1, "keep_files": 2 + self.happened.get("reload", 0) % 2},
        )

    # -- the hour ----------------------------------------------------------------------------------

    def _live(self) -> None:
        """Everything happens at random, at so many times an hour; in a shorter run as often, but closer."""
        faults: dict[Callable[[], None], float] = {
            self._reload: 8,
            self._kill_worker: 14,
            self._pause: 8,
            self._take_inbox_away: 6,
        }
        span = self.minutes * 60
        started = time.monotonic()
        due = [(at * span, deed) for deed, times in faults.items() for at in self._moments(times)]
        due.sort(key=lambda item: item[0])
        next_act = next_sample = 0.0
        while (now := time.monotonic() - started) < span:
            if due and now >= due[0][0]:
                due.pop(0)[1]()
            elif now >= next_sample:
                next_sample = now + min(SAMPLE_SECONDS, span / 60)
                self._sample(now)
            elif now >= next_act:
                next_act = now + self.random.expovariate(1 / ACT_SECONDS)
                self.load.act()
            time.sleep(0.05)

    def _moments(self, times: float) -> Iterator[float]:
        """Even enough that each quarter has its share, and never in the last tenth."""
        count = max(2, round(times * min(1.0, self.minutes / 15)))
        return ((number + self.random.random()) / count * 0.9 for number in range(count))

    def _reload(self) -> None:
        self._note("reload")
        self._configure()
        self.daemon.send_signal(signal.SIGHUP)

    def _kill_worker(self) -> None:
        worker = self._worker()
        if worker:
            self._note("worker killed")
            os.kill(worker, self.random.choice(DEADLY))

    def _pause(self) -> None:
        self._note("pause")
        mark = self.place.root / "inbox" / "PAUSE"
        mark.touch()
        for _ in range(3):
            self.load.act()
            time.sleep(1)
        mark.unlink()

    def _take_inbox_away(self) -> None:
        """Mounted over where we may, renamed where we may not; nobody drops anything meanwhile."""
        self._note("inbox away")
        inbox = self.place.root / "inbox"
        mount = ["mount", "-t", "tmpfs", "none", str(inbox)]
        self._mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        if not self._mounted:
            inbox.rename(inbox.with_name("inbox-away"))
        time.sleep(min(AWAY_SECONDS, self.minutes * 4))
        self._come_back()

    def _come_back(self) -> None:
        inbox = self.place.root / "inbox"
        if self._mounted:
            subprocess.run(["umount", str(inbox)], check=True)
            self._mounted = False
        elif inbox.with_name("inbox-away").exists():
            if inbox.exists():  # somebody made an empty one meanwhile
                inbox.rmdir()
            inbox.with_name("inbox-away").rename(inbox)

    def _note(self, what: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1

    # -- the end -----------------------------------------------------------------------------------

    def _settle(self) -> list[str]:
        """Until everything is done; it is a finding if nothing gets done any more."""
        self.load.finish()
        best, deadline = sys.maxsize, 0.0
        while left := len(self.load.waiting()) + self._unfinished():
            if left < best:
                best, deadline = left, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                return [f"nothing gets done any more: {left} left, waiting: {self.load.waiting()[:5]}"]
            time.sleep(0.5)
        return []

    def _unfinished(self) -> int:
        return int(self.place.query("SELECT COUNT(*) FROM drops WHERE state NOT IN ('done', 'failed')")[0][0])

    def _audit(self) -> list[str]:
        config = str(self.place.root / "config.yaml")
        command = [sys.executable, "daemon.py", "--config", config, "audit"]
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        lines = [line for line in ended.stdout.splitlines() if line.startswith("problem")]
        return lines or ([] if ended.returncode == 0 else [f"audit: {ended.stderr or ended.stdout}"])

    # -- sampling ----------------------------------------------------------------------------------

    def _worker(self) -> int:
        """The worker's process id; 0 while there is none."""
        for child in children(self.daemon.pid):
            if b"spawn_main" in _command_line(child):
                return child
        return 0

    def _sample(self, now: float) -> None:
        try:
            self.samples.append(self._looked_at(now))
        except (OSError, ValueError):
            return  # a process ended under our eyes: the next sample will do

    def _looked_at(self, now: float) -> Sample:
        daemon, worker = self.daemon.pid, self._worker()
        state = self.place.root / "state"
        ledger, cache = _size_mb(*state.glob("ledger.db*")), _size_mb(state / "cache")
        return Sample(
            round(now, 1),
            *_process(daemon),
            worker,
            *(_process(worker) if worker else (0, 0, 0.0, 0.0, 0.0)),
            _listener_mb(worker) if worker else 0.0,
            1 + sum(b"ffmpeg" not in _command_line(child) for child in children(daemon)),
            ledger,
            cache,
            round(_size_mb(state) - ledger - cache, 3),
            _size_mb(self.place.root / "outbox"),
            self.place.query("SELECT COUNT(*) FROM jobs WHERE ended_at IS NOT NULL")[0][0],
        )


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _process(pid: int) -> tuple[int, int, float, float, float]:
    """Descriptors, threads, memory."""
    descriptors, threads = (len(list(Path(f"/proc/{pid}/{name}").iterdir())) for name in ("fd", "task"))
    return descriptors, threads, *_memory(pid)


def _memory(pid: int) -> tuple[float, float, float]:
    """Resident, with shared pages shared out, and own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    fields = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
    rss, pss, own = (round(int(fields[name]) / 1024, 2) for name in ("Rss", "Pss", "Anonymous"))
    return rss, pss, own


def _listener_mb(worker: int) -> float:
    """Own memory of the first that listens for a worker."""
    listening = [child for child in children(worker) if b"spawn_main" in _command_line(child)]
    return _memory(listening[0])[2] if listening else 0.0


def _size_mb(*paths: Path) -> float:
    total = 0
    for path in paths:
        below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in below if path.is_dir() else [path]:
            with contextlib.suppress(OSError):  # gone meanwhile
                total += file.lstat().st_size
    return round(total / 1e6, 3)


# -- telling ---------------------------------------------------------------------------------------


def quarter(samples: list[Sample], name: str, number: int) -> float:
    """One measure in quarter 1 to 4 of the run; a worker's only while one lives.

    The median; of descriptors and threads, which come and go with each encoder, what is held at rest: the
    lowest tenth.
    """
    span = samples[-1].at_seconds
    values = [
        getattr(sample, name)
        for sample in samples
        if span * (number - 1) / 4 <= sample.at_seconds <= span * number / 4
        and (sample.worker or not name.startswith("worker"))
    ]
    if len(values) < 2:
        return float(values[0]) if values else 0.0
    at_rest = name.endswith(("descriptors", "threads"))
    return statistics.quantiles(values, n=10)[0] if at_rest else float(statistics.median(values))


def growth(samples: list[Sample], name: str) -> float:
    """The last quarter over the second, less one."""
    second = quarter(samples, name, 2)
    return quarter(samples, name, 4) / second - 1 if second else 0.0


def table(samples: list[Sample]) -> list[str]:
    """The four quarters, and the growth from the second to the last."""
    lines = [f"{'':26}" + "".join(f"{f'quarter {n}':>11}" for n in range(1, 5)) + f"{'4 over 2':>10}"]
    for name in asdict(samples[0]):
        if name in ("at_seconds", "worker"):
            continue
        values = "".join(f"{quarter(samples, name, number):>11.1f}" for number in range(1, 5))
        mark = "" if name not in FLAT else " ok" if growth(samples, name) <= ALLOWED_GROWTH else " GROWS"
        lines.append(f"{name:26}{values}{growth(samples, name):>+10.1%}{mark}")
    return lines


def within_lives(samples: list[Sample]) -> list[str]:
    """How much each worker that lived for long took from its second quarter of life to its last."""
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.worker, []).append(sample)
    lives.pop(0, None)
    lines = []
    for life in lives.values():
        seconds = life[-1].at_seconds - life[0].at_seconds
        if len(life) >= 12:
            quarter_of_life = len(life) // 4
            before = statistics.median(s.worker_own_mb for s in life[quarter_of_life : 2 * quarter_of_life])
            after = statistics.median(s.worker_own_mb for s in life[-quarter_of_life:])
            jobs = life[-1].jobs_ended - life[0].jobs_ended
            lines.append(
                f"  a worker that lived {seconds:.0f} s, {jobs} jobs: {before:.1f} MB, then {after:.1f}"
            )
    return lines


def picture(samples: list[Sample]) -> str:
    """Memory and descriptors over time, as a drawing of a few kilobytes."""
    curves = (
        ("supervisor_resident_mb", "supervisor, MB resident", "#1f6f8b"),
        ("worker_resident_mb", "worker, MB resident", "#b5541c"),
        ("supervisor_descriptors", "supervisor, descriptors", "#5a7d2a"),
        ("worker_descriptors", "worker, descriptors", "#7a4b94"),
    )
    width, height, left, top = 720, 260, 46, 14
    span = samples[-1].at_seconds or 1.0
    highest = max(getattr(sample, name) for sample in samples for name, _, _ in curves) * 1.08
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 14} {top + height + 60}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
    ]
    for step in range(5):
        x, y = left + width * step / 4, top + height - height * step / 4
        minutes = f"{span * step / 240:.0f} min"
        parts.append(f'<text x="{x:.0f}" y="{top + height + 16}" text-anchor="middle">{minutes}</text>')
        parts.append(
            f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{highest * step / 4:.0f}</text>'
        )
        parts.append(f'<path d="M{left} {y:.0f}h{width}" stroke="#ddd"/>')
    for number, (name, label, colour) in enumerate(curves):
        points = " ".join(
            f"{left + width * sample.at_seconds / span:.1f},"
            f"{top + height - height * getattr(sample, name) / highest:.1f}"
            for sample in samples
            if sample.worker or not name.startswith("worker")
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        x = left + number * width / 4
        parts.append(f'<text x="{x:.0f}" y="{top + height + 40}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def tell(soak: Soak, findings: list[str]) -> bool:
    """Print it all; whether it went well."""
    samples = soak.samples
    ended = samples[-1].jobs_ended
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    share = (used.ru_utime + used.ru_stime) / samples[-1].at_seconds
    print(f"{samples[-1].at_seconds / 60:.0f} minutes, {len(samples)} samples, {ended} jobs ended,")
    print(f"{share:.0%} of a processor (daemon, workers, encoders)")
    print("faults: " + ", ".join(f"{times} {what}" for what, times in soak.happened.items()))
    print("acts: " + ", ".join(f"{times} {act}" for act, times in soak.load.acts.most_common()))
    print("\n".join(table(samples)))
    print("\n".join(within_lives(samples)))
    growing = [name for name in FLAT if growth(samples, name) > ALLOWED_GROWTH]
    print(f"audit and books: {len(findings)} findings" + "".join(f"\n  {finding}" for finding in findings))
    print(f"growing by over {ALLOWED_GROWTH:.0%}: {', '.join(growing) or 'nothing'}")
    return not findings and not growing


def main() -> int:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path, default=None, help="draw memory and descriptors into this file")
    parser.add_argument("--csv", type=Path, default=None, help="all samples into this file")
    options = parser.parse_args()
    with ground() as place:
        soak = Soak(place, options.minutes, Random(options.seed))
        findings = soak.run()
        if options.csv:
            _write_csv(options.csv, soak.samples)
        if options.svg:
            options.svg.write_text(picture(soak.samples), encoding="utf-8")
        well = tell(soak, findings)
        if findings:
            print("\n".join(_complaints(place)))
    return 0 if well else 1


def _complaints(place: Ground) -> list[str]:
    """What the daemon and its workers complained of, all along: a finding may be an hour old."""
    lines = (place.root / "daemon.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if " WARNING " in line or " ERROR " in line]


def _write_csv(path: Path, samples: list[Sample]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(asdict(samples[0])))
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)


if __name__ == "__main__":
    sys.exit(main())
