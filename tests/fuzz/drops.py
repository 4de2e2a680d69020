"""Files dropped together, through the real intake to their last places: none is ever in no place, or in two.

An input is JSON: which `source` is set, the files (name and content in base64), and how their jobs end.
Speech is left out: a job is done, with a result that stands in for one, or has failed, as the input says.
"""

import base64
import contextlib
import itertools
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

from pipeline.audit import audit
from pipeline.config import ConfigFile, resolve
from pipeline.errors import InputError
from pipeline.intake.claim import end_if_complete
from pipeline.intake.ignore import Candidate, DropKind, IgnoreList, entry_type
from pipeline.intake.inbox import Dropped
from pipeline.intake.intake import Intake
from pipeline.intake.settle import fingerprint_of
from pipeline.jobs.job import DropState, Job, JobState
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.naming import MAX_NAME_BYTES, folded
from pipeline.outbox import Manifest, Rendered, publish

PASSES = 3
FAR_LATER_SECONDS = 2000.0


def drop_all(data: bytes) -> None:
    """Drop what the input says, and look where everything lies in the end."""
    asked = json.loads(data)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        house = _House(Path(folder), asked["source"])
        try:
            dropped = house.drop([(base64.b64decode(n), base64.b64decode(c)) for n, c in asked["files"]])
            ends = itertools.cycle(asked["ends"] or [True])
            for _ in range(PASSES):
                house.take(ends)
            house.assert_all_is_in_its_place(dropped)
        finally:
            house.ledger.close()


class _House:
    """Folders, ledger and intake, with a clock moved by hand."""

    def __init__(self, base: Path, source: str) -> None:
        parsed = ConfigFile.model_validate({"intake": {"settle_seconds": 0.0, "source": source}})
        config = resolve(parsed, base / "config.yaml")
        for path in (config.inbox_path, config.outbox_path, config.voices_path, config.state_path):
            path.mkdir()
        self.layout: Layout = layout_of(config)
        self.now, self.source = 1_800_000_000.0, source
        self.ledger = Ledger(self.layout.ledger_file, clock=lambda: self.now)
        self.ledger._db.rows("PRAGMA synchronous = OFF")
        self.intake = Intake(self.layout, self.ledger, config, clock=lambda: self.now)

    def drop(self, files: list[tuple[bytes, bytes]]) -> dict[str, bytes]:
        """Put files into the inbox, each with content of its own; the disk need not take every name."""
        dropped = {}
        for number, (name, content) in enumerate(files):
            path = Path(os.fsdecode(os.path.join(os.fsencode(self.layout.inbox), name.lstrip(b"/"))))
            if b"\0" in name or ".." in path.parts:
                continue
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as stream:
                    stream.write(content + b"\n#%d" % number)
                dropped[str(path.relative_to(self.layout.inbox))] = content + b"\n#%d" % number
        return dropped

    def take(self, ends: "itertools.cycle[bool]") -> None:
        """One pass of the intake, and all its jobs to their ends."""
        self.now += FAR_LATER_SECONDS
        offered = [dropped for dropped in self._offered() if not self._was_taken(dropped)]
        taken = self.intake.accept(offered)
        claimed = {drop.relative for drop in taken.drops}
        members = {member for drop in taken.drops for member in drop.members}
        for dropped in offered:
            known = dropped.relative in taken.waiting or dropped.relative in claimed | members
            assert known, f"{dropped.relative!r} was neither taken nor told why not"
        while (job := self.ledger.claim("1")) is not None:
            self._end(job, well=next(ends))
        self.intake.recover()

    def _end(self, job: Job, *, well: bool) -> None:
        """Done, with a result that stands in for one, or failed."""
        drop = self.ledger.drop(job.drop_id)
        assert drop is not None
        try:
            if not well:
                raise InputError("It was not to be.", code="x")
            audio = self.layout.state / "audio.mp3"
            audio.write_bytes(job.id.encode())
            rendered = Rendered(format="mp3", path=audio, duration_seconds=1.0, sample_rate_hz=22_050)
            manifest = Manifest(
                job_id=job.id, status="done", kind=job.spec.kind, source=job.source, engine={}, settings={}
            )
            publish(self.layout, self.ledger, job, drop.relative, [rendered], "log", manifest)
        except InputError as error:
            self.ledger.finish(job.id, JobState.FAILED, code=error.code, message=error.message)
        else:
            self.ledger.finish(job.id, JobState.DONE)
        end_if_complete(self.layout, self.ledger, job.drop_id)

    def _was_taken(self, dropped: Dropped) -> bool:
        stamp = tuple(dropped.fingerprint[:4])
        return self.ledger.already_taken(dropped.relative, stamp) or self.intake.is_part(dropped.relative)

    def _offered(self) -> list[Dropped]:
        """What a scan would hand on once it has settled."""
        ignore, found = IgnoreList(), []
        for path in sorted(self.layout.inbox.rglob("*")):
            relative, status = str(path.relative_to(self.layout.inbox)), path.lstat()
            verdict = ignore.classify(relative, entry_type(status.st_mode))
            if isinstance(verdict, Candidate) and verdict.kind is not DropKind.DEFAULTS:
                found.append(
                    Dropped(
                        relative=relative,
                        path=path,
                        kind=verdict.kind,
                        fingerprint=fingerprint_of(status),
                        device=status.st_dev,
                        settled_at=0.0,
                    )
                )
        return found

    def assert_all_is_in_its_place(self, dropped: dict[str, bytes]) -> None:
        """By the audit, and by looking for every byte."""
        found = audit(self.ledger, self.layout)
        assert not found.problems, found.problems
        for room in (self.layout.claimed_root, self.layout.spool("x").parent):
            assert not room.is_dir() or not list(room.iterdir()), f"{room.name} is not empty"
        places = Counter(
            path.read_bytes()
            for root in (self.layout.inbox, self.layout.failed)
            for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        shared = Counter(name for drop in self.ledger.drops_in(*DropState) for name in drop.members[1:])
        for name, content in dropped.items():
            assert places[content] >= 1, f"{name!r} is in no place"
            assert places[content] == 1 or shared[name] > 1, f"{name!r} is in {places[content]} places"
        self._assert_results_are_apart()

    def _assert_results_are_apart(self) -> None:
        """On a disk that is blind to case, too."""
        paths = (path.relative_to(self.layout.outbox) for path in self.layout.outbox.rglob("*"))
        results = [path for path in paths if path.parts[0] not in ("failed", ".voxspool") and path.suffix]
        files = [path for path in results if (self.layout.outbox / path).is_file()]
        assert len({folded(str(path)) for path in files}) == len(files)
        parts = {part for path in files for part in path.parts}
        assert all(len(part.encode()) <= MAX_NAME_BYTES for part in parts), parts
