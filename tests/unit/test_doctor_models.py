"""The doctor's look at the models that the defaults need: package, files, devices, memory."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from doctor_samples import about, configure, machine, make_roots

from pipeline.checkpoints import CHATTERBOX
from pipeline.config import Config
from pipeline.doctor import Finding, Machine, models
from pipeline.doctor.finding import ask_slowly, memory_bytes
from pipeline.fetch_models import named, record

ENGINE = "defaults: {engine: chatterbox}\n"
GB = 1_000_000_000


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every package, in some version."""
    make_roots(tmp_path)
    monkeypatch.setattr(models, "installed", lambda _: "1")


def bring(config: Config, *names: str, size: int = 1000) -> None:
    """Files of the right names, and of some size."""
    for name in names:
        model = named(name, config)
        model.folder.mkdir(parents=True, exist_ok=True)
        for file in model.files:
            with open(model.folder / file, "wb") as stream:
                stream.truncate(size)


def look(config: Config, here: Machine | None = None) -> list[Finding]:
    """What is found."""
    return list(models.examine(config, here or machine(memory_bytes=16 * GB)))


def with_torch(**answer: object) -> Machine:
    """A machine of 16 GB whose torch answers so."""
    said = {"version": "2.6.0", "mps": False, "cuda": [], **answer}
    return machine(ask_slowly=lambda _: json.dumps(said), memory_bytes=16 * GB)


def test_embedded_defaults_need_nothing(tmp_path: Path) -> None:
    """Not a word, and torch is not asked."""

    def never(_: Sequence[str]) -> str:
        raise AssertionError

    assert look(configure(tmp_path), machine(ask_slowly=never)) == []


def test_a_package_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the line that installs it."""
    monkeypatch.setattr(models, "installed", lambda _: None)
    found = look(configure(tmp_path, ENGINE))
    assert "requirements.txt" in about(found, "chatterbox needs the package chatterbox-tts").advice
    assert about(found, "whisper-base needs the package openai-whisper").level == "fail"
    faster = configure(tmp_path, f"{ENGINE}models: {{whisper: {{backend: faster-whisper}}}}\n")
    assert "pip install faster-whisper" in about(look(faster), "the package faster-whisper").advice


def test_files_that_are_missing_are_told_with_what_to_type(tmp_path: Path) -> None:
    """All of them, and some of them."""
    config = configure(tmp_path, ENGINE)
    found = about(look(config), "the model chatterbox is not there")
    assert found.level == "fail" and found.advice == "Type python daemon.py fetch-models chatterbox"
    bring(config, "chatterbox")
    (config.models_path / "chatterbox" / CHATTERBOX.files[0]).unlink()
    assert f"{CHATTERBOX.files[0]} missing" in about(look(config), "chatterbox is not whole").what
    assert "fetch-models whisper-base" in about(look(config), "whisper-base is not there").advice


def test_what_is_there_is_told_with_its_size(tmp_path: Path) -> None:
    """Brought by hand or fetched; a file of another size than then is damaged."""
    config = configure(tmp_path, ENGINE)
    bring(config, "chatterbox", "whisper-base", size=1_000_000)
    found = look(config)
    assert {finding.level for finding in found} == {"ok"}
    assert about(found, "the model chatterbox is there, 4 MB, brought by hand")
    entry = record.Entry(name=CHATTERBOX.files[0], bytes=1_000_000, sha256="a" * 64)
    made = record.Record(repository="r", revision="b" * 40, files=(entry,), fetched_at="t")
    record.write(named("chatterbox", config), made)
    assert about(look(config), "the model chatterbox is there, 4 MB, at bbbbbbbbbbbb")
    (config.models_path / "chatterbox" / CHATTERBOX.files[0]).write_bytes(b"half")
    damaged = about(look(config), "the model chatterbox is damaged")
    assert damaged.level == "fail" and "fetch-models chatterbox" in damaged.advice
    (config.models_path / "chatterbox" / "source.json").write_text("{")
    assert about(look(config), "source.json cannot be used").level == "fail"


def test_nano_alone_speaks_for_turbo(tmp_path: Path) -> None:
    """Where both are missing, Turbo is what to fetch."""
    config = configure(tmp_path, "defaults: {engine: chatterbox-turbo, check: {by: none}}\n")
    assert "fetch-models chatterbox-turbo" in about(look(config), "chatterbox-turbo is not there").advice
    bring(config, "chatterbox-nano")
    assert about(look(config), "the model chatterbox-nano is there").level == "ok"


def test_a_size_of_whisper_that_there_is_not_is_told(tmp_path: Path) -> None:
    """With those that there are."""
    config = configure(tmp_path, f"{ENGINE}models: {{whisper: {{size: bse}}}}\n")
    found = about(look(config), "no model whisper-bse")
    assert found.level == "fail" and "whisper-base" in found.advice


@pytest.mark.parametrize(("total", "level"), [(16 * GB, "ok"), (7 * GB, "warn"), (4 * GB, "fail")])
def test_memory_is_reckoned_for_all_workers(tmp_path: Path, total: int, level: str) -> None:
    """Two workers load two models each."""
    config = configure(tmp_path, f"{ENGINE}workers: {{count: 2}}\n")
    bring(config, "chatterbox", "whisper-base", size=400_000_000)
    found = about(look(config, machine(memory_bytes=total)), "memory, 2 workers together")
    assert found.level == level and "about 6 GB of" in found.what


@pytest.mark.parametrize(
    ("devices", "answer", "level", "word"),
    [
        ("cuda:0", {"cuda": [("X", 20 * GB, 24 * GB)]}, "ok", "cuda:0 (X) has 20 GB of 24 GB free"),
        ("cuda:0", {"cuda": [("X", 2 * GB, 24 * GB)]}, "warn", "2 GB of 24 GB free"),
        ("cuda:0", {"cuda": [("X", 2 * GB, 2 * GB)]}, "fail", "take about 3 GB"),
        (
            "cuda:1",
            {"cuda": [("X", 20 * GB, 24 * GB)]},
            "fail",
            "torch 2.6.0 finds no more than cuda:0: jobs fail",
        ),
        ("cuda:0", {}, "fail", "torch 2.6.0 finds no CUDA device"),
        ("mps", {}, "fail", "torch finds no Apple GPU"),
        ("mps", {"mps": True}, "ok", "is there"),
    ],
)
def test_devices_are_those_that_torch_sees(
    tmp_path: Path, devices: str, answer: dict[str, object], level: str, word: str
) -> None:
    """There is no falling back to another."""
    config = configure(tmp_path, f"{ENGINE}models: {{devices: ['{devices}']}}\n")
    bring(config, "chatterbox", "whisper-base", size=400_000_000)
    (found,) = look(config, with_torch(**answer))[2:]
    assert found.level == level and word in found.what
    assert level == "ok" or found.advice


def test_whisper_may_have_a_device_of_its_own(tmp_path: Path) -> None:
    """Then it weighs there."""
    config = configure(tmp_path, f"{ENGINE}models: {{devices: ['cuda:0'], whisper: {{device: cpu}}}}\n")
    bring(config, "chatterbox", "whisper-base", size=500_000_000)
    found = look(config, with_torch(cuda=[("X", 20 * GB, 24 * GB)]))
    assert "take about 2.5 GB" in about(found, "cuda:0 (X)").what
    assert about(found, "the models take about 1 GB of 16 GB memory").level == "ok"


@pytest.mark.parametrize("answer", [None, "", "Traceback", "[]"])
def test_a_torch_that_does_not_answer_is_told(tmp_path: Path, answer: str | None) -> None:
    """Whatever it says instead."""
    config = configure(tmp_path, f"{ENGINE}models: {{devices: ['cuda:0']}}\n")
    found = about(look(config, machine(ask_slowly=lambda _: answer)), "torch does not answer")
    assert found.level == "fail" and "import torch" in found.advice


def test_the_real_machine_answers() -> None:
    """Its memory, and torch where it is installed."""
    assert memory_bytes() > 100_000_000
    assert ask_slowly(["echo", "hello"]) == "hello"
    pytest.importorskip("torch", reason="torch is not installed (requirements.txt)")
    assert models.TORCH[0] == sys.executable
    answer = json.loads(ask_slowly(models.TORCH) or "")
    assert answer.keys() == {"version", "mps", "cuda"}
