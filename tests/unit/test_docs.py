"""The pages say what the program does: keys, defaults, ranges, fields, commands, links, examples.

Each table of keys or fields in docs/ is read and compared with the models and with what the code really
writes; so a changed default, a new field or a renamed command fails here until its page says so.
"""

import dataclasses
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import a_drop, a_job
from pydantic import BaseModel

from pipeline import cli, engines, transcribers
from pipeline.config import ROOTS, Config, ConfigFile, load_config
from pipeline.errors import SpecError
from pipeline.events import JobEnded
from pipeline.faults import Fault, Kind
from pipeline.intake.ignore import BOOK_EXTENSIONS, EntryType, Ignored, IgnoreList
from pipeline.jobs.job import Source
from pipeline.jobs.settings import Check, Settings
from pipeline.jobs.spec import (
    KINDS,
    ConcatFile,
    Request,
    TtsFile,
    VcFile,
    VoiceSheet,
    as_set,
    parse_defaults,
    parse_job_file,
    parse_voice_sheet,
)
from pipeline.layout import Layout
from pipeline.ledger import Ledger, Progress
from pipeline.outbox import ChunkRecord, Failure, Manifest, Output, write_failure_notes
from pipeline.status import (
    Snapshot,
    StatusFile,
    WaitingFile,
    error_entry,
    listed,
    running_entry,
    snapshot_jobs,
)
from pipeline.strict_yaml import load_documents
from tests.conftest import REPOSITORY

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "inbox/README.md", "outbox/README.md", "voices/README.md")
    for page in REPOSITORY.glob(pattern)
)
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
DOCS = REPOSITORY / "docs"
Row = tuple[str, ...]


def shown(path: Path) -> str:
    """A path as a test's name."""
    return str(path.relative_to(REPOSITORY))


# -- reading pages -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page, in order; of these languages, or all."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(page, lang, text) for lang, text in found if not languages or lang in languages]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def table_rows(page: Path, *header: str) -> list[Row]:
    """The rows of every table of the page whose heading begins like this."""
    rows: list[Row] = []
    wanted = False
    for line in prose(page).splitlines():
        if not line.startswith("|"):
            wanted = False
            continue
        cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        if wanted:
            rows += [] if set(cells[0]) == {"-"} else [cells]
        wanted = wanted or cells[: len(header)] == header
    assert rows, f"{shown(page)} has no table that begins with {header}"
    return rows


def unquoted(cell: str) -> str:
    """A cell without its backticks."""
    return cell.removeprefix("`").removesuffix("`")


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next of its kind."""
    return prose(page).split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]


def fields_in(text: str, header: str = "field") -> list[str]:
    """The first column of the table whose heading begins with `header`."""
    found = re.search(rf"^\| {header} \|.*\n\|.*\n((?:\|.*\n?)+)", text, re.MULTILINE)
    assert found, f"there is no table of {header}s"
    return [unquoted(line.split("|")[1].strip()) for line in found[1].splitlines()]


# -- what the models say ------------------------------------------------------------------------


def number(value: float) -> str:
    """A bound as the pages write it."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def span(field: Mapping[str, Any]) -> str:
    """The range of a number."""
    low = field.get("minimum")
    start = number(field["exclusiveMinimum"]) if low is None else number(low)
    if "maximum" in field:
        return f"{'over ' if low is None else ''}{start} to {number(field['maximum'])}"
    return f"over {start}" if low is None else f"{start} or more"


def range_of(field: Mapping[str, Any]) -> str:
    """The range of a key, from its JSON schema."""
    if "anyOf" in field:
        return range_of(next(one for one in field["anyOf"] if one.get("type") != "null")) + ", or `null`"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{word}`" for word in field.get("enum", [field.get("const")]))
    kinds = {
        "boolean": lambda: "`true`, `false`",
        "integer": lambda: f"whole number, {span(field)}",
        "number": lambda: span(field),
        "array": lambda: f"list of {range_of(field['items'])}" if _is_told(field["items"]) else "list",
        "string": lambda: _text_range(field),
    }
    return kinds[field["type"]]()


def _is_told(item: Mapping[str, Any]) -> bool:
    return "enum" in item or "pattern" in item


PATTERNS = {"^[A-Za-z]{2,8}": "language tag", "^(cpu|mps|cuda": "device", "^[a-z0-9][": "name"}
"how the pages call a text of a certain form, by how its pattern begins"


def _text_range(field: Mapping[str, Any]) -> str:
    if "pattern" in field:
        return next(kind for begin, kind in PATTERNS.items() if field["pattern"].startswith(begin))
    return f"text, at most {field['maxLength']} characters" if "maxLength" in field else "text"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key as a page should have it."""

    default: Any
    range: str


NEEDED = "needed"


def keys_of(model: type[BaseModel], *, without: tuple[str, ...] = ()) -> dict[str, Key]:
    """Every key of a model by its dotted path."""
    schema = model.model_json_schema()
    return dict(_keys(schema["properties"], schema["$defs"], "", without))


def _keys(
    properties: Mapping[str, Any], parts: Mapping[str, Any], prefix: str, without: tuple[str, ...]
) -> Iterator[tuple[str, Key]]:
    for name, field in properties.items():
        if name in without:
            continue
        within = parts.get(field.get("$ref", "").rpartition("/")[2])
        if within is not None:
            yield from _keys(within["properties"], parts, f"{prefix}{name}.", without)
            continue
        yield prefix + name, Key(field.get("default", NEEDED), range_of(field))
        item = parts.get(field.get("items", {}).get("$ref", "").rpartition("/")[2])
        if item is not None:
            yield from _keys(item["properties"], parts, f"{prefix}{name}[].", without)


def keys_in(page: Path, first: str = "key") -> dict[str, Key]:
    """The keys of the tables of a page."""
    rows = table_rows(page, first, "default", "range")
    names = [unquoted(row[0]) for row in rows]
    assert len(names) == len(set(names)), "a key stands twice"
    return {unquoted(row[0]): Key(_value(unquoted(row[1])), row[2]) for row in rows}


def _value(cell: str) -> Any:
    value = load_documents(f"value: {cell}".encode(), "a cell")[0].value
    return value["value"]


# -- keys -----------------------------------------------------------------------------------------


def test_job_file_page_has_every_key_at_its_default_and_range() -> None:
    """docs/job-file.md and the models of the three kinds agree in keys, defaults and ranges."""
    expected = keys_of(TtsFile)
    expected["kind"] = Key("tts", ", ".join(f"`{kind}`" for kind in KINDS))
    expected |= {"audio.file": keys_of(VcFile)["audio.file"]}
    expected |= {key: value for key, value in keys_of(ConcatFile).items() if key not in expected}
    assert keys_in(DOCS / "job-file.md") == expected


def test_job_file_page_has_every_key_of_a_voice_sheet() -> None:
    """The table of a voice sheet and its model agree; the settings below `defaults` stand above it."""
    expected = keys_of(VoiceSheet, without=("defaults",))
    expected["defaults"] = Key({}, "settings")
    assert keys_in(DOCS / "job-file.md", "sheet key") == expected


def test_configuration_page_has_every_key_at_its_default_and_range() -> None:
    """docs/configuration.md and the model agree; `defaults` are the settings of the job file."""
    assert keys_in(DOCS / "configuration.md") == keys_of(ConfigFile, without=("defaults",))


def test_the_configuration_in_the_repository_holds_every_key_at_its_default() -> None:
    """config.yaml names every key, settings of jobs included, and changes nothing."""
    written = load_documents((REPOSITORY / "config.yaml").read_bytes(), "config.yaml")[0].value
    plain = ConfigFile.model_validate(written).model_dump(mode="json", by_alias=True)
    assert plain == ConfigFile().model_dump(mode="json", by_alias=True)
    assert written == plain


def test_the_configuration_in_the_repository_works_on_its_own_folders() -> None:
    """Loaded as the daemon loads it, it points at the four folders beside it."""
    config = load_config(REPOSITORY / "config.yaml")
    assert isinstance(config, Config)
    assert [getattr(config, root) for root in ROOTS] == [str(REPOSITORY / root) for root in ROOTS]


def test_configuration_page_has_every_field_of_an_event() -> None:
    """What `notify.command` is told stands in its table."""
    fields = fields_in(prose(DOCS / "configuration.md"), "event field")
    assert fields == [field.name for field in dataclasses.fields(JobEnded)]


def test_what_is_told_as_not_there_yet_is_what_is_missing() -> None:
    """Engines, recognisers and kinds of files that the settings know and this version cannot do."""
    page = prose(DOCS / "job-file.md").split("\n## Not there yet", 1)[1]
    missing = {"engine:": _literals(Settings, "engine") - set(engines.LOADERS)}
    missing["check.by:"] = _literals(Check, "by") - set(transcribers.LOADERS) - {"auto", "none"}
    for label, names in missing.items():
        line = next((line for line in page.splitlines() if f"`{label}`" in line), "")
        assert set(re.findall(r"`([a-z-]+)`", line.split("|")[1] if line else "")) == names
    assert {"epub", "srt"} <= BOOK_EXTENSIONS and "`.epub`, `.srt`" in page


def _literals(model: type[BaseModel], key: str) -> set[str]:
    return set(model.model_json_schema()["properties"][key]["enum"])


# -- fields ---------------------------------------------------------------------------------------


def paths_in(value: Any, prefix: str = "", *, closed: tuple[str, ...] = ()) -> Iterator[str]:
    """Every field of a JSON value by its dotted path; what is below `closed` is not told apart."""
    if isinstance(value, dict) and prefix not in closed:
        for name, inner in value.items():
            yield from paths_in(inner, f"{prefix}.{name}" if prefix else name, closed=closed)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from paths_in(value[0], f"{prefix}[]", closed=closed)
    else:
        yield prefix


OPEN_ENDED = ("settings", "chunks[].settings")


def a_manifest() -> dict[str, Any]:
    """A manifest with something in every list, as it is written."""
    chunk = ChunkRecord(
        index=0,
        text="Hello.",
        seed=1,
        tries=1,
        cached=False,
        passed=None,
        word_error_rate=None,
        transcript=None,
        start_seconds=0.0,
        end_seconds=1.0,
    )
    output = Output(path="a.mp3", format="mp3", sha256="ab", duration_seconds=1.0, sample_rate_hz=22_050)
    manifest = Manifest(
        job_id="d1-1",
        status="done",
        kind="tts",
        source=Source(name="a.txt", sha256="ab", bytes=6),
        engine={"name": "espeak", "version": "1", "device": "cpu"},
        settings=Settings().model_dump(mode="json", by_alias=True),
        outputs=(output,),
        chunks=(chunk,),
    )
    loaded: dict[str, Any] = json.loads(manifest.to_json())
    return loaded


def example(page: Path, heading: str) -> Any:
    """The JSON example below a heading."""
    text = page.read_text("utf-8").split(f"\n## {heading}", 1)[1]
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_manifest_page_has_every_field_and_no_other() -> None:
    """Table, example and what is really written have the same fields."""
    written = list(paths_in(a_manifest(), closed=OPEN_ENDED))
    assert sorted(fields_in(section(DOCS / "manifest.md", "The manifest"))) == sorted(written)
    assert list(paths_in(example(DOCS / "manifest.md", "The manifest"), closed=OPEN_ENDED)) == written


def test_the_example_of_a_manifest_has_every_setting() -> None:
    """Its frozen settings are complete and valid today."""
    settings = example(DOCS / "manifest.md", "The manifest")["settings"]
    assert settings.keys() == Settings.model_fields.keys()
    assert Settings.model_validate(settings).model_dump(mode="json", by_alias=True) == settings


def test_manifest_page_has_every_field_of_a_failure_note(tmp_path: Path) -> None:
    """Table, example and the note that is really written have the same fields."""
    write_failure_notes(
        a_drop(), tmp_path / "a.txt", [Failure(job_id="d1-1", code="c", message="m", hint="h")]
    )
    written = list(paths_in(json.loads((tmp_path / "a.txt.error.json").read_bytes())))
    assert fields_in(section(DOCS / "manifest.md", "The failure note")) == written
    assert list(paths_in(example(DOCS / "manifest.md", "The failure note"))) == written


def test_manifest_page_has_every_field_of_the_status(tmp_path: Path, ledger: Ledger) -> None:
    """Table, example and the status that is really written have the same fields."""
    progress = Progress(
        job=a_job(), worker="w", stage="s", done_chunks=0, total_chunks=1, started_at=0.0, heartbeat_at=0.0
    )
    fault = Fault(at=0.0, file="f", message="m", times=1)
    layout = Layout(*(tmp_path / name for name in ("inbox", "outbox", "voices", "state")))
    jobs = snapshot_jobs(ledger, layout)
    snapshot = Snapshot(
        voxspool="0",
        pid=1,
        state="running",
        waiting=listed([WaitingFile(path="a", state="new", reason="r")]),
        **{
            **jobs,
            "running": [running_entry(progress)],
            "failed": [{"path": "p", "job": "j", "reason": "r"}],
            "queued": [{"job": "j", "source": "s", "priority": "low", "reason": "r"}],
            "errors": [error_entry(Kind(code="c", count=1, last=(fault,)))],
            "not_listed": {**jobs["not_listed"], "waiting": 0},
        },
    )
    StatusFile(tmp_path / "status.json", clock=lambda: 0.0, wall=lambda: 0.0).write(snapshot)
    written = list(paths_in(json.loads((tmp_path / "status.json").read_bytes())))
    assert fields_in(section(DOCS / "manifest.md", "The status")) == written
    assert list(paths_in(example(DOCS / "manifest.md", "The status"))) == written


# -- examples -------------------------------------------------------------------------------------


def parsed(text: str) -> Any:
    """A YAML example as what it is: a file name in its first line or its keys tell."""
    first = text.splitlines()[0]
    keys = load_documents(text.encode(), "example")[0].value.keys()
    if "_defaults.yaml" in first:
        return parse_defaults(text.encode(), "_defaults.yaml")
    if "voices/" in first:
        return parse_voice_sheet(text.encode(), "voices/narrator.yaml")
    if first == "# config.yaml" or keys & set(ROOTS):
        return ConfigFile.model_validate(load_documents(text.encode(), "config.yaml")[0].value)
    return parse_job_file(text.encode(), "job.yaml")


GOOD_YAML = [
    block
    for page in PAGES
    for block in blocks(page, "yaml", "yml")
    if "(wrong)" not in block.text.split("\n")[0]
]


@pytest.mark.parametrize("block", GOOD_YAML, ids=lambda block: f"{shown(block.page)}: {block.text[:30]!r}")
def test_every_yaml_example_of_every_page_is_valid(block: Block) -> None:
    """The real parsers take it."""
    assert parsed(block.text)


def wrong_examples() -> list[tuple[str, str, str]]:
    """Names, texts and what the page says of them: the block that follows."""
    found = blocks(DOCS / "job-file.md")
    return [
        (block.text.split()[1], block.text, answer.text)
        for block, answer in pairwise(found)
        if "(wrong)" in block.text
    ]


@pytest.mark.parametrize(("name", "text", "told"), wrong_examples(), ids=lambda value: value[:20])
def test_what_the_page_says_of_mistakes_is_what_is_said(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    """A wrong example gives the very note that stands below it, in full or its message alone."""
    with pytest.raises(SpecError) as caught:
        parse_job_file(text.encode(), name)
    error = caught.value
    failure = Failure(job_id="", code=error.code, message=error.message, hint=error.hint)
    write_failure_notes(a_drop(relative=name), tmp_path / name, [failure])
    note = (tmp_path / f"{name}.error.txt").read_text("utf-8")
    assert told in (note, error.message + "\n")


def test_the_job_file_page_shows_mistakes() -> None:
    """The test above has something to test."""
    assert len(wrong_examples()) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=shown)
def test_every_example_file_is_valid(path: Path) -> None:
    """The real parsers take every file in examples/."""
    text = path.read_text("utf-8")
    named = {"_defaults.yaml": "# _defaults.yaml", "voice-sheet.yaml": "# voices/"}.get(path.name, "#")
    assert parsed(f"{named}\n{text}")


def requests_in(name: str) -> tuple[Request, ...]:
    """The jobs of an example."""
    return parse_job_file((REPOSITORY / "examples" / name).read_bytes(), name)


def test_the_example_of_a_text_job_has_every_setting() -> None:
    """examples/tts.yaml sets each key there is."""
    (request,) = requests_in("tts.yaml")
    settings = as_set(request.settings)
    kept = set(paths_in(json.loads(json.dumps(settings))))
    assert kept == keys_of(Settings).keys() - {"text_rules.replace"}


def test_the_examples_show_all_three_kinds_and_fit_together() -> None:
    """What conversion and joining name is what several-jobs.yaml makes."""
    made = {
        f"{request.settings.output.name}.{suffix}"
        for request in requests_in("several-jobs.yaml")
        for suffix in request.settings.output.formats
    }
    (vc,), (concat,) = requests_in("vc.yaml"), requests_in("concat.yaml")
    assert (vc.kind, concat.kind) == ("vc", "concat")
    assert {*vc.references, *concat.references} <= made


# -- commands -------------------------------------------------------------------------------------


def command_lines(page: Path) -> list[str]:
    """Every `daemon.py ...` of a page, in code spans and in blocks for the shell."""
    spans = re.findall(r"`([^`\n]*daemon\.py[^`\n]*)`", prose(page))
    lines = [line for block in blocks(page, "sh") for line in block.text.splitlines() if "daemon.py" in line]
    return [line for line in (*spans, *lines) if "ExecStart" not in line]


COMMANDS = [(page, line) for page in PAGES for line in command_lines(page)]


@pytest.mark.parametrize(
    ("page", "line"), COMMANDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_of_every_page_exists(page: Path, line: str) -> None:
    """The program's own parser takes it, with its options; a bare `daemon.py` is the file itself."""
    words = shlex.split(line.split(" > ")[0].split(" | ")[0], comments=True)
    position = next(index for index, word in enumerate(words) if word.endswith("daemon.py"))
    arguments = [word.removesuffix("...") for word in words[position + 1 :] if word != "&"]
    assert cli._parser().parse_args(arguments), f"{shown(page)}: {line}"


def verbs() -> set[str]:
    """Every command of the program."""
    actions = cli._parser()._subparsers._group_actions  # type: ignore[union-attr]
    return set(actions[0].choices or ())


def test_operations_page_has_every_command() -> None:
    """Each verb has its line in the table of commands."""
    rows = table_rows(DOCS / "operations.md", "command", "what it does")
    assert {unquoted(row[0]).split()[2] for row in rows} == verbs()


def test_readme_runs_only_what_there_is() -> None:
    """Every line of its shell blocks is a target of the Makefile or a command of the program."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE))
    lines = [line for block in blocks(REPOSITORY / "README.md", "sh") for line in block.text.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.strip()]
    assert words
    for program, first, *rest in words:
        if program == "make":
            assert first in targets
        elif program == "export":
            assert first.partition("=")[0] == cli.CONFIG_VARIABLE
        else:
            assert first == "daemon.py" and rest[0] in verbs(), (program, first, rest)


# -- links, words, pictures ---------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A link to a file finds it, and its anchor is a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{shown(page)}: {target}"
        assert not anchor or anchor in anchors(place), f"{shown(page)}: {target}"


def test_every_page_is_found() -> None:
    """The tests above look at the pages they are meant to look at."""
    names = {shown(page) for page in PAGES}
    own = {
        "job-file",
        "configuration",
        "manifest",
        "operations",
        "service",
        "dependencies",
        "glossary",
        "voice-conversion",
    }
    assert {f"docs/{name}.md" for name in own} <= names
    assert {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= names


PLACEHOLDERS = re.compile(
    r"\b(TODO|FIXME|TBD|XXX|lorem ipsum|coming soon|blazing|seamless(ly)?|leverag\w+)\b", re.I
)


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=shown)
def test_no_page_is_half_written(page: Path) -> None:
    """No placeholder and no word that sells instead of telling."""
    assert PLACEHOLDERS.search(page.read_text("utf-8")) is None


def test_the_page_of_others_bugs_has_every_test_that_is_named_after_one() -> None:
    """And names no test that there is not."""
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "others-bugs.md").read_text("utf-8")))
    sources = (path.read_text("utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    there = {name for source in sources for name in re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)}
    assert named - there == set()
    assert {name for name in there if re.search(r"_(issue|pr)_\d", name)} - named == set()


def requirements(name: str) -> Iterator[tuple[str, str]]:
    """Name and version of each line of a requirements file."""
    for line in (REPOSITORY / name).read_text("utf-8").splitlines():
        found = re.match(r"([A-Za-z0-9_.-]+)\s*(?:==|(?=<))\s*([^\s;]+)", line)
        if found:
            yield found[1], found[2]
        else:
            assert not line or line.startswith(("#", "-r ")), line


def test_dependencies_page_has_every_requirement_at_its_version() -> None:
    """Each pinned package has its row, and no other has one."""
    rows = table_rows(DOCS / "dependencies.md", "package", "version")
    pinned = [
        requirement
        for name in (
            "requirements-core.txt",
            "requirements.txt",
            "requirements-dev.txt",
            "requirements-fuzz.txt",
        )
        for requirement in requirements(name)
    ]
    assert sorted((row[0], row[1]) for row in rows) == sorted(pinned)
    assert all(row[-1] for row in rows), "a licence is missing"


def test_glossary_has_each_word_once_in_order() -> None:
    """Words are sorted, and none stands twice."""
    words = [row[0] for row in table_rows(DOCS / "glossary.md", "word", "meaning")]
    assert words == sorted(set(words))


def test_the_picture_is_sound() -> None:
    """The picture of the folders is valid XML, names them all, and knows a dark page."""
    text = (DOCS / "folders.svg").read_text("utf-8")
    words = " ".join(ElementTree.fromstring(text).itertext())
    for name in ("inbox/", "outbox/", "voices/", "state/", "failed/", "claimed/", "done/"):
        assert name in words
    assert "prefers-color-scheme: dark" in text


def test_the_daemon_takes_no_note_about_a_folder_for_a_drop() -> None:
    """The README of the inbox lies in the inbox."""
    assert isinstance(IgnoreList().classify("README.md", EntryType.FILE), Ignored)
