"""Entities of tagged words and their F1: exact spans with exact types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from guidebook.data.schemes import Entity, Scheme, scheme_of, spans
from guidebook.evaluation.statistics import Interval, resampled_sums

Tags = Sequence[Sequence[str]]
"""Tags of words, row by row."""


def entities(tags: Sequence[str], scheme: Scheme | None = None) -> set[Entity]:
    """Return the entities of one row of tags: first word, word after the last, type.

    Without a scheme the row's own tags tell theirs. A tag that marks neither beginning nor inside is an entity of one
    word, so that plain classes of words can be scored too.

    >>> sorted(entities(["B-person", "I-person", "O", "I-place"]))
    [(0, 2, 'person'), (3, 4, 'place')]
    """
    return set(spans(tags, scheme or scheme_of(set(tags))))


def scheme_of_rows(*tags: Tags) -> Scheme:
    """Return the scheme of all tags of several sets of rows."""
    return scheme_of({tag for rows in tags for row in rows for tag in row})


def entity_counts(predicted: Tags, gold: Tags, scheme: Scheme | None = None) -> np.ndarray:
    """Return (N, 3) counts of every row: entities found right, entities predicted, entities in the gold tags."""
    scheme = scheme or scheme_of_rows(predicted, gold)
    pairs = [(entities(one, scheme), entities(other, scheme)) for one, other in zip(predicted, gold, strict=True)]
    return np.array([(len(one & other), len(one), len(other)) for one, other in pairs], dtype=np.int64).reshape(-1, 3)


def f1_of(counts: np.ndarray) -> float:
    """Return micro F1 of summed counts (3,) or of rows (N, 3); 0 where there is neither prediction nor entity.

    >>> f1_of(np.array([1, 2, 2]))
    0.5
    """
    right, predicted, true = counts.reshape(-1, 3).sum(axis=0)
    return float(2 * right / max(predicted + true, 1))


def entity_scores(predicted: Tags, gold: Tags, scheme: Scheme | None = None, *, draws: int = 1000) -> dict[str, Any]:
    """Return entity F1 with a 95 % bootstrap interval over rows, precision, recall, and F1 by type.

    Reference: Tjong Kim Sang and De Meulder 2003, the CoNLL-2003 shared task (exact spans, micro-averaged).
    """
    scheme = scheme or scheme_of_rows(predicted, gold)
    counts = entity_counts(predicted, gold, scheme)
    right, found, true = counts.sum(axis=0)
    types: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    for one, other in zip(predicted, gold, strict=True):
        mine, theirs = entities(one, scheme), entities(other, scheme)
        types.update(kind for *_, kind in theirs)
        guesses.update(kind for *_, kind in mine)
        hits.update(kind for *_, kind in mine & theirs)
    spread = f1_of_sums(resampled_sums(counts, draws, np.random.default_rng(0)))
    return {
        "entity_f1": f1_of(counts),
        "entity_f1_low": float(np.quantile(spread, 0.025)),
        "entity_f1_high": float(np.quantile(spread, 0.975)),
        "entity_precision": float(right / max(found, 1)),
        "entity_recall": float(right / max(true, 1)),
        "entities": int(true),
        "per_type": {
            kind: {"f1": 2 * hits[kind] / max(types[kind] + guesses[kind], 1), "entities": types[kind]}
            for kind in sorted(types | guesses)
        },
    }


def f1_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return micro F1 (D,) of summed counts (D, 3)."""
    return np.asarray(2 * sums[:, 0] / np.maximum(sums[:, 1] + sums[:, 2], 1))


def f1_by_row(counts: np.ndarray) -> np.ndarray:
    """Return values (N,), one per row of counts (N, 3), whose mean is the micro F1 of all rows.

    F1 is a ratio of sums, so rows have none of their own. These are F1 plus each row's influence on it, by which the
    mean over resampled rows differs from their F1 only in second order: what is known of means holds for F1.

    Reference: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 21.

    >>> float(f1_by_row(np.array([[1, 1, 2], [0, 1, 0]])).mean()) == f1_of(np.array([[1, 1, 2], [0, 1, 0]]))
    True
    """
    both = counts[:, 1] + counts[:, 2]
    whole = f1_of(counts)
    influence: np.ndarray = (2 * counts[:, 0] - whole * both) / max(float(both.mean()), 1 / max(len(counts), 1))
    return whole + influence


def entity_difference(
    first: Tags, second: Tags, gold: Tags, scheme: Scheme | None = None, *, draws: int = 2000
) -> Interval:
    """Return entity F1 of the first minus the second prediction, with a paired 95 % bootstrap interval over rows."""
    scheme = scheme or scheme_of_rows(first, second, gold)
    one, other = entity_counts(first, gold, scheme), entity_counts(second, gold, scheme)
    sums = resampled_sums(np.hstack([one, other]), draws, np.random.default_rng(0))  # the same rows for both
    low, high = np.quantile(f1_of_sums(sums[:, :3]) - f1_of_sums(sums[:, 3:]), [0.025, 0.975])
    return Interval(f1_of(one) - f1_of(other), float(low), float(high))
