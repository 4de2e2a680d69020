"""Fetching from a real TLS server that tries every trick, through an injected resolver."""

import itertools
import os
import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_server import (
    HOST,
    OTHER,
    PUBLIC,
    SIX,
    WAV,
    Answer,
    Internet,
    a_wav,
    answer,
    redirect,
    small_internet,
)

from pipeline.errors import Cancelled, InputError, Interrupted
from pipeline.fetch import FRAMING_BYTES, MAX_REDIRECTS, RETRY_SECONDS, Fetcher
from pipeline.files import sha256_of
from pipeline.web_address import Fetched

URL = f"https://{HOST}/voices/narrator.wav?key=secret"
PATH = "/voices/narrator.wav?key=secret"
MAX_BYTES = 200_000
STUCK_SECONDS = 30.0
HEARD_SECONDS = RETRY_SECONDS * 0.9
"generous, for busy machines: it is the waiting to its end that must show"


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """An authority of our own."""
    return trustme.CA()


@pytest.fixture
def net(ca: trustme.CA) -> Iterator[Internet]:
    """One server under some names and addresses."""
    with small_internet(ca, HOST, "other.example.org", PUBLIC, SIX) as internet:
        internet.server.answers[PATH] = answer()
        yield internet


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the recording goes."""
    return tmp_path / "fetched.wav"


def fetch(
    net: Internet, target: Path, url: str = URL, *, max_bytes: int = MAX_BYTES, **changes: object
) -> Fetched:
    """With nobody who wants it stopped."""
    return net.fetcher(**changes).fetch(url, target, max_bytes=max_bytes, report=lambda: None)


def refusal(net: Internet, target: Path, url: str = URL, **changes: object) -> str:
    """The sentence of a refusal; nothing is tried twice then."""
    with pytest.raises(InputError) as caught:
        fetch(net, target, url, **changes)
    assert (caught.value.code, net.slept) == ("fetch_refused", []), caught.value.message
    assert "secret" not in caught.value.message
    return caught.value.message


def failure(net: Internet, target: Path, url: str = URL, **changes: object) -> str:
    """The sentence of a failure."""
    with pytest.raises(InputError) as caught:
        fetch(net, target, url, **changes)
    assert caught.value.code == "fetch_failed", caught.value.message
    assert "secret" not in caught.value.message
    return caught.value.message


# -- what works ----------------------------------------------------------------------------------


def test_a_recording_comes_as_it_is(net: Internet, target: Path) -> None:
    """With its hash; asked for uncompressed, of the right host, at the address that was looked up once."""
    fetched = fetch(net, target)
    assert target.read_bytes() == WAV
    url = "https://voices.example.org/voices/narrator.wav"
    assert fetched == Fetched(url=url, final_url=url, sha256=sha256_of(target), bytes=len(WAV))
    (asked,) = net.server.asked
    assert (asked.sni, asked.headers["Host"]) == (HOST, HOST)
    assert asked.headers["Accept-Encoding"] == "identity"
    assert asked.headers["User-Agent"].startswith("voxspool/")
    assert (net.looked_up, net.dialled) == ([HOST], [(PUBLIC, 443)])


def test_redirects_are_followed_to_another_host(net: Internet, target: Path) -> None:
    """Relative ones too; the manifest can tell where the recording really came from."""
    net.names["other.example.org"] = [[OTHER]]
    net.server.answers |= {
        PATH: redirect("../moved", "301 Moved Permanently"),
        "/moved": redirect("https://other.example.org:8443/x%20y?token=secret", "307 Temporary Redirect"),
        "/x%20y?token=secret": answer(),
    }
    fetched = fetch(net, target)
    assert fetched.final_url == "https://other.example.org:8443/x%20y"
    assert net.dialled == [(PUBLIC, 443), (PUBLIC, 443), (OTHER, 8443)]
    assert net.server.asked[-1].headers["Host"] == "other.example.org:8443"


def test_a_recording_in_chunks_without_a_length(net: Internet, target: Path) -> None:
    """Servers that make it while they send it."""
    blocks = [b"%x\r\n%s\r\n" % (len(block), block) for block in (WAV[:7], WAV[7:9000], WAV[9000:])]
    net.server.answers[PATH] = [[CHUNKED_HEAD, *blocks, b"0\r\nTrailer: x\r\n\r\n"]]
    assert fetch(net, target).bytes == len(WAV)
    net.server.answers[PATH] = b"HTTP/1.0 200 OK\r\n\r\n" + WAV
    assert fetch(net, target).bytes == len(WAV)


@pytest.mark.parametrize("host", [PUBLIC, f"[{SIX}]"])
def test_an_ip_address_with_a_certificate_of_its_own(net: Internet, target: Path, host: str) -> None:
    """Public ones need no name; none is sent, and none is looked up."""
    fetch(net, target, f"https://{host}{PATH}")
    assert (net.looked_up, net.server.asked[0].sni) == ([], None)
    assert net.server.asked[0].headers["Host"] == host


def test_the_next_address_is_tried_where_the_first_is_dead(net: Internet, target: Path) -> None:
    """IPv6 that leads nowhere is common."""
    net.names[HOST] = [[SIX, PUBLIC]]
    net.unreachable = (SIX,)
    fetch(net, target)
    assert [ip for ip, _ in net.dialled] == [SIX, PUBLIC]


def test_a_dot_at_the_end_of_a_host_changes_nothing(net: Internet, target: Path) -> None:
    """Neither the name that is proven nor the one that is sent."""
    fetch(net, target, f"https://VOICES.example.org.{PATH}")
    assert (net.server.asked[0].sni, net.server.asked[0].headers["Host"]) == (HOST, HOST)


def test_no_proxy_is_taken_from_the_environment(
    net: Internet, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would look names up by itself, where nobody checks."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fetch(net, target)
    assert net.dialled == [(PUBLIC, 443)]


# -- where it may lead -----------------------------------------------------------------------------

NOT_PUBLIC = [
    "127.0.0.1",
    "10.1.2.3",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:93.184.215.14",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2001:0:5ef5:79fb::1",
    "fd00:ec2::254",
    "fe80::1%1",
    "ff02::1",
]


@pytest.mark.parametrize("ip", NOT_PUBLIC)
def test_a_name_with_a_private_address_is_refused(net: Internet, target: Path, ip: str) -> None:
    """Before anything is dialled, and without telling which address it is."""
    net.names[HOST] = [[ip]]
    said = refusal(net, target)
    assert said == (
        "https://voices.example.org/voices/narrator.wav is not fetched: voices.example.org has an address"
        " that is not public."
    )
    assert net.dialled == []


def test_one_private_address_among_public_ones_is_enough(net: Internet, target: Path) -> None:
    """Nobody honest publishes both."""
    net.names[HOST] = [[PUBLIC, "127.0.0.1"]]
    refusal(net, target)
    assert net.dialled == []


@pytest.mark.parametrize("ip", [ip for ip in NOT_PUBLIC if "%" not in ip])
def test_a_redirect_to_a_private_address_is_refused(net: Internet, target: Path, ip: str) -> None:
    """By number and by name: each step is checked like the first."""
    host = f"[{ip}]" if ":" in ip else ip
    net.names["inside.example.org"] = [[ip]]
    for place in (host, "inside.example.org"):
        net.server.answers[PATH] = redirect(f"https://{place}/latest/meta-data/")
        assert "not public" in refusal(net, target)
    assert {ip for ip, _ in net.dialled} == {PUBLIC}


REDIRECTS = {
    "http://voices.example.org/x.wav": "does not begin with https://",
    "file:///etc/passwd": "does not begin with https://",
    "//127.0.0.1/x": "not public",
    "https://user:secret@voices.example.org/x": "names a user or a password",
    "https://2130706433/": "in an unusual way: 2130706433",
    "https://0x7f.1/": "in an unusual way",
    "https://127.0.0.1./": "not public",
    "https://voices.example.org:25/": "names port 25",
    "https://[fe80::1%251]/": "cannot be read",
    "https://evil\\@voices.example.org/": "that no web address has",
    "https://[": "is no web address",
    "https://b\xfccher.example.org/": "cannot be read",
}


@pytest.mark.parametrize(("location", "said"), REDIRECTS.items())
def test_a_redirect_to_an_address_of_another_kind_is_refused(
    net: Internet, target: Path, location: str, said: str
) -> None:
    """The same rules as for what stands in a job file."""
    net.server.answers[PATH] = redirect(location)
    assert said in refusal(net, target)
    assert net.dialled == [(PUBLIC, 443)]


def test_a_circle_of_redirects_ends(net: Internet, target: Path) -> None:
    """After five."""
    net.server.answers[PATH] = redirect(URL)
    assert refusal(net, target).endswith("redirects more than 5 times.")
    assert len(net.server.asked) == MAX_REDIRECTS + 1


def test_a_name_that_changes_its_address_is_checked_each_time(net: Internet, target: Path) -> None:
    """First public, then loopback: what was checked is what is dialled, and a redirect is checked anew."""
    net.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
    assert fetch(net, target).bytes == len(WAV)
    assert (net.looked_up, net.dialled) == ([HOST], [(PUBLIC, 443)])
    net.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
    net.server.answers[PATH] = redirect(URL)
    assert "not public" in refusal(net, target)
    assert len(net.dialled) == 2


def test_a_name_that_changes_its_address_between_two_tries(net: Internet, target: Path) -> None:
    """A server that fails on purpose gains nothing by the second look-up."""
    net.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
    net.server.answers[PATH] = answer(status="503 Service Unavailable")
    with pytest.raises(InputError, match="not public"):
        fetch(net, target)
    assert net.dialled == [(PUBLIC, 443)]


def test_this_very_machine_is_refused_by_the_real_resolver(target: Path) -> None:
    """Nothing injected."""
    for host in ("localhost", "localhost.", "127.0.0.1", "[::1]", "[::ffff:7f00:1]"):
        with pytest.raises(InputError, match="not public"):
            Fetcher().fetch(f"https://{host}:8443/", target, max_bytes=1, report=lambda: None)


# -- who it is -------------------------------------------------------------------------------------


def test_a_certificate_for_another_name_is_refused(net: Internet, target: Path) -> None:
    """The address is dialled by number, the name is proven all the same."""
    net.names["bank.example.org"] = [[PUBLIC]]
    said = refusal(net, target, "https://bank.example.org/x.wav")
    assert said.startswith(
        "https://bank.example.org/x.wav cannot prove that it is bank.example.org: Hostname mismatch"
    )
    assert net.server.asked == []


def test_a_certificate_of_an_unknown_authority_is_refused(net: Internet, target: Path) -> None:
    """With the system's own trust."""
    assert "cannot prove that it is" in refusal(net, target, tls=ssl.create_default_context)
    assert net.server.asked == []


def test_a_certificate_for_another_ip_address_is_refused(net: Internet, target: Path) -> None:
    """Numbers are proven too."""
    assert "IP address mismatch" in refusal(net, target, f"https://{OTHER}/x.wav")


# -- how much, what, how long ------------------------------------------------------------------------

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n"
ZEROS = b"\0" * 60_000


def forever(head: bytes, block: bytes = ZEROS) -> Callable[[], Iterator[bytes]]:
    """An answer without an end."""
    return lambda: itertools.chain([head], itertools.repeat(block))


ENDLESS = {
    "a body": forever(PLAIN_HEAD),
    "chunks": forever(CHUNKED_HEAD, b"%x\r\n%s\r\n" % (len(ZEROS), ZEROS)),
    "a chunk that is huge": forever(CHUNKED_HEAD + b"f" * 60 + b"\r\n"),
    "tiny chunks": forever(CHUNKED_HEAD, b"1;" + b"x" * 5000 + b"\r\n\0\r\n"),
    "trailers": forever(CHUNKED_HEAD + b"0\r\n", b"Trailer: x\r\n" * 5000),
    "not yet": forever(b"", b"HTTP/1.1 100 Continue\r\nX: %s\r\n\r\n" % (b"x" * 5000)),
}


@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_what_has_no_end_is_cut_off(net: Internet, target: Path, endless: Answer) -> None:
    """Whatever it is that has no end, neither disk nor memory fills up."""
    net.server.answers[PATH] = endless
    with pytest.raises(
        InputError, match=r"larger than the 4\.1943 MB that are taken|sends more than is taken"
    ):
        fetch_in_little_memory(net, target)
    assert not target.exists() or target.stat().st_size <= 4 * FRAMING_BYTES


def fetch_in_little_memory(net: Internet, target: Path) -> None:
    """At most 4 MB on disk, half of that in memory."""
    tracemalloc.start()
    try:
        fetch(net, target, max_bytes=4 * FRAMING_BYTES)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * FRAMING_BYTES


def test_a_chunk_of_less_than_nothing_is_not_read_to_its_end(net: Internet, target: Path) -> None:
    """http.client's `read` takes a chunk of -1 bytes for all that ever comes."""
    net.server.answers[PATH] = forever(CHUNKED_HEAD + b"-1\r\n")
    with pytest.raises(InputError, match="in 3 tries"):
        fetch_in_little_memory(net, target)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 ", b"", CHUNKED_HEAD])
def test_a_line_without_an_end_is_cut_off(net: Internet, target: Path, head: bytes) -> None:
    """Where a status, a header or the size of a chunk should be."""
    net.server.answers[PATH] = forever(head, b"x" * 10_000)
    assert "could not be fetched in 3 tries" in failure(net, target)


def test_headers_without_an_end_are_cut_off(net: Internet, target: Path) -> None:
    """After a hundred of them."""
    net.server.answers[PATH] = forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 50)
    assert "more than 100 headers" in failure(net, target)


def test_a_length_over_the_limit_is_refused_before_anything_is_read(net: Internet, target: Path) -> None:
    """The limit itself is allowed."""
    net.server.answers[PATH] = answer(length=MAX_BYTES + 1)
    assert refusal(net, target).endswith("narrator.wav is larger than the 0.2 MB that are taken.")
    assert not target.exists()
    assert fetch_of_size(net, target, len(WAV)) == len(WAV)
    assert "is larger" in refusal(net, target, max_bytes=len(WAV) - 1)


def fetch_of_size(net: Internet, target: Path, limit: int) -> int:
    """The sample under a limit."""
    net.server.answers[PATH] = answer()
    return fetch(net, target, max_bytes=limit).bytes


def test_a_length_that_is_too_long_is_found_out(net: Internet, target: Path) -> None:
    """What was promised did not come: perhaps it does the next time."""
    net.server.answers[PATH] = answer(length=len(WAV) + 50)
    said = failure(net, target)
    assert said.endswith("could not be fetched in 3 tries: it broke off 50 bytes before its end.")
    assert sum(net.slept) == pytest.approx(2 * RETRY_SECONDS)
    net.server.answers[PATH] = [answer(length=len(WAV) + 50), answer()]
    assert fetch(net, target).bytes == len(WAV)


def test_a_length_that_is_too_short_is_found_out(net: Internet, target: Path) -> None:
    """By the recording's own header."""
    net.server.answers[PATH] = answer(length=1000)
    assert "is not taken: fetched.wav is cut short" in refusal(net, target)


def test_chunks_that_break_off_are_found_out(net: Internet, target: Path) -> None:
    """Also between two of them."""
    net.server.answers[PATH] = CHUNKED_HEAD + b"%x\r\n%s\r\n" % (len(WAV), WAV)
    assert "in 3 tries" in failure(net, target)


def broken_off(data: bytes) -> Callable[[], Iterator[bytes]]:
    """An answer whose connection breaks without a word."""

    def answered() -> Iterator[bytes]:
        yield data
        raise ConnectionAbortedError

    return answered


def test_a_connection_that_breaks_is_no_end(net: Internet, target: Path) -> None:
    """Also where the server told no length: TLS has a goodbye of its own."""
    net.server.answers[PATH] = [broken_off(PLAIN_HEAD + WAV[:500]), PLAIN_HEAD + WAV]
    assert fetch(net, target).bytes == len(WAV)
    assert sum(net.slept) == pytest.approx(RETRY_SECONDS)
    net.server.answers[PATH] = broken_off(PLAIN_HEAD + WAV)
    assert "in 3 tries: TLS: unexpected eof while reading." in failure(net, target)
    net.server.answers[PATH] = broken_off(answer())
    assert fetch(net, target).bytes == len(WAV), "a length is enough"


COMPRESSED = {"gzip": "gzip", "br": "br", "two": "gzip, gzip", "unknown": "zzz"}


@pytest.mark.parametrize("encoding", COMPRESSED.values(), ids=COMPRESSED)
def test_a_compressed_answer_is_not_unpacked(net: Internet, target: Path, encoding: str) -> None:
    """A bomb stays a stone."""
    net.server.answers[PATH] = answer(b"\x1f\x8b" + b"x" * 100, f"Content-Encoding: {encoding}")
    assert refusal(net, target).endswith("comes compressed, though that was not asked for.")


KINDS = ["text/html", "application/json", "image/png", "audiobook/x", "application/xml; charset=utf-8"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_type_is_refused_by_its_header(net: Internet, target: Path, kind: str) -> None:
    """Mostly a page about the recording."""
    net.server.answers[PATH] = answer(kind=kind)
    assert refusal(net, target).endswith(f"narrator.wav is {kind.split(';')[0]}, no recording.")


@pytest.mark.parametrize(
    "kind", ["audio/x-wav", "AUDIO/WAV; x=y", "application/octet-stream", "binary/octet-stream", ""]
)
def test_types_under_which_recordings_come(net: Internet, target: Path, kind: str) -> None:
    """Stores of files know none at all."""
    net.server.answers[PATH] = answer(kind=kind)
    assert fetch(net, target).bytes == len(WAV)


CONTENTS = {
    "a page": b"<!doctype html><title>Not here</title>",
    "a playlist": b"#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n",
    "a concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "nothing": b"",
    "zeros": bytes(5000),
    "a half": WAV[: len(WAV) // 2],
    "a zip bomb": b"PK\x03\x04" + bytes(5000),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_content_that_is_no_recording_is_refused(net: Internet, target: Path, content: bytes) -> None:
    """Whatever name and type say."""
    net.server.answers[PATH] = answer(content)
    assert "narrator.wav is not taken: fetched.wav" in refusal(net, target)


def slowly(data: bytes, rest: bytes = b"x") -> Callable[[], Iterator[bytes]]:
    """Byte by byte, without an end."""

    def drip() -> Iterator[bytes]:
        for byte in itertools.chain(data, itertools.cycle(rest)):
            time.sleep(0.01)
            yield bytes([byte])

    return drip


DRIPS = {
    "status": slowly(b""),
    "headers": slowly(b"HTTP/1.1 200 OK\r\n"),
    "body": slowly(PLAIN_HEAD),
    "chunks": slowly(CHUNKED_HEAD, b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
def test_a_slow_drip_ends_with_the_time(net: Internet, target: Path, drip: Answer) -> None:
    """Each byte comes in time, all together do not; and nothing is tried again then."""
    net.server.answers[PATH] = drip
    started = time.monotonic()
    said = failure(net, target, max_seconds=0.5)
    assert said.endswith("narrator.wav took too long: fetch.max_seconds is over.")
    assert 0.4 < time.monotonic() - started < HEARD_SECONDS
    assert len(net.server.asked) == 1


def fast_clock() -> float:
    """Forty seconds in one."""
    return time.monotonic() * 40


def silent(_: socket.socket) -> None:
    """Take the connection and say nothing."""
    time.sleep(3)


def test_a_server_that_falls_silent_is_left(net: Internet, target: Path) -> None:
    """After 30 s without a byte; then it is tried again."""
    net.server.answers[PATH] = [lambda: (time.sleep(2) or b"" for _ in range(1)), answer()]
    assert fetch(net, target, clock=fast_clock).bytes == len(WAV)
    assert sum(net.slept) == pytest.approx(RETRY_SECONDS)


def test_a_server_that_never_speaks_tls_is_left(net: Internet, target: Path) -> None:
    """The handshake has its time too."""
    net.server.before_handshake = silent
    assert "nothing came for 30 s" in failure(net, target, clock=fast_clock, max_seconds=10_000)
    assert net.server.accepted == 3


def test_a_resolver_that_never_answers_is_left(net: Internet, target: Path) -> None:
    """getaddrinfo cannot be interrupted; nobody waits for it any longer."""

    def look_up(host: str, port: int) -> list[str]:
        time.sleep(3)
        return [PUBLIC]

    assert "nothing came for 30 s" in failure(
        net, target, look_up=look_up, clock=fast_clock, max_seconds=10_000
    )
    assert net.dialled == []


# -- trying again, and giving up ---------------------------------------------------------------------

PASSING: dict[str, Answer] = {
    "503": answer(status="503 Service Unavailable"),
    "429": answer(status="429 Too Many Requests"),
    "garbage": b"\xff\xfe\x00garbage\r\n\r\n",
    "another protocol": b"220 mail.example.org ESMTP\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("first", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(net: Internet, target: Path, first: bytes) -> None:
    """Twice, after five seconds each."""
    net.server.answers[PATH] = [first, first, answer()]
    assert fetch(net, target).bytes == len(WAV)
    assert sum(net.slept) == pytest.approx(2 * RETRY_SECONDS)
    net.server.answers[PATH] = first
    assert "could not be fetched in 3 tries: " in failure(net, target)


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "204 No Content", "206 Partial Content", "304 X"]
)
def test_an_answer_that_stays_is_not_tried_again(net: Internet, target: Path, status: str) -> None:
    """What is not there now is not there in five seconds."""
    net.server.answers[PATH] = answer(status=status)
    assert f"could not be fetched: it answers {status[:3]}" in failure(net, target)
    assert (len(net.server.asked), net.slept) == (1, [])


def test_without_a_network_it_fails_and_says_why(net: Internet, target: Path) -> None:
    """No other way is tried."""
    net.unreachable = (PUBLIC,)
    assert failure(net, target).endswith("could not be fetched in 3 tries: Connection refused.")
    net.names = {}
    assert failure(net, target).endswith(
        "in 3 tries: voices.example.org cannot be looked up: Name or service not known."
    )
    net.names = {HOST: [[]]}
    assert failure(net, target).endswith("in 3 tries: voices.example.org has no address.")


def test_a_full_disk_is_not_taken_for_the_network(net: Internet) -> None:
    """The job waits then, as for any full disk."""
    with pytest.raises(OSError, match="No space left"):
        fetch(net, Path("/dev/full"))
    assert net.slept == []


def test_a_retry_begins_with_an_empty_file(net: Internet, target: Path) -> None:
    """Nothing of a longer first try stays behind."""
    longer = a_wav(3.0)
    net.server.answers[PATH] = [answer(longer, length=len(longer) + 1), answer()]
    fetched = fetch(net, target)
    assert target.read_bytes() == WAV and fetched.sha256 == sha256_of(target)


# -- still wanted? -----------------------------------------------------------------------------------


class Wanted:
    """Stops when the condition holds; counts the questions."""

    def __init__(self, stop: Callable[[], bool], error: Exception) -> None:
        self.stop, self.error = stop, error
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.stop():
            raise self.error


STOPS: dict[str, Answer] = {
    "before the answer": lambda: (time.sleep(STUCK_SECONDS) or b"" for _ in range(1)),
    "in the body": slowly(PLAIN_HEAD),
    "while waiting for the next try": answer(status="503 X"),
}


@pytest.mark.parametrize("place", STOPS)
@pytest.mark.parametrize("error", [Interrupted("stop"), Cancelled("cancel")])
def test_a_stop_is_heard_at_once(net: Internet, target: Path, place: str, error: Exception) -> None:
    """Wherever it is; and the work is shown alive meanwhile."""
    net.server.answers[PATH] = STOPS[place]
    started = time.monotonic()
    wanted = Wanted(lambda: time.monotonic() > started + 0.3, error)
    with pytest.raises(type(error)):
        net.fetcher(sleep=time.sleep).fetch(URL, target, max_bytes=MAX_BYTES, report=wanted)
    assert 0.3 <= time.monotonic() - started < HEARD_SECONDS
    assert wanted.asked > 1


def test_a_stop_is_heard_while_a_name_is_looked_up(net: Internet, target: Path) -> None:
    """And while a connection is made."""
    for stuck in ("look_up", "dial"):
        started = time.monotonic()
        wanted = Wanted(lambda since=started: time.monotonic() > since + 0.3, Interrupted("stop"))  # type: ignore[misc]
        fetcher = net.fetcher(**{stuck: lambda *_: time.sleep(STUCK_SECONDS) or []})
        with pytest.raises(Interrupted):
            fetcher.fetch(URL, target, max_bytes=MAX_BYTES, report=wanted)
        assert time.monotonic() - started < HEARD_SECONDS


def test_nothing_is_left_open(net: Internet, target: Path) -> None:
    """Neither files nor sockets, whatever happened."""

    def ours() -> int:
        return len(os.listdir("/proc/self/fd"))

    fetch(net, target)
    time.sleep(0.1)
    before = ours()
    for bad in (
        answer(status="404 X"),
        redirect("http://x/"),
        answer(b"x"),
        answer(length=10**9),
        b"garbage",
    ):
        net.server.answers[PATH] = bad
        for _ in range(3):
            with pytest.raises(InputError):
                fetch(net, target)
    deadline = time.monotonic() + 5
    while ours() > before and time.monotonic() < deadline:
        time.sleep(0.05)  # the server's own ends close a little later
    assert ours() <= before


# -- anything at all ---------------------------------------------------------------------------------

# fmt: off
PIECES = [
    b"HTTP/1.1 ", b"200 OK", b"302", b"\r\n", b"\r\n\r\n", b"\n", b"Location: ", b"Content-Length: ",
    b"Transfer-Encoding: ", b"chunked", b"https://", b"//", b"[", b"]", b":", b"@", b"-1", b"1", b"fffffff",
    b"0", b"\0", b"\xff", b" ", b"Content-Type: audio/wav", b"Content-Encoding: ", b"100 Continue", b"%",
    b"\t", HOST.encode(), WAV[:60],
]
# fmt: on


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=25), st.booleans())
def test_whatever_a_server_says_there_is_a_sentence(
    net: Internet, target: Path, pieces: list[bytes], begins_well: bool
) -> None:
    """Never another error, never an address that was not checked."""
    net.server.answers[PATH] = (b"HTTP/1.1 " if begins_well else b"") + b"".join(pieces)
    with pytest.raises(InputError) as caught:
        fetch(net, target)
    assert caught.value.code in ("fetch_refused", "fetch_failed")
    assert caught.value.message.isprintable() and len(caught.value.message) < 600
