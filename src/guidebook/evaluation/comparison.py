"""From the records of a comparison to what they say: means, ranks, differences with tests, picks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from guidebook.errors import InputError
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.picks import ORACLE, SOURCE, Candidate, Pick, oriented, picks
from guidebook.evaluation.ranking import holm, rank_correlation, ranks
from guidebook.evaluation.statistics import Cell, GroupedDifference, grouped_difference, smallest_detectable
from guidebook.evaluation.task_scores import ACCURACY

Record = Mapping[str, Any]
Over = Literal["sources", "draws", "rows"]
Place = tuple[str, str, int | None, int, int]
"""(source, target, labelled rows, draw, seed): where a candidate is trained and tested."""
OVER = {
    "sources": "new sources like these",
    "draws": "these directions, with new draws of labels",
    "rows": "these trained models alone",
}


@dataclass(frozen=True)
class Standing:
    """One candidate over all complete cells."""

    name: str
    accuracy: float
    """Mean of the score that counts over cells, 0..1: the comparison's `metric`."""
    rank: float
    """Mean rank among the candidates, 1 is best."""
    regret: float
    """Mean accuracy that the oracle's choice is ahead."""
    source_accuracy: float | None
    difference: dict[str, Any] | None
    """Against the reference: estimate, low, high, p (Holm), within_noise, smallest_detectable; None for itself."""
    costs: dict[str, float | None]
    """Means: megabytes_per_domain, training_seconds, memory_megabytes, forgetting."""


@dataclass(frozen=True)
class Comparison:
    """What a group of records says; only cells where every candidate has a result count."""

    base: str
    labelled_rows: int | None
    made_with: dict[str, Any]
    """code (a digest), dtype and versions that all its records share."""
    others_differ_in: tuple[str, ...]
    """Which of these another group of the same base and rows has otherwise: such records are never mixed."""
    metric: str
    """What every score, rank, difference and regret is of: "accuracy", or "entity_f1" where words are tagged."""
    candidates: tuple[Standing, ...]
    """Best mean accuracy first."""
    reference: str
    over: Over
    """What the intervals speak about."""
    note: str
    """What is to be known about the reference, or "": every difference is against it, whichever it is."""
    picks: tuple[dict[str, Any], ...]
    """Per rule: rule, accuracy, regret (means over cells), cells, low and high of the regret where they can be had,
    took (candidate -> times), correlation of its score with the accuracy over candidates (mean over cells)."""
    estimates: tuple[dict[str, Any], ...]
    """Per label-free estimate, of every record: name, error (mean distance from the truth), bias (mean of estimate
    minus truth), coverage of its interval, records."""
    cells: int
    incomplete: int
    failed: dict[str, int]
    """Candidate -> cells in which it failed; such a cell is not complete."""
    directions: dict[str, dict[str, float]]
    """"source to target" -> candidate -> mean score, of every record there is."""
    overlap: dict[str, dict[str, Any]]
    """"source to target" -> tested rows that also stand in what was trained on: rows, in (role -> most of any run)."""

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """One comparison per base, number of labelled rows, code, number type and versions; no table mixes any of them.

    Args:
        records: As `guidebook compare` writes them; of equal keys the last one counts.

    Raises:
        InputError: records of another kind.
    """
    latest: dict[str, Record] = {}
    for record in records:
        if "candidate" not in record or "key" not in record:
            raise InputError("These are no records of a comparison: a record has no candidate. Run guidebook compare.")
        latest[record["key"]] = record
    groups: dict[str, list[Record]] = defaultdict(list)
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    metrics = {_task_of(record): record["metric"] for record in latest.values() if "metric" in record}
    metric_of_group = {}
    for record in latest.values():
        metric = record.get("metric") or metrics.get(_task_of(record), ACCURACY)  # one that failed has none
        made = _made_with(record)
        group = repr((_shared(record), metric, made))
        groups[group].append(record)
        metric_of_group[group] = metric
        if made not in alike[_shared(record)]:
            alike[_shared(record)].append(made)
    return [_comparison(own, metric_of_group[name], alike[_shared(own[0])]) for name, own in groups.items()]


def _shared(record: Record) -> tuple[Any, ...]:
    return record["base"], record["base_fingerprint"], record["labelled_rows"]


def _made_with(record: Record) -> dict[str, Any]:
    """Return what has to agree for records to stand in one table, as far as a record says it."""
    versions = sorted((record.get("versions") or {}).items())
    return {
        "code": record.get("code"),
        "dtype": record.get("dtype"),
        "versions": {name: number for name, number in versions if name not in ("guidebook", "python")},
    }


def correct_of(record: Record) -> NDArray[np.bool_]:
    """(N,) whether the model of a record was right on each test row."""
    found: NDArray[np.bool_] = np.frombuffer(record["correct"].encode(), dtype=np.uint8) == ord("1")
    return found


def values_of(record: Record) -> NDArray[np.float64]:
    """(N,) what each test row adds to the score: whether it was right, or a text's part in entity F1 (`f1_by_row`)."""
    return np.asarray(record["by_text"] if "by_text" in record else correct_of(record), dtype=np.float64)


def score_of(record: Record) -> float:
    """The score that counts of a record's model on the target, 0..1."""
    return float(record.get("score", record["accuracy"]))


def _task_of(record: Record) -> str:
    return str((record.get("recipe") or {}).get("task"))


def _source_score(record: Record) -> float | None:
    found: float | None = record.get("source_score", record.get("source_accuracy"))
    return found


def _comparison(records: Sequence[Record], metric: str, alike: Sequence[Mapping[str, Any]]) -> Comparison:
    names = list(dict.fromkeys(record["candidate"] for record in records))
    table: dict[Place, dict[str, Record]] = defaultdict(dict)
    failed: dict[str, int] = defaultdict(int)
    directions: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    overlap: dict[str, dict[str, Any]] = {}
    for record in records:
        place = tuple(record[name] for name in ("source", "target", "labelled_rows", "draw", "seed"))
        if "failed" in record:
            failed[record["candidate"]] += 1
            table.setdefault(place, {})  # type: ignore[arg-type]
            continue
        table[place][record["candidate"]] = record  # type: ignore[index]
        directions[f"{record['source']} to {record['target']}"][record["candidate"]].append(score_of(record))
        _add_overlap(overlap, record)
    whole = {place: cell for place, cell in table.items() if len(cell) == len(names)}
    reference = TWIN if TWIN in names else names[0]
    over, standings = _standings(whole, names, reference)
    return Comparison(
        base=records[0]["base"],
        labelled_rows=records[0]["labelled_rows"],
        made_with=(made := _made_with(records[0])),
        others_differ_in=tuple(name for name in made if any(other[name] != made[name] for other in alike)),
        metric=metric,
        candidates=tuple(sorted(standings, key=lambda standing: -standing.accuracy)),
        reference=reference,
        over=over,
        note="" if reference == TWIN else _without_twin(reference),
        picks=tuple(_picks(whole, records[-1]["flagship"])) if len(names) > 1 else (),
        estimates=tuple(_estimates(records)),
        cells=len(whole),
        incomplete=len(table) - len(whole),
        failed=dict(failed),
        directions={
            where: {name: float(np.mean(values)) for name, values in found.items()}
            for where, found in directions.items()
        },
        overlap=overlap,
    )


def _without_twin(reference: str) -> str:
    return (
        f"There is no {TWIN} among the candidates, so differences are against {reference}, which stands first: they do "
        f"not say whether adapting helps. Add {TWIN} to compare.methods for that."
    )


def _add_overlap(found: dict[str, dict[str, Any]], record: Record) -> None:
    """Keep, per direction and kind of text, the most of its tested rows that any run was trained on."""
    if not (overlap := record.get("overlap")):
        return
    known = found.setdefault(f"{record['source']} to {record['target']}", {"rows": overlap["rows"], "in": {}})
    for role, count in overlap["in"].items():
        known["in"][role] = max(count, known["in"].get(role, 0))


def _standings(
    whole: Mapping[Place, Mapping[str, Record]], names: Sequence[str], reference: str
) -> tuple[Over, list[Standing]]:
    if not whole:
        return "rows", []
    cells = [[cell[name] for name in names] for cell in whole.values()]
    accuracy = np.array([[score_of(record) for record in row] for row in cells])  # (cells, K)
    found = ranks(accuracy)
    oracle = np.array([_oracle(row) for row in cells])
    over = _claim(whole)
    others = [name for name in names if name != reference]
    differences = {name: _difference(whole, name, reference, over) for name in others}
    adjusted = dict(zip(others, holm([d.p_value for d in differences.values()]).tolist(), strict=True))
    return over, [
        Standing(
            name,
            float(accuracy[:, column].mean()),
            float(found[:, column].mean()),
            float((oracle - accuracy[:, column]).mean()),
            _mean(_source_score(row[column]) for row in cells),
            _plain(differences[name], adjusted[name]) if name in differences else None,
            {
                cost: _mean(row[column].get(cost) for row in cells)
                for cost in ("megabytes_per_domain", "training_seconds", "memory_megabytes", "forgetting")
            },
        )
        for column, name in enumerate(names)
    ]


def _oracle(row: Sequence[Record]) -> float:
    if len(row) < 2 or len(values_of(row[0])) < 2:
        return max(map(score_of, row))
    return picks([_candidate(record) for record in row], "")[ORACLE].accuracy


def _claim(whole: Mapping[Place, Any]) -> Over:
    """The widest claim that the cells carry: over sources, over draws, or over test rows alone."""
    draws: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for source, _, _, draw, seed in whole:
        draws[source].add((draw, seed))
    if len(draws) > 1:
        return "sources"
    return "draws" if min(map(len, draws.values())) > 1 else "rows"


def _difference(whole: Mapping[Place, Mapping[str, Record]], name: str, reference: str, over: Over) -> Any:
    runs = {run: number for number, run in enumerate(sorted({place[3:] for place in whole}))}
    cells: list[Cell] = [
        (place[0], runs[place[3:]], place[1], values_of(cell[name]) - values_of(cell[reference]))
        for place, cell in whole.items()
    ]
    return grouped_difference(cells, over)


def _plain(difference: GroupedDifference, p_value: float) -> dict[str, Any]:
    interval = difference.interval
    return {
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": p_value,
        "within_noise": interval.within_noise,
        "smallest_detectable": smallest_detectable(interval.standard_error),
    }


def _candidate(record: Record) -> Candidate:
    scores = oriented(record.get("scores") or {})
    return Candidate(record["candidate"], values_of(record), _source_score(record), scores)


def _picks(whole: Mapping[Place, Mapping[str, Record]], flagship: str) -> list[dict[str, Any]]:
    found: dict[str, list[tuple[str, Pick]]] = defaultdict(list)
    for (source, *_), cell in whole.items():
        records = list(cell.values())
        if len(values_of(records[0])) >= 2:
            for rule, pick in picks([_candidate(record) for record in records], flagship).items():
                found[rule].append((source, pick))
    correlations = _correlations(whole)
    lines = []
    for rule, made in found.items():
        regret, half = _regret([(source, pick.regret) for source, pick in made])
        lines.append(
            {
                "rule": rule,
                "accuracy": float(np.mean([pick.accuracy for _, pick in made])),
                "regret": regret,
                "low": None if half is None else regret - half,
                "high": None if half is None else regret + half,
                "cells": len(made),
                "took": dict(_counted([pick for _, pick in made])),
                "correlation": _mean(correlations.get(rule, ())),
            }
        )
    return sorted(lines, key=lambda line: line["regret"])


def _correlations(whole: Mapping[Place, Mapping[str, Record]]) -> dict[str, list[float | None]]:
    """Per rule with a score: its rank correlation with the accuracy over the candidates of each cell."""
    found: dict[str, list[float | None]] = defaultdict(list)
    for cell in whole.values():
        candidates = [_candidate(record) for record in cell.values()]
        accuracy = [float(candidate.correct.mean()) for candidate in candidates]
        rules: dict[str, list[float | None]] = {SOURCE: [candidate.source_accuracy for candidate in candidates]}
        for name in dict.fromkeys(name for candidate in candidates for name in candidate.scores):
            rules[name] = [candidate.scores.get(name) for candidate in candidates]
        for name, values in rules.items():
            if len(values) > 2 and all(value is not None and np.isfinite(value) for value in values):
                found[name].append(rank_correlation([float(value or 0.0) for value in values], accuracy))
    return found


def _estimates(records: Sequence[Record]) -> list[dict[str, Any]]:
    """How far every label-free estimate was from the truth, and how often its interval held it."""
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for record in records:
        for name, guess in (record.get("estimates") or {}).items():
            truth = score_of(record)
            found[name].append((guess["estimate"] - truth, guess["low"] <= truth <= guess["high"]))
    lines = [
        {
            "name": name,
            "error": float(np.mean([abs(off) for off, _ in values])),
            "bias": float(np.mean([off for off, _ in values])),
            "coverage": float(np.mean([held for _, held in values])),
            "records": len(values),
        }
        for name, values in found.items()
    ]
    return sorted(lines, key=lambda line: line["error"])


def _regret(found: Sequence[tuple[str, float]]) -> tuple[float, float | None]:
    """Mean regret, and half of its 95 % interval over sources (Student's t), None where there is one source.

    Cells of one source share its labelled rows and often its models: they are no independent evidence.
    """
    by_source: dict[str, list[float]] = defaultdict(list)
    for source, regret in found:
        by_source[source].append(regret)
    mean = float(np.mean([regret for _, regret in found]))
    if len(by_source) < 2:
        return mean, None
    error = float(np.std([np.mean(values) for values in by_source.values()], ddof=1)) / np.sqrt(len(by_source))
    interval = GroupedDifference(mean, error, len(by_source) - 1, 0.0).interval
    return mean, interval.high - mean


def _counted(made: Sequence[Pick]) -> list[tuple[str, float]]:
    """How often a rule took each candidate; ties share one."""
    counts: dict[str, float] = defaultdict(float)
    for pick in made:
        for name in pick.names:
            counts[name] += 1 / len(pick.names)
    return sorted(counts.items(), key=lambda item: -item[1])


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None
