"""Ten thousand one-line texts dropped at once: all spoken, nothing twice, cost per file flat."""

import argparse
import time

from bench.ground import Ground, ground, memory_mb
from pipeline.config import load_config
from pipeline.intake.intake import Intake
from pipeline.intake.watch import Watch
from pipeline.layout import layout_of
from pipeline.ledger import Ledger

FEW = 100


def main() -> None:
    """Print the run with a hundred files, then that with all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--unchecked", action="store_true", help="speak only: a third of the time")
    options = parser.parse_args()
    _intake_alone(options.files)
    few = _run(FEW, options.workers, options.unchecked)
    many = _run(options.files, options.workers, options.unchecked)
    print(f"peak memory: {few:.0f} MB for {FEW} files, {many:.0f} MB for {options.files:,}:")
    print(f"  {many - few:+.0f} MB (target: within 50)")


def _run(files: int, workers: int, unchecked: bool) -> float:
    with ground() as place:
        defaults = {"check": {"by": "none"}} if unchecked else {}
        place.write_config(workers={"count": workers}, defaults=defaults)
        for number in range(files):
            place.drop(f"line-{number:05}.txt", f"This is line number {number} of many.")
        started = time.monotonic()
        daemon = place.start()
        peak = 0.0
        try:
            while _ended(place) < files:
                peak = max(peak, memory_mb(daemon.pid))
                time.sleep(0.5)
            seconds = time.monotonic() - started
        finally:
            daemon.terminate()
            daemon.wait()
        _tell(place, files, seconds)
        return peak


def _intake_alone(files: int) -> None:
    """Cost of a claim with nobody else at the disk: the first thousand against the last."""
    with ground() as place:
        place.write_config(intake={"settle_seconds": 0.0, "events": False})
        config = load_config(place.root / "config.yaml")
        layout = layout_of(config)
        for number in range(files):
            place.drop(f"line-{number:05}.txt", f"This is line number {number} of many.")
        ledger = Ledger(layout.ledger_file, clock=time.time)
        intake = Intake(layout, ledger, config, clock=time.time)
        watch = Watch(config, layout, ledger, intake, clock=time.monotonic)
        taken = 0
        while taken < files:
            taken += len(watch.look())
            time.sleep(0.01)
        watch.close()
        ledger.close()
        print("intake by itself, without workers beside it:")
        _tell_flatness(
            [row[0] for row in place.query("SELECT claimed_at FROM drops ORDER BY claimed_at, id")]
        )


def _ended(place: Ground) -> int:
    if not (place.root / "state" / "ledger.db").exists():
        return 0
    try:
        return int(place.query("SELECT COUNT(*) FROM drops WHERE state IN ('done', 'failed')")[0][0])
    except Exception as error:
        if "no such table" in str(error):
            return 0
        raise


def _tell(place: Ground, files: int, seconds: float) -> None:
    done = place.query("SELECT COUNT(*) FROM jobs WHERE state = 'done'")[0][0]
    spoken = place.query("SELECT COUNT(DISTINCT source_name) FROM jobs WHERE state = 'done'")[0][0]
    attempts = place.query("SELECT COUNT(*) FROM attempts")[0][0]
    results = sum(1 for _ in (place.root / "outbox").glob("*.mp3"))
    left = sum(1 for path in (place.root / "inbox").iterdir() if path.suffix == ".txt")
    print(
        f"{files:,} files in {seconds:.0f} s ({files / seconds:.1f} a second): {done:,} jobs done,"
        f" {spoken:,} different sources, {results:,} results, {attempts:,} attempts, {left} left in the inbox"
    )
    claims = [row[0] for row in place.query("SELECT claimed_at FROM drops ORDER BY claimed_at, id")]
    if files >= 2000:
        _tell_flatness(claims)


def _tell_flatness(claims: list[float]) -> None:
    """What a claim costs, everything that the daemon does meanwhile included."""
    first, last = claims[999] - claims[0], claims[-1] - claims[-1000]
    print(
        f"  intake: {first:.1f} ms a file for the first thousand, {last:.1f} ms for the last:"
        f" {last / first:.2f} times (target: at most 1.5)"
    )


if __name__ == "__main__":
    main()
