"""Tables of paired differences between methods, from records of the same cells; several studies share them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from guidebook.evaluation.ranking import holm
from guidebook.evaluation.statistics import GroupedDifference, grouped_difference, smallest_detectable

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
        found[record["method"]][record["source"], record["target"], record["draw"], record.get("shift", "")] = record
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
        lines.append(f"| `{method}` | {' | '.join(scores)} | {row(differences[method])} |")
    lines += ["", f"Accuracy and macro-F1: means over the {complete} cells that all of these methods have."]
    return lines


def brief_of(difference: Difference) -> str:
    """Return the cells difference, interval and p-value."""
    interval = difference.found.interval
    return (
        f"{100 * interval.estimate:+.1f} | {100 * interval.low:+.1f} … {100 * interval.high:+.1f} | {difference.p:.3f}"
    )


def row(difference: Difference) -> str:
    """Return the cells of `brief_of`, the smallest detectable difference, the number of cells and the verdict."""
    detectable = smallest_detectable(difference.found.interval.standard_error)
    return f"{brief_of(difference)} | {100 * detectable:.1f} | {difference.cells} | {verdict(difference)}"


def verdict(difference: Difference) -> str:
    """Return what a difference says after the correction; one trained model against one says nothing of methods."""
    if difference.over == "rows":
        return "one model each"
    if difference.p >= 0.05:
        return "within noise"
    return "higher" if difference.found.estimate > 0 else "lower"


def where_it_hurts(records: Sequence[Record], method: str, reference: str) -> list[str]:
    """Return directions on which a method (mean over draws) is below the reference with its whole interval of rows."""
    found = by_cell(records)
    cells: dict[tuple[str, str, str], list[np.ndarray]] = defaultdict(list)
    for cell in sorted(found[method].keys() & found[reference].keys()):
        source, target, _, shift = cell
        cells[source, target, shift].append(hits(found[method][cell]) - hits(found[reference][cell]))
    places = []
    for (source, target, shift), differences in cells.items():
        interval = grouped_difference([(source, 0, target, np.mean(differences, axis=0))], "rows").interval
        if interval.high < 0:
            draws = f"{len(differences)} draw{'s' if len(differences) > 1 else ''}"
            places.append(
                f"{source} → {target}{f' ({shift})' if shift else ''} by {-100 * interval.estimate:.1f} ({draws})"
            )
    return places
