"""`guidebook evaluate` of a generative guidebook: losses, copied parts, what it learned by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from guidebook.cli.console import print_json, print_text, remark, stdout, table
from guidebook.errors import InputError

if TYPE_CHECKING:
    from guidebook.artifact import Guidebook


def evaluate_losses(
    book: Guidebook, on: Sequence[str], general: Sequence[str], *, domain: str | None, prompts: int, as_json: bool
) -> None:
    """Measure and print."""
    from guidebook.data.domains import domain_from
    from guidebook.text_evaluation import evaluate_text

    places = {"on": [domain_from(path) for path in on], "general": [domain_from(path) for path in general]}
    names = [place.name for found in places.values() for place in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two texts are named {name!r}. Rename one of the files.")
    found = evaluate_text(book, places["on"], places["general"], domain=domain or "auto", prompts=prompts)
    if as_json:
        print_json(found)
    else:
        show(found)


def show(found: Mapping[str, Any]) -> None:
    """Print losses, copied and novel parts apart, and memorisation."""
    from guidebook.reports.texts import change_text, interval

    rows = table("text", "model", "bits/byte>", "95 % interval>", "perplexity>", "change")
    for role in ("on", "general"):
        for name, entry in found[role].items():
            remark(f"{name}: {entry['documents']:,} documents ({entry['division']}).")
            for arm, scores in entry["scores"].items():
                change = entry["changes"].get(arm)
                bits, surprise = f"{scores['bits_per_byte']:.3f}", f"{scores['perplexity']:.2f}"
                said = change_text(change) if change else ""
                rows.add_row(
                    escape(f"{name} ({role})"), arm, bits, interval(scores, "bits_per_byte", 3), surprise, said
                )
            spans = entry.get("spans") or {}
            for part in ("copied", "novel"):
                for arm, scores in spans.get(part, {}).items():
                    share = spans["copied_share"] if part == "copied" else 1 - spans["copied_share"]
                    words = f"{name}, {part} parts ({share:.0%})"
                    bits, surprise = f"{scores['bits_per_byte']:.3f}", f"{scores['perplexity']:.2f}"
                    rows.add_row(escape(words), arm, bits, "", surprise, "")
    stdout().print(rows)
    print_text("")
    learned = found["memorisation"]
    if "left_out" in learned:
        remark(f"Memorisation was not measured: {learned['left_out']}")
        return
    rows = table("model", "prompts from", "prompts>", "reproduced>", "tokens matched>", "copied spans>", "longest>")
    for arm, entry in learned.items():
        for name, scores in entry.items():
            shares = (_share(scores["reproduced"]), _number(scores["tokens_matched"]), _share(scores["copied_share"]))
            rows.add_row(arm, name, f"{scores['prompts']}", *shares, f"{scores['longest_span']}")
    stdout().print(rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
