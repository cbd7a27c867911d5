"""Cells of tables on scores: accuracy of rows, or entity F1 of texts where words are tagged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guidebook.evaluation.task_scores import ACCURACY, ENTITY_F1, METRICS, metric_of, primary
from guidebook.reports.numbers import percent

Facts = Mapping[str, Any]


def counted(part: Facts) -> str:
    """Return how many rows were scored, or texts and their words."""
    if any(metric_of(scores) == ENTITY_F1 for scores in part["scores"].values()):
        return f"{part['texts']:,} texts, {part['rows']:,} words"
    return f"{part['rows']:,}"


def tested(target: Facts) -> str:
    """Return how many rows were tested, and how many of them were adapted to."""
    share = float(target["transductive"])
    adapted_to = "" if not share else ", transductive" if share == 1 else f", {100 * share:.0f} % transductive"
    return counted(target) + adapted_to


def tagged(meta: Facts) -> bool:
    """Return whether a run labelled words, so that entity F1 is what counts."""
    return bool(meta["task"].get("kind") == "token_classification")


def metric_name(meta: Facts) -> str:
    """Return the name of the metric that counts: what differences and intervals are of."""
    return METRICS[ENTITY_F1 if tagged(meta) else ACCURACY]


def score_columns(meta: Facts) -> tuple[str, str, str]:
    """Return the headings of what `scored` returns."""
    return f"{metric_name(meta)} %", "95 % interval", "accuracy of words %" if tagged(meta) else "macro-F1 %"


def scored(scores: Facts) -> tuple[str, str, str]:
    """Return the score that counts, its interval, and the other one."""
    found = primary(scores)
    other = scores["accuracy" if metric_of(scores) == ENTITY_F1 else "macro_f1"]
    return percent(found.estimate), f"{percent(found.low)} to {percent(found.high)}", percent(other)


def named_otherwise(target: Facts) -> bool:
    """Return whether a target has labels and none of them is one of the source's."""
    return not target["scores"] and not target["rows"] and bool(target.get("unknown_labels"))
