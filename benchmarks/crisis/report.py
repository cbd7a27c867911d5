"""Write the study's tables from its records into this folder's README.md.

python benchmarks/crisis/report.py
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from guidebook.evaluation.drift import drift
from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from comparing import Record, by_cell, compare, groups, hits, row, table, where_it_hurts

HERE = Path(__file__).parent
ALONE, PLACEBO = "source_only", "general_mlm"
TITLES = {"design": "Directions on which everything was chosen", "held": "Directions that nothing was chosen on"}
QUESTIONS = (
    ("fusion_pair", PLACEBO),
    ("fusion_pair", ALONE),
    ("fusion_pair", "fusion_all"),
    ("co_training", ALONE),
    ("co_training_fused", "co_training"),
    ("co_training_fused", "fusion_all"),
    ("co_training", "self_training"),
)
"""Pairs of methods whose difference answers a question of the study."""
MEASURES = {
    "A-distance, words": lambda gap: gap["content"]["distance"],
    "loss of the base, target minus source (nats)": lambda gap: gap["target_loss"] - gap["source_loss"],
    "MMD of pooled rows": lambda gap: gap["mmd"]["squared"],
}
"""What `inspect` says of a direction before anything is trained."""
DRAWS = 2000
NEAR = 0.1
"""A guess is near where it is off by so much at most."""


def pairwise(records: Sequence[Record]) -> list[str]:
    """Return the differences that answer the study's questions."""
    present = by_cell(records)
    found = compare(records, [pair for pair in QUESTIONS if all(method in present for method in pair)])
    return [
        "| | difference | 95 % interval | p (Holm) | detectable | cells | |",
        "|---|---|---|---|---|---|---|",
        *(f"| `{one.better}` minus `{one.worse}` | {row(one)} |" for one in found),
    ]


def gains(records: Sequence[Record], method: str, reference: str) -> dict[tuple[str, str], float]:
    """Return the mean over draws of a method's gain over another, by direction, in points."""
    found, parts = by_cell(records), defaultdict(list)
    for cell in found[method].keys() & found[reference].keys():
        parts[cell[0], cell[1]].append(100 * float((hits(found[method][cell]) - hits(found[reference][cell])).mean()))
    return {direction: float(np.mean(values)) for direction, values in sorted(parts.items())}


def by_gap(records: Sequence[Record], gaps: Sequence[Record]) -> list[str]:
    """Return how gains go with each measure of the gap: rank correlation with an interval over directions."""
    from scipy.stats import spearmanr

    fingerprint = records[0]["base_fingerprint"]
    measured = {(gap["source"], gap["target"]): gap for gap in gaps if gap["base_fingerprint"] == fingerprint}
    lines = [
        "| gain of | over | measure | directions | rank correlation | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for method, reference in (("fusion_pair", PLACEBO), ("fusion_pair", ALONE), ("co_training", ALONE)):
        found = gains(records, method, reference)
        directions = [direction for direction in found if direction in measured]
        if len(directions) < 5:
            continue
        gained = np.array([found[direction] for direction in directions])
        for name, measure in MEASURES.items():
            values = np.array([measure(measured[direction]) for direction in directions])
            random = np.random.default_rng(0)
            drawn = [random.integers(0, len(gained), len(gained)) for _ in range(DRAWS)]
            scattered = [spearmanr(values[rows], gained[rows]).statistic for rows in drawn if len(set(rows)) > 2]
            low, high = np.nanquantile(scattered, [0.025, 0.975])
            whole = spearmanr(values, gained).statistic
            lines.append(
                f"| `{method}` | `{reference}` | {name} | {len(directions)} | {whole:+.2f} | {low:+.2f} … {high:+.2f} |"
            )
    return lines if len(lines) > 2 else []


def harm(records: Sequence[Record]) -> list[str]:
    """Return what followed where mutual information fell below the source-only model's, and where it did not."""
    found = by_cell(records)
    groups_of: dict[bool, list[float]] = defaultdict(list)
    for method, cells in found.items():
        if method in (ALONE, "target_oracle"):
            continue
        for cell in cells.keys() & found[ALONE].keys():
            both = {name: plain(found[name][cell]["label_free_scores"]) for name in (ALONE, method)}
            if "information" in both[method] and "information" in both[ALONE]:
                change = 100 * float((hits(cells[cell]) - hits(found[ALONE][cell])).mean())
                groups_of[drift(both, method) is not None].append(change)
    lines = ["| sign of harm | models | mean change, points | lost over 3 points |", "|---|---|---|---|"]
    for sign, name in ((True, "yes"), (False, "no")):
        values = groups_of[sign]
        if values:
            lost = np.mean(np.array(values) < -3)
            lines.append(f"| {name} | {len(values)} | {np.mean(values):+.1f} | {100 * lost:.0f} % |")
    return lines if len(lines) > 2 else []


def plain(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return label-free scores by name without which way is better."""
    return {name: score["value"] for name, score in scores.items()}


def guesses(records: Sequence[Record]) -> list[str]:
    """Return how near guessed accuracies and class shares are to the truth, told and withheld ones apart."""
    told: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        guess = record["estimates"].get("threshold_confidence")
        if guess and record["label_free"]:
            told["withheld" if record["doubt"] else "told"].append(abs(guess["estimate"] - record["accuracy"]))
        if prior := record.get("prior"):
            rows = sum(record["shares"].values())
            right = all(
                prior["em"][name]["low"] <= count / rows <= prior["em"][name]["high"]
                for name, count in record["shares"].items()
            )
            shares["withheld" if prior["withheld"] else "told"].append(right)
    lines = ["| | guesses | right | |", "|---|---|---|---|"]
    for kind, errors in sorted(told.items()):
        near = np.mean(np.array(errors) <= NEAR)
        lines.append(f"| accuracy (ATC), {kind} | {len(errors)} | {100 * near:.0f} % | within 10 points |")
    for kind, right in sorted(shares.items()):
        lines.append(f"| class shares, {kind} | {len(right)} | {100 * np.mean(right):.0f} % | truth in the interval |")
    return lines if len(lines) > 2 else []


def section(records: Sequence[Record], gaps: Sequence[Record]) -> list[str]:
    """Return everything that one data set says on one base with one budget."""
    lines: list[str] = []
    for phase, title in TITLES.items():
        for labels in sorted({record["labels"] for record in records if record["phase"] == phase}):
            here = [record for record in records if record["phase"] == phase and record["labels"] == labels]
            if ALONE not in by_cell(here):
                continue
            lines += ["", f"#### {title}, {labels:,} labels", "", *table(here, ALONE), "", *pairwise(here)]
            places = where_it_hurts(here, "fusion_pair", ALONE) if "fusion_pair" in by_cell(here) else []
            if places:
                lines += ["", f"`fusion_pair` is below `{ALONE}` beyond chance in the rows on {', '.join(places)}."]
    parts = {
        "How the gain goes with the gap": by_gap(records, gaps),
        "The sign of harm": harm(records),
        "Told without labels": guesses(records),
    }
    for title, rows in parts.items():
        lines += ["", f"#### {title}", "", *rows] if rows else []
    return lines


def page(records: Sequence[Record], gaps: Sequence[Record]) -> str:
    """Return everything that stands between the marks."""
    lines: list[str] = []
    for (base, fingerprint, saw, budget), group in groups(records):
        spent = dict(budget)
        for data in sorted({record["data"] for record in group}):
            here = [record for record in group if record["data"] == data]
            hours = sum(record["seconds"] for record in here) / 3600
            lines += [
                "",
                f"### {data}, base `{base}`",
                "",
                f"{len(here)} runs, {hours:.1f} hours; LoRA of rank {spent['rank']}, {spent['fuse_tokens']:,} tokens a "
                f"fusion stage at {spent['fuse_rate']:g}, {spent['epochs']:g} epochs of the task at "
                f"{spent['task_rate']:g}. Fingerprint `{fingerprint[:12]}`; the base has read: "
                f"{', '.join(saw) or 'unknown'}.",
                *section(here, [gap for gap in gaps if gap["data"] == data]),
            ]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--gaps", type=Path, default=HERE / "gaps.jsonl")
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    options = parser.parse_args()
    fill(options.page, "crisis", page(read_records(options.records), read_records(options.gaps)))


if __name__ == "__main__":
    main()
