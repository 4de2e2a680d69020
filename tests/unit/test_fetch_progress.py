"""How fetching is shown: bars on a terminal, lines in a log; and what the embedded defaults need."""

import io
from pathlib import Path

import pytest
from ledger_samples import Clock
from rich.console import Console

from pipeline import cli
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.fetch_models.progress import LINE_SECONDS, Bars, Lines, shown_on


def test_a_log_gets_a_line_now_and_then() -> None:
    """Not one for each block: every ten seconds, with what is known."""
    clock, written = Clock(0.0), io.StringIO()
    with Lines(Console(file=written), clock) as shown:
        shown.tell("chatterbox: 1 file")
        for second in range(25):
            clock.now = float(second)
            shown.moved("t3.safetensors", second * 40_000_000, 1_000_000_000)
        clock.now += LINE_SECONDS
        shown.moved("odd.bin", 5_000_000, None)
    assert written.getvalue().splitlines() == [
        "chatterbox: 1 file",
        "  t3.safetensors: 400 MB of 1 GB, 40%",
        "  t3.safetensors: 800 MB of 1 GB, 80%",
        "  odd.bin: 5 MB",
    ]


def test_a_terminal_gets_a_bar_for_the_file_in_hand() -> None:
    """Sentences stay above it; nothing of it is left at the end."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with shown_on(console) as shown:
        assert isinstance(shown, Bars)
        shown.moved("a.bin", 5_000_000, 10_000_000)
        shown.moved("b.bin", 1_000_000, None)
        (task,) = shown._progress.tasks
        assert (task.description, task.completed, task.total) == ("b.bin", 1_000_000, None)
        shown.tell("[model] is whole")
        assert shown._progress.tasks == []
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[model] is whole" in output
    assert isinstance(shown_on(Console(file=io.StringIO())), Lines)


def test_embedded_defaults_have_nothing_to_fetch(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence and no error; a wrong name is one."""
    path = tmp_path / "config.yaml"
    path.write_text("")
    assert cli.main(["--config", str(path), "fetch-models"]) == 0
    assert (
        "The engine espeak, which the configuration makes the default, is embedded" in capsys.readouterr().out
    )
    with pytest.raises(InputError, match="no model chaterbox") as caught:
        cli.main(["--config", str(path), "fetch-models", "chaterbox"])
    assert caught.value.hint.startswith("Did you mean chatterbox? ") and caught.value.code == "model_unknown"
