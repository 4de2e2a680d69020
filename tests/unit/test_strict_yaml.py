"""Strict YAML: every mistake as a sentence with its line; nothing gets through, nothing takes long."""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field

from pipeline.errors import SpecError
from pipeline.jobs.settings import Strict
from pipeline.strict_yaml import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    MAX_PROBLEMS,
    Document,
    load_documents,
    read,
    validate,
)

EXPECTED_TEXT = "expected text (put it in quotes if YAML reads it as something else)"


class Inner(Strict):
    """A section."""

    depth: Annotated[int, Field(ge=1, le=9)] = 1
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    source: Annotated[str, Field(alias="from", min_length=2, max_length=5)] = "ab"


class Outer(Strict):
    """A small model with each kind of field."""

    name: str
    mode: Literal["slow", "fast"] = "slow"
    loud: bool = False
    inner: Inner = Inner()
    items: Annotated[tuple[Inner, ...], Field(strict=False, max_length=3)] = ()
    words: Annotated[tuple[Literal["a", "b"], ...], Field(strict=False, min_length=1)] = ("a",)
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "x"


def load(text: str | bytes) -> list[object]:
    """The values of all documents."""
    data = text if isinstance(text, bytes) else text.encode()
    return [document.value for document in load_documents(data, "job.yaml")]


def refused(text: str | bytes, model: type[Strict] | None = None) -> str:
    """What is said of a file."""
    with pytest.raises(SpecError) as caught:
        for document in load_documents(text if isinstance(text, bytes) else text.encode(), "job.yaml"):
            validate(model or Outer, document)
    return str(caught.value)


# -- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1),
        ("a: -12", -12),
        ("a: 1.5", 1.5),
        ("a: 1e5", 1e5),
        ("a: .5", 0.5),
        ("a: yes", True),
        ("a: Off", False),
        ("a: null", None),
        ("a: ~", None),
        ("a:", None),
        ("a: hello", "hello"),
        ("a: '1'", "1"),
        ("a: 2026-11-22", "2026-11-22"),
        ("a: 2026-99-99", "2026-99-99"),
        ("a: 2026-11-22 10:00:00", "2026-11-22 10:00:00"),
        ("a: 12:30:45", "12:30:45"),
        ("a: 1:30.5", "1:30.5"),
        ("a: 0123", "0123"),
        ("a: 0x1F", "0x1F"),
        ("a: 1_000", "1_000"),
        ("a: =", "="),
        ("a: <<", "<<"),
        ("a: " + "1" * 51, "1" * 51),
        ("a: |\n  two\n  lines\n", "two\nlines\n"),
        ("a: [x, y]", ["x", "y"]),
        ("a: &anchor x", "x"),
        ('{"a": "\\ud83d\\ude00"}', "\U0001f600"),
    ],
)
def test_plain_values_mean_what_people_expect(text: str, value: object) -> None:
    """Numbers, switches and text; dates, times and odd numbers stay text."""
    [document] = load(text)
    assert document == {"a": value}


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_and_without_a_byte_order_mark(codec: str) -> None:
    """As editors on every system save them."""
    assert load("name: \u00fcber \u4e2d \U0001f600\r\n".encode(codec)) == [
        {"name": "\u00fcber \u4e2d \U0001f600"}
    ]


def test_documents_are_split_and_empty_ones_left_out() -> None:
    """A trailing --- and comments alone make no document."""
    assert load("---\na: 1\n---\n# nothing\n---\na: 2\n---\n") == [{"a": 1}, {"a": 2}]
    assert load("") == load("# only this\n") == load("---\n...\n") == []


def test_lines_are_known_for_every_key() -> None:
    """Of nested keys, of items, and of a path that is not there: its nearest parent."""
    [document] = load_documents(b"a:\n  b: 1\n  c:\n  - x\n  - y: 2\n", "job.yaml")
    assert document.line_of(("a", "b")) == 2
    assert document.line_of(("a", "c", 1, "y")) == 5
    assert document.line_of(("a", "nonesuch", "deeper")) == 1
    assert document.problem(("a", "b"), "is wrong.") == "job.yaml, line 2: a.b: is wrong."
    assert document.problem((), "is wrong.") == "job.yaml, line 1: is wrong."


def test_lines_count_from_the_start_of_the_file_in_later_documents() -> None:
    """The line in the message is the line in the editor."""
    assert refused("name: x\n---\nname: y\nmode: 3\n").startswith("job.yaml, line 4: mode:")


# -- what YAML allows and we do not ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "job.yaml, line 3: the key 'a' stands twice."),
        ("x:\n  a: 1\n  a: 1\n", "job.yaml, line 3: the key 'a' stands twice."),
        ("a: &x 1\nb: *x\n", "job.yaml, line 2: aliases (*name) are not allowed."),
        ("a: !thing x\n", "job.yaml, line 1: tags such as !name are not allowed."),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "job.yaml, line 1: tags such as !name are not allowed.",
        ),
        ("a: !!int ''\n", "job.yaml, line 1: tags such as !name are not allowed."),
        ("a: ! x\n", "job.yaml, line 1: tags such as !name are not allowed."),
        ("a:\n  - !!set {x}\n", "job.yaml, line 2: tags such as !name are not allowed."),
        ("1: a\n", "job.yaml, line 1: the key 1 must be text; put it in quotes."),
        ("no: a\n", "job.yaml, line 1: the key no must be text; put it in quotes."),
        ("a: 1\nnull: a\n", "job.yaml, line 2: the key null must be text; put it in quotes."),
        ("[a]: b\n", "job.yaml, line 1: a key must be text, not a list or keys with values."),
        ("{a: b}: c\n", "job.yaml, line 1: a key must be text, not a list or keys with values."),
        ("a:\n\t- b\n", "job.yaml, line 2: not valid YAML: a tab; indent with spaces."),
        ("a: 1\nb: 'x\n\n\n", "job.yaml, line 2: not valid YAML: this never ends."),
        ("a: 1\n b: 2\n", "job.yaml, line 2: not valid YAML: mapping values are not allowed here."),
        ("a: [1, 2\nb: 3\n", "job.yaml, line 2: not valid YAML: "),
        ("a: \x00\n", "job.yaml, line 1: the character U+0000 may not stand in YAML."),
        ("a: 1\nb: \x07\n", "job.yaml, line 2: the character U+0007 may not stand in YAML."),
        ('a: \n  b: "\\0"\n', "job.yaml, line 2: holds an escape that stands for no character."),
        ('a: "\\ud800"\n', "job.yaml, line 1: holds an escape that stands for no character."),
        ('"\\0": 1\n', "job.yaml, line 1: the key holds an escape that stands for no character."),
        ('a: "\\UFFFFFFFF"\n', "job.yaml holds an escape sequence that stands for no character."),
        (b"a: caf\xe9 x\n", "job.yaml, line 1: byte 0xe9 is not UTF-8."),
        (b"a: 1\n\nb: \xff\n", "job.yaml, line 3: byte 0xff is not UTF-8."),
        ("name: x".encode("utf-16-le"), "job.yaml, line 1: the character U+0000 may not stand in YAML."),
        (b"\xff\xfea", "job.yaml, line 1: byte 0x61 is not UTF-16"),
        ("%YAML 9.9\n---\na: 1\n", "job.yaml, line 1: not valid YAML: found incompatible YAML document"),
        ("[" * 100, f"job.yaml, line 1: nested more than {MAX_DEPTH} levels deep."),
        ("a:\n" + "- " * 100, f"job.yaml, line 2: nested more than {MAX_DEPTH} levels deep."),
    ],
)
def test_what_is_refused_is_told_with_its_line(text: str | bytes, said: str) -> None:
    """The exact sentence that a person reads."""
    assert refused(text).startswith(said)


def test_all_duplicate_keys_are_told_at_once() -> None:
    """Each as a problem of its own."""
    with pytest.raises(SpecError) as caught:
        load("a: 1\na: 2\nb: 1\nb: 2\n")
    assert caught.value.problems == (
        "job.yaml, line 2: the key 'a' stands twice.",
        "job.yaml, line 4: the key 'b' stands twice.",
    )
    assert str(caught.value).startswith("job.yaml has 2 problems:\n- job.yaml, line 2:")


def test_the_same_key_may_stand_in_two_places() -> None:
    """Duplicates are counted within one mapping and one document."""
    assert load("x: {a: 1}\ny: {a: 1}\nz: [{a: 1}, {a: 2}]\n---\nx: 1\n")


def test_a_file_that_is_too_long_says_where_long_texts_belong() -> None:
    """The limit counts bytes."""
    with pytest.raises(SpecError, match=r"job.yaml is 1,048,577 bytes long; a YAML file may have") as caught:
        load(b"#" * (MAX_BYTES + 1))
    assert "text_file" in caught.value.hint
    assert load(b"#" * MAX_BYTES) == []


def test_a_file_that_is_too_long_is_told_with_its_real_size_and_not_read(tmp_path: Path) -> None:
    """Somebody looks for a megabyte too many, not for one byte."""
    path = tmp_path / "job.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    with open(path, "rb") as stream:
        assert len(read(stream, "job.yaml")) == MAX_BYTES
    os.truncate(path, 3 << 40)
    with open(path, "rb") as stream, pytest.raises(SpecError, match=r"is 3,298,534,883,328 bytes long"):
        read(stream, "job.yaml")


# -- validation --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mode: slow\n", "job.yaml, line 1: name: is missing."),
        (
            "name: no\n",
            f"job.yaml, line 1: name: {EXPECTED_TEXT}, found false.",
        ),
        (
            "name: 12\n",
            f"job.yaml, line 1: name: {EXPECTED_TEXT}, found 12.",
        ),
        (
            "name: {a: b}\n",
            f"job.yaml, line 1: name: {EXPECTED_TEXT}, found keys with values.",
        ),
        ("name: x\nmode: fats\n", "job.yaml, line 2: mode: expected one of 'slow' or 'fast', found 'fats'."),
        ("name: x\nloud: 1\n", "job.yaml, line 2: loud: expected true or false, found 1."),
        ("name: x\nmoed: slow\n", "job.yaml, line 2: moed: unknown key; did you mean mode?"),
        (
            "name: x\nzzz: 1\n",
            "job.yaml, line 2: zzz: unknown key; known are name, mode, loud, inner, items, words, code.",
        ),
        ("name: x\n<<: {mode: fast}\n", "job.yaml, line 2: <<: unknown key; known are "),
        ("name: x\n'inner[0]': 1\n", "job.yaml, line 2: inner[0]: unknown key; did you mean inner?"),
        ("name: x\ninner:\n  depht: 2\n", "job.yaml, line 3: inner.depht: unknown key; did you mean depth?"),
        ("name: x\ninner: {form: ab}\n", "job.yaml, line 2: inner.form: unknown key; did you mean from?"),
        (
            "name: x\ninner: {source: ab}\n",
            "job.yaml, line 2: inner.source: unknown key; known are depth, ratio, from.",
        ),
        (
            "name: x\ninner: {from: a}\n",
            "job.yaml, line 2: inner.from: expected at least 2 character, found 'a'.",
        ),
        (
            "name: x\ninner: {from: abcdef}\n",
            "job.yaml, line 2: inner.from: expected at most 5 characters, found 'abcdef'.",
        ),
        ("name: x\ninner:\n", "job.yaml, line 2: inner: expected keys with values, found nothing."),
        ("name: x\ninner: {depth: 10}\n", "job.yaml, line 2: inner.depth: expected at most 9, found 10."),
        (
            "name: x\ninner: {depth: 1.5}\n",
            "job.yaml, line 2: inner.depth: expected a whole number, found 1.5.",
        ),
        ("name: x\ninner: {ratio: 0}\n", "job.yaml, line 2: inner.ratio: expected more than 0, found 0."),
        ("name: x\ninner: {ratio: 1}\n", "job.yaml, line 2: inner.ratio: expected less than 1, found 1."),
        (
            "name: x\ninner: {ratio: .inf}\n",
            "job.yaml, line 2: inner.ratio: expected a finite number, found inf.",
        ),
        (
            "name: x\ninner: {ratio: half}\n",
            "job.yaml, line 2: inner.ratio: expected a number, found 'half'.",
        ),
        (
            "name: x\nitems: {depth: 1}\n",
            "job.yaml, line 2: items: expected a list, such as [a, b], found keys with values.",
        ),
        (
            "name: x\nitems:\n- depth: 1\n- depth: 0\n",
            "job.yaml, line 4: items.1.depth: expected at least 1, found 0.",
        ),
        (
            "name: x\nitems: [{}, {}, {}, {}]\n",
            "job.yaml, line 2: items: expected at most 3 items, found a list.",
        ),
        ("name: x\nwords: []\n", "job.yaml, line 2: words: expected at least 1 item, found a list."),
        ("name: x\nwords: [a, c]\n", "job.yaml, line 2: words.1: expected one of 'a' or 'b', found 'c'."),
        ("name: x\ncode: A1\n", "job.yaml, line 2: code: expected text of the form ^[a-z]+$, found 'A1'."),
        ("- name\n", "job.yaml, line 1: expected keys with values, found a list."),
        ("just text\n", "job.yaml, line 1: expected keys with values, found 'just text'."),
        ("true\n", "job.yaml, line 1: expected keys with values, found true."),
    ],
)
def test_each_breach_of_the_model_is_one_sentence(text: str, said: str) -> None:
    """With file, line, key, what was expected and what was found."""
    told = refused(text)
    assert told.startswith(said)
    assert "\n" not in told


def test_every_problem_is_told_once_in_the_order_of_the_file() -> None:
    """Unknown keys, wrong values and missing ones together."""
    with pytest.raises(SpecError) as caught:
        refuse = load_documents(b"loud: loud\ninner:\n  depth: x\n  oops: 1\nmode: 3\n", "job.yaml")
        validate(Outer, refuse[0])
    assert caught.value.problems == (
        "job.yaml, line 1: name: is missing.",
        "job.yaml, line 1: loud: expected true or false, found 'loud'.",
        "job.yaml, line 3: inner.depth: expected a whole number, found 'x'.",
        "job.yaml, line 4: inner.oops: unknown key; known are depth, ratio, from.",
        "job.yaml, line 5: mode: expected one of 'slow' or 'fast', found 3.",
    )


def test_a_valid_document_becomes_the_model() -> None:
    """Aliased keys, lists as tuples, nested sections."""
    [document] = load_documents(
        b"name: x\nitems: [{from: cd}]\nwords: [b]\ninner: {ratio: 0.5}\n", "job.yaml"
    )
    assert validate(Outer, document) == Outer(
        name="x", items=(Inner(**{"from": "cd"}),), words=("b",), inner=Inner(ratio=0.5)
    )


def test_long_keys_values_and_lists_of_problems_are_cut_short() -> None:
    """A message stays readable, whatever was dropped."""
    long_value = refused(f"name: x\nmode: {'y' * 5000}\n")
    assert len(long_value) < 200
    assert "yyy..." in long_value
    assert len(refused(f"? {'k' * 5000}\n: 1\n")) < 400
    many = refused("name: x\n" + "".join(f"k{n}: 1\n" for n in range(300)))
    assert many.startswith("job.yaml has 300 problems:")
    assert many.endswith(f"- and {300 - MAX_PROBLEMS} more")
    assert len(many.splitlines()) == MAX_PROBLEMS + 2


# -- nothing gets through, nothing takes long --------------------------------------------------


def read_all(data: bytes) -> None:
    """Load and validate; SpecError is the only way to fail."""
    try:
        for document in load_documents(data, "job.yaml"):
            validate(Outer, document)
    except SpecError as error:
        assert str(error)
        assert "\x00" not in str(error)
        str(error).encode()


@given(st.binary(max_size=300))
@example(b"\xff\xfe\x00\xd8")
@example(b"\xfe\xff")
@example(b"\xef\xbb\xbf")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No exception but SpecError comes out, and its text can be written down."""
    read_all(data)


@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%@`#~<=.0159xe+_ \t\n\\uUd8", max_size=80))
def test_any_yaml_like_text_is_read_or_refused(text: str) -> None:
    """Built from the characters that mean something to YAML."""
    read_all(text.encode())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
keys = st.sampled_from(["name", "mode", "loud", "inner", "items", "words", "code", "depth", "from", "oops"])


@given(st.dictionaries(keys, values | st.dictionaries(keys, values), max_size=6))
@hypothesis_settings(deadline=None)
def test_any_values_under_known_keys_are_read_or_refused(value: dict[str, object]) -> None:
    """Right keys with wrong values, nested sections with strange keys."""
    read_all(yaml.dump(value, allow_unicode=True).encode("utf-8", "replace"))


@given(
    st.dictionaries(
        st.text(alphabet="abcdef", min_size=1), st.text() | st.integers(-(10**40), 10**40) | st.booleans()
    )
)
def test_what_was_written_as_text_comes_back_as_text(value: dict[str, object]) -> None:
    """A quoted value never turns into something else, and numbers stay exact."""
    lone = any(not isinstance(v, bool | int) and "\x00" in v for v in value.values())
    written = json.dumps(value).encode()
    if lone:
        with pytest.raises(SpecError):
            load(written)
    else:
        assert load(written) == [value]


BOMBS = {
    "aliases": b"a: &a [x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 120)),
    "keys": b"a: b\n" * 200_000,
    "different keys": b"".join(b"k%d: b\n" % n for n in range(100_000)),
    "items": b"- a\n" * 250_000,
    "flow": b"[" + b"[]," * 330_000,
    "brackets": b"[" * MAX_BYTES,
    "braces": b"{a: " * 260_000,
    "dashes": b"- " * 500_000,
    "questions": b"? " * 500_000,
    "spaces": b" " * MAX_BYTES,
    "comments": b"#\n" * 500_000,
    "documents": b"---\n" * 250_000,
    "quotes": b'name: "' + b"\\n\n " * 200_000,
    "block": b"name: |\n" + b"  a line of text, as people write it\n" * 27_000,
    "plain": b"name: " + b"word " * 200_000,
    "base 60": b"name: " + b"1:" * 500_000 + b"1",
    "digits": b"name: " + b"1" * 1_000_000,
    "hex": b"name: 0x" + b"f" * 1_000_000,
    "long key": b"? " + b"k" * 1_000_000 + b"\n: 1\n",
    "anchors": b"".join(b"k%d: &a%d x\n" % (n, n) for n in range(20_000)),
    "tags": b"%TAG ! tag:x,2000:\n" * 20_000,
    "unknown keys": b"name: x\n" + b"".join(b"mod%d: 1\n" % n for n in range(20_000)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_no_megabyte_of_yaml_takes_long(kind: str) -> None:
    """The worst that fits the size limit is answered within seconds."""
    data = BOMBS[kind][:MAX_BYTES]
    started = time.process_time()
    read_all(data)
    assert time.process_time() - started < 4


@pytest.mark.slow
def test_the_number_of_values_is_limited() -> None:
    """With the line on which the limit is reached."""
    assert load("- a\n" * (MAX_NODES - 10))
    assert refused("- a\n" * (MAX_NODES + 10)).endswith(f"a YAML file may hold {MAX_NODES:,} values.")


def test_an_empty_document_can_be_validated() -> None:
    """Whoever accepts an empty file hands over an empty document."""
    assert validate(Inner, Document("job.yaml", {}, {})) == Inner()
