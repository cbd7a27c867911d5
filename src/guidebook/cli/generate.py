"""`guidebook generate`: what a generative guidebook writes after a prompt, beside what its base writes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from guidebook.cli.console import Terminal, print_json, print_text, stdout, table
from guidebook.cli.moved_base import BasePlace
from guidebook.errors import InputError


def generate(
    book: Annotated[Path, typer.Argument(metavar="BOOK", help="Folder of a guidebook.")],
    *,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Text to go on from. Repeat the flag for several. Empty: the prompts of the guidebook's own samples.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show what the base writes beside it.")] = False,
    domain: Annotated[str | None, typer.Option(help="Which target's guidebook writes.", show_default=False)] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of prompt and text. Empty: 400, or what fits.", show_default=False)
    ] = None,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest tokens; 0: from all.")] = 250,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens with this probability together.")] = 0.8,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0 takes the likeliest token.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Fixes the draws.")] = 0,
    base: BasePlace = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write on from prompts.

    Text appears as it is made; with --compare, --markdown or --json a table of
    prompt, before and after is printed when all is there.

    [bold]guidebook generate runs/filings --prompt "Our vision is" --compare[/]
    """
    if markdown and as_json:
        raise InputError("--markdown and --json are two forms of one answer. Give one of them.")
    with Terminal(quiet) as listener:
        listener.start("loading the guidebook", None)
        from guidebook.artifact import load
        from guidebook.training.generation import Sampling

        sampling = Sampling(max_length, top_k, top_p, temperature, seed)
        loaded = load(book, base=base)
        prompts = list(prompt or _sampled(loaded.meta))
        listener.finish("loading the guidebook")
    which = domain or "auto"
    if not (compare or markdown or as_json):
        for text in prompts:
            sys.stdout.write(text)
            loaded.generate([text], sampling, which, _stream)
            sys.stdout.write("\n\n")
        return
    with Terminal(quiet) as listener:
        listener.start("writing", len(prompts) * (1 + compare))
        rows = []
        for text in prompts:
            before = loaded.generate([text], sampling, None)[0] if compare else None
            rows.append((text, before, loaded.generate([text], sampling, which)[0]))
            listener.advance("writing", len(rows) * (1 + compare))
        listener.finish("writing")
    if as_json:
        named = [{"prompt": text, "before": before, "after": after} for text, before, after in rows]
        print_json({"sampling": vars(sampling), "texts": named if compare else [_only(row) for row in named]})
    elif markdown:
        print_text(as_markdown(rows))
    else:
        show(rows)


def _sampled(meta: Mapping[str, Any]) -> list[str]:
    """Return the prompts that a run wrote on from before and after training.

    Raises:
        InputError: there were none.
    """
    samples = meta.get("evaluation", {}).get("samples", [])
    if not samples:
        raise InputError('There is nothing to go on from. Give the beginning of a text: --prompt "Our vision is".')
    return list(dict.fromkeys(sample["prompt"] for sample in samples))


def as_markdown(rows: Sequence[tuple[str, str | None, str]]) -> str:
    r"""Return the rows as a Markdown table.

    >>> print(as_markdown([("Our vision is", "to | win", "clear")]))
    | prompt | before | after |
    |---|---|---|
    | Our vision is | to \| win | clear |
    """
    names = _headings(rows)
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(_cell(cell) for cell in row if cell is not None)} |" for row in rows]
    return "\n".join(lines)


def show(rows: Sequence[tuple[str, str | None, str]]) -> None:
    """Print the rows as a table."""
    drawn = table(*_headings(rows))
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row if cell is not None))
        drawn.add_row()
    stdout().print(drawn)


def _headings(rows: Sequence[tuple[str, str | None, str]]) -> list[str]:
    return ["prompt", "before", "after"] if rows and rows[0][1] is not None else ["prompt", "text"]


def _only(row: dict[str, str | None]) -> dict[str, str | None]:
    return {"prompt": row["prompt"], "text": row["after"]}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _stream(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()
