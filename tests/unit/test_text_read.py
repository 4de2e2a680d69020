"""Reading dropped text: every encoding people save in, and a plain sentence for everything else."""

import codecs
import errno
import os
import socket
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import EnvironmentFailure, InputError
from pipeline.text import read as read_module
from pipeline.text.read import decode, read
from pipeline.text.speakable import is_speakable

PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]), max_size=200).filter(is_speakable)


def refusal(data: bytes, name: str = "story.txt") -> InputError:
    """The error that these bytes give."""
    with pytest.raises(InputError) as caught:
        decode(data, name)
    assert caught.value.message.startswith(name)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")
    return caught.value


def file_refusal(path: Path) -> InputError:
    """The error that this file gives."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.hint
    return caught.value


@given(PLAIN)
def test_utf8_comes_back_as_it_was(text: str) -> None:
    """With and without a byte-order mark."""
    signatures = ("%PDF-", "{\\rtf", "ID3", "GIF8", "OggS", "fLaC", "RIFF")
    if not text.startswith(signatures):
        assert decode(codecs.BOM_UTF8 + text.encode(), "x").text == text
        if not text.startswith("\ufeff"):
            assert decode(text.encode(), "x").text == text


@given(PLAIN, st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]))
def test_marked_wide_encodings_come_back_as_they_were(text: str, encoding: str) -> None:
    """The byte-order mark is believed."""
    decoded = decode(("\ufeff" + text).encode(encoding), "x")
    assert (decoded.text, decoded.encoding, decoded.warnings) == (text, encoding, ())


@example(b"\x01\x01\xd8\x80")  # UTF-16 without a mark that ends in the middle of a character
@given(st.binary(max_size=400))
def test_any_bytes_are_text_or_an_input_error(data: bytes) -> None:
    """Never another exception, never text without anything to speak."""
    try:
        assert is_speakable(decode(data, "x").text)
    except InputError as error:
        assert error.code in {"text_empty", "text_binary", "text_nul_padded", "text_cut_off"}


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Café au lait — “naïve” they said, and paid 5 €."),
        ("latin-1", "Über die Brücke gehn, schöne Grüße"),
        ("cp1250", "Zażółć gęślą jaźń, łódź. Wszyscy ludzie są równi wobec prawa."),
        ("cp1251", "Привет, как дела? Это обычный текст на русском языке."),
        ("koi8_r", "Привет, как дела? Это обычный текст на русском языке."),
        ("cp932", "これは日本語のテキストです。とても長い文章です。"),
        ("gb18030", "这是一个中文文本，用来测试编码检测。"),
        ("utf-16-le", "Hello there, no mark."),
        ("utf-16-be", "Привет, как дела? Без метки."),
        ("utf-16-le", "Привет, как дела? Без метки."),
        ("utf-32-le", "Hello there, no mark."),
        ("utf-32-be", "Hello there, no mark."),
    ],
)
def test_unmarked_encodings_are_guessed_and_told(encoding: str, text: str) -> None:
    """The text is right, and the warning names the file and the guess."""
    decoded = decode(text.encode(encoding), "story.txt")
    assert decoded.text == text
    (warning,) = decoded.warnings
    assert warning.startswith("story.txt")
    assert (
        decoded.encoding.lower().replace("-", "") in warning.lower().replace("-", "") or encoding == "latin-1"
    )


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_become_one(end: str) -> None:
    """Windows, old Mac and Unix files read alike; so does the DOS end mark."""
    assert decode(f"One{end}{end}Two{end}\x1a".encode(), "x").text == "One\n\nTwo\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b" \r\n\t\n", "only spaces"),
        ("\ufeff".encode(), "only"),
        (b"...?! *** --", "only punctuation"),
        ("— … ”".encode("utf-16"), "only punctuation"),
    ],
)
def test_nothing_to_speak_is_told(data: bytes, words: str) -> None:
    """Empty, blank and punctuation-only files are refused, each in its own words."""
    error = refusal(data)
    assert error.code == "text_empty"
    assert words in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 4096,
        b"A story that was cut off" + b"\x00" * 4000,
        b"\x00" * 512 + b"the rest of it",
        b"begun" + b"\x00" * 100 + b"and gone on",
        "Größe".encode() + b"\x00" * 3,
        "A story".encode("utf-16") + b"\x00" * 64,
    ],
)
def test_nul_padding_is_told_as_a_file_cut_off(data: bytes) -> None:
    """A preallocated or half-copied file is not binary rubbish; the message says what it looks like."""
    error = refusal(data)
    assert error.code == "text_nul_padded"
    assert "cut off, or is still being written" in error.message


@pytest.mark.parametrize(
    "data",
    [
        "Eine schöne Größe".encode()[:-2],
        "é 👩".encode()[:-1],
        "\ufeffab👩".encode("utf-16-le")[:-1],
    ],
)
def test_half_a_character_at_the_end_is_told(data: bytes) -> None:
    """UTF-8 and UTF-16 that stop inside a character were cut off."""
    error = refusal(data)
    assert error.code == "text_cut_off"
    assert "in the middle of a character" in error.message


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"{\\rtf1\\ansi Hello}", "an RTF document"),
        (b"PK\x03\x04\x14\x00", "a ZIP, Word"),
        (b"ID3\x04\x00", "a sound recording"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (b"\x7fELF\x02\x01\x01\x00\x00\x00\x00", "does not hold text"),
        (bytes(range(256)) * 4, "does not hold text"),
        (b"\x01\x02\x03\x04\x05\x06\x07abc", "does not hold text"),
        (b"a\x00\x01b\x00c\x02\x00", "does not hold text"),
    ],
)
def test_what_is_no_text_is_named(data: bytes, kind: str) -> None:
    """Known formats by name, the rest as no text."""
    error = refusal(data)
    assert error.code == "text_binary"
    assert kind in error.message


def test_damaged_utf8_is_read_with_a_warning() -> None:
    """One bad byte in a long UTF-8 text does not turn the rest into another encoding."""
    decoded = decode(("Größe " * 20).encode() + b"\xff und mehr", "story.txt")
    assert decoded.text.endswith("\ufffd und mehr")
    assert decoded.warnings == ("story.txt is UTF-8 with 1 damaged character.",)


def test_a_file_is_read(tmp_path: Path) -> None:
    """Text comes back with its encoding and without warnings."""
    path = tmp_path / "story.txt"
    path.write_bytes("Grüße.\r\n".encode())
    assert read(path).text == "Grüße.\n"
    assert (read(path).encoding, read(path).warnings) == ("utf-8", ())


def test_a_name_that_cannot_be_shown_is_escaped(tmp_path: Path) -> None:
    """A Latin-1 name or one with a newline makes a readable message."""
    for raw in (b"caf\xe9.txt", b"a\nb.txt"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw))
        path.touch()
        message = file_refusal(path).message
        assert message.isprintable()
        assert message.encode()


def test_too_large_is_refused_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit itself passes, a byte more does not."""
    monkeypatch.setattr(read_module, "SIZE_MAX_BYTES", 1 << 20)
    path = tmp_path / "big.txt"
    path.write_bytes(b"a" * (1 << 20))
    assert len(read(path).text) == 1 << 20
    path.write_bytes(b"a" * ((1 << 20) + 1))
    error = file_refusal(path)
    assert error.code == "text_too_large"
    assert "big.txt is larger than 1 MB" in error.message


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """Links, FIFOs, sockets, folders and missing files; none blocks."""
    target = tmp_path / "real.txt"
    target.write_text("Hello.")
    (tmp_path / "link.txt").symlink_to(target)
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "folder.txt").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.txt"))
    for name in ("link.txt", "fifo.txt", "folder.txt", "socket.txt"):
        error = file_refusal(tmp_path / name)
        assert error.code == "text_not_a_file"
        assert error.message.startswith(name)
    assert file_refusal(tmp_path / "none.txt").code == "text_missing"


def test_a_forbidden_file_and_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission is the user's to mend, an I/O error the machine's; anything else is not dressed up."""

    def failing(number: int) -> None:
        def fail(path: Path) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(read_module, "open_regular", fail)

    failing(errno.EACCES)
    assert file_refusal(tmp_path / "x.txt").code == "text_unreadable"
    for number in (errno.EIO, errno.EMFILE):
        failing(number)
        with pytest.raises(EnvironmentFailure, match=r"x\.txt could not be read"):
            read(tmp_path / "x.txt")
    failing(errno.EBADF)
    with pytest.raises(OSError, match="Bad file descriptor"):
        read(tmp_path / "x.txt")


def test_markdown_is_read_as_plain_text(tmp_path: Path) -> None:
    """By the name's ending, in any case; a .txt keeps its asterisks."""
    for name, expected in (("a.md", "Hello you"), ("b.MD", "Hello you"), ("c.txt", "*Hello* you")):
        (tmp_path / name).write_text("*Hello* you")
        assert read(tmp_path / name).text == expected


def test_markdown_with_nothing_to_read_is_empty(tmp_path: Path) -> None:
    """A file that holds a comment only says nothing."""
    path = tmp_path / "note.md"
    path.write_text("<!-- hidden words -->\n\n[a]: http://x\n")
    assert file_refusal(path).code == "text_empty"
