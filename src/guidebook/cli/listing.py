"""`guidebook ls`: what there is to choose from, read from the tables without importing torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from guidebook.adapters.known import known_bases
from guidebook.cli.catalogue import sections_of
from guidebook.cli.console import print_json, stdout, table
from guidebook.cli.fields import first_line
from guidebook.errors import InputError, nearest

TABLES = {  # what `ls` is asked for -> module and name of the table
    "methods": ("guidebook.methods", "METHODS"),
    "adapters": ("guidebook.adapters.presets", "KINDS"),
    "architectures": ("guidebook.adapters.placement", "PLACEMENTS"),
    "tasks": ("guidebook.tasks", "TASKS"),
    "losses": ("guidebook.losses", "LOSSES"),
}
KNOWN = ("methods", "adapters", "bases", "architectures", "tasks", "losses", "guidebooks")


def ls(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT", autocompletion=lambda: list(KNOWN), help=", ".join(KNOWN) + ". Empty: all but guidebooks."
        ),
    ] = None,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to look for guidebooks.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what there is to choose from, and the guidebooks in a folder.

    [bold]guidebook ls methods[/]

    [bold]guidebook ls guidebooks runs[/]
    """
    if what is not None and what not in KNOWN:
        raise InputError(f"There is no list of {what!r}.{nearest(what, KNOWN)} Known: {', '.join(KNOWN)}.")
    if what == "guidebooks":
        list_guidebooks(folder, as_json)
        return
    asked = [what] if what else [name for name in KNOWN if name != "guidebooks"]
    found = {name: rows_of(name) for name in asked}
    if as_json:
        print_json(found[what] if what else found)
        return
    for name, rows in found.items():
        listed = table(*[""] * len(rows[0]), title=None if what else f"{name}")
        for row in rows:
            listed.add_row(*(escape(first_paper(text) if key == "paper" else text) for key, text in row.items()))
        stdout().print(listed)
        if not what:
            stdout().print()


def rows_of(what: str) -> list[dict[str, str]]:
    """Return name and one line about every entry of a table, and the papers of methods."""
    if what == "bases":
        return bases()
    module, name = TABLES[what]
    entries: Mapping[str, Any] = getattr(import_module(module), name)
    rows = [{"name": key, "about": about(value)} for key, value in entries.items()]
    if what == "methods":
        rows = [{**row, "paper": sections_of(entries[row["name"]]).get("Reference", "")} for row in rows]
    return rows


def first_paper(reference: str) -> str:
    """Return authors and year of a reference's first paper; of what comes from no single paper, what stands before ":".

    >>> first_paper("Gao, Yao and Chen 2021, SimCSE, EMNLP; Another 2022, Title.")
    'Gao, Yao and Chen 2021'
    >>> first_paper("our own recipe: put together from Another 2022.")
    'our own recipe'
    """
    found = re.match(r"[^:]*?\b(?:19|20)\d\d\b", reference)
    return found.group() if found else reference.partition(":")[0]


def about(entry: object) -> str:
    """Return one line about a table's entry: the first docstring line of its class, or where adapters sit."""
    if isinstance(entry, str):
        return first_line(entry)
    named = [(name, getattr(entry, name, None)) for name in ("kind", "attention", "feed_forward")]
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in named if value).replace("\\.", ".")


def bases() -> list[dict[str, str]]:
    """Return the bases that have a name, and the other kinds there are."""
    rows = []
    for row in known_bases().values():
        place = "here" if row.place is not None else f"not here yet: guidebook bases get {row.name}"
        rows.append({"name": row.name, "about": f"{row.about or row.kind or 'a base'}; from {row.origin}, {place}"})
    rows.append({"name": "FOLDER", "about": "a folder with a model and its tokenizer"})
    rows.append({"name": "FILE.gguf", "about": "a GGUF file"})
    rows.append({"name": "OWNER/MODEL", "about": "a model id of the Hugging Face Hub"})
    return rows


def list_guidebooks(folder: Path, as_json: bool) -> None:
    """Print the guidebooks under a folder."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder. Name one that holds guidebooks: guidebook ls guidebooks runs."
        )
    found = [(path.parent, read_meta(path)) for path in sorted(folder.rglob("guidebook.json"))]
    books = [describe(path, meta) for path, meta in found]
    if as_json:
        print_json(books)
        return
    listed = table("folder", "base", "method", "source", "targets", "seed>", "MB per domain>", "created")
    for book in books:
        listed.add_row(*(escape(shown(value)) for value in book.values()))
    if books:
        stdout().print(listed)
    else:
        stdout().print(f"No guidebook under {escape(str(folder))}.")


def read_meta(path: Path) -> dict[str, Any]:
    """Return the content of a guidebook.json.

    Raises:
        InputError: it is not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not valid JSON: {error}. Make the guidebook again, or move the folder away."
        ) from error
    return content if isinstance(content, dict) else {}


def describe(path: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the list of guidebooks shows of one."""
    roles: dict[str, list[str]] = {"source": [], "target": []}
    for domain in meta.get("domains", ()):
        roles.setdefault(str(domain.get("role")), []).append(str(domain.get("name")))
    return {
        "folder": str(path),
        "base": meta.get("base", {}).get("id", ""),
        "method": meta.get("method", ""),
        "source": list(dict.fromkeys(roles["source"])),  # training and held-out rows are two entries
        "targets": list(dict.fromkeys(roles["target"])),
        "seed": meta.get("seed", ""),
        "megabytes_per_domain": meta.get("size", {}).get("megabytes_per_domain"),
        "created": str(meta.get("created", ""))[:16].replace("T", " "),
    }


def shown(value: object) -> str:
    """Return a value as a table's cell."""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
