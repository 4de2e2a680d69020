"""The configuration: four path lines are enough, every mistake is told, roots stay apart."""

import os
from pathlib import Path

import pytest

from pipeline.config import Config, ConfigFile, load_config
from pipeline.errors import ConfigError
from pipeline.jobs.settings import Settings

DEFAULTS: dict[str, dict[str, object]] = {
    "intake": {
        "source": "move",
        "settle_seconds": 2.0,
        "settle_network_seconds": 10.0,
        "events": True,
        "ignore": (),
        "wait_for_parts_seconds": 900.0,
    },
    "workers": {
        "count": 1,
        "max_attempts": 3,
        "stall_seconds": 600.0,
        "stop_seconds": 60.0,
        "min_free_mb": 64.0,
    },
    "models": {
        "folder": "models",
        "devices": ("cpu",),
        "engine_mode": "fast",
        "int8": False,
        "load_seconds": 300.0,
        "idle_unload_seconds": 900.0,
        "whisper": {"size": "base", "backend": "openai-whisper", "device": None},
    },
    "fetch": {"voice_max_mb": 50, "audio_max_mb": 500, "max_seconds": 600.0},
    "retention": {
        "every_hours": 5.0,
        "outbox_max_gb": 5.0,
        "warn_percent": 80,
        "work_max_files": 200,
        "work_max_days": 7.0,
        "vc_inputs_max_gb": 2.0,
        "cache_max_gb": 20.0,
        "done_max_days": None,
        "history_max_days": 365.0,
        "history_max_jobs": 100_000,
        "keep_newest": 20,
        "keep_hours": 24.0,
        "deletes_propagate": None,
    },
    "notify": {"command": (), "when": ("failed",), "timeout_seconds": 10.0},
    "log": {"level": "INFO", "rotate_mb": 10, "keep_files": 5},
    "metrics": {"file": None},
}


def load(folder: Path, text: str | bytes = "") -> Config:
    """Write and load a configuration."""
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def refused(folder: Path, text: str | bytes) -> str:
    """What is said of a configuration that is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert caught.value.code == "config"
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "inbox: inbox\n"])
def test_a_missing_key_takes_its_default(tmp_path: Path, text: str) -> None:
    """An empty file is a whole configuration, and every default is the one promised."""
    config = load(tmp_path, text)
    found = config.model_dump(include=set(DEFAULTS))
    assert found == DEFAULTS
    assert config.defaults == Settings()
    assert config.inbox_path == tmp_path.resolve() / "inbox"


def test_every_key_has_a_default_in_the_table_above() -> None:
    """A new section or key needs a line there."""
    sections = set(ConfigFile.model_fields) - {"inbox", "outbox", "voices", "state", "defaults"}
    assert sections == set(DEFAULTS)


def test_four_path_lines_are_a_whole_configuration(tmp_path: Path) -> None:
    """Relative paths count from the file, absolute ones stay, ~ is the home folder."""
    home = Path.home()
    text = f"inbox: in\noutbox: ../out\nvoices: {tmp_path}/v\nstate: ~/voxspool-state\n"
    (tmp_path / "etc").mkdir()
    config = load(tmp_path / "etc", text)
    base = tmp_path.resolve()
    assert config.inbox_path == base / "etc" / "in"
    assert config.outbox_path == base / "out"
    assert config.voices_path == base / "v"
    assert config.state_path == home.resolve() / "voxspool-state"
    assert config.file == base / "etc" / "config.yaml"


def test_relative_paths_do_not_depend_on_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative --config is resolved once."""
    (tmp_path / "config.yaml").write_text("inbox: in\n")
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("config.yaml"))
    monkeypatch.chdir("/")
    assert config.inbox_path == tmp_path.resolve() / "in"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inbx: a\n", "config.yaml, line 1: inbx: unknown key; did you mean inbox?"),
        (
            "log: {}\nretention:\n  outbox_max_mb: 3\n",
            "config.yaml, line 3: retention.outbox_max_mb: unknown key; did you mean outbox_max_gb?",
        ),
        ("workers: {count: 0}\n", "config.yaml, line 1: workers.count: expected at least 1, found 0."),
        (
            "workers: {count: many}\n",
            "config.yaml, line 1: workers.count: expected a whole number, found 'many'.",
        ),
        ("intake: {events: 1}\n", "config.yaml, line 1: intake.events: expected true or false, found 1."),
        (
            "intake: {source: copy}\n",
            "config.yaml, line 1: intake.source: expected one of 'move', 'leave' or 'delete', found 'copy'.",
        ),
        (
            "retention:\n",
            "config.yaml, line 1: retention: expected keys with values, found nothing.",
        ),
        (
            "retention: {deletes_propagate: true}\n",
            "config.yaml, line 1: retention.deletes_propagate: expected one of 'accepted', found true.",
        ),
        ("inbox: ''\n", "config.yaml, line 1: inbox: expected at least 1 character, found ''."),
        ("file: x\n", "config.yaml, line 1: file: unknown key; known are inbox, outbox, "),
        (
            "defaults: {language: no}\n",
            "config.yaml, line 1: defaults.language: expected text (put it in quotes if YAML reads it as"
            " something else), found false.",
        ),
        ("inbox: a\n---\ninbox: b\n", "config.yaml holds 2 YAML documents; a configuration is one."),
        ("- a\n", "config.yaml, line 1: expected keys with values, found a list."),
        ("inbox: [\n", "config.yaml, line 2: not valid YAML: "),
        (b"inbox: \xff\n", "config.yaml, line 1: byte 0xff is not UTF-8."),
    ],
)
def test_each_mistake_is_told_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    """File, line, key, and what was expected."""
    assert refused(tmp_path, text).startswith(said)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Nobody has to start the daemon five times to find five mistakes."""
    text = "workers:\n  count: 0\nlog:\n  level: loud\nnotify:\n  comand: [x]\n"
    assert refused(tmp_path, text).splitlines() == [
        "config.yaml has 3 problems:",
        "- config.yaml, line 2: workers.count: expected at least 1, found 0.",
        "- config.yaml, line 4: log.level: expected one of 'DEBUG', 'INFO', 'WARNING' or 'ERROR',"
        " found 'loud'.",
        "- config.yaml, line 6: notify.comand: unknown key; did you mean command?",
    ]


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("inbox: a\noutbox: a\n", "inbox"),
        ("inbox: a\noutbox: a/out\n", "outbox"),
        ("inbox: a/in\noutbox: a\n", "outbox"),
        ("state: outbox/state\n", "state"),
        ("voices: .\n", "voices"),
        ("inbox: b/../a\noutbox: ./a\n", "inbox"),
    ],
)
def test_roots_must_lie_apart(tmp_path: Path, text: str, pair: str) -> None:
    """Else results would be taken for drops, or the ledger pruned."""
    said = refused(tmp_path, text)
    assert "must be separate folders" in said
    assert pair in said


def test_roots_that_are_one_folder_through_a_link_are_refused(tmp_path: Path) -> None:
    """Two names of one place do not make two places."""
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    assert "must be separate folders" in refused(tmp_path, "inbox: real\noutbox: alias/x\n")


@pytest.mark.parametrize(
    "rest", ["engine_mode: exact", "engine_mode: upstream", "devices: ['cuda:0']", "devices: [cpu, 'cuda:0']"]
)
def test_eight_bits_where_they_cannot_be_are_refused(tmp_path: Path, rest: str) -> None:
    """They are for the processor and the mode fast, and are never left out in silence."""
    said = refused(tmp_path, f"models: {{int8: true, {rest}}}\n")
    assert "models.int8 works on the processor in the mode fast" in said
    assert load(tmp_path, "models: {int8: true}\n").models.int8


def test_names_that_only_begin_alike_are_apart(tmp_path: Path) -> None:
    """`in` does not hold `inbox`."""
    assert load(tmp_path, "inbox: in\noutbox: inbox\n").outbox_path.name == "inbox"


def test_a_path_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    """A ring of links or an unknown user is the configuration's fault, not a crash."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    text = "inbox: ~nobody-of-this-name/x\n"
    assert "inbox: ~nobody-of-this-name/x leads nowhere" in refused(tmp_path, text)
    try:
        load(tmp_path, "inbox: a/x\n")
    except ConfigError as error:
        assert "inbox: a/x leads nowhere" in str(error)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """With its path and how to name another."""
    with pytest.raises(ConfigError, match=r"nonesuch\.yaml cannot be read: No such file") as caught:
        load_config(tmp_path / "nonesuch.yaml")
    assert caught.value.hint == "Name another with --config FILE."
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_loaded_configuration_does_not_change(tmp_path: Path) -> None:
    """Reloading makes a new one."""
    config = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        config.workers = None  # type: ignore[assignment,misc]


def test_what_was_set_is_told_from_what_was_not(tmp_path: Path) -> None:
    """The cascade of defaults needs to know which settings somebody wrote."""
    config = load(tmp_path, "defaults: {synthesis: {pitch: 50}}\n")
    assert config.defaults.model_fields_set == {"synthesis"}
    assert config.defaults.synthesis.model_fields_set == {"pitch"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    """The reason is the system's own."""
    path = tmp_path / "config.yaml"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_config(path)


def test_each_worker_has_its_device(tmp_path: Path) -> None:
    """One process for each GPU; on the processor as many as are wanted."""
    text = "workers: {count: 2}\nmodels: {devices: ['cuda:0', cpu, 'cuda:1']}\n"
    assert load(tmp_path, text).worker_devices == ("cuda:0", "cpu", "cpu", "cuda:1")
    assert load(tmp_path, "").worker_devices == ("cpu",)


@pytest.mark.parametrize("devices", ["[]", "[gpu]", "[cuda]", "['cuda:']", "cpu"])
def test_a_device_that_torch_does_not_know_is_refused(tmp_path: Path, devices: str) -> None:
    """There is no guessing which one is meant."""
    with pytest.raises(ConfigError, match=r"devices"):
        load(tmp_path, f"models: {{devices: {devices}}}\n")
