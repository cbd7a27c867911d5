"""How much of what a base represents is left after adapting: CKA of rows, and linear probes on other tasks."""

from __future__ import annotations

import numpy as np

from guidebook.errors import InputError
from guidebook.evaluation.seen import Floats, Ints
from guidebook.evaluation.statistics import Interval, accuracy_interval, paired_difference

PROBE_FOLDS = 5


def cka(first: Floats, second: Floats) -> float:
    """Linear centred kernel alignment of two sets of representations (N, H), (N, G) of the same rows, 0..1.

    1 where one is the other, rotated and scaled.

    Reference:
        Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, equation 3 with linear kernels.
    """
    if len(first) != len(second):
        raise InputError(f"CKA compares the same rows, found {len(first)} and {len(second)}.")
    one, two = first - first.mean(0), second - second.mean(0)
    # Grams of rows or of features, whichever is smaller: the norms are the same.
    if len(first) < max(first.shape[1], second.shape[1]):
        left, right = one @ one.T, two @ two.T
        cross, own = float((left * right).sum()), float(np.linalg.norm(left) * np.linalg.norm(right))
    else:
        cross = float(np.linalg.norm(one.T @ two) ** 2)
        own = float(np.linalg.norm(one.T @ one) * np.linalg.norm(two.T @ two))
    return cross / own if own > 0 else 0.0


def probe_retention(base: Floats, adapted: Floats, labels: Ints, seed: int = 0) -> dict[str, Interval]:
    """Return the accuracies of linear probes on base rows and adapted rows (N, H), and their paired difference.

    Each row is judged by a logistic regression that was fitted on the other folds, the same folds for both.

    Returns:
        {"base", "adapted", "difference"}; a negative difference is what was forgotten.

    Raises:
        InputError: fewer than two rows of a class.
    """
    if np.bincount(labels)[np.unique(labels)].min() < 2:
        raise InputError("A linear probe needs at least two rows of every class. Give more labelled rows.")
    right = [_probed(rows, labels, seed) for rows in (base, adapted)]
    return {
        "base": accuracy_interval(right[0]),
        "adapted": accuracy_interval(right[1]),
        "difference": paired_difference(right[1], right[0]),
    }


def _probed(rows: Floats, labels: Ints, seed: int) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = min(PROBE_FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    right = np.zeros(len(labels), bool)
    for inside, outside in StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        right[outside] = model.fit(rows[inside], labels[inside]).predict(rows[outside]) == labels[outside]
    return right
