"""The units as systemd itself judges them, and what installing and taking away does to a machine."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import Installed

from tests.conftest import REPOSITORY

SERVICE_EXPOSURE = 2.0
OFFLINE_EXPOSURE = 1.0
OFFLINE_SINCE = 250
"systemd-analyze learned to rate files"
SERVICES = ("voxspool.service", "voxspool@books.service")
FOR_ONE_INSTANCE = ("Description=", "ExecStart=", "StateDirectory=", "WorkingDirectory=")


def analyze_version() -> int:
    """Of the systemd-analyze of this machine; 0 if there is none."""
    if shutil.which("systemd-analyze") is None:
        return 0
    told = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.split()[1].partition(".")[0].partition("~")[0])


needs_analyze = pytest.mark.skipif(
    analyze_version() < OFFLINE_SINCE,
    reason=f"systemd-analyze {OFFLINE_SINCE} or newer is not here (package systemd)",
)
needs_root_and_sysusers = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("systemd-sysusers") or not shutil.which("systemd-tmpfiles"),
    reason="only root may make users and folders for them, with systemd-sysusers and systemd-tmpfiles",
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A fresh installation, not to be changed."""
    made = Installed(tmp_path_factory.mktemp("fresh") / "machine")
    made.install()
    yield made
    made.remove()


@pytest.fixture
def installed(fresh: Installed, tmp_path: Path) -> Iterator[Installed]:
    """A fresh installation of one's own."""
    made = Installed(tmp_path / "machine")
    shutil.copytree(fresh.root, made.root, symlinks=True)
    yield made
    made.remove()


# -- what systemd says of the units -----------------------------------------------------------------


def verify(installed: Installed, *units: str) -> str:
    """All that `systemd-analyze verify` finds wrong, with the paths as they are on this machine."""
    for unit in installed.units.glob("*.service"):
        text = unit.read_text()
        for place in ("/opt/voxspool/.venv", "/opt/voxspool/daemon.py", "/etc/voxspool/"):
            text = text.replace(place, f"{installed.root}{place}")
        unit.write_text(text)
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(installed.units / unit) for unit in units)],
        env={
            **os.environ,
            "SYSTEMD_UNIT_PATH": f"{installed.units}:/usr/lib/systemd/system:/lib/systemd/system",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stdout + ended.stderr + (f"exit {ended.returncode}" if ended.returncode else "")


def drop_in(installed: Installed, name: str, *services: str) -> None:
    """Put a drop-in where docs/service.md says that it goes."""
    for service in services:
        folder = installed.units / f"{service}.d"
        folder.mkdir(exist_ok=True)
        shutil.copy(installed.code / "drop-ins" / name, folder)


@needs_analyze
def test_systemd_finds_nothing_wrong_with_the_units(installed: Installed) -> None:
    """No unknown key, no value that is not understood, no program that is missing."""
    units = (*SERVICES, "voxspool-gpu.service", "voxspool-alert@voxspool.service.service")
    assert verify(installed, *units) == ""


@needs_analyze
def test_systemd_finds_nothing_wrong_with_the_drop_ins(installed: Installed) -> None:
    """All of them at once, in both services."""
    for path in (REPOSITORY / "systemd" / "drop-ins").iterdir():
        drop_in(installed, path.name, "voxspool.service", "voxspool@.service")
    assert verify(installed, *SERVICES) == ""


@needs_analyze
def test_verifying_would_find_a_mistake(installed: Installed) -> None:
    """The two tests above can fail."""
    unit = installed.units / "voxspool.service"
    unit.write_text(unit.read_text().replace("ProtectClock=yes", "ProtectClocks=yes"))
    assert "ProtectClocks" in verify(installed, "voxspool.service")


def exposure(installed: Installed, service: str) -> float:
    """How exposed systemd finds a service: 0 is safe, 10 is not."""
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--root={installed.root}", service],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found, told
    return float(found[1])


@needs_analyze
@pytest.mark.parametrize("service", SERVICES)
def test_the_service_is_hardly_exposed(installed: Installed, service: str) -> None:
    """Though it may use the network and a GPU; with the offline profile even less."""
    assert exposure(installed, service) <= SERVICE_EXPOSURE
    drop_in(installed, "offline.conf", "voxspool.service", "voxspool@.service")
    assert exposure(installed, service) < OFFLINE_EXPOSURE


@needs_analyze
def test_without_its_hardening_it_would_be_exposed(installed: Installed) -> None:
    """The test above can fail: the bare service is unsafe."""
    unit = installed.units / "voxspool.service"
    bare = [line for line in unit.read_text().splitlines() if re.match(r"\[|ExecStart=|User=|Type=", line)]
    unit.write_text("\n".join(bare))
    assert exposure(installed, "voxspool.service") > 9


def test_a_gpu_stays_in_reach() -> None:
    """What would keep CUDA from working is not among the hardening."""
    keys = (REPOSITORY / "systemd" / "voxspool.service").read_text().splitlines()
    forbidden = ("PrivateDevices=", "MemoryDenyWriteExecute=", "ProcSubset=", "BindsTo=")
    assert [line for line in keys if line.startswith(forbidden)] == []
    assert {"DeviceAllow=/dev/nvidiactl rw", "DeviceAllow=char-nvidia-uvm rw"} <= set(keys)


def test_the_template_differs_only_in_what_an_instance_has_of_its_own() -> None:
    """Whoever changes one of the two units changes both."""
    plain, template = (
        [line for line in (REPOSITORY / "systemd" / name).read_text().splitlines() if line[:1] != "#"]
        for name in ("voxspool.service", "voxspool@.service")
    )
    assert len(plain) == len(template)
    different = [(a, b) for a, b in zip(plain, template, strict=True) if a != b]
    assert [a.partition("=")[0] + "=" for a, _ in different] == list(FOR_ONE_INSTANCE)
    assert all("%i" in b for _, b in different)


# -- user and folders -------------------------------------------------------------------------------


@needs_root_and_sysusers
def test_user_and_folders_are_made_and_left_alone_afterwards(installed: Installed) -> None:
    """Mode and owner of a folder that is there already belong to its admin, or to the server of a share."""
    command = ["systemd-sysusers", f"--root={installed.root}", "voxspool.conf"]
    subprocess.run(command, check=True, capture_output=True)
    user = re.search(
        r"^voxspool:x:(\d+):(\d+):", (installed.root / "etc" / "passwd").read_text(), re.MULTILINE
    )
    assert user
    uid, gid = int(user[1]), int(user[2])
    folders = {name: installed.root / "srv" / "voxspool" / name for name in ("inbox", "outbox", "voices")}

    def make_folders() -> None:
        subprocess.run(
            ["systemd-tmpfiles", f"--root={installed.root}", "--create", "voxspool.conf"], check=True
        )

    make_folders()
    for folder in folders.values():
        status = folder.stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2770, uid, gid)
    folders["inbox"].chmod(0o755)
    os.chown(folders["inbox"], 12345, 12345)
    make_folders()
    status = folders["inbox"].stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 12345, 12345)


# -- installing -------------------------------------------------------------------------------------


def test_code_is_readable_by_everybody_and_writable_by_nobody(installed: Installed) -> None:
    """The daemon cannot change its own code, whoever it runs as; nor compile it, so that was done."""
    files = [path for path in installed.code.rglob("*") if not path.is_symlink()]
    assert len(files) > 100
    assert [path for path in files if path.stat().st_mode & 0o222] == []
    assert [path for path in files if path.stat().st_mode & 0o444 != 0o444] == []
    assert list((installed.code / "pipeline" / "__pycache__").glob("supervisor.*.pyc"))
    (unit,) = re.findall("^ExecStart=(.*)$", (installed.units / "voxspool.service").read_text(), re.MULTILINE)
    python, program, verb, option, config = unit.split()
    assert (installed.code / "daemon.py") == Path(f"{installed.root}{program}")
    assert os.access(f"{installed.root}{python}", os.X_OK)
    assert (verb, option) == ("run", "--config") and installed.config == Path(f"{installed.root}{config}")


def test_installing_again_changes_nothing_and_keeps_what_is_yours(installed: Installed) -> None:
    """Configuration and alert are never overwritten; code of another version does not stay behind."""
    installed.config.write_text("inbox: /mine\n")
    (installed.root / "etc/voxspool/alert").write_text("#!/bin/sh\nmine\n")
    before = installed.files()
    (installed.code / "pipeline").chmod(0o755)
    (installed.code / "pipeline" / "of_the_last_version.py").touch()
    installed.install()
    assert installed.files() == before


def test_it_can_lie_elsewhere(tmp_path: Path) -> None:
    """PREFIX stands in units and commands."""
    elsewhere = Installed(tmp_path / "machine", prefix="/usr/local/voxspool")
    elsewhere.install()
    for path in (elsewhere.units / "voxspool.service", elsewhere.code / "bin" / "voxspool"):
        text = path.read_text()
        assert "/usr/local/voxspool/daemon.py" in text and "/opt/voxspool" not in text
    elsewhere.remove()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PREFIX": "opt"}, "give the whole path"),
        ({"PREFIX": "/"}, "give the whole path"),
        ({"PREFIX": "/opt/my speech"}, "only letters"),
        ({"PREFIX": "/srv"}, "holds something that is not Voxspool"),
    ],
)
def test_a_wrong_place_is_refused(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    """Nothing is written; above all not into a folder that holds something else."""
    machine = Installed(tmp_path / "machine")
    (machine.root / "srv" / "precious").mkdir(parents=True)
    before = machine.files()
    ended = machine.make("install-service", **variables)
    assert ended.returncode != 0 and said in ended.stderr
    assert machine.files() == before


PYTHON_WITHOUT_NETWORK = """#!/bin/sh
# makes an "environment" whose pip finds nothing, and answers what it is asked besides
case $1 in
-m) [ "$2" = venv ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" || { echo 'no network' >&2; exit 1; } ;;
-c) echo /usr ;;
esac
"""


def test_an_installation_that_broke_off_can_be_repeated(tmp_path: Path) -> None:
    """Or be taken away: its folder is known as ours."""
    machine = Installed(tmp_path / "machine")
    python = tmp_path / "python"
    python.write_text(PYTHON_WITHOUT_NETWORK)
    python.chmod(0o755)
    broken = machine.make("install-service", VOXSPOOL_VENV="", PYTHON=str(python))
    assert broken.returncode != 0 and "no network" in broken.stderr
    assert (machine.code / ".venv").is_dir() and not (machine.code / "daemon.py").exists()
    machine.install()
    assert (machine.code / ".venv").is_symlink() and (machine.code / "daemon.py").exists()
    assert machine.make("uninstall-service").returncode == 0
    assert not machine.code.exists()


def test_who_is_not_root_is_told_to_be(tmp_path: Path) -> None:
    """Before anything is touched."""
    if os.geteuid() != 0:
        command = ["sh", "scripts/install-service"]
    elif shutil.which("setpriv"):
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        command += ["sh", "scripts/install-service"]
    else:
        pytest.skip("root cannot become somebody else here (setpriv is missing)")
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "sudo make install-service" in ended.stderr


def test_taking_it_away_leaves_what_is_yours(installed: Installed) -> None:
    """Configuration, drop-ins, folders and ledger stay, and it says so; twice does no harm."""
    kept = (
        "srv/voxspool/inbox",
        "var/lib/voxspool",
        "var/lib/voxspool-books",
        "etc/systemd/system/voxspool.service.d",
    )
    for folder in kept:
        (installed.root / folder).mkdir(parents=True)
        (installed.root / folder / "file").touch()
    for _ in range(2):
        ended = installed.make("uninstall-service")
        assert ended.returncode == 0, ended.stderr
        left = sorted(path for path in installed.root.rglob("*") if path.is_file() or path.is_symlink())
        assert left == sorted(
            [
                installed.config,
                installed.config.with_name("alert"),
                *(installed.root / folder / "file" for folder in kept),
            ]
        )
        for place in ("/etc/voxspool", "/srv/voxspool", "/var/lib/voxspool", "/var/lib/voxspool-books"):
            assert f"{installed.root}{place}\n" in ended.stdout


def test_foreign_files_in_the_code_folder_stay(installed: Installed) -> None:
    """They are named, not deleted."""
    (installed.code / "notes.txt").write_text("mine")
    ended = installed.make("uninstall-service")
    assert (installed.code / "notes.txt").exists() and "something else" in ended.stdout
