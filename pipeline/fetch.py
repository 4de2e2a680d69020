"""One recording from a public https address into a file, whatever the other side tries.

Knows sockets, TLS and HTTP; which addresses are public is `web_address`'s to say, what is a recording
`sound.decode`'s. Invariants: a socket is opened only to an IP address that was just checked, for redirects
and tries alike; nobody waits longer than a nap without looking whether the work is still wanted.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from pipeline import __version__
from pipeline.errors import InputError
from pipeline.files import display
from pipeline.sound.decode import probe
from pipeline.web_address import Fetched, WebAddress, is_public, parse

RETRIES = 2
RETRY_SECONDS = 5.0
MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0
"without a single byte"
NAP_SECONDS = 0.2
BLOCK_BYTES = 1 << 16
FRAMING_BYTES = 1 << 20
"headers and the like, beyond the recording itself"
_REDIRECTS = (301, 302, 303, 307, 308)
# The server or something on the way is busy: RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4, RFC 9110 15.6.
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_TYPES = ("audio/", "video/mp4", "application/ogg", "application/octet-stream", "binary/octet-stream")
_HEADERS = {
    "User-Agent": f"voxspool/{__version__}",
    "Accept": "audio/*, */*;q=0.1",
    "Connection": "close",
}
_SHOWN_CHARS = 100
_HINT = "Look whether the address opens in a browser and this machine has a connection, then try again."
_HINT_CERTIFICATES = (
    "Look at it in a browser. Where no https works, install ca-certificates and set the clock."
)
_HINT_RECORDING = "The address must give the recording itself, not a page about it."

Report = Callable[[], None]
"asked again and again; raises Interrupted or Cancelled"
T = TypeVar("T")


class _MayPassError(Exception):
    """Trouble that may be over in a moment."""


def look_up(host: str, port: int) -> Sequence[str]:
    """The IP addresses of a host, by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial(ip: str, port: int) -> socket.socket:
    """A connection to an IP address."""
    return socket.create_connection((ip, port), timeout=CONNECT_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """How recordings are fetched. No field of it goes around a check: they only reach the network."""

    voice_max_bytes: int = 50_000_000
    audio_max_bytes: int = 500_000_000
    max_seconds: float = 600.0
    "for one address, redirects and all tries included"
    look_up: Callable[[str, int], Sequence[str]] = look_up
    dial: Callable[[str, int], socket.socket] = dial
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, url: str, target: Path, *, max_bytes: int, report: Report) -> Fetched:
        """Bring the recording at `url` into the file `target`.

        Raises InputError: `fetch_refused` for what we do not take, `fetch_failed` for what did not come;
        OSError where `target` cannot be written; and whatever `report` raises.
        """
        address = parse(url)
        context = self.tls()
        context.sslsocket_class = _WatchedSocket
        deadline = self.clock() + self.max_seconds
        for tries_left in range(RETRIES, -1, -1):
            watch = _Watch(
                address=address,
                report=report,
                clock=self.clock,
                deadline=deadline,
                bytes_left=max_bytes + FRAMING_BYTES,
                moved_at=self.clock(),
            )
            try:
                return self._download(address, target, max_bytes, watch, context)
            except _MayPassError as error:
                logger.warning("{}: {}; {} tries left", address.shown, error, tries_left)
                if not tries_left:
                    raise _failed(address, f"could not be fetched in {RETRIES + 1} tries: {error}") from error
            self._wait(watch)
        raise AssertionError("the last try returns or raises")

    def _wait(self, watch: "_Watch") -> None:
        for _ in range(round(RETRY_SECONDS / NAP_SECONDS)):
            watch.report()
            self.sleep(NAP_SECONDS)

    def _download(
        self, address: WebAddress, target: Path, max_bytes: int, watch: "_Watch", context: ssl.SSLContext
    ) -> Fetched:
        """One try: along the redirects, each of them looked up and checked like the first address."""
        here = address
        for _ in range(MAX_REDIRECTS + 1):
            with self._asked(here, watch, context) as response:
                location = response.getheader("Location")
                if response.status not in _REDIRECTS or not location:
                    _refuse_answer(here, response, max_bytes)
                    digest, size = _save(response, here, target, max_bytes)
                    _refuse_other_content(here, target)
                    return Fetched(url=address.shown, final_url=here.shown, sha256=digest, bytes=size)
                here = here.joined(location)
        raise _refused(address, f"redirects more than {MAX_REDIRECTS} times")

    @contextlib.contextmanager
    def _asked(
        self, address: WebAddress, watch: "_Watch", context: ssl.SSLContext
    ) -> Iterator[http.client.HTTPResponse]:
        """Connected to a checked IP address, our request sent, the answer's headers read."""
        with contextlib.ExitStack() as stack:
            with _network(address):
                raw = stack.enter_context(self._reach(address, watch))
                secure = stack.enter_context(_secure(raw, address, watch, context))
                secure.do_handshake()
                connection = http.client.HTTPSConnection(address.host, address.port, context=context)
                connection.auto_open = 0  # never by itself, where nothing is checked
                connection.sock = secure
                connection.request("GET", address.target, headers=_HEADERS)
                response = stack.enter_context(contextlib.closing(connection.getresponse()))
            yield response

    def _reach(self, address: WebAddress, watch: "_Watch") -> socket.socket:
        """A connection to the host: its addresses are looked up once, checked, and dialled as they are."""
        addresses = self._checked(address, watch)
        for ip in addresses[:-1]:
            with contextlib.suppress(OSError):
                return _beside(functools.partial(self.dial, ip, address.port), watch)
        return _beside(functools.partial(self.dial, addresses[-1], address.port), watch)

    def _checked(self, address: WebAddress, watch: "_Watch") -> Sequence[str]:
        if address.is_ip:
            found: Sequence[str] = (address.host,)
        else:
            found = _beside(functools.partial(self.look_up, address.host, address.port), watch)
        if not found:
            raise _MayPassError(f"{address.host} has no address")
        private = [ip for ip in found if not is_public(ip)]
        if private:
            # the note is read by whoever may drop files, who need not learn what our names stand for
            logger.warning("{} leads to {}", address.host, ", ".join(private))
            raise _refused(address, f"is not fetched: {address.host} has an address that is not public")
        return found


@dataclass(slots=True, kw_only=True)
class _Watch:
    """Asked between any two bytes, and while none come: may this go on?"""

    address: WebAddress
    report: Report
    clock: Callable[[], float]
    deadline: float
    bytes_left: int
    moved_at: float

    def __call__(self) -> None:
        self.report()
        now = self.clock()
        if now >= self.deadline:
            raise _failed(self.address, "took too long: fetch.max_seconds is over")
        if now >= self.moved_at + IDLE_SECONDS:
            raise _MayPassError(f"nothing came for {IDLE_SECONDS:.0f} s")

    def moved(self, count: int) -> None:
        """So many bytes came."""
        self.moved_at = self.clock()
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise _refused(self.address, "sends more than is taken")


class _WatchedSocket(ssl.SSLSocket):
    """Waits in naps, and has `watch` asked between them: no drip of bytes can hold us."""

    watch: _Watch

    def do_handshake(self, block: bool = False) -> None:
        """TLS from the first byte to the proof of the certificate."""
        self._patiently(lambda: super(_WatchedSocket, self).do_handshake(block))
        self.watch.moved(0)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """What http.client reads by."""
        count = self._patiently(lambda: super(_WatchedSocket, self).recv_into(buffer, nbytes, flags))
        self.watch.moved(count)
        return count

    def _patiently(self, call: Callable[[], T]) -> T:
        while True:
            self.watch()
            with contextlib.suppress(TimeoutError):
                return call()


def _secure(
    raw: socket.socket, address: WebAddress, watch: _Watch, context: ssl.SSLContext
) -> _WatchedSocket:
    """TLS around a connection; whom we talk to is proven by name, though we went there by number."""
    raw.settimeout(NAP_SECONDS)
    secure = context.wrap_socket(
        raw,
        server_hostname=address.host,
        do_handshake_on_connect=False,
        # where no length was told, only TLS knows a broken line from an end
        suppress_ragged_eofs=False,
    )
    assert isinstance(secure, _WatchedSocket)
    secure.watch = watch
    return secure


def _beside(call: Callable[[], T], watch: _Watch) -> T:
    """Do what cannot be interrupted in a thread of its own; once nobody waits, its answer is dropped."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except (OSError, ValueError) as error:
            future.set_exception(error)

    threading.Thread(target=run, name="fetch", daemon=True).start()
    while not future.done():
        watch()
        concurrent.futures.wait([future], NAP_SECONDS)
    watch.moved(0)
    return future.result()


@contextlib.contextmanager
def _network(address: WebAddress) -> Iterator[None]:
    """What sockets, TLS and HTTP raise, told apart: a wrong certificate stays wrong, the rest may pass."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        reason = f"cannot prove that it is {address.host}: {display(error.verify_message)}"
        raise _refused(address, reason, _HINT_CERTIFICATES) from error
    except socket.gaierror as error:
        raise _MayPassError(f"{address.host} cannot be looked up: {error.strerror}") from error
    except ssl.SSLError as error:
        raise _MayPassError(f"TLS: {(error.reason or 'broken').replace('_', ' ').lower()}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _MayPassError(display(reason)[:_SHOWN_CHARS]) from error


def _refuse_answer(address: WebAddress, response: http.client.HTTPResponse, max_bytes: int) -> None:
    """By status and headers, before anything of the body is read."""
    status = response.status
    if status != 200:
        words = f"it answers {status} {http.client.responses.get(status, '')}".rstrip()
        if status in _MAY_PASS:
            raise _MayPassError(words)
        raise _failed(address, f"could not be fetched: {words}")
    kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    if kind and not kind.startswith(_TYPES):
        raise _refused(address, f"is {display(kind)[:_SHOWN_CHARS]}, no recording", _HINT_RECORDING)
    if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
        # we asked for it as it is; a small compressed answer could be a huge one
        raise _refused(address, "comes compressed, though that was not asked for")
    if response.length is not None and response.length > max_bytes:
        raise _too_large(address, max_bytes)


def _save(
    response: http.client.HTTPResponse, address: WebAddress, target: Path, max_bytes: int
) -> tuple[str, int]:
    """The body into `target`; its SHA-256 and size."""
    digest, size, block = hashlib.sha256(), 0, memoryview(bytearray(BLOCK_BYTES))
    with open(target, "wb") as file:
        while count := _read(response, address, block):
            size += count
            if size > max_bytes:
                raise _too_large(address, max_bytes)
            digest.update(block[:count])
            file.write(block[:count])
    if response.length:
        raise _MayPassError(f"it broke off {response.length} bytes before its end")
    return digest.hexdigest(), size


def _read(response: http.client.HTTPResponse, address: WebAddress, block: memoryview) -> int:
    with _network(address):
        return response.readinto(block)


def _refuse_other_content(address: WebAddress, target: Path) -> None:
    """Whatever its name and type say: only what our own decoder takes for a recording."""
    try:
        probe(target)
    except InputError as error:
        raise _refused(address, f"is not taken: {error.message.rstrip('.')}", _HINT_RECORDING) from error


def _too_large(address: WebAddress, max_bytes: int) -> InputError:
    return _refused(address, f"is larger than the {max_bytes / 1e6:g} MB that are taken")


def _refused(address: WebAddress, reason: str, hint: str = "") -> InputError:
    hint = hint or "Put the file beside the job file and name it there."
    return InputError(f"{address.shown} {reason}.", code="fetch_refused", hint=hint)


def _failed(address: WebAddress, reason: str) -> InputError:
    return InputError(f"{address.shown} {reason}.", code="fetch_failed", hint=_HINT)
