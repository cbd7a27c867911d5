"""Write the tables of this folder's README.md from the newest record of every machine, size and clock.

python benchmarks/speed/report.py
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent
NAMES = {
    "causal_fusion": "decoder, models text",
    "masked_fusion": "encoder, models text",
    "task_decoder": "decoder, learns a task",
    "predict_one": "encoder, one text at a time",
    "predict_batch": "encoder, many texts",
}
WAYS = ("stock", "tuned", "guidebook", "floor")


def page(records: list[dict[str, Any]]) -> str:
    """Return a table for every machine, size and clock, the newest record of each.

    >>> print(page([]))
    Nothing was measured yet.
    """
    newest = {(r["machine"]["gpu"] or r["machine"]["cpu"], r["size"], r["clock"], tuple(r["rows"])): r for r in records}
    return "\n\n".join(map(table, newest.values())) or "Nothing was measured yet."


def table(record: dict[str, Any]) -> str:
    """Return the medians over the rounds of one record, and how far the rounds lie apart."""
    machine = record["machine"]
    time = "processor time" if record["clock"] == "cpu" else "time on the wall"
    lines = [
        f"{machine['gpu'] or machine['cpu']}, {record['threads']} of {machine['cores']} cores, {time}; the decoder is "
        f"`{record['size']}`; median of {record['rounds']} rounds of {record['steps']} steps.",
        "",
        "| row | unit | stock | tuned | guidebook | floor | × stock | × tuned | of the floor | spread |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in record["rows"].items():
        rates = {way: statistics.median(row["ways"][way]) for way in WAYS}
        ours, rounds = rates["guidebook"], row["ways"]["guidebook"]
        digits = 0 if row["unit"] == "real tokens/s" else 1
        shown = " | ".join(f"{rates[way]:,.{digits}f}" for way in WAYS)
        lines.append(
            f"| {NAMES[name]} | {row['unit']}{', bf16' if row.get('bf16') else ''} | {shown} "
            f"| {ours / rates['stock']:.2f} | {ours / rates['tuned']:.2f} | {ours / rates['floor']:.0%} "
            f"| {min(rounds):,.{digits}f} … {max(rounds):,.{digits}f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    fill(HERE / "README.md", "speed", page(read_records(HERE / "records.jsonl")))
