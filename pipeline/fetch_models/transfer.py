"""One file from a server onto the disk: taken up where it broke, and believed only after its hash.

Knows HTTP by `httpx` and what a broken line looks like; not whose files these are. Invariants: when `bring`
returns, the file is whole and its hash is right; what broke stays there for the next run to go on from.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline import __version__
from pipeline.errors import EnvironmentFailure
from pipeline.fetch_models.record import blob_of, sha256_of
from pipeline.files import display

RETRIES = 2
RETRY_SECONDS = 5.0
CONNECT_SECONDS = 20.0
IDLE_SECONDS = 60.0
"without a single byte; there is no limit for the whole"
MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
HTTP_RANGE_NOT_SATISFIABLE = 416
_HINT = "What came so far is kept: type the command again, and it goes on from there."
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")
_SHOWN_CHARS = 200

Moved = Callable[[str, int, int | None], None]
"told the name of a file, how much of it is there, and its size where that is known"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file on a server."""

    name: str
    url: str
    bytes: int | None
    "None where the server does not tell"
    sha256: str | None = None
    blob: str | None = None
    "git's hash of it, for what the hub keeps in git itself"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    "may hold a person's token"


class MayPassError(Exception):
    """Trouble that may be over in a moment. `moved`: something came before it."""

    def __init__(self, reason: str, *, moved: bool = False) -> None:
        super().__init__(reason)
        self.moved = moved


def new_client() -> Any:
    """Connections for one run; proxies and certificates are those of the environment."""
    import httpx

    timeout = httpx.Timeout(IDLE_SECONDS, connect=CONNECT_SECONDS)
    agent = {"User-Agent": f"voxspool/{__version__}"}
    # from one host to another httpx takes the token out by itself
    return httpx.Client(follow_redirects=True, timeout=timeout, headers=agent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long somebody tries, and who is told of it."""

    sleep: Callable[[float], None]
    tell: Callable[[str], None]

    def keep_trying(self, call: Callable[[], T], what: str) -> T:
        """Call until it works, fails for good, or got nowhere in three tries in a row."""
        tries_left = RETRIES
        while True:
            try:
                return call()
            except MayPassError as error:
                tries_left = RETRIES if error.moved else tries_left
                if not tries_left:
                    raise failed(
                        f"{what} could not be fetched in {RETRIES + 1} tries: {error}.",
                        f"Look whether this machine has a connection. {_HINT}",
                    ) from error
                self.tell(f"{what}: {error}; trying again in {RETRY_SECONDS:g} s.")
                tries_left -= 1
                self.sleep(RETRY_SECONDS)


def bring(remote: Remote, target: Path, client: Any, moved: Moved, patience: Patience) -> str:
    """Have the file in `target`, going on with what lies there; returns its SHA-256."""
    return patience.keep_trying(lambda: _try(remote, target, client, moved), remote.name)


def _try(remote: Remote, target: Path, client: Any, moved: Moved) -> str:
    """One try; whatever came of it stays in `target`."""
    have = _size(target)
    if remote.bytes is not None and have > remote.bytes:
        target.unlink()
        have = 0
    if have == 0 or have != remote.bytes:
        _download(remote, target, have, client, moved)
    return _checked(remote, target, moved)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _download(remote: Remote, target: Path, have: int, client: Any, moved: Moved) -> None:
    import httpx

    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    came = 0
    try:
        with client.stream("GET", remote.url, headers=headers) as answer:
            if answer.status_code == HTTP_RANGE_NOT_SATISFIABLE and have:
                return  # nothing comes after what is there: the hash will tell
            start = _begins_at(answer, remote, have)
            with open(target, "r+b" if start else "wb") as file:
                file.seek(start)
                file.truncate()
                for block in answer.iter_raw():  # as it comes: gathered blocks would be lost with the line
                    file.write(block)
                    came += len(block)
                    if remote.bytes is not None and start + came > remote.bytes:
                        raise failed(f"The server sends more of {remote.name} than it said.")
                    moved(remote.name, start + came, remote.bytes)
                file.flush()
                os.fsync(file.fileno())
    except httpx.TransportError as error:
        raise MayPassError(why(error), moved=came > 0) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise failed(f"{remote.name} cannot be fetched: {why(error)}.", f"Asked for: {remote.url}") from error
    there = start + came
    if remote.bytes is not None and there < remote.bytes:
        raise MayPassError(f"it broke off {remote.bytes - there} bytes before its end", moved=came > 0)


def _begins_at(answer: Any, remote: Remote, have: int) -> int:
    """From which byte on the answer holds the file. Raises for every answer that holds none of it."""
    status = answer.status_code
    if status == 200:
        return 0
    if status == 206:
        found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            raise failed(f"The server sends another part of {remote.name} than it was asked for.")
        return have
    told = f"{status} {answer.reason_phrase}".rstrip()
    if status in MAY_PASS:
        raise MayPassError(f"the server answers {told}")
    if status in (401, 403):
        raise failed(
            f"{remote.name} is not given to everybody: the server answers {told}.",
            "Look at its page in a browser; if it asks for an account or a consent, set HF_TOKEN.",
        )
    raise failed(f"{remote.name} cannot be fetched: the server answers {told}.", f"Asked for: {remote.url}")


def _checked(remote: Remote, target: Path, moved: Moved) -> str:
    """The SHA-256 of what came. What is wrong is thrown away: going on from it cannot mend it."""
    size = _size(target)

    def looked(seen: int) -> None:
        moved(remote.name, seen, size)

    digest = sha256_of(target, looked)
    right = digest == remote.sha256 if remote.sha256 else blob_of(target, looked) == remote.blob
    if not right:
        target.unlink()
        raise MayPassError("what came is not what the server announced, its hash is another")
    return digest


def failed(message: str, hint: str = "") -> EnvironmentFailure:
    """It will not work like this."""
    return EnvironmentFailure(message, hint=hint, code="model_fetch")


def why(error: BaseException) -> str:
    """What httpx says of a broken connection, or at least what kind it is."""
    return display(str(error) or type(error).__name__).rstrip(".")[:_SHOWN_CHARS]
