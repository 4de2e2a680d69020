"""A Syncthing that talks to one other on the loopback interface and to nobody else.

Writes its configuration, starts and stops it, asks its REST interface. Knows no Voxspool. Invariant: no
discovery, relay, port mapping, usage report or upgrade is switched on, and every address is 127.0.0.1.
"""

import http.client
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from programs import Programs, answers, free_port, kill_group, needed, wait_for

API_KEY = "only-for-this-test"
RESCAN_SECONDS = 3
SYNC_SECONDS = 60.0
_DEVICE_ID = re.compile(r"\b[A-Z2-7]{7}(?:-[A-Z2-7]{7}){7}\b")
_FOLDER = """
  <folder id={name} label={name} path={path} type={kind} rescanIntervalS="{rescan}"
          fsWatcherEnabled="true" fsWatcherDelayS="1" ignorePerms="false" autoNormalize="true">
    <filesystemType>basic</filesystemType>
    <device id="{mine}"/><device id="{theirs}"/>
    <maxConflicts>10</maxConflicts>
  </folder>"""
_CONFIG = """<configuration version="36">{folders}
  <device id="{mine}" name="mine" compression="metadata"><address>dynamic</address></device>
  <device id="{theirs}" name="theirs" compression="metadata">
    <address>tcp://127.0.0.1:{their_port}</address>
  </device>
  <gui enabled="true" tls="false"><address>127.0.0.1:{gui_port}</address><apikey>{key}</apikey></gui>
  <options>
    <listenAddress>tcp://127.0.0.1:{my_port}</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled>
    <natEnabled>false</natEnabled>
    <stunKeepaliveStartS>0</stunKeepaliveStartS>
    <urAccepted>-1</urAccepted>
    <crashReportingEnabled>false</crashReportingEnabled>
    <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <startBrowser>false</startBrowser>
    <reconnectionIntervalS>1</reconnectionIntervalS>
    <progressUpdateIntervalS>1</progressUpdateIntervalS>
    <limitBandwidthInLan>true</limitBandwidthInLan>
    <minHomeDiskFree unit="%">0</minHomeDiskFree>
  </options>
</configuration>
"""


@dataclass(slots=True, kw_only=True)
class Shared:
    """A folder as one of the two peers shares it."""

    name: str
    path: Path
    kind: str = "sendreceive"


@dataclass(slots=True, kw_only=True)
class Peer:
    """One Syncthing: its home, its ports and its folders."""

    name: str
    home: Path
    programs: Programs
    folders: list[Shared]
    port: int = field(default_factory=free_port)
    gui_port: int = field(default_factory=free_port)
    device: str = ""
    process: "subprocess.Popen[bytes] | None" = None

    def generate(self) -> None:
        """Make the key, and learn the device's id from it."""
        made = subprocess.run(
            [needed("syncthing", "syncthing"), "generate", f"--home={self.home}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        self.device = _DEVICE_ID.findall(made.stdout + made.stderr)[0]

    def start(self, other: "Peer") -> None:
        """Run it with `other` as its only neighbour, until its REST interface answers."""
        self.configure(other)
        command = [needed("syncthing", "syncthing"), "serve", f"--home={self.home}", "--no-browser"]
        quiet = {"STNORESTART": "1", "STNOUPGRADE": "1", "STNODEFAULTFOLDER": "1"}
        self.process = self.programs.start(f"syncthing-{self.name}", command, quiet)
        wait_for(f"Syncthing {self.name} answers", lambda: answers(self.gui_port), evidence=self.log)

    def configure(self, other: "Peer") -> None:
        """Write its whole configuration; it fills in the rest by its defaults."""
        folders = "".join(
            _FOLDER.format(
                name=quoteattr(shared.name),
                path=quoteattr(str(shared.path)),
                kind=quoteattr(shared.kind),
                rescan=RESCAN_SECONDS,
                mine=self.device,
                theirs=other.device,
            )
            for shared in self.folders
        )
        for shared in self.folders:
            (shared.path / ".stfolder").mkdir(parents=True, exist_ok=True)
        text = _CONFIG.format(
            folders=folders,
            mine=self.device,
            theirs=other.device,
            my_port=self.port,
            their_port=other.port,
            gui_port=self.gui_port,
            key=API_KEY,
        )
        (self.home / "config.xml").write_text(text, encoding="utf-8")

    def kill(self) -> None:
        """As if the phone were switched off."""
        assert self.process is not None
        kill_group(self.process)
        self.process.wait(10)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the REST interface; see docs.syncthing.net/dev/rest.html."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gui_port, timeout=10)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/rest/{path}", body=data, headers={"X-API-Key": API_KEY})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path}: {answer.status} {content!r}"
        return json.loads(content) if content.strip() else None

    def limit(self, kilobytes_per_second: int) -> None:
        """Receive no faster than this; 0: as fast as it goes."""
        self.ask("PATCH", "config/options", {"maxRecvKbps": kilobytes_per_second})

    def connected(self, other: "Peer") -> bool:
        """Whether the two talk to each other."""
        try:
            found = self.ask("GET", "system/connections")["connections"]
        except OSError:
            return False
        return bool(found.get(other.device, {}).get("connected"))

    def settled(self) -> bool:
        """Whether every folder is idle and lacks nothing that the other has."""
        try:
            states = [self.ask("GET", f"db/status?folder={shared.name}") for shared in self.folders]
        except OSError:
            return False
        return all(state["state"] == "idle" and state["needTotalItems"] == 0 for state in states)

    def log(self) -> str:
        """What it printed."""
        return self.programs.log(f"syncthing-{self.name}").read_text(encoding="utf-8", errors="replace")


def join(here: Peer, there: Peer) -> None:
    """Start both and wait until they have met and exchanged what there is."""
    for peer in (here, there):
        peer.generate()
    here.start(there)
    there.start(here)
    meet(here, there)


def meet(here: Peer, there: Peer) -> None:
    """Wait until both are connected and at rest."""
    wait_for(
        "the two Syncthings meet",
        lambda: here.connected(there) and there.connected(here) and here.settled() and there.settled(),
        seconds=SYNC_SECONDS,
        evidence=lambda: here.log() + there.log(),
    )
