"""Imports point downwards, files stay small, names say what is inside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "guidebook"
LONGEST_FILE = 400
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}

LAYERS = [  # top first; a room may import its own row and the rows under it
    {"cli"},
    {"compare", "sklearn"},
    {
        "adaptation",
        "assessment",
        "preparation",
        "account",
        "text_account",
        "text_evaluation",
        "artifact",
        "artifact_files",
        "artifact_places",
        "writing",
        "completion",
        "evidence",
    }
    | {"label_free", "second_opinion", "caution", "audit", "inspection", "retention"},
    {"hub"},
    {"reports"},  # a guidebook carries its card and report, which are made from guidebook.json alone
    {"training", "methods", "evaluation", "recipe", "jumpstart"},
    {"tasks", "losses"},
    {"data", "adapters", "peft"},
    {"artifact_schema"},  # what guidebook.json must say, for all who read it
    {"folders", "strict_json", "locks"},  # how anything is written: nothing of a person is lost, and JSON is JSON
    {"errors", "threads"},
]
ROW = {room: len(LAYERS) - row for row, rooms in enumerate(LAYERS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, module: str, known: set[str]) -> Iterator[str]:
    """Modules of the package that a module imports anywhere: at the top, in functions, for type checking."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.partition(".")[0] == "guidebook")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: write the import from `guidebook`, not from a dot"
            if node.module and node.module.partition(".")[0] == "guidebook":
                for name in node.names:
                    inner = f"{node.module}.{name.name}"
                    yield inner if inner in known else node.module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            place, colon, _ = node.value.partition(":")  # the "module:Class" lines of a table
            if colon and place in known:
                yield place


def room(module: str) -> str:
    """The row's name for a module: `guidebook.data.read` is in `data`; the package itself is ""."""
    return [*module.split("."), ""][1]


def test_every_room_has_a_row():
    unknown = {room(module) for module in modules()} - set(ROW) - {"", "bases"}
    assert not unknown, f"put {unknown} into LAYERS, and say in docs/design.md what they are"


@pytest.mark.parametrize("module", [name for name in modules() if room(name)])
def test_imports_point_downwards(module):
    found = modules()
    tree = ast.parse(found[module].read_text(encoding="utf8"))
    for other in imported(tree, module, set(found)):
        if room(other):  # the package itself only holds lazy names and the version
            allowed = ROW[room(module)] >= ROW[room(other)]
            assert allowed, f"{module} imports {other}: {room(other)} lies above {room(module)}"


def test_no_module_imports_itself_in_a_circle():
    found = modules()
    arrows = {}
    for module, path in found.items():
        tree = ast.parse(path.read_text(encoding="utf8"))
        for node in ast.walk(tree):  # annotations may name what they like inside a row
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
            if isinstance(node, ast.Constant):
                node.value = None  # tables name what is imported later
        arrows[module] = {other for other in imported(tree, module, set(found)) if room(other)} - {module}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle of imports: {' -> '.join([*above[above.index(module) :], module])}"
        if module not in done:
            for other in sorted(arrows.get(module, ())):
                visit(other, (*above, module))
            done.add(module)

    for module in found:
        visit(module, ())


@pytest.mark.parametrize("path", modules().values(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_small_and_named_for_what_is_inside(path):
    lines = len(path.read_text(encoding="utf8").splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines; a file is one idea"
    assert path.stem not in EMPTY_NAMES
    assert not path.stem.startswith("base_")


def test_the_check_sees_an_arrow_upwards():
    known = {"guidebook.data.read", "guidebook.cli.main", "guidebook.errors"}
    source = "def f():\n    from guidebook.cli import main\nTABLE = {'x': 'guidebook.data.read:Table'}\nimport torch\n"
    assert set(imported(ast.parse(source), "guidebook.data.read", known)) == {
        "guidebook.cli.main",
        "guidebook.data.read",
    }
    assert ROW["data"] < ROW["cli"]
