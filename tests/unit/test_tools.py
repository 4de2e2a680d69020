"""What a worker has at hand: loaded when first needed, kept, and refused in one voice where it is missing."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from scripted import ScriptedEngine

from pipeline import engines
from pipeline.equipment import BARE
from pipeline.errors import InputError
from pipeline.jobs.settings import Check
from pipeline.tools import CHECKER_OF_ENGINE, Tools
from tests.conftest import REPOSITORY


@pytest.fixture
def told() -> list[str]:
    """What was about to be loaded."""
    return []


@pytest.fixture
def tools(told: list[str]) -> Tools:
    """Nothing loaded yet."""
    return Tools(BARE, told.append)


MODEL_PACKAGES = "torch torchaudio transformers chatterbox perth whisper faster_whisper huggingface_hub httpx"
WITHOUT_THEM = f"""
import sys
for package in {MODEL_PACKAGES.split()!r}:
    sys.modules[package] = None  # as if it were not installed
import pipeline.cli, pipeline.supervisor, pipeline.worker
from pipeline.equipment import BARE
from pipeline.jobs.settings import Check
from pipeline.tools import Tools
tools = Tools(BARE, lambda _: None)
if __name__ == "__main__":
    who = tools.listeners(Check(), "espeak").recogniser
    print(tools.engine("espeak").name, who.name, tools.converter("espeak").name)
    tools.close()
"""


def test_chatterbox_issue_104_without_the_packages_of_the_models_all_else_works() -> None:
    """Their pins cannot be met everywhere (issues 36, 166, 240, 243): they are loaded with a model and no
    sooner."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THEM], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["espeak", "pocketsphinx", "praat"], done.stderr
    named = (REPOSITORY / "requirements-core.txt").read_text().lower()
    assert not any(package in named for package in ("torch", "transformers", "openai-whisper", "gradio"))


def test_a_member_is_loaded_once_and_freed_at_the_end(
    tools: Tools, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker hears of it before."""
    engine: Any = ScriptedEngine()
    monkeypatch.setitem(engines.LOADERS, "espeak", lambda _: engine)
    assert tools.engine("espeak") is tools.engine("espeak") is engine
    assert told == ["loading espeak"]
    tools.close()
    assert engine.closed


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda tools: tools.engine("chatterbox"),
            "The model chatterbox is not whole in /nonexistent/models/",
        ),
        (
            lambda tools: tools.listeners(Check(by="whisper"), "espeak"),
            "The Whisper model base is not there",
        ),
        (
            lambda tools: tools.converter("chatterbox"),
            "The model chatterbox is not whole in /nonexistent/models/",
        ),
    ],
    ids=["engine", "recogniser", "converter"],
)
def test_a_model_that_nobody_brought_is_refused_with_what_to_do(
    tools: Tools, ask: Callable[[Tools], object], said: str
) -> None:
    """By the family itself; there is no second sentence with a second code."""
    with pytest.raises(InputError) as caught:
        ask(tools)
    assert caught.value.code == "model_missing"
    assert caught.value.message.startswith(said)
    assert "fetch-models" in caught.value.hint


def test_nothing_is_loaded_for_a_job_that_is_not_checked(tools: Tools, told: list[str]) -> None:
    """`check: {by: none}`."""
    assert tools.listeners(Check(by="none"), "espeak") is None
    assert told == []


def test_who_checks_follows_from_the_engine_alone(tools: Tools) -> None:
    """The same job is checked by the same recogniser on every machine, or not at all."""
    assert CHECKER_OF_ENGINE == {
        "espeak": "pocketsphinx",
        "chatterbox": "whisper",
        "chatterbox-multilingual": "whisper",
        "chatterbox-turbo": "whisper",
    }
    with pytest.raises(InputError, match="The Whisper model base"):
        tools.listeners(Check(by="auto"), "chatterbox")


def test_only_models_are_worth_letting_go_of(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded engine is loaded in no time."""
    engine: Any = ScriptedEngine()
    monkeypatch.setitem(engines.LOADERS, "espeak", lambda _: engine)
    monkeypatch.setitem(engines.LOADERS, "chatterbox", lambda _: engine)
    assert not tools.hold_models
    tools.engine("espeak")
    assert not tools.hold_models
    tools.engine("chatterbox")
    assert tools.hold_models
    tools.close()
    assert not tools.hold_models
