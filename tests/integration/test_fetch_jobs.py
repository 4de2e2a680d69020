"""Jobs that name web addresses, from the inbox to the manifest or the note."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import trustme
from daemon_running import Daemon
from intake_samples import put, settled
from scripted import ScriptedEngine
from sound_samples import spoken, write_wav
from web_server import HOST, Internet, answer, redirect, small_internet

from pipeline.config import Config
from pipeline.equipment import BARE
from pipeline.files import sha256_of
from pipeline.intake.intake import Intake
from pipeline.jobs.job import Job, JobState
from pipeline.layout import Layout
from pipeline.ledger import Ledger
from pipeline.tools import Tools
from pipeline.worker import Worker

SENTENCE = "This is long enough to tell a voice by, and it is even a little longer than that."
URL = f"https://{HOST}/clips"
UNCHECKED = "check: {by: none}\noutput: {formats: [wav]}\n"
CONVERSION = f"kind: vc\naudio: {URL}/speech.wav?key=secret\nvoice: {URL}/narrator?key=secret\n" + UNCHECKED


class Shop:
    """An inbox, a worker, and a small Internet."""

    def __init__(self, config: Config, layout: Layout, ledger: Ledger, net: Internet) -> None:
        self.config, self.layout, self.ledger, self.net = config, layout, ledger, net
        self.stop = threading.Event()
        self.worker = Worker(config, "1", stop=self.stop)
        self.worker._tools = Tools(BARE, self.worker._progress.loading, net.fetcher())
        self.intake = Intake(layout, ledger, config, clock=lambda: 1_790_000_000.0)

    def drop(self, text: str, name: str = "job.yaml") -> Job:
        """A job file goes in; its only job."""
        put(self.layout, name, text)
        (drop,) = self.intake.accept(settled(self.layout, name)).drops
        (job,) = self.ledger.jobs_of(drop.id)
        return job

    def work(self) -> Job:
        """The worker does the next job."""
        job = self.ledger.claim("1")
        assert job is not None
        self.worker.do(job)
        after = self.ledger.job(job.id)
        assert after is not None
        return after

    def manifest(self, stem: str = "job") -> dict[str, Any]:
        """What stands beside the result."""
        found: dict[str, Any] = json.loads((self.layout.outbox / f"{stem}.json").read_bytes())
        return found

    def note(self) -> str:
        """What stands beside the failed job file."""
        return (self.layout.failed / "job.yaml.error.txt").read_text()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two voices."""
    folder = tmp_path_factory.mktemp("recordings")
    made = {}
    for name, voice in (("speech", "en"), ("narrator", "en+f3")):
        write_wav(folder / name, spoken(SENTENCE, voice))
        made[name] = (folder / name).read_bytes()
    return made


@pytest.fixture
def shop(
    config: Config,
    layout: Layout,
    ledger: Ledger,
    recordings: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    """With both recordings on a server."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    with small_internet(trustme.CA(), HOST) as net:
        net.server.answers = {
            "/clips/speech.wav?key=secret": answer(recordings["speech"]),
            "/clips/narrator?key=secret": redirect("/v/2?token=secret"),
            "/v/2?token=secret": answer(recordings["narrator"], kind="audio/x-wav"),
        }
        made = Shop(config, layout, ledger, net)
        yield made
        made.stop.set()
        made.worker.run()


def test_a_conversion_of_what_was_fetched_to_a_voice_that_was_fetched(
    shop: Shop, recordings: dict[str, bytes], tmp_path: Path
) -> None:
    """The manifest says where both came from in the end, with their hashes and without their keys."""
    shop.drop(CONVERSION)
    assert shop.work().state is JobState.DONE
    manifest = shop.manifest()
    sizes = {name: len(data) for name, data in recordings.items()}
    assert [(item["url"], item["final_url"], item["bytes"]) for item in manifest["fetched"]] == [
        (f"{URL}/narrator", f"https://{HOST}/v/2", sizes["narrator"]),
        (f"{URL}/speech.wav", f"{URL}/speech.wav", sizes["speech"]),
    ]
    (tmp_path / "narrator").write_bytes(recordings["narrator"])
    assert manifest["fetched"][0]["sha256"] == sha256_of(tmp_path / "narrator")
    assert manifest["settings"]["voice"] == f"{URL}/narrator?key=secret"
    log = (shop.layout.outbox / "job.log").read_text()
    assert f"Fetched https://{HOST}/v/2 ({sizes['narrator']} bytes, SHA-256 " in log and "secret" not in log
    assert soundfile.info(shop.layout.outbox / "job.wav").duration > 3
    assert "secret" not in str(soundfile.SoundFile(shop.layout.outbox / "job.wav").copy_metadata())
    assert list(shop.layout.work_root.iterdir()) == []


def test_a_voice_that_was_fetched_is_what_the_engine_imitates(
    shop: Shop, recordings: dict[str, bytes]
) -> None:
    """Fetched once for all chunks; takes are kept under the clip's hash, not under its address."""
    engine = ScriptedEngine()
    shop.worker._tools._engines["espeak"] = engine
    text = "text: |\n  One sentence is here.\n\n  And another one.\nchunks: {max_chars: 40}\n"
    shop.drop(text + f"voice: {URL}/narrator?key=secret\n" + UNCHECKED)
    assert shop.work().state is JobState.DONE
    assert len(engine.spoken) == 2 and len(shop.net.server.asked) == 2, "one of them a redirect"
    digest = shop.manifest()["fetched"][0]["sha256"]
    assert {said.voice.fingerprint for said in engine.spoken} == {f"clip:{digest}"}
    shop.net.server.answers["/v/3"] = answer(recordings["narrator"])
    shop.drop(
        text + f"voice: {URL.replace('/clips', '/v/3')}\nseed: {engine.spoken[0].seed}\n" + UNCHECKED,
        "two.yaml",
    )
    assert shop.work().state is JobState.DONE
    assert {said.voice.fingerprint for said in engine.spoken} == {f"clip:{digest}"}


def test_an_engine_that_imitates_nothing_refuses_before_anything_is_fetched(shop: Shop) -> None:
    """As it does for a clip beside the job file."""
    shop.drop(f"text: Hello.\nvoice: {URL}/narrator\n" + UNCHECKED)
    ended = shop.work()
    assert (ended.state, ended.error_code) == (JobState.FAILED, "engine_cannot")
    assert "The engine espeak cannot imitate a recording" in shop.note()
    assert shop.net.looked_up == []


def test_a_voice_by_address_must_come_with_a_job_file(shop: Shop) -> None:
    """A recording in a folder whose defaults name an address waits with the reason."""
    put(shop.layout, "_defaults.yaml", f"voice: {URL}/narrator")
    put(shop.layout, "speech.wav", b"RIFF")
    (reason,) = shop.intake.accept(settled(shop.layout, "speech.wav")).waiting.values()
    assert "is a web address; only a job file can bring its voice." in reason


def test_what_is_refused_lies_in_failed_with_the_reason(shop: Shop) -> None:
    """At the first try, and with what to do."""
    shop.net.names[HOST] = [["10.0.0.7"]]
    shop.drop(CONVERSION)
    ended = shop.work()
    assert (ended.state, ended.error_code) == (JobState.FAILED, "fetch_refused")
    assert shop.note() == (
        f"job.yaml: {URL}/narrator is not fetched: {HOST} has an address that is not public.\n"
        "Put the file beside the job file and name it there.\n\n"
        "To try again, move job.yaml from here back into the inbox.\n"
    )
    assert shop.net.dialled == [] and list(shop.layout.work_root.iterdir()) == []


def test_what_does_not_come_lies_in_failed_after_two_retries(shop: Shop) -> None:
    """It costs no other attempt of the job."""
    shop.net.server.answers["/clips/speech.wav?key=secret"] = answer(status="503 Service Unavailable")
    shop.drop(CONVERSION)
    ended = shop.work()
    assert (ended.state, ended.error_code, ended.attempts) == (JobState.FAILED, "fetch_failed", 1)
    assert (
        f"{URL}/speech.wav could not be fetched in 3 tries: it answers 503 Service Unavailable."
        in shop.note()
    )
    assert "secret" not in shop.note()
    assert sum(shop.net.slept) == pytest.approx(10.0)


def test_the_limits_of_the_configuration_hold(shop: Shop) -> None:
    """A voice has its own."""
    worker = Worker(
        shop.config.model_copy(
            update={
                "fetch": shop.config.fetch.model_copy(
                    update={"voice_max_mb": 2, "audio_max_mb": 3, "max_seconds": 4}
                )
            }
        ),
        "2",
        stop=shop.stop,
    )
    limits = worker._tools.fetcher
    assert (limits.voice_max_bytes, limits.audio_max_bytes, limits.max_seconds) == (2_000_000, 3_000_000, 4)
    worker._ledger.close()
    shop.worker._tools.fetcher = shop.net.fetcher(voice_max_bytes=1000)
    shop.drop(CONVERSION)
    assert shop.work().error_code == "fetch_refused"
    assert "narrator" not in shop.note() and f"https://{HOST}/v/2 is larger than the 0.001 MB" in shop.note()


class Slow:
    """An answer that takes long, during which something happens."""

    def __init__(self, shop: Shop, what: Any) -> None:
        self.shop, self.what = shop, what
        self.stages: list[str] = []

    def __call__(self) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n"
        for count in range(200):
            if count == 10:
                database = Ledger(self.shop.layout.ledger_file, clock=lambda: 0.0)
                self.stages += [progress.stage for progress in database.progress()]
                self.what(database)
                database.close()
            threading.Event().wait(0.05)
            yield b"x" * 100


def test_a_cancelled_job_stops_in_the_middle_of_a_download(shop: Shop) -> None:
    """The status shows what it was at; nothing is left in the work folder."""
    job = shop.drop(CONVERSION)
    slow = Slow(shop, lambda ledger: ledger.request_cancel(job.id))
    shop.net.server.answers["/v/2?token=secret"] = slow
    assert shop.work().state is JobState.CANCELLED
    assert slow.stages == [f"fetching from {HOST}"]
    assert list(shop.layout.work_root.iterdir()) == []


def test_a_worker_that_is_told_to_stop_gives_the_job_back(shop: Shop) -> None:
    """In the middle of a download; the next one begins anew."""
    shop.drop(CONVERSION)
    narrator = shop.net.server.answers["/v/2?token=secret"]
    shop.net.server.answers["/v/2?token=secret"] = Slow(shop, lambda _: shop.stop.set())
    assert shop.work().state is JobState.QUEUED
    shop.net.server.answers["/v/2?token=secret"] = narrator
    shop.stop.clear()
    assert shop.work().state is JobState.DONE


def test_a_full_disk_fails_no_job(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, as for any full disk."""
    monkeypatch.setattr("pipeline.worker.ENVIRONMENT_WAIT_SECONDS", 0.0)

    def full(*_: object) -> tuple[str, int]:
        raise OSError(28, "No space left on device", "narrator")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.fetch._save", full)
        shop.drop(CONVERSION)
        ended = shop.work()
    assert (ended.state, ended.error_code) == (JobState.QUEUED, None)
    assert shop.work().state is JobState.DONE


def test_the_real_daemon_does_not_connect_to_this_machine(tmp_path: Path) -> None:
    """Nothing injected: a service on loopback hears nothing, and the job file fails with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.settimeout(0.1)
        port = service.getsockname()[1]
        daemon = Daemon(tmp_path)
        daemon.drop(
            "a.yaml", f"kind: vc\naudio: https://localhost:{port}/x.wav\nvoice: https://127.0.0.1:{port}/v\n"
        )
        assert daemon.command("--once").returncode == 1
        with pytest.raises(TimeoutError):
            service.accept()
    note = (daemon.outbox / "failed" / "a.yaml.error.txt").read_text()
    assert "127.0.0.1 has an address that is not public" in note
