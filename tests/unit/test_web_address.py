"""Which web addresses may be fetched at all."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.web_address import is_public, is_url, parse, shown

GOOD = {
    "https://example.org/a.wav": ("example.org", 443, "/a.wav"),
    "HTTPS://Example.ORG/A.wav": ("example.org", 443, "/A.wav"),
    "https://example.org": ("example.org", 443, "/"),
    "https://example.org?x=1": ("example.org", 443, "/?x=1"),
    "https://example.org.:443/a?b=c/d#part": ("example.org", 443, "/a?b=c/d"),
    "https://example.org:8443//a": ("example.org", 8443, "//a"),
    "https://example.org/caf\u00e9.wav?\u00fc": ("example.org", 443, "/caf%C3%A9.wav?%C3%BC"),
    "https://example.org/a%20b+c.wav": ("example.org", 443, "/a%20b+c.wav"),
    "https://xn--bcher-kva.example/": ("xn--bcher-kva.example", 443, "/"),
    "https://a_b-c.s3.example.org/": ("a_b-c.s3.example.org", 443, "/"),
    "https://localhost/": ("localhost", 443, "/"),
    "https://93.184.215.14/": ("93.184.215.14", 443, "/"),
    "https://[2606:2800:0:0::0001]:4443/": ("2606:2800::1", 4443, "/"),
    "https://[::ffff:7f00:1]/": ("::ffff:7f00:1", 443, "/"),
    "https://3com.example/": ("3com.example", 443, "/"),
}


@pytest.mark.parametrize(("url", "parts"), GOOD.items())
def test_an_address_is_taken_apart(url: str, parts: tuple[str, int, str]) -> None:
    """Host, port, and what is asked for; put together again it means the same."""
    address = parse(url)
    assert (address.host, address.port, address.target) == parts
    assert parse(address.url) == address


BAD = {
    "http://example.org/": "does not begin with https://",
    "ftp://example.org/": "does not begin with https://",
    "file:///etc/passwd": "does not begin with https://",
    "gopher://example.org/": "does not begin with https://",
    "https:///a.wav": "host cannot be read",
    "https://": "host cannot be read",
    "https://user@example.org/": "names a user or a password",
    "https://user:secret@example.org/": "names a user or a password",
    "https://example.org:443@evil.example/": "names a user or a password",
    "https://@example.org/": "names a user or a password",
    "https://example.org:/": "host cannot be read",
    "https://example.org:0/": "names port 0",
    "https://example.org:22/": "names port 22",
    "https://example.org:80/": "names port 80",
    "https://example.org:1023/": "names port 1023",
    "https://example.org:65536/": "names port 65536",
    "https://example.org:443:443/": "host cannot be read",
    "https://example.org:4a3/": "host cannot be read",
    "https://example.org:-1/": "host cannot be read",
    "https://127.1/": "in an unusual way: 127.1",
    "https://2130706433/": "in an unusual way: 2130706433",
    "https://0177.0.0.1/": "in an unusual way",
    "https://017700000001/": "in an unusual way",
    "https://0x7f000001/": "in an unusual way",
    "https://0x7f.0.0.0x1/": "in an unusual way",
    "https://127.0.0.01/": "in an unusual way",
    "https://1.2.3.4.5/": "in an unusual way",
    "https://300.1.1.1/": "in an unusual way",
    "https://example.1/": "in an unusual way",
    "https://example.org../": "is no name of one",
    "https://.example.org/": "is no name of one",
    "https://a..b/": "is no name of one",
    "https://-a.example/": "is no name of one",
    "https://exa,mple.org/": "is no name of one",
    "https://" + "a" * 64 + ".example/": "is no name of one",
    "https://" + "a." * 130 + "example/": "is no name of one",
    "https://b\u00fccher.example/": "in its ASCII form",
    "https://ex\u212ample.org/": "in its ASCII form",
    "https://\uff11\uff12\uff17.0.0.1/": "in its ASCII form",
    "https://[::1/": "is no web address",
    "https://::1/": "host cannot be read",
    "https://[::1]evil.example/": "is no web address",
    "https://[fe80::1%25eth0]/": "host cannot be read",
    "https://[::gg]/": "is no web address",
    "https://example.org:\uff14\uff14\uff13/": "host cannot be read",
    "https://[1.2.3.4]/": "is no web address",
    "https://[v1.a]/": "is no web address",
    "https://exa%6dple.org/": "host cannot be read",
    "https://example.org\\@evil.example/": "that no web address has",
    "https://example.org/a b.wav": "a space is written as %20",
    "https://example.org/a\tb": "that no web address has",
    "https://example.org/\r\nHost: evil": "that no web address has",
    "https://example.org/\u202eb": "that no web address has",
    "https://example.org/" + "a" * 4000: "more than 4000 characters",
}  # fmt: skip


@pytest.mark.parametrize(("url", "said"), BAD.items(), ids=[f"{n}" for n in range(len(BAD))])
def test_an_address_that_is_not_fetched_from_says_why(url: str, said: str) -> None:
    """In a sentence that tells neither users nor passwords."""
    with pytest.raises(InputError) as caught:
        parse(url)
    assert caught.value.code == "fetch_refused"
    assert said in caught.value.message
    assert "secret" not in caught.value.message and len(caught.value.message) < 400


def test_users_passwords_and_queries_are_not_told() -> None:
    """They are keys, and notes and manifests are read by others."""
    assert shown("https://u:secret@example.org/a.wav?key=secret#x") == "https://example.org/a.wav"
    assert shown("https://example.org?key=secret@x") == "https://example.org"
    assert shown("https://example.org/a@b.wav") == "https://example.org/a@b.wav"
    assert shown("https://example.org/" + "a" * 400).endswith("aaa...")
    assert parse("https://example.org:8443/a.wav?key=secret").shown == "https://example.org:8443/a.wav"


def test_what_is_a_web_address_at_all() -> None:
    """Of any scheme; a path is none."""
    assert all(map(is_url, ("https://x", "HTTP://x", "file:///x", "svn+ssh://x", "https://")))
    assert not any(map(is_url, ("a.wav", "a/b.wav", "https:/x", "C:/x", "://x", "1a://x", "")))


REDIRECTS = {
    "/b.wav": "https://example.org:8443/b.wav",
    "b.wav?c": "https://example.org:8443/v/b.wav?c",
    "../../b.wav": "https://example.org:8443/b.wav",
    "?c": "https://example.org:8443/v/a.wav?c",
    "//other.example/b": "https://other.example/b",
    "https://other.example/b": "https://other.example/b",
    "b c.wav": "https://example.org:8443/v/b%20c.wav",
    "caf\u00c3\u00a9.wav": "https://example.org:8443/v/caf%C3%A9.wav",
    "": "https://example.org:8443/v/a.wav?q",
}


@pytest.mark.parametrize(("location", "url"), REDIRECTS.items())
def test_where_a_redirect_leads(location: str, url: str) -> None:
    """The header's bytes come as Latin-1 and are mostly UTF-8."""
    assert parse("https://example.org:8443/v/a.wav?q").joined(location).url == url


@given(st.text(max_size=60) | st.text("htps:/[]@?#%.0123456789axf\\", max_size=40).map("https://".__add__))
@example("https://[")
def test_any_text_is_an_address_or_a_refusal(text: str) -> None:
    """And what was taken apart once is taken apart in the same way again."""
    try:
        address = parse(text)
    except InputError as error:
        assert error.code == "fetch_refused"
        return
    assert parse(address.url) == address
    assert address.url.isascii() and " " not in address.url


# -- public ------------------------------------------------------------------------------------------

# first and last of each network that is not the public Internet, and of the one below and above it
EDGES = {
    "0.255.255.255": "1.0.0.0",
    "10.0.0.0": "9.255.255.255",
    "10.255.255.255": "11.0.0.0",
    "100.64.0.0": "100.63.255.255",
    "100.127.255.255": "100.128.0.0",
    "127.0.0.0": "126.255.255.255",
    "127.255.255.255": "128.0.0.0",
    "169.254.0.0": "169.253.255.255",
    "169.254.255.255": "169.255.0.0",
    "172.16.0.0": "172.15.255.255",
    "172.31.255.255": "172.32.0.0",
    "192.168.0.0": "192.167.255.255",
    "192.168.255.255": "192.169.0.0",
    "198.18.0.0": "198.17.255.255",
    "198.19.255.255": "198.20.0.0",
    "192.0.0.255": "192.0.1.0",
    "168.63.129.16": "168.63.129.15",
    "224.0.0.0": "223.255.255.255",
    "255.255.255.255": "8.8.8.8",
    "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "2001:200::",
    "4000::": "3ffe::",
    "2001:1ff:ffff::": "2600::",
    "2001:db8::": "2001:db7:ffff::",
    "2001:db8:ffff:ffff::1": "2001:db9::",
    "2002::1": "2003::",
    "3fff:fff::1": "3fff:1000::",
}


@pytest.mark.parametrize(("special", "public"), EDGES.items())
def test_the_edges_of_what_is_public(special: str, public: str) -> None:
    """Each network ends where the registry says."""
    assert not is_public(special)
    assert is_public(public)


DISGUISES = [
    "::1", "::", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:808:808::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fe80::1", "fe80::1%eth0",
    "2606:2800::1%eth0", "fec0::1", "fd00:ec2::254", "fc00::1", "ff02::1", "100::1", "5f00::1", "2001:20::1",
]  # fmt: skip


@pytest.mark.parametrize("address", DISGUISES)
def test_no_disguise_is_public(address: str) -> None:
    """IPv4 in IPv6 in all its forms, scopes, and what is local."""
    assert not is_public(address)


@pytest.mark.parametrize("text", ["", "example.org", "127.1", "2130706433", "1.2.3.4/8", "[::1]", "1.2.3.4 "])
def test_what_is_no_ip_address_is_not_public(text: str) -> None:
    """Whatever a resolver returns."""
    assert not is_public(text)


@given(st.ip_addresses())
def test_nothing_is_public_that_python_knows_to_be_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Two tables, made by different people."""
    if is_public(str(address)):
        assert address.is_global and not address.is_multicast and not address.is_reserved
