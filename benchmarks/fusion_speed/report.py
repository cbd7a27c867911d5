"""Write the speed table from the newest record into this folder's README.md.

python benchmarks/fusion_speed/report.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent


def page(record: dict[str, Any]) -> str:
    """Return the table of one record: best of the repeats of every variant, beside stock and floor."""
    results = dict(record["results"])
    floors, rates = results.pop("floor"), results.pop("matmul_rate")
    floor = float(np.max([item["houlsby"] for item in floors]))
    best = {name: max(runs, key=lambda run: run["tokens_per_second"]) for name, runs in results.items()}
    stock, tuned = (best[name]["tokens_per_second"] for name in ("stock", "well-tuned stock"))
    rate = float(np.max([item["houlsby"] for item in rates])) / 1e9
    machine = record["machine"]
    lines = [
        f"Base `{record['base']}`, {record['trainable']['houlsby']:,} trained weights (Houlsby, width 64), "
        f"{record['threads']} threads, {'bf16' if record['bf16'] else 'float32: this machine has no bf16 units'}. "
        f"Matrices of the model's own shapes multiply at {rate:.0f} GFLOP/s here, which allows {floor:,.0f} tokens/s.",
        "",
        "| variant | real tokens/s | of the floor | × stock | × well-tuned | padding | spread of the repeats |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in best.items():
        speed = run["tokens_per_second"]
        speeds = [other["tokens_per_second"] for other in results[name]]
        share = "" if name == "full fine-tuning" else f"{speed / floor:.0%}"
        lines.append(
            f"| {name} | {speed:,.0f} | {share} | {speed / stock:.2f} | {speed / tuned:.2f} "
            f"| {run['padding_share']:.1%} | {min(speeds):,.0f} … {max(speeds):,.0f} |"
        )
    lines += ["", f"Machine: {machine['gpu'] or machine['cpu']}, {machine['cores']} cores."]
    return "\n".join(lines)


if __name__ == "__main__":
    fill(HERE / "README.md", "speed", page(read_records(HERE / "records.jsonl")[-1]))
