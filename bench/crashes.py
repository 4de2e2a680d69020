"""Hundreds of SIGKILLs at random moments of a mixed load: is everything done once and nothing lost?

`make crashes`. Each round starts the real daemon, lets people work at the folders, kills the whole process
tree at a moment drawn at random (every second time at one at which something is in the making), and looks at
what stands there: no half result under a final name, no finished take spoken again, every file accounted
for. At the end it finishes what is left and compares the ledger and the outbox with what was dropped.
"""

import argparse
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.ground import REPOSITORY, Ground, ground
from bench.load import Load, manifests
from pipeline.files import sha256_of

SHORTEST_LIFE_SECONDS, LONGEST_LIFE_SECONDS = 0.2, 6.0
"from the start of the process: the first claim comes after about half a second, the first take after one"
ACTS_A_SECOND = 1.2
AT_WORK = "SELECT 1 FROM jobs WHERE state = 'running' UNION ALL SELECT 1 FROM drops WHERE state = 'claiming'"
LONGEST_LOOK_AHEAD_SECONDS = 0.3
"from seeing somebody at work to the freezing: a job of the load lasts about as long"
LOOK_SECONDS, LONGEST_WAIT_SECONDS = 0.02, 5.0
"for what was dropped to be taken up; it may have been done between two looks"
PATIENCE_SECONDS = 60.0
FINISH_SECONDS = 600.0
LITTER = (".voxspool-tmp", ".arriving")


@dataclass(slots=True)
class Crashes:
    """One run."""

    place: Ground
    random: Random
    load: Load = field(init=False)
    struck: int = 0
    "kills that were held back until the ledger told of work"
    interrupted: Counter[str] = field(default_factory=Counter)
    "what the kills struck, as the ledger tells: claims in the making, jobs by their stage"
    _takes: dict[str, int] = field(default_factory=dict)

    def run(self, kills: int) -> list[str]:
        """So many kills; returns everything that was found wrong."""
        self.place.write_config(
            defaults={"check": {"by": "none"}, "output": {"formats": ["wav"]}},
            intake={"settle_seconds": 0.1},
            workers={"count": 2, "max_attempts": 10},
            log={"level": "WARNING"},
        )
        self.load = Load(self.place, self.random)
        self.load.prepare()
        findings: list[str] = []
        for number in range(1, kills + 1):
            at_work = number % 2 == 0  # the others end wherever they are: starting, waiting, or at work too
            findings += [f"after kill {number}: {finding}" for finding in self._live_and_die(at_work=at_work)]
        self.load.finish()
        findings += self._finish()
        return findings + self._frozen() + self._litter() + self.load.findings()

    def _live_and_die(self, *, at_work: bool) -> list[str]:
        daemon = self.place.start()
        self._live(self.random.uniform(SHORTEST_LIFE_SECONDS, LONGEST_LIFE_SECONDS))
        findings = self._freeze_at_work(daemon.pid) if at_work else []
        kill(freeze(daemon.pid))
        daemon.wait()
        return findings + self._frozen()

    def _live(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            pause = self.random.expovariate(ACTS_A_SECOND)
            time.sleep(min(pause, left))
            if pause < left:
                self._act()

    def _freeze_at_work(self, pid: int) -> list[str]:
        """Stop the tree at a moment at which the ledger says that something is in the making."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if not self._at_work():
                self._give_work()
            time.sleep(self.random.uniform(0, LONGEST_LOOK_AHEAD_SECONDS))
            family = freeze(pid)
            if self._at_work():
                self.struck += 1
                return []
            thaw(family)
        return [f"nobody was at work for {PATIENCE_SECONDS:.0f} s"]

    def _give_work(self) -> None:
        load = self.load
        self.random.choice([load.long_text, load.checked, load.documents, load.joined, load.recording])()
        ends = time.monotonic() + LONGEST_WAIT_SECONDS
        while time.monotonic() < ends and not self._at_work():
            time.sleep(LOOK_SECONDS)

    def _at_work(self) -> bool:
        with contextlib.suppress(sqlite3.Error):  # no ledger yet
            return bool(self.place.query(AT_WORK))
        return False

    def _act(self) -> None:
        if (self.place.root / "state" / "ledger.db").exists():
            self.load.act()
        else:
            self.load.text()

    def _finish(self) -> list[str]:
        """Restarted for the last time, with nobody at the folders."""
        config = str(self.place.root / "config.yaml")
        command = [sys.executable, "daemon.py", "--config", config, "--once"]
        ended = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=FINISH_SECONDS
        )
        # 1: what was dropped to fail did fail
        return [] if ended.returncode in (0, 1) else [f"the last run ended so: {ended.stderr[-2000:]}"]

    # -- what stands there after a kill ------------------------------------------------------------

    def _frozen(self) -> list[str]:
        if not (self.place.root / "state" / "ledger.db").exists():
            return []
        self._count_interrupted()
        return [*self._half_results(), *self._spoken_again(), *audit_problems(self.place)]

    def _count_interrupted(self) -> None:
        with contextlib.suppress(Exception):  # killed before the first table was made
            for (state,) in self.place.query("SELECT state FROM drops WHERE state = 'claiming'"):
                self.interrupted[f"drop {state}"] += 1
            for (stage,) in self.place.query("SELECT stage FROM jobs WHERE state = 'running'"):
                self.interrupted[f"job {stage}"] += 1

    def _half_results(self) -> list[str]:
        return half_results(self.place)

    def _spoken_again(self) -> list[str]:
        """A finished take is written once: its sound keeps the time at which it was."""
        told = []
        for sheet in (self.place.root / "state" / "cache").glob("*/*.json"):
            sound = sheet.with_suffix(".wav")
            if sheet.name.count(".") == 1 and sound.exists():
                made = sound.stat().st_mtime_ns
                if self._takes.setdefault(sound.name, made) != made:
                    told.append(f"the take {sound.name} was spoken again")
                    self._takes[sound.name] = made
        return told

    def _litter(self) -> list[str]:
        """Temporary files that nobody will ever take away; those of the cache are pruned with their take."""
        return [
            f"left behind: {os.path.relpath(os.path.join(folder, name), self.place.root)}"
            for folder, _, names in os.walk(self.place.root)
            for name in names
            if name.endswith(LITTER)
        ]


def half_results(place: Ground) -> list[str]:
    """Files under final names that are not whole: not as the ledger knew them before they got there."""
    outbox, told = place.root / "outbox", []
    for manifest in manifests(outbox):
        for output in manifest["outputs"]:
            path = outbox / output["path"]
            if not path.exists() or sha256_of(path) != output["sha256"]:
                told.append(f"{output['path']} is not what its manifest says")
    known = (
        {
            digest
            for (digest,) in place.query(
                "SELECT json_extract(value, '$.sha256') FROM results, json_each(results.files)"
            )
        }
        if results_table(place)
        else set()
    )
    for path in outbox.rglob("*"):
        inside = path.relative_to(outbox)
        ours = inside.parts[0] not in ("failed", ".voxspool") and path.name != "status.json"
        if ours and path.is_file() and not path.name.startswith(".") and sha256_of(path) not in known:
            told.append(f"{inside} is not whole, or not in the ledger")
    return told


def results_table(place: Ground) -> bool:
    """Whether the ledger had been set up when the kill came."""
    return bool(place.query("SELECT 1 FROM sqlite_master WHERE name = 'results'"))


def audit_problems(place: Ground) -> list[str]:
    """What `daemon.py audit` calls a problem."""
    command = [sys.executable, "daemon.py", "--config", str(place.root / "config.yaml"), "audit"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("problem")]
    return lines or ([] if ended.returncode == 0 else [f"audit: {ended.stderr or ended.stdout}"])


def freeze(pid: int) -> list[int]:
    """SIGSTOP for a process and all below it, so that none can begin another; returns their ids."""
    family = [pid]
    for member in family:
        with contextlib.suppress(OSError):
            os.kill(member, signal.SIGSTOP)
            children = Path(f"/proc/{member}/task/{member}/children").read_text("ascii")
            family += [int(child) for child in children.split()]
    return family


def thaw(family: list[int]) -> None:
    """Let them go on."""
    _signal(family, signal.SIGCONT)


def kill(family: list[int]) -> None:
    """SIGKILL, which a stopped process dies of, too."""
    _signal(family, signal.SIGKILL)


def _signal(family: list[int], number: signal.Signals) -> None:
    for member in family:
        with contextlib.suppress(OSError):
            os.kill(member, number)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with ground() as place:
        crashes = Crashes(place, Random(options.seed))
        findings = crashes.run(options.kills)
        drops, jobs = (place.query(f"SELECT COUNT(*) FROM {table}")[0][0] for table in ("drops", "jobs"))
        print(
            f"{options.kills} kills of the whole process tree in {(time.monotonic() - started) / 60:.0f} min,"
        )
        print(f"{drops} drops, {jobs} jobs, seed {options.seed}")
        print("acts: " + ", ".join(f"{n} {act}" for act, n in crashes.load.acts.most_common()))
        print(f"{crashes.struck} kills were held back until something was in the making")
        print("struck: " + ", ".join(f"{n} x {what}" for what, n in crashes.interrupted.most_common()))
        print(f"{len(findings)} findings" + "".join(f"\n  {finding}" for finding in findings[:50]))
        if findings:
            print((place.root / "daemon.log").read_text(errors="replace")[-4000:])
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
