"""`guidebook report`: one self-contained HTML page from a run's folder, or from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guidebook.cli.console import print_text, remark
from guidebook.errors import InputError


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
    made = out or folder / "report.html"
    if not place.exists():
        raise InputError(f"{place}: there is no such folder or file. Name a run: guidebook report runs/kitchen.")
    if (folder / "guidebook.json").exists():
        from guidebook.reports.figures import HOW_TO, can_draw
        from guidebook.reports.page import read_run, write_report

        facts, evidence = read_run(folder)
        write_report(facts, made, evidence)
        if not can_draw() and not quiet:
            remark(f"Without curves and maps: {HOW_TO}.")
    else:
        from guidebook.evaluation.records import read_records
        from guidebook.reports.comparison import write_comparison

        records = folder / "records.jsonl" if place.is_dir() else place
        if not records.exists():
            raise InputError(f"{place}: neither a guidebook (guidebook.json) nor records (records.jsonl) are there.")
        write_comparison(read_records(records), made)
    print_text(str(made))
