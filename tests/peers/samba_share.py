"""A Samba server on a loopback address of its own, and its clients; root only, as smbd is.

Knows no Voxspool. Invariant: everything it writes lies in its home; it listens on that one address.
"""

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from programs import Programs, free_port, needed, reachable, wait_for

SMB_PORT = 445
"Samba's Python client knows no other"
CLIENT_SECONDS = 60.0
PIECE_BYTES = 65_536
"what a client writes at once"
_CONFIG = """
[global]
  server role = standalone server
  smb ports = {port} {smb_port}
  interfaces = {address}/8
  bind interfaces only = yes
  disable netbios = yes
  disable spoolss = yes
  load printers = no
  printcap name = /dev/null
  usershare max shares = 0
  private dir = {home}
  lock directory = {home}
  state directory = {home}
  cache directory = {home}
  pid directory = {home}
  ncalrpc dir = {home}/ncalrpc
  map to guest = Bad User
  guest account = nobody
  smb2 max write = {piece}
"""
# What docs/shared-folders.md recommends, but for the user, who is the tests' own.
_SHARE = """
[{name}]
  path = {path}
  guest ok = yes
  read only = no
  force user = root
  veto files = /.voxspool/.voxspool-root/*.voxspool-tmp/
  strict allocate = yes
"""
# Reserves the whole size first, as Windows does, writes the first half, and the rest when it is told to.
# Arguments: configuration, address, share, file name, text.
_SLOW_WRITER = """
import sys
from samba import credentials
from samba.samba3 import libsmb_samba_internal as libsmb, param
settings, address, share, name, text = sys.argv[1:]
known = param.get_context()
known.load(settings)
guest = credentials.Credentials()
guest.set_anonymous()
connection = libsmb.Conn(address, share, known, creds=guest)
reading_and_writing, replace, plain_file = 0x12019F, 5, 0x44
how = dict(DesiredAccess=reading_and_writing, CreateDisposition=replace, CreateOptions=plain_file)
handle = connection.create(name, ShareAccess=1, **how)
data = text.encode()
half = len(data) // 2
connection.write(handle, bytes(1), len(data) - 1)
connection.write(handle, data[:half], 0)
sys.stdin.readline()
connection.write(handle, data[half:], half)
connection.close(handle)
"""


@dataclass(slots=True)
class Samba:
    """The server with its shares by name."""

    home: Path
    programs: Programs
    shares: dict[str, Path]
    port: int = field(default_factory=free_port)
    address: str = field(default_factory=lambda: f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.77")

    @property
    def settings(self) -> Path:
        """Its smb.conf."""
        return self.home / "smb.conf"

    def start(self) -> None:
        """Listen."""
        self.home.mkdir()
        text = _CONFIG.format(
            home=self.home, address=self.address, port=self.port, smb_port=SMB_PORT, piece=PIECE_BYTES
        )
        text += "".join(_SHARE.format(name=name, path=path) for name, path in self.shares.items())
        self.settings.write_text(text)
        smbd = needed("smbd", "samba")
        command = [smbd, "-F", "--no-process-group", "--debug-stdout", "-s", self.settings]
        self.programs.start("smbd", command)
        log = self.programs.log("smbd").read_text
        wait_for("smbd listens", lambda: reachable(self.address, self.port), evidence=log)

    def client(self, share: str, *commands: str) -> str:
        """Run smbclient's commands; returns what it printed."""
        command = self._smbclient(share, "; ".join(commands))
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CLIENT_SECONDS)
        return ended.stdout + ended.stderr

    def piped(self, share: str, name: str) -> "subprocess.Popen[bytes]":
        """An smbclient that writes into `name` whatever it is fed, piece by piece."""
        return self.programs.feed(f"smbclient-{name}", self._smbclient(share, f"put - {name}"))

    def _smbclient(self, share: str, commands: str) -> list[str]:
        options = ["-N", "-t", "120", "-s", str(self.settings), "-p", str(self.port)]
        return [needed("smbclient", "smbclient"), *options, f"//{self.address}/{share}", "-c", commands]

    def reserve(self, share: str, name: str, text: str) -> "subprocess.Popen[bytes]":
        """A client that reserves the whole size first, and writes the second half when it is fed a line."""
        if not reachable(self.address, SMB_PORT):
            pytest.skip(f"port {SMB_PORT} of {self.address} cannot be had, and Samba's client knows no other")
        python = needed("/usr/bin/python3", "python3-samba")
        there = subprocess.run([python, "-c", "import samba.samba3"], capture_output=True, check=False)
        if there.returncode:
            pytest.skip("Samba's Python client is missing: install Debian's package python3-samba")
        words = [str(self.settings), self.address, share, name, text]
        return self.programs.feed(f"writer-{name}", [python, "-c", _SLOW_WRITER, *words])
