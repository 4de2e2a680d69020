"""Bad input gets a clear error, and nothing is lost: the whole way from the inbox, in one process.

Each case shows what the person who dropped the file reads, in the note beside the failed file or as the
reason in the status, and that every byte of the file still exists in the inbox, in done or in failed.
"""

import json
import os
import socket
import struct
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sound_samples import recording, spoken, tone

from pipeline.config import Config
from pipeline.files import display
from pipeline.intake.intake import Intake
from pipeline.intake.settle import Openness
from pipeline.intake.watch import Watch
from pipeline.jobs.job import DropState, JobState
from pipeline.jobs.settings import Settings
from pipeline.layout import Layout, layout_of
from pipeline.ledger import Ledger
from pipeline.outbox import note_paths
from pipeline.sound.audio import to_pcm16
from pipeline.worker import Worker

GOOD = "This is long enough to tell a voice by, and it is even a little longer than that."
UNCHECKED = {"check": {"by": "none"}, "output": {"formats": ["wav"]}, "takes": {"max_tries": 1}}
FAR_LATER_SECONDS = 70.0
"""Longer than an empty file is waited for."""


class Factory:
    """Inbox, intake, worker and outbox, without the processes."""

    def __init__(self, config: Config) -> None:
        quiet = config.intake.model_copy(update={"events": False})
        self.config = config.model_copy(
            update={"intake": quiet, "defaults": Settings.model_validate(UNCHECKED)}
        )
        self.layout: Layout = layout_of(config)
        self.now, self.stop = 1_800_000_000.0, threading.Event()
        self.ledger = Ledger(self.layout.ledger_file, clock=self.clock)
        self.intake = Intake(self.layout, self.ledger, self.config, clock=self.clock)
        self.watch = Watch(self.config, self.layout, self.ledger, self.intake, clock=self.clock)
        self.worker = Worker(self.config, "1", stop=self.stop)

    def clock(self) -> float:
        """Moved by hand."""
        return self.now

    def close(self) -> None:
        """End the worker."""
        self.stop.set()
        self.worker.run()
        self.watch.close()
        self.ledger.close()

    def put(self, name: str | bytes, content: str | bytes) -> Path:
        """A file in the inbox."""
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.layout.inbox), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def run(self, passes: int = 3) -> None:
        """Look, take and work until nothing is left to do."""
        for _ in range(passes):
            self.now += FAR_LATER_SECONDS
            self.watch.look()
            while (job := self.ledger.claim("1")) is not None:
                self.worker.do(job)

    def note(self, name: str) -> str:
        """What stands beside a failed file."""
        text, record = note_paths(self.layout.failed / name)
        told = text.read_text()
        assert json.loads(record.read_bytes())["error"]["message"] in told
        return told

    def reasons(self) -> dict[str, str]:
        """Why each file waits, as in status.json."""
        return {display(entry.path): entry.reason for entry in self.watch.waiting()}

    def files(self, root: Path) -> dict[str, bytes]:
        """Every regular file below `root` with its contents, but for the lock."""
        paths = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        paths = (path for path in paths if path.name != "lock")
        return {str(path.relative_to(root)): path.read_bytes() for path in paths}

    def exists_once(self, content: bytes) -> bool:
        """Whether the dropped bytes lie in exactly one place of the inbox (done included) or of failed."""
        found = [*self.files(self.layout.inbox).values(), *self.files(self.layout.failed).values()]
        return found.count(content) == 1

    def manifests(self) -> list[dict[str, Any]]:
        """Of all that came out well."""
        paths = (
            path for path in self.layout.outbox.rglob("*.json") if self.layout.failed not in path.parents
        )
        return [json.loads(path.read_bytes()) for path in paths if ".voxspool" not in str(path)]


@pytest.fixture
def factory(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    """With the real engine and nothing checked."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    made = Factory(config)
    yield made
    made.close()


# -- texts --------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8
BAD_TEXTS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "text_empty", "bad.txt is empty.\nPut some words into it and drop it again.\n"),
    "a mark and nothing else": (b"\xef\xbb\xbf", "text_empty", "bad.txt holds only"),
    "white space": (b" \n\t\r\n \n", "text_empty", "bad.txt holds only spaces and line breaks"),
    "punctuation": (b"... --- !?\n* * *\n", "text_empty", "bad.txt holds only punctuation or symbols"),
    "emoji": ("\U0001f600 \U0001f389".encode(), "text_empty", "bad.txt holds only punctuation or symbols"),
    "NUL-padded": (b"Hello there." + b"\0" * 4096, "text_nul_padded", "bad.txt has stretches of empty (NUL)"),
    "a stray NUL": (b"Hello\0 there.", "text_binary", "bad.txt does not hold text"),
    "nothing but NUL": (b"\0" * 4096, "text_nul_padded", "bad.txt has stretches of empty (NUL)"),
    "a picture": (PNG, "text_binary", "bad.txt is "),
    "random bytes": (bytes(range(256)) * 40, "text_binary", "bad.txt "),
    "a recording": (b"RIFF\x24\x08\0\0WAVEfmt " + bytes(range(200)), "text_binary", "bad.txt is "),
    "cut UTF-8": ("Hello Zo\u00eb. ".encode() * 50 + b"Zo\xc3", "text_cut_off", "bad.txt ends in the middle"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "code", "said"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_text_that_cannot_be_spoken_says_why(
    factory: Factory, content: bytes, code: str, said: str
) -> None:
    """By its name, with what to do, and as it was."""
    factory.put("sub/bad.txt", content)
    factory.run()
    note = factory.note("sub/bad.txt")
    assert note.startswith(said), note
    assert note.endswith("To try again, move bad.txt from here back into the inbox.\n")
    assert (factory.layout.failed / "sub/bad.txt").read_bytes() == content
    assert factory.exists_once(content) and factory.manifests() == []
    assert [job.error_code for job in factory.ledger.jobs_in(*JobState)] == [code]


GOOD_TEXTS: dict[str, tuple[bytes, str | None]] = {
    "UTF-16 with a mark": ("Zo\u00eb says hello.".encode("utf-16"), None),
    "UTF-8 with a mark": ("Zo\u00eb says hello.".encode("utf-8-sig"), None),
    "Windows line ends": (b"Zo\xc3\xab says hello.\r\n\r\n", None),
    "Latin-1": (b"Zo\xeb says hello to the world, and that is that.", "was read as cp1252"),
}


@pytest.mark.parametrize(("content", "warned"), GOOD_TEXTS.values(), ids=GOOD_TEXTS)
def test_a_text_in_an_odd_form_is_spoken(factory: Factory, content: bytes, warned: str | None) -> None:
    """With a warning where its encoding had to be guessed."""
    factory.put("odd.txt", content)
    factory.run()
    (manifest,) = factory.manifests()
    assert "Zo\u00eb" in manifest["chunks"][0]["text"] and "hello" in manifest["chunks"][0]["text"]
    assert any(warned in warning for warning in manifest["warnings"]) if warned else not manifest["warnings"]
    assert factory.exists_once(content)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fifty_megabytes_on_one_line_are_cut_and_begun(factory: Factory) -> None:
    """It need not be spoken to its end here: it is stopped after some chunks, and goes back to the queue."""
    content = b"".join(
        b"It was the best of times, it was the worst of %d times. " % n for n in range(950_000)
    )
    assert len(content) > 50_000_000 and b"\n" not in content
    factory.put("long.txt", content)
    speak, spoken = factory.worker._tools.engine("espeak").speak, []

    def count(utterance: Any) -> Any:
        spoken.append(utterance.text)
        if len(spoken) == 20:
            factory.stop.set()
        return speak(utterance)

    factory.worker._tools.engine("espeak").speak = count  # type: ignore[method-assign]
    factory.watch.look()
    job = factory.ledger.claim("1")
    assert job is not None
    factory.worker.do(job)
    assert factory.ledger.counts()["queued"] == 1
    assert len(spoken) == 20 and all(0 < len(text) <= 280 for text in spoken)
    assert " ".join(spoken).startswith("It was the best of times, it was the worst of 0 times. It was")
    rows = factory.ledger._db.rows("SELECT total_chunks FROM jobs")
    assert rows[0]["total_chunks"] > 150_000
    assert factory.exists_once(content)


def test_a_text_beyond_all_measure_is_refused(factory: Factory) -> None:
    """Without being read into memory."""
    path = factory.put("huge.txt", b"")
    os.truncate(path, (64 << 20) + 1)
    deadline = time.monotonic() + 60.0
    while path.exists() or not any(factory.layout.failed.glob("huge*")):  # it is taken aside
        assert time.monotonic() < deadline
        factory.run()
    assert factory.note("huge.txt").startswith(
        "huge.txt is larger than 64 MB, the most that is read of one text."
    )
    assert (factory.layout.failed / "huge.txt").stat().st_size == (64 << 20) + 1


# -- job files ----------------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD_JOB_FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": (b"", ("bad.yaml holds no job.", "docs/job-file.md")),
    "unclosed": ("text: [hi", ("bad.yaml, line 1: not valid YAML: this never ends.",)),
    "a tab": ("text: hi\n\tvoice: x", ("bad.yaml, line 2: not valid YAML: a tab; indent with spaces.",)),
    "two colons": ("text: hi: there", ("bad.yaml, line 1: not valid YAML: mapping values are not",)),
    "unknown keys": (
        "txt: hi\nsynthesis: {temprature: 1}",
        ("line 1: txt: unknown key; did you mean text?", "line 2: synthesis.temprature: unknown key"),
    ),
    "a key twice": ("text: hi\ntext: ho", ("bad.yaml, line 2: the key 'text' stands twice.",)),
    "a custom tag": ("text: !!python/object/apply:os.system [id]", ("tags such as !name are not allowed.",)),
    "an alias bomb": (BOMB, ("bad.yaml, line 2: aliases (*name) are not allowed.",)),
    "too deep": ("text: " + "[" * 5000, ("nested more than 20 levels deep.",)),
    "too large": (b"# " + b"x" * (1 << 20) + b"\ntext: hi", ("a YAML file may have 1,048,576", "text_file")),
    "not UTF-8": (b"text: caf\xe9", ("bad.yaml, line 1: byte 0xe9 is not UTF-8.", "Save the file as UTF-8.")),
    "binary": (PNG, ("bad.yaml, line 1: byte 0x89 is not UTF-8.",)),
    "a list": ("- text: hi", ("expected keys with values, found a list.",)),
    "a word": ("hello", ("expected keys with values, found 'hello'.",)),
    "wrong types": ("text: hi\nseed: lots\naudio: loud", ("seed: expected a whole", "audio: expected")),
    "a file outside": ("text_file: ../../etc/passwd.txt", ("leads out of the job file's folder",)),
    "an absolute path": ("kind: vc\naudio: /etc/passwd.wav", ("leads out of the job file's folder",)),
    "a hidden file": ("text_file: .ssh/id.txt", ("names a hidden file",)),
    "a backslash": (r"text_file: ..\x.txt", ("is no file name; separate folders by a forward slash.",)),
    "a web address": ("text: hi\nvoice: https://example.org/a.wav", ("espeak cannot imitate a recording",)),
    "an address without TLS": ("text: hi\nvoice: http://example.org/a.wav", ("line 2: voice: http://example", "https://;")),
    "a text by web address": ("text_file: https://example.org/a.txt", ("only `voice` and `audio` may",)),
    "another kind": ("kind: sing\ntext: la", ("kind: expected tts, vc or concat, found 'sing'.",)),
    "a model that is not here": ("text: hi\nengine: chatterbox", ("fetch-models chatterbox",)),
    "no such recogniser here": ("text: hi\ncheck: {by: whisper}", ("fetch-models whisper-base",)),
    "no such voice": ("text: hi\nvoice: nobody-knows", ("espeak has no voice nobody-knows",)),
    "no such language": ("text: hi\nlanguage: xx", ("espeak does not speak xx",)),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), BAD_JOB_FILES.values(), ids=BAD_JOB_FILES)
def test_a_job_file_that_is_wrong_says_what(
    factory: Factory, content: str | bytes, said: tuple[str, ...]
) -> None:
    """With the line and the nearest right key, all at once; and the file is as it was."""
    data = content if isinstance(content, bytes) else content.encode()
    factory.put("bad.yaml", data)
    factory.run()
    note = factory.note("bad.yaml")
    assert "bad.yaml" in note and all(sentence in note for sentence in said), note
    assert "Voxspool made a mistake" not in note
    assert (factory.layout.failed / "bad.yaml").read_bytes() == data and factory.exists_once(data)


def test_a_part_that_never_comes_is_told(factory: Factory) -> None:
    """After the time that is waited for it; until then the job file waits with the reason."""
    factory.put("job.yaml", "text_file: chapter.txt")
    factory.run(1)
    assert factory.reasons() == {"job.yaml": "waiting for chapter.txt"}
    factory.now += 900
    factory.run()
    assert factory.note("job.yaml").startswith("job.yaml: The job names chapter.txt, which did not arrive.\n")


# -- recordings ---------------------------------------------------------------------------------------


def wav(
    seconds: float = 0.5,
    *,
    data_bytes: int | None = None,
    rate_hz: int = 8000,
    bits: int = 16,
    channels: int = 1,
) -> bytes:
    """A wave file whose header may lie."""
    pcm = to_pcm16(tone(seconds, rate_hz=8000)).tobytes()
    said = len(pcm) if data_bytes is None else data_bytes
    head = struct.pack(
        "<HHIIHH", 1, channels, rate_hz, rate_hz * channels * bits // 8, channels * bits // 8 & 0xFFFF, bits
    )
    riff = b"RIFF" + struct.pack("<I", 36 + said) + b"WAVEfmt " + struct.pack("<I", 16) + head
    return riff + b"data" + struct.pack("<I", said) + pcm


BAD_RECORDINGS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda _: b"", "holds no sound"),
    "zeros": (lambda _: b"\0" * 5000, "holds no sound"),
    "a text": (
        lambda _: b"Hello there, I am a text.",
        "cannot be read as a recording: its content is none of",
    ),
    "a playlist": (lambda _: b"#EXTM3U\nfile:///etc/passwd\n", "cannot be read as a recording"),
    "only a header": (lambda _: wav()[:44], "bad.wav "),
    "cut short": (lambda _: wav()[:3000], "is cut short"),
    "claims to be longer": (lambda _: wav(data_bytes=10**9), "is cut short"),
    "claims no rate": (lambda _: wav(rate_hz=0), "bad.wav "),
    "claims 60,000 channels": (lambda _: wav(channels=60_000), "bad.wav "),
    "no samples": (lambda _: wav(0.0), "holds no sound"),
    "a cut flac": (lambda folder: recording(folder / "x.flac", tone(2.0)).read_bytes()[:9000], "bad.wav "),
}


@pytest.mark.parametrize(("make", "said"), BAD_RECORDINGS.values(), ids=BAD_RECORDINGS)
@pytest.mark.parametrize("as_voice", [False, True], ids=["recording", "voice"])
def test_a_recording_that_is_none_says_so(
    factory: Factory, tmp_path: Path, make: Callable[[Path], bytes], said: str, as_voice: bool
) -> None:
    """By its name, as the recording and as the voice; nothing that its header says is believed."""
    content, good = make(tmp_path), recording(tmp_path / "good.wav", spoken(GOOD)).read_bytes()
    factory.put("bad.wav", content)
    factory.put("good.wav", good)
    source, voice = ("good.wav", "bad.wav") if as_voice else ("bad.wav", "good.wav")
    factory.put("job.yaml", f"kind: vc\naudio: {source}\nvoice: {voice}")
    factory.run()
    note = factory.note("job.yaml")
    assert "bad.wav" in note and said in note, note
    assert "Voxspool made a mistake" not in note and factory.manifests() == []
    assert (factory.layout.failed / "bad.wav").read_bytes() == content
    assert (factory.layout.failed / "good.wav").read_bytes() == good


def test_a_recording_without_a_voice_says_what_to_do(factory: Factory) -> None:
    """The contract's own sentence."""
    factory.put("speech.wav", wav())
    factory.run()
    note = factory.note("speech.wav")
    assert "no voice is set for it to be converted to.\n" in note and "`voice: NAME`" in note
    assert factory.exists_once(wav())


# -- names --------------------------------------------------------------------------------------------

NAMES: dict[str, tuple[bytes, str]] = {
    "a line break": (b"two\nlines.txt", "two_lines"),
    "255 bytes": (b"x" * 251 + b".txt", "x" * 222 + "~"),
    "255 bytes of Chinese": ("漢".encode() * 83 + b"ab.txt", "漢" * 74 + "~"),
    "NFD": ("cafe\u0301.txt".encode(), "caf\u00e9"),
    "Latin-1": (b"caf\xe9.txt", "caf_"),
    "Windows": (b'what? "me": <a|b>*.txt', "what_ _me__ _a_b__"),
    "a device": (b"nul.txt", "_nul"),
    "control characters": (b"a\x01\x1b[31mb\x7f.txt", "a__[31mb_"),
    "right to left": ("a\u202etxt.b.txt".encode(), "a_txt.b"),
    "spaces and dots": (b" . story .. .txt", "_ story"),
    "an option": (b"-i.txt", "-i"),
    "a shell's joy": (b"$(touch x);`id` & 'q' %s.txt", "$(touch x);`id` & 'q' %s"),
}


@pytest.mark.parametrize(("raw", "stem"), NAMES.values(), ids=NAMES)
def test_every_name_comes_out(factory: Factory, raw: bytes, stem: str) -> None:
    """Under the nearest name that every disk takes; the source keeps its own, byte for byte."""
    factory.put(raw, b"Hello there.")
    factory.run()
    (manifest,) = factory.manifests()
    made = factory.files(factory.layout.outbox)
    (audio,) = [name for name in made if name.endswith(".wav")]
    assert audio.startswith(stem) and manifest["outputs"][0]["path"] == audio
    assert unicodedata.is_normalized("NFC", audio) and len(audio.encode()) <= 255
    assert manifest["source"]["name"] == display(raw)
    done = [os.fsencode(path.name) for path in factory.layout.done_root.rglob("*.txt")]
    assert done == [raw] and factory.exists_once(b"Hello there.")


@pytest.mark.parametrize(("raw", "_"), NAMES.values(), ids=NAMES)
def test_every_name_can_fail(factory: Factory, raw: bytes, _: str) -> None:
    """With a note that can be read."""
    factory.put(raw, b"...")
    factory.run()
    failed = Path(os.fsdecode(os.path.join(os.fsencode(factory.layout.failed), raw)))
    assert failed.read_bytes() == b"..."
    note = factory.note(os.fsdecode(raw))
    assert "nothing" in note and display(raw) in note and note.isprintable() is False and "\x1b" not in note


def test_decomposed_and_composed_names_are_two_files(factory: Factory) -> None:
    """ext4 keeps both; so do we, under names that a Mac keeps apart too."""
    factory.put("caf\u00e9.txt", b"The composed one.")
    factory.put("cafe\u0301.txt", b"The decomposed one.")
    factory.run()
    assert sorted(m["outputs"][0]["path"] for m in factory.manifests()) == [
        "caf\u00e9.wav",
        "caf\u00e9~2.wav",
    ]


# -- what is no file ----------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    """A socket in the file system; its path must be short."""
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


ENTRIES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pipe.txt": (os.mkfifo, "a named pipe (FIFO), not a file: drop the file itself"),
    "socket.txt": (make_socket, "a socket, not a file: drop the file itself"),
    "link.txt": (lambda path: path.symlink_to("/etc/hostname"), "a link, not a file: drop the file itself"),
    "nowhere.txt": (lambda path: path.symlink_to("/no/where"), "a link, not a file: drop the file itself"),
    "loop.txt": (lambda path: path.symlink_to(path), "a link, not a file: drop the file itself"),
    "folder.txt": (os.mkdir, "a folder, not a file; its contents are looked at"),
}


def test_what_is_no_file_stays_and_is_shown(factory: Factory) -> None:
    """Nothing is opened that might never end, and what lies beside it is spoken."""
    for name, (make, _) in ENTRIES.items():
        make(factory.layout.inbox / name)
    factory.put("folder.txt/inside.txt", "I am inside.")
    factory.run()
    assert factory.reasons() == {name: said for name, (_, said) in ENTRIES.items()}
    assert all(os.path.lexists(factory.layout.inbox / name) for name in ENTRIES)
    assert [m["outputs"][0]["path"] for m in factory.manifests()] == ["folder.txt/inside.wav"]


@pytest.mark.parametrize("kind", ["pipe.txt", "socket.txt", "link.txt", "folder.txt"])
def test_what_is_no_file_is_no_part_either(factory: Factory, kind: str) -> None:
    """A job file that names it fails with the reason; it stays, as everything does that is no drop."""
    ENTRIES[kind][0](factory.layout.inbox / kind)
    factory.put("job.yaml", f"text_file: {kind}")
    factory.run()
    note = factory.note("job.yaml")
    assert f"The job names {kind}, which cannot be read: " in note
    assert "It must be an ordinary file, not a link." in note
    assert os.path.lexists(factory.layout.inbox / kind)
    assert not os.path.lexists(factory.layout.failed / kind)


def test_a_folder_called_like_a_result_is_told(factory: Factory) -> None:
    """`x.txt` is spoken to `x.wav`, and then a folder `x.wav/` comes along: its text fails and is kept."""
    factory.put("x.txt", "The text itself.")
    factory.run()
    factory.put("x.wav/a.txt", "Inside of the folder.")
    factory.run()
    assert [manifest["outputs"][0]["path"] for manifest in factory.manifests()] == ["x.wav"]
    assert "The folder x.wav cannot be made in the outbox: a file stands in" in factory.note("x.wav/a.txt")
    assert factory.exists_once(b"Inside of the folder.") and factory.exists_once(b"The text itself.")


# -- rights -------------------------------------------------------------------------------------------


def test_a_file_that_may_not_be_read_waits_with_the_reason(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose it is and who we are; once it may be read it is spoken. Staged, since root reads all."""
    path = factory.put("secret.txt", "Hello there.")
    path.chmod(0o000)

    def probe(path: str, _network: bool) -> Openness:
        if os.stat(path).st_mode & 0o400 == 0:
            raise PermissionError(13, "Permission denied")
        return Openness.FREE

    monkeypatch.setattr("pipeline.intake.watch.probe", probe)
    factory.run()
    reason = factory.reasons()["secret.txt"]
    assert reason.startswith("cannot be read: permission denied (the file belongs to uid ")
    assert f"mode 000; Voxspool runs as uid {os.geteuid()}" in reason
    assert path.exists()
    path.chmod(0o600)
    factory.run()
    assert len(factory.manifests()) == 1


def test_a_file_that_may_not_be_moved_waits_with_the_reason(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not spoken again and again: it is not spoken at all until it can be taken."""
    path = factory.put("ours/story.txt", "Hello there.")
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if Path(source).name == path.name:
            raise PermissionError(13, "Permission denied")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        factory.run()
    said = f"it cannot be moved: permission denied; give user {os.geteuid()} write access to its folder"
    assert factory.reasons() == {"ours/story.txt": said}
    assert factory.manifests() == [] and path.exists()
    factory.run()
    assert len(factory.manifests()) == 1 and not path.exists()


def test_nothing_is_left_over(factory: Factory) -> None:
    """After good and bad alike every drop is in one place and no work folder is left."""
    for number, (content, _, _) in enumerate(BAD_TEXTS.values()):
        factory.put(f"{number}/bad.txt", content)
    factory.put("good.txt", "All is well.")
    factory.run()
    states = {drop.state for drop in factory.ledger.drops_in(*DropState)}
    assert states == {DropState.DONE, DropState.FAILED}
    assert list(factory.layout.claimed_root.iterdir()) == []
    assert (
        factory.files(factory.layout.work_root) == {} and factory.files(factory.layout.publishing_root) == {}
    )
