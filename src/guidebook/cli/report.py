"""`guidebook report`: one self-contained HTML page from a run's folder, or from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guidebook.cli.console import print_text, remark
from guidebook.errors import InputError
from guidebook.folders import check_free, is_sealed, put, recover, replace_file, sealed


def report(
    place: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a guidebook or a comparison, or records.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write. Empty: report.html in the folder.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the file.")] = False,
) -> None:
    """Write one HTML page of a run or a comparison: no network, opens from disk, prints.

    Nothing is trained or predicted; the page is made from what the run kept.

    [bold]guidebook report runs/kitchen[/]

    [bold]guidebook report runs/quickstart-compare/records.jsonl[/]
    """
    folder = place if place.is_dir() else place.parent
    if out is not None:
        check_free(out, is_ours=is_sealed)
    made = out or folder / "report.html"
    if not place.exists():
        raise InputError(f"{place}: there is no such folder or file. Name a run: guidebook report runs/kitchen.")
    recover(folder)
    if (folder / "guidebook.json").exists():
        from guidebook.reports.figures import HOW_TO, can_draw
        from guidebook.reports.page import read_run, render

        facts, evidence = read_run(folder)
        missing = {name: why for name, why in (facts.get("missing") or {}).items() if name != "report"}
        page = render({**facts, "missing": missing}, evidence)
        if not can_draw() and not quiet:
            remark(f"Without curves and maps: {HOW_TO}.")
    else:
        from guidebook.evaluation.records import read_records
        from guidebook.reports.comparison import render_comparison

        records = folder / "records.jsonl" if place.is_dir() else place
        if not records.exists():
            raise InputError(f"{place}: neither a guidebook (guidebook.json) nor records (records.jsonl) are there.")
        page = render_comparison(read_records(records))
    write_page(made, page, is_own=out is None)
    print_text(str(made))


def write_page(place: Path, page: str, is_own: bool) -> None:
    """Write a page as UTF-8; where it is the report of a folder, one that was changed by hand stays beside it.

    Raises:
        InputError: it cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not is_own:
            replace_file(place, sealed(page).encode())
        elif (kept := put(place, sealed(page).encode())) is not None:
            remark(f"{place} was changed by hand: your version is kept as {kept.name}.")
    except OSError as error:
        raise InputError(f"{place}: cannot be written: {error.strerror or error}.") from error
