"""How far guesses of accuracy and of class shares are from the truth, and how often their intervals hold it."""

from __future__ import annotations

import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from catalogue.study import SHIFTS
from trust.intervals import Record, over_records, points, share

Z90 = 1.6448536269514722
SAME = "same_as_source"
NAMES = {
    SAME: "same as source dev",
    "confidence_difference": "DoC",
    "threshold_confidence": "ATC by confidence",
    "threshold_entropy": "ATC by entropy",
    "seed_agreement": "GDE, other draws of labels",
    "em": "EM, calibrated",
    "confusion": "BBSE",
    "pulled": "EM, drawn to the source",
}
WORLDS = {"": "as it is", **{shift: shift for shift in SHIFTS}}


def estimates_page(records: Sequence[Record]) -> str:
    """Return the tables of guesses of accuracy and class shares, one set for each base and budget."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[record["base_fingerprint"], tuple(sorted(record["budget"].items()))].append(record)
    lines: list[str] = []
    for (fingerprint, budget), group in groups.items():
        spent = dict(budget)
        models = len({(r["method"], r["source"], r["draw"], r["labels"]) for r in group})
        lines += [
            "",
            f"{len(group)} records of {models} models; base `{spent['base']}`, fingerprint `{fingerprint[:12]}`, has "
            f"seen: {', '.join(group[0]['base_saw']) or 'unknown'}. {group[0]['source_rows']} held-out source rows; "
            f"pool and test rows: {'; '.join(_sizes(group))}.",
        ]
        for labels in dict.fromkeys(record["labels"] for record in group):
            here = [record for record in group if record["labels"] == labels]
            lines += ["", f"#### {labels or 'All 1,700'} source labels: accuracy", "", *_estimates(here)]
        lines += ["", "#### Error by method, points", "", *_by_method(group)]
        if known := [record for record in group if "prior" in record]:
            lines += ["", "#### Class shares", "", *_priors(known), "", *_correction(known)]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def adapters_page(records: Sequence[Record]) -> str:
    """Return how far guesses are off for trained adapters, from the catalogue's records that have guesses."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.get("estimates") and record["label_free"]:
            source = record["label_free_scores"]["source_accuracy"]["value"]
            key = record["base_fingerprint"], tuple(sorted(record["budget"].items())), record["labels"]
            groups[key].append({**record, "source_accuracy": source})
    lines: list[str] = []
    for (fingerprint, budget, labels), group in groups.items():
        spent, methods = dict(budget), len({record["method"] for record in group})
        lines += [
            "",
            f"{len(group)} models of {methods} methods, {spent['adapter']} adapters, {labels or 'all'} source labels; "
            f"base `{spent['base']}`, fingerprint `{fingerprint[:12]}`, has seen: "
            f"{', '.join(group[0]['base_saw']) or 'unknown'}. {group[0]['rows']:,} test rows.",
            "",
            *_estimates(group),
            "",
            *_by_method(group),
        ]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def _sizes(records: Sequence[Record]) -> Iterator[str]:
    found = {record["shift"]: (record["pool_rows"], record["rows"]) for record in records}
    for world, name in WORLDS.items():
        if world in found:
            yield f"{name} {found[world][0]} and {found[world][1]}"


def held(guess: Record, truth: float, rows: float = math.inf) -> bool:
    """Whether an interval holds the truth; with rows: after the chance of so many test rows is added to its width."""
    chance = Z90 * math.sqrt(truth * (1 - truth) / rows)
    low = guess["estimate"] - math.hypot(guess["estimate"] - guess["low"], chance)
    high = guess["estimate"] + math.hypot(guess["high"] - guess["estimate"], chance)
    return bool(low <= truth <= high)


def _estimates(records: Sequence[Record]) -> list[str]:
    lines = [
        "| target | estimate | mean error | bias | error minus same as source, 95 % interval | 90 % interval holds the "
        "measured accuracy | with the test rows' chance | records |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for world, name in itertools.product(WORLDS, NAMES):
        here = [r for r in records if r["shift"] == world and name in r["estimates"]]
        if not here:
            continue
        off = [r["estimates"][name]["estimate"] - r["accuracy"] for r in here]
        against = over_records(
            here,
            lambda r, name=name: (
                abs(r["estimates"][name]["estimate"] - r["accuracy"])
                - abs(r["estimates"][SAME]["estimate"] - r["accuracy"])
            ),
        )
        lines.append(
            f"| {WORLDS[world]} | {NAMES[name]} | {100 * np.mean(np.abs(off)):.1f} | {100 * np.mean(off):+.1f} "
            f"| {'' if name == SAME else points(against)} "
            f"| {share([held(r['estimates'][name], r['accuracy']) for r in here])} "
            f"| {share([held(r['estimates'][name], r['accuracy'], r['rows']) for r in here])} | {len(here)} |"
        )
    return lines


def _by_method(records: Sequence[Record]) -> list[str]:
    names = [name for name in NAMES if any(name in record["estimates"] for record in records)]
    lines = [
        "| method | labels | target | accuracy | source dev | " + " | ".join(NAMES[n] for n in names) + " |",
        "|---|---|---|---|---|" + "---|" * len(names),
    ]
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in records):
        for world, shown in WORLDS.items():
            here = [r for r in records if (r["method"], r["labels"], r["shift"]) == (method, labels, world)]
            if not here:
                continue
            parts = []
            for name in names:
                off = [abs(r["estimates"][name]["estimate"] - r["accuracy"]) for r in here if name in r["estimates"]]
                parts.append(f"{100 * np.mean(off):.1f}" if off else "—")
            means = (100 * np.mean([r[key] for r in here]) for key in ("accuracy", "source_accuracy"))
            lines.append(
                f"| `{method}` | {labels or 'all'} | {shown} | {' | '.join(f'{m:.1f}' for m in means)} "
                f"| {' | '.join(parts)} |"
            )
    return lines


def _priors(records: Sequence[Record]) -> list[str]:
    lines = [
        "| method | labels | target | estimate | mean error | bias | 95 % interval holds the share | records |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in records):
        for world in SHIFTS:
            here = [r for r in records if (r["method"], r["labels"], r["shift"]) == (method, labels, world)]
            if not here:
                continue
            start = f"| `{method}` | {labels or 'all'} | {WORLDS[world]} "
            same = [r["source_share"] - r["pool_share"] for r in here]
            lines.append(f"{start}| same as source {_errors(same)} | | {len(here)} |")
            for name in dict.fromkeys(name for r in here for name in r["prior"]):
                known = [(r["prior"][name], r["pool_share"]) for r in here if name in r["prior"]]
                off = [guess["estimate"] - truth for guess, truth in known]
                inside = [guess["low"] <= truth <= guess["high"] for guess, truth in known if "low" in guess]
                held_in = share(inside) if inside else ""
                lines.append(f"{start}| {NAMES[name]} {_errors(off)} | {held_in} | {len(known)} |")
    return lines


def _errors(off: Sequence[float]) -> str:
    return f"| {100 * np.mean(np.abs(off)):.1f} | {100 * np.mean(off):+.1f}"


def _correction(records: Sequence[Record]) -> list[str]:
    lines = [
        "What a correction does to the accuracy: calibrated alone; then corrected by EM's shares; by those drawn to "
        "the source, which is what guidebook acts on (points, with an interval over sources):",
        "",
        "| method | labels | target | accuracy | calibrated minus it | by EM | by EM drawn to the source |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in records):
        for world in SHIFTS:
            here = [r for r in records if (r["method"], r["labels"], r["shift"]) == (method, labels, world)]
            if here:
                gains = [
                    points(over_records(known, lambda r, key=key: r[key] - r["accuracy"])) if known else ""
                    for key in ("accuracy_calibrated", "accuracy_corrected", "accuracy_pulled")
                    for known in [[r for r in here if key in r]]
                ]
                lines.append(
                    f"| `{method}` | {labels or 'all'} | {world} | {100 * np.mean([r['accuracy'] for r in here]):.1f} "
                    f"| {' | '.join(gains)} |"
                )
    return lines
