"""YAML as people write it, read strictly: every problem at once, each with its line.

Knows YAML and pydantic, not what the keys mean. Invariant: a document that is returned held no
duplicate key, no tag and no alias, stayed under the caps of size, depth and number, and consists of
text, numbers, true, false, null, lists and mappings with text keys.
"""

import difflib
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import Composer
from yaml.resolver import Resolver

from pipeline.errors import SpecError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_NODES = 50_000
MAX_PROBLEMS = 50
MAX_SHOWN_CHARS = 60
Path_ = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)
_STR = "tag:yaml.org,2002:str"
# What is in Unicode but in no text: NUL, and surrogates that `"\\ud800"` can smuggle in.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader without dates, base-60 and octal numbers, `<<` and `=`: those stay text.

    Pure Python on purpose: libyaml's parser recurses in C and dies on deeply nested input. The
    number forms are those of YAML 1.2 and bounded: converting a number of 10^5 digits takes minutes.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own way to say which plain scalars mean what)


def _resolve(tag: str, pattern: str, first: str) -> None:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve(
    "bool", r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO"
)
_resolve("int", r"^[-+]?(?:0|[1-9][0-9]{0,49})$", "-+0123456789")
_resolve(
    "float",
    r"^[-+]?(?:(?:\.[0-9]{1,50}|[0-9]{1,50}\.[0-9]{0,50})(?:[eE][-+]?[0-9]{1,5})?|[0-9]{1,50}[eE][-+]?[0-9]{1,5})$",
    "-+.0123456789",
)
_resolve("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+.")
_resolve("null", r"^(?:~|null|Null|NULL)$", "~nN")
Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])


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
        key = ".".join(_short(str(part)) for part in path)
        return f"{self.source}, line {self.line_of(path)}: {key + ': ' if key else ''}{text}"


def load_documents(data: bytes, source: str) -> list[Document]:
    """Every document of a YAML stream; raises SpecError naming what is wrong and where.

    Empty documents are left out, so that a trailing `---` is harmless.
    """
    if len(data) > MAX_BYTES:
        raise _too_large(len(data), source)
    text = _decode(data, source)
    try:
        nodes = list(_Composer(_bounded(text, source)).nodes())
    except yaml.MarkedYAMLError as error:
        raise SpecError(
            _yaml_message(error, source), hint="Check the indentation and quotes there."
        ) from error
    except (ValueError, OverflowError) as error:  # "\\UFFFFFFFF"
        raise SpecError(f"{source} holds an escape sequence that stands for no character.") from error
    documents = [_document(node, source) for node in nodes if node is not None]
    return [document for document in documents if document.value is not None]


def read(stream: BufferedReader, source: str) -> bytes:
    """The bytes of an open YAML file; raises SpecError for one that is too large, without reading it."""
    size_bytes = os.fstat(stream.fileno()).st_size
    if size_bytes > MAX_BYTES:
        raise _too_large(size_bytes, source)
    return stream.read(MAX_BYTES + 1)


def _too_large(size_bytes: int, source: str) -> SpecError:
    return SpecError(
        f"{source} is {size_bytes:,} bytes long; a YAML file may have {MAX_BYTES:,}.",
        hint="Put long texts into a text file of their own and name it with text_file.",
    )


def _decode(data: bytes, source: str) -> str:
    """UTF-8, or UTF-16 with a byte-order mark, as YAML has it; only characters that YAML allows."""
    codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{source}, line {line}: byte 0x{data[error.start]:02x} is not {error.encoding.upper()}.",
            hint="Save the file as UTF-8.",
        ) from error
    if match := Loader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise SpecError(
            f"{source}, line {line}: the character U+{ord(match.group()):04X} may not stand in YAML.",
            hint="Save the file as UTF-8.",
        )
    return text


def _bounded(text: str, source: str) -> deque[yaml.Event]:
    """The events of a stream, looked through (no recursion needed) before the composer recurses into them."""
    depth = 0
    events: deque[yaml.Event] = deque()
    for event in yaml.parse(text, Loader=Loader):
        place = f"{source}, line {_line(event)}"
        if isinstance(event, yaml.AliasEvent):
            raise SpecError(f"{place}: aliases (*name) are not allowed.", hint="Write the value out.")
        if getattr(event, "tag", None) is not None:
            raise SpecError(f"{place}: tags such as !name are not allowed.", hint="Leave the tag out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SpecError(f"{place}: nested more than {MAX_DEPTH} levels deep.")
        if len(events) > MAX_NODES:
            raise SpecError(f"{place}: a YAML file may hold {MAX_NODES:,} values.", hint="Split the file.")
        events.append(event)
    return events


class _Composer(Loader):
    """Makes nodes of events that were read before: PyYAML would scan the text a second time."""

    def __init__(self, events: deque[yaml.Event]) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        self._events = events

    def nodes(self) -> Iterator[yaml.Node | None]:
        """One node for each document."""
        while self.check_node():
            yield self.get_node()

    def check_event(self, *choices: Any) -> bool:
        """Whether the next event is one of these."""
        return bool(self._events) and isinstance(self._events[0], choices)

    def peek_event(self) -> yaml.Event:
        """The next event, which stays."""
        return self._events[0]

    def get_event(self) -> yaml.Event:
        """The next event."""
        return self._events.popleft()


def _line(marked: yaml.Event | yaml.Node) -> int:
    return marked.start_mark.line + 1 if marked.start_mark else 1


def _document(node: yaml.Node, source: str) -> Document:
    lines: dict[Path_, int] = {}
    problems: list[str] = []
    _walk(node, (), lines, problems, source)
    if problems:
        raise SpecError(summary(source, problems), problems=tuple(problems))
    loader = Loader("")
    try:
        return Document(source, loader.construct_document(node), lines)
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], problems: list[str], source: str) -> None:
    lines.setdefault(path, _line(node))
    _join_surrogates(node)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*path, index), lines, problems, source)
    elif isinstance(node, yaml.MappingNode):
        for key_node, child in node.value:
            place = f"{source}, line {_line(key_node)}"
            key = _key(key_node, place, problems)
            if (*path, key) in lines:
                problems.append(f"{place}: the key {_short(key)!r} stands twice.")
            lines[(*path, key)] = _line(key_node)
            _walk(child, (*path, key), lines, problems, source)
    elif _NO_TEXT.search(node.value):
        problems.append(f"{source}, line {_line(node)}: holds an escape that stands for no character.")


def _join_surrogates(node: yaml.Node) -> None:
    """JSON, which is YAML too, escapes a character beyond U+FFFF as two; PyYAML leaves them two."""
    if isinstance(node, yaml.ScalarNode) and _NO_TEXT.search(node.value):
        node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _key(node: yaml.Node, place: str, problems: list[str]) -> str:
    if not isinstance(node, yaml.ScalarNode):
        problems.append(f"{place}: a key must be text, not a list or keys with values.")
        return "?"
    _join_surrogates(node)
    if node.tag != _STR:
        problems.append(f"{place}: the key {_short(node.value)} must be text; put it in quotes.")
    elif _NO_TEXT.search(node.value):
        problems.append(f"{place}: the key holds an escape that stands for no character.")
    return str(node.value)


def validate(model: type[ModelT], document: Document, *, what: str = "key") -> ModelT:
    """The document as `model`; raises SpecError with every problem, each with line and nearest valid key."""
    if not isinstance(document.value, dict):
        text = f"expected {what}s with values, found {_described(document.value)}."
        raise SpecError(document.problem((), text), hint="See docs/job-file.md for an example.")
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        problems = tuple(_sentences(model, document, error.errors(include_url=False)))
        raise SpecError(summary(document.source, problems), problems=problems) from error


def summary(source: str, problems: tuple[str, ...] | list[str]) -> str:
    """Several problems as one message; the first fifty of them."""
    if len(problems) == 1:
        return problems[0]
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    shown = "\n".join(f"- {problem}" for problem in [*problems[:MAX_PROBLEMS], *more])
    return f"{source} has {len(problems)} problems:\n{shown}"


def _sentences(model: type[BaseModel], document: Document, errors: list[ErrorDetails]) -> Iterator[str]:
    """One sentence a place, in the order of the file."""
    located = [(_path_of(detail, document.value), detail) for detail in errors]
    in_order = sorted(_significant(located), key=lambda pair: document.line_of(pair[0]))
    for number, (path, detail) in enumerate(in_order):
        # the nearest key is looked for where it is shown: thousands of them take seconds
        yield _sentence(model if number < MAX_PROBLEMS else None, document, path, detail)


def _significant(located: list[tuple[Path_, ErrorDetails]]) -> Iterator[tuple[Path_, ErrorDetails]]:
    """A union reports a failure for each of its members, a list one for its bad items: one is enough."""
    seen: set[Path_] = set()
    for path, detail in located:
        if path in seen or (detail["type"] == "too_short" and any(p[: len(path)] == path for p in seen)):
            continue
        seen.add(path)
        yield path, detail


def _path_of(detail: ErrorDetails, value: Any) -> Path_:
    """The keys that lead there; pydantic also names the union member it tried, which YAML knows not."""
    path: list[str | int] = []
    for part in detail["loc"]:
        inside = (
            part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        )
        if inside:
            value = value[part]
        if inside or detail["type"] == "missing":
            path.append(part)
    return tuple(path)


def _sentence(model: type[BaseModel] | None, document: Document, path: Path_, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return document.problem(path, _unknown_key(model, path) if model else "unknown key.")
    if detail["type"] == "missing":
        return document.problem(path, "is missing.")
    return document.problem(path, f"expected {_reason(detail)}, found {_described(detail['input'])}.")


_REASONS = {
    "string_type": "text (put it in quotes if YAML reads it as something else)",
    "string_too_short": "at least {min_length} character",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
    "tuple_type": "a list, such as [a, b]",
    "list_type": "a list, such as [a, b]",
    "too_short": "at least {min_length} item",
    "too_long": "at most {max_length} items",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "dict_type": "keys with values",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "literal_error": "one of {expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
}


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] in _REASONS:
        return _REASONS[detail["type"]].format(**detail.get("ctx", {}))
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _unknown_key(model: type[BaseModel], path: Path_) -> str:
    known = _keys_at(model, path[:-1])
    near = difflib.get_close_matches(_short(str(path[-1])), known, n=1, cutoff=0.5)
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
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."


def _yaml_message(error: yaml.MarkedYAMLError, source: str) -> str:
    problem = error.problem or error.context or "it cannot be read"
    unclosed = "end of stream" in problem or "<stream end>" in problem
    mark = error.context_mark if unclosed and error.context_mark else error.problem_mark or error.context_mark
    place = f"{source}, line {mark.line + 1}" if mark else source
    if "'\\t'" in problem:
        return f"{place}: not valid YAML: a tab; indent with spaces."
    return f"{place}: not valid YAML: {'this never ends' if unclosed else problem}."
