"""Overlap of two domains' vocabularies beside what accuracy falls by and what reading the target's text gains."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guidebook.evaluation.ranking import rank_correlation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trust.intervals import Record

GAINS = ("general", "source+targets", "target")
"""Arms of the Amazon study whose gain over none is shown."""


def vocabulary_page(records: Sequence[Record], amazon: Sequence[Record]) -> str:
    """Return overlap of vocabularies by direction, beside what accuracy falls by and what fusion gains."""
    words = {(r["source"], r["target"]): r["vocabulary"] for r in records}
    columns: dict[str, dict[tuple[str, str], float]] = {}
    for method in dict.fromkeys(r["method"] for r in records):
        drops: dict[tuple[str, str], list[float]] = defaultdict(list)
        for r in records:
            if r["method"] == method and not r["shift"] and r["labels"] is not None:
                drops[r["source"], r["target"]].append(r["source_accuracy"] - r["accuracy"])
        columns[f"drop of `{method}`"] = {pair: float(np.mean(values)) for pair, values in drops.items()}
    fingerprints = {r["base_fingerprint"] for r in records}
    by_cell = {
        (r["arm"], r["source"], r["target"], r["draw"]): r["accuracy"]
        for r in amazon
        if r["phase"] == "few" and r["kind"] == "houlsby" and r["base_fingerprint"] in fingerprints
    }
    for arm in GAINS:
        gains: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (name, source, target, draw), accuracy in by_cell.items():
            if name == arm and ("none", source, target, draw) in by_cell:
                gains[source, target].append(accuracy - by_cell["none", source, target, draw])
        columns[f"*{arm}* minus *none*"] = {pair: float(np.mean(values)) for pair, values in gains.items()}
    columns = {name: values for name, values in columns.items() if values}
    if not words or not columns:
        return "No record yet.\n"
    lines = [
        "| direction | frequent words shared | running words known | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for pair, overlap in sorted(words.items(), key=lambda item: -item[1]["shared"]):
        parts = [f"{100 * values[pair]:+.1f}" if pair in values else "—" for values in columns.values()]
        shown = f"{100 * overlap['shared']:.1f} % | {100 * overlap['known']:.1f} %"
        lines.append(f"| {pair[0]} → {pair[1]} | {shown} | {' | '.join(parts)} |")
    for key, what in (("shared", "shared"), ("known", "known")):
        parts = []
        for values in columns.values():
            pairs = sorted(words.keys() & values.keys())
            parts.append(_correlated([words[pair][key] for pair in pairs], [values[pair] for pair in pairs]))
        lines.append(f"| **rank correlation with words {what}** | | | {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def _correlated(first: Sequence[float], second: Sequence[float], draws: int = 2000) -> str:
    value = rank_correlation(first, second) if len(first) > 2 else None
    if value is None:
        return "—"
    one, two, generator = np.array(first), np.array(second), np.random.default_rng(0)
    chosen = (generator.integers(0, len(one), len(one)) for _ in range(draws))
    found = [r for rows in chosen if (r := rank_correlation(one[rows], two[rows])) is not None]
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{value:+.2f} ({low:+.2f} … {high:+.2f})"
