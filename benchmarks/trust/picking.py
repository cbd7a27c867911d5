"""What label-free scores are worth as rankers and pickers of methods, from the catalogue's records."""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.evaluation.drift import SCORE
from guidebook.evaluation.picks import FLAGSHIP, ORACLE, RANDOM, Candidate, oriented, picks
from guidebook.evaluation.ranking import rank_correlation
from guidebook.evaluation.validators import VALIDATORS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from catalogue.study import TAKES_LABELS, TWIN
from trust.intervals import Record, over_cells, over_sources, points, share

FUSION = "domain_fusion"
ENOUGH = 30
"""Candidates in a cell from which on a choice among them says something."""
MUCH = 0.03
"""A loss of accuracy that nobody would overlook."""
TELLS = {"less than half as much": 0.5, "less": 1.0, "as much or more": math.inf}
"""What a share of the twin's mutual information is called, and where that ends."""
AT_CHANCE = 0.6
"""Source accuracy under which a candidate of two classes has learned next to nothing."""


Group = tuple[str, int | None, str, str, tuple[tuple[str, Any], ...] | None]
"""(phase, labels, shift, fingerprint of the base, budget); without a budget: all budgets together."""


def cells_of(records: Sequence[Record]) -> Iterator[tuple[Group, list[list[Record]]]]:
    """Yield groups and their cells: records of all methods that read no target label.

    Where cells have runs of several budgets (other adapters, other lengths) these come once more, together: a choice is
    one among all of them.
    """
    found: dict[Group, dict[tuple[Any, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["label_free"] and record["method"] not in TAKES_LABELS:
            budget = tuple(sorted(record["budget"].items()))
            for part in (budget, None):
                group = (record["phase"], record["labels"], record["shift"], record["base_fingerprint"], part)
                found[group][record["source"], record["target"], record["draw"]].append(record)
    for group, cells in sorted(found.items(), key=lambda item: item[0][-1] is None):
        several = [cell for cell in cells.values() if group[-1] or len({str(r["budget"]) for r in cell}) > 1]
        if several:
            yield group, several


def scored(cell: Sequence[Record]) -> list[Candidate]:
    """Return the candidates of a cell that have scores; methods without a stage have none."""
    mixed = len({str(record["budget"]) for record in cell}) > 1
    return [
        Candidate(
            f"{record['method']}, {record['budget']['adapter']}" if mixed else record["method"],
            hits(record),
            None,
            oriented(record["label_free_scores"]),
        )
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
    found = {rule: pick.regret for rule, pick in picks(cell, "").items() if rule != ORACLE}
    for candidate in cell:
        if candidate.name.partition(",")[0] in (FUSION, TWIN):
            found[f"always `{candidate.name}`"] = picks(cell, candidate.name)[FLAGSHIP].regret
    return found


def picks_page(records: Sequence[Record]) -> str:
    """Return the tables of validators as rankers and pickers, one pair for each group of records."""
    lines: list[str] = []
    for (phase, labels, shift, fingerprint, budget), cells in cells_of(records):
        usable = [(cell, scored(cell)) for cell in cells]
        usable = [(cell, candidates) for cell, candidates in usable if len(candidates) > 2]
        if usable:
            spent = dict(budget or ())
            title = f"### {phase}{f', {shift}' if shift else ''}, {labels or 'all'} source labels, "
            base = cells[0][0]["budget"]["base"]
            title += f"{base}, {spent['adapter']}" if budget else f"{base}, runs of all budgets together"
            about = f"Base `{base}`, fingerprint `{fingerprint[:12]}`."
            lines += ["", title, "", *_about(usable, about), "", *_ranking(usable), "", *_regrets(usable)]
            lines += ["", *_drifts(usable), "", *_guarded(usable)] if budget else []
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


def _drifts(usable: Sequence[tuple[list[Record], list[Candidate]]]) -> list[str]:
    """Return what became of models that tell less of the target's rows than their twin, and of the others."""
    found: dict[str, list[tuple[str, int, str, float]]] = defaultdict(list)
    for cell, candidates in usable:
        told = {c.name: c for c in candidates if SCORE in c.scores}
        twin = told.pop(TWIN, None)
        for other in told.values() if twin is not None else ():
            part = other.scores[SCORE] / max(twin.scores[SCORE], 1e-9)
            place = cell[0]["source"], cell[0]["draw"], f"{cell[0]['target']} {other.name}"
            gain = float(other.correct.mean() - twin.correct.mean())
            found[next(name for name, most in TELLS.items() if part < most)].append((*place, gain))
    if not found:
        return []
    lines = [
        f"Mutual information of a model with the target's rows beside that of `{TWIN}` in its cell, and its accuracy:",
        "",
        f"| it tells | models | accuracy minus `{TWIN}`, points | below it | below it by over {100 * MUCH:g} points |",
        "|---|---|---|---|---|",
    ]
    for name in TELLS:
        if gains := [gain for *_, gain in found[name]]:
            below = (share([gain < -least for gain in gains]) for least in (0, MUCH))
            lines.append(f"| {name} | {len(gains)} | {points(over_sources(found[name]))} | {' | '.join(below)} |")
    return lines


def _guarded(usable: Sequence[tuple[list[Record], list[Candidate]]]) -> list[str]:
    """Return what `domain_fusion` gains over the twin always, where it tells as much as the twin, and at best."""
    found: dict[str, list[tuple[str, int, str, float]]] = defaultdict(list)
    for cell, candidates in usable:
        told = {c.name: c for c in candidates if SCORE in c.scores}
        if FUSION in told and TWIN in told:
            fused, twin = told[FUSION], told[TWIN]
            gain = float(fused.correct.mean() - twin.correct.mean())
            kept = gain if fused.scores[SCORE] >= twin.scores[SCORE] else 0.0
            place = cell[0]["source"], cell[0]["draw"], cell[0]["target"]
            for name, value in (
                ("always", gain),
                ("where it tells as much", kept),
                ("where it is better", max(gain, 0.0)),
            ):
                found[name].append((*place, value))
    if not found:
        return []
    said = "; ".join(f"{name} {points(over_sources(values))}" for name, values in found.items())
    return [f"Taking `{FUSION}` in place of `{TWIN}`, points, {len(found['always'])} cells: {said}."]
