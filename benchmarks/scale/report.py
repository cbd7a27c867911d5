"""Write the table of scale from the newest record of every size into this folder's README.md.

python benchmarks/scale/report.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent


def moments(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the last event of every part of a run: import, reading, planning (tokens included), training."""
    found: dict[str, dict[str, float]] = {}
    for event in record["events"]:
        name = event["event"]
        if name in ("imported", "planned", "done"):
            found[name] = event
        elif ": " in name and "rows, columns" in name:
            found["read"] = event
    return found


def page(records: list[dict[str, Any]]) -> str:
    """Return one row per size: corpus, tokens, seconds and memory of each part, the peak of the whole process."""
    newest = {record["asked"]: record for record in records}
    lines = [
        "| rows | text | tokens | reading | tokens, plan | training, rest | peak: reading | planning | process |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rows, record in sorted(newest.items()):
        at = moments(record)
        lines.append(
            f"| {rows:,} | {record['corpus_megabytes']:,.0f} MB | {record['tokens']:,} "
            f"| {at['read']['seconds'] - at['imported']['seconds']:,.0f} s "
            f"| {at['planned']['seconds'] - at['read']['seconds']:,.0f} s "
            f"| {at['done']['seconds'] - at['planned']['seconds']:,.0f} s "
            f"| {at['read']['peak_mb']:,.0f} MB | {at['planned']['peak_mb']:,.0f} MB "
            f"| **{record['peak_megabytes'] * 1e6 / 2**30:.2f} GiB** |"
        )
    last = newest[max(newest)]
    lines += [
        "",
        f"Of this, {moments(last)['imported']['peak_mb']:,.0f} MB are Python with torch and transformers before a row "
        f"is read. {last['duplicates']:,} of the {last['rows']:,} rows of the largest corpus repeat an earlier one. "
        f"Machine: {last['machine']['cpu']}, {last['machine']['cores']} cores, one thread, shared with other work, so "
        "the seconds are an upper bound.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    fill(HERE / "README.md", "scale", page(read_records(HERE / "records.jsonl")))
