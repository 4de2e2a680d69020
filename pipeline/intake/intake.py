"""From a settled file to jobs in the ledger: claim, parse, cascade, freeze.

Knows job files, defaults and voices; speaks nothing. Invariants: nothing is parsed into a job
before it is claimed; whatever is wrong with a file, it ends in `failed/` with the reason, or stays
in the inbox with a reason in the status.
"""

import contextlib
import os
import shutil
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline import crash
from pipeline.config import Config
from pipeline.errors import InputError, SpecError
from pipeline.files import ENVIRONMENT_ERRNOS, display, held_folder, stat_is_regular
from pipeline.intake.claim import (
    Gone,
    NotReady,
    below,
    end_if_complete,
    made_durable,
    put_back,
    put_back_orphan,
    take,
)
from pipeline.intake.freeze import Freezer, kind_of, read_yaml
from pipeline.intake.inbox import Dropped
from pipeline.intake.large import LARGE_BYTES, LargeTakes
from pipeline.intake.refused import refusal
from pipeline.intake.roots import Role, check_root
from pipeline.intake.settle import Fingerprint
from pipeline.jobs.job import (
    Drop,
    DropState,
    Job,
    JobSpec,
    JobState,
    Source,
    VoiceChoice,
    new_id,
)
from pipeline.jobs.settings import Settings
from pipeline.jobs.spec import (
    names_in_broken,
    parse_job_file,
)
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.naming import folded, safe_name
from pipeline.outbox import may_use, result_folder
from pipeline.results import Reservation

RETRY_SECONDS = 10.0
# Claimed with one commit: each costs the disk a flush, and workers wait for the same disk.
BATCH_FILES = 50
BATCH_BYTES = 64 * 2**20
"they are read while the rest of the daemon waits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one pass of the intake did."""

    drops: tuple[Drop, ...]
    waiting: Mapping[str, str]
    "why each settled file that was not taken still lies there, by relative path"
    rest: tuple[Dropped, ...] = ()
    "what was not looked at, for want of time"


class Intake:
    """Turns settled files into jobs."""

    def __init__(
        self,
        layout: Layout,
        ledger: Ledger,
        config: Config,
        *,
        clock: Callable[[], float],
        large: LargeTakes | None = None,
    ) -> None:
        self.large = large or LargeTakes(layout)
        "claims that take long; to be handed on to the next intake of these folders"
        self._layout = layout
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._freezer = Freezer(layout, config)
        self._missing_since: dict[str, float] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        self._named_by: dict[str, tuple[str, ...]] = {}
        self._reserved: dict[str, list[str]] = {}
        self._parts = ledger.parts_left()
        self._parsed: dict[tuple[str, Fingerprint], tuple[str, ...]] = {}

    # -- one pass ------------------------------------------------------------------------------

    def accept(
        self,
        settled: Sequence[Dropped],
        unsettled: frozenset[str] = frozenset(),
        *,
        budget_seconds: float = float("inf"),
    ) -> Taken:
        """Claim what can be claimed within the budget; the rest is handed back to be offered again.

        `unsettled`: relative paths that are still arriving. Raises EnvironmentFailure where the disk or
        the ledger gave up; `recover` then has to finish what this pass left half done.
        """
        with _told_as_environment(self._layout):
            return self._accept(settled, unsettled, budget_seconds)

    def _accept(self, settled: Sequence[Dropped], unsettled: frozenset[str], budget_seconds: float) -> Taken:
        now = self._clock()
        waiting = self._still_refused(settled, now)
        jobs = [dropped for dropped in settled if dropped.kind == "job"]
        references = self._references_of(jobs)
        wanted = Counter(name for names in references.values() for name in names)
        self._reserve(references)
        others = (dropped for dropped in settled if dropped.kind != "job")
        queue = deque(dropped for dropped in (*jobs, *others) if dropped.relative not in waiting)
        drops = self._taken_aside(waiting)
        deadline = now + budget_seconds
        while queue and self._clock() < deadline:
            batch = self._next_batch(queue, references, unsettled, waiting, deadline)
            members = references.get(batch[0].relative, ()) if len(batch) == 1 else ()
            # the last job file that names a file takes it away, those before copy it
            shared = frozenset(name for name in members if wanted[name] > 1)
            if self._send_aside(batch, members, shared):
                wanted.subtract(members)
                continue
            taken, refused, late = self._claim(batch, members, shared, deadline)
            drops += taken
            waiting.update(refused)
            queue.extendleft(reversed(late))
            if not refused:
                wanted.subtract(members)
        return Taken(drops=tuple(drops), waiting=waiting, rest=tuple(queue))

    def _send_aside(self, batch: Sequence[Dropped], members: Sequence[str], shared: frozenset[str]) -> bool:
        """Have a large claim made aside; False if this is none."""
        if len(batch) != 1:
            return False
        drop = self._planned(batch[0], members)
        if not self.large.is_large(drop, shared):
            return False
        self._ledger.plan_claim(drop)
        self.large.send(drop, shared)
        return True

    def _taken_aside(self, waiting: dict[str, str]) -> list[Drop]:
        """Take into the ledger what was claimed aside."""
        taken: list[Drop] = []
        for drop, outcome in self.large.back():
            if isinstance(outcome, tuple):
                digest, stamp = outcome
                taken.append(replace(drop, state=DropState.CLAIMED, sha256=digest, stamp=stamp))
                continue
            self._undo(drop)
            if isinstance(outcome, NotReady):
                waiting[drop.relative] = str(outcome)
                self._refused[drop.relative] = (self._clock() + RETRY_SECONDS, str(outcome))
        if taken:
            self._admit_all(taken)
        return taken

    def _next_batch(
        self,
        queue: deque[Dropped],
        references: Mapping[str, tuple[str, ...]],
        unsettled: frozenset[str],
        waiting: dict[str, str],
        deadline: float,
    ) -> list[Dropped]:
        """Files to claim with one commit; a job file that names others comes alone: it moves those too."""
        batch: list[Dropped] = []
        size_bytes = 0
        while queue and len(batch) < BATCH_FILES and size_bytes < BATCH_BYTES and self._clock() < deadline:
            members = references.get(queue[0].relative, ())
            alone = bool(members) or queue[0].fingerprint.size_bytes >= LARGE_BYTES
            if batch and alone:
                break
            dropped = queue.popleft()
            reason = self._why_not(dropped, members, unsettled, self._clock())
            if reason is not None:
                waiting[dropped.relative] = reason
                continue
            batch.append(dropped)
            size_bytes += dropped.fingerprint.size_bytes
            if alone:
                break
        return batch

    def _references_of(self, jobs: Sequence[Dropped]) -> dict[str, tuple[str, ...]]:
        """What each job file names; parsed once as long as the file stays as it is."""
        known = self._parsed
        self._parsed = {
            (dropped.relative, dropped.fingerprint): (
                known.get((dropped.relative, dropped.fingerprint)) or self._references(dropped)
            )
            for dropped in jobs
        }
        return {relative: names for (relative, _), names in self._parsed.items()}

    def _reserve(self, references: Mapping[str, tuple[str, ...]]) -> None:
        """Keep what a job file names for it, until the job file is gone from the inbox."""
        known = {**self._named_by, **references}
        self._named_by = {
            job: names
            for job, names in known.items()
            if names and (job in references or os.path.lexists(self._layout.inbox / job))
        }
        self._reserved = defaultdict(list)
        for job, names in self._named_by.items():
            for name in names:
                self._reserved[name].append(job)

    def _why_not(
        self, dropped: Dropped, members: Sequence[str], unsettled: frozenset[str], now: float
    ) -> str | None:
        """Why a settled file is not to be taken yet."""
        if reason := self.large.names().get(dropped.relative):
            return reason
        for job in self._reserved.get(dropped.relative, ()):
            if os.path.lexists(self._layout.inbox / job):
                state = "was taken" if self.is_part(dropped.relative) else "is not complete yet"
                return f"it belongs to {display(job)}, which {state}"
        return self._incomplete(dropped, members, unsettled, now) or self._bad_defaults(dropped)

    def _still_refused(self, settled: Sequence[Dropped], now: float) -> dict[str, str]:
        """Files that could not be taken are looked at again after a while, not at every scan."""
        present = {dropped.relative for dropped in settled}
        self._refused = {name: told for name, told in self._refused.items() if told[0] > now}
        return {name: reason for name, (_, reason) in self._refused.items() if name in present}

    def _references(self, dropped: Dropped) -> tuple[str, ...]:
        """Inbox-relative paths of the files that a job file names; of a broken one, those that are there."""
        inbox, folder = self._layout.inbox, PurePosixPath(dropped.relative).parent
        try:
            data = read_yaml(inbox, dropped.relative)
        except (SpecError, OSError):
            return ()  # told in full once it is claimed
        try:
            requests = parse_job_file(data, display(dropped.path.name))
        except SpecError:
            named = (_spelled(inbox, folder, name) for name in names_in_broken(data))
            return tuple(name for name in named if _is_file(inbox, name))
        names = dict.fromkeys(name for request in requests for name in request.references)
        return tuple(_spelled(inbox, folder, name) for name in names)

    def is_part(self, relative: str) -> bool:
        """Whether a job file that was taken and lies there still (`source: leave`) brought this file."""
        job = self._parts.get(relative)
        return job is not None and os.path.lexists(self._layout.inbox / job)

    def _incomplete(
        self, dropped: Dropped, members: Sequence[str], unsettled: frozenset[str], now: float
    ) -> str | None:
        """Which of its files a job file still waits for."""
        missing = [m for m in members if m in unsettled or not _lies_in(self._layout.inbox, m)]
        if not missing:
            self._missing_since.pop(dropped.relative, None)
            return None
        since = self._missing_since.setdefault(dropped.relative, now)
        if now - since >= self._config.intake.wait_for_parts_seconds:
            self._missing_since.pop(dropped.relative)
            return None  # claimed as it is; the missing file becomes its error
        return f"waiting for {', '.join(display(name) for name in missing)}"

    def _bad_defaults(self, dropped: Dropped) -> str | None:
        try:
            self._freezer.folder_layers(PurePosixPath(dropped.relative).parent)
        except SpecError as error:
            return f"the folder's defaults are wrong: {error.message}"
        return None

    # -- one batch -----------------------------------------------------------------------------

    def _claim(
        self, batch: Sequence[Dropped], members: Sequence[str], shared: frozenset[str], deadline: float
    ) -> tuple[list[Drop], dict[str, str], list[Dropped]]:
        """Take files into the ledger, and `members` with the first.

        Returns what was taken, why some could not be, and those for which there was no time.
        """
        planned = [self._planned(dropped, members) for dropped in batch]
        self._ledger.plan_claim(*planned)
        crash.point("claim.planned")
        taken: list[Drop] = []
        refused: dict[str, str] = {}
        undone: list[Drop] = []
        for drop in planned:
            if taken and self._clock() >= deadline:
                break
            try:
                digest, stamp = take(self._layout, drop, shared)
                crash.point("claim.proven")
                taken.append(replace(drop, state=DropState.CLAIMED, sha256=digest, stamp=stamp))
            except Gone:
                undone.append(drop)
            except NotReady as error:
                undone.append(drop)
                refused[drop.relative] = str(error)
                self._refused[drop.relative] = (self._clock() + RETRY_SECONDS, str(error))
        looked_at = len(taken) + len(undone)
        self._undo(*undone, *planned[looked_at:])
        self._admit_all(taken)
        return taken, refused, list(batch[looked_at:])

    def _admit_all(self, taken: Sequence[Drop]) -> None:
        """Claimed drops become jobs; the parts of those that are left where they are stay known."""
        self._admit(taken)
        for drop in taken:
            if drop.mode == "leave":
                others = {part: job for part, job in self._parts.items() if job != drop.relative}
                self._parts = others | dict.fromkeys(drop.members[1:], drop.relative)

    def _planned(self, dropped: Dropped, members: Sequence[str]) -> Drop:
        now = self._clock()
        mark = dropped.fingerprint
        return Drop(
            id=new_id(now),
            relative=dropped.relative,
            state=DropState.CLAIMING,
            mode=self._config.intake.source,
            members=(dropped.relative, *(name for name in members if _is_file(self._layout.inbox, name))),
            stamp=(mark.inode, mark.size_bytes, mark.mtime_ns, mark.ctime_ns),
            sha256="",
            claimed_at=now,
        )

    def _undo(self, *drops: Drop) -> None:
        for drop in drops:
            put_back(self._layout, drop)
            crash.point("undo.returned")
        if drops:
            self._ledger.forget_claim(*(drop.id for drop in drops))

    def _admit(self, drops: Sequence[Drop]) -> None:
        """Claimed drops become jobs, or failures with their reasons, in one commit."""
        made_durable(self._layout, drops)
        crash.point("claim.durable")
        left = list(drops)
        ended = []
        while left:
            # the disk is looked at with nothing locked; who lost a name to another meanwhile looks again
            prepared = [(drop, *self._jobs(drop)) for drop in left]
            # in an inbox that went away meanwhile every claimed file is missing, and every _defaults.yaml
            check_root(self._ledger, self._layout, Role.INBOX)
            with self._ledger.one_commit():
                left = [drop for drop, jobs, names in prepared if not self._ledger.submit(drop, jobs, names)]
            crash.point("claim.submitted")
            ended += [drop for drop, jobs, _ in prepared if all(job.state.ended for job in jobs)]
        for drop in ended:
            end_if_complete(self._layout, self._ledger, drop.id)

    def _jobs(self, drop: Drop) -> tuple[list[Job], list[Reservation]]:
        """The jobs of a claimed drop, and names that were free for their results when looked at."""
        jobs: list[Job] = []
        names: list[Reservation] = []
        try:
            for index, spec in enumerate(self._freezer.specs(drop)):
                name = self._name_for(drop, index, spec, names)
                jobs.append(_queued_job(drop, spec, name))
                names.append(name)
        except InputError as error:
            return [_failed_job(drop, error)], []
        return jobs, names

    def _name_for(self, drop: Drop, index: int, spec: JobSpec, taken: Sequence[Reservation]) -> Reservation:
        folder = result_folder(drop.folder)
        return self._ledger.results.look(
            folder,
            _wanted_stem(drop, spec),
            source=drop.relative,
            index=index,
            job_id=f"{drop.id}-{index + 1}",
            may_use=lambda candidate, earlier: may_use(self._layout, folder, candidate, earlier),
            but_not=frozenset(folded(name.stem) for name in taken),
        )

    # -- after a crash ---------------------------------------------------------------------------

    def recover(self) -> list[str]:
        """Finish what a crash interrupted; returns a sentence for each thing done.

        Raises EnvironmentFailure where the disk or the ledger does not let it; can be repeated.
        """
        with _told_as_environment(self._layout):
            return self._recover()

    def _recover(self) -> list[str]:
        claiming = (drop for drop in self._ledger.drops_in(DropState.CLAIMING) if drop.id not in self.large)
        told = [self._resume_claim(drop) for drop in claiming]
        told += [
            f"{display(drop.relative)}: its last move was finished"
            for drop in self._ledger.drops_in(DropState.CLAIMED)
            if end_if_complete(self._layout, self._ledger, drop.id)
        ]
        return [*told, *self._adopt_orphans()]

    def _resume_claim(self, drop: Drop) -> str:
        name = display(drop.relative)
        folder = self._layout.source_folder(drop.id, drop.mode)
        try:
            # who else names a part that was not taken yet is not known here: better to begin anew
            if not all(os.path.lexists(folder / below(drop, member)) for member in drop.members):
                raise NotReady("it was not claimed before the crash")
            if self.large.is_large(drop):
                self.large.send(drop)
                return f"{name}: its claim goes on"
            digest, stamp = take(self._layout, drop)
        except (Gone, NotReady):
            self._undo(drop)
            return f"{name}: its claim was undone"
        self._admit([replace(drop, state=DropState.CLAIMED, sha256=digest, stamp=stamp)])
        return f"{name}: its claim was finished"

    def _adopt_orphans(self) -> Iterator[str]:
        """Claimed folders that no ledger row knows (a lost state folder) go back into the inbox."""
        for folder in _subfolders(self._layout.claimed_root):
            if self._ledger.drop(folder.name) is None:
                for name in put_back_orphan(self._layout, folder):
                    yield f"{display(name)}: put back into the inbox, the ledger does not know it"
        for folder in _subfolders(self._layout.spool_root):
            if self._ledger.drop(folder.name) is None:
                shutil.rmtree(folder, ignore_errors=True)


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []


def _wanted_stem(drop: Drop, spec: JobSpec) -> str:
    return safe_name(spec.settings.output.name or PurePosixPath(drop.name).stem)


def _queued_job(drop: Drop, spec: JobSpec, name: Reservation) -> Job:
    wanted = _wanted_stem(drop, spec)
    if name.index == 0 and name.stem != wanted:
        taken = f"Called {name.stem}: {wanted} is another file's, or was changed by somebody."
        spec = replace(spec, warnings=(*spec.warnings, taken))
    return Job(
        id=name.job_id,
        drop_id=drop.id,
        index=name.index,
        state=JobState.QUEUED,
        priority=spec.settings.priority,
        folder=name.folder,
        stem=name.stem,
        spec=spec,
        source=_source_of(drop),
        submitted_at=drop.claimed_at,
    )


def _failed_job(drop: Drop, error: InputError) -> Job:
    """A drop that cannot even become a job still has one to tell of it."""
    return Job(
        id=f"{drop.id}-1",
        drop_id=drop.id,
        index=0,
        state=JobState.FAILED,
        priority="normal",
        folder=result_folder(drop.folder),
        stem="",
        spec=JobSpec(kind=kind_of(drop.name), settings=Settings(), voice=VoiceChoice(name="")),
        source=_source_of(drop),
        submitted_at=drop.claimed_at,
        error_code=error.code,
        error_message=_sentence(error, drop),
        error_hint=error.hint,
    )


def _source_of(drop: Drop) -> Source:
    return Source(name=display(drop.relative), sha256=drop.sha256, bytes=drop.stamp[1])


def _spelled(inbox: Path, folder: PurePosixPath, name: str) -> str:
    """The inbox-relative path of what a job file in `folder` names, in the disk's own Unicode form."""
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part if os.path.lexists(inbox / path / part) else _alike(inbox / path, part)
    return str(path)


def _alike(directory: Path, name: str) -> str:
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError:
        return name
    return next((other for other in names if unicodedata.normalize("NFC", other) == name), name)


def _lies_in(inbox: Path, relative: str) -> bool:
    """Whether something is there that no link leads to."""
    path = PurePosixPath(relative)
    try:
        with held_folder(inbox, path.parent) as folder:
            return os.path.lexists(folder / path.name)
    except OSError:
        return False


def _is_file(inbox: Path, relative: str) -> bool:
    """Whether a file is there that can be taken along; what is none stays, and the job says what it is."""
    path = PurePosixPath(relative)
    try:
        with held_folder(inbox, path.parent) as folder:
            return stat_is_regular(os.lstat(folder / path.name))
    except OSError as error:
        if error.errno in ENVIRONMENT_ERRNOS:
            raise
        return False


@contextlib.contextmanager
def _told_as_environment(layout: Layout) -> Iterator[None]:
    """What the disk refuses to us is not the fault of any one file."""
    try:
        yield
    except OSError as error:
        raise refusal(error, layout) from error


def _sentence(error: InputError, drop: Drop) -> str:
    name = display(drop.name)
    return error.message if name in error.message else f"{name}: {error.message}"
