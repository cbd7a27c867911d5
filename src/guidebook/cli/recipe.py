"""`guidebook recipe`: a recipe to start from, every field with what it does; other starting points are sub-commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Annotated

import typer
import yaml

from guidebook.adapters.presets import KINDS
from guidebook.cli.console import print_text
from guidebook.cli.fields import Field, fields_of, first_line
from guidebook.errors import InputError, nearest
from guidebook.methods import METHODS
from guidebook.tasks import TASKS

WIDTH = 100
STARTS: dict[str, object] = {"path": "FILE", "source": "books.csv", "targets": ["kitchen.csv"]}
"""What a run cannot do without, with a value to replace."""
TRAINING = "guidebook.training.settings:"
NESTED = {"fuse": TRAINING + "FuseTraining", "task": TRAINING + "TaskTraining"}

recipe = typer.Typer(no_args_is_help=False, invoke_without_command=True)


@recipe.callback()
def print_template(
    context: typer.Context,
    *,
    method: Annotated[
        str, typer.Option(help="Method to write out.", autocompletion=lambda: list(METHODS))
    ] = "domain_fusion",
    adapter: Annotated[
        str, typer.Option(help="Kind of adapter to write out.", autocompletion=lambda: list(KINDS))
    ] = "houlsby",
    task: Annotated[
        str, typer.Option(help="Kind of task to write out.", autocompletion=lambda: list(TASKS))
    ] = "classification",
) -> None:
    """Print a recipe to start from: every field, what it does, and its default.

    What is behind a # has its default; take the # away to change it.

    [bold]guidebook recipe > recipe.yaml[/]

    [bold]guidebook recipe --adapter lora --method target_mlm[/]
    """
    if context.invoked_subcommand is None:
        print_text(template(method, adapter, task))


def template(method: str, adapter: str, task: str) -> str:
    """Return a recipe as YAML with comments.

    Raises:
        InputError: an unknown method, kind of adapter or task.
    """
    chosen = {
        "method": ("name", method, METHODS),
        "adapter": ("kind", adapter, KINDS),
        "task": ("kind", task, TASKS),
    }
    words = ", ".join(f"{field} {name}" for field, (_, name, _) in chosen.items())
    lines = [f"# A recipe with {words}: guidebook adapt THIS_FILE", ""]
    for field in fields_of("guidebook.recipe:Recipe"):
        lines += _comment(field, 0)
        if field.name in chosen:
            key, name, table = chosen[field.name]
            place = _place(field.name, name, table)
            lines += [f"{field.name}:", *_comment_text(first_line(place), 2), f"  {key}: {name}"]
            lines += _block([item for item in fields_of(place) if item.name != key], 2)
        elif field.name == "train":
            lines += ["train:", *_training()]
        else:
            lines += _line(field, 0)
        lines.append("")
    return "\n".join(lines)


def _place(field: str, name: str, table: Mapping[str, str]) -> str:
    if name not in table:
        raise InputError(f"{field}: there is no {name!r}.{nearest(name, table)} Known: {', '.join(table)}.")
    return table[name]


def _training() -> Iterator[str]:
    for field in fields_of(TRAINING + "Training"):
        yield from _comment(field, 2)
        if field.name in NESTED:
            yield f"  #{field.name}:"
            yield from _block(fields_of(NESTED[field.name]), 4)
        else:
            yield from _line(field, 2)


def _block(fields: list[Field], indent: int) -> Iterator[str]:
    for field in fields:
        yield from _comment(field, indent)
        yield from _line(field, indent)


def _comment(field: Field, indent: int) -> list[str]:
    unsaid = [choice for choice in field.choices if choice not in field.text]
    return _comment_text(f"{field.text} One of {', '.join(field.choices)}." if unsaid else field.text, indent)


def _comment_text(text: str, indent: int) -> list[str]:
    return [f"{' ' * indent}# {line}" for line in wrap(text, WIDTH - indent)]


def _line(field: Field, indent: int) -> list[str]:
    """Return the key with its value: as it is where a run needs one, behind a # where that is the default."""
    sign, value = ("", STARTS[field.name]) if field.name in STARTS else ("#", field.value)
    if value is ...:
        return []
    text = "" if value is None else yaml.safe_dump(value, default_flow_style=True, width=1000).partition("\n")[0]
    return [f"{' ' * indent}{sign}{field.name}: {text}".rstrip()]
