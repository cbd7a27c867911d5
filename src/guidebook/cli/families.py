"""The page on model families, made from the tables that decide what works.

`python -m guidebook.cli.families docs/families.md` writes the matrix between the file's marks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from guidebook.adapters.families import EXCEPTIONS, NOT_CHECKPOINTED, why_not
from guidebook.adapters.placement import PLACEMENTS
from guidebook.adapters.presets import KINDS
from guidebook.reports.marks import fill

LEARNS = {"masked": "masked tokens", "causal": "next tokens", "seq2seq": "hidden spans"}


def matrix() -> str:
    """Return the table of architectures and kinds, and why the pairs that are missing are missing."""
    head = ["model type", "learns", "pooling", *(f"`{kind}`" for kind in KINDS), "checkpointing"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, row in PLACEMENTS.items():
        works = ["–" if why_not(kind, name) else "yes" for kind in KINDS]
        saved = "–" if name in NOT_CHECKPOINTED else "yes"
        lines.append(f"| {' | '.join([name, LEARNS[row.kind], row.pooling, *works, saved])} |")
    reasons: dict[tuple[str, str], list[str]] = {}
    for (kind, name), why in EXCEPTIONS.items():
        reasons.setdefault((kind, why), []).append(name)
    if reasons:
        lines.append("")
        lines += [f"- `{kind}` on {', '.join(names)}: {why}." for (kind, why), names in reasons.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        fill(Path(argument), "families", matrix())
