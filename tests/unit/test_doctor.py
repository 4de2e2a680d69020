"""The doctor: programs, clock, file events, neighbours, records; what is wrong and what to do about it."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import espeakng_loader
import pytest
from doctor_samples import NOW, about, configure, machine, make_roots, mount
from ledger_samples import Clock, a_drop, a_job, submit

from pipeline import cli
from pipeline.config import Config
from pipeline.doctor import Finding, Machine, examine, failed, programs, render
from pipeline.doctor.finding import clock_is_synchronised, try_to_watch
from pipeline.doctor.programs import pins
from pipeline.doctor.watching import in_use
from pipeline.files import exclusive_lock
from pipeline.jobs.job import DropState, JobState
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.prune import CLOCK_FACT
from pipeline.retention import Seen
from pipeline.sound import espeak_library
from tests.conftest import REPOSITORY


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration whose four folders exist."""
    make_roots(tmp_path)
    return configure(tmp_path)


@pytest.fixture
def layout(config: Config) -> Layout:
    """Its places."""
    return layout_of(config)


# -- the whole ----------------------------------------------------------------------------------


def test_a_healthy_machine_gets_a_clean_bill(config: Config) -> None:
    """Everything that the core needs is there after `pip install`."""
    findings = examine(config, machine())
    assert {finding.level for finding in findings} == {"ok"}, render(findings)
    for word in (
        "Python",
        "libraries at the versions that were tested",
        "ffmpeg",
        "espeak-ng 1.",
        "pocketsphinx 5",
        "patterns of names",
        "folders to watch",
        "Voxspool is not running",
        "there is no ledger yet",
    ):
        assert about(findings, word).level == "ok", word
    assert "can be written (ext4)" in about(findings, "inbox /").what


def test_an_examination_leaves_no_trace(config: Config, tmp_path: Path, layout: Layout) -> None:
    """No probe file, no mark, no ledger stays behind; nor does it touch a ledger that is there."""
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    examine(config, machine())
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    Ledger(layout.ledger_file, clock=Clock()).close()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    examine(config, machine())
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_what_is_wrong_always_comes_with_something_to_do(config: Config, tmp_path: Path) -> None:
    """On a machine where much is wrong at once."""
    ledger = Ledger(layout_of(config).ledger_file, clock=Clock(NOW))
    ledger.set_meta("trouble", "The disk was full.")
    ledger.faults.add(code="root", file="", message="gone")
    ledger.close()
    (tmp_path / "voices").rmdir()
    (tmp_path / "outbox" / ".stfolder").mkdir()
    (tmp_path / "fstab").write_text(f"nas:/x {tmp_path}/inbox nfs4 defaults 0 0\n")
    ill = configure(
        tmp_path, "defaults: {engine: chatterbox, check: {by: whisper}}\nnotify: {command: [no-such]}\n"
    )
    here = machine(
        python=(3, 9),
        clock=lambda: NOW,
        synchronised=lambda: False,
        mounts=(mount("/"), mount(str(tmp_path / "state"), "nfs4"), mount(f"{tmp_path}/inbox/x", "tmpfs")),
        fstab=tmp_path / "fstab",
        inotify=Path("/nowhere"),
    )
    wrong = [finding for finding in examine(ill, here) if finding.level != "ok"]
    assert len(wrong) >= 14
    assert [finding.what for finding in wrong if not finding.advice] == []


def test_findings_read_well() -> None:
    """One line each, the advice indented below."""
    findings = [Finding(level="ok", what="a"), Finding(level="fail", what="b", advice="do this\nthen that")]
    assert render(findings) == "ok    a\nfail  b\n      do this\n      then that\n"
    assert failed(findings)
    assert not failed(findings[:1])


def test_the_exit_code_tells_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 where the daemon cannot work, 0 where it can, warnings or not."""
    make_roots(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    command = ["--config", str(tmp_path / "config.yaml"), "doctor"]
    assert cli.main(command) == 0
    (tmp_path / "outbox").rmdir()
    (tmp_path / "outbox").touch()
    assert cli.main(command) == 1
    assert "fail  outbox" in capsys.readouterr().out


# -- programs -----------------------------------------------------------------------------------


def test_an_old_python_is_told(config: Config) -> None:
    """With the version that is needed."""
    found = about(examine(config, machine(python=(3, 10))), "Python 3.10")
    assert found.level == "fail" and "Install Python 3.11 or newer" in found.advice


def test_a_library_of_another_version_is_told(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a missing one; one that only some Pythons need is not."""
    pinned = tmp_path / "requirements-core.txt"
    pinned.write_text(
        "# core\nloguru==0.0.1\nno-such-library==1\naudioop-never==1; python_version > '4'\nrich==15.0.0\n"
    )
    monkeypatch.setattr(programs, "REQUIREMENTS", pinned)
    found = about(examine(config, machine()), "libraries are not as they were tested")
    assert found.level == "warn" and "pip install -r requirements-core.txt" in found.advice
    assert "loguru is 0.7.3, not 0.0.1; no-such-library is missing, not 1" in found.what
    assert "rich" not in found.what and "never" not in found.what
    pinned.unlink()
    assert about(examine(config, machine()), "is not there: versions").level == "warn"


def test_every_pin_of_the_repository_is_read() -> None:
    """None is passed over for its spelling."""
    text = (REPOSITORY / "requirements-core.txt").read_text()
    lines = [line.partition("==")[0] for line in text.splitlines() if not line.startswith("#")]
    assert pins(text).keys() == set(lines)
    assert len(pins(text)["numpy"]) == 3  # two versions, each for some Pythons


def test_a_tool_that_does_not_load_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason and what to install; the others are still tried."""

    def broken() -> str:
        raise OSError("libespeak-ng.so: cannot open shared object file")

    monkeypatch.setattr(programs, "_espeak", broken)
    findings = examine(config, machine())
    found = about(findings, "espeak-ng does not work")
    assert found.level == "fail"
    assert "cannot open shared object file" in found.what
    assert "requirements-core.txt" in found.advice
    assert about(findings, "pocketsphinx").level == "ok"


def test_a_tool_that_knows_what_to_do_says_so_itself(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """To install again would not help where the path is too long for espeak-ng."""
    deep = "/" + "d" * 200
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: deep)
    espeak_library.version.cache_clear()
    try:
        found = about(examine(config, machine()), "espeak-ng does not work")
    finally:
        espeak_library.version.cache_clear()
    assert found.level == "fail" and deep in found.what
    assert "a folder with a shorter name" in found.advice


def test_a_gpu_is_named(config: Config) -> None:
    """As nvidia-smi tells it, one line each; none is no fault."""
    asked: list[Sequence[str]] = []

    def ask(command: Sequence[str]) -> str:
        asked.append(command)
        return "NVIDIA X, 1000 MiB, 600.1\nNVIDIA Y, 2000 MiB, 600.1"

    findings = examine(config, machine(ask=ask))
    assert [f.what for f in findings if f.what.startswith("GPU")] == [
        "GPU NVIDIA X, 1000 MiB, 600.1",
        "GPU NVIDIA Y, 2000 MiB, 600.1",
    ]
    assert asked[0][0] == "nvidia-smi"
    assert about(examine(config, machine()), "no NVIDIA GPU").level == "ok"


def test_models_that_are_not_installed_are_told_plainly(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is no fault: the embedded engine needs none."""
    there = {"torch": "2.6.0"}
    monkeypatch.setattr(programs, "installed", lambda package: there.get(package, None))
    found = programs._models()
    assert found.level == "ok" and found.what.startswith("not installed: chatterbox-tts, openai-whisper. ")
    there |= {"chatterbox-tts": "0.1.7", "openai-whisper": "20250625"}
    assert programs._models().what == "torch 2.6.0, chatterbox-tts 0.1.7, openai-whisper 20250625"


def test_defaults_that_this_version_cannot_do_are_told(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first hundred jobs have failed for it."""
    monkeypatch.setattr(programs.engines, "LOADERS", {"espeak": None})
    monkeypatch.setattr(programs.transcribers, "LOADERS", {"pocketsphinx": None})
    wanted = configure(tmp_path, "defaults: {engine: chatterbox-turbo, check: {by: whisper}}\n")
    findings = examine(wanted, machine())
    for word, names in (("defaults.engine is chatterbox-turbo", "espeak"), ("check.by is whisper", "none")):
        found = about(findings, word)
        assert found.level == "fail" and names in found.advice


def test_a_notifier_that_is_not_there_is_told(config: Config, tmp_path: Path) -> None:
    """Or nobody would ever hear of a failure."""
    wanted = configure(tmp_path, "notify: {command: [no-such-program, x]}\n")
    assert about(examine(wanted, machine()), "runs no-such-program").level == "warn"


def test_no_large_library_is_ever_imported(tmp_path: Path) -> None:
    """Looking for a GPU must not take half a minute."""
    (tmp_path / "config.yaml").write_text("")
    program = (
        "import sys; from pathlib import Path; from pipeline import doctor; from pipeline.config import"
        f" load_config; doctor.examine(load_config(Path({str(tmp_path / 'config.yaml')!r})))\n"
        "print([name for name in ('torch', 'whisper', 'chatterbox') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_programs_that_are_missing_or_fail_give_no_answer() -> None:
    """Neither raises."""
    ask = Machine().ask
    assert ask(["voxspool-no-such-program"]) is None
    assert ask(["false"]) is None
    assert ask(["echo", "hello"]) == "hello"


# -- the clock ----------------------------------------------------------------------------------


def test_clocks_that_are_wrong_are_told(config: Config) -> None:
    """One that is not set, and one that differs from the file server's."""
    findings = examine(config, machine(clock=lambda: 100.0))
    found = about(findings, "the clock says 1970")
    assert found.level == "fail" and "timedatectl set-ntp true" in found.advice
    behind = [finding for finding in findings if "ahead of this machine's" in finding.what]
    assert len(behind) == 3
    assert {finding.level for finding in behind} == {"warn"}


@pytest.mark.parametrize(
    ("wall", "uptime", "boot", "told"),
    [
        (NOW + 90_000.0, 20.0, "b", "the clock was set 1.0 days forward"),
        (NOW - 7_200.0, 20.0, "b", "the clock was set 2.0 h back"),
        (NOW + 90_000.0, 20.0, "other", "before the machine was started"),
    ],
)
def test_a_clock_that_jumped_since_the_last_look_is_told(
    config: Config, layout: Layout, wall: float, uptime: float, boot: str, told: str
) -> None:
    """Against what the ledger last saw, which is not changed by asking."""
    ledger = Ledger(layout.ledger_file, clock=Clock())
    last = json.dumps({"wall": NOW, "uptime": 10.0, "boot": "b"})
    ledger.set_meta(CLOCK_FACT, last)
    here = machine(clocks=lambda: Seen(wall=wall, uptime=uptime, boot=boot))
    found = about(examine(config, here), told)
    assert found.level == "warn" and "timedatectl set-ntp true" in found.advice
    assert "nothing is removed until" in found.what
    assert ledger.meta(CLOCK_FACT) == last
    ledger.close()


def test_a_clock_that_nothing_keeps_right_is_told(config: Config) -> None:
    """With the command; where the kernel does not say, nothing is said."""
    found = about(examine(config, machine(synchronised=lambda: False)), "nothing keeps the clock right")
    assert found.level == "warn" and "timedatectl set-ntp true" in found.advice
    silent = examine(config, machine(synchronised=lambda: None))
    assert not [finding for finding in silent if "keeps the clock" in finding.what]


def test_the_kernel_is_asked_about_its_clock() -> None:
    """It answers, and the clock is as before."""
    assert clock_is_synchronised() in (True, False)


# -- file events --------------------------------------------------------------------------------


def limits(tmp_path: Path, watches: int, watchers: int = 128) -> Path:
    """A /proc/sys/fs/inotify."""
    folder = tmp_path / "limits"
    folder.mkdir(exist_ok=True)
    (folder / "max_user_watches").write_text(f"{watches}\n")
    (folder / "max_user_instances").write_text(f"{watchers}\n")
    return folder


def test_too_few_watches_for_the_folders_are_told(config: Config, tmp_path: Path) -> None:
    """With the command that raises the limit for good; hidden folders are not watched and do not count."""
    for number in range(9):
        (tmp_path / "inbox" / f"sub{number}").mkdir()
        (tmp_path / "inbox" / ".voxspool" / "done" / str(number)).mkdir(parents=True)
    found = about(examine(config, machine(inotify=limits(tmp_path, 15))), "10 folders to watch")
    assert found.level == "warn"
    assert "fs.inotify.max_user_watches=524288' | sudo tee -a /etc/sysctl.d/" in found.advice
    assert "intake.events: false" in found.advice
    assert about(examine(config, machine(inotify=limits(tmp_path, 20))), "10 folders to watch").level == "ok"
    (tmp_path / "limits" / "max_user_watches").unlink()
    found = about(examine(config, machine(inotify=tmp_path / "limits")), "cannot be read")
    assert found.level == "warn" and found.advice


@pytest.mark.parametrize(
    ("number", "name", "limit"),
    [
        (errno.EMFILE, "max_user_instances", "fs.inotify.max_user_instances=512"),
        (errno.ENOSPC, "max_user_watches", "fs.inotify.max_user_watches=524288"),
    ],
)
def test_a_limit_that_others_used_up_is_told(
    config: Config, tmp_path: Path, number: int, name: str, limit: str
) -> None:
    """By really asking for a watch: the figures alone do not tell."""

    def refuse(_folder: Path) -> None:
        raise OSError(number, "no")

    found = about(examine(config, machine(inotify=limits(tmp_path, 1000), watch=refuse)), "no more watch")
    assert found.level == "warn" and limit in found.advice and name in found.advice


def test_a_watch_is_really_asked_for(tmp_path: Path) -> None:
    """On a folder that is there it comes, and is given back; on another the error passes."""
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        try_to_watch(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == open_before
    with pytest.raises(OSError, match="no more watches"):
        try_to_watch(tmp_path / "nowhere")


def test_what_others_use_is_counted(tmp_path: Path) -> None:
    """From the tables of the kernel: of this user, all processes together."""
    for process, watches in (("17", 3), ("18", 2)):
        (tmp_path / process / "fd").mkdir(parents=True)
        (tmp_path / process / "fdinfo").mkdir()
        (tmp_path / process / "fd" / "4").symlink_to("anon_inode:inotify")
        (tmp_path / process / "fd" / "5").symlink_to("/etc/hostname")
        told = "pos: 0\n" + "inotify wd:1 ino:2\n" * watches
        (tmp_path / process / "fdinfo" / "4").write_text(told)
    (tmp_path / "self").mkdir()
    assert in_use(tmp_path, os.geteuid()) == (5, 2)
    assert in_use(tmp_path, os.geteuid() + 1) == (0, 0)


def test_what_others_use_is_not_free_for_us(config: Config, tmp_path: Path) -> None:
    """One folder to watch needs two watches, and of six five are used."""
    process = tmp_path / "proc" / "17"
    (process / "fd").mkdir(parents=True)
    (process / "fd" / "4").symlink_to("anon_inode:inotify")
    (process / "fdinfo").mkdir()
    (process / "fdinfo" / "4").write_text("inotify wd:1 ino:2\n" * 5)
    here = machine(inotify=limits(tmp_path, 6), processes=tmp_path / "proc")
    found = about(examine(config, here), "1 folders to watch")
    assert found.level == "warn" and "5 and 1 are in use" in found.what
    assert about(examine(config, machine(inotify=limits(tmp_path, 6))), "folders to watch").level == "ok"


def test_a_network_inbox_is_scanned(config: Config, tmp_path: Path) -> None:
    """And said to be; the limits of file events do not matter then."""
    here = machine(mounts=(mount("/"), mount(str(tmp_path / "inbox"), "nfs4")))
    findings = examine(config, here)
    assert about(findings, "scanned, not watched").level == "ok"
    assert "nfs4, network" in about(findings, "inbox /").what
    assert not [finding for finding in findings if "watchers that a user" in finding.what]


# -- neighbours ---------------------------------------------------------------------------------


def test_a_syncthing_folder_gets_its_ignore_lines(config: Config, tmp_path: Path) -> None:
    """The lines to add, where, and why old results stay; both fall silent once it is done."""
    (tmp_path / "outbox" / ".stfolder").mkdir()
    findings = examine(config, machine())
    found = about(findings, "the outbox is synchronised")
    assert found.level == "warn"
    lines = found.advice.splitlines()[1:]
    assert ".voxspool" in lines and ".voxspool-root" in lines
    assert f"{tmp_path}/outbox/.stignore" in found.advice
    assert "deletes_propagate: accepted" in about(findings, "reported, not removed").advice
    (tmp_path / "outbox" / ".stignore").write_text("\n".join(lines))
    accepted = configure(tmp_path, "retention: {deletes_propagate: accepted}\n")
    findings = examine(accepted, machine())
    assert about(findings, "the outbox is synchronised").level == "ok"
    assert not [finding for finding in findings if "reported, not removed" in finding.what]


def test_a_daemon_that_runs_is_named(config: Config, layout: Layout) -> None:
    """By its process, which the status tells."""
    layout.status_file.write_text('{"schema": "voxspool/status/1", "pid": 4711}')
    with exclusive_lock(layout.lock_file):
        assert about(examine(config, machine()), "is running (process 4711)").level == "ok"
    assert about(examine(config, machine()), "Voxspool is not running").level == "ok"


def test_a_second_daemon_on_the_same_inbox_is_told(config: Config, layout: Layout) -> None:
    """One with a state folder of its own holds the inbox while ours does not run."""
    layout.claimed_root.mkdir(parents=True)
    with exclusive_lock(layout.claimed_root.parent / "lock"):
        found = about(examine(config, machine()), "another Voxspool")
    assert found.level == "fail" and "an inbox of its own" in found.advice
    assert not [finding for finding in examine(config, machine()) if "another Voxspool" in finding.what]


# -- records ------------------------------------------------------------------------------------


def test_a_damaged_ledger_is_told(config: Config, layout: Layout) -> None:
    """With zeros where pages were; and one that is no database at all."""
    ledger = Ledger(layout.ledger_file, clock=Clock())
    for number in range(200):
        submit(ledger, a_job(f"d{number}-0", drop_id=f"d{number}"), drop=a_drop(f"d{number}"))
    ledger.close()
    assert about(examine(config, machine()), "the ledger is whole").level == "ok"
    with open(layout.ledger_file, "r+b") as file:
        file.seek(-40_960, os.SEEK_END)
        file.write(b"\0" * 40_960)
    found = about(examine(config, machine()), "the ledger is damaged")
    assert found.level == "fail" and ".recover" in found.advice
    layout.ledger_file.write_bytes(b"this is no database, " * 1000)
    found = about(examine(config, machine()), "is damaged: file is not a database")
    assert found.level == "fail" and found.advice


def test_a_ledger_of_another_version_is_told(config: Config, layout: Layout) -> None:
    """As the daemon would say it."""
    Ledger(layout.ledger_file, clock=Clock()).close()
    with sqlite3.connect(layout.ledger_file) as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    database.close()
    assert about(examine(config, machine()), "has schema 99").level == "fail"


def test_trouble_of_now_and_of_the_last_run_is_told(config: Config, layout: Layout) -> None:
    """The daemon's own word while it runs; afterwards only a reminder, since it may be mended."""
    ledger = Ledger(layout.ledger_file, clock=Clock())
    ledger.set_meta("trouble", "The disk was full.")
    ledger.close()
    found = about(examine(config, machine()), "it was in trouble: The disk was full.")
    assert found.level == "warn" and "make run" in found.advice
    layout.status_file.write_text('{"schema": "voxspool/status/1", "trouble": ["The inbox is away."]}')
    with exclusive_lock(layout.lock_file):
        findings = examine(config, machine())
    assert about(findings, "the daemon says: The inbox is away.").level == "fail"
    assert not [finding for finding in findings if "was in trouble" in finding.what]


def test_the_errors_of_the_last_day_are_told(config: Config, layout: Layout) -> None:
    """By code, with number, time and sentence; older ones stand in the status."""
    ledger = Ledger(layout.ledger_file, clock=Clock(NOW - 3_600.0))
    for _ in range(3):
        ledger.faults.add(code="check_failed", file="a.txt", message="No take passed.\nmore")
    ledger.close()
    found = about(examine(config, machine(clock=lambda: NOW)), "error check_failed")
    assert found.level == "warn" and "docs/operations.md" in found.advice
    assert found.what == (
        "error check_failed, 3 in all, the last at 2027-01-15T07:00:00+00:00: a.txt: No take passed. more"
    )
    later = examine(config, machine(clock=lambda: NOW + 86_400.0))
    assert about(later, "nothing went wrong within the last day").level == "ok"


def test_a_heap_of_failures_is_told(config: Config, layout: Layout) -> None:
    """Nothing deletes them; those that somebody took away do not count."""
    ledger = Ledger(layout.ledger_file, clock=Clock())
    layout.failed.mkdir()
    for number in range(51):
        submit(
            ledger, a_job(f"d{number}-0", drop_id=f"d{number}"), drop=a_drop(f"d{number}", f"{number}.txt")
        )
        ledger.finish(f"d{number}-0", JobState.FAILED)
        ledger.end_drop(f"d{number}", DropState.FAILED, f"failed/{number}.txt")
        (layout.failed / f"{number}.txt").touch()
    ledger.close()
    (layout.failed / "0.txt").unlink()
    assert about(examine(config, machine()), "50 failed drops lie in").level == "warn"
    (layout.failed / "1.txt").unlink()
    assert not [finding for finding in examine(config, machine()) if "failed drops lie" in finding.what]


# -- ignored names ------------------------------------------------------------------------------


def test_the_whole_ignore_list_is_shown(tmp_path: Path, config: Config) -> None:
    """Ours and the user's own; a pattern that would match drops is told."""
    mine = configure(tmp_path, "intake: {ignore: ['draft-*']}\n")
    found = about(examine(mine, machine()), "patterns of names")
    assert found.what.endswith("1 of them yours")
    assert "@eaDir/" in found.advice
    assert found.advice.endswith("draft-*")
    assert max(map(len, found.advice.splitlines())) < 110
    greedy = configure(tmp_path, "intake: {ignore: ['*.txt']}\n")
    assert [f for f in examine(greedy, machine()) if f.level == "fail"]
