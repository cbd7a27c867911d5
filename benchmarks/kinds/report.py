"""Write the tables of the newest record into this folder's README.md.

python benchmarks/kinds/report.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent


def table(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return one base's rows: the fastest repeat of every kind, beside training all weights."""
    best = {name: min(found, key=lambda run: run["step_seconds"]) for name, found in runs.items()}
    full = best["full"]
    lines = [
        "| kind | trained weights | ms a step | of full | slowest run | training memory | of full | whole process |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, run in sorted(best.items(), key=lambda item: float(item[1]["step_seconds"])):
        slowest = max(other["step_seconds"] for other in runs[name])
        lines.append(
            f"| {name} | {run['trained']:,} | {run['step_seconds'] * 1e3:,.0f} "
            f"| {run['step_seconds'] / full['step_seconds']:.2f} | {slowest * 1e3:,.0f} "
            f"| {run['training_megabytes']:,.0f} MB | {run['training_megabytes'] / full['training_megabytes']:.2f} "
            f"| {run['peak_megabytes']:,.0f} MB |"
        )
    return lines


def page(record: dict[str, Any]) -> str:
    """Return the newest record."""
    shape, machine, results = record["shape"], record["machine"], record["results"]
    repeats = len(results["encoder"]["full"])
    lines = [
        f"{machine['gpu'] or machine['cpu']}, {record['threads']} threads, "
        f"{'bf16' if record['bf16'] else 'float32, the faster of the two here'}. Hidden size {shape['hidden']}, "
        f"{shape['layers']} layers, vocabulary {shape['vocabulary']:,}; {shape['rows']} rows of {shape['length']} "
        f"tokens a step. Median step of {'the one run' if repeats == 1 else f'the fastest of {repeats} runs'}.",
    ]
    for side, what in (("encoder", "Encoder (BERT, masked LM)"), ("decoder", "Decoder (GPT-J, causal LM)")):
        lines += ["", f"### {what}", "", *table(results[side])]
    return "\n".join(lines)


if __name__ == "__main__":
    fill(HERE / "README.md", "kinds", page(read_records(HERE / "records.jsonl")[-1]))
