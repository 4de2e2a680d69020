"""Where inputs come from: our own examples, small recordings of every kind, and the words of each format."""

import functools
import subprocess
import tempfile
from pathlib import Path

from pipeline.jobs.settings import Settings
from pipeline.jobs.spec import ConcatFile, TtsFile, VcFile, VoiceSheet
from pipeline.sound.ffmpeg import executable

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = Path(__file__).resolve().parent / "corpus"

YAML_TOKENS = (
    *(
        b"---\n",
        b"...\n",
        b"- ",
        b": ",
        b"? ",
        b"{",
        b"}",
        b"[",
        b"]",
        b", ",
        b"|\n",
        b">\n",
        b"|+2\n",
        b">-\n",
    ),
    *(
        b"&a ",
        b"*a",
        b"!!str ",
        b"!x ",
        b"!<tag:yaml.org,2002:int> ",
        b"<<: ",
        b"= ",
        b"%YAML 1.2\n",
        b"%TAG ! x\n",
    ),
    *(
        b'"',
        b"'",
        b"''",
        b'"\\ud83d\\ude00"',
        b'"\\x00"',
        b'"\\U0010ffff"',
        b'"\\UFFFFFFFF"',
        b"# ",
        b"\t",
        b"\r\n",
    ),
    *(
        b"~",
        b"null",
        b"true",
        b"no",
        b".inf",
        b"-.nan",
        b"0x1F",
        b"0o17",
        b"1_000",
        b"12:30:45",
        b"2026-11-22",
    ),
    *(
        b"1e400",
        b"1e-400",
        b"9" * 60,
        b"-0",
        b"+.5",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\x85",
        b"\xe2\x80\xa8",
    ),
)
PATH_TOKENS = (
    *(b"../", b"./", b"/", b"//", b"~/", b"C:", b"\\", b"%2e%2e/", b"https://", b"file://", b".txt", b".wav"),
    *(b"a.txt", b"sub/b.wav", "\uff0e\uff0e\uff0f".encode(), "e\u0301".encode(), b"\x00", b"con", b" ", b"."),
)
TEXT_TOKENS = (
    *(
        b"Dr. ",
        b"J.R.R. ",
        b"U.S. ",
        b"[1, 2]",
        b"$1.5bn",
        b"3:07 p.m.",
        b"1999-12-31",
        b"Chapter IV",
        b"1/2",
        b"2nd",
    ),
    *(
        b"1,000,000",
        b"007",
        b"e.g. ",
        b"\n\n",
        b"* * *",
        b"- \n",
        b"\xc2\xad\n",
        b"\xe2\x80\x8d",
        b"\xcc\x81",
        b"\x0c",
    ),
    *(
        "\u00bd\u00b2\u0663".encode(),
        "\u201c\u2018\u00ab".encode(),
        "\u6f22\u5b57\u3002".encode(),
        b"\xe2\x80\xa9",
    ),
    *(
        "\U0001f468\u200d\U0001f469".encode(),
        "\u202e\u2066".encode(),
        "\u0e2a\u0e27".encode(),
        b"\xff\xfe",
        b"\x00",
    ),
)
MARKDOWN_TOKENS = (
    *(
        b"# ",
        b"```\n",
        b"    ",
        b"> ",
        b"1. ",
        b"* ",
        b"| a | b |\n|---|---|\n",
        b"[a](b)",
        b"![a](b)",
        b"[a]: b\n",
    ),
    *(
        b"<!--",
        b"-->",
        b"<script>",
        b"</script>",
        b"<b>",
        b"<?",
        b"<!",
        b"&amp;",
        b"&#0;",
        b"**",
        b"~~",
        b"__",
        b"\\",
    ),
    *(b"---\na: b\n---\n", b"[" * 20, b"](" * 10, b"*" * 9, b"_a_" * 5, b"``", b"<a", b"$", b"====\n", b"\t"),
)
AUDIO_TOKENS = (
    *(b"RIFF", b"RF64", b"WAVE", b"fmt ", b"data", b"LIST", b"ds64", b"ID3\x04\x00\x00", b"\x7f\x7f\x7f\x7f"),
    *(
        b"fLaC",
        b"OggS",
        b"OpusHead",
        b"\x01vorbis",
        b"ftypM4A ",
        b"ftypisom",
        b"moov",
        b"mdat",
        b"stsz",
        b"stts",
    ),
    *(
        b"\xff\xfb\x90\x64",
        b"\xff\xf1\x50\x80",
        b"Xing",
        b"LAME",
        b"TAG",
        b"APETAGEX",
        b"\xff" * 4,
        b"\x00" * 8,
    ),
    *(
        b"\x01\x00\x00\x00",
        b"\xff\xff\xff\x7f",
        b"\xfe\xff",
        b"\x03\x00\x20\x00",
        b"#EXTM3U\n",
        b"ffconcat version 1.0\n",
    ),
)


def yaml_words() -> tuple[bytes, ...]:
    """The words of YAML and of our job files."""
    models = (TtsFile, VcFile, ConcatFile, VoiceSheet)
    keys = {key for model in models for key in model.model_fields} | set(_nested_keys(Settings))
    values = (
        b"tts",
        b"vc",
        b"concat",
        b"espeak",
        b"whisper",
        b"best",
        b"mp3",
        b"high",
        b"en-US",
        b"silence_ms: 5",
    )
    return (*YAML_TOKENS, *PATH_TOKENS, *values, *(f"\n{key}: ".encode() for key in sorted(keys)))


def _nested_keys(model: type) -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        keys += [name, *(_nested_keys(inner) if hasattr(inner, "model_fields") else ())]
    return keys


def kept(target: str) -> list[bytes]:
    """What was found before."""
    return [path.read_bytes() for path in sorted((CORPUS / target.replace(" ", "-")).glob("*"))]


def examples() -> list[bytes]:
    """Our own job files."""
    return [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.yaml"))]


ENGLISH = "Dr. J.R.R. Smith paid $200 on 5 May 1999 [1], i.e. 3.14% of it at 3:07 p.m. in St. Ives.\n"
OTHERS = (
    "Caf\u00e9 f\u00fcr na\u00efve. \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! "
    "\u4f60\u597d\u3002 \u0645\u0631\u062d\u0628\u0627 123."
)


def texts() -> list[bytes]:
    """Texts in several encodings and scripts."""
    codecs = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252")
    found = [text.encode(codec, "replace") for text in (ENGLISH, OTHERS) for codec in codecs]
    more = (ROOT / "examples/hello.txt", ROOT / "README.md")
    return [*found, OTHERS.encode("koi8-r", "replace"), *(path.read_bytes()[:3000] for path in more)]


@functools.cache
def recordings() -> tuple[bytes, ...]:
    """A fifth of a second of every kind of recording that we take."""
    kinds = {
        "wav": (),
        "rf64.wav": ("-rf64", "always"),
        "float.wav": ("-c:a", "pcm_f32le"),
        "mp3": ("-metadata", "title=T"),
        "flac": (),
        "opus": (),
        "ogg": ("-c:a", "libvorbis"),
        "m4a": (),
        "aac": (),
    }
    with tempfile.TemporaryDirectory() as folder:
        return tuple(_recording(Path(folder) / f"x.{name}", arguments) for name, arguments in kinds.items())


def _recording(path: Path, arguments: tuple[str, ...]) -> bytes:
    source = ["-f", "lavfi", "-i", "sine=frequency=220:duration=0.2:sample_rate=16000"]
    command = [executable(), "-loglevel", "error", "-nostdin", "-y", *source, *arguments, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path.read_bytes()
