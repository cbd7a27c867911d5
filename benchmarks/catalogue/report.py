"""Write the study's tables from its records into this folder's README.md.

python benchmarks/catalogue/report.py
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from guidebook.evaluation.ranking import holm
from guidebook.evaluation.records import read_records
from guidebook.evaluation.statistics import GroupedDifference, grouped_difference, smallest_detectable
from guidebook.methods import METHODS
from guidebook.reports.marks import fill

sys.path.insert(0, str(Path(__file__).resolve().parent))
from study import (
    CHOSEN_BY,
    FLAGSHIP,
    PLACEBO,
    SCREENED,
    SHIFTS,
    TAKES_LABELS,
    TWIN,
    Budget,
    done,
    everything,
    finalists,
    finals,
)

HERE = Path(__file__).parent
TITLES = {
    "screening": "Screening: every method, 200 source labels",
    "finalists": "Finalists: eight directions that nothing was chosen on, 200 source labels",
    "many": "Finalists: the same directions, 1,700 source labels",
    "mnli": "MNLI genres, all source labels",
}
FINALS = {"finalists": "200", "many": "1,700"}
"""Phase -> how many source labels it has."""
Record = dict[str, Any]
Cell = tuple[str, str, int, str]
"""(source, target, draw, shift)."""


@dataclass(frozen=True)
class Difference:
    """One method minus another over the cells that both have."""

    better: str
    worse: str
    found: GroupedDifference
    p: float
    """Adjusted by Holm over the comparisons of its table."""
    cells: int
    over: str


def groups(records: Sequence[Record]) -> Iterator[tuple[tuple[Any, ...], list[Record]]]:
    """Yield (base, fingerprint, what it saw, budget) and their records: no table mixes bases or budgets."""
    found: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        budget = tuple(sorted(record["budget"].items()))
        key = (record["budget"]["base"], record["base_fingerprint"], tuple(record["base_saw"]), budget)
        found[key].append(record)
    yield from found.items()


def by_cell(records: Sequence[Record]) -> dict[str, dict[Cell, Record]]:
    """Return method -> cell -> record."""
    found: dict[str, dict[Cell, Record]] = defaultdict(dict)
    for record in records:
        found[record["method"]][record["source"], record["target"], record["draw"], record["shift"]] = record
    return found


def hits(record: Record) -> np.ndarray:
    """Return whether each test row was right (N,)."""
    return np.array([mark == "1" for mark in record["correct"]], dtype=float)


def widest_claim(cells: Sequence[Any]) -> Literal["sources", "draws", "rows"] | None:
    """Return what an interval over these cells may speak about: the widest that they allow; None without cells."""
    draws: dict[str, set[int]] = defaultdict(set)
    for source, draw, _, _ in cells:
        draws[source].add(draw)
    if not draws:
        return None
    if len(draws) > 1:
        return "sources"
    return "draws" if all(len(found) > 1 for found in draws.values()) else "rows"


def compare(records: Sequence[Record], pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    """Return paired differences of methods, their p-values adjusted by Holm over all of them."""
    methods, found = by_cell(records), []
    for better, worse in pairs:
        both = methods[better].keys() & methods[worse].keys()
        cells = [
            (source, draw, f"{target} {shift}", hits(methods[better][cell]) - hits(methods[worse][cell]))
            for cell in sorted(both)
            for source, target, draw, shift in [cell]
        ]
        over = widest_claim(cells)
        if over is not None:
            found.append((better, worse, grouped_difference(cells, over), len(cells), over))
    adjusted = holm([difference.p_value for _, _, difference, _, _ in found]) if found else []
    return [
        Difference(better, worse, difference, float(p), cells, over)
        for (better, worse, difference, cells, over), p in zip(found, adjusted, strict=True)
    ]


def means(records: Sequence[Record], score: str = "accuracy") -> tuple[dict[str, float], int]:
    """Return each method's mean over the cells that every method of the records has, and how many these are."""
    methods = by_cell(records)
    common = sorted(set.intersection(*(set(cells) for cells in methods.values()))) if methods else []
    if not common:
        return {}, 0
    return {m: float(np.mean([cells[c][score] for c in common])) for m, cells in methods.items()}, len(common)


def table(records: Sequence[Record], reference: str) -> list[str]:
    """Return methods with their mean accuracy and their difference to a reference, best first."""
    averages, complete = means(records)
    macro, _ = means(records, "macro_f1")
    methods = [method for method in by_cell(records) if method != reference]
    differences = {d.better: d for d in compare(records, [(method, reference) for method in methods])}
    order = sorted(
        by_cell(records),
        key=lambda m: -(differences[m].found.estimate if m in differences else 0.0),
    )
    lines = [
        f"| method | accuracy | macro-F1 | minus `{reference}` | 95 % interval | p (Holm) | detectable | cells | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in order:
        scores = [f"{100 * found[method]:.1f}" if method in found else "—" for found in (averages, macro)]
        if method not in differences:
            lines.append(f"| `{method}` | {' | '.join(scores)} | | | | | {len(by_cell(records)[method])} | |")
            continue
        lines.append(f"| `{method}` | {' | '.join(scores)} | {_row(differences[method])} |")
    lines += ["", f"Accuracy and macro-F1: means over the {complete} cells that all of these methods have."]
    return lines


def _brief(difference: Difference) -> str:
    interval = difference.found.interval
    return (
        f"{100 * interval.estimate:+.1f} | {100 * interval.low:+.1f} … {100 * interval.high:+.1f} | {difference.p:.3f}"
    )


def _row(difference: Difference) -> str:
    detectable = smallest_detectable(difference.found.interval.standard_error)
    return f"{_brief(difference)} | {100 * detectable:.1f} | {difference.cells} | {verdict(difference)}"


def verdict(difference: Difference) -> str:
    """Return what a difference says after the correction; one trained model against one says nothing of methods."""
    if difference.over == "rows":
        return "one model each"
    if difference.p >= 0.05:
        return "within noise"
    return "higher" if difference.found.estimate > 0 else "lower"


def plainly(records: Sequence[Record]) -> list[str]:
    """Say which methods help, which do not, and where each of them hurts."""
    methods = [m for m in by_cell(records) if m not in (TWIN, *TAKES_LABELS)]
    differences = compare(records, [(method, TWIN) for method in methods])
    said = {word: [f"`{d.better}`" for d in differences if verdict(d) == word] for word in ("higher", "lower")}
    noise = [f"`{d.better}`" for d in differences if verdict(d) == "within noise"]
    alone = [f"`{d.better}`" for d in differences if verdict(d) == "one model each"]
    lines = [
        f"- Better than `{TWIN}` beyond noise: {', '.join(said['higher']) or 'none'}.",
        f"- No difference to `{TWIN}` that shows: {', '.join(noise) or 'none'}.",
        f"- Worse than `{TWIN}` beyond noise: {', '.join(said['lower']) or 'none'}.",
        *([f"- Too few cells to say: {', '.join(alone)}."] if alone else []),
    ]
    for method in methods:
        places = where_it_hurts(records, method)
        if places:
            lines.append(f"- `{method}` hurts on {', '.join(places)}.")
    return lines


def where_it_hurts(records: Sequence[Record], method: str) -> list[str]:
    """Return directions on which the interval over test rows of (mean over draws) method minus twin is below zero."""
    found = by_cell(records)
    cells: dict[tuple[str, str, str], list[np.ndarray]] = defaultdict(list)
    for cell in sorted(found[method].keys() & found[TWIN].keys()):
        source, target, _, shift = cell
        cells[source, target, shift].append(hits(found[method][cell]) - hits(found[TWIN][cell]))
    places = []
    for (source, target, shift), differences in cells.items():
        interval = grouped_difference([(source, 0, target, np.mean(differences, axis=0))], "rows").interval
        if interval.high < 0:
            draws = f"{len(differences)} draw{'s' if len(differences) > 1 else ''}"
            places.append(
                f"{source} → {target}{f' ({shift})' if shift else ''} by {-100 * interval.estimate:.1f} ({draws})"
            )
    return places


def shifted(records: Sequence[Record]) -> list[str]:
    """Return every method's difference to the twin on targets of either class shares."""
    lines = [
        "| method | " + " | ".join(f"minus `{TWIN}`, {shift} | 95 % interval" for shift in SHIFTS) + " |",
        "|---|" + "---|---|" * len(SHIFTS),
    ]
    found: dict[str, dict[str, Difference]] = defaultdict(dict)
    for shift in SHIFTS:
        here = [record for record in records if record["shift"] == shift]
        for difference in compare(here, [(m, TWIN) for m in by_cell(here) if m != TWIN]):
            found[difference.better][shift] = difference
    first = next(iter(SHIFTS))
    order = sorted(found, key=lambda method: -found[method][first].found.estimate if first in found[method] else 1.0)
    for method, both in ((method, found[method]) for method in order):
        parts = []
        for shift in SHIFTS:
            interval = both[shift].found.interval if shift in both else None
            if interval is None:
                parts.append("— | —")
                continue
            parts.append(f"{100 * interval.estimate:+.1f} | {100 * interval.low:+.1f} … {100 * interval.high:+.1f}")
        lines.append(f"| `{method}` | {' | '.join(parts)} |")
    return lines


def section(phase: str, records: Sequence[Record]) -> list[str]:
    """Return one phase: label-free methods, then in a table of their own those that are given labels."""
    free = [record for record in records if record["label_free"]]
    given = [record for record in records if not record["label_free"] or record["method"] == TWIN]
    if not free:
        return []
    lines = ["", f"#### {TITLES[phase]}", "", *table(free, TWIN), "", *plainly(free)]
    pairs = [(FLAGSHIP, method) for method in by_cell(free) if method != FLAGSHIP]
    if phase in ("finalists", "many") and (beaten := compare(free, pairs)):
        lines += [
            "",
            f"Is `{FLAGSHIP}` above each of the others? The p-values are adjusted over these comparisons.",
            "",
            f"| `{FLAGSHIP}` minus | difference | 95 % interval | p (Holm) | detectable | cells | |",
            "|---|---|---|---|---|---|---|",
            *(f"| `{difference.worse}` | {_row(difference)} |" for difference in beaten),
        ]
    if len(by_cell(given)) > 1:
        lines += ["", "Given labels of the target, and so in no table with the others:", "", *table(given, TWIN)]
    return lines


def missing(records: Sequence[Record], budget: Budget, chosen: Sequence[str]) -> Iterator[str]:
    """Yield, for each phase of the study, how many of its runs have no record; the finals once they are chosen."""
    domains = sorted({name for pair in SCREENED for name in pair})
    jobs = [*everything(list(METHODS)), *(finals(chosen, domains) if chosen else ())]
    for phase in dict.fromkeys(job.phase for job in jobs):
        here = [job for job in jobs if job.phase == phase]
        without = sum(not done(records, job, budget) for job in here)
        if without:
            yield f"{without} of {len(here)} in {phase}"


def page(records: Sequence[Record]) -> str:
    """Return everything that stands between the marks."""
    lines: list[str] = []
    for (base, fingerprint, saw, budget), group in groups(records):
        spent = dict(budget)
        hours = sum(record["seconds"] for record in group) / 3600
        chosen = finalists(group, sorted({record["method"] for record in group}))
        names = ", ".join(f"`{name}`" for name in chosen) or "the screening is not complete"
        lines += [
            "",
            f"### Base `{Path(base).name}`, adapter `{spent['adapter']}`",
            "",
            f"{len(group)} runs, {hours:.1f} hours; {spent['fuse_tokens']:,} tokens per stage that models text, "
            f"{spent['epochs']:g} epochs, learning rate {spent['task_rate']:g}, {spent['test_rows']:,} test rows per "
            f"target. Fingerprint `{fingerprint[:12]}`; the base has seen: {', '.join(saw) or 'unknown'}. Placebo: "
            f"`{PLACEBO}`. Finalists, chosen by {' and '.join(CHOSEN_BY)}: {names}.",
            "",
            f"Not run yet: {', '.join(missing(group, Budget(**spent), chosen)) or 'nothing'}.",
        ]
        for phase in TITLES:
            lines += section(phase, [record for record in group if record["phase"] == phase])
        here = [record for record in group if record["phase"] == "shifted" and record["label_free"]]
        if here:
            lines += ["", "#### Targets of 85 to 15", "", *shifted(here)]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def brief(records: Sequence[Record]) -> str:
    """Return what the front page says: the flagship against each method that has all its cells of the finals."""
    lines: list[str] = []
    for ((base, _, _, budget), group), (phase, labels) in itertools.product(groups(records), FINALS.items()):
        free = [record for record in group if record["phase"] == phase and record["label_free"]]
        all_cells = by_cell(free).get(FLAGSHIP, {}).keys()
        whole = {method for method, cells in by_cell(free).items() if cells.keys() >= all_cells}
        free = [record for record in free if record["method"] in whole]
        accuracies, cells = means(free)
        if not cells:
            continue
        pairs = [(FLAGSHIP, method) for method in accuracies if method != FLAGSHIP]
        found = {difference.worse: difference for difference in compare(free, pairs)}
        for method in sorted(accuracies, key=lambda name: -accuracies[name]):
            gain = _brief(found[method]) if method in found else "| |"
            where = f"`{Path(base).name}`, {dict(budget)['adapter']} | {labels}"
            lines.append(f"| {where} | `{method}` | {cells} | {100 * accuracies[method]:.1f} | {gain} |")
    head = [
        f"| base | labels | method | models | accuracy | `{FLAGSHIP}` minus it | 95 % interval | p (Holm) |",
        "|---" * 8 + "|",
    ]
    return "\n".join([*head, *lines]) if lines else ""


def main() -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, nargs="*", default=[HERE / "records.jsonl"])
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    parser.add_argument("--front", type=Path, default=HERE.parents[1] / "README.md")
    options = parser.parse_args()
    records = [record for place in options.records for record in read_records(place)]
    fill(options.page, "study", page(records))
    if told := brief(records):
        fill(options.front, "catalogue", told)


if __name__ == "__main__":
    main()
