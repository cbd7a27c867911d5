"""The documentation of fields, read from the source where it is written once; `--help` and the docs come from it.

`python -m guidebook.cli.fields docs/recipes.md` writes the tables of a recipe's fields between the file's marks.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from guidebook.adapters.presets import KINDS
from guidebook.methods import METHODS
from guidebook.reports.marks import fill
from guidebook.tasks import TASKS


@dataclass(frozen=True)
class Field:
    """One field of a dataclass as its source documents it."""

    name: str
    default: str
    """As in the source; empty where there is none to show."""
    choices: tuple[str, ...]
    """The values of a Literal."""
    text: str
    value: object = ...
    """The default itself; ... where the field has none, or one that is not plain data."""


@cache
def class_source(place: str) -> ast.ClassDef | None:
    """Return the syntax tree of `module:Class` without importing the module, None if it is not there."""
    module, _, name = place.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    body = ast.parse(Path(spec.origin).read_text(encoding="utf8")).body
    return next((node for node in body if isinstance(node, ast.ClassDef) and node.name == name), None)


def first_line(place: str) -> str:
    """Return the first docstring line of `module:Class`.

    >>> first_line("guidebook.errors:InputError")
    'The input is wrong: data, recipe, names, a missing package. Nothing was changed.'
    """
    node = class_source(place)
    return (ast.get_docstring(node) or "").partition("\n")[0] if node is not None else ""


def fields_of(place: str) -> list[Field]:
    """Return the documented fields of the dataclass `module:Class`, in order.

    >>> [field.name for field in fields_of("guidebook.data.columns:Columns")]
    ['text', 'text_pair', 'label']
    """
    node = class_source(place)
    body = node.body if node is not None else []
    found = []
    for item, following in pairwise(body):
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)) or _is_of_class(item.annotation):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(str(following.value.value).split())
            default, choices = _default(item.value), _choices(item.annotation)
            found.append(Field(item.target.id, default, choices, text, _value(item.value)))
    return found


def field_text(place: str, name: str) -> str:
    """Return what is said of one field.

    Raises:
        KeyError: the class has no such field.
    """
    return {field.name: field.text for field in fields_of(place)}[name]


def _default(node: ast.expr | None) -> str:
    if node is None or isinstance(node, ast.Call) or (isinstance(node, ast.Constant) and node.value is None):
        return ""
    if isinstance(node, ast.Tuple) and not node.elts:
        return ""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | str):
        return str(node.value).lower() if isinstance(node.value, bool) else node.value
    return ast.unparse(node)


def _value(node: ast.expr | None) -> object:
    """Return a default as plain data, ... where it is not: a tuple as a list, an empty factory as what it makes."""
    if isinstance(node, ast.Call):
        factories: dict[str, object] = {"dict": {}, "list": [], "tuple": []}
        made = {ast.unparse(item.value) for item in node.keywords if item.arg == "default_factory"}
        return next((factories[name] for name in made if name in factories), ...)
    try:
        value = ast.literal_eval(node) if node is not None else ...
    except ValueError:
        return ...
    return list(value) if isinstance(value, tuple) else value


def _is_of_class(node: ast.expr) -> bool:
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) == "ClassVar"


def _choices(node: ast.expr) -> tuple[str, ...]:
    if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal"):
        return ()
    values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return tuple(str(value.value) for value in values if isinstance(value, ast.Constant))


def sections() -> Iterator[tuple[str, str, str]]:
    """Yield heading, prefix of the keys and `module:Class` of every part of a recipe."""
    yield "The recipe", "", "guidebook.recipe:Recipe"
    yield "A domain: `source`, `targets`, `unlabelled`, `general`", "", "guidebook.data.domains:Domain"
    yield "Columns of a domain's file", "columns.", "guidebook.data.columns:Columns"
    for name, place in TASKS.items():
        yield f"Task `{name}`", "task.", place
    for name, place in KINDS.items():
        yield f"Adapter `{name}`", "adapter.", place
    for name, place in METHODS.items():
        yield f"Method `{name}`", "method.", place
    yield "Training", "train.", "guidebook.training.settings:Training"
    yield "Training of stages that model text", "train.fuse.", "guidebook.training.settings:FuseTraining"
    yield "Training of stages that learn the task", "train.task.", "guidebook.training.settings:TaskTraining"


def tables() -> str:
    """Return every part of a recipe as Markdown: heading, first docstring line, table of fields."""
    parts = []
    for heading, prefix, place in sections():
        rows = [field for field in fields_of(place) if len(field.choices) != 1]  # a single choice is the name itself
        parts.append(f"### {heading}\n\n{first_line(place)}\n")
        if rows:
            parts.append("| key | default | |\n|---|---|---|\n" + "".join(_row(prefix, field) for field in rows))
    return "\n".join(parts)


def _row(prefix: str, field: Field) -> str:
    default = f"`{field.default}`" if field.default else ""
    unsaid = [choice for choice in field.choices if choice not in field.text]
    text = f"{field.text} One of {', '.join(field.choices)}." if unsaid else field.text
    return f"| `{prefix}{field.name}` | {default} | {text.replace('|', chr(92) + '|')} |\n"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        fill(Path(argument), "fields", tables())
