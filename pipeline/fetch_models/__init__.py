"""`fetch-models`: bring a model's files, whole or not at all, and remember which revision they are.

One page a step: `sources` (what there is), `remote` (what the server has), `transfer` (one file), `record`
(what was brought), `progress` (how it is shown). Only `daemon.py fetch-models` comes here: daemon and workers
read the files and never the network. Invariants: under a file's own name lies only what was verified; a file
brought by hand is never touched; a model stays at its revision until somebody asks for another.
"""

import datetime
import errno
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table
from rich.text import Text

from pipeline.config import Config
from pipeline.errors import EnvironmentFailure, InputError
from pipeline.fetch_models import record as records
from pipeline.fetch_models.record import Entry, Record
from pipeline.fetch_models.remote import Listing, look_up, not_installed
from pipeline.fetch_models.sources import Model, known, named, needed
from pipeline.fetch_models.transfer import Patience, Remote, bring, failed, new_client
from pipeline.files import display, exclusive_lock, fsync_dir, shown_size

__all__ = [
    "Model",
    "Seen",
    "Shown",
    "Wish",
    "begun",
    "fetch",
    "known",
    "look_at",
    "named",
    "needed",
    "nothing_needed",
    "table",
    "verify",
]

INCOMING = ".incoming"
"where files lie until they are whole; in the model's own folder, so that a rename brings them to their place"
LOCK = ".fetch.lock"
KEPT_FREE_BYTES = 100_000_000
_REVISION_CHARS = 12


class Shown(Protocol):
    """Who watches."""

    def tell(self, sentence: str) -> None:
        """Something that stays on the screen."""

    def moved(self, name: str, there: int, size: int | None) -> None:
        """So many bytes of the file `name` are there, or were looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which revision is wanted; without a wish the one that is there, or the newest at the first time."""

    revision: str | None = None
    update: bool = False

    @property
    def moves(self) -> bool:
        """Whether the hub is asked even if everything is well."""
        return self.update or self.revision is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A model as it lies there, without a look into the files."""

    model: Model
    missing: tuple[str, ...]
    record: Record | None

    @property
    def state(self) -> str:
        """In a few words."""
        if not begun(self.model):
            return "not there"
        if self.missing:
            return f"not whole: {', '.join(self.missing)} missing"
        return "there" if self.record else "there, brought by hand"


def begun(model: Model) -> bool:
    """Whether anything of it is there, or was."""
    return any((model.folder / name).exists() for name in (*model.files, model.record))


def look_at(model: Model) -> Seen:
    """What of a model is there."""
    return Seen(model=model, missing=tuple(model.missing()), record=records.read(model))


def table(models: Iterable[Model]) -> Table:
    """Every model with what of it is there, for people."""
    shown = Table(box=None, pad_edge=False, header_style="")
    for heading in ("model", "state", "size", "revision", "from"):
        shown.add_column(heading, overflow="fold", no_wrap=heading == "model")
    for model in models:
        try:
            state, record = (seen := look_at(model)).state, seen.record
        except InputError as error:
            state, record = error.in_full, None
        size = shown_size(sum(entry.bytes for entry in record.files)) if record else ""
        revision = record.revision[:_REVISION_CHARS] if record else ""
        shown.add_row(*(Text(cell) for cell in (model.name, state, size, revision, model.origin)))
    return shown


def nothing_needed(config: Config) -> str:
    """Why nothing is fetched, where nothing is named and everything is embedded."""
    engine = config.defaults.engine
    return (
        f"The engine {engine}, which the configuration makes the default, is embedded like its recogniser:"
        f" there is nothing to fetch. These can be named: {', '.join(model.name for model in known(config))}."
    )


def verify(model: Model, shown: Shown) -> bool:
    """Read every file that was fetched and compare its hash; asks nobody. False if something is wrong."""
    record = records.read(model)
    if record is None:
        shown.tell(_without_record(model))
        return not model.missing()
    wrong = _wrong(record, model, shown)
    for name, what in wrong.items():
        shown.tell(f"{model.name}: {name} {what}.")
    ours = {entry.name for entry in record.files}
    absent = [name for name in model.missing() if name not in ours]
    if absent:
        shown.tell(f"{model.name}: {', '.join(absent)} missing.")
    if not wrong and not absent:
        shown.tell(f"{model.name} is whole: {_described(record)}.")
    return not wrong and not absent


def _without_record(model: Model) -> str:
    absent = model.missing()
    if len(absent) == len(model.files):
        return f"{model.name} is not there."
    state = f"{', '.join(absent)} missing" if absent else "nothing to compare it with"
    return f"{model.name} was brought by hand (no {model.record} in {display(model.folder)}): {state}."


def fetch(
    model: Model,
    wish: Wish,
    shown: Shown,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.time,
) -> None:
    """Bring what is missing or damaged of `model`; raises InputError or EnvironmentFailure.

    Without a wish for another revision nobody is asked where everything is as it was fetched.
    """
    if wish.revision and model.web is not None:
        raise InputError(f"{model.name} has no revisions: it is one file.", code="model_revision")
    try:
        _fetch(model, wish, _Fetching(shown=shown, sleep=sleep, now=now))
    except OSError as error:
        where = f" ({display(error.filename)})" if error.filename else ""
        raise EnvironmentFailure(
            f"{model.name} cannot be written to {display(model.folder)}: {error.strerror or error}{where}.",
            hint="See to it that there is room and that this user may write there.",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetching:
    """What goes along."""

    shown: Shown
    sleep: Callable[[float], None]
    now: Callable[[], float]

    @property
    def patience(self) -> Patience:
        """For everything that is asked of a server."""
        return Patience(sleep=self.sleep, tell=self.shown.tell)

    @property
    def moment(self) -> str:
        """Now, as records have it."""
        return datetime.datetime.fromtimestamp(self.now(), datetime.UTC).isoformat(timespec="seconds")


def _fetch(model: Model, wish: Wish, fetching: _Fetching) -> None:
    shown, record = fetching.shown, records.read(model)
    if record is None and not model.missing():
        _leave_alone(model, fetching)
        return
    wrong = _wrong(record, model, shown) if record else {}
    if record and not wrong and not wish.moves and not model.missing():
        shown.tell(f"{model.name} is whole: {_described(record)}.")
        return
    for name, what in wrong.items():
        shown.tell(f"{model.name}: {name} {what}; it is fetched again.")
    model.folder.mkdir(parents=True, exist_ok=True)
    with _alone(model.folder.parent), _client() as client:
        asked = wish.revision or (record.revision if record and not wish.update else None)
        listing = look_up(model, asked, client, fetching.patience)
        _demand_all(model, listing)
        sound = {entry.name: entry for entry in record.files if entry.name not in wrong} if record else {}
        _bring_all(model, record, sound, listing, client, fetching)


def _leave_alone(model: Model, fetching: _Fetching) -> None:
    """It was brought by hand: what can be told of it without asking anybody."""
    if model.web is None:
        fetching.shown.tell(f"{_without_record(model)} It is left alone.")
        return
    (name,) = model.files
    found = _same(
        Remote(name=name, url="", bytes=None, sha256=model.web.sha256), model.folder / name, fetching.shown
    )
    if found is None:
        fetching.shown.tell(
            f"{model.name}: {display(model.folder / name)} was brought by hand and is not the file at"
            f" {model.web.url}. It is left alone; delete it, and that one is fetched."
        )
        return
    repository, revision = model.web.url.rpartition("/")[0], model.web.sha256
    record = Record(repository=repository, revision=revision, files=(found,), fetched_at=fetching.moment)
    records.write(model, record)
    fetching.shown.tell(f"{model.name} is whole: brought by hand, and the very file at {model.web.url}.")


def _wrong(record: Record, model: Model, shown: Shown) -> dict[str, str]:
    """Which of the fetched files are not what they were, and why."""
    found = {}
    for entry in record.files:
        looked = _looking(shown, entry.name, entry.bytes)
        if what := records.what_is_wrong(entry, model.folder, looked):
            found[entry.name] = what
    return found


def _looking(shown: Shown, name: str, size: int) -> Callable[[int], None]:
    return lambda seen: shown.moved(name, seen, size)


def _described(record: Record) -> str:
    return f"{record.repository} at {record.revision}, fetched {record.fetched_at}"


@contextmanager
def _alone(models: Path) -> Iterator[None]:
    with exclusive_lock(models / LOCK) as alone:
        if not alone:
            raise EnvironmentFailure(
                f"Models are being fetched into {display(models)} already.", hint="Wait until that has ended."
            )
        yield


@contextmanager
def _client() -> Iterator[Any]:
    try:
        client = new_client()
    except ImportError as error:
        raise not_installed("httpx") from error
    with client:
        yield client


def _demand_all(model: Model, listing: Listing) -> None:
    there = {remote.name for remote in listing.files}
    absent = [name for name in model.files if name not in there and not (model.folder / name).is_file()]
    if absent:
        raise InputError(
            f"{listing.repository} at {listing.revision} lacks {', '.join(absent)}: {model.name} needs it.",
            code="model_revision",
            hint="Choose another revision with --revision, or a newer Voxspool.",
        )
    silent = [remote.name for remote in listing.files if not (remote.sha256 or remote.blob)]
    if silent:
        raise failed(f"{listing.repository} tells no hash of {', '.join(silent)}, so it cannot be verified.")


def _bring_all(
    model: Model,
    record: Record | None,
    sound: Mapping[str, Entry],
    listing: Listing,
    client: Any,
    fetching: _Fetching,
) -> None:
    """All of it beside; then the record, which says what must be there; then each to its place."""
    incoming = _incoming(model, listing.revision)
    kept, wanted = _sorted_out(model, record, sound, listing, fetching.shown)
    _demand_room(model.folder, incoming, wanted)
    if wanted:
        fetching.shown.tell(_announced(model, wanted, listing))
    brought = []
    for remote in wanted:
        place = incoming / remote.name
        digest = bring(remote, place, client, fetching.shown.moved, fetching.patience)
        brought.append(Entry(name=remote.name, bytes=place.stat().st_size, sha256=digest))
    made = Record(
        repository=listing.repository,
        revision=listing.revision,
        files=tuple(sorted((*kept, *brought), key=lambda entry: model.every_file.index(entry.name))),
        fetched_at=fetching.moment,
    )
    _put_in_place(model, record, made, incoming, [entry.name for entry in brought])
    fetching.shown.tell(f"{model.name} is whole: {_described(made)}.")


def _announced(model: Model, wanted: list[Remote], listing: Listing) -> str:
    files = "1 file" if len(wanted) == 1 else f"{len(wanted)} files"
    size = shown_size(sum(remote.bytes or 0 for remote in wanted))
    return f"{model.name}: {files}, {size}, from {listing.repository} at {listing.revision}."


def _sorted_out(
    model: Model, record: Record | None, sound: Mapping[str, Entry], listing: Listing, shown: Shown
) -> tuple[list[Entry], list[Remote]]:
    """What is there as the server has it, and what is to be brought; what was brought by hand is neither."""
    kept, wanted = [], []
    for remote in listing.files:
        path = model.folder / remote.name
        known_as = sound.get(remote.name)
        if not path.is_file():
            wanted.append(remote)
        elif known_as is not None and known_as.sha256 == remote.sha256:
            kept.append(known_as)
        elif found := _same(remote, path, shown):
            kept.append(found)
        elif record is not None and record.entry(remote.name) is not None:
            wanted.append(remote)
        else:
            shown.tell(
                f"{model.name}: {remote.name} was brought by hand and is not the one of {listing.repository}"
                f" at {listing.revision}. It is left alone; delete it, and it is fetched."
            )
    return kept, wanted


def _same(remote: Remote, path: Path, shown: Shown) -> Entry | None:
    """The file as an entry, if it is what the server has."""
    size = path.stat().st_size
    if remote.bytes is not None and remote.bytes != size:
        return None
    looked = _looking(shown, remote.name, size)
    digest = records.sha256_of(path, looked)
    same = digest == remote.sha256 if remote.sha256 else records.blob_of(path, looked) == remote.blob
    return Entry(name=remote.name, bytes=size, sha256=digest) if same else None


def _incoming(model: Model, revision: str) -> Path:
    """The folder for half files of this revision; what was begun of others is given up."""
    folder = model.folder / INCOMING
    mine = f"{model.name}-{revision[:_REVISION_CHARS]}"
    (folder / mine).mkdir(parents=True, exist_ok=True)
    for other in folder.iterdir():
        if other.name != mine and re.fullmatch(
            rf"{re.escape(model.name)}-\w{{1,{_REVISION_CHARS}}}", other.name
        ):
            shutil.rmtree(other)
    return folder / mine


def _demand_room(folder: Path, incoming: Path, wanted: list[Remote]) -> None:
    have = sum(path.stat().st_size for path in incoming.iterdir())
    need = sum(remote.bytes or 0 for remote in wanted) - have
    free = shutil.disk_usage(folder).free
    if need > 0 and need + KEPT_FREE_BYTES > free:
        raise EnvironmentFailure(
            f"{shown_size(need)} are to be fetched, and {shown_size(free)} are free in {display(folder)}.",
            hint=f"Make room, {shown_size(KEPT_FREE_BYTES)} to spare, or set models.folder to another disk.",
            code="model_room",
        )


def _put_in_place(
    model: Model, before: Record | None, made: Record, incoming: Path, names: list[str]
) -> None:
    """The record first: after a crash between any two renames it says what is still to be put right."""
    try:
        records.write(model, made)
        for name in names:
            (incoming / name).replace(model.folder / name)
        for entry in before.files if before else ():
            if made.entry(entry.name) is None:  # the new revision has it no more
                (model.folder / entry.name).unlink(missing_ok=True)
        fsync_dir(model.folder)
        shutil.rmtree(incoming)
        incoming.parent.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another model's half files lie there
            raise
