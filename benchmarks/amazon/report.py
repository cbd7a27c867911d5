"""Write the study's tables from its records into this folder's README.md and docs/results.md, between marks.

python benchmarks/amazon/report.py
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.evaluation.records import read_records
from guidebook.evaluation.statistics import Interval, bootstrap_groups, smallest_detectable
from guidebook.reports.marks import fill

HERE = Path(__file__).parent
FRONT = HERE.parents[1] / "docs" / "results.md"
ARMS = ("tf-idf", "linear probe", "none", "general", "source+targets", "target")
COMPARISONS = (
    ("source+targets", "general", "the domains' knowledge: fusion minus placebo"),
    ("source+targets", "none", "fusion minus no stage"),
    ("general", "none", "the placebo minus no stage"),
    ("target", "source+targets", "target text alone minus fusion"),
    ("none", "tf-idf", "an adapter on the source's labels minus tf-idf"),
)
KINDS = {"full": "all weights", "houlsby": "Houlsby adapters", "lora": "LoRA"}
TWO_STEP = "source+targets"
HOW = {"none": "the task alone", TWO_STEP: "two-step"}
FRONT_ARMS = ("tf-idf", "linear probe", "none", "general", TWO_STEP)

Record = dict[str, Any]


def groups(records: list[Record], by_kind: bool = True) -> Iterator[tuple[tuple[Any, ...], list[Record]]]:
    """Yield (base, labels, kind or "", rest) and the records of the main runs; bases and budgets are never mixed."""
    found: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record["phase"] != "choose":
            budget = tuple(sorted(record["budget"].items()))
            rest = (record["base_fingerprint"], budget)
            kind = record["kind"] if by_kind else ""
            found[record["budget"]["base"], record["labels"], kind, rest].append(record)
    yield from found.items()


def hits(record: Record) -> np.ndarray:
    """Return whether each test row was right (N,)."""
    return np.array([character == "1" for character in record["correct"]], dtype=float)


def compare(records: list[Record], better: str, worse: str) -> tuple[Interval, float, int] | None:
    """Return the paired difference of two arms, see `paired`."""
    return paired(*([record for record in records if record["arm"] == arm] for arm in (better, worse)))


def paired(better: list[Record], worse: list[Record]) -> tuple[Interval, float, int] | None:
    """Return the paired difference with its 95 % interval, the smallest detectable one, and the cells it rests on.

    Only directions and draws that both have a record of take part; None where these have fewer than two sources.
    """
    others = {(r["source"], r["target"], r["draw"]): hits(r) for r in worse}
    cells = [
        (r["source"], r["draw"], r["target"], hits(r) - others[r["source"], r["target"], r["draw"]])
        for r in better
        if (r["source"], r["target"], r["draw"]) in others
    ]
    if len({cell[0] for cell in cells}) < 2:
        return None
    interval = bootstrap_groups(cells)
    return interval, smallest_detectable(interval.standard_error), len(cells)


def _complete(records: list[Record]) -> dict[str, float]:
    """Return each arm's mean accuracy over all directions between the domains, of the arms that have them all."""
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record["arm"]][record["source"], record["target"]].append(record["accuracy"])
    every = len(list(itertools.permutations({record["source"] for record in records}, 2)))
    return {
        arm: float(np.mean([np.mean(values) for values in cells.values()]))
        for arm, cells in found.items()
        if len(cells) == every
    }


def table(records: list[Record]) -> list[str]:
    """Return mean accuracies by direction and arm, and the comparisons."""
    by_cell: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record in records:
        by_cell[record["source"], record["target"], record["arm"]].append(record["accuracy"])
    domains = sorted({record["source"] for record in records})
    arms = [arm for arm in ARMS if any(key[2] == arm for key in by_cell)]
    lines = ["", "| direction | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
    complete: dict[str, list[float]] = {arm: [] for arm in arms}
    for source, target in itertools.permutations(domains, 2):
        means = [by_cell.get((source, target, arm)) for arm in arms]
        if any(means):
            cells = [f"{100 * np.mean(values):.1f}" if values else "—" for values in means]
            lines.append(f"| {source} → {target} | " + " | ".join(cells) + " |")
        if all(means):
            for arm, values in zip(arms, means, strict=True):
                complete[arm].append(float(np.mean(values or [])))
    if complete[arms[0]]:
        cells = [f"**{100 * np.mean(complete[arm]):.1f}**" for arm in arms]
        lines.append(f"| mean of {len(complete[arms[0]])} complete directions | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| difference, points | estimate | 95 % interval | smallest detectable | cells | |",
        "|---|---|---|---|---|---|",
    ]
    for better, worse, what in COMPARISONS:
        if found := compare(records, better, worse):
            lines.append(f"| {what} | {_row(found)} |")
    return lines


def _row(found: tuple[Interval, float, int]) -> str:
    interval, detectable, cells = found
    word = "within noise" if interval.low <= 0 <= interval.high else ("higher" if interval.low > 0 else "lower")
    return f"{' | '.join(_points(interval))} | {100 * detectable:.1f} | {cells} | {word}"


def _points(interval: Interval) -> tuple[str, str]:
    """Return a difference and its limits in points."""
    return f"{100 * interval.estimate:+.1f}", f"{100 * interval.low:+.1f} … {100 * interval.high:+.1f}"


def two_by_two(records: list[Record]) -> list[str]:
    """Return what is trained against how, each pair on the cells that both have: the claim of the root paper."""
    found: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record["arm"] in HOW:
            found[record["kind"], record["arm"]].append(record)
    kinds = [kind for kind in KINDS if any(name == kind for name, _ in found)]
    wanted = [((kind, TWO_STEP), (kind, "none"), f"{KINDS[kind]}: two-step minus the task alone") for kind in kinds]
    for kind, arm in itertools.product(kinds, HOW):
        if kind != "full":
            wanted.append(
                ((kind, arm), ("full", "none"), f"{KINDS[kind]}, {HOW[arm]}, minus all weights, the task alone")
            )
    wanted += [(("lora", arm), ("houlsby", arm), f"LoRA minus Houlsby adapters, {how}") for arm, how in HOW.items()]
    rows = [
        f"| {what} | {_row(difference)} |"
        for better, worse, what in wanted
        if (difference := paired(found[better], found[worse]))
    ]
    if len(kinds) < 2 or not rows:
        return []
    return [
        "| difference, points | estimate | 95 % interval | smallest detectable | cells | |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def by_labels(records: list[Record]) -> list[str]:
    """Return what a stage gains over the task alone by the number of source labels, where several were run."""
    found: dict[tuple[Any, ...], dict[int, list[str]]] = defaultdict(dict)
    for (base, labels, kind, rest), group in groups(records):
        gains = {arm: compare(group, arm, "none") for arm in (TWO_STEP, "general")}
        start = f"| `{base}` | {KINDS[kind]} | {labels:,}"
        found[base, kind, rest][labels] = [f"{start} | {arm} | {_row(gain)} |" for arm, gain in gains.items() if gain]
    rows = [
        row for by_count in found.values() if len(by_count) > 1 for _, some in sorted(by_count.items()) for row in some
    ]
    if not rows:
        return []
    return [
        "",
        "### What a stage gains over the task alone, by the number of source labels",
        "",
        "| base | trained | labels | stage | gain | 95 % interval | smallest detectable | cells | |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def page(records: list[Record]) -> str:
    """Return everything that stands between the marks."""
    lines: list[str] = []
    chosen = [record for record in records if record["phase"] == "choose"]
    if chosen:
        lines += ["", "Learning rates of the task stage, mean accuracy on the source dev sets (300 rows each):", ""]
        lines += ["| base | kind | learning rate | accuracy |", "|---|---|---|---|"]
        rates: dict[tuple[str, str, float], list[float]] = defaultdict(list)
        for record in chosen:
            rates[record["budget"]["base"], record["kind"], record["learning_rate"]].append(record["accuracy"])
        lines += [f"| {b} | {k} | {r:g} | {100 * np.mean(v):.1f} |" for (b, k, r), v in sorted(rates.items())]
    for (base, labels, kind, _), group in groups(records):
        budget, first = group[0]["budget"], group[0]
        draws = len({record["draw"] for record in group})
        hours = sum(record["seconds"] for record in group) / 3600
        saw = ", ".join(first["base_saw"]) or "unknown"
        lines += [
            "",
            f"### {kind}, {labels} source labels, base `{base}`",
            "",
            f"{len(group)} runs, {draws} draw{'s' if draws > 1 else ''}; {budget['fuse_tokens']:,} tokens per fusion "
            f"stage, {budget['epochs']} epochs, learning rate {first['learning_rate']:g}, {first['rows']:,} test rows "
            f"per target; {hours:.2f} hours. "
            f"Base fingerprint `{first['base_fingerprint'][:12]}`; the base has seen: {saw}.",
            *table(group),
        ]
    lines += by_labels(records)
    for (base, labels, *_), group in groups(records, by_kind=False):
        if found := two_by_two(group):
            title = f"### What is trained against how, {labels} source labels, base `{base}`"
            lines += ["", title, "", *found]
    return "\n".join(lines) + "\n"


def brief(records: list[Record]) -> str:
    """Return what docs/results.md says: a line for each base and kind that has all arms on all directions."""
    lines = [
        "| base | it has read | trained | tf-idf | linear probe | source only | placebo | domain fusion "
        "| fusion minus placebo | source only minus tf-idf |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    alike = {(base, labels, rest): found for (base, labels, _, rest), found in groups(records, by_kind=False)}
    for (base, labels, kind, rest), group in groups(records):
        arms = {record["arm"] for record in group}
        without = [r for r in alike[base, labels, rest] if r["arm"] in FRONT_ARMS[:2] and r["arm"] not in arms]
        known = _complete([*group, *without])
        if not known.keys() >= set(FRONT_ARMS):
            continue
        cells = " | ".join(f"{100 * known[arm]:.1f}" for arm in FRONT_ARMS)
        gains = (compare(group, TWO_STEP, "general"), compare([*group, *without], "none", "tf-idf"))
        shown = ("{} ({})".format(*_points(interval)) for interval, *_ in filter(None, gains))
        saw = ", ".join(group[0]["base_saw"])
        lines.append(f"| `{base}` | {saw} | {KINDS[kind]} | {cells} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    records = read_records(parser.parse_args().records)
    fill(HERE / "README.md", "study", page(records))
    fill(FRONT, "amazon", brief(records))


if __name__ == "__main__":
    main()
