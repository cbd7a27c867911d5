"""Write what was measured into this folder's README.md and into the card of the packaged base.

python benchmarks/base/report.py --base mini
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.adapters.host import Host
from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent
BASES = HERE.parents[1] / "src" / "guidebook" / "bases"
TITLES = {"amazon": "Amazon reviews, accuracy", "mnli": "MNLI genres, accuracy"}
METHODS = {
    "tfidf": "tf-idf, no base",
    "linear_probe": "linear probe",
    "houlsby": "adapters",
    "full": "full fine-tuning",
}


def table(records: list[dict[str, Any]]) -> str:
    """Return in-domain accuracy, transfer and the gap of every base and method: means over sources and directions."""
    lines = []
    for data, title in TITLES.items():
        here = [record for record in records if record["data"] == data]
        if not here:
            continue
        lines += [
            f"**{title}**",
            "",
            "| base | saw | method | in-domain | transfer | gap |",
            "|---|---|---|---|---|---|",
        ]
        first = here[0]["base"]
        for base in dict.fromkeys(record["base"] for record in here):
            for method, name in METHODS.items():
                own = [r for r in here if r["base"] == base and r["method"] == method]
                if not own or (method == "tfidf" and base != first):
                    continue
                sources = {r["source"] for r in own}
                beside = [r for r in here if r["base"] == first and r["method"] == method and r["source"] in sources]
                lines.append(_row(own, name))
                if base != first and len(beside) == len(own):  # the same sources, or the means are of other rows
                    lines.append(_row(beside, name))
        lines.append("")
    return "\n".join(lines)


def _row(own: list[dict[str, Any]], name: str) -> str:
    """Return one line: means over the sources that one base and method have."""
    inside = 100 * float(np.mean([r["accuracy"] for r in own if r["source"] == r["target"]]))
    outside = 100 * float(np.mean([r["accuracy"] for r in own if r["source"] != r["target"]]))
    base, saw = f"`{Path(own[0]['base']).name}`", ", ".join(own[0]["base_saw"])
    who = ("", "") if own[0]["method"] == "tfidf" else (base, saw)
    sources = sorted({r["source"] for r in own})
    shown = f"{len(sources)} sources" if len(sources) > 2 else f"from {' and '.join(sources)} alone"
    return f"| {who[0]} | {who[1]} | {name} ({shown}) | {inside:.1f} | {outside:.1f} | {inside - outside:+.1f} |"


def work_per_token(setting: dict[str, Any]) -> float:
    """Return floating-point operations per trained token: 6 per weight of a matrix, and attention.

    The head is computed where a token is predicted: everywhere (causal), at the masked positions else.
    """
    width, causal = setting["hidden"], setting["kind"] == "mini-gptj"
    layers = setting["layers"] * (4 * width**2 + 2 * width * setting["inner"])
    head = width * setting["vocabulary"] if causal else setting["mask_rate"] * width * (setting["vocabulary"] + width)
    attention = (6 if causal else 12) * setting["layers"] * setting["length"] * width
    return float(6 * (layers + head) + attention)


def speeds() -> str:
    """Return how fast the packaged bases were trained, beside what their GPU can do."""
    known = json.loads((HERE / "ceilings.json").read_text(encoding="utf8"))
    rates = {name: value for name, value in known.items() if name.startswith("matmul")}
    best, own = max(rates.values()), [value for name, value in rates.items() if "8192x8192" not in name]
    lines = [
        f"{known['device']}, PyTorch {known['torch']}: matrix products of 8,192 run at {best:.0f} TFLOP/s in "
        f"bf16, those of the bases' own shapes at {min(own):.0f} to {max(own):.0f}; copying moves "
        f"{known['copy_tb_s']:.1f} TB/s.",
        "",
        "| base | tokens read | passes over the corpus | tokens/s | MFLOP a token | TFLOP/s | of the matmul rate |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("mini", "mini-gptj"):
        facts = json.loads((BASES / name / "training.json").read_text(encoding="utf8"))
        work, rate = work_per_token(facts["setting"]), facts["tokens_per_second"]
        done = work * rate / 1e12
        lines.append(
            f"| `{name}` | {facts['tokens'] / 1e6:,.0f} M | {facts['epochs']:.1f} | {rate:,} | {work / 1e6:.1f} "
            f"| {done:.0f} | {done / best:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Fill both pages from the newest measurements of every base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="mini", help="the packaged base whose card is filled")
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    options = parser.parse_args()
    newest = {}
    for record in read_records(options.records):
        newest[record["base"]] = record["base_fingerprint"]
    kept = [r for r in read_records(options.records) if r["base_fingerprint"] == newest[r["base"]]]
    fill(HERE / "README.md", "measured", table(kept))
    fill(HERE / "README.md", "speed", speeds())
    fingerprint = Host.load(options.base).fingerprint
    own = [record for record in kept if record["base_fingerprint"] == fingerprint]
    if own:
        fill(BASES / options.base / "README.md", "measured", table(own))


if __name__ == "__main__":
    main()
