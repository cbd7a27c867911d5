"""Write the speed table from the newest record into this folder's README.md.

python benchmarks/fusion_speed/report.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent


def page(record: dict[str, Any]) -> str:
    """Return the table of one record: best of the repeats of every variant, beside stock and floor, and the profile."""
    results = record["results"]
    best = {name: max(runs, key=lambda run: run["tokens_per_second"]) for name, runs in results.items()}
    stock, tuned = (best[name]["tokens_per_second"] for name in ("stock", "well-tuned stock"))
    floor = max((run["floor"]["houlsby"] for run in results["guidebook"]), key=lambda item: item["tokens_per_second"])
    limit, machine = floor["tokens_per_second"], record["machine"]
    lines = [
        f"Base `{record['base']}`, {best['guidebook']['trainable']:,} trained weights (Houlsby, width 64), "
        f"{record['threads']} threads, {'bf16' if record['bf16'] else 'float32, the faster of the two here'}. "
        f"Matrices of the model's own shapes multiply at {floor['matmul_rate'] / 1e9:.0f} GFLOP/s here, which allows "
        f"{limit:,.0f} tokens/s.",
        "",
        "| variant | real tokens/s | of the floor | × stock | × well-tuned | padding | peak memory | spread |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in best.items():
        speed = run["tokens_per_second"]
        speeds = [other["tokens_per_second"] for other in results[name]]
        share = "" if name == "full fine-tuning" else f"{speed / limit:.0%}"
        lines.append(
            f"| {name} | {speed:,.0f} | {share} | {speed / stock:.2f} | {speed / tuned:.2f} "
            f"| {run['padding_share']:.1%} | {run['peak_memory_megabytes']:,.0f} MB "
            f"| {min(speeds):,.0f} … {max(speeds):,.0f} |"
        )
    whole = best["guidebook"]["tokens_per_second"]
    lines += [
        "",
        f"Aims: 75 % of the floor, 4 × stock, 2.3 × well-tuned stock. Reached: {whole / limit:.0%}, "
        f"{whole / stock:.1f} and {whole / tuned:.1f}.",
    ]
    shares = sorted(best["guidebook"]["profile"].items(), key=lambda item: -item[1])
    lines += [
        "",
        f"Where guidebook's step goes, by operator: {', '.join(f'{kind} {share:.0%}' for kind, share in shares)}.",
        "",
        f"Machine: {machine['gpu'] or machine['cpu']}, {machine['cores']} cores. "
        f"Spread: slowest and fastest of {len(results['stock'])} runs.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    fill(HERE / "README.md", "speed", page(read_records(HERE / "records.jsonl")[-1]))
