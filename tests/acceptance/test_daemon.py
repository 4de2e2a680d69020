"""The daemon as its users meet it: real processes, real signals, files in and files out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest
from daemon_running import REPOSITORY, Daemon, long_text

Make = Callable[..., Daemon]
UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["wav"]}}


def test_a_text_becomes_checked_speech(make_daemon: Make) -> None:
    """Result, log and manifest lie in the outbox, in the subfolder of the drop; the source is in done."""
    daemon = make_daemon().start()
    daemon.drop("stories/hello.txt", "Hello there. This costs $3.50, says Dr. Smith.")
    manifest = daemon.manifest("stories/hello")
    assert manifest["status"] == "done"
    assert manifest["check"].startswith("pocketsphinx")
    assert all(chunk["passed"] for chunk in manifest["chunks"])
    assert (daemon.outbox / manifest["outputs"][0]["path"]).stat().st_size > 1000
    assert "hello.txt" in (daemon.outbox / "stories" / "hello.log").read_text()
    daemon.wait(lambda: list((daemon.inbox / ".voxspool" / "done").glob("*/hello.txt")))
    assert daemon.stop() == 0
    assert daemon.status()["state"] == "stopped"


def test_what_was_dropped_while_it_was_down_is_done(make_daemon: Make) -> None:
    """Files that lie there at the start go the same way."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("early.txt", "I was here first.")
    daemon.start()
    assert daemon.manifest("early")["status"] == "done"


def test_without_events_everything_works_the_same(make_daemon: Make) -> None:
    """The scan is the truth."""
    daemon = make_daemon(defaults=UNCHECKED, intake={"events": False}).start()
    daemon.drop("a.txt", "No event told of me.")
    assert daemon.manifest("a")["status"] == "done"


def test_once_ends_by_itself_and_tells_of_failures(make_daemon: Make) -> None:
    """Exit 0 if all came out well, 1 if any failed; both are listed."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("good.txt", "All is well.")
    assert (ended := daemon.command("--once")).returncode == 0, ended.stderr
    assert "good.wav" in ended.stdout
    daemon.drop("bad.yaml", "txt: hello")
    ended = daemon.command("run", "--once")
    assert ended.returncode == 1
    assert "bad.yaml.error.txt" in ended.stdout
    assert "did you mean text?" in (daemon.outbox / "failed" / "bad.yaml.error.txt").read_text()


def test_moving_a_failed_file_back_is_the_retry(make_daemon: Make) -> None:
    """Once it comes out well, the old note is gone."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("job.yaml", "text: hello\nengine: espeak\nvoice: nobody-knows")
    assert daemon.command("--once").returncode == 1
    failed = daemon.outbox / "failed" / "job.yaml"
    assert failed.exists()
    daemon.drop("job.yaml", failed.read_text().replace("voice: nobody-knows", ""))
    failed.unlink()
    assert daemon.command("--once").returncode == 0
    assert not list((daemon.outbox / "failed").glob("job*"))
    assert daemon.manifest("job")["status"] == "done"


def test_sigterm_leaves_the_job_resumable(make_daemon: Make) -> None:
    """It ends soon after the chunk at hand; the next start speaks only what is missing."""
    daemon = make_daemon(defaults={"output": {"formats": ["wav"]}}).start()
    daemon.drop("book.txt", long_text(20))
    daemon.wait(lambda: daemon.progress()[0] >= 3)
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < 15
    assert not (daemon.outbox / "book.json").exists()
    daemon.start()
    chunks = daemon.manifest("book")["chunks"]
    assert len(chunks) == 20
    assert [chunk["index"] for chunk in chunks] == list(range(20))
    assert 3 <= sum(chunk["cached"] for chunk in chunks) < 20


def test_a_killed_worker_costs_an_attempt_and_no_chunk(make_daemon: Make) -> None:
    """The daemon lives on, and the job is done by the next worker from its finished chunks."""
    daemon = make_daemon(defaults={"output": {"formats": ["wav"]}}).start()
    daemon.drop("book.txt", long_text(16))
    daemon.wait(lambda: daemon.progress()[0] >= 3)
    daemon.workers()[0].kill()
    manifest = daemon.manifest("book")
    assert sum(chunk["cached"] for chunk in manifest["chunks"]) >= 3
    assert daemon.process is not None and daemon.process.poll() is None


def test_a_job_that_kills_its_workers_is_given_up(make_daemon: Make) -> None:
    """After three deaths the file is in failed with the reason, and the next file is done."""
    daemon = make_daemon(defaults={"output": {"formats": ["wav"]}}).start()
    daemon.drop("poison.txt", long_text(30))
    for attempt in (1, 2, 3):
        daemon.wait(lambda n=attempt: daemon.query("SELECT COUNT(*) FROM attempts") == [(n,)])
        daemon.wait(lambda: daemon.progress()[1] > 0)
        victim = daemon.workers()[0]
        victim.send_signal(signal.SIGSEGV)
        victim.wait(30)
    note = daemon.outbox / "failed" / "poison.txt.error.txt"
    daemon.wait(note.exists)
    assert "3 times" in note.read_text()
    daemon.drop("next.txt", "Life goes on.")
    assert daemon.manifest("next")["status"] == "done"


def test_a_killed_daemon_takes_its_workers_along_and_loses_nothing(make_daemon: Make) -> None:
    """SIGKILL for the supervisor alone: no worker survives it, and the next start finishes the job."""
    daemon = make_daemon(defaults={"output": {"formats": ["wav"]}}).start()
    daemon.drop("book.txt", long_text(14))
    daemon.wait(lambda: daemon.progress()[0] >= 3)
    workers = daemon.workers()
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    assert not psutil.wait_procs(workers, timeout=10)[1]
    daemon.start()
    assert len(daemon.manifest("book")["chunks"]) == 14


def test_a_second_daemon_is_refused(make_daemon: Make) -> None:
    """Two of them would do everything twice."""
    daemon = make_daemon().start()
    ended = daemon.command("--once")
    assert ended.returncode == 1
    assert "Another Voxspool is running" in ended.stderr


def test_a_wrong_configuration_ends_with_78(make_daemon: Make) -> None:
    """With the line, the key and the nearest valid one; systemd does not restart on it."""
    daemon = make_daemon()
    daemon.config.write_text("inbx: here\n")
    ended = daemon.command("run")
    assert ended.returncode == 78
    assert "line 1: inbx: unknown key; did you mean inbox?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sighup_takes_a_valid_configuration_and_keeps_the_old_one_otherwise(make_daemon: Make) -> None:
    """New defaults hold for what is dropped afterwards; a broken file changes nothing."""
    daemon = make_daemon(defaults=UNCHECKED).start()
    assert daemon.process is not None
    daemon.configure(defaults={**UNCHECKED, "output": {"formats": ["flac"]}})
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait(lambda: "configuration reloaded" in (daemon.root / "daemon.log").read_text())
    daemon.drop("one.txt", "Now in another format.")
    assert daemon.manifest("one")["outputs"][0]["format"] == "flac"
    daemon.config.write_text("defaults: [")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait(lambda: "was not reloaded" in (daemon.root / "daemon.log").read_text())
    daemon.drop("two.txt", "Still as before.")
    assert daemon.manifest("two")["outputs"][0]["format"] == "flac"


def test_the_pause_file_pauses(make_daemon: Make) -> None:
    """Nothing is taken while it lies there; a running job stops at its next chunk and goes on later."""
    daemon = make_daemon(defaults={"output": {"formats": ["wav"]}}).start()
    daemon.drop("book.txt", long_text(16))
    daemon.wait(lambda: daemon.progress()[0] >= 2)
    (daemon.inbox / "PAUSE").touch()
    daemon.wait(lambda: daemon.progress() == (0, 0))
    daemon.drop("later.txt", "I have to wait.")
    daemon.wait(lambda: daemon.status()["state"] == "paused")
    assert (daemon.inbox / "later.txt").exists()
    assert "paused" in daemon.command("explain", "later.txt").stdout
    (daemon.inbox / "PAUSE").unlink()
    assert daemon.manifest("later")["status"] == "done"
    assert daemon.manifest("book")["status"] == "done"


def test_every_waiting_file_has_its_reason(make_daemon: Make) -> None:
    """In the status, and by `explain`."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("book.epub", b"PK")
    daemon.drop("picture.png", b"x")
    daemon.drop("a.sync-conflict-20260101-101010-ABCDEFG.txt", "mine or yours?")
    daemon.drop("job.yaml", "text_file: chapter.txt")
    daemon.start()
    reasons: dict[str, str] = {}

    def told() -> bool:
        reasons.update({entry["path"]: entry["reason"] for entry in daemon.status().get("waiting", ())})
        return len(reasons) == 4 and "waiting for" in reasons["job.yaml"]

    daemon.wait(told)
    assert "not supported yet" in reasons["book.epub"]
    assert "not a kind of file Voxspool knows" in reasons["picture.png"]
    assert "waiting for chapter.txt" in reasons["job.yaml"]
    assert "waiting for chapter.txt" in daemon.command("explain", "job.yaml").stdout
    assert "sync conflict" in next(reason for path, reason in reasons.items() if "conflict" in path)
    daemon.drop("chapter.txt", "Here I am.")
    assert daemon.manifest("job")["status"] == "done"
    assert (daemon.inbox / "book.epub").exists()


def test_cancel_and_retry(make_daemon: Make) -> None:
    """A cancelled job's file lies in failed with that word, and `retry` brings it back."""
    daemon = make_daemon(defaults={"output": {"formats": ["wav"]}}).start()
    daemon.drop("book.txt", long_text(40))
    daemon.wait(lambda: daemon.progress()[0] >= 1)
    job = json.loads(daemon.command("status", "--json").stdout)["running"][0]["job"]
    assert daemon.command("cancel", job).returncode == 0
    note = daemon.outbox / "failed" / "book.txt.error.txt"
    daemon.wait(note.exists)
    assert "cancelled" in note.read_text()
    assert daemon.command("cancel", job).returncode == 1
    assert "back in the inbox" in daemon.command("retry", job).stdout
    daemon.wait(lambda: daemon.progress()[0] >= 1)


def test_redropping_replaces_our_own_result_and_nothing_else(make_daemon: Make) -> None:
    """Same name: replaced and all from the cache. A file that somebody put there stays."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("story.txt", "Once upon a time.\n\nThere was a king.")
    daemon.command("--once", check=True)
    daemon.drop("story.txt", "Once upon a time.\n\nThere was a queen.")
    daemon.command("--once", check=True)
    assert [chunk["cached"] for chunk in daemon.manifest("story")["chunks"]] == [True, False]
    (daemon.outbox / "story.wav").write_bytes(b"my own recording")
    daemon.drop("story.txt", "Once upon a time.")
    daemon.command("--once", check=True)
    assert (daemon.outbox / "story.wav").read_bytes() == b"my own recording"
    assert daemon.manifest("story~2")["outputs"][0]["path"] == "story~2.wav"


def test_submit_copies_and_refuses_to_overwrite(make_daemon: Make) -> None:
    """The command line has no side door: it drops files too."""
    daemon = make_daemon(defaults=UNCHECKED)
    (daemon.root / "mine.txt").write_text("Submitted.")
    daemon.command("submit", str(daemon.root / "mine.txt"), "--folder", "a/b", check=True)
    assert (daemon.inbox / "a" / "b" / "mine.txt").read_text() == "Submitted."
    (daemon.root / "mine.txt").write_text("Something else.")
    ended = daemon.command("submit", str(daemon.root / "mine.txt"), "--folder", "a/b")
    assert ended.returncode == 1 and "lies in the inbox already" in ended.stderr
    assert daemon.command("submit", "mine.txt", "--folder", "../out").returncode == 1


def test_the_other_commands_answer(make_daemon: Make) -> None:
    """check, doctor, status, prune --dry-run and audit run on a fresh and on a used installation."""
    daemon = make_daemon(defaults=UNCHECKED)
    assert "is valid" in daemon.command("check").stdout
    assert "never started" in daemon.command("status").stdout
    daemon.drop("a.txt", "One.")
    daemon.command("--once", check=True)
    assert "1 done" in daemon.command("status").stdout
    assert daemon.command("audit").returncode == 0
    assert daemon.command("prune", "--dry-run").returncode == 0
    assert daemon.command("doctor").returncode == 0, daemon.command("doctor").stdout
    assert "never seen" in daemon.command("explain", "nothing.txt").stdout


def test_three_ways_for_a_source(make_daemon: Make) -> None:
    """move keeps it in done, delete removes it, leave does not touch the inbox and does it once."""
    daemon = make_daemon(defaults=UNCHECKED, intake={"source": "leave"})
    path = daemon.drop("a.txt", "Leave me.")
    daemon.command("--once", check=True)
    assert path.read_text() == "Leave me."
    assert daemon.manifest("a")["status"] == "done"
    assert "nothing to do" in daemon.command("--once", check=True).stdout
    daemon.configure(defaults=UNCHECKED, intake={"source": "delete"})
    daemon.drop("b.txt", "Delete me.")
    daemon.command("--once", check=True)
    assert not list(daemon.inbox.rglob("*b.txt"))


def test_a_high_priority_job_goes_first(make_daemon: Make) -> None:
    """Among those that wait."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("1.yaml", "text: I am in no hurry.\npriority: low\n")
    daemon.drop("2.yaml", "text: I am as any other.\n")
    daemon.drop("3.yaml", "text: I must go first.\npriority: high\n")
    daemon.command("--once", check=True)
    times = {name: (daemon.outbox / f"{name}.json").stat().st_mtime_ns for name in "123"}
    assert times["3"] < times["2"] < times["1"]


def test_the_supervisor_stays_small() -> None:
    """It imports no model's package, neither torch nor the recogniser nor the voice converter."""
    heavy = ("torch", "whisper", "chatterbox", "pocketsphinx", "parselmouth")
    program = f"import daemon, sys; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root may become somebody else (setpriv)",
)
def test_a_plain_user_can_run_it_from_read_only_code(make_daemon: Make) -> None:
    """Nothing in it needs root or writes beside its code: user 65534 may read everything, write only here."""
    daemon = make_daemon(defaults=UNCHECKED)
    daemon.drop("a.txt", "Plain.")
    for folder, _, files in os.walk(daemon.root):
        for name in (".", *files):
            os.chown(os.path.join(folder, name), 65534, 65534)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    command = [sys.executable, str(REPOSITORY / "daemon.py"), "--config", str(daemon.config), "--once"]
    ended = subprocess.run(
        [*nobody, *reading, *command], cwd="/", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert os.stat(daemon.outbox / "a.json").st_uid == 65534
