"""Retention policy: oldest first, whole, never the young, the newest, the protected, nor most of a root."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Retention
from pipeline.retention import DAY_SECONDS, GB, Piece, Plan, Pool, Seen, Unit, clock_problem, describe, plan

NOW = 1_800_000_000.0
RULES = Retention(keep_newest=0, keep_hours=0)


def unit(key: str, *, days: float = 10, gb: float = 1, pool: Pool = Pool.RESULTS, **more: object) -> Unit:
    """Something `days` old and `gb` big."""
    fields = {
        "pool": pool,
        "key": key,
        "name": key,
        "root": Path("/outbox"),
        "folder": PurePosixPath("."),
        "pieces": (Piece(name=PurePosixPath(f"{key}.wav"), bytes=int(gb * GB)),),
        "moment": NOW - days * DAY_SECONDS,
    }
    return Unit(**{**fields, **more})  # type: ignore[arg-type]


def make(stock: list[Unit], rules: Retention = RULES, **more: object) -> Plan:
    """A plan with nothing in the way."""
    return plan(stock, rules, NOW, **{"obstacle": lambda _: "", **more})  # type: ignore[arg-type]


def going(made: Plan) -> list[str]:
    """What goes, in order."""
    return [item.unit.key for item in made.going]


def test_the_numbers_are_those_of_the_contract() -> None:
    """Section 6 of the contract, and its guards."""
    rules = Retention()
    assert (rules.outbox_max_gb, rules.warn_percent) == (5.0, 80)
    assert (rules.work_max_files, rules.work_max_days) == (200, 7.0)
    assert rules.vc_inputs_max_gb == 2.0
    assert rules.every_hours == 5.0
    assert (rules.keep_newest, rules.keep_hours, rules.deletes_propagate) == (20, 24.0, None)


def test_an_outbox_under_its_cap_stays_whole() -> None:
    """Exactly at the cap is not over it."""
    made = make([unit(f"u{n}", days=n + 1) for n in range(5)])
    assert made.going == ()
    assert made.spared == ()


def test_over_the_cap_the_oldest_jobs_go_until_it_fits() -> None:
    """Seven of one gigabyte against a cap of five: the two oldest."""
    made = make([unit(f"u{n}", days=n + 1) for n in range(7)])
    assert going(made) == ["u6", "u5"]
    assert made.bytes == 2 * GB


def test_the_newest_jobs_stay_even_over_the_cap() -> None:
    """And the warning says that the cap is not kept."""
    made = make([unit(f"u{n}", days=n + 1, gb=2) for n in range(7)], Retention(keep_newest=6, keep_hours=0))
    assert going(made) == ["u6"]
    assert {item.reason for item in made.spared} == {"one of the newest 6"}
    assert made.warnings == (
        "The outbox holds 14 GB of 5 GB (280 %).",
        "It stays 7 GB over its cap: what else is there must not be removed.",
    )


def test_what_is_younger_than_a_day_stays() -> None:
    """Also what claims to come from the future."""
    stock = [unit("young", days=0.9, gb=4), unit("future", days=-400, gb=4), unit("old", days=1.1, gb=4)]
    made = make(stock, Retention(keep_newest=0))
    assert going(made) == ["old"]
    assert {item.reason for item in made.spared} == {"younger than 24 h"}


def test_a_protected_job_is_passed_over_and_the_next_oldest_goes() -> None:
    """With the reason why it stays."""
    stock = [unit(f"u{n}", days=n + 1) for n in range(6)]
    made = make(stock, obstacle=lambda u: "carries a keep mark" if u.key == "u5" else "")
    assert going(made) == ["u4"]
    assert [(item.unit.key, item.reason) for item in made.spared] == [("u5", "carries a keep mark")]


def test_a_job_that_is_being_made_anew_stays() -> None:
    """The ledger's word is asked before the disk."""
    stock = [unit(f"u{n}", days=n + 1) for n in range(5)] + [unit("busy", days=9, busy="is being made")]
    made = make(stock, obstacle=lambda u: pytest.fail("asked") if u.busy else "")
    assert going(made) == ["u4"]


def test_nobody_is_asked_about_what_need_not_go() -> None:
    """Looking at files costs time and wakes disks."""
    asked: list[str] = []
    make([unit(f"u{n}", days=n + 1) for n in range(6)], obstacle=lambda u: asked.append(u.key) or "")
    assert asked == ["u5"]


def test_more_than_half_of_an_outbox_goes_in_steps() -> None:
    """Far over its cap it comes down by half at each run, oldest first, and says so, until it fits."""
    stock, ran = [unit(f"u{n}", days=n + 1) for n in range(24)], []
    while made := make(stock).going:
        keys = {item.unit.key for item in made}
        assert keys == {u.key for u in stock[len(stock) - len(made) :]}
        ran.append((len(made), len(make(stock).warnings)))
        stock = [u for u in stock if u.key not in keys]
    assert ran == [(12, 2), (6, 2), (1, 1)]
    first = make([unit(f"u{n}", days=n + 1) for n in range(24)])
    assert first.warnings[1] == (
        "It stays 7 GB over its cap for now: never more than half goes at once, the rest follows at the"
        " next run."
    )
    assert first.refused == () and first.notes == first.warnings


def test_more_than_half_goes_where_somebody_said_so() -> None:
    """At once."""
    stock = [unit(f"u{n}", days=n + 1) for n in range(10)]
    rules = Retention(keep_newest=0, keep_hours=0, outbox_max_gb=0.005)
    assert len(make(stock, rules).going) == 5
    assert len(make(stock, rules, more_than_half=True).going) == 10


def test_one_that_is_more_than_half_by_itself_waits_for_a_word() -> None:
    """Nothing younger goes in its place, and no run promises that it follows."""
    stock = [unit("huge", days=9, gb=8), unit("b", days=2, gb=1), unit("c", days=1, gb=1)]
    made = make(stock)
    assert made.going == ()
    [(pool, reason)] = made.refused
    assert pool is Pool.RESULTS
    assert reason.startswith("huge (8 GB) comes first, and is more than half of all that there is")
    assert "next run" not in "".join(made.notes)
    assert going(make(stock, more_than_half=True)) == ["huge"]


def test_recordings_far_over_their_cap_go_in_steps_too() -> None:
    """Half of all processed drops is the most, and people hear of the rest."""
    stock = [unit(f"r{n}", days=n + 1, pool=Pool.SOURCES, recording=True) for n in range(10)]
    made = make(stock)
    assert going(made) == ["r9", "r8", "r7", "r6", "r5"]
    assert made.warnings == (
        "The recordings stay over their cap for now: never more than half goes at once, the rest follows"
        " at the next run.",
    )


def test_more_than_half_never_goes_for_its_age_unasked() -> None:
    """done_max_days: 3 that was meant to be 300 empties nothing; the cap is kept meanwhile."""
    stock = [unit(f"s{n}", days=n + 1, gb=0.5, pool=Pool.SOURCES, recording=n > 4) for n in range(10)]
    rules = Retention(keep_newest=0, keep_hours=0, done_max_days=3)
    made = make(stock, rules)
    assert going(made) == ["s9"]
    [(pool, reason)] = made.refused
    assert pool is Pool.SOURCES
    assert reason.startswith("7 of 10 (3.5 GB of 5 GB) would go, which is more than half;")
    assert len(made.spared) == 6
    assert len(make(stock, rules, more_than_half=True).going) == 7


def test_people_hear_what_was_refused() -> None:
    """In sentences, one for each reason, after the warnings."""
    pools = dict.fromkeys((Pool.RESULTS, Pool.SOURCES), "it is synchronised")
    stock = [unit(f"u{n}", days=n + 1) for n in range(7)]
    stock += [unit(f"r{n}", days=n + 1, pool=Pool.SOURCES, recording=True) for n in range(6)]
    assert make(stock, report_only=pools).notes == (
        "The outbox holds 7 GB of 5 GB (140 %).",
        "It stays 2 GB over its cap: what else is there must not be removed.",
        "Pruning of results, sources: it is synchronised.",
    )


def test_half_may_go() -> None:
    """By number and by size."""
    assert len(make([unit(f"u{n}", days=n + 1) for n in range(10)]).going) == 5


def test_a_synced_outbox_is_only_reported() -> None:
    """The same candidates are shown as staying, with the reason above them."""
    stock = [unit(f"u{n}", days=n + 1) for n in range(7)] + [unit("w", days=8, pool=Pool.WORK)]
    made = make(stock, report_only={Pool.RESULTS: "it is synchronised"})
    assert going(made) == ["w"]
    assert made.refused == ((Pool.RESULTS, "it is synchronised"),)
    assert [item.unit.key for item in made.spared] == ["u6", "u5"]


@pytest.mark.parametrize(("gb", "warned"), [(3.9, False), (4.0, True), (5.0, True)])
def test_the_warning_comes_at_eighty_percent(gb: float, warned: bool) -> None:
    """Of the cap, whether or not anything has to go."""
    assert bool(make([unit("u", gb=gb)]).warnings) is warned


def test_recordings_have_a_cap_of_their_own() -> None:
    """Two gigabytes of inputs; texts in the done folder do not count and stay for ever."""
    stock = [unit(f"r{n}", days=n + 1, gb=0.5, pool=Pool.SOURCES, recording=True) for n in range(6)]
    stock += [unit("text", days=999, gb=3, pool=Pool.SOURCES)]
    assert going(make(stock)) == ["r5", "r4"]


def test_processed_sources_age_only_if_somebody_said_so() -> None:
    """done_max_days counts from the end of the drop."""
    stock = [unit(f"s{n}", days=n * 10, gb=0.01, pool=Pool.SOURCES, recording=n % 2 == 0) for n in range(8)]
    assert going(make(stock)) == []
    assert going(make(stock, Retention(keep_newest=0, done_max_days=45))) == ["s7", "s6", "s5"]


def test_a_source_over_both_limits_goes_once() -> None:
    """The cap and the age do not count it twice."""
    stock = [unit(f"r{n}", days=40 + n, gb=1, pool=Pool.SOURCES, recording=True) for n in range(3)]
    stock += [unit(f"t{n}", days=1, gb=1, pool=Pool.SOURCES) for n in range(3)]
    made = make(stock, Retention(keep_newest=0, keep_hours=0, done_max_days=30))
    assert sorted(going(made)) == ["r0", "r1", "r2"]


def work(key: str, files: int, days: float) -> Unit:
    """A left-over work folder."""
    pieces = tuple(Piece(name=PurePosixPath(f"{n}.wav"), bytes=10) for n in range(files))
    return unit(key, days=days, pool=Pool.WORK, pieces=pieces)


def test_work_files_go_after_seven_days() -> None:
    """However few they are."""
    assert going(make([work("new", 1, 6.9), work("old", 1, 7.1)])) == ["old"]


def test_at_most_two_hundred_work_files_stay() -> None:
    """Whole folders, oldest first; what went for its age counts already."""
    stock = [work("a", 90, 6), work("b", 90, 5), work("c", 90, 4), work("d", 90, 3)]
    assert going(make(stock)) == ["a", "b"]
    assert going(make([*stock, work("aged", 90, 8)])) == ["aged", "a", "b"]
    assert going(make([work("a", 100, 6), work("b", 100, 5)])) == []


def test_takes_go_least_recently_used_first() -> None:
    """The cache is ours alone: its cap holds for young takes too, and no share of it is too much."""
    stock = [unit(f"t{n}", days=n / 100, gb=5, pool=Pool.CACHE) for n in range(10)]
    assert going(make(stock, Retention())) == ["t9", "t8", "t7", "t6", "t5", "t4"]


stocks = st.lists(
    st.builds(
        lambda key, days, gb, pool, recording: unit(key, days=days, gb=gb, pool=pool, recording=recording),
        key=st.uuids().map(str),
        days=st.floats(-2, 60),
        gb=st.floats(0, 3),
        pool=st.sampled_from(Pool),
        recording=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda u: u.key,
)
rules = st.builds(
    Retention,
    keep_newest=st.integers(0, 5),
    keep_hours=st.floats(0, 72),
    outbox_max_gb=st.floats(0.1, 20),
    vc_inputs_max_gb=st.floats(0.1, 5),
    cache_max_gb=st.floats(0.1, 20),
    done_max_days=st.none() | st.floats(1, 50),
)


@given(stocks, rules, st.sets(st.integers(0, 29)), st.booleans())
def test_no_plan_ever_breaks_the_promises(
    stock: list[Unit], rules: Retention, guarded: set[int], most: bool
) -> None:
    """For any stock and rules: nothing young, newest or protected goes, nothing twice, never most."""
    protected = {stock[n].key for n in guarded if n < len(stock)}
    made = make(stock, rules, obstacle=lambda u: "guarded" if u.key in protected else "", more_than_half=most)
    keys = going(made)
    assert len(keys) == len(set(keys))
    assert not set(keys) & protected
    assert not set(keys) & {item.unit.key for item in made.spared}
    for pool in (Pool.RESULTS, Pool.SOURCES):
        units = sorted((u for u in stock if u.pool is pool), key=lambda u: (u.moment, u.key))
        gone = [u for u in units if u.key in keys]
        assert not set(keys) & {u.key for u in units[len(units) - min(rules.keep_newest, len(units)) :]}
        assert most or 2 * sum(u.bytes for u in gone) <= sum(u.bytes for u in units)
    for item in made.going:
        assert item.unit.pool is Pool.CACHE or NOW - item.unit.moment >= rules.keep_hours * 3600
    describe(made)


@given(stocks, rules)
def test_nothing_younger_goes_while_something_older_of_its_kind_could(
    stock: list[Unit], rules: Retention
) -> None:
    """Results go strictly from the oldest on."""
    made = make(stock, rules, more_than_half=True)
    gone = {item.unit.key for item in made.going}
    units = sorted((u for u in stock if u.pool is Pool.RESULTS), key=lambda u: (u.moment, u.key))
    flags = [u.key in gone for u in units]
    assert flags == sorted(flags, reverse=True)


# -- the clock ---------------------------------------------------------------------------------

LAST = Seen(wall=NOW, uptime=1000.0, boot="a")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Seen(wall=NOW + 3600, uptime=4600.0, boot="a"), ""),
        (Seen(wall=NOW + 30 * DAY_SECONDS, uptime=1000 + 30 * DAY_SECONDS, boot="a"), ""),
        (Seen(wall=NOW - 7200, uptime=1060.0, boot="a"), "the clock was set 2.0 h back"),
        (Seen(wall=NOW + 365 * DAY_SECONDS, uptime=1060.0, boot="a"), "the clock was set 365.0 days forward"),
        (Seen(wall=NOW + 3600, uptime=10.0, boot="b"), ""),
        (Seen(wall=NOW - 3600, uptime=10.0, boot="b"), "the clock stands 1.0 h before the last look at it"),
        (
            Seen(wall=NOW + 3 * DAY_SECONDS, uptime=10.0, boot="b"),
            "the clock was last seen 3.0 days ago, before the machine was started",
        ),
        (Seen(wall=5.0, uptime=5.0, boot="b"), "the clock says 1970-01-01 00:00; it is not set"),
    ],
)
def test_a_clock_that_jumped_is_not_trusted(now: Seen, said: str) -> None:
    """Compared with the machine's own uptime where it was not restarted, with the last look otherwise."""
    assert clock_problem(now, LAST) == said


def test_the_first_look_at_the_clock_is_trusted() -> None:
    """There is nothing to compare it with, except that Voxspool is not that old."""
    assert clock_problem(LAST, None) == ""
    assert clock_problem(Seen(wall=0.0, uptime=1.0, boot="a"), None)


# -- for people --------------------------------------------------------------------------------


def test_a_plan_is_described_line_by_line() -> None:
    """Warnings, refusals, what goes, what stays and the sum."""
    stock = [unit(f"u{n}", days=n + 1) for n in range(7)]
    made = make(stock, obstacle=lambda u: "u6.wav is open" if u.key == "u6" else "")
    assert describe(made) == [
        "The outbox holds 7 GB of 5 GB (140 %).",
        "goes   2027-01-09 08:00       1 GB  results: u5 (the outbox is over its size cap)",
        "goes   2027-01-10 08:00       1 GB  results: u4 (the outbox is over its size cap)",
        "stays  2027-01-08 08:00       1 GB  results: u6 (u6.wav is open)",
        "2 to remove, 2 GB.",
    ]
    assert describe(make([])) == ["Nothing to remove."]
