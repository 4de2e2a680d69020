"""The verbs: what they say is true in each case. What they do is tested where it is done."""

import errno
import json
from pathlib import Path

import pytest
from ledger_samples import a_drop, a_job, submit

from pipeline import cli, doctor
from pipeline.config import Config
from pipeline.doctor import Finding
from pipeline.errors import EnvironmentFailure
from pipeline.files import exclusive_lock
from pipeline.intake.roots import Role, memory_key, open_root
from pipeline.jobs.job import DropState, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger


@pytest.fixture
def config_file(tmp_path: Path, config: Config) -> Path:
    """A configuration whose four folders lie beside it."""
    path = tmp_path / "config.yaml"
    path.write_text("intake: {settle_seconds: 0}\n")
    return path


def run(config_file: Path, *words: str) -> int:
    """One command line."""
    return cli.main(["--config", str(config_file), *words])


@pytest.mark.parametrize("words", [("status",), ("explain", "a.txt"), ("audit",), ("cancel", "a.txt")])
def test_who_may_not_look_into_the_state_is_told_so(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """The folders are for a group, the state is for the daemon's user alone."""
    monkeypatch.setattr(cli.os, "access", lambda path, mode, **_: False)
    with pytest.raises(EnvironmentFailure, match="belongs to another user") as caught:
        run(config_file, *words)
    assert "sudo voxspool" in caught.value.hint


def test_nothing_is_submitted_beneath_a_share_that_is_away(
    config_file: Path, ledger: Ledger, layout: Layout, tmp_path: Path
) -> None:
    """The empty folder in its place takes files as readily; who may not look into the state is not asked."""
    marker = open_root(layout.inbox, Role.INBOX).marker
    assert marker is not None
    ledger.set_meta(memory_key(Role.INBOX, layout.inbox), marker.uuid)
    (tmp_path / "mine.txt").write_text("Hello.")
    (layout.inbox / ".voxspool-root").unlink()
    with pytest.raises(EnvironmentFailure, match="has lost its mark"):
        run(config_file, "submit", str(tmp_path / "mine.txt"), "--folder", "sub")
    assert list(layout.inbox.iterdir()) == []


def test_a_disk_that_refuses_a_command_is_told_as_one(
    config_file: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence with what to do."""
    (tmp_path / "mine.txt").write_text("Hello.")

    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EnvironmentFailure, match=f"The inbox {layout.inbox} is read-only") as caught:
        run(config_file, "submit", str(tmp_path / "mine.txt"))
    assert "remount,rw" in caught.value.hint


# -- cancel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "runs", "said"),
    [
        ("queued", True, "d1-0 is taken out of the queue."),
        (
            "running",
            True,
            "d1-0 is being worked on and will be cancelled as soon as the chunk in hand is done.",
        ),
        ("queued", False, "d1-0 will be cancelled when Voxspool is started."),
        ("running", False, "d1-0 will be cancelled when Voxspool is started."),
    ],
)
def test_cancel_says_when_it_happens(
    config_file: Path,
    ledger: Ledger,
    layout: Layout,
    capsys: pytest.CaptureFixture[str],
    state: str,
    runs: bool,
    said: str,
) -> None:
    """A queued job has no next chunk, and without a daemon nobody reads the request yet."""
    submit(ledger, a_job())
    if state == "running":
        ledger.claim("w")
    with exclusive_lock(layout.lock_file if runs else layout.state / "other.lock") as free:
        assert free
        assert run(config_file, "cancel", "d1-0") == 0
    assert capsys.readouterr().out == said + "\n"


def test_what_has_ended_cannot_be_cancelled(
    config_file: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor what there never was."""
    submit(ledger, a_job())
    ledger.finish("d1-0", JobState.DONE)
    assert run(config_file, "cancel", "d1-0") == 1
    assert capsys.readouterr().err == "d1-0 is done already.\n"
    assert run(config_file, "cancel", "x") == 1
    assert "There is no job and no dropped file x." in capsys.readouterr().err


# -- looking ------------------------------------------------------------------------------------------


def test_status_keeps_what_the_daemon_left_out_and_takes_jobs_from_the_ledger(
    config_file: Path, ledger: Ledger, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many more files wait is known to the daemon alone, how many jobs are queued to the ledger."""
    submit(ledger, a_job())
    written = {"schema": "voxspool/status/1", "state": "running", "not_listed": {"queued": 9, "waiting": 71}}
    layout.status_file.write_text(json.dumps(written))
    assert run(config_file, "status", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["not_listed"] == {"queued": 0, "waiting": 71}
    assert (told["state"], told["jobs"]["queued"]) == ("stopped", 1)


def test_status_does_not_ask_the_outbox_while_a_daemon_runs(
    config_file: Path,
    ledger: Ledger,
    layout: Layout,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may lie on a share that does not answer, and the daemon has said what lies in it."""
    drop = a_drop()
    ledger.plan_claim(drop)
    ledger.submit(drop, [])
    ledger.end_drop(drop.id, DropState.FAILED, "failed/story.txt")
    said = [{"path": "failed/a.txt", "job": "j", "reason": "r"}]
    layout.status_copy.write_text(json.dumps({"schema": "voxspool/status/1", "state": "x", "failed": said}))
    asked: list[object] = []
    monkeypatch.setattr("pipeline.status.os.path.lexists", lambda path: asked.append(path))
    with exclusive_lock(layout.lock_file) as free:
        assert free and run(config_file, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["failed"] == said
    assert [path for path in asked if str(layout.outbox) in str(path)] == []


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_doctor_ends_with_1_where_something_fails(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, level: str, code: int
) -> None:
    """A warning is no failure."""
    finding = Finding(level=level, what="a")  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "examine", lambda _: [finding])
    assert run(config_file, "doctor") == code
