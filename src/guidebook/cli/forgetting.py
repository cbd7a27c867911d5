"""What a guidebook's adapters made the base forget, as `guidebook evaluate --general` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from guidebook.cli.console import stdout, table
from guidebook.cli.predict import domain_of
from guidebook.errors import InputError

if TYPE_CHECKING:
    from guidebook.artifact import Guidebook


def forgotten(book: Guidebook, general: Sequence[str]) -> dict[str, Any]:
    """Return what each stack of adapters has changed on one file of general text.

    Raises:
        InputError: several files.
    """
    from pathlib import Path

    from guidebook.retention import retention

    if len(general) != 1:
        raise InputError(f"--general was given {len(general)} times; name one file of general text.")
    return retention(book, domain_of(Path(general[0]), ()))


def show_forgetting(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one line per stack of adapters: what the base has lost while they are active; then the probes."""
    rows = table("adapters", "LM loss, base>", "adapted>", "increase, 95 %>", "KL>", "least CKA>")
    probes = table("linear probes", "base>", "adapted>", "change, 95 %>")
    for name, entry in found.items():
        change = entry["increase"]
        rows.add_row(
            escape(name),
            f"{entry['base_loss']:.3f}",
            f"{entry['adapted_loss']:.3f}",
            f"{change['estimate']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})",
            f"{entry['divergence']:.3f}",
            f"{min(entry['alignment']):.3f}",
        )
        if "probe" in entry:
            base, adapted, moved = (entry["probe"][key] for key in ("base", "adapted", "difference"))
            probes.add_row(
                escape(name),
                f"{base['estimate']:.1%}",
                f"{adapted['estimate']:.1%}",
                f"{moved['estimate']:+.1%} ({moved['low']:+.1%} to {moved['high']:+.1%})",
            )
    for shown in (rows, probes):
        if shown.row_count:
            stdout().print(shown)
