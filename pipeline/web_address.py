"""Which web addresses may be fetched at all: https, an ordinary host and port, a public IP address.

Pure: text in, values out; looks nothing up. Invariant: an address is taken apart once, here, and what is
connected to and asked for is put together from those parts, so that no second reading can differ.
"""

import re
import string
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, urljoin, urlsplit

from pipeline.errors import InputError

MAX_CHARS = 4000
HTTPS_PORT = 443
FIRST_FREE_PORT = 1024
_SHOWN_CHARS = 200
_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@%]+))(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")

# IANA's registries of special-purpose addresses, as of November 2026. Python's own `is_global` is not asked:
# it changed from one patch release to the next.
_SPECIAL_V4 = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carriers' private; Alibaba's metadata are in it
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's own, inside each virtual machine, though it looks public
            "169.254.0.0/16",  # link-local; 169.254.169.254 tells clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata are in it
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
# All that is public lies in 2000::/3; loopback, IPv4-mapped, NAT64, unique local and link-local do not.
_GLOBAL_V6 = ip_network("2000::/3")
_SPECIAL_V6 = tuple(
    map(
        ip_network,
        (
            "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: any IPv4 address in disguise
            "3fff::/20",  # documentation
        ),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAddress:
    """An https address, taken apart."""

    host: str
    "a name in lower case without a dot at its end, or an IP address without brackets"
    port: int
    target: str
    "path and query, as they are asked for"

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address and needs no look-up."""
        return ":" in self.host or _NUMBER.fullmatch(self.host.rpartition(".")[2]) is not None

    @property
    def url(self) -> str:
        """In full."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == HTTPS_PORT else f":{self.port}"
        return f"https://{host}{port}{self.target}"

    @property
    def shown(self) -> str:
        """For people and records: without the query, which often holds a key."""
        return self.url.partition("?")[0]

    def joined(self, location: str) -> "WebAddress":
        """Where a redirect leads; raises InputError like `parse`."""
        try:
            # http.client gives the header's bytes as Latin-1; what is no ASCII or a space is percent-encoded
            url = urljoin(self.url, quote(location, safe=string.punctuation, encoding="latin-1"))
        except ValueError as error:
            raise _refusal(f"{self.shown} redirects to what", "is no web address") from error
        return parse(url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came from an address, as a manifest tells it."""

    url: str
    "as it was asked for, without its query"
    final_url: str
    "after the redirects, without its query"
    sha256: str
    bytes: int


def is_url(reference: str) -> bool:
    """Whether a reference is a web address of any scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", reference) is not None


def shown(url: str) -> str:
    """Any URL as it can be told: no user, no password, no query, not too long."""
    scheme, separator, rest = url.partition("://")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    told = f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
    return told if len(told) <= _SHOWN_CHARS else f"{told[:_SHOWN_CHARS]}..."


def parse(url: str) -> WebAddress:
    """Take an address apart. Raises InputError (`fetch_refused`) for one that is not fetched from."""
    if len(url) > MAX_CHARS:
        raise _refusal(url, f"has more than {MAX_CHARS} characters")
    if not url.isprintable() or " " in url or "\\" in url:
        raise _refusal(url, "holds a character that no web address has; a space is written as %20")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _refusal(url, "is no web address") from error
    if parts.scheme != "https":
        raise _refusal(url, "does not begin with https://; nothing else is fetched")
    if "@" in parts.netloc:
        raise _refusal(url, "names a user or a password; they would stand in files that others read")
    found = _AUTHORITY.fullmatch(parts.netloc)
    if found is None:
        raise _refusal(url, "is no web address: its host cannot be read")
    host = _ipv6(url, found["six"]) if found["six"] else _host(url, found["name"])
    query = f"?{parts.query}" if parts.query else ""
    target = quote(f"{parts.path or '/'}{query}", safe=string.punctuation)
    return WebAddress(host=host, port=_port(url, found["port"]), target=target)


def _port(url: str, text: str | None) -> int:
    """Below 1024 live services of other kinds, which a stray https request may confuse."""
    port = HTTPS_PORT if text is None else int(text)
    if port != HTTPS_PORT and not FIRST_FREE_PORT <= port <= 65_535:
        raise _refusal(
            url, f"names port {port}; only {HTTPS_PORT} and ports from {FIRST_FREE_PORT} on are used"
        )
    return port


def _ipv6(url: str, text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError as error:
        raise _refusal(url, f"is no web address: {text} is no IPv6 address") from error


def _host(url: str, text: str) -> str:
    """A name, or an IPv4 address in its one usual form: 127.1, 0x7f000001 and 017700000001 are disguises."""
    if not text.isascii():
        raise _refusal(url, "has a host with letters beyond a to z; write it in its ASCII form (xn--...)")
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(name))
        except ValueError as error:
            raise _refusal(url, f"writes an IP address in an unusual way: {name}") from error
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refusal(url, "is no web address: what stands for its host is no name of one")
    return name


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, and not the disguise of another."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _SPECIAL_V4)
    return not ip.scope_id and ip in _GLOBAL_V6 and not any(ip in network for network in _SPECIAL_V6)


def _refusal(url: str, reason: str) -> InputError:
    return InputError(
        f"{shown(url)} {reason}.",
        code="fetch_refused",
        hint="Name a recording by a public https address, or put the file beside the job file.",
    )
