"""Pruning as it is done: look at what is there, ask `retention` for a plan, carry it out.

Knows the ledger, the clock and the disk (`stock` says what there is, `guards` what stands in the way).
Invariants: each file is looked at again right before it goes; a result's manifest goes first, so that no
reader takes half a result for whole.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.config import Retention
from pipeline.errors import EnvironmentFailure
from pipeline.files import display, exclusive_lock, shown_size
from pipeline.guards import Guards, inside
from pipeline.jobs.job import DropState
from pipeline.layout import HIDDEN, Layout
from pipeline.ledger import Ledger
from pipeline.retention import Doubt, Going, Plan, Pool, Seen, Spared, Unit, history_before, judge_clock, plan
from pipeline.stock import left_of, survey
from pipeline.synced import missing_ignores, sync_mark
from pipeline.tallies import Tally

CLOCK_FACT = "prune_clock"
DOUBT_FACT = "prune_clock_doubt"
NOTES_FACT, DONE_FACT = "prune_notes", "prune_done"
FORGET_AT_ONCE = 50
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What pruning did."""

    removed: tuple[Going, ...] = ()
    kept: tuple[Spared, ...] = ()
    "was to go, but something came between"
    forgotten: int = 0
    "drops that the ledger knew"

    @property
    def bytes(self) -> int:
        """What was freed."""
        return sum(item.unit.bytes for item in self.removed)

    @property
    def told(self) -> str:
        """What was done, for people."""
        forgotten = f" {self.forgotten} dropped files were forgotten." if self.forgotten else ""
        return f"{len(self.removed)} removed, {shown_size(self.bytes)} freed.{forgotten}"


def rehearse(
    ledger: Ledger,
    layout: Layout,
    rules: Retention,
    *,
    clock: Callable[[], Seen] | None = None,
    more_than_half: bool = False,
) -> Plan:
    """What `apply` would do now. Remembers the clock, changes nothing else."""
    now = (clock or look_at_clock)()
    problem = _clock_problem(ledger, now, rules.keep_hours)
    if problem:
        return Plan(refused=tuple((pool, problem) for pool in Pool))
    guards = Guards(ledger, layout)
    stock = [unit for unit in survey(ledger, layout) if not guards.lost(unit)]
    made = plan(
        [unit for unit in stock if unit.pieces or unit.pool is Pool.WORK],
        rules,
        now.wall,
        obstacle=guards.obstacle,
        report_only={} if rules.deletes_propagate == "accepted" else synced_pools(layout),
        more_than_half=more_than_half,
    )
    made = replace(made, refused=(*guards.refused, *made.refused))
    if guards.refused:
        return made  # what cannot be looked at may still be there
    newest = ledger.history.moment_of_newest(rules.history_max_jobs)
    before = history_before(now.wall, rules, newest)
    taken_away = (unit for unit in stock if unit.pool is Pool.RESULTS and not unit.pieces)
    return replace(
        made,
        lost=tuple(unit for unit in taken_away if unit.moment < before and not unit.busy),
        forgotten=tuple(one.drop_id for one in ledger.history.before(before) if not left_of(one, layout)),
    )


def _clock_problem(ledger: Ledger, now: Seen, keep_hours: float) -> str:
    """Why the clock is not believed; remembers what it says."""
    problem, left = judged_by_ledger(ledger, now, keep_hours)
    ledger.set_meta(CLOCK_FACT, json.dumps(asdict(now)))
    ledger.set_meta(DOUBT_FACT, json.dumps(asdict(left)) if left else "")
    return problem


def judged_by_ledger(ledger: Ledger, now: Seen, keep_hours: float) -> tuple[str, Doubt | None]:
    """What `judge_clock` says against what the ledger remembers; nothing new is remembered."""
    last, doubt = ledger.meta(CLOCK_FACT), ledger.meta(DOUBT_FACT)
    return judge_clock(
        now,
        Seen(**json.loads(last)) if last else None,
        Doubt(**json.loads(doubt)) if doubt else None,
        keep_hours=keep_hours,
    )


def look_at_clock() -> Seen:
    """The machine's clocks."""
    boot = BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else "unknown"
    return Seen(wall=time.time(), uptime=time.clock_gettime(time.CLOCK_BOOTTIME), boot=boot)


def apply(
    made: Plan, ledger: Ledger, layout: Layout, *, stopped: Callable[[], bool] = lambda: False
) -> Outcome:
    """Carry out a plan, looking at everything once more. What cannot go is told, not raised.

    Ends early, between two things, when it is `stopped`; the next run goes on from there.
    """
    removed, kept = [], []
    guards, hands = Guards(ledger, layout), _Hands(ledger)
    for item in made.going:
        if stopped():
            break
        reason = guards.lost(item.unit) or _superseded(item.unit, ledger) or guards.obstacle(item.unit)
        reason = reason or hands.remove(item.unit)
        if reason:
            kept.append(Spared(unit=item.unit, reason=reason))
        else:
            removed.append(item)
    for unit in made.lost:
        hands.forget(unit)
    hands.finish()
    forgotten = 0 if stopped() else ledger.history.forget(made.forgotten)
    outcome = Outcome(removed=tuple(removed), kept=tuple(kept), forgotten=forgotten)
    if outcome.bytes:
        ledger.tallies.add(Tally.PRUNED_BYTES, outcome.bytes)
    return outcome


def prune(
    ledger: Ledger,
    layout: Layout,
    rules: Retention,
    *,
    more_than_half: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Plan, Outcome]:
    """Plan, carry out, and remember what there is to say of it. Raises EnvironmentFailure where that is
    being done already.
    """
    with exclusive_lock(layout.prune_lock) as alone:
        if not alone:
            raise EnvironmentFailure("Pruning is going on already.", hint="Wait until it has ended.")
        made = rehearse(ledger, layout, rules, more_than_half=more_than_half)
        outcome = apply(made, ledger, layout, stopped=stopped)
        ledger.set_meta(NOTES_FACT, json.dumps(made.notes))
        ledger.set_meta(DONE_FACT, outcome.told)
    return made, outcome


def last_notes(ledger: Ledger) -> tuple[str, ...]:
    """What one should know since the last pruning."""
    return tuple(json.loads(ledger.meta(NOTES_FACT) or "[]"))


# -- synced folders ----------------------------------------------------------------------------


def synced_pools(layout: Layout) -> dict[Pool, str]:
    """The pools whose deletions would spread to other machines, with what to do."""
    found = {}
    outbox, inbox = sync_mark(layout.outbox), sync_mark(layout.inbox)
    if outbox is not None:
        found[Pool.RESULTS] = _spreads(outbox)
    if inbox is not None and HIDDEN in missing_ignores(layout.inbox, inbox):
        found[Pool.SOURCES] = _spreads(inbox)
    return found


def _spreads(mark: Path) -> str:
    return (
        f"{display(mark)} says that this folder is synchronised, so deleting here deletes everywhere; set"
        " retention.deletes_propagate: accepted if that is wanted"
    )


def _superseded(unit: Unit, ledger: Ledger) -> str:
    """What the ledger says now that may differ from what it said when the plan was made."""
    if unit.pool is Pool.RESULTS:
        now = ledger.results.find(unit.folder, unit.stem)
        if now is None or (now.job_id, now.published_at) != (unit.key, unit.moment):
            return "a new version of it was made meanwhile"
    if unit.pool is Pool.SOURCES:
        drop = ledger.drop(unit.key)
        if drop is None or drop.state is not DropState.DONE or not drop.location:
            return "it was moved meanwhile"
    return ""


# -- removing ----------------------------------------------------------------------------------


class _Hands:
    """Removes, and tells the ledger: of results some at a time, since each commit waits for the disk."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._results: list[Unit] = []

    def remove(self, unit: Unit) -> str:
        """Remove a unit; returns why it cannot be, if so."""
        try:
            if unit.pool is Pool.SOURCES:
                self._remove_source(unit)
            elif unit.pool is Pool.WORK:
                _remove_folder(unit)
            else:
                _remove_pieces(unit)
        except OSError as error:
            return f"cannot be removed: {error.strerror}"
        if unit.pool is Pool.RESULTS:
            self.forget(unit)
        return ""

    def forget(self, unit: Unit) -> None:
        """A result is gone. After a crash before the ledger knows, somebody seems to have taken it away."""
        self._results.append(unit)
        if len(self._results) >= FORGET_AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Tell the ledger of all that is gone."""
        if self._results:
            self._ledger.results.forget_these(
                (unit.folder, unit.stem, unit.key, unit.moment) for unit in self._results
            )
            self._results.clear()

    def _remove_source(self, unit: Unit) -> None:
        """The ledger first: a folder that a crash leaves behind goes later, one that is missed looks lost."""
        drop = self._ledger.drop(unit.key)
        assert drop is not None
        self._ledger.end_drop(drop.id, DropState.DONE, "")
        try:
            _remove_folder(unit)
        except OSError:
            self._ledger.end_drop(drop.id, DropState.DONE, drop.location)
            raise


def _remove_folder(unit: Unit) -> None:
    with contextlib.suppress(FileNotFoundError), inside(unit.root, unit.folder.parent) as parent:
        shutil.rmtree(unit.folder.name, dir_fd=parent)


def _remove_pieces(unit: Unit) -> None:
    with inside(unit.root, unit.folder) as folder:
        for piece in unit.pieces:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(piece.name, dir_fd=folder)
