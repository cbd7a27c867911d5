"""Entities of tagged words and their F1: exact spans with exact types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from guidebook.evaluation.statistics import Interval

Entity = tuple[int, int, str]
"""First word, word after the last, type."""


def entities(tags: Sequence[str]) -> set[Entity]:
    """Return the entities of one row of IOB2 tags.

    An "I-x" that continues nothing of type x begins an entity, as in CoNLL's own evaluation; a tag without "B-" or
    "I-" is an entity of one word, so that plain classes of words can be scored too.

    >>> sorted(entities(["B-person", "I-person", "O", "I-place"]))
    [(0, 2, 'person'), (3, 4, 'place')]
    """
    found: set[Entity] = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        mark, name = (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") else (("O", "") if tag == "O" else ("B", tag))
        if kind and (mark != "I" or name != kind):
            found.add((start, place, kind))
            kind = ""
        if mark != "O" and not kind:
            start, kind = place, name
    return found


def entity_counts(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> np.ndarray:
    """Return (N, 3) counts of every row: entities found right, entities predicted, entities in the gold tags."""
    pairs = [(entities(one), entities(other)) for one, other in zip(predicted, gold, strict=True)]
    return np.array([(len(one & other), len(one), len(other)) for one, other in pairs], dtype=np.int64).reshape(-1, 3)


def f1_of(counts: np.ndarray) -> float:
    """Return micro F1 of summed counts (3,) or of rows (N, 3); 0 where there is neither prediction nor entity.

    >>> f1_of(np.array([1, 2, 2]))
    0.5
    """
    right, predicted, true = counts.reshape(-1, 3).sum(axis=0)
    return float(2 * right / max(predicted + true, 1))


def entity_scores(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], *, draws: int = 1000
) -> dict[str, Any]:
    """Return entity F1 with a 95 % bootstrap interval over rows, precision, recall, and F1 by type.

    Reference: Tjong Kim Sang and De Meulder 2003, the CoNLL-2003 shared task (exact spans, micro-averaged).
    """
    counts = entity_counts(predicted, gold)
    right, found, true = counts.sum(axis=0)
    types: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    for one, other in zip(predicted, gold, strict=True):
        mine, theirs = entities(one), entities(other)
        types.update(kind for *_, kind in theirs)
        guesses.update(kind for *_, kind in mine)
        hits.update(kind for *_, kind in mine & theirs)
    spread = resampled_f1(counts, draws)
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


def resampled_f1(counts: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Return (draws,) F1 of rows drawn with replacement from counts (N, 3)."""
    rows = np.random.default_rng(seed).integers(0, len(counts), (draws, len(counts)))
    sums = counts[rows].sum(axis=1)  # (draws, 3)
    return np.asarray(2 * sums[:, 0] / np.maximum(sums[:, 1] + sums[:, 2], 1))


def entity_difference(
    first: Sequence[Sequence[str]], second: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], *, draws: int = 2000
) -> Interval:
    """Return entity F1 of the first minus the second prediction, with a paired 95 % bootstrap interval over rows."""
    one, other = entity_counts(first, gold), entity_counts(second, gold)
    spread = resampled_f1(one, draws) - resampled_f1(other, draws)  # the same rows are drawn for both
    low, high = np.quantile(spread, [0.025, 0.975])
    return Interval(f1_of(one) - f1_of(other), float(low), float(high))
