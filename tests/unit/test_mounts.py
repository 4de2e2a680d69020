"""What is mounted where, and paths without links, found out without asking any server."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mounts import Mount, mount_of, parse_mountinfo, read_mounts, real_path

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
30 27 0:40 / /srv rw,relatime - nfs4 nas:/volume1 rw,vers=4.2
31 30 0:41 / /srv/my\040inbox ro,relatime - cifs //nas/in\134box rw
32 27 0:42 / /mnt/book rw - fuse.sshfs me@host: rw
33 27 0:43 / /mnt/disk rw - fuseblk /dev/sdb1 rw
34 27 0:44 / /srv/local rw - ext4 /dev/sdc ro
35 27 0:45 / /srv/local rw - tmpfs none rw
broken line
"""


def mount(path: str) -> Mount:
    """The mount of a path in the example."""
    return mount_of(path, parse_mountinfo(MOUNTINFO))


@pytest.mark.parametrize(
    ("path", "filesystem", "network"),
    [
        ("/home/ann/inbox", "ext4", False),
        ("/srv", "nfs4", True),
        ("/srv/inbox", "nfs4", True),
        ("/srvx/inbox", "ext4", False),
        ("/srv/my inbox/sub", "cifs", True),
        ("/mnt/book/a", "fuse.sshfs", True),
        ("/mnt/disk", "fuseblk", False),
        ("/srv/local/a", "tmpfs", False),
    ],
)
def test_the_longest_mount_point_decides(path: str, filesystem: str, network: bool) -> None:
    """Escapes are undone, a prefix ends at a slash, and what was mounted over the same point last counts."""
    assert (mount(path).filesystem, mount(path).network) == (filesystem, network)


def test_mount_details() -> None:
    """Source and read-only state are told, whether the mount or the filesystem is read-only."""
    assert mount("/srv/my inbox") == Mount(
        point="/srv/my inbox", filesystem="cifs", source=r"//nas/in\box", read_only=True
    )
    assert not mount("/srv").read_only


@pytest.mark.parametrize(
    "filesystem",
    ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "drvfs", "vboxsf", "gpfs", "lustre", "ceph"],
)
def test_network_filesystems(filesystem: str) -> None:
    """Where other hosts write unseen, events are not relied on."""
    assert Mount(point="/", filesystem=filesystem, source="", read_only=False).network


@given(st.text(max_size=300))
def test_no_mountinfo_breaks_the_parser(text: str) -> None:
    """Whatever stands there, some mount is found or the filesystem is unknown."""
    assert mount_of("/a/b", parse_mountinfo(text)).filesystem


def test_the_real_mountinfo_knows_the_root() -> None:
    """This machine's own table is understood."""
    assert mount_of("/proc/self", read_mounts()).filesystem == "proc"


# -- paths without links -----------------------------------------------------------------------

LOCAL = (Mount(point="/", filesystem="ext4", source="disk", read_only=False),)


def share(point: Path) -> tuple[Mount, ...]:
    """A network filesystem at `point`, all else local."""
    return (*LOCAL, Mount(point=str(point), filesystem="nfs4", source="nas:/", read_only=False))


@pytest.mark.parametrize(
    "path",
    [
        "real/x",
        "alias",
        "alias/x",
        "alias/../x",
        "chain/x/../y",
        "absolute/x",
        "nowhere/x",
        "real/../alias/./x",
    ],
)
def test_local_links_are_followed_as_the_system_follows_them(tmp_path: Path, path: str) -> None:
    """Relative ones, absolute ones, chains, and what is not there."""
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "chain").symlink_to("./alias/../alias")
    (tmp_path / "absolute").symlink_to(tmp_path / "chain")
    assert real_path(tmp_path / path, LOCAL) == Path(os.path.realpath(tmp_path / path))


def test_nothing_on_a_share_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a local link leads there: its server may not answer, for ever."""
    nas = tmp_path / "nas"
    nas.mkdir()
    (nas / "link").symlink_to("elsewhere")
    (tmp_path / "inbox").symlink_to(nas / "link")
    asked: list[Path] = []
    read = Path.readlink

    def told(path: Path) -> Path:
        asked.append(path)
        return read(path)

    monkeypatch.setattr(Path, "readlink", told)
    assert real_path(tmp_path / "inbox" / "x", share(nas)) == nas / "link" / "x"
    assert not [path for path in asked if path.is_relative_to(nas)]


def test_a_ring_of_links_is_an_error(tmp_path: Path) -> None:
    """It leads nowhere."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        real_path(tmp_path / "a" / "x", LOCAL)
