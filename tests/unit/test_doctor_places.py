"""The doctor on folders and disks, on damage that is really done where that is possible."""

import os
import re
import stat
import threading
import time
from pathlib import Path

import pytest
from doctor_samples import about, as_powerless, configure, machine, make_roots, mount
from ledger_samples import Clock
from mounted import remount, tmpfs

from pipeline.config import Config
from pipeline.doctor import examine, failed, places
from pipeline.intake.roots import MARKER_NAME, Role, memory_key, open_root
from pipeline.layout import layout_of
from pipeline.ledger import Ledger
from pipeline.mounts import read_mounts


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration whose four folders exist."""
    make_roots(tmp_path)
    return configure(tmp_path)


# -- there or not -------------------------------------------------------------------------------


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


def test_a_folder_that_lost_its_mark_is_told(config: Config, tmp_path: Path) -> None:
    """As after an unmount: with the line that writes the mark anew, should it be the right one."""
    ledger = Ledger(layout_of(config).ledger_file, clock=Clock())
    for role in (Role.INBOX, Role.OUTBOX):
        root = open_root(tmp_path / role, role)
        assert root.marker is not None
        ledger.set_meta(memory_key(role, tmp_path / role), root.marker.uuid)
    ledger.close()
    assert not failed(examine(config, machine()))
    (tmp_path / "inbox" / MARKER_NAME).unlink()
    found = about(examine(config, machine()), "has lost its mark")
    assert found.level == "fail" and "Mount it again" in found.advice and "echo '{" in found.advice


def test_a_share_that_is_not_mounted_is_told(config: Config, tmp_path: Path) -> None:
    """Also before Voxspool ever ran: /etc/fstab knows; comments and what is mounted do not count."""
    fstab = tmp_path / "fstab"
    fstab.write_text(
        f"# nas:/old {tmp_path}/voices nfs4\nnas:/in {tmp_path}/inbox nfs4 _netdev 0 0\n/dev/sda1 / ext4\n"
        f"nas:/out {tmp_path}/outbox nfs4 _netdev 0 0\nUUID=1 none swap sw 0 0\n"
    )
    here = machine(fstab=fstab, mounts=(mount("/"), mount(str(tmp_path / "outbox"), "nfs4")))
    findings = [finding for finding in examine(config, here) if "/etc/fstab" in finding.what]
    assert [finding.level for finding in findings] == ["fail"]
    assert findings[0].advice == f"sudo mount '{tmp_path}/inbox'"


def test_a_folder_that_never_answers_is_told_and_waited_for_no_longer(config: Config, tmp_path: Path) -> None:
    """As on a share whose server is away: nothing else may touch the folders then, or `doctor` would hang."""
    for_ever = threading.Event()
    here = machine(
        mounts=(mount("/"), mount(str(tmp_path / "outbox"), "nfs4")),
        touch=lambda path: for_ever.wait() if path.name == "outbox" else None,
        patience_seconds=0.2,
    )
    started = time.monotonic()
    findings = examine(config, here)
    assert time.monotonic() - started < 5.0
    found = about(findings, "does not answer")
    assert found.level == "fail" and f"the outbox {tmp_path}/outbox" in found.what and "(nfs4)" in found.what
    assert f"sudo umount -l '{tmp_path}/outbox'" in found.advice
    assert not [finding for finding in findings if "can be written" in finding.what]
    assert about(findings, "ffmpeg").level == "ok"
    for_ever.set()


# -- rights -------------------------------------------------------------------------------------


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


def test_rights_that_are_missing_are_found_by_trying(config: Config, tmp_path: Path) -> None:
    """For real: as somebody to whom the modes of folders apply, whom root is not; all are told at once."""
    unwritable = ("inbox", "outbox", "outbox/failed", "state", "inbox/.voxspool/claimed")
    told = dict.fromkeys(unwritable, "Nothing can be created, renamed and deleted in")
    told |= {"voices": "voices", "inbox/sub": "files cannot be taken from"}
    folders = {tmp_path / name: words for name, words in told.items()}
    modes = {folder: 0o000 if folder.name == "voices" else 0o555 for folder in folders}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for folder, mode in modes.items():
            folder.chmod(mode)
        answer = as_powerless(tmp_path / "config.yaml")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    for folder, words in folders.items():
        (advice,) = re.findall(rf"^fail  {words} {folder}(?!/).*\n      (.*)$", answer, re.M)
        assert f"mode {modes[folder]:04o}; Voxspool runs as uid 0" in advice
        assert f"chown 0:0 '{folder}'" in advice


def test_a_sticky_folder_of_somebody_else_is_told(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may read and write there, but not take others' files: every claim would fail."""
    (tmp_path / "inbox" / "shared").mkdir(mode=0o777)
    (tmp_path / "inbox" / "shared").chmod(0o1777 | stat.S_ISVTX)
    owner = (tmp_path / "inbox").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 7)
    found = about(examine(config, machine()), "sticky bit")
    assert found.level == "fail" and f"chmod -t '{tmp_path}/inbox/shared'" in found.advice
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert not [finding for finding in examine(config, machine()) if "(sticky bit)" in finding.what]


def test_who_asks_must_be_who_runs(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the answer is about somebody else's rights."""
    (tmp_path / "state" / "voxspool.lock").touch()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 7)
    found = about(examine(config, machine()), "rights may differ")
    assert found.level == "warn" and f"sudo -u '#{owner}' python3 daemon.py doctor" in found.advice


def test_an_inbox_that_is_only_read_need_not_be_writable(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `source: leave` nothing is tried there."""
    left = configure(tmp_path, "intake: {source: leave}\n")
    probed: list[Path] = []
    monkeypatch.setattr(places, "probe_writable", probed.append)
    found = about(examine(left, machine()), "inbox /")
    assert (found.level, "can be read" in found.what) == ("ok", True)
    assert tmp_path / "inbox" not in probed
    assert tmp_path / "outbox" in probed


def test_measures_that_nobody_will_find_are_told(config: Config, tmp_path: Path) -> None:
    """A name that node_exporter does not read, and a folder that is not there."""
    wanted = configure(tmp_path, "metrics: {file: collector/voxspool.txt}\n")
    findings = examine(wanted, machine())
    assert about(findings, "metrics.file is voxspool.txt").level == "warn"
    found = about(findings, f"cannot be written to {tmp_path}/collector")
    assert found.level == "warn" and f"'{tmp_path}/collector'" in found.advice
    (tmp_path / "collector").mkdir()
    well = examine(configure(tmp_path, "metrics: {file: collector/voxspool.prom}\n"), machine())
    assert not [finding for finding in well if "the measures" in finding.what or ".prom" in finding.what]


# -- filesystems --------------------------------------------------------------------------------


@pytest.mark.parametrize("filesystem", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_ledger_on_the_network_fails(config: Config, tmp_path: Path, filesystem: str) -> None:
    """SQLite's journal needs a local disk."""
    here = machine(mounts=(mount("/"), mount(str(tmp_path / "state"), filesystem)))
    found = about(examine(config, here), f"lies on {filesystem}")
    assert found.level == "fail"
    assert "local disk" in found.advice


def test_a_disk_mounted_inside_the_inbox_is_told(config: Config, tmp_path: Path) -> None:
    """A claim is a rename and cannot leave it."""
    here = machine(mounts=(mount("/"), mount(f"{tmp_path}/inbox/nas", "cifs")))
    found = about(examine(config, here), "filesystem of its own")
    assert found.level == "warn"
    assert "intake.source to leave" in found.advice


def test_a_disk_mounted_over_our_hidden_folder_is_told(config: Config, tmp_path: Path) -> None:
    """For real: no claim could cross to it."""
    with tmpfs(tmp_path / "inbox" / ".voxspool", "1m"):
        found = about(examine(config, machine()), "is on another filesystem than the inbox")
    assert found.level == "fail" and f"umount '{tmp_path}/inbox/.voxspool'" in found.advice


def test_a_folder_in_memory_is_told(config: Config, tmp_path: Path) -> None:
    """For real: as in a container that was given no volume."""
    with tmpfs(tmp_path / "outbox", "16m"):
        findings = examine(config, machine(mounts=read_mounts()))
    found = about(findings, "lies in memory (tmpfs)")
    assert found.level == "warn" and "`outbox` in config.yaml" in found.advice


def test_a_read_only_mount_is_told(config: Config, tmp_path: Path) -> None:
    """For real: with the command that makes it writable, and where to look why."""
    with tmpfs(tmp_path / "outbox", "16m") as outbox:
        remount(outbox, "ro")
        found = about(examine(config, machine(mounts=read_mounts())), "Read-only file system")
    assert found.level == "fail"
    assert f"sudo mount -o remount,rw '{tmp_path}/outbox'" in found.advice and "dmesg" in found.advice


# -- room ---------------------------------------------------------------------------------------


def test_a_disk_that_is_nearly_full_is_told(config: Config, tmp_path: Path) -> None:
    """For real: hardly any room fails, little room warns, and each disk is told once."""
    with tmpfs(tmp_path / "outbox", "1m"), tmpfs(tmp_path / "state", "1g"):
        findings = examine(config, machine())
    found = about(findings, "free for the outbox")
    assert (found.level, found.what) == ("fail", "1.05 MB free for the outbox")
    assert f"du -xh '{tmp_path}/outbox'" in found.advice and "prune" in found.advice
    assert about(findings, "free for the state").level == "warn"
    assert about(findings, "free for the inbox").level == "ok"


def test_a_full_disk_is_told(config: Config, tmp_path: Path) -> None:
    """For real: not even a probe fits, and it is the disk and not the rights."""
    with tmpfs(tmp_path / "outbox", "64k") as outbox:
        (outbox / "ballast").write_bytes(b"x" * 65_536)
        findings = examine(config, machine())
    found = about(findings, "No space left on device")
    assert found.level == "fail" and f"df -h '{tmp_path}/outbox'" in found.advice
    assert about(findings, "free for the outbox").level == "fail"


def test_a_disk_without_inodes_is_told(config: Config, tmp_path: Path) -> None:
    """For real: room for bytes, none for files."""
    with tmpfs(tmp_path / "outbox", "3g", "nr_inodes=600"), tmpfs(tmp_path / "state", "3g", "nr_inodes=4"):
        findings = examine(config, machine())
    found = about(findings, "more files fit on the disk of the outbox")
    assert found.level == "warn" and "df -i" in found.advice
    assert about(findings, "more files fit on the disk of the state").level == "fail"
