"""Complaints that come again and again: told once, then counted."""

from collections.abc import Iterator

import pytest
from ledger_samples import Clock
from loguru import logger

from pipeline.repeats import MAX_REMEMBERED, WINDOW_SECONDS, Repeats, as_tally, is_told


@pytest.fixture
def clock() -> Clock:
    """Monotonic."""
    return Clock(0.0)


@pytest.fixture
def told(clock: Clock) -> Iterator[list[str]]:
    """What loguru really writes."""
    lines: list[str] = []
    repeats = Repeats(lambda level, text: logger.bind(**as_tally()).log(level, "{}", text), clock=clock)
    logger.remove()
    logger.configure(patcher=repeats.look)
    logger.add(lambda message: lines.append(message.rstrip("\n")), format="{level} {message}", filter=is_told)
    yield lines
    logger.remove()
    logger.configure(patcher=lambda _: None)


def test_a_complaint_each_second_for_a_day_is_a_handful_of_lines(told: list[str], clock: Clock) -> None:
    """The first at once; then only numbers, and none of them is lost."""
    day = 86_400
    for _ in range(day):
        logger.error("The disk is full.")
        clock.now += 1
    assert told[0] == "ERROR The disk is full."
    assert told[1] == "ERROR 59 times more in 60 s: The disk is full."
    assert len(told) < 40
    clock.now += WINDOW_SECONDS[1]
    logger.info("anything")
    assert sum(int(line.split()[1]) for line in told[1:-1]) == day - 1


def test_other_complaints_are_told_at_once(told: list[str]) -> None:
    """Also at another level, or of another file."""
    for line in ("a.txt: failed", "b.txt: failed"):
        logger.warning(line)
    logger.error("a.txt: failed")
    assert len(told) == 3


def test_what_is_no_complaint_is_always_told(told: list[str]) -> None:
    """One line for each change of state."""
    for _ in range(5):
        logger.info("taken")
    assert len(told) == 5


def test_the_name_of_a_temporary_file_makes_no_difference(told: list[str]) -> None:
    """It is another at each try."""
    logger.error("No space left on device: '/o/.0a1b2c3d.voxspool-tmp'")
    logger.error("No space left on device: '/o/.99887766.voxspool-tmp'")
    assert len(told) == 1


def test_a_complaint_that_rested_is_told_anew(told: list[str], clock: Clock) -> None:
    """After a window without it."""
    logger.error("lost")
    clock.now += WINDOW_SECONDS[0]
    logger.error("lost")
    assert told == ["ERROR lost", "ERROR lost"]


def test_what_was_held_back_is_told_though_it_stopped(told: list[str], clock: Clock) -> None:
    """With the next line of any kind, before it."""
    for _ in range(3):
        logger.warning("lost")
    clock.now += WINDOW_SECONDS[0]
    logger.info("back")
    assert told == ["WARNING lost", "WARNING 2 times more in 60 s: lost", "INFO back"]


def test_memory_is_bounded(told: list[str]) -> None:
    """The oldest complaint is forgotten first."""
    for number in range(MAX_REMEMBERED + 1):
        logger.error("{}", number)
    logger.error("0"), logger.error("5")
    assert told[-1] == "ERROR 0" and len(told) == MAX_REMEMBERED + 2
