"""Scores of a task's predictions: by rows for classes, by texts for tags of words, with the metric that counts.

Of classes that is the accuracy; of tags it is entity F1. Words of one text are not independent, so what is resampled
for their intervals is texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guidebook.data.gold import Gold
from guidebook.data.schemes import Scheme, scheme_of
from guidebook.data.tags import UNTAGGED, flat
from guidebook.evaluation.entities import entity_counts, entity_difference, entity_scores, f1_by_row
from guidebook.evaluation.metrics import classification_scores
from guidebook.evaluation.statistics import Interval, paired_difference, resampled_sums

ENTITY_F1, ACCURACY = "entity_f1", "accuracy"
METRICS = {ACCURACY: "accuracy", ENTITY_F1: "entity F1"}
"""Key of the metric that counts in a model's scores -> its name for people."""
UNKNOWN = "unknown"
DRAWS = 1000


def metric_of(scores: Mapping[str, Any]) -> str:
    """Return which of a model's scores counts: "entity_f1" where words are tagged, else "accuracy"."""
    return ENTITY_F1 if ENTITY_F1 in scores else ACCURACY


def primary(scores: Mapping[str, Any]) -> Interval:
    """Return the score that counts, with its 95 % interval."""
    name = metric_of(scores)
    return Interval(scores[name], scores[f"{name}_low"], scores[f"{name}_high"])


def recorded(scores: Mapping[str, Any], on_source: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a record says of the metric that counts; accuracies have fields of their own in it.

    Args:
        scores: Of a model on the target.
        on_source: Of the same model on the source; None: not measured.
    """
    metric = metric_of(scores)
    if metric == ACCURACY:
        return {"metric": metric}
    found = primary(scores)
    return {
        "metric": metric,
        "score": found.estimate,
        "score_low": found.low,
        "score_high": found.high,
        "source_score": on_source.get(metric) if on_source else None,
    }


def scores(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    tags: Sequence[Sequence[str]] | None = None,
    scheme: Scheme | None = None,
) -> dict[str, Any]:
    """Return the scores of probabilities (N, C), of words (W, C), against labels as a label set encodes them.

    Items without a known label are left out. Where words are labelled, entity scores stand beside those of words.

    Args:
        probabilities: Of every row, or of every word, text after text.
        labels: (N,) class ids; of words (N,) tuples of one id per word.
        names: Names of the classes.
        tags: The true tags of every row of words, also those that are not among `names`; None: "unknown" there.
        scheme: How the tags spell entities; None: as `names` do.
    """
    gold = flat(labels)
    known = gold >= 0
    found = classification_scores(probabilities[known], gold[known], names)
    if labels.dtype != object:
        return found
    texts = tagged_texts(probabilities.argmax(1), labels, names, tags)
    hits = [
        [sum(p == g >= 0 for p, g in zip(guess, row, strict=True)), sum(g >= 0 for g in row)]
        for guess, row in zip(_split(probabilities.argmax(1), labels), labels, strict=True)
    ]
    sums = resampled_sums(hits, DRAWS, np.random.default_rng(0))  # (draws, 2): words right, words
    low, high = np.quantile(sums[:, 0] / np.maximum(sums[:, 1], 1), [0.025, 0.975])
    found |= {"accuracy_low": min(float(low), found["accuracy"]), "accuracy_high": max(float(high), found["accuracy"])}
    return found | {"texts": len(texts.gold)} | entity_scores(*texts.both, scheme or scheme_of(names))


@dataclass(frozen=True)
class TaggedTexts:
    """Predicted and true tags of the texts that have tags, text by text."""

    predicted: list[list[str]]
    gold: list[list[str]]

    @property
    def both(self) -> tuple[list[list[str]], list[list[str]]]:
        """Predicted and true tags."""
        return self.predicted, self.gold


def tagged_texts(
    best: np.ndarray, labels: np.ndarray, names: Sequence[str], tags: Sequence[Sequence[str]] | None = None
) -> TaggedTexts:
    """Return the tags of predicted ids (W,) and the true ones, row by row; rows without tags are left out.

    A true tag that the source does not have counts with the name it has in `tags`, so that what it marks is missed.
    """
    predicted, gold = [], []
    for number, (guess, row) in enumerate(zip(_split(best, labels), labels, strict=True)):
        if not row or row[0] == UNTAGGED:
            continue
        predicted.append([names[tag] for tag in guess])
        own = tags[number] if tags is not None else [UNKNOWN] * len(row)
        gold.append([names[tag] if tag >= 0 else own[place] for place, tag in enumerate(row)])
    return TaggedTexts(predicted, gold)


def _split(best: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    ends = np.cumsum([len(row) for row in labels])[:-1]
    return [row.tolist() for row in np.split(best, ends)]


def by_row(probabilities: np.ndarray, gold: Gold, names: Sequence[str]) -> np.ndarray:
    """Return one value per row with a known label, or text with tags, whose mean is the metric that counts.

    Whether the row is right (N,); of words each text's part in entity F1 (see `f1_by_row`).
    """
    best = probabilities.argmax(1)
    if gold.rows.dtype != object:
        return np.asarray((best == gold.items)[gold.known], dtype=np.float64)
    texts = tagged_texts(best, gold.rows, names, gold.tags)
    return f1_by_row(entity_counts(*texts.both, scheme_of(names)))


def difference(first: np.ndarray, second: np.ndarray, gold: Gold, names: Sequence[str]) -> Interval:
    """Return the metric that counts of one model's probabilities minus another's, paired, with its 95 % interval."""
    if gold.rows.dtype != object:
        right = [(found.argmax(1) == gold.items)[gold.known] for found in (first, second)]
        return paired_difference(*right)
    one, other = (tagged_texts(found.argmax(1), gold.rows, names, gold.tags) for found in (first, second))
    return entity_difference(one.predicted, other.predicted, one.gold, scheme_of(names))
