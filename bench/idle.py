"""What waiting costs: drop to claim, and an idle daemon beside ten thousand old files."""

import statistics
import time

from bench.ground import Ground, ground, memory_mb, processor_seconds, wait_for

OLD_FILES = 10_000
IDLE_SECONDS = 60.0
DROPS = 20
SETTLE_SECONDS = 2.0


def main() -> None:
    """Print both."""
    with ground() as place:
        _fill(place)
        place.write_config(intake={"settle_seconds": SETTLE_SECONDS})
        daemon = place.start()
        try:
            wait_for((place.root / "outbox" / "status.json").exists, seconds=60)
            time.sleep(5)
            _idle(daemon.pid)
            _claims(place)
        finally:
            daemon.terminate()
            daemon.wait()


def _fill(place: Ground) -> None:
    """Old files where they lie after a year: processed, ignored, unsupported."""
    done = place.root / "inbox" / ".voxspool" / "done"
    for number in range(OLD_FILES):
        folder = done / f"20250101-000000-{number:08x}"
        folder.mkdir(parents=True)
        (folder / "old.txt").write_text("old", encoding="utf-8")
    trash = place.root / "inbox" / "@eaDir"
    trash.mkdir()
    for number in range(OLD_FILES):
        (trash / f"{number}.txt").write_text("old", encoding="utf-8")


def _idle(pid: int) -> None:
    before = processor_seconds(pid)
    time.sleep(IDLE_SECONDS)
    used = processor_seconds(pid) - before
    print(f"idle with {OLD_FILES:,} files in the done folder and {OLD_FILES:,} in an ignored one:")
    print(f"  {used / IDLE_SECONDS:.2%} of one processor (target: under 1 %), {memory_mb(pid):.0f} MB in all")


def _claims(place: Ground) -> None:
    delays = []
    for number in range(DROPS):
        path = place.drop(f"drop-{number}.txt", f"This is drop number {number}.")
        dropped = time.monotonic()
        wait_for(lambda path=path: not path.exists(), seconds=30, step=0.002)
        delays.append(time.monotonic() - dropped)
    over = [delay - SETTLE_SECONDS for delay in delays]
    print(f"drop to claim over {DROPS} drops: the quiet period of {SETTLE_SECONDS} s")
    median, worst = statistics.median(over), max(over)
    print(f"  plus {median:.2f} s (median), {worst:.2f} s at worst (target: at most 0.3)")


if __name__ == "__main__":
    main()
