"""YAML as people write it, read strictly: every problem at once, each with its line.

Knows YAML and pydantic, not what the keys mean. Invariant: a document that is returned held no
duplicate key, no custom tag and no alias, and stayed under the size and depth caps.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import SpecError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
Path_ = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)
# Pure Python on purpose: libyaml's parser recurses in C and dies on deeply nested input.
Loader = yaml.SafeLoader


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: plain values and the line on which each stands."""

    source: str
    "name shown in messages"
    value: Any
    lines: Mapping[Path_, int]
    "1-based, by the path of keys"

    def line_of(self, path: Path_) -> int:
        """The line of `path`, or of the nearest parent that has one."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path_, text: str) -> str:
        """`text` as a sentence with its place: file, line, key."""
        key = ".".join(str(part) for part in path)
        return f"{self.source}, line {self.line_of(path)}: {key + ': ' if key else ''}{text}"


def load_documents(data: bytes, source: str) -> list[Document]:
    """Every document of a YAML stream; raises SpecError naming what is wrong and where.

    Empty documents are left out, so that a trailing `---` is harmless.
    """
    if len(data) > MAX_BYTES:
        raise SpecError(
            f"{source} is {len(data):,} bytes long; a YAML file may have {MAX_BYTES:,}.",
            hint="Put long texts into a text file of their own and name it with text_file.",
        )
    try:
        _refuse_depth(data, source)
        nodes = list(yaml.compose_all(data, Loader=Loader))
        documents = [_document(node, source) for node in nodes if node is not None]
    except yaml.MarkedYAMLError as error:
        raise SpecError(
            _yaml_message(error, source), hint="Check the indentation and quotes there."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{source} is not readable as YAML: {_first_line(error)}.") from error
    return [document for document in documents if document.value is not None]


def _refuse_depth(data: bytes, source: str) -> None:
    """Walk the event stream, which needs no recursion, before the composer recurses into it."""
    depth = 0
    for event in yaml.parse(data, Loader=Loader):
        if isinstance(event, yaml.AliasEvent):
            place = f"{source}, line {_line(event)}"
            raise SpecError(f"{place}: aliases (*name) are not allowed.", hint="Write the value out.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise SpecError(f"{source}, line {_line(event)}: nested more than {MAX_DEPTH} levels deep.")


def _line(marked: yaml.Event | yaml.Node) -> int:
    return marked.start_mark.line + 1 if marked.start_mark else 1


def _document(node: yaml.Node, source: str) -> Document:
    lines: dict[Path_, int] = {}
    problems: list[str] = []
    _walk(node, (), lines, problems, source)
    if problems:
        raise SpecError(_summary(source, problems), problems=tuple(problems))
    loader = Loader("")
    try:
        value = loader.construct_document(node)
    except ValueError as error:  # an impossible date such as 2026-99-99
        raise SpecError(f"{source}: {_first_line(error)}.") from error
    finally:
        loader.dispose()
    return Document(source, value, lines)


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], problems: list[str], source: str) -> None:
    lines.setdefault(path, _line(node))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*path, index), lines, problems, source)
    elif isinstance(node, yaml.MappingNode):
        for key_node, child in node.value:
            key = _key(key_node)
            line = _line(key_node)
            if (*path, key) in lines:
                problems.append(f"{source}, line {line}: the key {key!r} stands twice.")
            lines[(*path, key)] = line
            _walk(child, (*path, key), lines, problems, source)


def _key(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else "?"


def validate(model: type[ModelT], document: Document, *, what: str = "key") -> ModelT:
    """The document as `model`; raises SpecError with every problem, each with line and nearest valid key."""
    if not isinstance(document.value, dict):
        text = f"expected {what}s with values, found {_described(document.value)}."
        raise SpecError(document.problem((), text), hint="See docs/job-file.md for an example.")
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        problems = tuple(_sentence(model, document, detail) for detail in _significant(error.errors()))
        raise SpecError(_summary(document.source, problems), problems=problems) from error


def _summary(source: str, problems: tuple[str, ...] | list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{source} has {len(problems)} problems:\n" + "\n".join(f"- {problem}" for problem in problems)


def _significant(errors: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """One error a place: a union reports a failure for each of its members, a list one for its bad items."""
    seen: set[Path_] = set()
    for detail in errors:
        path = _plain_path(detail["loc"])
        if path in seen or (detail["type"] == "too_short" and any(p[: len(path)] == path for p in seen)):
            continue
        seen.add(path)
        yield detail


def _plain_path(location: tuple[str | int, ...]) -> Path_:
    # pydantic names the union member it tried, e.g. ("formats", "tuple[...]", 0); YAML has no such key
    return tuple(part for part in location if isinstance(part, int) or "[" not in part)


def _sentence(model: type[BaseModel], document: Document, detail: ErrorDetails) -> str:
    path = _plain_path(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return document.problem(path, _unknown_key(model, path))
    if detail["type"] == "missing":
        return document.problem(path, "is missing.")
    return document.problem(path, f"{_reason(detail)}, found {_described(detail['input'])}.")


def _reason(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if detail["type"] == "string_type":
        return "expected text (put it in quotes if YAML reads it as something else)"
    if detail["type"] in ("tuple_type", "list_type"):
        return "expected a list, such as [a, b]"
    if detail["type"] == "literal_error":
        return f"expected one of {message}"
    return f"expected {message[0].lower()}{message[1:]}"


def _unknown_key(model: type[BaseModel], path: Path_) -> str:
    known = _keys_at(model, path[:-1])
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(known)}."


def _keys_at(model: type[BaseModel], path: Path_) -> list[str]:
    current: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and current is not None:
            field = next((f for n, f in current.model_fields.items() if (f.alias or n) == part), None)
            current = _model_within(field.annotation) if field else None
    return [f.alias or n for n, f in current.model_fields.items()] if current else []


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple, list):
        return next(filter(None, map(_model_within, get_args(annotation))), None)
    return None


def _described(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "keys with values"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _yaml_message(error: yaml.MarkedYAMLError, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{source}, line {mark.line + 1}" if mark else source
    if isinstance(error, yaml.constructor.ConstructorError) and "tag" in (error.problem or ""):
        return f"{place}: tags such as !name are not allowed."
    return f"{place}: not valid YAML: {error.problem or error.context}."


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
