"""`guidebook recipe jumpstart`: a recipe from the hyper-parameters of the GPT-J hands-on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from guidebook.cli.console import print_text, remark
from guidebook.errors import InputError


def jumpstart(
    file: Annotated[Path, typer.Argument(metavar="PARAMS.json", help="Hyper-parameters: one JSON object.")],
    *,
    base: Annotated[str, typer.Option(help="The recipe's base.")] = "EleutherAI/gpt-j-6b",
    target: Annotated[
        list[str] | None, typer.Option(help="The recipe's targets: a folder with train/, or files.", show_default=False)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate of the adapters, instead of the scaled one.", show_default=False)
    ] = None,
) -> None:
    """Translate the hyper-parameters of the GPT-J hands-on into a recipe.

    The recipe goes to stdout; what was changed, is not supported or is not
    known stands in it as comments, and on stderr.

    [bold]guidebook recipe jumpstart params.json --target filings/ > recipe.yaml[/]
    """
    from guidebook.jumpstart import translate

    found = translate(read(file), base=base, targets=target or ["train"], learning_rate=learning_rate)
    said = [
        *found.notes,
        *(f"not supported: {line}" for line in found.unsupported),
        *(f"unknown: {line}" for line in found.unknown),
    ]
    for line in said:
        remark(line)
    comments = "".join(f"# {line}\n" for line in said)
    print_text(comments + yaml.safe_dump(found.recipe, sort_keys=False, allow_unicode=True).rstrip())


def read(file: Path) -> dict[str, object]:
    """Return the hyper-parameters of a file.

    Raises:
        InputError: no such file, or not one JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}). Write one object of names and values.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: found {type(content).__name__}, expected one object of names and values.")
    return content
