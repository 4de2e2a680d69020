"""What a real daemon tells of itself: measures, errors by code, an answer for every file."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_running import Daemon, long_text
from prometheus_client.parser import text_string_to_metric_families

from pipeline import cli

Make = Callable[..., Daemon]
UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}


def measured(path: Path) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample of a textfile, by name and the values of its labels."""
    families = text_string_to_metric_families(path.read_text())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


def test_a_running_daemon_is_measured(make_daemon: Make, tmp_path: Path) -> None:
    """From its first moment to its last word; what it counted goes on after a restart."""
    collector = tmp_path / "collector" / "voxspool.prom"
    collector.parent.mkdir()
    daemon = make_daemon(defaults=UNCHECKED, metrics={"file": str(collector)})
    (
        daemon.drop("bad.yaml", "txt: hello"),
        daemon.drop("book.epub", "x"),
        daemon.drop("good.txt", "All is well."),
    )
    daemon.start()
    first = measured(collector)
    assert first["voxspool_state", ("running",)] == 1
    daemon.manifest("good")
    daemon.wait(lambda: daemon.status().get("failed"))
    assert daemon.stop() == 0
    last = measured(collector)
    assert last["voxspool_state", ("stopped",)] == 1
    assert last["voxspool_start_time_seconds", ()] == first["voxspool_start_time_seconds", ()]
    assert last["voxspool_jobs", ("done",)] == last["voxspool_jobs", ("failed",)] == 1
    assert last["voxspool_attempts_total", ("done",)] == 1
    assert last["voxspool_errors_total", ("job_file",)] == 1
    assert last["voxspool_inbox_files", ("unsupported",)] == 1
    assert last["voxspool_root_up", ("inbox",)] == last["voxspool_root_up", ("outbox",)] == 1
    assert last["voxspool_audio_seconds_total", ()] > 0.5
    factor = last["voxspool_work_seconds_total", ()] / last["voxspool_audio_seconds_total", ()]
    assert last["voxspool_realtime_factor", ()] == pytest.approx(factor)
    assert last["voxspool_scans_total", ()] >= 1 and last["voxspool_free_bytes", ("state",)] > 0
    daemon.start()
    assert daemon.stop() == 0
    again = measured(collector)
    for name, labels in (("errors_total", ("job_file",)), ("audio_seconds_total", ())):
        assert again[f"voxspool_{name}", labels] == last[f"voxspool_{name}", labels]
    assert ("voxspool_realtime_factor", ()) not in again


def test_measures_that_cannot_be_written_are_a_note(make_daemon: Make, tmp_path: Path) -> None:
    """The work goes on, and the status says what is wrong."""
    daemon = make_daemon(defaults=UNCHECKED, metrics={"file": str(tmp_path / "nowhere" / "v.prom")}).start()
    daemon.drop("a.txt", "All the same.")
    assert daemon.manifest("a")["status"] == "done"
    assert any("measures cannot be written" in note for note in daemon.status()["notes"])


def test_errors_are_told_by_code_after_a_restart_too(make_daemon: Make) -> None:
    """Of a job, of a reload, of a folder that is away: in status.json and on the command line."""
    daemon = make_daemon(defaults=UNCHECKED).start()
    for number in range(12):
        daemon.drop(f"bad{number}.yaml", "txt: hello")
    daemon.wait(lambda: daemon.query("SELECT COUNT(*) FROM drops WHERE state = 'failed'") == [(12,)])
    good = daemon.config.read_text()
    daemon.config.write_text("inbux: x\n")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait(lambda: daemon.query("SELECT code FROM faults WHERE code = 'config'"))
    daemon.config.write_text(good)
    (daemon.inbox / ".voxspool-root").rename(daemon.root / "kept")
    daemon.wait(lambda: daemon.query("SELECT code FROM faults WHERE code = 'root'"), 90)
    shutil.move(daemon.root / "kept", daemon.inbox / ".voxspool-root")
    assert daemon.stop() == 0
    daemon.start()
    errors = {entry["code"]: entry for entry in daemon.status()["errors"]}
    assert {code: entry["count"] for code, entry in errors.items()} == {
        "job_file": 12,
        "config": 1,
        "root": 1,
    }
    last = errors["job_file"]["last"]
    assert len(last) == 10 and len({entry["file"] for entry in last}) == 10
    assert "did you mean text?" in last[0]["message"]
    assert "inbux" in errors["config"]["last"][0]["message"]
    shown = daemon.command("status").stdout
    assert "12 x  job_file" in shown
    assert "error config, 1 in all" in daemon.command("doctor").stdout


def test_there_is_an_answer_for_every_file(make_daemon: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked of a daemon that has a file in each state that a file can be in."""
    daemon = make_daemon(defaults=UNCHECKED).start()

    def answer(name: str | Path) -> str:
        assert cli.main(["--config", str(daemon.config), "explain", str(daemon.inbox / name)]) == 0
        return capsys.readouterr().out

    def says(name: str | Path, words: str) -> None:
        deadline = time.monotonic() + 20.0
        while words not in (told := answer(name)):
            assert time.monotonic() < deadline, f"{words!r} is not in {told!r}"
            time.sleep(0.1)

    waiting = {
        "book.epub": "is unsupported: not supported yet: .epub",
        "photo.png": "is unsupported: not a kind of file Voxspool knows",
        "a.sync-conflict-20260101-101010-ABCDEFG.txt": "is held: a sync conflict copy",
        "empty.txt": "is empty: empty so far",
        "chapter.yaml": "is waiting: waiting for later.txt",
        "wrong/a.txt": "is waiting: the folder's defaults are wrong: wrong/_defaults.yaml, line 1: x",
    }
    daemon.drop("wrong/_defaults.yaml", "x: 1")
    for name in waiting:
        daemon.drop(name, {"empty.txt": "", "chapter.yaml": "text_file: later.txt"}.get(name, "Hello there."))
    (daemon.inbox / "link.txt").symlink_to("/etc/hostname")
    daemon.drop("bad.yaml", "txt: hello")
    daemon.drop("done.txt", "This is done.")
    daemon.wait(lambda: daemon.query("SELECT 1 FROM jobs WHERE state = 'done'"))
    daemon.drop("long.txt", long_text(6_000))
    daemon.wait(lambda: daemon.progress()[0] > 0)
    daemon.drop("next.txt", "I come after."), daemon.drop("gone.txt", "I shall be cancelled.")
    for name, words in waiting.items():
        says(name, words)
    says("link.txt", "a link, not a file")
    says("bad.yaml", "It failed and lies at")
    says("done.txt", "is done: see done.json in the outbox. The file lies at")
    says("long.txt", "(speaking, ")
    says("next.txt", "is queued with priority normal; ")
    assert daemon.command("cancel", "gone.txt").returncode == 0
    says("gone.txt", "It was cancelled and lies at")
    (daemon.outbox / "done.json").unlink()
    says("done.txt", "somebody took done.json out of the outbox")
    daemon.drop("PAUSE", "")
    says("next.txt", "Voxspool is paused: delete")
    says("long.txt", "is queued")
    (daemon.inbox / "PAUSE").unlink()
    (daemon.outbox / ".voxspool-root").rename(daemon.root / "kept")
    says("next.txt", "has lost its mark")
    shutil.move(daemon.root / "kept", daemon.outbox / ".voxspool-root")
    daemon.kill()
    says("next.txt", "Voxspool is not running")


def test_a_job_file_with_mistakes_is_told_to_the_notifier(make_daemon: Make) -> None:
    """Though no worker ever had it; so is a job that was cancelled in the queue."""
    daemon = make_daemon(defaults=UNCHECKED)
    told = daemon.root / "told"
    command = ["sh", "-c", f"cat >> '{told}'; echo >> '{told}'"]
    daemon.configure(defaults=UNCHECKED, notify={"command": command, "when": ["failed", "cancelled"]})
    daemon.start()
    daemon.drop("bad.yaml", "txt: hello")
    daemon.drop("long.txt", long_text(6_000))
    daemon.wait(lambda: daemon.progress()[0] > 0)
    daemon.drop("next.txt", "I come after.")
    daemon.wait(lambda: daemon.query("SELECT 1 FROM jobs WHERE source_name = 'next.txt'"))
    assert daemon.command("cancel", "next.txt").returncode == 0
    daemon.wait(lambda: len(told.read_text().splitlines()) == 2)
    events = {event["source"]: event for event in map(json.loads, told.read_text().splitlines())}
    assert (events["bad.yaml"]["state"], events["bad.yaml"]["error_code"]) == ("failed", "job_file")
    assert (events["next.txt"]["state"], events["next.txt"]["error_code"]) == ("cancelled", "cancelled")
