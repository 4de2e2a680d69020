"""A folder that reaches this machine over the network only: sshfs or rclone, with a server on loopback.

Knows no Voxspool. What is written into `far` is another machine's doing: no event tells of it in `near`.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from programs import Programs, answers, free_port, kill_group, need_fuse, needed, unmount, wait_for

_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host
PidFile none
AuthorizedKeysFile {home}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
# What docs/shared-folders.md recommends; the rest is for a server that nobody has met before.
OPTIONS = ("reconnect", "ServerAliveInterval=5", "ServerAliveCountMax=2", "dir_cache=no")
STRANGER = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes")


@dataclass(slots=True)
class Server:
    """An SSH server that lets in one key."""

    home: Path
    programs: Programs
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.home.mkdir()
        for key in ("host", "user"):
            command = [needed("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f"]
            subprocess.run([*command, str(self.home / key)], check=True, timeout=30)
        (self.home / "sshd_config").write_text(_SSHD.format(port=self.port, home=self.home))

    def start(self) -> None:
        """Listen."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, made by its service else
        sshd = needed("sshd", "openssh-server")
        self.process = self.programs.start("sshd", [sshd, "-D", "-e", "-f", self.home / "sshd_config"])
        wait_for("sshd listens", lambda: answers(self.port), evidence=self.programs.log("sshd").read_text)

    def freeze(self) -> None:
        """It is there, but answers nobody, until it is woken."""
        for process in self._all():
            process.suspend()

    def wake(self) -> None:
        """The end of that, if it was frozen."""
        for process in self._all():
            process.resume()

    def _all(self) -> list[psutil.Process]:
        assert self.process is not None
        if self.process.poll() is not None:
            return []
        top = psutil.Process(self.process.pid)
        return [*top.children(recursive=True), top]

    def kill(self) -> None:
        """As if its machine had lost its power."""
        assert self.process is not None
        kill_group(self.process)
        self.process.wait(10)


@dataclass(slots=True)
class Share:
    """A folder of the server, and where it is mounted."""

    server: Server
    far: Path
    near: Path
    process: "subprocess.Popen[bytes] | None" = None

    def mount(self, *options: str) -> None:
        """Mount it, in the foreground of a process of its own."""
        need_fuse()
        self.far.mkdir(exist_ok=True)
        self.near.mkdir(exist_ok=True)
        words = [f"-o{option}" for option in (*options, *OPTIONS, *STRANGER)]  # ssh takes the first
        key = f"-oIdentityFile={self.server.home / 'user'}"
        user = f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1:{self.far}"
        command = [needed("sshfs", "sshfs"), "-f", user, self.near, "-p", str(self.server.port), key, *words]
        self.process = self.server.programs.mount(f"sshfs-{self.near.name}", command, self.near)

    def unmount(self) -> None:
        """Take it away, as an administrator or a boot without network does."""
        unmount(self.near)

    def crash(self) -> None:
        """Kill the FUSE program: from now on `Transport endpoint is not connected`."""
        assert self.process is not None
        kill_group(self.process)
        self.process.wait(10)


# What docs/shared-folders.md recommends for a mounted WebDAV folder.
RCLONE_OPTIONS = ("--vfs-cache-mode=off", "--dir-cache-time=5s")


def mount_webdav(programs: Programs, far: Path, near: Path) -> None:
    """Serve `far` by WebDAV and mount that at `near`, both by rclone."""
    need_fuse()
    rclone, port = needed("rclone", "rclone"), free_port()
    for folder in (far, near):
        folder.mkdir(parents=True, exist_ok=True)
    serve = [rclone, "serve", "webdav", "--addr", f"127.0.0.1:{port}", "--dir-cache-time=0s", far]
    programs.start(f"webdav-{near.name}", serve)
    wait_for("rclone serves", lambda: answers(port), evidence=programs.log(f"webdav-{near.name}").read_text)
    address = f"--webdav-url=http://127.0.0.1:{port}"
    cache = f"--cache-dir={near.with_name(near.name + '.cache')}"
    programs.mount(
        f"rclone-{near.name}", [rclone, "mount", ":webdav:", near, address, cache, *RCLONE_OPTIONS], near
    )
