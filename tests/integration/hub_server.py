"""A server on loopback that plays the Hugging Face hub, its storage of large files, and OpenAI's for Whisper.

It answers as the hub does: what is in a repository at which commit, large files by a redirect to another
host, ranges, and the errors that a test asks for. What it was asked stands in `asked`.
"""

import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, ClassVar

LARGE_FROM_BYTES = 10_000


@dataclass(slots=True)
class Repository:
    """Files by commit; the newest is `main`."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """`main` moves to these files; returns the commit."""
        name = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.tags["main"] = name
        return name


@dataclass(slots=True)
class Trouble:
    """What goes wrong, and how often."""

    status: int = 0
    "answered in place of the file or of the listing"
    headers: tuple[tuple[str, str], ...] = ()
    break_after: int | None = None
    "bytes of the body, then the line is cut"
    other_bytes: bool = False
    "of the same length"
    ignore_range: bool = False
    other_range: bool = False
    "answers with another part than was asked for"
    surplus: bytes = b""
    "sent after the body"
    times: int = 1


@dataclass(slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    host: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        """From where on it was asked for."""
        return self.headers.get("range")


class HubServer(http.server.ThreadingHTTPServer):
    """`with HubServer() as hub`: `hub.address` is the endpoint."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, Repository] = {}
        self.whisper: dict[str, bytes] = {}
        "by SHA-256 and name, as in OpenAI's addresses"
        self.hides_hashes = False
        "in listings"
        self.hides_sizes = False
        "in answers to HEAD"
        self.troubles: dict[str, Trouble] = {}
        "by the end of the path"
        self.asked: list[Asked] = []
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}/storage"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is part of the tests."""

    def trouble_for(self, path: str) -> Trouble:
        """What is to go wrong with this request; a whole answer if nothing is."""
        for ending, trouble in self.troubles.items():
            if path.endswith(ending) and trouble.times > 0:
                trouble.times -= 1
                return trouble
        return Trouble()

    def asked_for(self, ending: str, method: str = "GET") -> list[Asked]:
        """The requests of a path that ends so."""
        return [one for one in self.asked if one.path.endswith(ending) and one.method == method]


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HubServer
    _ERRORS: ClassVar[dict[int, str]] = {401: "GatedRepo", 404: "EntryNotFound"}

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(self.command, path, headers.get("host", ""), headers))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._listing(*found.groups(), path)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/storage/[0-9a-f]{64}/([^/]+)/([0-9a-f]{40})/(.+)", path):
            repository = self.server.repositories[found[1].replace("--", "/")]
            self._body(repository.commits[found[2]][found[3]], path)
        elif path.removeprefix("/whisper/") in self.server.whisper:
            self._body(self.server.whisper[path.removeprefix("/whisper/")], path)
        else:
            self._send(404, b"")

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def _send(self, status: int, body: bytes, *headers: tuple[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" or not self.server.hides_sizes:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _listing(self, name: str, revision: str, path: str) -> None:
        trouble = self.server.trouble_for(path)
        if trouble.status:
            self._send(trouble.status, b"", *trouble.headers)
            return
        repository = self.server.repositories.get(name)
        if repository is None:
            self._send(401, b"", ("X-Error-Code", "RepoNotFound"))
            return
        commit = repository.tags.get(revision, revision)
        if commit not in repository.commits:
            self._send(404, b"", ("X-Error-Code", "RevisionNotFound"))
            return
        siblings = [_sibling(file, content) for file, content in repository.commits[commit].items()]
        if self.server.hides_hashes:
            siblings = [{**sibling, "blobId": None} for sibling in siblings]
        answer = {"id": name, "modelId": name, "sha": commit, "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), ("Content-Type", "application/json"))

    def _resolve(self, name: str, commit: str, file: str) -> None:
        content = self.server.repositories[name].commits[commit].get(file)
        if content is None:
            self._send(404, b"", ("X-Error-Code", "EntryNotFound"))
            return
        if len(content) < LARGE_FROM_BYTES:
            self._body(content, self.path, ("X-Repo-Commit", commit), ("ETag", f'"{_blob(content)}"'))
            return
        digest = hashlib.sha256(content).hexdigest()
        place = f"{self.server.storage}/{digest}/{name.replace('/', '--')}/{commit}/{file}"
        linked = (("X-Linked-Size", str(len(content))), ("X-Linked-Etag", f'"{digest}"'))
        self._send(302, b"", ("Location", place), ("X-Repo-Commit", commit), *linked)

    def _body(self, content: bytes, path: str, *headers: tuple[str, str]) -> None:
        trouble = self.server.trouble_for(path) if self.command == "GET" else Trouble()
        if trouble.status:
            self._send(trouble.status, b"", *trouble.headers)
            return
        if trouble.other_bytes:
            content = bytes(255 - byte for byte in content)
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(begin[1]) if begin and not trouble.ignore_range else 0
        if start and start >= len(content):
            self._send(416, b"")
            return
        body = content[start:]
        body += trouble.surplus
        told = start + 1 if trouble.other_range else start
        extra = [("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")] if start else []
        length = len(body)
        if trouble.break_after is not None:
            body = body[: trouble.break_after]
            self.close_connection = True
        self._send(206 if start else 200, body, *headers, *extra, length=length)


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _blob(content)}
    if len(content) >= LARGE_FROM_BYTES:
        digest = hashlib.sha256(content).hexdigest()
        sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return sibling


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
