"""The ways in: what a stranger's bytes go through, each with what has to hold afterwards.

Each target takes bytes, and raises only where a promise is broken: the errors that the program documents are
swallowed here, and nothing else is.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from pipeline.errors import InputError, SpecError
from pipeline.files import display, open_beneath
from pipeline.intake.ignore import EntryType, IgnoreList, explain_name
from pipeline.jobs.job import JobSpec, VoiceChoice, spec_from_json, spec_to_json
from pipeline.jobs.settings import Chunks, Settings, TextRules
from pipeline.jobs.spec import (
    cascade,
    complete,
    names_in_broken,
    normalised,
    parse_defaults,
    parse_job_file,
    parse_voice_sheet,
    problems_of,
)
from pipeline.naming import MAX_NAME_BYTES, distinct_name, folded, numbered, safe_name
from pipeline.outbox import result_folder
from pipeline.sound.containers import HEAD_BYTES, TAIL_BYTES, container_of, id3_bytes, shortfall
from pipeline.sound.decode import decode_blocks, probe
from pipeline.text.chunk import chunk
from pipeline.text.prepare import prepare
from pipeline.text.read import read
from pipeline.text.speakable import is_speakable
from pipeline.text.spell import spell_out
from pipeline.text.spoken import spoken_words
from pipeline.voices import Library

SECRET = b"what lies outside"
LANGUAGES = ("en", "de", "fr", "ru", "ar", "zh-CN", "th", "hi", "ja", "tr", "xx", "en-GB")
LONGEST_SUFFIX = "~9999.error.json"


def job_file(data: bytes) -> None:
    """Read as a job file, frozen, written down and read again."""
    try:
        requests = parse_job_file(data, "job.yaml")
    except SpecError as error:
        assert error.message and "job.yaml" in error.message
        for name in names_in_broken(data):
            assert not name.startswith(("/", ".")) and ".." not in PurePosixPath(name).parts
            assert not (name.startswith("~") and "/" in name), "a home folder"
        return
    for request in requests:
        settings = complete(cascade(request.settings, Settings()))
        problems_of(settings)
        for name in request.references:
            assert not name.startswith("/") and ".." not in PurePosixPath(name).parts
        spec = JobSpec(
            kind=request.kind,
            settings=settings,
            voice=VoiceChoice(name=settings.voice or ""),
            text=request.text,
            file=request.file,
            parts=request.parts,
        )
        assert spec_from_json(spec_to_json(spec)) == spec


def defaults(data: bytes) -> None:
    """Read as the defaults of a folder and as a voice sheet."""
    for parse in (parse_defaults, parse_voice_sheet):
        try:
            parse(data, "_defaults.yaml")
        except SpecError as error:
            assert "_defaults.yaml" in error.message


def text(data: bytes) -> None:
    """Read as a dropped text, prepared, cut and spelled out."""
    _speak(data, "story.txt")


def markdown(data: bytes) -> None:
    """The same as Markdown."""
    _speak(data, "story.md")


@cache
def _folder() -> Path:
    """A folder in memory, as long as this process lives."""
    holder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    _kept_alive.append(holder)
    return Path(holder.name)


_kept_alive: list[object] = []


def _speak(data: bytes, name: str) -> None:
    path = _folder() / name
    path.write_bytes(data)
    language = LANGUAGES[len(data) % len(LANGUAGES)]
    rules = TextRules(lowercase=len(data) % 5 == 0, initials=len(data) % 3 > 0, citations=len(data) % 7 > 0)
    limits = Chunks(max_chars=(40, 280, 2000)[len(data) % 3], min_chars=(0, 20, 500)[len(data) % 2])
    try:
        decoded = read(path)
        prepared = prepare(decoded.text, rules, language)
    except InputError as error:
        assert error.message and error.hint
        return
    again = prepare(prepared.text, rules, language)
    assert again.text == prepared.text, "preparing twice changes something"
    chunks = chunk(prepared.text, limits, language)
    assert chunks and "".join(prepared.text[c.start : c.end] for c in chunks) == prepared.text
    assert all(0 < len(c.text) <= limits.max_chars and is_speakable(c.text) for c in chunks)
    for piece in chunks[:10]:
        _spell(piece.text, language)


def spelling(data: bytes) -> None:
    """Text that was decoded already, in letters."""
    spelled = data.decode("utf-8", "replace")
    _spell(spelled, LANGUAGES[len(data) % len(LANGUAGES)])


def _spell(written: str, language: str) -> None:
    spelled = spell_out(written, language)
    assert spell_out(spelled, language) == spelled, "spelling out twice changes something"
    words = spoken_words(written, language)
    assert spoken_words(" ".join(words), language) == words, "going through twice changes something"


def audio_header(data: bytes) -> None:
    """What a recording is by its ends."""
    head, tail = data[:HEAD_BYTES], data[-TAIL_BYTES:]
    assert id3_bytes(head) >= 0
    container = container_of(head)
    assert container in (None, "wav", "mov", "flac", "ogg", "mp3", "aac")
    for kind in ("wav", "ogg", "mp3", container or "mov"):
        assert isinstance(shortfall(kind, head, tail, len(data)), str)


def audio_file(data: bytes) -> None:
    """Measured and decoded by ffmpeg, a child process."""
    path = _folder() / "take.wav"
    path.write_bytes(data)
    for look in (probe, _decode):
        try:
            look(path)
        except InputError as error:
            assert "take.wav" in error.message and error.hint


def _decode(path: Path) -> None:
    for block in decode_blocks(path, 22_050, 10.0):
        assert block.ndim == 1 and len(block) <= 220_500


def names(data: bytes) -> None:
    """A file name, and folders of such names."""
    raw = data.replace(b"\0", b"\x01")
    name = os.fsdecode(raw.replace(b"/", b"_"))
    for safe in (safe_name(name), distinct_name(name)):
        assert safe and safe_name(safe) == safe and "/" not in safe and not safe.startswith(".")
        assert len((safe + LONGEST_SUFFIX).encode()) <= MAX_NAME_BYTES
        assert folded(folded(safe)) == folded(safe)
    folder = result_folder(PurePosixPath(os.fsdecode(raw).lstrip("/")))
    assert all(safe_name(part) == part for part in folder.parts)
    assert not folder.parts or folded(folder.parts[0]) != "failed"
    if 0 < len(raw) <= MAX_NAME_BYTES and name not in (".", ".."):
        assert len(os.fsencode(numbered(name, 9999))) <= MAX_NAME_BYTES
        for kind in EntryType:
            explain_name(name, kind, IgnoreList())
    assert display(name).isprintable()


@cache
def _tree() -> Path:
    """A folder with links that lead out of it, and the secret outside."""
    base = _folder() / "tree"
    root = base / "root"
    (root / "sub/deep").mkdir(parents=True)
    (base / "outside").mkdir()
    for name in ("a.txt", "a.wav", "sub/a.txt", "sub/deep/a.wav"):
        (root / name).write_bytes(b"ours")
    for name in ("a.txt", "a.wav"):
        (base / "outside" / name).write_bytes(SECRET)
        (base / name).write_bytes(SECRET)
        (root / f"link{name}").symlink_to(base / "outside" / name)
    (root / "link").symlink_to(base / "outside")
    (root / "sub/up").symlink_to("../..")
    return root


def references(data: bytes) -> None:
    """A name in a job file: whatever is opened, nothing outside of its folder is."""
    name = data.decode("utf-8", "replace")
    wanted = [name, normalised(name)]
    for line in (
        f"text_file: {json.dumps(name)}",
        f"kind: vc\naudio: {json.dumps(name)}\nvoice: {json.dumps(name)}",
    ):
        try:
            wanted += [
                found for request in parse_job_file(line.encode(), "job.yaml") for found in request.references
            ]
        except SpecError:
            continue
    for relative in wanted:
        try:
            with open_beneath(_tree(), relative) as stream:
                assert stream.read() == b"ours"
        except OSError as error:
            assert error.errno and str(error.filename).startswith(str(_tree()))
    try:
        voice = Library(_tree()).find(name)
    except InputError:
        return
    assert voice is None or voice.clip is None or voice.clip.parent == _tree()


def drops(data: bytes) -> None:
    """Files dropped together, through the real intake to their last places."""
    from tests.fuzz.drops import drop_all  # only here: it needs much of the program

    drop_all(data)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "job file": job_file,
    "defaults": defaults,
    "text": text,
    "markdown": markdown,
    "spelling": spelling,
    "audio header": audio_header,
    "audio file": audio_file,
    "names": names,
    "references": references,
    "drops": drops,
}
