"""`make fuzz`: every target, each in a child process, and a table of what came of it.

Ends with 1 if any input broke a promise: it then lies in `.fuzz/findings/`, with the reason beside it.
What the coverage engine learnt stays in `.fuzz/corpus/`, and the next run goes on from there.
"""

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.watched import Tally, keep, read_tally

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".fuzz"
HANG_SECONDS = 60.0
"of the clock, for one input; 2 s of processor time are told by the child itself"
MAX_DEATHS = 10
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One target by one engine."""

    target: str
    engine: str
    share: float
    "of all inputs"


RUNS = (
    Run(target="job file", engine="atheris", share=0.25),
    Run(target="job file", engine="hypothesis", share=0.08),
    Run(target="job file", engine="large", share=0.002),
    Run(target="defaults", engine="atheris", share=0.06),
    Run(target="text", engine="atheris", share=0.12),
    Run(target="text", engine="hypothesis", share=0.05),
    Run(target="text", engine="large", share=0.002),
    Run(target="markdown", engine="atheris", share=0.06),
    Run(target="markdown", engine="large", share=0.002),
    Run(target="spelling", engine="atheris", share=0.06),
    Run(target="audio header", engine="atheris", share=0.12),
    Run(target="audio file", engine="hypothesis", share=0.024),
    Run(target="names", engine="hypothesis", share=0.08),
    Run(target="references", engine="hypothesis", share=0.07),
    Run(target="drops", engine="hypothesis", share=0.02),
)


def main() -> int:
    """Run them all, one after the other."""
    asked = _arguments()
    os.nice(10)
    has_atheris = importlib.util.find_spec("atheris") is not None
    if not has_atheris:
        print(
            f"atheris is not there (it has no wheel for Python {platform.python_version()} on this machine):"
        )
        print("its targets are tried by Hypothesis alone.\n")
    runs = [run for run in RUNS if asked.target in (None, run.target)]
    total = sum(run.share for run in runs)
    deadline = time.monotonic() + asked.seconds
    print(
        f"{'target':14} {'engine':10} {'inputs':>9} {'worst s':>8} {'most MB':>8} {'findings':>8}", flush=True
    )
    tallies = []
    for run in runs:
        engine = "hypothesis" if run.engine == "atheris" and not has_atheris else run.engine
        tally = _run(run.target, engine, max(1, round(asked.inputs * run.share / total)), deadline)
        tallies.append(tally)
        print(_row(run.target, engine, tally), flush=True)
    print(_row("all", "", _sum(tallies)))
    found = sum(tally.findings for tally in tallies)
    if found:
        print(f"\nWhat broke a promise lies in {FOLDER / 'findings'}, with the reason beside it.")
        print("Once it is mended, copy the input to tests/fuzz/corpus/TARGET/: `make test` then tries it.")
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=120_000, help="how many in all (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--target", choices=sorted({run.target for run in RUNS}), help="only this one")
    return parser.parse_args()


def _run(target: str, engine: str, inputs: int, deadline: float) -> Tally:
    """A target to its end, begun again after each input that killed or blocked its process."""
    parts: list[Tally] = []
    while len(parts) <= MAX_DEATHS and inputs > 0 and (left := deadline - time.monotonic()) > 0:
        part, died = _child(target, engine, inputs, min(left, 1e6))
        parts.append(part)
        inputs -= max(1, part.inputs)
        if not died:
            break
    return _sum(parts)


def _child(target: str, engine: str, inputs: int, seconds: float) -> tuple[Tally, bool]:
    """One child; tells whether it ended otherwise than it should."""
    FOLDER.mkdir(exist_ok=True)
    tally_file = FOLDER / "tally"
    tally_file.unlink(missing_ok=True)
    command = child_command(target, engine, inputs, seconds)
    with open(FOLDER / "log", "ab") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        hung = _wait(child, tally_file)
    finally:
        child.kill()  # where we were interrupted
        child.wait()
    tally = read_tally(tally_file) if tally_file.exists() else Tally()
    if not hung and child.returncode == 0:
        return tally, False
    told = f"it took over {HANG_SECONDS:.0f} s" if hung else f"the process ended with {child.returncode}"
    keep(FOLDER / "findings", target.replace(" ", "-"), tally.current, told)
    return _sum([tally, Tally(findings=1, worst_seconds=HANG_SECONDS if hung else 0.0)]), True


def child_command(target: str, engine: str, inputs: int, seconds: float) -> list[str]:
    """What is run; see `child`."""
    return [sys.executable, "-m", "tests.fuzz.child", target, engine, str(inputs), str(seconds), str(FOLDER)]


def _wait(child: "subprocess.Popen[bytes]", tally_file: Path) -> bool:
    """Until it ends; True if it had to be killed."""
    seen, since = -1, time.monotonic()
    while child.poll() is None:
        time.sleep(POLL_SECONDS)
        inputs = read_tally(tally_file, current=False).inputs if tally_file.exists() else -1
        if inputs != seen:
            seen, since = inputs, time.monotonic()
        elif time.monotonic() - since > HANG_SECONDS:
            child.kill()
            return True
    return False


def _sum(tallies: list[Tally]) -> Tally:
    return Tally(
        inputs=sum(tally.inputs for tally in tallies),
        worst_seconds=max((tally.worst_seconds for tally in tallies), default=0.0),
        most_mb=max((tally.most_mb for tally in tallies), default=0.0),
        findings=sum(tally.findings for tally in tallies),
    )


def _row(target: str, engine: str, tally: Tally) -> str:
    numbers = f"{tally.inputs:>9,} {tally.worst_seconds:>8.2f} {tally.most_mb:>8.0f} {tally.findings:>8}"
    return f"{target:14} {engine:10} {numbers}"


if __name__ == "__main__":
    sys.exit(main())
