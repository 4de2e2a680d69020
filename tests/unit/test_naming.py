"""Names that every disk takes."""

import os
import re
import sys
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.naming import (
    MAX_NAME_BYTES,
    SUFFIX_ROOM_BYTES,
    distinct_name,
    folded,
    numbered,
    safe_folder,
    safe_name,
)

LONGEST_SUFFIX = "~9999.error.json"
names = (
    st.text(max_size=300)
    | st.text(alphabet="aux.con ~\u0301\u00a0\u200b\u3000e\u1100\u1161é", max_size=12)
    | st.binary(max_size=300).map(os.fsdecode)
    | st.text(alphabet=st.sampled_from("aé漢\U0001f600\u01d6\u1fa7\uac01"), min_size=60, max_size=300)
    | st.integers(0xD800, 0xDFFF).map(lambda code: f"a{chr(code)}b")
)
# What Windows, macOS and Linux refuse, or take for something else.
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
DEVICES = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\.|$)", re.IGNORECASE)


def assert_valid_everywhere(name: str) -> None:
    """By the published rules of NTFS and Win32, APFS, ext4 and SMB."""
    assert name
    assert not FORBIDDEN.search(name)
    assert not DEVICES.match(name)
    assert not name.startswith((".", " "))
    assert not name.endswith((".", " "))
    assert name == unicodedata.normalize("NFC", name)
    assert len(name.encode()) <= MAX_NAME_BYTES  # encodable: no surrogate is left
    assert len(unicodedata.normalize("NFD", name).encode("utf-16-le")) // 2 <= MAX_NAME_BYTES  # HFS+
    assert not {unicodedata.category(c) for c in name} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(names)
@example("")
@example(".")
@example("..")
@example("CON")
@example("con .txt")
@example("CONIN$")
@example("a\u00a0.")
@example(". .hidden")
@example("x" * 230 + " ." * 40)
@example("_" + "\u0301" * 200)
@example("\udcff\udcfe")
def test_a_safe_name_is_valid_everywhere_with_every_suffix(name: str) -> None:
    """Whatever comes in, surrogates and undecodable bytes included."""
    safe = safe_name(name)
    assert_valid_everywhere(safe)
    assert_valid_everywhere(safe + LONGEST_SUFFIX)
    assert len(safe.encode()) <= MAX_NAME_BYTES - SUFFIX_ROOM_BYTES


@given(names)
@example("a\u00a0.")
@example("a. \u3000.\u00a0")
@example(" \u200b.a")
def test_a_safe_name_is_its_own_safe_name(name: str) -> None:
    """Doing it twice changes nothing."""
    assert safe_name(safe_name(name)) == safe_name(name)


@given(st.text(alphabet="ab漢é", min_size=240, max_size=260), st.text(max_size=5), st.text(max_size=5))
def test_two_long_names_stay_two(start: str, end: str, other: str) -> None:
    """What was cut off is told apart by its hash."""
    first, second = start + end + "1", start + other + "2"
    assert safe_name(first) != safe_name(second)
    assert safe_name(first)[:50] == unicodedata.normalize("NFC", start)[:50]


FILLERS = "\u115f\u1160\u3164\uffa0"
"Letters of no width."


@given(
    st.text(
        alphabet=st.characters(categories=["L", "Nd"], exclude_characters=FILLERS), min_size=1, max_size=40
    )
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    """Letters and digits of every script, spaces, and dots inside."""
    composed = unicodedata.normalize("NFC", name)
    assert safe_name(f"1 {composed}.v2 final") == f"1 {composed}.v2 final"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("what?", "what_"),
        ("a/b", "a_b"),
        ("line\nbreak", "line_break"),
        ("caf\u0065\u0301", "caf\u00e9"),
        (os.fsdecode(b"caf\xe9"), "caf_"),
        ("nul", "_nul"),
        ("Aux.backup", "_Aux.backup"),
        ("auxiliary", "auxiliary"),
        ("..", "_"),
        ("story.", "story"),
        (" story ", "story"),
        ("right\u202eto left", "right_to left"),
        ("LPT\u00b9.txt", "_LPT\u00b9.txt"),
        ("com\u00b2", "_com\u00b2"),
        ("COM10", "COM10"),
        ("a\u2028b\u2029c\u0085d", "a_b_c_d"),
        ("a\u061cb\u2066c\u00add\u2060e", "a_b_c_d_e"),
        ("\u3164", "_"),
        ("a\uf8ff\uf022b", "a__b"),
        ("a\U000e0041b\uffffc", "a_b_c"),
        ("\u2764\ufe0f", "\u2764\ufe0f"),
    ],
)
def test_what_becomes_of_some_names(name: str, safe: str) -> None:
    """The nearest name, not another one."""
    assert safe_name(name) == safe


def test_every_character_there_is_gives_a_safe_name() -> None:
    """Once inside of a name; what Unicode leaves empty or to others is all treated alike."""
    for character in map(chr, range(sys.maxunicode + 1)):
        category = unicodedata.category(character)
        if category not in ("Cn", "Co", "Lo") or ord(character) < 0x4000:
            safe = safe_name(f"a{character}b")
            assert safe_name(safe) == safe and folded(folded(safe)) == folded(safe), hex(ord(character))
            assert safe.isprintable() or category == "Zs", hex(ord(character))


def seen_by_disks(name: str) -> set[str]:
    """The forms in which case-blind and normalising disks compare names."""
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    upcase = "".join(
        c.upper() if len(c.upper()) == 1 else c for c in name
    )  # NTFS and exFAT: character by character
    return {
        name,
        composed,  # ZFS formC, Syncthing
        composed.casefold(),
        unicodedata.normalize("NFD", decomposed.casefold()),  # APFS
        upcase,
        unicodedata.normalize("NFC", upcase),
        name.lower(),  # Samba
    }


cased = st.text(
    alphabet="aAsSßẞkK\u212aiIıİſéÉe\u0301\u0307ǆǅǄﬁfFσςΣµμΩ\u2126å\u212bǰ\ufe0f~2. ", min_size=1, max_size=6
) | st.text(alphabet=st.characters(categories=["L", "Nd"]), min_size=1, max_size=4)


@given(
    cased,
    st.sampled_from(["upper", "lower", "casefold", "swapcase", "title"]),
    st.sampled_from(["NFC", "NFD"]),
)
def test_names_that_a_disk_takes_for_one_are_folded_to_one(name: str, change: str, form: str) -> None:
    """Written in capitals, decomposed, or both."""
    other = unicodedata.normalize(form, getattr(safe_name(name), change)())
    assert folded(other) == folded(safe_name(name))


@given(cased, cased)
@example("k", "\u212a")
@example("Stra\u00dfe", "STRASSE")
@example("\u0131", "I")
@example("\u2764", "\u2764\ufe0f")
def test_names_that_are_not_folded_to_one_no_disk_takes_for_one(first: str, second: str) -> None:
    """By the rules of each that is known to compare in its own way."""
    first, second = safe_name(first), safe_name(second)
    if folded(first) != folded(second):
        assert not seen_by_disks(first) & seen_by_disks(second)


def test_a_folder_is_made_safe_name_by_name() -> None:
    """Its depth stays."""
    assert safe_folder(PurePosixPath("a?/con/b.")) == PurePosixPath("a_/_con/b")
    assert safe_folder(PurePosixPath(".")) == PurePosixPath(".")


@given(st.binary(min_size=1, max_size=251).filter(lambda raw: b"/" not in raw and b"\0" not in raw))
def test_a_numbered_name_keeps_its_ending_and_fits(raw: bytes) -> None:
    """`story.txt` is `story~2.txt`; a name of 255 bytes loses some of its stem, never its ending."""
    name = os.fsdecode(raw) + ".txt"
    second = os.fsencode(numbered(name, 2))
    assert numbered(name, 1) == name
    assert second.endswith(b"~2.txt") and len(second) <= MAX_NAME_BYTES
    if len(raw) < 249:
        assert second == raw + b"~2.txt"
    assert numbered(name, 2) != numbered(name, 3)


@given(names, names)
@example("a?.txt", "a_.txt")
@example("a\n", "a\r")
def test_a_distinct_name_is_safe_and_tells_names_apart(first: str, second: str) -> None:
    """Except in how é is spelled, which no person can see."""
    assert_valid_everywhere(distinct_name(first) + LONGEST_SUFFIX)
    if unicodedata.normalize("NFC", first) != unicodedata.normalize("NFC", second):
        assert distinct_name(first) != distinct_name(second)
