"""When a file counts as complete."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.intake.settle import (
    Fingerprint,
    Look,
    Openness,
    SettleRules,
    Settling,
    State,
    fingerprint_of,
)

RULES = SettleRules()


def status_of(
    size: int = 10,
    *,
    mtime_ns: int = 0,
    ctime_ns: int = 5,
    inode: int = 7,
    blocks: int = 8,
    mode: int = 0o644,
) -> os.stat_result:
    """A stat result of a regular file of uid 1000, gid 100."""
    fields = [0o100000 | mode, inode, 1, 1, 1000, 100, size, 0, 0, 0]
    return os.stat_result(fields, {"st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns, "st_blocks": blocks})


class Desk:
    """A settling with a probe that answers what the test says."""

    def __init__(self, rules: SettleRules = RULES) -> None:
        self.answer: Openness | OSError = Openness.FREE
        self.probes = 0
        self.settling = Settling(rules, self.probe, uid=990, gid=991)

    def probe(self, _path: str, _network: bool) -> Openness:
        """The answer the test set."""
        self.probes += 1
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def look(self, now: float, status: os.stat_result | None = None, *, network: bool = False) -> Look:
        """One look at the file `a.txt`."""
        return self.settling.look("a.txt", "/in/a.txt", status or status_of(), now, network=network)


@pytest.fixture(name="desk")
def new_desk() -> Desk:
    """A desk with the default rules."""
    return Desk()


@pytest.mark.parametrize(("network", "quiet"), [(False, 2.0), (True, 10.0)])
def test_an_unchanged_file_settles_after_its_quiet_period(desk: Desk, network: bool, quiet: float) -> None:
    """Not a moment before the quiet period, and exactly then."""
    first = desk.look(100.0, network=network)
    assert first.state is State.NEW
    assert first.due == 100.0 + quiet
    assert desk.look(100.0 + quiet - 0.01, network=network).state is State.NEW
    assert desk.look(100.0 + quiet, network=network).state is State.SETTLED


@pytest.mark.parametrize(
    "change",
    [{"size": 11}, {"mtime_ns": 1}, {"ctime_ns": 6}, {"inode": 8}, {"blocks": 16}],
    ids=["size", "mtime", "ctime", "inode", "blocks"],
)
def test_pixlstash_pr_621_any_change_starts_the_wait_again(desk: Desk, change: dict[str, int]) -> None:
    """Size, mtime, ctime, inode and blocks count alike: preallocating writers change the blocks only."""
    desk.look(0.0)
    assert desk.look(1.9, status_of(**change)).state is State.SETTLING
    assert desk.look(3.8, status_of(**change)).state is State.SETTLING
    assert desk.look(3.9, status_of(**change)).state is State.SETTLED


def test_an_inode_means_nothing_on_a_network_filesystem(desk: Desk) -> None:
    """sshfs and rclone number a file anew when they have forgotten it: it would never settle."""
    desk.look(0.0, network=True)
    assert desk.look(9.9, status_of(inode=8), network=True).state is State.NEW
    assert desk.look(10.0, status_of(inode=9), network=True).state is State.SETTLED


def test_an_old_modification_time_says_nothing(desk: Desk) -> None:
    """A file of 1970, as sync tools and `cp -p` deliver, waits like any other."""
    assert desk.look(0.0, status_of(mtime_ns=0)).state is State.NEW
    assert desk.look(1.0, status_of(mtime_ns=0)).state is State.NEW


def test_a_settled_file_that_changes_is_waited_for_again(desk: Desk) -> None:
    """Settled is not for ever: what was not taken over and changes starts anew."""
    desk.look(0.0)
    assert desk.look(2.0).state is State.SETTLED
    assert desk.look(9.0).state is State.SETTLED
    assert desk.look(10.0, status_of(99)).state is State.SETTLING
    assert desk.probes == 1


def test_pauses_make_the_quiet_period_longer(desk: Desk) -> None:
    """A writer that was seen to pause 1.8 s is given three times that."""
    desk.look(0.0)
    desk.look(1.0)
    look = desk.look(1.8, status_of(20))
    assert look.due == pytest.approx(1.8 + 5.4)
    assert desk.look(7.1, status_of(20)).state is State.SETTLING
    assert desk.look(7.2, status_of(20)).state is State.SETTLED


def test_a_writer_that_never_pauses_is_not_waited_for_longer(desk: Desk) -> None:
    """The distance between looks is no pause: each look saw a change."""
    for second in range(60):
        desk.look(float(second), status_of(second + 1))
    assert desk.look(59.5, status_of(60)).due == pytest.approx(61.0)


def test_the_quiet_period_has_a_cap(desk: Desk) -> None:
    """After however long a pause no more than 120 s are asked for."""
    desk.answer = OSError(errno.EBUSY, "busy")
    desk.look(0.0)
    desk.look(50.0)
    assert desk.look(500.0, status_of(20)).due == pytest.approx(620.0)


def test_transcription_suite_issue_311_a_growing_file_is_told_of_and_never_given_up(desk: Desk) -> None:
    """After a day of growing it is still looked at, with its size and the last change."""
    for minute in range(24 * 60):
        desk.look(60.0 * minute, status_of(minute + 1))
    look = desk.look(60.0 * 24 * 60, status_of(312_000_000))
    assert look.state is State.SETTLING
    assert look.reason == "still growing, 312 MB, last change 0 s ago"
    assert desk.look(60.0 * 24 * 60 + 1, status_of(312_000_000)).reason.endswith("last change 1 s ago")


def test_a_shrinking_file_is_changing(desk: Desk) -> None:
    """What is rewritten smaller does not grow."""
    desk.look(0.0, status_of(100))
    assert desk.look(1.0, status_of(50)).reason == "still changing, 50 bytes, last change 0 s ago"


def test_stirling_pdf_issue_1214_empty_files_wait_a_minute(desk: Desk) -> None:
    """An empty file is most often one whose content is still to come; after 60 s it is handed on."""
    assert desk.look(0.0, status_of(0)).state is State.EMPTY
    assert desk.look(59.0, status_of(0)).reason == "empty so far, last change 59 s ago"
    assert desk.look(60.0, status_of(0)).state is State.SETTLED


def test_an_empty_file_that_is_filled_is_an_ordinary_one(desk: Desk) -> None:
    """`touch` first, content later."""
    desk.look(0.0, status_of(0))
    assert desk.look(1.0, status_of(10)).due == pytest.approx(3.0)


def test_a_file_held_open_for_writing_waits(desk: Desk) -> None:
    """However quiet a file is, it waits while a program may go on writing."""
    desk.answer = Openness.WRITING
    desk.look(0.0)
    look = desk.look(2.0)
    assert (look.state, look.reason) == (State.SETTLING, "still open for writing by a program")
    assert desk.look(2.5).state is State.SETTLING
    assert desk.probes == 1
    desk.answer = Openness.FREE
    assert desk.look(look.due).state is State.SETTLED


def test_the_writer_is_asked_for_ever_more_seldom(desk: Desk) -> None:
    """From 1 s to 10 s, and no further."""
    desk.answer = Openness.WRITING
    desk.look(0.0)
    waits, now = [], 2.0
    for _ in range(7):
        due = desk.look(now).due
        waits.append(due - now)
        now = due
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_where_writers_cannot_be_seen_the_wait_is_longer(desk: Desk) -> None:
    """A file of another owner on a local disk waits 5 s, since nobody can tell whether it is closed."""
    desk.answer = Openness.UNPROVEN
    desk.look(0.0)
    assert desk.look(2.0).due == pytest.approx(5.0)
    assert desk.look(4.9).state is State.NEW
    assert desk.look(5.0).state is State.SETTLED


def test_an_unreadable_file_is_named_with_owners(desk: Desk) -> None:
    """Permission denied comes with both sides' numbers, and is looked at again with back-off."""
    desk.answer = PermissionError(errno.EACCES, "Permission denied")
    desk.look(0.0, status_of(mode=0))
    look = desk.look(2.0, status_of(mode=0))
    assert look.state is State.UNREADABLE
    assert look.reason == (
        "cannot be read: permission denied (the file belongs to uid 1000, gid 100, mode 000; "
        "Voxspool runs as uid 990, gid 991)"
    )
    assert look.due == pytest.approx(4.0)
    assert desk.look(3.9, status_of(mode=0)).reason == look.reason
    assert desk.probes == 1
    assert desk.look(4.0, status_of(mode=0)).due == pytest.approx(8.0)


def test_a_file_that_becomes_readable_is_taken(desk: Desk) -> None:
    """chmod changes the ctime, which ends the back-off."""
    desk.answer = PermissionError(errno.EACCES, "Permission denied")
    desk.look(0.0)
    for now in (2.0, 10.0, 60.0):
        desk.look(now)
    desk.answer = Openness.FREE
    mended = status_of(ctime_ns=99)
    due = desk.look(61.0, mended).due
    assert desk.look(due, mended).state is State.SETTLED


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EBUSY, "another program is using it"),
        (errno.ETXTBSY, "another program is using it"),
        (errno.ESTALE, "the network share has lost track of it"),
        (errno.EIO, "the disk or the network share reports an error"),
        (errno.ENXIO, "no such device or address"),
    ],
)
def test_passing_troubles_are_told_and_tried_again(desk: Desk, number: int, words: str) -> None:
    """Sharing violations and hiccups of a share are never final, whether at stat or at open."""
    error = OSError(number, os.strerror(number))
    failed = desk.settling.look_failed("a.txt", error, 0.0)
    assert (failed.state, failed.reason) == (State.UNREADABLE, f"cannot be looked at yet: {words}")
    desk.answer = error
    desk.look(1.0)
    look = desk.look(3.0)
    assert (look.state, look.reason) == (State.UNREADABLE, f"cannot be read yet: {words}")
    desk.answer = Openness.FREE
    assert desk.look(look.due).state is State.SETTLED


def test_failed_looks_back_off(desk: Desk) -> None:
    """2 s, 4 s, ... 60 s, also where not even a stat result can be had."""
    error, now, waits = OSError(errno.EIO, "io"), 0.0, []
    for _ in range(7):
        due = desk.settling.look_failed("a.txt", error, now).due
        waits.append(due - now)
        now = due
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_file_that_vanishes_at_the_last_moment_is_gone(desk: Desk) -> None:
    """Between stat and open anything may happen; that is no trouble to show."""
    desk.look(0.0)
    desk.answer = FileNotFoundError(errno.ENOENT, "gone")
    assert desk.look(2.0).state is State.GONE


def test_files_that_are_gone_are_forgotten(desk: Desk) -> None:
    """A round that did not meet a file forgets it; if it comes back it is new."""
    for names in (("a", "b", "c"), ("b",)):
        desk.settling.begin_round()
        for name in names:
            desk.settling.look(name, name, status_of(), 0.0)
        desk.settling.end_round()
    assert len(desk.settling) == 1
    assert desk.settling.knows("b", fingerprint_of(status_of()))
    assert desk.settling.look("a", "a", status_of(), 100.0).state is State.NEW


def test_memory_of_many_files_is_small(desk: Desk) -> None:
    """Ten thousand watched files cost less than 10 MB."""
    import tracemalloc

    tracemalloc.start()
    try:
        for number in range(10_000):
            name = f"chapter {number:05d}.txt"
            desk.settling.look(name, name, status_of(inode=number, ctime_ns=number), 0.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000_000


def test_the_key_for_a_ledger_leaves_out_what_may_move() -> None:
    """Blocks are trimmed later and some shares renumber inodes: neither makes a file another one."""
    assert Fingerprint(1, 2, 3, 4, 5).key == Fingerprint(9, 2, 3, 4, 9).key == "2:3:4"
    assert Fingerprint(1, 2, 3, 4, 5).key != Fingerprint(1, 2, 3, 5, 5).key


@given(st.lists(st.tuples(st.floats(0.01, 30), st.booleans()), min_size=1, max_size=60))
def test_settled_means_quiet(steps: list[tuple[float, bool]]) -> None:
    """Whatever the times of looks and changes: settled never comes within the base of a change,
    always comes at the `due` of a file that stays unchanged, and that due is never over the cap."""
    desk, now, version, changed_at = Desk(), 0.0, 0, 0.0
    look = desk.look(now)
    for wait, changes in steps:
        now += wait
        if changes:
            version, changed_at = version + 1, now
        look = desk.look(now, status_of(10 + version))
        if look.state is State.SETTLED:
            assert now - changed_at >= RULES.settle_seconds - 1e-9
        else:
            assert look.due <= changed_at + RULES.longest_settle_seconds + 1e-6
    if look.state is not State.SETTLED:
        assert desk.look(look.due + 1e-6, status_of(10 + version)).state is State.SETTLED


@given(st.floats(0, 1e6), st.floats(0.1, 1000))
def test_quiet_periods_stay_in_their_bounds(pause: float, base: float) -> None:
    """At least the base, at most the cap unless the base itself is longer."""
    quiet = RULES.quiet_seconds(base_seconds=base, longest_pause_seconds=pause)
    assert base <= quiet <= max(base, RULES.longest_settle_seconds)
