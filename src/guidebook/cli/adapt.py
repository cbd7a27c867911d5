"""`guidebook adapt`: from a recipe, or flags, to a guidebook."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from guidebook.adapters.presets import KINDS
from guidebook.cli.console import Terminal, print_json, print_plan, print_text, stdout, table
from guidebook.cli.fields import field_text
from guidebook.errors import InputError, nearest
from guidebook.methods import METHODS
from guidebook.tasks import TASKS

if TYPE_CHECKING:
    from guidebook.artifact import Guidebook

COLOURS = {"helped": "green", "hurt": "red", "noise": "yellow", "mixed": "yellow"}
REPEAT = " Repeat the flag for several."


def recipe_text(name: str) -> str:
    """Return what the recipe says of one of its fields, for `--help`."""
    return escape(field_text("guidebook.recipe:Recipe", name))


def adapt(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE.yaml|key=value",
            help="A recipe, and changes to it, such as seed=1 adapter.reduction=8 train.task.epochs=3.",
            show_default=False,
        ),
    ] = None,
    *,
    base: Annotated[str | None, typer.Option(help=recipe_text("base"))] = None,
    source: Annotated[list[str] | None, typer.Option(help=recipe_text("source") + REPEAT, show_default=False)] = None,
    target: Annotated[list[str] | None, typer.Option(help=recipe_text("targets") + REPEAT, show_default=False)] = None,
    method: Annotated[
        str | None,
        typer.Option(help=recipe_text("method") + " See `guidebook ls methods`.", autocompletion=lambda: list(METHODS)),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(help=recipe_text("adapter") + " See `guidebook ls adapters`.", autocompletion=lambda: list(KINDS)),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the guidebook. Empty: runs/ and the recipe's name.", show_default=False),
    ] = None,
    task: Annotated[str | None, typer.Option(help=f"What is learned: {', '.join(TASKS)}.")] = None,
    general: Annotated[list[str] | None, typer.Option(help=recipe_text("general") + REPEAT, show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help=recipe_text("seed"), show_default=False)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and how long it takes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print guidebook.json instead of a summary.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; print only the folder.")] = False,
    figures: Annotated[
        str, typer.Option(help="all, or none: leave out the report's closer look, which reads rows again.")
    ] = "all",
) -> None:
    """Adapt a frozen base to target domains without their labels.

    Everything can stand in the recipe; flags change it; key=value comes last.
    Paths in a recipe are relative to its folder.

    The same command, run again, goes on after an interruption and reuses
    every stage whose input has not changed.

    [bold]guidebook adapt examples/quickstart.yaml --dry-run[/]

    [bold]guidebook adapt --source books.csv --target kitchen.csv --out runs/kitchen adapter.reduction=8[/]
    """
    recipe_path, overrides = split_words(words or ())
    flags: dict[str, object] = {
        "base": base,
        "source": source,
        "targets": target,
        "task": task,
        "general": general,
        "method": method,
        "adapter": adapter,
        "seed": seed,
    }
    if figures not in ("all", "none"):
        raise InputError(f"--figures {figures}: write all or none.{nearest(figures, ('all', 'none'))}")
    given = {name: value for name, value in flags.items() if value is not None and value != []}

    with Terminal(quiet) as listener:
        listener.start("loading torch and transformers", None)
        from guidebook.recipe import load_recipe

        recipe = load_recipe(recipe_path, overrides, given)
        from guidebook.adaptation import adapt as run
        from guidebook.adaptation import estimate
        from guidebook.training.processes import is_first

        listener.finish("loading torch and transformers")
        if dry_run:
            plan = estimate(recipe, listener=listener)
        else:
            chosen: Any = figures
            book = run(recipe, out=out or default_out(recipe_path), listener=listener, figures=chosen)
    if not is_first():
        return  # one of several processes speaks
    if dry_run and as_json:
        print_json(plan)
    elif dry_run:
        print_plan(stdout(), plan)
    elif as_json:
        print_json({"path": str(book.path), **book.meta})
    elif quiet:
        print_text(str(book.path))
    else:
        print_summary(book)


def default_out(recipe: Path | None) -> Path | None:
    """Return where the guidebook of a recipe file goes if nothing is said; without a file, None: the cache.

    >>> default_out(Path("examples/quickstart.yaml"))
    PosixPath('runs/quickstart')
    """
    return Path("runs") / recipe.stem if recipe is not None else None


def print_summary(book: Guidebook) -> None:
    """Print what a run found, its verdict, and where everything is."""
    from guidebook.reports.summary import summary

    found, console = summary(book.meta), stdout()
    if console.is_terminal:
        for part in found.tables():
            headings = [name + ">" * (side == "r") for name, side in zip(part.columns, part.align, strict=True)]
            drawn = table(*headings, title=part.title)
            for row in part.rows:
                drawn.add_row(*map(escape, row))
            console.print(drawn)
            console.print()
        console.print(f"[bold {COLOURS.get(found.outcome, 'default')}]{escape(found.verdict)}[/]")
        for line in found.findings:
            console.print(escape(f"- {line}"))
        console.print()
    else:
        print_text(found.text())
        print_text("")
    for name, path in (
        ("guidebook", book.path),
        ("report", book.path / "report.html"),
        ("records", book.path / "records.jsonl"),
    ):
        if path.exists():
            print_text(f"{name + ':':<11}{path}")


def split_words(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the recipe's path, if one is given, and the `a.b=c` overrides.

    Raises:
        InputError: a word that is neither.

    >>> split_words(["x.yaml", "seed=1"])
    (PosixPath('x.yaml'), ['seed=1'])
    """
    recipe: Path | None = None
    overrides: list[str] = []
    for word in words:
        if "=" in word and not os.path.isfile(word):
            overrides.append(word)
        elif recipe is None and word.endswith((".yaml", ".yml")):
            recipe = Path(word)
        else:
            raise InputError(
                f"{word!r} is neither a recipe (one .yaml file) nor a change to it (key=value). "
                f"Labelled data goes to --source, text to adapt to goes to --target."
            )
    return recipe, overrides
