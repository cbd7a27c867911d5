"""Write what records say of scores, guesses and vocabularies into this folder's README.md.

python benchmarks/trust/report.py
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.evaluation.picks import FLAGSHIP, ORACLE, RANDOM, Candidate, oriented, picks
from guidebook.evaluation.ranking import rank_correlation
from guidebook.evaluation.records import read_records
from guidebook.evaluation.statistics import Interval, grouped_difference, resampled_means, wilson
from guidebook.evaluation.validators import VALIDATORS
from guidebook.reports.marks import fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from catalogue.study import SHIFTS, TAKES_LABELS, TWIN

HERE = Path(__file__).parent
CATALOGUE = HERE.parent / "catalogue"
PICKED_FROM = ("records.jsonl", "withdrawn.jsonl")
"""The catalogue's runs, and those that it took back because they collapsed: what a rule of choice must not fall for."""
FUSION = "domain_fusion"
ENOUGH = 30
"""Candidates in a cell from which on a choice among them says something."""
AT_CHANCE = 0.6
"""Source accuracy under which a candidate of two classes has learned next to nothing."""
Z90 = 1.6448536269514722
SAME = "same_as_source"
NAMES = {
    SAME: "same as source dev",
    "confidence_difference": "DoC",
    "threshold_confidence": "ATC by confidence",
    "threshold_entropy": "ATC by entropy",
    "seed_agreement": "GDE, other draws of labels",
    "em": "EM, calibrated",
    "confusion": "BBSE",
}
WORLDS = {"": "as it is", **{shift: shift for shift in SHIFTS}}
GAINS = {"general": "general", "source+targets": "source+targets", "target": "target"}
Record = dict[str, Any]


# --- scores as pickers ------------------------------------------------------------------------------------------------


def cells_of(records: Sequence[Record]) -> Iterator[tuple[tuple[Any, ...], list[list[Record]]]]:
    """Yield (phase, labels, shift, base, budget) and its cells: records of all methods that read no target label."""
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["label_free"] and record["method"] not in TAKES_LABELS:
            budget = tuple(sorted(record["budget"].items()))
            group = (record["phase"], record["labels"], record["shift"], record["base_fingerprint"], budget)
            found[group][record["source"], record["target"], record["draw"]].append(record)
    for group, cells in found.items():
        yield group, list(cells.values())


def scored(cell: Sequence[Record]) -> list[Candidate]:
    """Return the candidates of a cell that have scores; methods without a stage have none."""
    return [
        Candidate(record["method"], hits(record), None, oriented(record["label_free_scores"]))
        for record in cell
        if record["label_free_scores"]
    ]


def hits(record: Record) -> np.ndarray:
    """Return whether each test row was right (N,)."""
    return np.array([mark == "1" for mark in record["correct"]])


def correlations(cell: Sequence[Candidate]) -> dict[str, float]:
    """Return each validator's rank correlation with target accuracy over the candidates that have it."""
    found = {}
    for name in VALIDATORS:
        known = [candidate for candidate in cell if name in candidate.scores]
        if len(known) > 2:
            value = rank_correlation([c.scores[name] for c in known], [float(c.correct.mean()) for c in known])
            if value is not None:
                found[name] = value
    return found


def able(cell: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates whose source accuracy is above chance; no target label is needed to know them."""
    return [candidate for candidate in cell if candidate.scores.get("source_accuracy", 0) >= AT_CHANCE]


def regrets(cell: Sequence[Candidate]) -> dict[str, float]:
    """Return what each rule loses against the oracle, 0..1.

    The oracle is chosen on one half of the test rows and scored on the other, both ways round; a rule that reads no
    test row scores the same on the halves together as on all rows.
    """
    found = {rule: pick.regret for rule, pick in picks(cell, FUSION).items() if rule != ORACLE}
    found[f"always `{FUSION}`"] = found.pop(FLAGSHIP, math.nan)
    twin = picks(cell, TWIN).get(FLAGSHIP)
    found[f"always `{TWIN}`"] = twin.regret if twin else math.nan
    return {rule: value for rule, value in found.items() if not math.isnan(value)}


def picks_page(records: Sequence[Record]) -> str:
    """Return the tables of validators as rankers and pickers, one pair for each group of records."""
    lines: list[str] = []
    for (phase, labels, shift, fingerprint, budget), cells in cells_of(records):
        usable = [(cell, scored(cell)) for cell in cells]
        usable = [(cell, candidates) for cell, candidates in usable if len(candidates) > 2]
        if usable:
            title = f"### {phase}{f', {shift}' if shift else ''}, {labels or 'all'} source labels"
            about = f"Base `{dict(budget)['base']}`, fingerprint `{fingerprint[:12]}`."
            lines += ["", title, "", *_about(usable, about), "", *_ranking(usable), "", *_regrets(usable)]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def _about(usable: Sequence[tuple[list[Record], list[Candidate]]], about: str) -> list[str]:
    counts = Counter(len(candidates) for _, candidates in usable)
    rows = sorted({len(record["correct"]) for cell, _ in usable for record in cell})
    names = dict.fromkeys(candidate.name for _, candidates in usable for candidate in candidates)
    weak = Counter(c.name for _, cell in usable for c in cell if c not in able(cell))
    bare = dict.fromkeys(r["method"] for cell, _ in usable for r in cell if not r["label_free_scores"])
    lines = [
        f"{len(usable)} cells (direction and draw), {', '.join(f'{count} test rows' for count in rows)} each. {about} "
        + "Candidates with scores in a cell: "
        + ", ".join(f"{count} (in {number} cells)" for count, number in sorted(counts.items()))
        + (f", which is few (under {ENOUGH})" if max(counts) < ENOUGH else "")
        + f": {', '.join(f'`{name}`' for name in names)}.",
        "",
        f"Under {100 * AT_CHANCE:.0f} % even on the source: "
        + (", ".join(f"`{name}` in {count} cells" for name, count in weak.items()) or "none")
        + ".",
    ]
    for method in bare:
        values = [
            (float(hits(record).mean()), picks(candidates, TWIN)[ORACLE].accuracy)
            for cell, candidates in usable
            for record in cell
            if record["method"] == method
        ]
        mine, oracle = np.mean(values, axis=0)
        lines.append(
            f"`{method}` trains no stage and its records have no scores, so no rule could take it; its mean accuracy "
            f"is {100 * mine:.1f}, the oracle's choice among the others {100 * oracle:.1f} ({len(values)} cells)."
        )
    return lines


def _ranking(usable: Sequence[tuple[list[Record], list[Candidate]]]) -> list[str]:
    everyone = [correlations(candidates) for _, candidates in usable]
    chosen = [correlations(able(candidates)) for _, candidates in usable]
    lines = [
        "| validator | rank correlation, all candidates | 95 % interval | cells | without those at chance "
        "| 95 % interval | cells |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = []
    for name in VALIDATORS:
        parts, first = [], -math.inf
        for found in (everyone, chosen):
            values = [cell[name] for cell in found if name in cell]
            if not values:
                parts.append("— | — | 0")
                continue
            interval = over_cells(values)
            first = interval.estimate if first == -math.inf else first
            parts.append(f"{interval.estimate:+.2f} | {interval.low:+.2f} … {interval.high:+.2f} | {len(values)}")
        if first > -math.inf:
            rows.append((first, f"| `{name}` | {' | '.join(parts)} |"))
    return lines + [row for _, row in sorted(rows, key=lambda item: -item[0])]


def _regrets(usable: Sequence[tuple[list[Record], list[Candidate]]]) -> list[str]:
    found: dict[str, list[tuple[str, int, str, float]]] = defaultdict(list)
    for cell, candidates in usable:
        place = (cell[0]["source"], cell[0]["draw"], cell[0]["target"])
        for rule, regret in regrets(candidates).items():
            found[rule].append((*place, regret))
    lines = ["| who picks | regret, points | 95 % interval | worst cell | cells |", "|---|---|---|---|---|"]
    for rule, values in sorted(found.items(), key=lambda item: np.mean([value[3] for value in item[1]])):
        name = f"`{rule}`" if rule in VALIDATORS else f"**{rule}**"
        worst = max(value[3] for value in values)
        mean = over_sources(values)
        limits = f"{100 * mean.low:+.1f} … {100 * mean.high:+.1f}" if mean.high > mean.low else "—"
        lines.append(f"| {name} | {100 * mean.estimate:.1f} | {limits} | {100 * worst:.1f} | {len(values)} |")
    assert RANDOM in found
    return lines


# --- guesses of accuracy and of class shares --------------------------------------------------------------------------


def estimates_page(records: Sequence[Record]) -> str:
    """Return the tables of guesses of accuracy and class shares, one set for each base and budget."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[record["base_fingerprint"], tuple(sorted(record["budget"].items()))].append(record)
    lines: list[str] = []
    for (fingerprint, budget), group in groups.items():
        spent = dict(budget)
        models = len({(r["method"], r["source"], r["draw"], r["labels"]) for r in group})
        lines += [
            "",
            f"{len(group)} records of {models} models; base `{spent['base']}`, fingerprint `{fingerprint[:12]}`, has "
            f"seen: {', '.join(group[0]['base_saw']) or 'unknown'}. {group[0]['source_rows']} held-out source rows; "
            f"pool and test rows: {'; '.join(_sizes(group))}.",
        ]
        for labels in dict.fromkeys(record["labels"] for record in group):
            here = [record for record in group if record["labels"] == labels]
            lines += ["", f"#### {labels or 'All 1,700'} source labels: accuracy", "", *_estimates(here)]
        lines += ["", "#### Error by method, points", "", *_by_method(group)]
        if known := [record for record in group if "prior" in record]:
            lines += ["", "#### Class shares", "", *_priors(known), "", *_correction(known)]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def _sizes(records: Sequence[Record]) -> Iterator[str]:
    found = {record["shift"]: (record["pool_rows"], record["rows"]) for record in records}
    for world, name in WORLDS.items():
        if world in found:
            yield f"{name} {found[world][0]} and {found[world][1]}"


def held(guess: Record, truth: float, rows: float = math.inf) -> bool:
    """Whether an interval holds the truth; with rows: after the chance of so many test rows is added to its width."""
    chance = Z90 * math.sqrt(truth * (1 - truth) / rows)
    low = guess["estimate"] - math.hypot(guess["estimate"] - guess["low"], chance)
    high = guess["estimate"] + math.hypot(guess["high"] - guess["estimate"], chance)
    return bool(low <= truth <= high)


def _estimates(records: Sequence[Record]) -> list[str]:
    lines = [
        "| target | estimate | mean error | bias | error minus same as source, 95 % interval | 90 % interval holds the "
        "measured accuracy | with the test rows' chance | records |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for world, name in itertools.product(WORLDS, NAMES):
        here = [r for r in records if r["shift"] == world and name in r["estimates"]]
        if not here:
            continue
        off = [r["estimates"][name]["estimate"] - r["accuracy"] for r in here]
        against = over_records(
            here,
            lambda r, name=name: (
                abs(r["estimates"][name]["estimate"] - r["accuracy"])
                - abs(r["estimates"][SAME]["estimate"] - r["accuracy"])
            ),
        )
        lines.append(
            f"| {WORLDS[world]} | {NAMES[name]} | {100 * np.mean(np.abs(off)):.1f} | {100 * np.mean(off):+.1f} "
            f"| {'' if name == SAME else points(against)} "
            f"| {share([held(r['estimates'][name], r['accuracy']) for r in here])} "
            f"| {share([held(r['estimates'][name], r['accuracy'], r['rows']) for r in here])} | {len(here)} |"
        )
    return lines


def _by_method(records: Sequence[Record]) -> list[str]:
    names = [name for name in NAMES if any(name in record["estimates"] for record in records)]
    lines = [
        "| method | labels | target | accuracy | source dev | " + " | ".join(NAMES[n] for n in names) + " |",
        "|---|---|---|---|---|" + "---|" * len(names),
    ]
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in records):
        for world, shown in WORLDS.items():
            here = [r for r in records if (r["method"], r["labels"], r["shift"]) == (method, labels, world)]
            if not here:
                continue
            parts = []
            for name in names:
                off = [abs(r["estimates"][name]["estimate"] - r["accuracy"]) for r in here if name in r["estimates"]]
                parts.append(f"{100 * np.mean(off):.1f}" if off else "—")
            means = (100 * np.mean([r[key] for r in here]) for key in ("accuracy", "source_accuracy"))
            lines.append(
                f"| `{method}` | {labels or 'all'} | {shown} | {' | '.join(f'{m:.1f}' for m in means)} "
                f"| {' | '.join(parts)} |"
            )
    return lines


def _priors(records: Sequence[Record]) -> list[str]:
    lines = [
        "| method | labels | target | estimate | mean error | bias | 95 % interval holds the share | records |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in records):
        for world in SHIFTS:
            here = [r for r in records if (r["method"], r["labels"], r["shift"]) == (method, labels, world)]
            if not here:
                continue
            start = f"| `{method}` | {labels or 'all'} | {WORLDS[world]} "
            same = [r["source_share"] - r["pool_share"] for r in here]
            lines.append(f"{start}| same as source {_errors(same)} | | {len(here)} |")
            for name in here[0]["prior"]:
                off = [r["prior"][name]["estimate"] - r["pool_share"] for r in here]
                inside = [r["prior"][name]["low"] <= r["pool_share"] <= r["prior"][name]["high"] for r in here]
                lines.append(f"{start}| {NAMES[name]} {_errors(off)} | {share(inside)} | {len(here)} |")
    return lines


def _errors(off: Sequence[float]) -> str:
    return f"| {100 * np.mean(np.abs(off)):.1f} | {100 * np.mean(off):+.1f}"


def _correction(records: Sequence[Record]) -> list[str]:
    lines = [
        "What the correction by EM's shares does to the accuracy (calibrated alone, then corrected; points, with an "
        "interval over sources):",
        "",
        "| method | labels | target | accuracy | calibrated minus it | corrected minus it |",
        "|---|---|---|---|---|---|",
    ]
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in records):
        for world in SHIFTS:
            here = [r for r in records if (r["method"], r["labels"], r["shift"]) == (method, labels, world)]
            if here:
                gains = [
                    points(over_records(here, lambda r, key=key: r[key] - r["accuracy"]))
                    for key in ("accuracy_calibrated", "accuracy_corrected")
                ]
                lines.append(
                    f"| `{method}` | {labels or 'all'} | {world} | {100 * np.mean([r['accuracy'] for r in here]):.1f} "
                    f"| {' | '.join(gains)} |"
                )
    return lines


# --- vocabularies -----------------------------------------------------------------------------------------------------


def vocabulary_page(records: Sequence[Record], amazon: Sequence[Record]) -> str:
    """Return overlap of vocabularies by direction, beside what accuracy falls by and what fusion gains."""
    words = {(r["source"], r["target"]): r["vocabulary"] for r in records}
    columns: dict[str, dict[tuple[str, str], float]] = {}
    for method in dict.fromkeys(r["method"] for r in records):
        drops: dict[tuple[str, str], list[float]] = defaultdict(list)
        for r in records:
            if r["method"] == method and not r["shift"] and r["labels"] is not None:
                drops[r["source"], r["target"]].append(r["source_accuracy"] - r["accuracy"])
        columns[f"drop of `{method}`"] = {pair: float(np.mean(values)) for pair, values in drops.items()}
    fingerprints = {r["base_fingerprint"] for r in records}
    by_cell = {
        (r["arm"], r["source"], r["target"], r["draw"]): r["accuracy"]
        for r in amazon
        if r["phase"] == "few" and r["kind"] == "houlsby" and r["base_fingerprint"] in fingerprints
    }
    for arm in GAINS:
        gains: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (name, source, target, draw), accuracy in by_cell.items():
            if name == arm and ("none", source, target, draw) in by_cell:
                gains[source, target].append(accuracy - by_cell["none", source, target, draw])
        columns[f"*{arm}* minus *none*"] = {pair: float(np.mean(values)) for pair, values in gains.items()}
    columns = {name: values for name, values in columns.items() if values}
    if not words or not columns:
        return "No record yet.\n"
    lines = [
        "| direction | frequent words shared | running words known | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for pair, overlap in sorted(words.items(), key=lambda item: -item[1]["shared"]):
        parts = [f"{100 * values[pair]:+.1f}" if pair in values else "—" for values in columns.values()]
        shown = f"{100 * overlap['shared']:.1f} % | {100 * overlap['known']:.1f} %"
        lines.append(f"| {pair[0]} → {pair[1]} | {shown} | {' | '.join(parts)} |")
    for key, what in (("shared", "shared"), ("known", "known")):
        parts = []
        for values in columns.values():
            pairs = sorted(words.keys() & values.keys())
            parts.append(_correlated([words[pair][key] for pair in pairs], [values[pair] for pair in pairs]))
        lines.append(f"| **rank correlation with words {what}** | | | {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def _correlated(first: Sequence[float], second: Sequence[float], draws: int = 2000) -> str:
    value = rank_correlation(first, second) if len(first) > 2 else None
    if value is None:
        return "—"
    one, two, generator = np.array(first), np.array(second), np.random.default_rng(0)
    chosen = (generator.integers(0, len(one), len(one)) for _ in range(draws))
    found = [r for rows in chosen if (r := rank_correlation(one[rows], two[rows])) is not None]
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{value:+.2f} ({low:+.2f} … {high:+.2f})"


# --- intervals --------------------------------------------------------------------------------------------------------


def over_cells(values: Sequence[float]) -> Interval:
    """Return the mean with a 95 % percentile bootstrap over cells."""
    means = resampled_means(values, 10_000, np.random.default_rng(0))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.mean(values)), float(low), float(high))


def over_sources(values: Sequence[tuple[str, int, str, float]]) -> Interval:
    """Return the mean over (source, draw, target, value) with Student's interval over sources; bare of one source."""
    if len({source for source, *_ in values}) < 2:
        mean = float(np.mean([value for *_, value in values]))
        return Interval(mean, mean, mean)
    return grouped_difference([(s, draw, target, np.array([value])) for s, draw, target, value in values]).interval


def over_records(records: Sequence[Record], value: Callable[[Record], float]) -> Interval:
    """Return the mean of a value over records, those of one source together."""
    return over_sources(
        [(r["source"], r["draw"], f"{r['target']} {r['method']} {r['labels']}", value(r)) for r in records]
    )


def points(interval: Interval) -> str:
    """Return an interval in points."""
    if interval.low == interval.high:
        return f"{100 * interval.estimate:+.1f}"
    return f"{100 * interval.estimate:+.1f} ({100 * interval.low:+.1f} … {100 * interval.high:+.1f})"


def share(marks: Sequence[bool]) -> str:
    """Return a share in percent with its binomial interval."""
    found = wilson(float(np.mean(marks)), len(marks))
    return f"{100 * found.estimate:.0f} % ({100 * found.low:.0f} … {100 * found.high:.0f})"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--catalogue", type=Path, nargs="*", default=[CATALOGUE / name for name in PICKED_FROM])
    parser.add_argument("--amazon", type=Path, default=HERE.parent / "amazon" / "records.jsonl")
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    options = parser.parse_args()
    records = read_records(options.records)
    fill(options.page, "picks", picks_page([record for path in options.catalogue for record in read_records(path)]))
    fill(options.page, "estimates", estimates_page(records))
    fill(options.page, "vocabulary", vocabulary_page(records, read_records(options.amazon)))


if __name__ == "__main__":
    main()
