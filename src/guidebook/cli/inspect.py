"""`guidebook inspect`: how far apart domains are, in form and in content, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from guidebook.cli.console import Terminal, print_json, stdout, table
from guidebook.cli.predict import domain_of
from guidebook.folders import check_free


def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE TARGET…", help="The source, then other domains: CSV, JSONL or TXT."),
    ],
    *,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", help="A field of all files as in a recipe: columns.text=review.", show_default=False),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Look through this base too: mini, a folder, a Hub id.", show_default=False)
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--map", help="Draw rows as points: map.png, map.svg.", show_default=False)
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Recorded directions (JSON lines) to show beside these.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws samples and halves.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Compare the source with other domains: form first, then content, then what they share.

    What differs in form (case, spacing, encoding, length) can be made equal; do that first. Content is judged
    by what two halves of one domain look like. Target labels are not read.

    [bold]guidebook inspect books.csv kitchen.csv hotels.csv --base mini --map map.png[/]
    """
    if picture is not None:
        from guidebook.inspection.map import draw, is_map

        check_free(picture, "--map", is_map)
    with Terminal(quiet) as listener:
        from guidebook.inspection.look import inspect as look

        domains = [domain_of(file, fields or ()) for file in files]
        found = look(domains, base=base, records=records, seed=seed, note=listener.note)
        if picture is not None:
            listener.note(f"the map: {draw(found, picture)}")
    if as_json:
        print_json(found)
    else:
        show(found)


def show(found: Mapping[str, Any]) -> None:
    """Print domains, then every pair: form, content, what is shared."""
    console = stdout()
    console.print(_domains(found["domains"]))
    for pair in found["pairs"]:
        console.print()
        for line in pair_lines(pair):
            console.print(line, soft_wrap=True)
    if found["directions"]:
        console.print()
        console.print(_beside(found))


def _domains(domains: list[Mapping[str, Any]]) -> Any:
    looked = any("lm_loss" in domain for domain in domains)
    extra = ("tokens/word>", "LM loss>") if looked else ()
    rows = table("domain", "rows>", "words, median>", "repeated>", "similar pairs>", *extra, "labels")
    for domain in domains:
        classes = domain.get("classes") or {}
        rows.add_row(
            escape(domain["name"]),
            f"{domain['rows']:,}",
            f"{domain['words_median']:.0f}",
            f"{domain['repeated']:,}",
            f"{domain['similar_rows']:,}",
            *((f"{domain['fertility']:.2f}", _loss(domain["lm_loss"])) if looked else ()),
            escape(", ".join(f"{name}: {count:,}" for name, count in classes.items())),
        )
    return rows


def _loss(value: float | None) -> str:
    """Return a loss as text; a base that cannot be asked for one has none."""
    return "-" if value is None else f"{value:.2f}"


def pair_lines(pair: Mapping[str, Any]) -> list[str]:
    """Return what is said of one pair, in the console's markup."""
    lines = [f"[bold]{escape(pair['source'])} to {escape(pair['target'])}[/]"]
    if pair["form"]:
        lines.append("Form: normalise these first.")
        for difference in pair["form"]:
            values = [difference["source"], difference["target"]]
            shown = [f"{v:.0%}" if difference["what"].startswith("rows") else f"{v:,.0f}" for v in values]
            lines.append(
                f"  {escape(difference['what'])}: {shown[0]} against {shown[1]}; {escape(difference['advice'])}"
            )
    else:
        lines.append("Form: no difference worth a remark.")
    content = pair["content"]
    if content["verdict"] == "too few rows":
        lines.append("Content: too few rows to say; 40 of each domain are needed.")
    else:
        lines.append(
            f"Content: {content['verdict']}. Held-out rows are told apart with an error of {content['error']:.1%}; "
            f"halves of one domain with {content['null_low']:.1%} to {content['null_high']:.1%}."
        )
    if content["source_words"]:
        lines.append(f"  for {escape(pair['source'])}: {escape(', '.join(content['source_words']))}")
        lines.append(f"  for {escape(pair['target'])}: {escape(', '.join(content['target_words']))}")
    words = pair["vocabulary"]
    lines.append(
        f"Shared: {words['frequent_words_shared']:.0%} of the frequent words; {words['running_words_known']:.0%} of "
        f"the target's running words stand in the source; {pair['same_rows']} rows are the same, "
        f"{pair['similar_rows']} similar."
    )
    if "mmd" in pair:
        lines.append(f"Base: squared MMD {pair['mmd']['squared']:.4f}, p {pair['mmd']['p_value']:.3f}.")
    return lines


def _beside(found: Mapping[str, Any]) -> Any:
    rows = table("direction", "error>", "gain>", title="Recorded directions beside yours")
    for pair in found["pairs"]:
        rows.add_row(escape(f"{pair['source']} to {pair['target']} (yours)"), f"{pair['content']['error']:.3f}", "")
    for point in found["directions"]:
        numbers = [f"{point[key]:.3f}" if key in point else "" for key in ("error", "gain")]
        rows.add_row(escape(f"{point['source']} to {point['target']}"), *numbers)
    return rows
