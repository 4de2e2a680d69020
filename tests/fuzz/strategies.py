"""Inputs for Hypothesis: structure that is right enough to get deep, and wrong somewhere."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.fuzz import seeds

EDITS = ("flip", "insert", "delete", "copy", "cut", "token", "number", "repeat")
# fmt: off
ODD_SCALARS = st.sampled_from([
    None, True, False, 0, 1, -1, 5, 280, 2**32, 10**49, 0.5, 1e308, float("inf"), float("nan"), "", "x", "no",
    "en", "tts", "vc", "concat", "espeak", "mp3", ["wav", "mp3"], "a.txt", "a.wav", "../a.wav", "1e5", [], {},
    "https://example.org/a.wav", "\ud83d", "\U0001f600", "a" * 300, "\u0000", [[]], {"from": "a", "to": "b"},
    {"silence_ms": 500},
])
STEPS = st.sampled_from([
    "..", ".", "", "a.txt", "a.wav", "sub", "deep", "up", "link", "linka.txt", "linka.wav", "outside", "root",
    "~", "C:", "\uff0e\uff0e", "\u2025", "..\\", "\\..\\", "%2e%2e", "\u200b..", "..\u200b", ".. ", "x" * 255,
    "\0",
])
# fmt: on
KEYS = st.sampled_from(
    [word.strip().removesuffix(b":").decode() for word in seeds.yaml_words() if word.endswith(b": ")]
)


@st.composite
def edited(draw: Any, origins: Sequence[bytes], tokens: Sequence[bytes], head: int = 0) -> bytes:
    """One of `origins` with a few changes, most of them within the first `head` bytes if that is given."""
    data = bytearray(draw(st.sampled_from(origins)))
    for _ in range(draw(st.integers(1, 6))):
        end = min(len(data), head) if head and draw(st.integers(0, 3)) else len(data)
        at, kind = draw(st.integers(0, end)), draw(st.sampled_from(EDITS))
        length = draw(st.integers(1, 8))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del data[at : at + length]
        elif kind == "copy":
            start = draw(st.integers(0, len(data)))
            data[at:at] = data[start : start + length * 8]
        elif kind == "cut":
            del data[at + draw(st.integers(0, 64)) :]
        elif kind == "token":
            word = draw(st.sampled_from(tokens))
            data[at : at + (len(word) if length % 2 else 0)] = word
        elif kind == "number":
            value = draw(st.sampled_from([0, 1, 2, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000]))
            data[at : at + 4] = value.to_bytes(4, draw(st.sampled_from(["little", "big"])))
        elif kind == "repeat" and length > 6:
            data[at:at] = bytes(data[at : at + 40]) * 50
    return bytes(data[:200_000])


@st.composite
def large(draw: Any, tokens: Sequence[bytes], starts: Sequence[bytes], most_bytes: int) -> bytes:
    """A few words again and again: what takes quadratic time shows it here."""
    words = draw(
        st.lists(st.sampled_from(tokens) | st.binary(min_size=1, max_size=4), min_size=1, max_size=4)
    )
    unit = b"".join(words)
    size = most_bytes >> draw(st.integers(0, 4))
    return draw(st.sampled_from(starts)) + (unit * (size // len(unit) + 1))[:size]


def _values() -> st.SearchStrategy[Any]:
    return st.recursive(
        ODD_SCALARS | st.text(max_size=12) | st.integers() | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=6), inner, max_size=5)
        ),
        max_leaves=12,
    )


@st.composite
def job_files(draw: Any) -> bytes:
    """Valid YAML with our keys and odd values, one to three documents."""
    documents = draw(st.lists(st.dictionaries(KEYS, _values(), max_size=6), min_size=1, max_size=3))
    dumped = yaml.safe_dump_all(
        documents,
        default_flow_style=draw(st.sampled_from([True, False, None])),
        allow_unicode=draw(st.booleans()),
        width=draw(st.sampled_from([20, 80, 100_000])),
    )
    return dumped.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16"])), "replace")


def file_names() -> st.SearchStrategy[bytes]:
    """Names that a disk may hold, and some that it may not."""
    letters = st.text(
        alphabet="aAbB .~_-\u00e9e\u0301\u0131I\u212a\u202e\u200b\u3164\u6f22\U0001f600"
        '?*:|<>"\\\n\t\x7f\ufe0f',
        max_size=12,
    )
    devices = st.sampled_from(
        ["con", "NUL.txt", "com1", "LPT\u00b9", "aux.", "..", ".", " ", "~", "failed", "PAUSE"]
    )
    long = st.integers(60, 130).map(lambda count: "\u00fc\u6f22"[count % 2] * count)
    name = (letters | devices | long | st.text(max_size=20)).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
    return st.lists(name | st.binary(max_size=300), min_size=1, max_size=3).map(b"/".join)


def references() -> st.SearchStrategy[bytes]:
    """Paths as a job file might name them, by somebody who means no good."""
    joint = st.sampled_from(["/", "/", "/", "//", "\\", "\u2215", "\uff0f", "/./"])
    path = st.lists(st.tuples(STEPS, joint), min_size=1, max_size=12).map(
        lambda s: "".join(a + b for a, b in s)
    )
    ending = st.sampled_from(["", "a.txt", "a.wav", "linka.wav", "/", "\0.txt", ".txt"])
    start = st.sampled_from(
        ["", "", "/", "~/", "C:/", "file://", "https://a.org/", "/dev/", "/proc/self/root/"]
    )
    return st.tuples(start, path, ending).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))


@st.composite
def drops(draw: Any) -> bytes:
    """Up to seven files that are dropped together; job files name their neighbours."""
    words = seeds.yaml_words()
    endings = st.sampled_from([".txt", ".md", ".yaml", ".yml", ".wav", ".mp3", "", ".exe", ".txt.error.txt"])
    named = st.tuples(file_names(), endings).map(lambda pair: pair[0][:250] + pair[1].encode())
    plain = st.sampled_from([b"a.txt", b"a.wav", b"b.txt", b"sub/a.txt", b"sub/b.wav", b"A.TXT", b"job.yaml"])
    files = []
    for _ in range(draw(st.integers(1, 7))):
        name = draw(
            named
            | plain
            | st.sampled_from([b"j.yaml", b"sub/k.yaml", b"_defaults.yaml", b"sub/_defaults.yaml"])
        )
        if name.endswith((b".yaml", b".yml")):
            content = draw(
                job_files()
                | edited(seeds.examples(), words)
                | st.sampled_from(
                    [b"text: hi", b"text_file: a.txt", b"kind: vc\naudio: a.wav\nvoice: b.wav", b"seed: 5"]
                )
                | st.sampled_from(
                    [
                        b"text_file: b.txt\nvioce: x",
                        b"kind: concat\nparts: [a.wav, a.wav",
                        b"text_file: a.txt\n---\ntext_file: a.txt",
                    ]
                )
            )
        else:
            content = draw(
                st.binary(max_size=50)
                | st.sampled_from(seeds.texts())
                | edited(seeds.texts(), seeds.TEXT_TOKENS)
            )
        files.append([base64.b64encode(part).decode() for part in (name, content)])
    asked = {
        "source": draw(st.sampled_from(["move", "move", "leave"])),
        "files": files,
        "ends": draw(st.lists(st.booleans(), max_size=4)),
    }
    return json.dumps(asked).encode()


def of(target: str) -> st.SearchStrategy[bytes]:
    """The strategy for a target."""
    plans: dict[str, Any] = {
        "job file": lambda: job_files() | edited(seeds.examples(), seeds.yaml_words()),
        "defaults": lambda: job_files() | edited(seeds.examples(), seeds.yaml_words()),
        "text": lambda: edited(seeds.texts(), seeds.TEXT_TOKENS) | st.binary(max_size=300),
        "markdown": lambda: edited(seeds.texts(), (*seeds.TEXT_TOKENS, *seeds.MARKDOWN_TOKENS)),
        "spelling": lambda: edited(seeds.texts(), seeds.TEXT_TOKENS) | st.text(max_size=60).map(str.encode),
        "audio header": lambda: (
            edited(seeds.recordings(), seeds.AUDIO_TOKENS, head=200) | st.binary(max_size=300)
        ),
        "audio file": lambda: edited(seeds.recordings(), seeds.AUDIO_TOKENS, head=200),
        "names": file_names,
        "references": references,
        "drops": drops,
    }
    return plans[target]()


def large_of(target: str) -> st.SearchStrategy[bytes]:
    """A mebibyte of YAML, which may not be longer; of texts so much as shows what is not linear."""
    words: dict[str, tuple[Sequence[bytes], Sequence[bytes]]] = {
        "job file": (
            seeds.yaml_words(),
            (b"", b"text: ", b"text: |\n  ", b"parts: [", b"kind: concat\nparts:\n", b'text: "'),
        ),
        "text": (seeds.TEXT_TOKENS, (b"", b"Words. ", b"\xef\xbb\xbf")),
        "markdown": (
            (*seeds.MARKDOWN_TOKENS, *seeds.TEXT_TOKENS),
            (b"", b"Words. ", b"| a | b |\n|---|---|\n"),
        ),
    }
    tokens, starts = words[target]
    return large(tokens, starts, {"job file": 1 << 20, "text": 1 << 18, "markdown": 1 << 17}[target])
