"""Whether work can be done now, and what the daemon sees of that from moment to moment."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import Clock, a_job, submit

from pipeline.config import Config
from pipeline.database import RESERVE_PAGES
from pipeline.errors import EnvironmentFailure
from pipeline.intake import readiness
from pipeline.intake.aside import Aside
from pipeline.intake.readiness import LATE_SECONDS, LOOK_SECONDS, Machine, ready
from pipeline.intake.roots import Role, memory_key, open_root
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.space import MIN_FREE_FILES, Free


@pytest.fixture
def roots(layout: Layout, ledger: Ledger) -> dict[str, Path]:
    """State, inbox and outbox as the ledger remembers them."""
    for role in (Role.STATE, Role.INBOX, Role.OUTBOX):
        path = getattr(layout, role.value)
        marker = open_root(path, role).marker
        assert marker is not None
        ledger.set_meta(memory_key(role, path), marker.uuid)
    return {role: getattr(layout, role) for role in ("state", "inbox", "outbox")}


def everything(folder: Path) -> set[Path]:
    """All that lies there."""
    return {path for path in folder.rglob("*") if "ledger.db" not in path.name}


def test_a_machine_that_is_well_tells_its_room(
    config: Config, layout: Layout, ledger: Ledger, roots: dict[str, Path]
) -> None:
    """And nothing stays of what was tried but our own hidden folder."""
    before = everything(layout.inbox.parent)
    room = ready(config, layout, ledger)
    assert room.state_bytes > 0 and room.state_files > 0 and room.outbox_bytes > 0
    assert everything(layout.inbox.parent) - before == {
        layout.inbox / ".voxspool",
        layout.outbox / ".voxspool",
    }


def lose_mark(path: Path, _: pytest.MonkeyPatch) -> None:
    """The bare folder below a mount has none."""
    (path / ".voxspool-root").unlink()


def take_away(path: Path, _: pytest.MonkeyPatch) -> None:
    """Nothing is left in its place."""
    path.rename(path.with_name("away"))


def refuse_writing(number: int) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """What a root does that takes nothing."""

    def hurt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(folder: Path) -> None:
            if path in (folder, *folder.parents):
                raise OSError(number, os.strerror(number), str(folder))

        monkeypatch.setattr(readiness, "try_writing", fail)

    return hurt


def fill(free: Free) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """A disk with so much left."""

    def hurt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = readiness.look
        monkeypatch.setattr(readiness, "look", lambda asked: free if asked == path else real(asked))

    return hurt


FULL = fill(Free(bytes=1_000_000, files=10**6))
NO_INODES = fill(Free(bytes=10**12, files=MIN_FREE_FILES))


@pytest.mark.parametrize(
    ("role", "hurt", "said"),
    [
        *((role, lose_mark, "has lost its mark") for role in ("state", "inbox", "outbox")),
        *((role, take_away, "cannot be reached") for role in ("inbox", "outbox")),
        *((role, refuse_writing(errno.EROFS), "is read-only") for role in ("state", "inbox", "outbox")),
        *((role, refuse_writing(errno.EACCES), "is denied") for role in ("state", "inbox", "outbox")),
        *((role, refuse_writing(errno.EIO), "fails (Input/output error)") for role in ("state", "outbox")),
        *((role, refuse_writing(errno.EDQUOT), "quota") for role in ("state", "outbox")),
        *((role, FULL, "is full: 1 MB of it are left, and 64 MB are kept") for role in ("state", "outbox")),
        *((role, NO_INODES, "takes no more files") for role in ("state", "outbox")),
    ],
)
def test_what_keeps_all_work_from_being_done(
    config: Config,
    layout: Layout,
    ledger: Ledger,
    roots: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    hurt: Any,
    said: str,
) -> None:
    """Told with the name of the folder; nobody has to try a job for it."""
    hurt(roots[role], monkeypatch)
    with pytest.raises(EnvironmentFailure) as caught:
        ready(config, layout, ledger)
    assert said in caught.value.message and str(roots[role]) in caught.value.message and caught.value.hint


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_inbox_keeps_nobody_from_working(
    config: Config,
    layout: Layout,
    ledger: Ledger,
    roots: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """What was taken is put away by a rename."""
    refuse_writing(number)(roots["inbox"], monkeypatch)
    assert ready(config, layout, ledger).state_bytes > 0


def test_an_inbox_that_is_left_as_it_is_need_not_be_writable(
    config: Config, layout: Layout, ledger: Ledger, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`source: leave`, and no file of ours is tried there."""
    refuse_writing(errno.EROFS)(roots["inbox"], monkeypatch)
    leaves = config.model_copy(update={"intake": config.intake.model_copy(update={"source": "leave"})})
    assert ready(leaves, layout, ledger).state_bytes > 0
    assert not (layout.inbox / ".voxspool").exists()


# -- from moment to moment ------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    """A monotonic clock."""
    return Clock(1000.0)


@pytest.fixture
def machine(layout: Layout, ledger: Ledger, roots: dict[str, Path], clock: Clock) -> Machine:
    """The daemon's eye, well so far."""
    return Machine(layout, ledger, desk=Aside("machine"), clock=clock)


def test_it_tells_when_what_was_wrong_is_mended(
    config: Config, machine: Machine, roots: dict[str, Path], clock: Clock
) -> None:
    """Once, and looks again no more often than it may."""
    assert not machine.look(config) and machine.failure is None and machine.room is not None
    mark = roots["outbox"] / ".voxspool-root"
    mark.rename(roots["outbox"] / "aside")
    assert not machine.look(config) and machine.failure is None, "not yet"
    clock.now += LOOK_SECONDS
    assert not machine.look(config) and machine.failure is not None and machine.room is None
    (roots["outbox"] / "aside").rename(mark)
    clock.now += LOOK_SECONDS
    assert machine.look(config) and machine.failure is None and machine.room is not None
    clock.now += LOOK_SECONDS
    assert not machine.look(config)


def test_idle_disks_are_not_written_to(
    config: Config, machine: Machine, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only while a worker has said that something is wrong."""
    tried: list[Path] = []
    monkeypatch.setattr(readiness, "try_writing", tried.append)
    machine.look(config)
    assert tried == []
    ledger.set_meta("trouble", "The outbox is read-only.")
    clock.now += LOOK_SECONDS
    machine.look(config)
    assert len(tried) == 3


def test_since_when_it_is_well(
    config: Config, machine: Machine, roots: dict[str, Path], clock: Clock
) -> None:
    """Who did not hear of a worker since before then cannot blame it: a fault, and a disk that held us up."""
    start = clock.now
    clock.now += LOOK_SECONDS
    machine.look(config)
    assert machine.well_since == start
    clock.now += LATE_SECONDS + 1
    machine.look(config)
    assert machine.well_since == clock.now, "nobody looked for so long"
    mark = roots["inbox"] / ".voxspool-root"
    mark.rename(roots["inbox"] / "aside")
    clock.now += LOOK_SECONDS
    machine.look(config)
    assert machine.well_since == clock.now
    clock.now += LOOK_SECONDS
    machine.wait()
    assert machine.well_since == clock.now


def test_a_root_that_does_not_answer_holds_nobody_up(
    config: Config,
    machine: Machine,
    roots: dict[str, Path],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who looks is not waited for, nobody else is sent, and what he found counts when he is back."""
    answers, begun, asked = threading.Event(), threading.Event(), []

    def silent(path: Path, role: Role, uuid: str | None) -> None:
        asked.append(role)
        begun.set()
        assert answers.wait(10)

    monkeypatch.setattr(readiness, "check_mark", silent)
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.01)
    for _ in range(3):
        clock.now += LOOK_SECONDS
        assert not machine.look(config)
    assert begun.wait(10) and machine.room is None and machine.failure is None and len(asked) == 1
    answers.set()
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 10.0)
    assert not machine.look(config)
    assert machine.room is not None and len(asked) == 3


def test_before_the_first_start_there_is_nothing_to_look_at(
    config: Config, layout: Layout, ledger: Ledger, clock: Clock
) -> None:
    """The folders are made when they are first opened."""
    layout.outbox.rmdir()
    machine = Machine(layout, ledger, desk=Aside("machine"), clock=clock)
    assert not machine.look(config) and machine.failure is None


def test_the_ledger_s_reserve_is_kept_up(
    config: Config, machine: Machine, ledger: Ledger, clock: Clock
) -> None:
    """What a growing ledger has used of it is made anew while there is room."""

    def reserve() -> int:
        return ledger._db.number("PRAGMA freelist_count")

    machine.look(config)
    assert reserve() >= RESERVE_PAGES
    number = 0
    while reserve() >= RESERVE_PAGES // 2:
        number += 1
        submit(ledger, a_job(f"{number}-1", drop_id=str(number)))
    clock.now += readiness.RESERVE_SECONDS
    machine.look(config)
    assert reserve() >= RESERVE_PAGES - 2
