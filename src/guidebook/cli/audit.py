"""`guidebook audit`: which target rows to label, and what their labels say about shipping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from guidebook.cli.console import Terminal, print_json, remark, stdout, table
from guidebook.cli.moved_base import BasePlace
from guidebook.errors import InputError

if TYPE_CHECKING:
    from guidebook.artifact import Guidebook

WORDS = {
    "ship": "Ship the adapted model: it is better than its source-only twin.",
    "keep_source_only": "Keep the source-only model: adapting shows no gain that these labels could confirm.",
    "label_more": "Label {more} more rows: the difference is not settled yet.",
}


def audit(
    book: Annotated[Path, typer.Argument(metavar="BOOK", help="Folder of a guidebook.")],
    *,
    label: Annotated[
        int | None, typer.Option(help="Write so many target rows to label; again: so many more.", show_default=False)
    ] = None,
    labelled: Annotated[
        list[Path] | None, typer.Option(help="Read the filled-in file back; several are joined.", show_default=False)
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Which target.", show_default=False)] = None,
    pool: Annotated[
        Path | None, typer.Option(help="Texts of the target, if not those it was adapted to.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the rows; else in the guidebook's folder.", show_default=False)
    ] = None,
    base: BasePlace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Find out with a hundred labels whether the adapted model beats its source-only twin on the target.

    Half of the rows are drawn where the two models disagree, the rest by confidence. Without --label and
    --labelled the last verdict is shown. `guidebook predict --guard` follows it.

    [bold]guidebook audit runs/kitchen --label 100[/]

    [bold]guidebook audit runs/kitchen --labelled runs/kitchen/audit-kitchen.csv[/]
    """
    with Terminal(quiet) as listener:
        listener.start("loading the guidebook", None)
        from guidebook.artifact import load
        from guidebook.caution import target_of

        loaded = load(book, base=base)
        listener.finish("loading the guidebook")
        target = target_of(loaded, domain or "auto")
        if label is not None:
            listener.start("predicting", None)
            found = _write(loaded, target, label, (pool, out))
            listener.finish("predicting")
        else:
            found = _judged(loaded, target, labelled or [])
    if as_json:
        print_json(found)
    elif label is not None:
        stdout().print(f"{found['rows']} rows to label: {escape(found['file'])}", soft_wrap=True)
        remark(f"Fill in the column label, then: guidebook audit {book} --domain {target} --labelled {found['file']}")
    else:
        show(found)


def _write(book: Guidebook, target: str, rows: int, places: tuple[Path | None, Path | None]) -> dict[str, Any]:
    from guidebook.audit import plan_audit, pool_of, save_audit, write_rows
    from guidebook.caution import read_audit
    from guidebook.data.domains import domain_from
    from guidebook.folders import check_free, free_name
    from guidebook.writing import retired

    pool, out = places
    if out is not None:
        check_free(out)  # before anything is predicted
    population = pool_of(book, target, domain_from(pool) if pool is not None else None)
    plan = plan_audit(book, target, population, rows)
    known = read_audit(book).get(target, {})
    again = known.get("plan", {}).get("pool") == plan["pool"]
    safe = "".join(mark if mark.isalnum() or mark in "-_" else "-" for mark in target)
    number = f"-{len(plan['rows'])}" if again else ""
    place = out or free_name(book.path / f"audit-{safe}{number}.csv")
    count = write_rows(population, plan, place)
    save_audit(book, target, {**(known if again or not known else retired(known)), "plan": plan})
    if not again and known.get("labels"):
        remark(f"The pool is another than that of {target}'s earlier audit, whose labels are kept in audit.json.")
    return {"target": target, "rows": count, "file": str(place)}


def _judged(book: Guidebook, target: str, files: list[Path]) -> dict[str, Any]:
    from guidebook.audit import judge, looks, read_labels, save_audit
    from guidebook.caution import read_audit

    entry = read_audit(book).get(target)
    if entry is None or "plan" not in entry:
        why = " for these models (those of an earlier audit are kept in audit.json)" if entry else ""
        raise InputError(f"{target}: no rows were drawn{why}. First: guidebook audit {book.path} --label 100.")
    labels = {int(row): value for row, value in entry.get("labels", {}).items()}
    for file in files:
        labels |= read_labels(file, entry["plan"], book.labels)
    if not labels:
        raise InputError(f"{target}: no labels yet. Give the filled-in file: --labelled FILE.")
    entry |= {"looks": looks(entry, labels), "labels": labels, **judge(entry["plan"], labels)}
    save_audit(book, target, entry)
    return {
        "target": target,
        **{key: value for key, value in entry.items() if key not in ("plan", "labels", "earlier")},
    }


def show(found: Mapping[str, Any]) -> None:
    """Print accuracies, their difference and the verdict."""
    rows = table("", "accuracy>", "95 % interval>", "prediction-powered>")
    for name in ("adapted", "source_only", "difference"):
        sign = "+" if name == "difference" else ""
        value, other = found[name], found["prediction_powered"][name]
        rows.add_row(
            name.replace("_", " "),
            f"{value['estimate']:{sign}.1%}",
            f"{value['low']:{sign}.1%} to {value['high']:{sign}.1%}",
            f"{other['low']:{sign}.1%} to {other['high']:{sign}.1%}",
        )
    console = stdout()
    console.print(rows)
    console.print(
        f"{escape(found['target'])}: {found['labelled']} of {found['pool_rows']:,} rows labelled; the models disagree "
        f"on {found['disagree']:.1%}.",
        soft_wrap=True,
    )
    console.print(f"[bold]{WORDS[found['verdict']].format(more=found['more'])}[/]", soft_wrap=True)
    if (count := found["looks"]) > 1:
        console.print(
            f"This is verdict {count} on one question. Each errs in at most one audit of twenty, one or more of the "
            f"{count} in up to {min(5 * count, 100)} of 100: fix the number of labels before you look.",
            soft_wrap=True,
        )
