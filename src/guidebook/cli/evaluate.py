"""`guidebook evaluate`: scores of a guidebook on labelled rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from guidebook.cli.console import Terminal, print_json, remark, stdout, table
from guidebook.cli.forgetting import forgotten, show_forgetting
from guidebook.cli.losses import evaluate_losses
from guidebook.cli.moved_base import BasePlace
from guidebook.cli.predict import domain_of
from guidebook.errors import InputError


def evaluate(
    book: Annotated[Path, typer.Argument(metavar="BOOK", help="Folder of a guidebook.")],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Labelled rows: a file, a folder, or hf:OWNER/NAME.", show_default=False),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="key=value",
            help="Fields of the domain as in a recipe: columns.label=stars where.domain=dvd.",
            show_default=False,
        ),
    ] = None,
    *,
    domain: Annotated[str | None, typer.Option(help="Score only what serves this target.", show_default=False)] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(help="A generative guidebook's: text of the domain that it never saw.", show_default=False),
    ] = None,
    general: Annotated[
        list[str] | None,
        typer.Option(help="Text outside the domain: what did the adapters make the base forget?", show_default=False),
    ] = None,
    prompts: Annotated[
        int, typer.Option(help="A generative guidebook's: prompts to measure memorisation with; 0: none.")
    ] = 100,
    base: BasePlace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score a guidebook, and its source-only twin, on labelled rows.

    The accuracy stands with its 95 % interval; --json adds the scores of every label and the confusion matrix.

    A generative guidebook is measured on raw text: bits per byte and
    perplexity before and after, and what it learned by heart.

    [bold]guidebook evaluate runs/kitchen kitchen-labelled.csv[/]

    [bold]guidebook evaluate runs/kitchen --general wikipedia.txt[/]

    [bold]guidebook evaluate runs/filings --on other.txt --general wiki.txt[/]
    """
    with Terminal(quiet) as listener:
        listener.start("loading the guidebook", None)
        from guidebook.adaptation import evaluate as score
        from guidebook.artifact import load

        loaded = load(book, base=base)
        listener.finish("loading the guidebook")
        if on or not loaded.labels:
            listener.start("measuring", None)
            evaluate_losses(loaded, on or (), general or (), domain=domain, prompts=prompts, as_json=as_json)
            return
        if file is None and not general:
            raise InputError("There are no rows to score on. Name a file with labels: guidebook evaluate BOOK FILE.")
        listener.start("predicting", None)
        scores: dict[str, Any] = score(loaded, domain_of(file, words or ()), domain) if file is not None else {}
        if general:
            scores["forgetting"] = forgotten(loaded, general)
        listener.finish("predicting")
    if as_json:
        print_json(scores)
        return
    if "scores" in scores:
        show(scores["scores"])
        unknown = ", ".join(f"{label!r}: {count}" for label, count in scores["unknown_labels"].items())
        if not quiet:
            _remarks(scores, unknown)
    if "forgetting" in scores:
        show_forgetting(scores["forgetting"])


def _remarks(scores: Mapping[str, Any], unknown: str) -> None:
    """Say what is not scored, and which rows the guidebook was trained on."""
    from guidebook.data.overlap import said_of_overlap

    if unknown:
        remark(f"Rows with labels that the guidebook does not know are not scored ({unknown}).")
    if scores.get("without_label"):
        remark(f"{scores['without_label']:,} rows without labels are not scored.")
    overlap = scores.get("overlap")
    if overlap is None:
        remark("Whether the guidebook was trained on some of these rows is not known: its texts cannot be read.")
        return
    if overlap["rows"] and overlap["in"].get("targets") == overlap["rows"]:
        remark("All of these rows were adapted to, without their labels.")
    for line in said_of_overlap(overlap):
        remark(f"{line}.")


def show(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one line of scores per variant: accuracy of rows, or entity F1 of texts where words are tagged."""
    from guidebook.evaluation.task_scores import ENTITY_F1, METRICS, metric_of, primary

    metric = metric_of(next(iter(scores.values())))
    others = ("texts>", "accuracy of words>") if metric == ENTITY_F1 else ("rows>", "macro-F1>")
    rows = table("variant", others[0], f"{METRICS[metric]}>", "95 % interval>", others[1], "calibration error>")
    for name, score in scores.items():
        found = primary(score)
        rows.add_row(
            escape(name),
            f"{score['texts' if metric == ENTITY_F1 else 'rows']:,}",
            f"{found.estimate:.1%}",
            f"{found.low:.1%} to {found.high:.1%}",
            f"{score['accuracy' if metric == ENTITY_F1 else 'macro_f1']:.1%}",
            f"{score['calibration_error']:.1%}",
        )
    stdout().print(rows)
