"""When events are relied on: failures lead to a fresh watch, to distrust, and back, without flapping."""

import pytest

from pipeline.intake.trust import CALM_SECONDS, PROBATION_SECONDS, RETRY_SECONDS, Trust, Verdict

HOUR = 3600.0


def test_the_first_failure_asks_for_a_fresh_watch() -> None:
    """The watch may be at fault, not the source; so may it be again a day later."""
    trust = Trust()
    assert trust.fail("deaf", 0) is Verdict.REBUILD
    assert not trust.distrusted
    assert trust.fail("deaf", CALM_SECONDS + 1) is Verdict.REBUILD


def test_a_fresh_watch_that_fails_too_is_distrusted() -> None:
    """With the reason, and tried again after ten minutes."""
    trust = Trust()
    trust.fail("deaf", 0)
    assert trust.fail("still deaf", 5) is Verdict.DISTRUST
    assert trust.distrusted and trust.reason == "still deaf"
    assert not trust.due(5 + 599) and trust.due(5 + 600)
    assert trust.retry_in(5 + 540) == 60


def test_trust_comes_back() -> None:
    """Once it was tried again and answered."""
    trust = Trust()
    trust.fail("deaf", 0), trust.fail("deaf", 5)
    trust.regain(700)
    assert not trust.distrusted and not trust.due(1e9)


def fail_whenever_trusted(trust: Trust, hours: float) -> int:
    """A source that always fails a second after it is relied on; how often it was."""
    relied, now = 0, 0.0
    while now < hours * HOUR:
        if not trust.distrusted:
            relied += 1
            trust.fail("deaf", now)
        elif trust.due(now):
            trust.regain(now)
        now += 1.0
    return relied


def test_a_source_that_keeps_failing_does_not_flap() -> None:
    """Relied on about ten times in two days: 10, 20, 40 minutes and so on lie between."""
    assert 8 <= fail_whenever_trusted(Trust(), 48) <= 12


def test_tries_that_fail_come_ever_more_seldom() -> None:
    """Up to once a day."""
    trust = Trust()
    trust.fail("deaf", 0), trust.fail("deaf", 1)
    now, pauses = 1.0, []
    for _ in range(12):
        pause = trust.retry_in(now)
        pauses.append(pause)
        now += pause
        trust.fail("deaf", now)
    assert pauses[:4] == [600, 1200, 2400, 4800]
    assert pauses[-1] == RETRY_SECONDS[1]


def test_what_fails_while_distrusted_puts_off_the_try() -> None:
    """A share of which nobody tells is not tried while drops keep coming in."""
    trust = Trust()
    trust.fail("deaf", 0), trust.fail("deaf", 1)
    for now in range(0, 6000, 100):
        trust.put_off(now)
    assert not trust.due(6000) and trust.due(5900 + 600)


@pytest.mark.parametrize(("quiet", "pause"), [(CALM_SECONDS + 1, 600), (PROBATION_SECONDS + 1, 1200)])
def test_a_day_without_failure_is_a_fresh_start(quiet: float, pause: float) -> None:
    """After an hour only the next failure is forgiven; after a day all before are."""
    trust = Trust()
    trust.fail("deaf", 0), trust.fail("deaf", 1)
    trust.regain(1000)
    assert trust.fail("deaf", 1000 + quiet) is Verdict.REBUILD
    assert trust.fail("deaf", 1000 + quiet + 1) is Verdict.DISTRUST
    assert trust.retry_in(1000 + quiet + 1) == pause
