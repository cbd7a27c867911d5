"""Write the table of every record into this folder's README.md.

python benchmarks/gptj_speed/report.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent


def table(record: dict[str, Any]) -> str:
    """Return one record as a table."""
    size, machine = record["size"], record["machine"]
    lines = [
        f"### Hidden {size['hidden']:,}, {size['layers']} layers, {record['parameters'] / 1e6:,.0f} M parameters",
        "",
        f"{machine['gpu'] or machine['cpu']}, {record['threads']} threads; base in {record['base_dtype']}, "
        f"{'bf16 autocast' if record['bf16'] else 'float32'}; rows of {size['length']} tokens, "
        f"{size['tokens_per_batch']:,} tokens a step, vocabulary {size['vocabulary']:,}; random weights.",
        "",
        "| variant | trained weights | tokens/s | of the matmul rate | peak memory |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, run in record["results"].items():
        if "failed" in run:
            lines.append(f"| {name} | | failed: {run['failed']} | | |")
            continue
        lines.append(
            f"| {name} | {run['trainable']:,} | {run['tokens_per_second']:,.0f} | {run['share_of_matmul_rate']:.0%} "
            f"| {run['peak_memory_megabytes']:,.0f} MB |"
        )
    lines += ["", *beside_plain(record["results"])]
    return "\n".join(lines)


def beside_plain(results: dict[str, Any]) -> list[str]:
    """Return a line on every pair of a variant and its plain counterpart that both ran."""
    pairs = [(name, results[name], results.get(f"plain {name}", {})) for name in results]
    return [
        f"Beside plain Trainer + PEFT, {name}: {run['tokens_per_second'] / plain['tokens_per_second']:.2f} × the "
        f"tokens a second, {run['peak_memory_megabytes'] / plain['peak_memory_megabytes']:.2f} × the memory.  "
        for name, run, plain in pairs
        if "tokens_per_second" in run and "tokens_per_second" in plain
    ]


def page(records: list[dict[str, Any]]) -> str:
    """Return the newest record of every size and machine."""
    newest = {(str(record["size"]), str(record["machine"])): record for record in records}
    return "\n\n".join(table(record) for record in newest.values())


if __name__ == "__main__":
    fill(HERE / "README.md", "gptj", page(read_records(HERE / "records.jsonl")))
