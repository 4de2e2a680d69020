"""The real daemon prunes what the rehearsal said, beside its work, and warns in the status."""

import time
from collections.abc import Callable

from daemon_running import Daemon

Make = Callable[..., Daemon]
UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["opus"]}}
OVER = {"outbox_max_gb": 5e-6, "keep_newest": 0, "keep_hours": 0}


def test_what_the_rehearsal_says_goes_at_the_start_and_nothing_else(make_daemon: Make) -> None:
    """Whole jobs, oldest first, to under the cap; what is kept, changed or not ours stays."""
    daemon = make_daemon(defaults=UNCHECKED).start()
    for name in ("one", "two", "three", "four"):
        daemon.drop(f"{name}.txt", f"This is number {name}. It is here to be thrown away, or to be kept.")
        daemon.manifest(name)
        time.sleep(0.05)
    daemon.wait(lambda: daemon.query("SELECT COUNT(*) FROM drops WHERE state = 'done'") == [(4,)])
    assert daemon.stop() == 0
    (daemon.outbox / "one.opus.keep").touch()
    (daemon.outbox / "theirs.opus").write_bytes(b"x" * 100_000)
    daemon.configure(defaults=UNCHECKED, retention=OVER)
    said = daemon.command("prune", "--dry-run", check=True).stdout.splitlines()
    going = [line.split("results: ")[1].split(" ")[0] for line in said if line.startswith("goes")]
    assert going in (["two"], ["two", "three"])
    assert any("one (carries a keep mark)" in line for line in said)
    assert len(list(daemon.outbox.glob("*.opus"))) == 5
    daemon.start()
    daemon.wait(lambda: not any((daemon.outbox / f"{name}.opus").exists() for name in going))
    daemon.wait(lambda: any("The outbox holds" in note for note in daemon.status()["notes"]))
    left = {path.name for path in daemon.outbox.iterdir() if path.is_file()} - {"status.json"}
    whole = {
        f"{name}.{suffix}"
        for name in {"one", "two", "three", "four"} - {*going}
        for suffix in ("opus", "log", "json")
    }
    assert left - {".voxspool-root"} == whole | {"one.opus.keep", "theirs.opus"}
    assert daemon.command("audit").returncode == 0
    assert daemon.stop() == 0


def test_once_waits_for_pruning_to_end(make_daemon: Make) -> None:
    """A run from cron prunes as well."""
    daemon = make_daemon(defaults=UNCHECKED)
    for number in range(3):
        daemon.drop(f"{number}.txt", f"This is number {number}.")
    assert daemon.command("--once").returncode == 0
    daemon.configure(defaults=UNCHECKED, retention=OVER)
    assert daemon.command("--once").returncode == 0
    assert len(list(daemon.outbox.glob("*.opus"))) < 3
