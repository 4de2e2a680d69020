"""A mixed load, and what must have become of it.

Plays the person at the folders: drops every kind of file, edits, renames, deletes, cancels, tries again,
through the inbox and the command line alone. Remembers each content that it dropped and compares that with
the ledger and the outbox at the end, so that it needs to trust neither.
"""

import contextlib
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile

from bench.ground import Ground
from bench.sentences import words_of
from pipeline import cli, engines
from pipeline.engines.base import Utterance, Voice
from pipeline.errors import VoxspoolError
from pipeline.jobs.settings import Synthesis
from pipeline.sound.audio import Samples

FOLDERS = ("", "stories/", "stories/old/")
RECORDINGS = "calls/"
ENDED = frozenset({"done", "failed"})
CLIP_TEXT = "This is long enough to tell a voice by, and it is even a little longer than that."


@dataclass(slots=True)
class Wanted:
    """One content that was dropped, and how it may end."""

    name: str
    documents: int
    ends: frozenset[str] = frozenset({"done"})
    drops_at_least: int = 1
    drops_at_most: int = 1
    "how often the ledger may have seen it: once, and once more for each time it was tried again"


@dataclass(slots=True)
class SlowFile:
    """A file that somebody is still writing."""

    path: Path
    descriptor: int
    pieces: list[bytes]
    written: bytes = b""


@dataclass(slots=True)
class Load:
    """Acts at random, the same for the same seed as long as the daemon is as quick."""

    place: Ground
    random: Random
    with_recordings: bool = True
    wanted: dict[str, Wanted] = field(default_factory=dict)
    "by SHA-256 of the dropped file's content"
    acts: Counter[str] = field(default_factory=Counter)
    _latest: dict[str, str] = field(default_factory=dict)
    _slow: list[SlowFile] = field(default_factory=list)
    _number: int = 0
    _clip: tuple[Samples, int] | None = None

    # -- acting ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The voice and the folders' defaults that the load relies on."""
        if self.with_recordings:
            samples, rate_hz = self._voice()
            soundfile.write(self.place.root / "voices" / "narrator.wav", samples, rate_hz)
            self._put_file(f"{RECORDINGS}_defaults.yaml", b"voice: narrator\n")
        self._put_file("checked/_defaults.yaml", b"check: {by: auto}\noutput: {formats: [mp3]}\n")

    def act(self) -> None:
        """Do one thing that people do."""
        deeds: list[tuple[int, Callable[[], None]]] = [
            (30, self.text),
            (6, self.long_text),
            (8, self.documents),
            (6, self.job_with_part),
            (6, self.joined),
            (4, self.checked),
            (6, self.bad_job),
            (4, self.nothing_to_speak),
            (10, self.redrop),
            (6, self.edit),
            (5, self.rename),
            (5, self.delete),
            (4, self.slow_file),
            (5, self.cancel),
            (5, self.retry),
        ]
        if self.with_recordings:
            deeds += [(6, self.recording), (3, self.bad_recording)]
        weights = [weight for weight, _ in deeds]
        [(_, deed)] = self.random.choices(deeds, weights)
        self.acts[deed.__name__] += 1
        deed()
        self._go_on_writing()

    def finish(self) -> None:
        """Nobody writes any more."""
        while self._slow:
            self._go_on_writing()

    def text(self) -> None:
        """A short text, new."""
        self._drop(f"{self._folder()}text-{self._next()}.txt", self._sentences(1))

    def long_text(self) -> None:
        """Many chunks."""
        self._drop(f"{self._folder()}long-{self._next()}.txt", self._sentences(self.random.randint(6, 20)))

    def checked(self) -> None:
        """One that is listened to, and encoded."""
        self._drop(f"checked/heard-{self._next()}.txt", self._sentences(1))

    def documents(self) -> None:
        """A job file with several jobs."""
        number, count = self._next(), self.random.randint(2, 5)
        documents = [f"text: Document {part} of {number} has this to say.\n" for part in range(count)]
        self._drop(f"{self._folder()}job-{number}.yaml", "---\n".join(documents), documents=count)

    def job_with_part(self) -> None:
        """A job file and then the text that it names, which must never be taken by itself."""
        number, folder = self._next(), self._folder()
        self._drop(f"{folder}book-{number}.yaml", f"text_file: part-{number}.txt\n")
        self._put_file(f"{folder}part-{number}.txt", self._sentences(2).encode())

    def joined(self) -> None:
        """Two recordings and a silence."""
        number, folder = self._next(), self._folder()
        parts = (
            f"kind: concat\nparts: [a-{number}.wav, {{silence_ms: {10 + number % 900}}}, b-{number}.wav]\n"
        )
        self._drop(f"{folder}joined-{number}.yaml", parts)
        for part in "ab":
            self._put_file(f"{folder}{part}-{number}.wav", self._tone(number))

    def recording(self) -> None:
        """To be heard in another voice."""
        number = self._next()
        self._drop(f"{RECORDINGS}take-{number}.wav", self._tone(number))

    def bad_recording(self) -> None:
        """Not what its name says."""
        number = self._next()
        self._drop(f"{RECORDINGS}noise-{number}.wav", f"RIFFnonsense{number}", ends=frozenset({"failed"}))

    def bad_job(self) -> None:
        """A job file with a mistake in it."""
        number = self._next()
        self._drop(
            f"{self._folder()}bad-{number}.yaml", f"txt: number {number}\n", ends=frozenset({"failed"})
        )

    def nothing_to_speak(self) -> None:
        """Fails in the worker, not in the intake."""
        number = self._next()
        dots = "".join("." if number >> bit & 1 else "-" for bit in range(16))
        self._drop(f"{self._folder()}dots-{number}.txt", dots, ends=frozenset({"failed"}))

    def redrop(self) -> None:
        """Another version of a text that may be anywhere by now."""
        names = [name for name in self._latest if name.endswith(".txt") and "/heard" not in name]
        if names:
            self._replace(self.random.choice(names))

    def edit(self) -> None:
        """Another version of one that still waits, saved the way editors save."""
        name = self._any_waiting()
        if name is not None:
            self._replace(name)

    def rename(self) -> None:
        """Somebody gives a waiting file another name."""
        name = self._any_waiting()
        if name is None:
            return
        target = f"{self._folder()}renamed-{self._next()}.txt"
        (self._inbox / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(self._inbox / name, self._inbox / target)
        except FileNotFoundError:
            return  # taken meanwhile
        digest = self._latest.pop(name)
        self.wanted[digest].name = target
        self._latest[target] = digest

    def delete(self) -> None:
        """Somebody thinks better of it."""
        name = self._any_waiting()
        if name is None:
            return
        try:
            os.unlink(self._inbox / name)
        except FileNotFoundError:
            return
        wanted = self.wanted[self._latest.pop(name)]
        wanted.drops_at_least = wanted.drops_at_most = wanted.drops_at_most - 1

    def slow_file(self) -> None:
        """A file that arrives in pieces, under its own name."""
        path = self._inbox / f"{self._folder()}slow-{self._next()}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        pieces = [self._sentences(1).encode() for _ in range(4)]
        self._slow.append(SlowFile(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), pieces))

    def cancel(self) -> None:
        """One that is waiting or being done."""
        rows = self.place.query(
            "SELECT jobs.id, drops.sha256 FROM jobs JOIN drops ON drops.id = drop_id"
            " WHERE jobs.state IN ('queued', 'running')"
        )
        if not rows:
            return
        job, digest = self.random.choice(rows)
        if digest in self.wanted and self._command("cancel", job):
            self.wanted[digest].ends = ENDED

    def retry(self) -> None:
        """One that was cancelled."""
        rows = self.place.query(
            "SELECT jobs.id, drops.sha256, drops.relative FROM jobs JOIN drops ON drops.id = drop_id"
            " WHERE drops.state = 'failed' AND jobs.state = 'cancelled'"
        )
        for job, digest, relative in rows:
            if self._latest.get(os.fsdecode(relative)) == digest and self._command("retry", job):
                self.wanted[digest].drops_at_most += 1
                self.wanted[digest].drops_at_least += 1
                return

    # -- what must have become of it ---------------------------------------------------------------

    def waiting(self) -> list[str]:
        """What lies in the inbox still, as the load itself dropped it."""
        names = []
        for folder, below, files in os.walk(self._inbox):
            below[:] = [name for name in below if not name.startswith(".")]
            names += [os.path.relpath(os.path.join(folder, name), self._inbox) for name in files]
        return [name for name in sorted(names) if name in self._latest]

    def findings(self, *, results_kept: bool = True) -> list[str]:
        """Everything that is not as it must be once nothing is left to do."""
        drops = self._drops()
        told = [f"content that nobody dropped was taken: {digest}" for digest in drops.keys() - self.wanted]
        for digest, wanted in self.wanted.items():
            told += self._wrong_drops(wanted, drops.get(digest, []))
        finished = "SELECT job_id, COUNT(*) AS n FROM attempts WHERE outcome = 'done' GROUP BY job_id"
        told += [f"{job} was finished {n} times" for job, n in self.place.query(finished) if n > 1]
        return told + (self._wrong_results(drops) if results_kept else [])

    def _drops(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for digest, state in self.place.query("SELECT sha256, state FROM drops ORDER BY claimed_at, id"):
            found.setdefault(digest, []).append(state)
        return found

    def _wrong_drops(self, wanted: Wanted, states: list[str]) -> list[str]:
        if not wanted.drops_at_least <= len(states) <= wanted.drops_at_most:
            return [
                f"{wanted.name} was taken {len(states)} times,"
                f" not {wanted.drops_at_least} to {wanted.drops_at_most}: {states}"
            ]
        if states and states[-1] not in wanted.ends:
            return [f"{wanted.name} is {states[-1]}, not {' or '.join(sorted(wanted.ends))}"]
        if states.count("done") > 1:
            return [f"{wanted.name} was done {states.count('done')} times"]
        return []

    def _wrong_results(self, drops: dict[str, list[str]]) -> list[str]:
        """The last content of each name has its whole set of results, if it came out well."""
        made = Counter(manifest["source"]["sha256"] for manifest in manifests(self.place.root / "outbox"))
        told = []
        for name, digest in self._latest.items():
            if drops.get(digest, [""])[-1] == "done" and made[digest] != self.wanted[digest].documents:
                told.append(f"{name} has {made[digest]} results, not {self.wanted[digest].documents}")
        return told

    # -- small steps -------------------------------------------------------------------------------

    @property
    def _inbox(self) -> Path:
        return self.place.root / "inbox"

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _folder(self) -> str:
        return self.random.choice(FOLDERS)

    def _sentences(self, paragraphs: int) -> str:
        """Nobody else says this, so no take of it is in the cache yet."""
        return "\n\n".join(f"Message {self._next()}. {words_of(4)[:60]}." for _ in range(paragraphs))

    def _any_waiting(self) -> str | None:
        names = [name for name in self.waiting() if name.endswith(".txt")]
        return self.random.choice(names) if names else None

    def _replace(self, name: str) -> None:
        """What the name held before may have been taken, or not."""
        old = self.wanted[self._latest[name]]
        if os.path.lexists(self._inbox / name):
            old.drops_at_least = max(0, old.drops_at_least - 1)
        self._drop(name, self._sentences(2))

    def _drop(
        self,
        name: str,
        content: str | bytes,
        *,
        documents: int = 1,
        ends: frozenset[str] = frozenset({"done"}),
    ) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        self._remember(name, data, documents, ends)
        self._put_file(name, data)

    def _remember(self, name: str, data: bytes, documents: int, ends: frozenset[str]) -> None:
        digest = hashlib.sha256(data).hexdigest()
        assert digest not in self.wanted, "contents must differ, or nobody can tell them apart"
        self.wanted[digest] = Wanted(name, documents, ends)
        self._latest[name] = digest

    def _put_file(self, name: str, data: bytes) -> None:
        path = self._inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.arriving")
        hidden.write_bytes(data)
        os.replace(hidden, path)

    def _go_on_writing(self) -> None:
        for slow in list(self._slow):
            piece = slow.pieces.pop(0)
            os.write(slow.descriptor, piece)
            slow.written += piece
            if not slow.pieces:
                os.close(slow.descriptor)
                self._slow.remove(slow)
                self._remember(str(slow.path.relative_to(self._inbox)), slow.written, 1, frozenset({"done"}))

    def _command(self, *words: str) -> bool:
        """One command of the command line, in this process."""
        config = str(self.place.root / "config.yaml")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                return cli.main(["--config", config, *words]) == 0
            except VoxspoolError:
                return False

    def _voice(self) -> tuple[Samples, int]:
        if self._clip is None:
            utterance = Utterance(
                text=CLIP_TEXT, voice=Voice(name=""), language="en", synthesis=Synthesis(), seed=1
            )
            audio = engines.load("espeak").speak(utterance).audio
            self._clip = (audio.samples, audio.rate_hz)
        return self._clip

    def _tone(self, number: int) -> bytes:
        """A second of speech, no two alike."""
        samples, rate_hz = self._voice()
        at = 0.2 + 0.6 * (number % 997) / 997
        stream = io.BytesIO()
        soundfile.write(stream, np.roll(samples[:rate_hz] * at, self._next()), rate_hz, format="WAV")
        return stream.getvalue()


def manifests(outbox: Path) -> list[dict[str, Any]]:
    """Every manifest that readers can see."""
    found = []
    for path in outbox.rglob("*.json"):
        place = path.relative_to(outbox)
        if place.parts[0] not in (".voxspool", "failed") and place.name != "status.json":
            with contextlib.suppress(FileNotFoundError):
                found.append(json.loads(path.read_bytes()))
    return found
