"""The doctor: what is fine, what is wrong, and what to do about it."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.config import Config, load_config
from pipeline.doctor import Finding, Machine, examine, failed, render
from pipeline.intake.roots import Mount
from pipeline.synced import STIGNORE

NOW = 1_800_000_000.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration whose four folders exist."""
    for name in ("inbox", "outbox", "voices", "state"):
        (tmp_path / name).mkdir()
    return configure(tmp_path)


def configure(folder: Path, text: str = "") -> Config:
    """A configuration in `folder`."""
    (folder / "config.yaml").write_text(text)
    return load_config(folder / "config.yaml")


def mount(point: str, filesystem: str = "ext4") -> Mount:
    """A line of mountinfo."""
    return Mount(point=point, filesystem=filesystem, source="x", read_only=False)


def machine(**changes: object) -> Machine:
    """A healthy machine without a GPU, on one local disk."""
    fields = {"mounts": (mount("/"),), "ask": lambda command: None}
    return Machine(**{**fields, **changes})  # type: ignore[arg-type]


def about(findings: Sequence[Finding], word: str) -> Finding:
    """The one finding that speaks of `word`."""
    [found] = [finding for finding in findings if word in finding.what]
    return found


def test_a_healthy_machine_gets_a_clean_bill(config: Config) -> None:
    """Everything that the core needs is there after `pip install`."""
    findings = examine(config, machine())
    assert not failed(findings)
    for word in (
        "Python",
        "ffmpeg",
        "espeak-ng 1.",
        "pocketsphinx 5",
        "patterns of names",
        "folders to watch",
    ):
        assert about(findings, word).level == "ok", word
    assert "can be written (ext4)" in about(findings, "inbox /").what


def test_an_examination_leaves_no_trace(config: Config, tmp_path: Path) -> None:
    """No probe file, no mark, no ledger stays behind."""
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    examine(config, machine())
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["inbox", "outbox", "voices", "state"])
def test_a_missing_folder_is_told_with_the_command_that_makes_it(
    config: Config, tmp_path: Path, name: str
) -> None:
    """Each of the four, without stopping at the first."""
    (tmp_path / name).rmdir()
    findings = examine(config, machine())
    found = about(findings, f"{name} {tmp_path}")
    assert found.level == "warn"
    assert "does not exist yet" in found.what
    assert found.advice.startswith("It is made at the first start.")
    assert f"mkdir -p '{tmp_path}/{name}'" in found.advice
    assert not failed(findings)


def test_a_folder_that_cannot_be_made_fails(tmp_path: Path, config: Config) -> None:
    """A file stands where its parent should be."""
    (tmp_path / "file").touch()
    findings = examine(configure(tmp_path, "outbox: file/outbox\n"), machine())
    found = about(findings, "outbox /")
    assert found.level == "fail"
    assert f"cannot be made in {tmp_path}/file" in found.what


def test_a_file_in_a_folder_s_place_is_told(config: Config, tmp_path: Path) -> None:
    """It exists, but is no folder."""
    (tmp_path / "outbox").rmdir()
    (tmp_path / "outbox").touch()
    assert "is not a folder" in about(examine(config, machine()), "outbox /").what


def test_a_folder_that_refuses_writing_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """By trying: creating, renaming and deleting a file."""
    real = os.rename

    def rename(source: object, target: object) -> None:
        if "inbox" in str(source):
            raise PermissionError(13, "Permission denied")
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", rename)
    found = about(examine(config, machine()), "inbox:")
    assert found.level == "fail"
    assert "Permission denied" in found.what
    assert f"uid {os.geteuid()}" in found.advice


def test_an_inbox_that_is_only_read_need_not_be_writable(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `source: leave` nothing is tried there."""
    left = configure(tmp_path, "intake: {source: leave}\n")
    probed: list[Path] = []
    monkeypatch.setattr(doctor, "probe_writable", probed.append)
    found = about(examine(left, machine()), "inbox /")
    assert (found.level, "can be read" in found.what) == ("ok", True)
    assert tmp_path / "inbox" not in probed
    assert tmp_path / "outbox" in probed


@pytest.mark.parametrize("filesystem", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_ledger_on_the_network_fails(config: Config, tmp_path: Path, filesystem: str) -> None:
    """SQLite's journal needs a local disk."""
    here = machine(mounts=(mount("/"), mount(str(tmp_path / "state"), filesystem)))
    found = about(examine(config, here), f"lies on {filesystem}")
    assert found.level == "fail"
    assert "local disk" in found.advice


def test_a_network_inbox_is_scanned(config: Config, tmp_path: Path) -> None:
    """And said to be; the limits of file events do not matter then."""
    here = machine(mounts=(mount("/"), mount(str(tmp_path / "inbox"), "nfs4")))
    findings = examine(config, here)
    assert about(findings, "scanned, not watched").level == "ok"
    assert "nfs4, network" in about(findings, "inbox /").what
    assert not [finding for finding in findings if "watchers allowed" in finding.what]


def test_a_disk_mounted_inside_the_inbox_is_told(config: Config, tmp_path: Path) -> None:
    """A claim is a rename and cannot leave it."""
    here = machine(mounts=(mount("/"), mount(f"{tmp_path}/inbox/nas", "cifs")))
    found = about(examine(config, here), "filesystem of its own")
    assert found.level == "warn"
    assert "intake.source to leave" in found.advice


def test_a_full_disk_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little space warns, hardly any fails, and so do missing inodes."""
    real = os.statvfs

    def statvfs(path: object) -> os.statvfs_result:
        values = list(real(path))  # type: ignore[call-overload]
        values[1], values[4] = 1000, 150_000 if "outbox" in str(path) else 1_500_000
        values[5], values[7] = 10_000, 5
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", statvfs)
    findings = examine(config, machine())
    assert (about(findings, "free for the outbox").level, about(findings, "free for the state").level) == (
        "fail",
        "warn",
    )
    assert about(findings, "free for the outbox").what == "150.0 MB free for the outbox"
    assert [f.level for f in findings if "inodes" in f.what] == ["warn", "warn"]


def test_clocks_that_are_wrong_are_told(config: Config) -> None:
    """One that is not set, and one that differs from the file server's."""
    findings = examine(config, machine(clock=lambda: 100.0))
    assert about(findings, "the clock says 1970").level == "fail"
    behind = [finding for finding in findings if "ahead of this machine's" in finding.what]
    assert len(behind) == 3
    assert {finding.level for finding in behind} == {"warn"}


def test_an_old_python_is_told(config: Config) -> None:
    """With the version that is needed."""
    found = about(examine(config, machine(python=(3, 10))), "Python 3.10")
    assert (found.level, found.advice) == ("fail", "Install Python 3.11 or newer.")


def test_too_few_watches_for_the_folders_are_told(config: Config, tmp_path: Path) -> None:
    """With the command that raises the limit; hidden folders are not watched and do not count."""
    for number in range(9):
        (tmp_path / "inbox" / f"sub{number}").mkdir()
        (tmp_path / "inbox" / ".voxspool" / "done" / str(number)).mkdir(parents=True)
    limits = tmp_path / "limits"
    limits.mkdir()
    (limits / "max_user_watches").write_text("15\n")
    (limits / "max_user_instances").write_text("128\n")
    found = about(examine(config, machine(inotify=limits)), "10 folders to watch")
    assert found.level == "warn"
    assert "sysctl fs.inotify.max_user_watches=524288" in found.advice
    (limits / "max_user_watches").write_text("20\n")
    assert about(examine(config, machine(inotify=limits)), "10 folders to watch").level == "ok"
    (limits / "max_user_watches").unlink()
    assert about(examine(config, machine(inotify=limits)), "cannot be read").level == "warn"


def test_a_syncthing_folder_gets_its_ignore_lines(config: Config, tmp_path: Path) -> None:
    """The lines to add, where, and why old results stay; both fall silent once it is done."""
    (tmp_path / "outbox" / ".stfolder").mkdir()
    findings = examine(config, machine())
    found = about(findings, "the outbox is synchronised")
    assert found.level == "warn"
    assert tuple(found.advice.splitlines()[1:]) == STIGNORE
    assert f"{tmp_path}/outbox/.stignore" in found.advice
    assert "deletes_propagate: accepted" in about(findings, "reported, not removed").advice
    (tmp_path / "outbox" / ".stignore").write_text("\n".join(STIGNORE))
    accepted = configure(tmp_path, "retention: {deletes_propagate: accepted}\n")
    findings = examine(accepted, machine())
    assert about(findings, "the outbox is synchronised").level == "ok"
    assert not [finding for finding in findings if "reported, not removed" in finding.what]


def test_a_tool_that_does_not_load_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason and what to install; the others are still tried."""

    def broken() -> str:
        raise OSError("libespeak-ng.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_espeak", broken)
    findings = examine(config, machine())
    found = about(findings, "espeak-ng does not work")
    assert found.level == "fail"
    assert "cannot open shared object file" in found.what
    assert "requirements-core.txt" in found.advice
    assert about(findings, "pocketsphinx").level == "ok"


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


def test_programs_that_are_missing_or_fail_give_no_answer() -> None:
    """Neither raises."""
    ask = Machine().ask
    assert ask(["voxspool-no-such-program"]) is None
    assert ask(["false"]) is None
    assert ask(["echo", "hello"]) == "hello"


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


def test_torch_is_never_imported() -> None:
    """Looking for a GPU must not take half a minute."""
    assert "torch" not in Path(doctor.__file__).read_text().replace("never imports torch", "")


def test_findings_read_well() -> None:
    """One line each, the advice indented below."""
    findings = [Finding(level="ok", what="a"), Finding(level="fail", what="b", advice="do this\nthen that")]
    assert render(findings) == "ok    a\nfail  b\n      do this\n      then that\n"
    assert failed(findings)
    assert not failed(findings[:1])
