"""What a job names by web address is fetched into its work folder."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Cancelled
from pipeline.jobs.job import JobSpec, VoiceChoice
from pipeline.jobs.settings import Settings
from pipeline.made import Made
from pipeline.references import bring
from pipeline.web_address import Fetched

VOICE, AUDIO = "https://a.example/v/narrator.wav?key=secret", "https://b.example:8443/caf%C3%A9.mp3"


class Courier:
    """A fetcher that brings what the address says."""

    voice_max_bytes, audio_max_bytes = 5, 7

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def fetch(self, url: str, target: Path, *, max_bytes: int, report: Any) -> Fetched:
        """At once."""
        report()
        self.asked.append((url, max_bytes))
        target.write_text(url)
        digest = hashlib.sha256(url.encode()).hexdigest()
        return Fetched(url=url, final_url=url, sha256=digest, bytes=len(url))


class Bag:
    """The tools of a worker, of which only the fetcher is there."""

    def __init__(self) -> None:
        self.fetcher = Courier()


def spec(clip: str | None = None, file: str | None = None) -> JobSpec:
    """A conversion."""
    voice = VoiceChoice(name="v", clip=clip, clip_sha256=None if clip and "://" in clip else "ab")
    return JobSpec(kind="vc", settings=Settings(), voice=voice, file=file)


def brought(before: JobSpec, work: Path, stages: list[tuple[str, int, int]]) -> tuple[JobSpec, Made, Bag]:
    """With what was told and fetched."""
    made, tools = Made(), Bag()
    after = bring(before, work, tools, lambda *stage: stages.append(stage), made)  # type: ignore[arg-type]
    return after, made, tools


def test_addresses_become_files_under_their_own_names(tmp_path: Path) -> None:
    """Each within its own limit; the voice's hash is what came, and both stand in the manifest."""
    stages: list[tuple[str, int, int]] = []
    after, made, tools = brought(spec(VOICE, AUDIO), tmp_path, stages)
    assert tools.fetcher.asked == [(VOICE, 5), (AUDIO, 7)]
    assert (after.voice.clip, after.file) == (
        str(tmp_path / "voice/narrator.wav"),
        str(tmp_path / "audio/caf\u00e9.mp3"),
    )
    assert after.voice.clip_sha256 == hashlib.sha256(VOICE.encode()).hexdigest()
    assert [item.url for item in made.fetched] == [VOICE, AUDIO]
    assert stages == [("fetching from a.example", 0, 0), ("fetching from b.example", 0, 0)]


@pytest.mark.parametrize(
    ("clip", "file"), [("/voices/me.wav", "a.wav"), ("clips/me.wav", "b/c.wav"), (None, None)]
)
def test_files_stay_files(tmp_path: Path, clip: str | None, file: str | None) -> None:
    """Nothing is fetched for them."""
    before = spec(clip, file)
    after, made, tools = brought(before, tmp_path, [])
    assert (after, made.fetched, tools.fetcher.asked) == (before, [], [])


NAMES = {
    "https://a.example": "a.example",
    "https://a.example/": "a.example",
    "https://a.example/x/?id=7": "x",
    "https://a.example/%2e%2e%2f%2e%2e%2fetc%2fpasswd": "_._.._etc_passwd",
    "https://a.example/..": "_",
    "https://a.example/%00%0a": "__",
    "https://a.example/.ssh": "_ssh",
}


@pytest.mark.parametrize(("url", "name"), NAMES.items())
def test_the_name_of_a_file_leads_nowhere_else(tmp_path: Path, url: str, name: str) -> None:
    """Whatever the address ends in."""
    after, _, _ = brought(spec(file=url), tmp_path, [])
    assert Path(str(after.file)) == tmp_path / "audio" / name


def test_a_job_that_is_not_wanted_any_more_fetches_nothing(tmp_path: Path) -> None:
    """The report is asked from the first moment on."""

    def report(*_: object) -> None:
        raise Cancelled("cancelled")

    tools = Bag()
    with pytest.raises(Cancelled):
        bring(spec(VOICE), tmp_path, tools, report, Made())  # type: ignore[arg-type]
    assert tools.fetcher.asked == []


def test_nothing_else_of_a_specification_changes(tmp_path: Path) -> None:
    """The frozen settings above all: they hold the address as it was written."""
    before = dataclasses.replace(spec(VOICE), settings=Settings.model_validate({"voice": VOICE}))
    after, _, _ = brought(before, tmp_path, [])
    assert dataclasses.replace(after, voice=before.voice) == before
