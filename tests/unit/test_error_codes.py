"""docs/operations.md knows every code that an error can carry, and no other.

The codes are read from the program itself: whatever is assigned, defaulted or passed to something
called `code`, through functions of ours that hand it on. A code that cannot be read so fails here.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_docs import DOCS, fields_in, prose, section

from tests.conftest import REPOSITORY

NAME = "code"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Codes:
    """What was found, and what could not be understood."""

    found: set[str] = field(default_factory=set)
    unclear: list[str] = field(default_factory=list)


def codes_in(sources: dict[str, str]) -> Codes:
    """Every code in these modules."""
    trees = {name: ast.parse(text) for name, text in sources.items()}
    everybody = {name: position for tree in trees.values() for name, position in functions(tree).items()}
    codes = Codes()
    for name, tree in trees.items():
        for value in values(tree, everybody | functions(tree)):
            read(value, tree, name, codes)
    return codes


def functions(tree: ast.AST) -> dict[str, int | None]:
    """Which positional argument of each function is called `code`, if any."""
    return {node.name: position_of_code(node) for node in ast.walk(tree) if isinstance(node, Function)}


def position_of_code(function: Function) -> int | None:
    """Which positional argument of a function is called `code`; a method's `self` does not count."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    return names.index(NAME) if NAME in names else None


def values(tree: ast.AST, takers: dict[str, int | None]) -> Iterator[ast.expr]:
    """Every expression that becomes a code."""
    handed_on = any(isinstance(node, ast.keyword) and is_handed_on(node) for node in ast.walk(tree))
    members = {id(line) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for line in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (keyword.value for keyword in node.keywords if keyword.arg in (NAME, "error_code"))
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            position = takers.get(name)
            if position is not None and len(node.args) > position:
                yield node.args[position]
        elif isinstance(node, ast.Assign) and is_code(node.targets[0]):
            if handed_on or id(node) in members or isinstance(node.targets[0], ast.Attribute):
                yield node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and handed_on:
            yield from (
                ast.Tuple([node.value, ast.Constant(index)])  # "this element of what that gives"
                for index, target in enumerate(node.targets[0].elts)
                if is_code(target)
            )


def is_handed_on(keyword: ast.keyword) -> bool:
    """Whether this is `code=code`: otherwise a variable of that name is something else's code."""
    return keyword.arg == NAME and isinstance(keyword.value, ast.Name) and keyword.value.id == NAME


def is_code(target: ast.expr) -> bool:
    """Whether a name or an attribute is called `code`."""
    return getattr(target, "id", getattr(target, "attr", "")) == NAME


def read(value: ast.expr, tree: ast.AST, where: str, codes: Codes) -> None:
    """The codes that an expression can have."""
    match value:
        case ast.Constant(value=str() as code):
            codes.found.update({code} - {""})
        case ast.Constant(value=None) | ast.Name(id="code"):
            pass  # handed on: read where it comes from
        case (
            ast.Attribute(attr="code" | "error_code") | ast.Subscript(slice=ast.Constant(value="error_code"))
        ):
            pass  # of another error
        case ast.IfExp():
            read(value.body, tree, where, codes)
            read(value.orelse, tree, where, codes)
        case ast.BoolOp():
            for part in value.values:
                read(part, tree, where, codes)
        case ast.Tuple(elts=[ast.Subscript(value=ast.Name(id=table)), ast.Constant(value=int() as index)]):
            for row in rows_of(table, tree):
                read(row.elts[index], tree, where, codes)
        case _:
            codes.unclear.append(f"{where}: {ast.unparse(value)}")


def rows_of(table: str, tree: ast.AST) -> Iterator[ast.Tuple]:
    """The tuples that a dictionary of a module holds."""
    for node in ast.walk(tree):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == table:
            dictionary = getattr(node, "value", None)
            assert isinstance(dictionary, ast.Dict)
            yield from (row for row in dictionary.values if isinstance(row, ast.Tuple))


def own_sources() -> dict[str, str]:
    """The whole program."""
    folder = REPOSITORY / "pipeline"
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.py")}


def test_every_code_of_the_program_has_its_row_and_no_other_has_one() -> None:
    """Each stands in the table of docs/operations.md, once, in order."""
    codes = codes_in(own_sources())
    assert codes.unclear == []
    documented = fields_in(section(DOCS / "operations.md", "Error codes"), "code")
    assert documented == sorted(set(documented))
    assert set(documented) == codes.found


def test_each_row_says_what_happened_and_what_to_do() -> None:
    """No cell is empty."""
    rows = re.findall(r"^\| `\w+` \|(.*)\|(.*)\|$", section(DOCS / "operations.md", "Error codes"), re.M)
    assert rows
    assert all(cell.strip() for row in rows for cell in row)


def test_the_section_is_where_the_status_page_points() -> None:
    """docs/manifest.md links to it."""
    assert "operations.md#error-codes" in prose(DOCS / "manifest.md")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class E(Exception):\n    code = 'one'", {"one"}),
        ("raise E('x', code='one' if x else 'two')", {"one", "two"}),
        ("def end(job, code): ...\nend(1, 'one')\nself.end(1, code='two')", {"one", "two"}),
        ("class C:\n    def end(self, job, code): ...\nc.end(1, 'one')", {"one"}),
        ("T = {1: ('is', 'one'), 2: ('was', 'two')}\nwhat, code = T[1]\nE('x', code=code)", {"one", "two"}),
        ("code = string_at(1)\nf(code)", set()),
        ("def f():\n    code = 'one'\n    raise E('x', code=code)", {"one"}),
        ("T: dict = {1: ('one',)}\n(code,) = T[1]\nE('x', code=code)", {"one"}),
        ("code, child = child.returncode, None\nend(code)", set()),
        ("Failure(code=job.error_code or 'one')\nE(code=error.code)\nE(code=None)", {"one"}),
    ],
)
def test_codes_are_read_wherever_they_come_from(source: str, found: set[str]) -> None:
    """Class, argument, choice, table, function in between."""
    assert codes_in({"a.py": source}) == Codes(found, [])


def test_what_cannot_be_read_is_told() -> None:
    """So that no code slips by."""
    assert codes_in({"a.py": "E('x', code=f'{a}_b')"}).unclear == ["a.py: f'{a}_b'"]


def test_paths_are_found() -> None:
    """The whole program is looked at."""
    assert {"errors.py", "render.py", str(Path("text", "read.py"))} <= own_sources().keys()
