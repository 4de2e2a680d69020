"""From a settled file to jobs in the ledger: claim, parse, cascade, freeze.

Knows job files, defaults and voices; speaks nothing. Invariants: nothing is parsed into a job
before it is claimed; whatever is wrong with a file, it ends in `failed/` with the reason, or stays
in the inbox with a reason in the status.
"""

import json
import os
import shutil
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline.config import Config
from pipeline.errors import InputError, SpecError, VoxspoolError
from pipeline.files import display, open_regular
from pipeline.intake.claim import (
    Gone,
    NotReady,
    end_if_complete,
    finish_failed,
    put_back,
    take,
)
from pipeline.intake.ignore import DEFAULTS_NAMES
from pipeline.intake.inbox import Dropped
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
from pipeline.jobs.settings import Kind, Settings
from pipeline.jobs.spec import (
    TEXT_SUFFIXES,
    Request,
    as_set,
    cascade,
    complete,
    looks_like_clip,
    normalised,
    parse_defaults,
    parse_job_file,
    problems_of,
)
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.naming import safe_name
from pipeline.outbox import Failure, may_use, result_folder
from pipeline.strict_yaml import MAX_BYTES
from pipeline.voices import Library, LibraryVoice

RETRY_SECONDS = 10.0


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

    def __init__(self, layout: Layout, ledger: Ledger, config: Config, *, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._library = Library(layout.voices)
        self._missing_since: dict[str, float] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        self._reserved: dict[str, str] = {}
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

        `unsettled`: relative paths that are still arriving.
        """
        now = self._clock()
        waiting = self._still_refused(settled, now)
        files = [dropped for dropped in settled if dropped.relative not in waiting]
        jobs = [dropped for dropped in files if dropped.kind == "job"]
        references = self._references_of(jobs)
        shared = _named_twice(references.values())
        self._reserve(references)
        queue = deque([*jobs, *(dropped for dropped in files if dropped.kind != "job")])
        drops: list[Drop] = []
        while queue and self._clock() - now < budget_seconds:
            dropped = queue.popleft()
            members = references.get(dropped.relative, ())
            reason = self._why_not(dropped, members, unsettled, now)
            if reason is None:
                reason = self._claim(dropped, members, shared, drops)
            if reason is not None:
                waiting[dropped.relative] = reason
        return Taken(drops=tuple(drops), waiting=waiting, rest=tuple(queue))

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
        self._reserved = {
            name: job
            for name, job in self._reserved.items()
            if job not in references and os.path.lexists(self._layout.inbox / job)
        }
        self._reserved.update({name: job for job, names in references.items() for name in names})

    def _why_not(
        self, dropped: Dropped, members: Sequence[str], unsettled: frozenset[str], now: float
    ) -> str | None:
        """Why a settled file is not to be taken yet."""
        job = self._reserved.get(dropped.relative)
        if job is not None and os.path.lexists(self._layout.inbox / job):
            return f"it belongs to {display(job)}, which is not complete yet"
        return self._incomplete(dropped, members, unsettled, now) or self._bad_defaults(dropped)

    def _still_refused(self, settled: Sequence[Dropped], now: float) -> dict[str, str]:
        """Files that could not be taken are looked at again after a while, not at every scan."""
        present = {dropped.relative for dropped in settled}
        self._refused = {name: told for name, told in self._refused.items() if told[0] > now}
        return {name: reason for name, (_, reason) in self._refused.items() if name in present}

    def _references(self, dropped: Dropped) -> tuple[str, ...]:
        """Inbox-relative paths of the files that a job file names; none if it cannot be parsed."""
        folder = PurePosixPath(dropped.relative).parent
        try:
            requests = parse_job_file(_read(dropped.path), display(dropped.path.name))
        except (VoxspoolError, OSError):
            return ()  # told in full once it is claimed
        names = dict.fromkeys(name for request in requests for name in request.references)
        return tuple(str(folder / name) for name in names)

    def _incomplete(
        self, dropped: Dropped, members: Sequence[str], unsettled: frozenset[str], now: float
    ) -> str | None:
        """Which of its files a job file still waits for."""
        missing = [m for m in members if m in unsettled or not os.path.lexists(self._layout.inbox / m)]
        if not missing:
            self._missing_since.pop(dropped.relative, None)
            return None
        since = self._missing_since.setdefault(dropped.relative, now)
        if now - since > self._config.intake.wait_for_parts_seconds:
            self._missing_since.pop(dropped.relative)
            return None  # claimed as it is; the missing file becomes its error
        return f"waiting for {', '.join(display(name) for name in missing)}"

    def _bad_defaults(self, dropped: Dropped) -> str | None:
        try:
            self._folder_layers(PurePosixPath(dropped.relative).parent)
        except SpecError as error:
            return f"the folder's defaults are wrong: {error.message}"
        return None

    # -- one drop ------------------------------------------------------------------------------

    def _claim(
        self, dropped: Dropped, members: Sequence[str], shared: frozenset[str], drops: list[Drop]
    ) -> str | None:
        """Take one file into the ledger; returns why it could not be taken, if so."""
        now = self._clock()
        present = [m for m in members if os.path.lexists(self._layout.inbox / m)]
        mark = dropped.fingerprint
        drop = Drop(
            id=new_id(now),
            relative=dropped.relative,
            state=DropState.CLAIMING,
            mode=self._config.intake.source,
            members=(dropped.relative, *present),
            stamp=(mark.inode, mark.size_bytes, mark.mtime_ns, mark.ctime_ns),
            sha256="",
            claimed_at=now,
        )
        self._ledger.plan_claim(drop)
        try:
            digest, stamp = take(self._layout, drop, shared)
        except Gone:
            put_back(self._layout, drop)
            self._ledger.forget_claim(drop.id)
            return None
        except NotReady as error:
            put_back(self._layout, drop)
            self._ledger.forget_claim(drop.id)
            self._refused[dropped.relative] = (now + RETRY_SECONDS, str(error))
            return str(error)
        drop = replace(drop, state=DropState.CLAIMED, sha256=digest, stamp=stamp)
        self._admit(drop)
        drops.append(drop)
        return None

    def _admit(self, drop: Drop) -> None:
        """A claimed drop becomes jobs, or a failure with its reason."""
        try:
            specs = list(self._specs(drop))
        except InputError as error:
            self._ledger.submit(drop, [])
            failure = Failure(
                job_id="", code=error.code, message=_sentence(error, drop), hint=error.hint, index=0
            )
            state, location = finish_failed(self._layout, drop, [failure])
            self._ledger.end_drop(drop.id, state, location)
            return
        self._ledger.submit(drop, [self._job(drop, index, spec) for index, spec in enumerate(specs)])

    def _specs(self, drop: Drop) -> Iterator[JobSpec]:
        folder = self._layout.source_folder(drop.id, drop.mode)
        kind = PurePosixPath(drop.relative).suffix.lower()
        layers = self._folder_layers(drop.folder)
        for request in _requests(folder / drop.name, kind):
            for name in request.references:
                _require(folder / name, name)
            yield self._freeze(request, layers, folder)

    def _freeze(self, request: Request, layers: Sequence[Settings], folder: Path) -> JobSpec:
        """The cascade: job file, voice, folders upward, configuration."""
        below = (*layers, self._config.defaults)
        named = cascade(request.settings, *below).voice
        library_voice = self._library_voice(named)
        own = (library_voice.defaults,) if library_voice else ()
        settings = cascade(request.settings, *own, *below)
        problems = problems_of(settings)
        if problems:
            raise InputError(" ".join(problems), code="settings", hint="Mend these settings.")
        # a conversion needs the recording itself, never an engine's stand-in for it
        user = "conversion" if request.kind == "vc" else settings.engine
        voice = self._voice(named if request.kind != "concat" else None, library_voice, user, folder)
        seed = settings.seed or _seed_for(settings, voice)
        settings = complete(settings.model_copy(update={"seed": seed, "voice": named}))
        return JobSpec(
            kind=request.kind,
            settings=settings,
            voice=voice,
            text=request.text,
            file=request.file,
            parts=request.parts,
            crossfade_ms=request.crossfade_ms,
            level=request.level,
            synthesis_set=tuple(as_set(cascade(request.settings, *own, *layers)).get("synthesis", {})),
        )

    def _library_voice(self, named: str | None) -> LibraryVoice | None:
        return None if named is None or looks_like_clip(named) else self._library.find(named)

    def _voice(
        self, named: str | None, library_voice: LibraryVoice | None, user: str, folder: Path
    ) -> VoiceChoice:
        if named is None and user == "conversion":
            raise InputError(
                "A recording was dropped, but no voice is set for it to be converted to.",
                code="voice_missing",
                hint="Put `voice: NAME` into a _defaults.yaml in its folder; NAME.wav is in voices/.",
            )
        if named is None:
            return VoiceChoice(name="")
        if library_voice is not None:
            return self._library.choice(library_voice, user)
        if looks_like_clip(named):
            clip = _require(folder / normalised(named), named)
            return VoiceChoice(name=named, clip=str(clip), clip_sha256=self._library.hash_of(clip))
        if user != "espeak":
            near = self._library.nearest(named)
            raise InputError(
                f"There is no voice {named} in the voices folder.",
                code="voice_unknown",
                hint=f"Did you mean {near[0]}?" if near else f"Put {named}.wav into the voices folder.",
            )
        return VoiceChoice(name=named)

    def _job(self, drop: Drop, index: int, spec: JobSpec) -> Job:
        job_id = f"{drop.id}-{index + 1}"
        folder = result_folder(drop.folder)
        wanted = spec.settings.output.name or PurePosixPath(drop.name).stem
        stem = self._ledger.plan_result(
            folder,
            safe_name(wanted),
            source=drop.relative,
            index=index,
            job_id=job_id,
            may_use=lambda candidate, earlier: may_use(self._layout, folder, candidate, earlier),
        )
        return Job(
            id=job_id,
            drop_id=drop.id,
            index=index,
            state=JobState.QUEUED,
            priority=spec.settings.priority,
            folder=folder,
            stem=stem,
            spec=spec,
            source=Source(name=display(drop.relative), sha256=drop.sha256, bytes=drop.stamp[1]),
            submitted_at=drop.claimed_at,
        )

    def _folder_layers(self, folder: PurePosixPath) -> tuple[Settings, ...]:
        """`_defaults.yaml` of the folder and of each above it, nearest first."""
        layers = []
        for place in (folder, *folder.parents):
            for name in DEFAULTS_NAMES:
                path = self._layout.inbox / place / name
                if os.path.lexists(path):
                    layers.append(_defaults(path, str(place / name)))
        return tuple(layers)

    # -- after a crash ---------------------------------------------------------------------------

    def recover(self) -> list[str]:
        """Finish what a crash interrupted; returns a sentence for each thing done."""
        told = [self._resume_claim(drop) for drop in self._ledger.drops_in(DropState.CLAIMING)]
        for drop in self._ledger.drops_in(DropState.CLAIMED):
            if not self._ledger.jobs_of(drop.id):
                self._admit(drop)
                told.append(f"{display(drop.relative)}: admitted again")
            elif end_if_complete(self._layout, self._ledger, drop.id):
                told.append(f"{display(drop.relative)}: its last move was finished")
        return [*told, *self._adopt_orphans()]

    def _resume_claim(self, drop: Drop) -> str:
        name = display(drop.relative)
        own = self._layout.source_folder(drop.id, drop.mode) / drop.name
        try:
            if drop.mode != "leave" and not os.path.lexists(own):
                raise NotReady("it was not claimed before the crash")
            digest, stamp = take(self._layout, drop)
        except (Gone, NotReady):
            put_back(self._layout, drop)
            self._ledger.forget_claim(drop.id)
            return f"{name}: its claim was undone"
        self._admit(replace(drop, state=DropState.CLAIMED, sha256=digest, stamp=stamp))
        return f"{name}: its claim was finished"

    def _adopt_orphans(self) -> Iterator[str]:
        """Claimed folders that no ledger row knows (a lost state folder) go back into the inbox."""
        for folder in _subfolders(self._layout.claimed_root):
            if self._ledger.drop(folder.name) is None:
                for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                    orphan = _orphan(folder.name, str(path.relative_to(folder)))
                    put_back(self._layout, orphan)
                    yield f"{display(path.name)}: put back into the inbox, the ledger does not know it"
        for folder in _subfolders(self._layout.state / "spool"):
            if self._ledger.drop(folder.name) is None:
                shutil.rmtree(folder, ignore_errors=True)


def _orphan(drop_id: str, relative: str) -> Drop:
    return Drop(
        id=drop_id,
        relative=relative,
        state=DropState.CLAIMING,
        mode="move",
        members=(relative,),
        stamp=(0, 0, 0, 0),
        sha256="",
        claimed_at=0.0,
    )


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []


def _requests(path: Path, suffix: str) -> tuple[Request, ...]:
    """What a claimed file asks for."""
    if suffix in (".yaml", ".yml"):
        return parse_job_file(_read(path), display(path.name))
    kind: Kind = "tts" if suffix in TEXT_SUFFIXES else "vc"
    return (Request(kind=kind, settings=Settings(), file=path.name),)


def _read(path: Path) -> bytes:
    with open_regular(path) as stream:
        return stream.read(MAX_BYTES + 1)


def _require(path: Path, name: str) -> Path:
    """A file that a job names; it may not be a link to somewhere else."""
    try:
        with open_regular(path):
            return path
    except FileNotFoundError as error:
        raise InputError(
            f"The job names {display(name)}, which did not arrive.",
            code="part_missing",
            hint="Drop both together. A clip that many jobs use belongs into the voices folder.",
        ) from error
    except OSError as error:
        raise InputError(
            f"The job names {display(name)}, which cannot be read: {error.strerror}.",
            code="part_unreadable",
            hint="It must be an ordinary file, not a link.",
        ) from error


def _defaults(path: Path, name: str) -> Settings:
    try:
        return parse_defaults(_read(path), display(name))
    except OSError as error:
        raise SpecError(f"{display(name)} cannot be read: {error.strerror}.") from error


def _named_twice(references: Iterable[tuple[str, ...]]) -> frozenset[str]:
    counts = Counter(name for names in references for name in names)
    return frozenset(name for name, count in counts.items() if count > 1)


def _seed_for(settings: Settings, voice: VoiceChoice) -> int:
    """The seed for `seed: 0`: the same engine and voice get the same one, so that the cache can serve."""
    facts = [settings.engine, settings.language, voice.name, voice.clip_sha256]
    return zlib.crc32(json.dumps(facts).encode()) or 1


def _sentence(error: InputError, drop: Drop) -> str:
    name = display(drop.name)
    return error.message if name in error.message else f"{name}: {error.message}"
