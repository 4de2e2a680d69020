"""Measures for Prometheus: what they are called, what they say, and how the file is written."""

import os
import re
from pathlib import Path

import pytest
from ledger_samples import Clock, a_drop, a_job, submit
from mounted import tmpfs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from test_docs import DOCS, table_rows, unquoted

from pipeline import __version__
from pipeline.intake.watch import Seen
from pipeline.jobs.job import JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.metrics import OUTCOMES, WAITING, WRITE_SECONDS, Measures, Textfile, _Once
from pipeline.tallies import Tally

STARTED = 1_790_000_000.0
SEEN = Seen(
    roots={"inbox": True, "outbox": True},
    events=True,
    shares=('/srv/inbox/nas "x"',),
    files={"settling": 3, "waiting": 1},
    oldest_seconds={"settling": 4.5},
    scans=7,
    scan_seconds=0.25,
    missed=2,
    overflows=1,
    rebuilds=3,
)
FULL = Measures(
    state="running",
    started_at=STARTED,
    troubles=1,
    seen=SEEN,
    queued_seconds=60.0,
    jobs={"queued": 2, "running": 1, "done": 5, "failed": 0, "cancelled": 0},
    attempts={"done": 5, "died": 1},
    sums={Tally.AUDIO_SECONDS: 100.0, Tally.WORK_SECONDS: 50.0, Tally.PRUNED_BYTES: 7.0},
    realtime_factor=0.5,
    free_bytes={"inbox": 10, "outbox": 20, "state": 30},
    free_files={"inbox": 1, "outbox": 2, "state": 3},
    errors={"job_file": 4},
)


def parsed(text: str) -> dict[str, Metric]:
    """A textfile as Prometheus reads it."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def told(now: Measures) -> dict[str, Metric]:
    """What is exposed of some measures."""
    registry = CollectorRegistry()
    registry.register(_Once(now))
    return parsed(generate_latest(registry).decode())


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """The one sample of this name and these labels."""
    samples = [sample for family in families.values() for sample in family.samples]
    (found,) = [s.value for s in samples if s.name == name and s.labels == labels]
    return float(found)


@pytest.fixture
def clock() -> Clock:
    """Monotonic."""
    return Clock(100.0)


@pytest.fixture
def textfile(tmp_path: Path, ledger: Ledger, layout: Layout, clock: Clock) -> Textfile:
    """Not yet written."""
    path = tmp_path / "collector" / "voxspool.prom"
    path.parent.mkdir()
    return Textfile(path, ledger, layout, STARTED, clock=clock, wall=lambda: STARTED + 100.0)


# -- names ----------------------------------------------------------------------------------------


def test_the_page_has_every_measure_with_its_labels_and_no_other() -> None:
    """docs/operations.md and what is really exposed agree."""
    rows = table_rows(DOCS / "operations.md", "measure", "labels")
    documented = {unquoted(row[0]): set(re.findall(r"`(\w+)`", row[1])) for row in rows}
    samples = [sample for family in told(FULL).values() for sample in family.samples]
    assert documented == {sample.name: set(sample.labels) for sample in samples}


def test_names_follow_the_conventions_of_prometheus() -> None:
    """One prefix, base units, `_total` for what only grows and for nothing else, a sentence for each."""
    for family in told(FULL).values():
        assert re.fullmatch(r"voxspool_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"milli|minutes|hours|kilo|mega|percent", family.name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name


# -- values ---------------------------------------------------------------------------------------


def test_measures_are_what_was_measured() -> None:
    """Read back by the library's own parser, labels with blanks and quotes included."""
    families = told(FULL)
    version = next(iter(families["voxspool_build_info"].samples)).labels["version"]
    assert version == __version__
    for name, labels, expected in (
        ("voxspool_state", {"state": "running"}, 1),
        ("voxspool_state", {"state": "stopped"}, 0),
        ("voxspool_troubles", {}, 1),
        ("voxspool_inbox_files", {"state": "settling"}, 3),
        ("voxspool_oldest_waiting_seconds", {"state": "settling"}, 4.5),
        ("voxspool_oldest_waiting_seconds", {"state": "queued"}, 60),
        ("voxspool_scan_duration_seconds", {}, 0.25),
        ("voxspool_event_source", {"root": "inbox", "source": "events"}, 1),
        ("voxspool_event_source", {"root": "inbox", "source": "scan"}, 0),
        ("voxspool_event_source", {"root": '/srv/inbox/nas "x"', "source": "scan"}, 1),
        ("voxspool_rescan_found_total", {}, 2),
        ("voxspool_attempts_total", {"outcome": "died"}, 1),
        ("voxspool_jobs", {"state": "done"}, 5),
        ("voxspool_audio_seconds_total", {}, 100),
        ("voxspool_realtime_factor", {}, 0.5),
        ("voxspool_root_up", {"root": "outbox"}, 1),
        ("voxspool_free_bytes", {"root": "state"}, 30),
        ("voxspool_prune_bytes_total", {}, 7),
        ("voxspool_errors_total", {"code": "job_file"}, 4),
    ):
        assert value(families, name, **labels) == expected, name


def test_a_daemon_that_has_done_nothing_yet_has_its_series() -> None:
    """At nought: a series that is there from the beginning can be added up; what is unknown is missing."""
    families = told(Measures(state="running", started_at=STARTED, troubles=0, seen=Seen()))
    for outcome in OUTCOMES:
        assert value(families, "voxspool_attempts_total", outcome=outcome) == 0
    for state in WAITING:
        assert value(families, "voxspool_inbox_files", state=state) == 0
    assert "voxspool_realtime_factor" not in families
    assert "voxspool_scan_duration_seconds" not in families


def test_what_is_measured_comes_from_ledger_watch_and_disks(
    textfile: Textfile, tmp_path: Path, ledger: Ledger
) -> None:
    """Nothing is counted here."""
    submit(ledger, a_job("d1-0", submitted_at=STARTED + 40.0))
    submit(ledger, a_job("d2-0", drop_id="d2", submitted_at=STARTED), drop=a_drop("d2"))
    ledger.claim("w")
    ledger.finish("d2-0", JobState.FAILED, code="check_failed", message="No take passed.")
    ledger.tallies.add(Tally.AUDIO_SECONDS, 20.0)
    ledger.tallies.add(Tally.WORK_SECONDS, 5.0)
    textfile.write("paused", 2, SEEN)
    families = parsed((tmp_path / "collector" / "voxspool.prom").read_text())
    assert value(families, "voxspool_state", state="paused") == 1
    assert value(families, "voxspool_troubles") == 2
    assert value(families, "voxspool_oldest_waiting_seconds", state="queued") == 60
    assert value(families, "voxspool_jobs", state="queued") == 1
    assert value(families, "voxspool_attempts_total", outcome="failed") == 1
    assert value(families, "voxspool_errors_total", code="check_failed") == 1
    assert value(families, "voxspool_realtime_factor") == 0.25
    disk = os.statvfs(tmp_path)
    assert value(families, "voxspool_free_bytes", root="outbox") == pytest.approx(
        disk.f_bavail * disk.f_frsize, rel=0.2
    )


def test_the_realtime_factor_is_that_of_this_run(
    tmp_path: Path, ledger: Ledger, layout: Layout, clock: Clock
) -> None:
    """What was made last year on another machine says nothing of today."""
    ledger.tallies.add(Tally.AUDIO_SECONDS, 1_000.0)
    ledger.tallies.add(Tally.WORK_SECONDS, 9_000.0)
    textfile = Textfile(tmp_path / "v.prom", ledger, layout, STARTED, clock=clock)
    textfile.write("running", 0, SEEN)
    assert "voxspool_realtime_factor" not in parsed((tmp_path / "v.prom").read_text())
    ledger.tallies.add(Tally.AUDIO_SECONDS, 10.0)
    ledger.tallies.add(Tally.WORK_SECONDS, 1.0)
    textfile.write("running", 0, SEEN)
    families = parsed((tmp_path / "v.prom").read_text())
    assert value(families, "voxspool_realtime_factor") == pytest.approx(0.1)
    assert value(families, "voxspool_audio_seconds_total") == 1_010


def test_a_folder_that_does_not_answer_is_not_asked(
    textfile: Textfile, tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share whose server is gone would hold up the daemon."""
    real, asked = os.statvfs, []

    def statvfs(path: Path) -> os.statvfs_result:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    textfile.write("running", 1, Seen(roots={"inbox": True, "outbox": False}))
    families = parsed((tmp_path / "collector" / "voxspool.prom").read_text())
    assert asked == [layout.state]
    assert value(families, "voxspool_root_up", root="outbox") == 0
    assert [sample.labels["root"] for sample in families["voxspool_free_bytes"].samples] == ["state"]


# -- the file -------------------------------------------------------------------------------------


def test_it_is_written_seldom(textfile: Textfile, clock: Clock) -> None:
    """At once, then every fifteen seconds."""
    assert textfile.due()
    textfile.write("running", 0, SEEN)
    clock.now += WRITE_SECONDS - 0.1
    assert not textfile.due()
    clock.now += 0.2
    assert textfile.due()


def test_everybody_may_read_it_and_it_is_replaced_whole(textfile: Textfile, tmp_path: Path) -> None:
    """Whatever the mask of the service; no half file is ever under its name."""
    path = tmp_path / "collector" / "voxspool.prom"
    before = os.umask(0o077)
    try:
        textfile.write("running", 0, SEEN)
        with open(path) as reader:
            textfile.write("paused", 0, SEEN)
            assert parsed(reader.read()).keys() == parsed(path.read_text()).keys()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["voxspool.prom"]


def test_a_file_that_cannot_be_written_is_a_note(textfile: Textfile, tmp_path: Path) -> None:
    """Not an error; it is tried again."""
    folder = tmp_path / "collector"
    folder.rmdir()
    textfile.write("running", 0, SEEN)
    assert (
        textfile.note
        == f"The measures cannot be written to {folder}/voxspool.prom: No such file or directory."
    )
    folder.mkdir()
    textfile.write("running", 0, SEEN)
    assert textfile.note == "" and os.listdir(folder) == ["voxspool.prom"]


def test_a_full_disk_leaves_the_last_file(
    tmp_path: Path, ledger: Ledger, layout: Layout, clock: Clock
) -> None:
    """For real: whole, with nothing half written beside it."""
    with tmpfs(tmp_path / "disk", "64k") as disk:
        textfile = Textfile(disk / "v.prom", ledger, layout, STARTED, clock=clock)
        textfile.write("running", 0, SEEN)
        kept = (disk / "v.prom").read_bytes()
        with open(disk / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(b"x" * 4096)
        textfile.write("paused", 0, SEEN)
        assert "No space left on device" in textfile.note
        assert (disk / "v.prom").read_bytes() == kept
        assert sorted(os.listdir(disk)) == ["ballast", "v.prom"]
