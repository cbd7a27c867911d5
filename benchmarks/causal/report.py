"""Write the study's tables into this folder's README.md and draw its plot, from the records alone.

python benchmarks/causal/report.py            # needs matplotlib: pip install 'guidebook[benchmarks]'
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill
from guidebook.reports.texts import change_text

HERE = Path(__file__).parent
KINDS = ("houlsby", "lora", "full")
COLOURS = {"houlsby": "#0b6b66", "lora": "#b3722f", "full": "#5c636b"}
MARKS = {0.0: "o", 0.1: "s", 0.3: "^"}
Record = dict[str, Any]


def curve(records: list[Record], kind: str, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return gain and forgetting (N,), both in bits per byte and both larger for more, ascending in gain."""
    chosen = [r for r in records if r["run"]["kind"] == kind and r["run"]["general"] == share]
    points = sorted((-r["gain"]["estimate"], r["forgetting"]["estimate"]) for r in chosen)
    return np.array([x for x, _ in points]), np.array([y for _, y in points])


def at_equal_gain(records: list[Record], share: float = 0.0) -> list[tuple[float, dict[str, float]]]:
    """Return forgetting by kind at gains that all kinds reach, read off the lines between their runs.

    Only the part of each curve before its largest gain counts: beyond it a larger learning rate forgets more and gains
    less, and nobody would choose it.
    """
    curves = {kind: curve(records, kind, share) for kind in KINDS}
    curves = {kind: values for kind, values in curves.items() if len(values[0]) > 1}
    if len(curves) < 2:
        return []
    low, high = max(x.min() for x, _ in curves.values()), min(x.max() for x, _ in curves.values())
    if low >= high:
        return []
    gains = np.linspace(low, high, 3)
    return [(float(g), {kind: float(np.interp(g, x, y)) for kind, (x, y) in curves.items()}) for g in gains]


def answer(records: list[Record]) -> str:
    """Return in words whether adapters forget less at equal gain."""
    rows = at_equal_gain(records)
    if not rows or "full" not in rows[0][1]:
        return "Whether adapters forget less at equal gain is not known yet: the kinds' gains do not overlap."
    said = []
    for kind in ("houlsby", "lora"):
        if kind in rows[0][1]:
            less = [values["full"] - values[kind] for _, values in rows]
            word = (
                "less than"
                if min(less) > 0
                else "more than"
                if max(less) < 0
                else "at some gains less, at some more than"
            )
            said.append(
                f"{kind} forgets {word} full fine-tuning ({min(less):+.3f} to {max(less):+.3f} bits per byte spared)"
            )
    return f"At equal gain, over the gains that all kinds reach: {'; '.join(said)}. One seed: a lead, not a finding."


def table(records: list[Record]) -> list[str]:
    """Return one line per run: gain, forgetting, size, time."""
    names = "adapter, learning rate, general text, held-out bits/byte, gain, on trained text, forgetting, MB, tokens/s"
    lines = [f"| {names.replace(', ', ' | ')} |", "|---|---:|---:|---|---|---:|---|---:|---:|"]
    order = sorted(
        records, key=lambda r: (KINDS.index(r["run"]["kind"]), r["run"]["general"], r["run"]["learning_rate"])
    )
    for record in order:
        run = record["run"]
        lines.append(
            f"| {run['kind']} | {run['learning_rate']:g} | {run['general']:.0%} "
            f"| {record['before']['bits_per_byte']:.3f} to {record['after']['bits_per_byte']:.3f} "
            f"| {change_text(record['gain'])} | {record['trained_on']['estimate']:+.3f} "
            f"| {change_text(record['forgetting'])} | {record['megabytes']:.2f} | {record['tokens_per_second']:,.0f} |"
        )
    return lines


def spans(records: list[Record]) -> list[str]:
    """Return copied and novel parts of the last filing, and what was learned by heart."""
    lines = [
        "| adapter | learning rate | copied parts | novel parts | reproduced of trained | of unseen | longest span |",
        "|---|---:|---|---|---:|---:|---:|",
    ]
    for record in records:
        if "spans" not in record:
            continue
        run, found, learned = record["run"], record["spans"], record["memorisation"]
        method = next((name for name in learned if name not in ("base", "left_out")), None)
        cells = [
            f"{found[part]['base']['bits_per_byte']:.3f} to {found[part]['domain_fusion']['bits_per_byte']:.3f}"
            if part in found
            else ""
            for part in ("copied", "novel")
        ]
        shares = ["", "", ""]
        if method:
            trained, unseen = learned[method]["training"], learned[method]["control"]
            shares = [_percent(trained["reproduced"]), _percent(unseen["reproduced"]), str(trained["longest_span"])]
        lines.append(f"| {run['kind']} | {run['learning_rate']:g} | {' | '.join([*cells, *shares])} |")
    return lines if len(lines) > 2 else []


def page(records: list[Record], plot: str | None) -> str:
    """Return everything that stands between the marks."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        run = record["run"]
        groups[run["base"], run["tokens"], run["seed"], run["domain"]].append(record)
    lines: list[str] = []
    for (base, tokens, seed, domain), group in groups.items():
        saw = ", ".join(group[0]["base"]["saw"]) or "unknown"
        held = group[0]["before"]["documents"]
        lines += [
            "",
            f"### {domain}, base `{base}`, {tokens:,} tokens a run, seed {seed}",
            "",
            f"{len(group)} runs, {held} held-out documents; the base has seen: {saw}. Changes in bits per byte with "
            "95 % intervals over documents, below zero is better; forgetting is the change on Wikipedia.",
            "",
            *table(group),
        ]
        if domain == "calls":
            lines += ["", answer(group)]
        else:
            lines += ["", "The last filing, parts that stand in the others (13 words in a row) and the rest apart:", ""]
            lines += spans(group)
    if plot is not None:
        lines += ["", f"![Gain in the domain against forgetting]({plot})"]
    return "\n".join(lines) + "\n"


def draw(records: list[Record], path: Path) -> bool:
    """Draw gain against forgetting of the calls; return whether there was anything to draw."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "guidebook"  # the same records draw the same bytes
    from matplotlib import pyplot

    chosen = [record for record in records if record["run"]["domain"] == "calls"]
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for kind in KINDS:
        for share in sorted({record["run"]["general"] for record in chosen}):
            x, y = curve(chosen, kind, share)
            if len(x):
                label = f"{kind}, {share:.0%} general text"
                axes.plot(x, y, color=COLOURS[kind], marker=MARKS.get(share, "x"), alpha=1 - share, label=label)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_xlabel("gain on companies it never saw, bits per byte")
    axes.set_ylabel("forgetting on Wikipedia, bits per byte")
    if chosen:
        axes.legend(fontsize=8)
    figure.tight_layout()
    if chosen:
        figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return bool(chosen)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def main() -> None:
    """Write the page and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    given = parser.parse_args()
    records = read_records(given.records)
    plot = given.page.with_name("tradeoff.svg")
    drawn = draw(records, plot)
    fill(given.page, "causal", page(records, plot.name if drawn else None))


if __name__ == "__main__":
    main()
