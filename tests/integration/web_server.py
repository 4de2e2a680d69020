"""A TLS server on loopback that answers as a test tells it, and the small Internet around it.

Names resolve as the test says, public IP addresses all lead to this one server, and any other address that
is dialled fails the test.
"""

import contextlib
import io
import socket
import ssl
import threading
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import trustme

from pipeline.fetch import Fetcher

PUBLIC = "93.184.215.14"
OTHER = "151.101.1.69"
SIX = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
HOST = "voices.example.org"
TIMEOUT_SECONDS = 20.0


def a_wav(seconds: float = 1.0) -> bytes:
    """A small recording."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(bytes(range(256)) * round(seconds * 62.5))
    return written.getvalue()


WAV = a_wav()


def answer(
    body: bytes = WAV, *headers: str, status: str = "200 OK", kind: str = "audio/wav", length: Any = None
) -> bytes:
    """An HTTP answer; `length` lies about the body."""
    said = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {said}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    """An HTTP redirect."""
    return f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@dataclass(slots=True)
class Asked:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    sni: str | None


Answer = bytes | Iterable[bytes] | Callable[[], Iterable[bytes]]


class Server:
    """Answers by path; an answer is bytes, or blocks that are sent as long as anybody takes them."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[Asked] = []
        self.accepted = 0
        self.before_handshake: Callable[[socket.socket], None] = lambda _: None
        self.sent = 0
        self._context = context
        self._names: dict[int, str | None] = {}
        context.sni_callback = self._note_name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more."""
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _note_name(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        self._names[id(connection)] = name

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(TIMEOUT_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with raw, contextlib.suppress(OSError):
            self.before_handshake(raw)
            with self._context.wrap_socket(raw, server_side=True) as secure:
                head = self._head(secure)
                if head:
                    self._answer(secure, head)

    def _head(self, secure: ssl.SSLSocket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            block = secure.recv(65536)
            if not block:
                return ""
            data += block
        return data.decode("latin-1")

    def _answer(self, secure: ssl.SSLSocket, head: str) -> None:
        first, *lines = head.split("\r\n\r\n")[0].split("\r\n")
        path = first.split()[1]
        headers = dict(line.split(": ", 1) for line in lines)
        self.asked.append(Asked(path, headers, self._names.get(id(secure))))
        wanted = self.answers.get(path, answer(b"", status="404 Not Found"))
        if isinstance(wanted, list):
            wanted = wanted.pop(0) if len(wanted) > 1 else wanted[0]
        blocks = wanted() if callable(wanted) else [wanted] if isinstance(wanted, bytes) else wanted
        for block in blocks:
            if self._stopped.is_set():
                return
            secure.sendall(block)
            self.sent += len(block)
        with contextlib.suppress(OSError):
            secure.unwrap().shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class Internet:
    """What a fetcher sees of the world."""

    server: Server
    ca: trustme.CA
    names: dict[str, list[Sequence[str]]] = field(default_factory=lambda: {HOST: [[PUBLIC]]})
    "answers of each look-up in turn; the last one stays"
    looked_up: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    unreachable: tuple[str, ...] = ()
    slept: list[float] = field(default_factory=list)

    def look_up(self, host: str, port: int) -> Sequence[str]:
        """As the test says."""
        self.looked_up.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def dial(self, ip: str, port: int) -> socket.socket:
        """Public addresses lead to the server."""
        self.dialled.append((ip, port))
        if ip in self.unreachable:
            raise ConnectionRefusedError(111, "Connection refused")
        assert ip in (PUBLIC, OTHER, SIX), f"{ip} was dialled"
        raw = socket.create_connection(("127.0.0.1", self.server.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return raw

    def tls(self) -> ssl.SSLContext:
        """As in production, trusting the test's authority instead of the system's."""
        return ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())

    def fetcher(self, **changes: Any) -> Fetcher:
        """The real one in this world; it does not sleep."""
        fields = {"look_up": self.look_up, "dial": self.dial, "tls": self.tls, "sleep": self.slept.append}
        return Fetcher(**{**fields, **changes})


@contextlib.contextmanager
def small_internet(ca: trustme.CA, *identities: str) -> Iterator[Internet]:
    """A server with a certificate for `identities`, and the world around it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*identities).configure_cert(context)
    server = Server(context)
    try:
        yield Internet(server, ca)
    finally:
        server.close()
