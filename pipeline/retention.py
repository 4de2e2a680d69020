"""What may be thrown away, and why; pure policy.

Takes a stock of things with their sizes and ages and the `retention` section; touches no disk and no
ledger (`prune` does). Invariants: what is planned to go is oldest first and whole; nothing that the
`obstacle` function objects to, none of the newest and nothing young is ever in the plan; more than
half of a root never goes at once unless somebody said so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath

from pipeline.config import Retention
from pipeline.files import shown_size

GB = 1_000_000_000
DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0
LONGEST_GAP_SECONDS = 24 * HOUR_SECONDS
CLOCK_DRIFT_SECONDS = 600.0
DOUBT_SECONDS = 24 * HOUR_SECONDS
"a clock that was set while the machine ran is not believed for at least so long"
UNLESS = "nothing of it is removed unless you say so with `prune --more-than-half`"
NEVER_MOST = "never more than half goes at once"
# Nothing was made before Voxspool was: a clock that says so is not set.
EARLIEST_CLOCK = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Pool(StrEnum):
    """The kinds of things that are pruned."""

    RESULTS = "results"
    "what stands in the outbox; a unit is a whole job: manifest, log, audio"
    SOURCES = "sources"
    "processed drops in the inbox's hidden done folder; a unit is a whole drop"
    WORK = "work"
    "left-over work folders of jobs that have ended"
    CACHE = "cache"
    "finished takes; ours alone and made again when missing, so neither young nor newest are spared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file of a unit, as it was when we made it."""

    name: PurePosixPath
    "relative to the unit's folder"
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What goes or stays as a whole."""

    pool: Pool
    key: str
    "job id, drop id or cache key"
    name: str
    "as it can be shown"
    root: Path
    "never left on the way to the files"
    folder: PurePosixPath
    "relative to the root"
    pieces: tuple[Piece, ...]
    "in the order in which they are to be removed"
    moment: float
    "when it was finished, or last used; seconds since the epoch"
    recording: bool = False
    "a source of voice conversion"
    stem: str = ""
    "of a result"
    busy: str = ""
    "why the ledger wants it kept"

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(piece.bytes for piece in self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """A unit that is to go."""

    unit: Unit
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spared:
    """A unit that would have to go, but must not."""

    unit: Unit
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes, what is spared, what a person should know."""

    going: tuple[Going, ...] = ()
    spared: tuple[Spared, ...] = ()
    refused: tuple[tuple[Pool, str], ...] = ()
    "what would have to go and does not, by pool, with the reason"
    warnings: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    "ids of drops of which nothing is left and which the ledger is to forget"
    lost: tuple[Unit, ...] = ()
    "results that somebody took away long ago and which it is to forget"

    @property
    def bytes(self) -> int:
        """What it frees."""
        return sum(item.unit.bytes for item in self.going)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, in sentences: the warnings, and what was refused."""
        pools: dict[str, list[str]] = {}
        for pool, reason in self.refused:
            pools.setdefault(reason, []).append(pool)
        refusals = (f"Pruning of {', '.join(names)}: {reason}." for reason, names in pools.items())
        return (*self.warnings, *refusals)


_OVER_CAP = {
    Pool.RESULTS: "the outbox is over its size cap",
    Pool.SOURCES: "the recordings are over their size cap",
    Pool.CACHE: "least recently used take, the cache is over its size cap",
}
Obstacle = Callable[[Unit], str]
"why a unit may not go (changed, open, marked); empty if it may"


def plan(
    stock: Sequence[Unit],
    rules: Retention,
    now: float,
    *,
    obstacle: Obstacle,
    report_only: dict[Pool, str] | None = None,
    more_than_half: bool = False,
) -> Plan:
    """What would go of `stock` at the moment `now` (seconds since the epoch).

    `report_only` names pools that may be measured but not pruned, with the reason.
    """
    pools = {pool: [unit for unit in stock if unit.pool is pool] for pool in Pool}
    wanted = _wanted(pools, rules, now, _Shield(stock, rules, now, obstacle), more_than_half)
    going: list[Going] = []
    spared: list[Spared] = []
    refused: list[tuple[Pool, str]] = []
    for pool, part in wanted:
        reason = (report_only or {}).get(pool, "") if part.going else part.refusal
        if not reason and not part.bounded and not more_than_half:
            before = [item for item in going if item.unit.pool is pool]
            reason = _too_much(part.going, before, pools[pool])
        if reason and (pool, reason) not in refused:
            refused.append((pool, reason))
        if reason:
            spared += [Spared(unit=i.unit, reason=f"{i.reason}, but see above") for i in part.going]
        else:
            going += part.going
        spared += part.spared
    made = Plan(going=tuple(going), spared=tuple(spared), refused=tuple(refused))
    cut = {pool for pool, part in wanted if part.cut} - {pool for pool, _ in refused}
    return replace(made, warnings=_warnings(pools[Pool.RESULTS], rules, made, cut))


def _wanted(
    pools: dict[Pool, list[Unit]], rules: Retention, now: float, shield: "_Shield", more_than_half: bool
) -> list[tuple[Pool, "_Part"]]:
    """What each rule by itself would have go."""
    half = {pool: None if more_than_half else _Half(pools[pool]) for pool in (Pool.RESULTS, Pool.SOURCES)}

    def over(pool: Pool, units: Sequence[Unit], cap_gb: float) -> _Part:
        return _over_cap(units, cap_gb * GB, shield, _OVER_CAP[pool], half.get(pool))

    recordings = over(Pool.SOURCES, [u for u in pools[Pool.SOURCES] if u.recording], rules.vc_inputs_max_gb)
    wanted = [
        (Pool.RESULTS, over(Pool.RESULTS, pools[Pool.RESULTS], rules.outbox_max_gb)),
        (Pool.SOURCES, recordings),
        (Pool.WORK, _work(pools[Pool.WORK], rules, now, shield)),
        (Pool.CACHE, over(Pool.CACHE, pools[Pool.CACHE], rules.cache_max_gb)),
    ]
    if rules.done_max_days is not None:
        seen = recordings.keys()
        rest = [unit for unit in pools[Pool.SOURCES] if unit.key not in seen]
        aged = _older_than(rest, rules.done_max_days, now, shield)
        aged.bounded = False
        wanted.insert(2, (Pool.SOURCES, aged))
    return wanted


@dataclass(slots=True)
class _Part:
    going: list[Going]
    spared: list[Spared]
    bounded: bool = True
    "no more goes than may go at once, however much there is to go"
    cut: bool = False
    "more would have to go, but not at once"
    refusal: str = ""
    "why nothing goes"

    def keys(self) -> set[str]:
        return {item.unit.key for item in self.going} | {item.unit.key for item in self.spared}


class _Shield:
    """Why a unit stays although it would have to go."""

    def __init__(self, stock: Sequence[Unit], rules: Retention, now: float, obstacle: Obstacle) -> None:
        self._rules, self._now, self._obstacle = rules, now, obstacle
        self._newest = {
            (unit.pool, unit.key)
            for pool in (Pool.RESULTS, Pool.SOURCES)
            for unit in _newest_first(u for u in stock if u.pool is pool)[: rules.keep_newest]
        }

    def reason(self, unit: Unit) -> str:
        """Empty if it may go."""
        if unit.busy:
            return unit.busy
        if (unit.pool, unit.key) in self._newest:
            return f"one of the newest {self._rules.keep_newest}"
        if unit.pool is not Pool.CACHE and self._now - unit.moment < self._rules.keep_hours * HOUR_SECONDS:
            return f"younger than {self._rules.keep_hours:g} h"
        return self._obstacle(unit)

    def sort(
        self,
        candidates: Iterable[tuple[Unit, str]],
        enough: Callable[[Unit], bool],
        half: "_Half | None" = None,
    ) -> _Part:
        """Take candidates in turn until `enough`, told of each that goes, says so, or `half` is full."""
        part = _Part([], [])
        for unit, why in candidates:
            if reason := self.reason(unit):
                part.spared.append(Spared(unit=unit, reason=reason))
                continue
            if half is not None and not half.takes(unit):
                part.cut = True
                part.refusal = "" if part.going else half.refusal(unit)
                break
            part.going.append(Going(unit=unit, reason=why))
            if enough(unit):
                break
        return part


class _Half:
    """How much of a pool may go at once: half of it, by size and by number."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._count, self._whole = len(units), sum(unit.bytes for unit in units)
        self._left, self._left_bytes = len(units) // 2, self._whole / 2

    def takes(self, unit: Unit) -> bool:
        """Whether this one may go too; counts it if so."""
        if self._left < 1 or unit.bytes > self._left_bytes:
            return False
        self._left -= 1
        self._left_bytes -= unit.bytes
        return True

    def refusal(self, unit: Unit) -> str:
        """Why not even the first goes."""
        return (
            f"{unit.name} ({shown_size(unit.bytes)}) comes first, and is more than half of all that there is"
            f" ({self._count}, {shown_size(self._whole)}); {UNLESS}"
        )


def _newest_first(units: Iterable[Unit]) -> list[Unit]:
    return sorted(units, key=lambda unit: (unit.moment, unit.key), reverse=True)


def _oldest_first(units: Iterable[Unit]) -> list[Unit]:
    return sorted(units, key=lambda unit: (unit.moment, unit.key))


def _over_cap(
    units: Sequence[Unit], cap_bytes: float, shield: _Shield, why: str, half: _Half | None = None
) -> _Part:
    over = sum(unit.bytes for unit in units) - cap_bytes
    if over <= 0:
        return _Part([], [])

    def enough(unit: Unit) -> bool:
        nonlocal over
        over -= unit.bytes
        return over <= 0

    return shield.sort(((unit, why) for unit in _oldest_first(units)), enough, half)


def _work(units: Sequence[Unit], rules: Retention, now: float, shield: _Shield) -> _Part:
    aged = _older_than(units, rules.work_max_days, now, shield)
    seen = aged.keys()
    over = sum(len(unit.pieces) for unit in units) - rules.work_max_files
    over -= sum(len(item.unit.pieces) for item in aged.going)
    if over <= 0:
        return aged

    def enough(unit: Unit) -> bool:
        nonlocal over
        over -= len(unit.pieces)
        return over <= 0

    why = f"more than {rules.work_max_files} left-over work files"
    rest = ((unit, why) for unit in _oldest_first(units) if unit.key not in seen)
    counted = shield.sort(rest, enough)
    return _Part(aged.going + counted.going, aged.spared + counted.spared)


def _older_than(units: Sequence[Unit], days: float, now: float, shield: _Shield) -> _Part:
    old = [unit for unit in _oldest_first(units) if now - unit.moment > days * DAY_SECONDS]
    return shield.sort(((unit, f"older than {days:g} days") for unit in old), lambda _: False)


def _too_much(going: Sequence[Going], before: Sequence[Going], units: Sequence[Unit]) -> str:
    """Why `going` may not go after `before` did; empty if it may."""
    count = len(going) + len(before)
    gone, whole = sum(i.unit.bytes for i in (*going, *before)), sum(unit.bytes for unit in units)
    if not going or (2 * gone <= whole and 2 * count <= len(units)):
        return ""
    part = f"{count} of {len(units)} ({shown_size(gone)} of {shown_size(whole)})"
    return f"{part} would go, which is more than half; {UNLESS}"


def _warnings(results: Sequence[Unit], rules: Retention, made: Plan, cut: set[Pool]) -> tuple[str, ...]:
    more = f"{NEVER_MOST}, the rest follows at the next run."
    told = _outbox_warnings(results, rules, made, more if Pool.RESULTS in cut else "")
    return (*told, f"The recordings stay over their cap for now: {more}") if Pool.SOURCES in cut else told


def _outbox_warnings(results: Sequence[Unit], rules: Retention, made: Plan, more: str) -> tuple[str, ...]:
    total, cap = sum(unit.bytes for unit in results), rules.outbox_max_gb * GB
    percent = 100 * total / cap
    if percent < rules.warn_percent:
        return ()
    told = f"The outbox holds {shown_size(total)} of {shown_size(cap)} ({percent:.0f} %)."
    left = total - sum(item.unit.bytes for item in made.going if item.unit.pool is Pool.RESULTS)
    if left <= cap:
        return (told,)
    over = f"It stays {shown_size(left - cap)} over its cap"
    return (told, f"{over} for now: {more}" if more else f"{over}: what else is there must not be removed.")


# -- the ledger's history ------------------------------------------------------------------------


def history_before(now: float, rules: Retention, moment_of_newest: float | None) -> float:
    """What ended before this moment may be forgotten, if nothing is left of it.

    `moment_of_newest`: when the drop ended that lies `history_max_jobs` jobs back; None if there are fewer.
    """
    oldest = now - rules.history_max_days * DAY_SECONDS
    return min(max(oldest, moment_of_newest or oldest), now - rules.keep_hours * HOUR_SECONDS)


# -- the clock ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The clocks at one moment."""

    wall: float
    "seconds since the epoch"
    uptime: float
    "seconds since the machine started, sleep included"
    boot: str
    "which start of the machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """That the clock was set while the machine ran."""

    until: float
    "as the clock will say when it is believed again"
    reason: str


def clock_problem(now: Seen, last: Seen | None) -> str:
    """Why the clock cannot be trusted; empty if it can. The caller remembers `now` in either case."""
    if now.wall < EARLIEST_CLOCK:
        return f"the clock says {_date(now.wall)}; it is not set"
    if last is None:
        return ""
    if now.boot == last.boot:
        jump = (now.wall - last.wall) - (now.uptime - last.uptime)
        if abs(jump) > CLOCK_DRIFT_SECONDS:
            return f"the clock was set {_span(abs(jump))} {'forward' if jump > 0 else 'back'}"
        return ""
    if now.wall < last.wall:
        return f"the clock stands {_span(last.wall - now.wall)} before the last look at it"
    if now.wall - last.wall > LONGEST_GAP_SECONDS:
        return f"the clock was last seen {_span(now.wall - last.wall)} ago, before the machine was started"
    return ""


def judge_clock(
    now: Seen, last: Seen | None, doubt: Doubt | None, *, keep_hours: float
) -> tuple[str, Doubt | None]:
    """Why nothing may be removed by this clock, empty if it may; and what to remember besides `now`.

    A clock that was wrong at the start of the machine is believed again as soon as two looks agree: it may
    have been off for long. One that was set while the machine ran may be wrong for hours, and make what was
    made today look a year old: it is believed once it has run on for a day, or `keep_hours` if that is
    longer, when what was made before is that old indeed.
    """
    problem = clock_problem(now, last)
    if problem and last is not None and now.boot == last.boot:
        wait = max(DOUBT_SECONDS, keep_hours * HOUR_SECONDS)
        doubt = Doubt(until=now.wall + wait, reason=problem)
    elif problem:
        return f"{problem}; nothing is removed until the next look agrees with this one", doubt
    if doubt is not None and now.wall < doubt.until:
        return f"{doubt.reason}; nothing is removed until {_date(doubt.until)}", doubt
    return "", None


# -- for people --------------------------------------------------------------------------------


def describe(made: Plan) -> list[str]:
    """The plan line by line, as `prune --dry-run` prints it."""
    lines = [*made.notes]
    lines += [_line("goes", item.unit, item.reason) for item in made.going]
    lines += [_line("stays", item.unit, item.reason) for item in made.spared]
    if made.forgotten or made.lost:
        gone = f"{len(made.forgotten)} dropped files and {len(made.lost)} results"
        lines.append(f"The ledger forgets {gone} of which nothing is left.")
    if made.going:
        return [*lines, f"{len(made.going)} to remove, {shown_size(made.bytes)}."]
    return [*lines, "Nothing to remove."]


def _line(verb: str, unit: Unit, reason: str) -> str:
    return f"{verb:5}  {_date(unit.moment)}  {shown_size(unit.bytes):>9}  {unit.pool}: {unit.name} ({reason})"


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


def _span(seconds: float) -> str:
    return (
        f"{seconds / DAY_SECONDS:.1f} days" if seconds >= DAY_SECONDS else f"{seconds / HOUR_SECONDS:.1f} h"
    )
