"""Recognising containers by their bytes, and finding files that are shorter than they say."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sound.containers import container_of, id3_bytes, shortfall


def wav_bytes(data_bytes: int, promised_bytes: int | None = None, *, extra: bytes = b"") -> bytes:
    """A 16-bit mono wav file, whose header may promise something else than it holds."""
    promised = data_bytes if promised_bytes is None else promised_bytes
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 22050, 44100, 2, 16)
    body = b"WAVE" + form + extra + struct.pack("<4sI", b"data", promised) + b"\1\0" * (data_bytes // 2)
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def ogg_page(*segment_bytes: int) -> bytes:
    """One Ogg page with segments of these lengths."""
    header = b"OggS" + bytes(22) + bytes([len(segment_bytes)])
    return header + bytes(segment_bytes) + b"x" * sum(segment_bytes)


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"RIFF\0\0\0\0WAVEfmt ", "wav"),
        (b"RF64\xff\xff\xff\xffWAVE", "wav"),
        (b"fLaC\0\0\0\x22", "flac"),
        (b"OggS\0\2", "ogg"),
        (b"\0\0\0\x1cftypM4A ", "mov"),
        (b"\xff\xfb\x90\x64", "mp3"),
        (b"\0\0\0\xff\xf3\x40\xc4", "mp3"),
        (b"\xff\xf1\x50\x80", "aac"),
        (b"ID3\4\0\0\0\0\0\2xx\xff\xfb\x90\x64", "mp3"),
        (b"ID3\4\0\0\0\0\0\2xxfLaC", "flac"),
    ],
)
def test_container_is_told_from_the_first_bytes(head: bytes, container: str) -> None:
    """Every container we take is known by content, also behind an ID3 tag or padding."""
    assert container_of(head) == container


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"hello world",
        b"#EXTM3U\n#EXTINF:1,\nhttp://example.org/a.ts",
        b"ffconcat version 1.0\nfile /etc/passwd",
        b"[playlist]\nFile1=/etc/passwd",
        b"<?xml version='1.0'?><MPD/>",
        b"RIFF\0\0\0\0AVI ",
        b"\x7fELF\2\1\1",
        b"\xff\xff\xff\xff",
        b"ID3\4\0\0\0\0\0\2xxhello",
    ],
)
def test_playlists_and_other_content_have_no_container(head: bytes) -> None:
    """Nothing that could name further files, and nothing unknown, is taken for a recording."""
    assert container_of(head) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_judged_without_an_error(head: bytes) -> None:
    """Hostile bytes get an answer from the fixed list, never an exception."""
    assert container_of(head) in {None, "wav", "flac", "ogg", "mov", "mp3", "aac"}
    for container in ("wav", "ogg", "flac"):
        assert isinstance(shortfall(container, head, head, len(head)), str)


def test_id3_size_counts_seven_bits_a_byte() -> None:
    """The tag's length has its eighth bits cleared, as ID3v2 says."""
    assert id3_bytes(b"ID3\4\0\0\0\0\2\1") == 10 + 2 * 128 + 1
    assert id3_bytes(b"fLaC") == 0


def test_a_whole_wav_lacks_nothing() -> None:
    """A right header, also with other chunks before the sound, is believed."""
    listing = struct.pack("<4sI", b"LIST", 3) + b"abc\0"
    for raw in (wav_bytes(1000), wav_bytes(1000, extra=listing), wav_bytes(1000) + b"LIST\0\0\0\0"):
        assert shortfall("wav", raw, raw, len(raw)) == ""


@given(st.integers(min_value=2, max_value=1000))
def test_every_cut_of_a_wav_is_found(cut_bytes: int) -> None:
    """A wav file that lost two bytes or more at its end says how many are there."""
    raw = wav_bytes(1000)[:-cut_bytes]
    assert f"{1000 - cut_bytes:,} of them are there" in shortfall("wav", raw, raw, len(raw))


@pytest.mark.parametrize("promised", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_streamed_wav_promises_nothing(promised: int) -> None:
    """Sizes that mean "unknown" are not taken for a lie."""
    raw = wav_bytes(1000, promised)
    assert shortfall("wav", raw, raw, len(raw)) == ""


def test_a_lying_wav_header_is_found() -> None:
    """A header that promises far more than the file holds is refused."""
    raw = wav_bytes(1000, 2_000_000_000)
    assert "2,000,000,000 bytes" in shortfall("wav", raw, raw, len(raw))


@given(st.lists(st.integers(min_value=1, max_value=255), min_size=1, max_size=8), st.integers(min_value=1))
def test_an_ogg_file_must_end_with_a_whole_page(segments: list[int], cut: int) -> None:
    """The last page is whole, or the file was cut short."""
    pages = ogg_page(30) + ogg_page(*segments)
    last = len(ogg_page(*segments))
    assert shortfall("ogg", pages, pages, len(pages)) == ""
    broken = pages[: len(pages) - 1 - cut % (last - 5)]
    assert shortfall("ogg", broken, broken, len(broken)) == "its last page is not complete"
