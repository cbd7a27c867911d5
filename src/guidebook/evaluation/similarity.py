"""How much of what a base represents is left after adapting: CKA of rows, and linear probes on other tasks."""

from __future__ import annotations

import numpy as np

from guidebook.errors import InputError
from guidebook.evaluation.seen import Floats, Ints
from guidebook.evaluation.statistics import Interval, accuracy_interval, paired_difference

PROBE_FOLDS = 5


LEAST_ROWS = 4
"""Rows that an unbiased alignment needs."""


def cka(first: Floats, second: Floats) -> float:
    """Linear centred kernel alignment of two sets of representations (N, H), (N, G) of the same rows, -1..1.

    1 where one is the other, rotated and scaled; 0 on average where they have nothing to do with each other.

    Raises:
        InputError: not the same rows, or fewer than four.

    Reference:
        Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, equation 3 with linear kernels;
        Nguyen et al. 2021, Do Wide and Deep Networks Learn the Same Things?, ICLR, equation 3; Song et al. 2012,
        Feature Selection via Dependence Maximization, JMLR 13, equation 5.
    Differs: from the first, the dependence is the unbiased estimate, as in the second. The biased one rises to 1 where
        rows are fewer than features, whatever the features are: that of noise is above 0.7 with 256 rows of 768.
    """
    if len(first) != len(second) or len(first) < LEAST_ROWS:
        raise InputError(
            f"CKA compares the same rows, at least {LEAST_ROWS} of them, found {len(first)} and {len(second)}."
        )
    one, two = first - first.mean(0), second - second.mean(0)
    own = _dependence(one, one) * _dependence(two, two)
    return _dependence(one, two) / float(np.sqrt(own)) if own > 0 else 0.0


def _dependence(one: Floats, two: Floats) -> float:
    """Return N (N - 3) times the unbiased estimate of HSIC under linear kernels: no row is compared with itself."""
    count = len(one)
    own = [(rows * rows).sum(1) for rows in (one, two)]  # (N,) the diagonals of both kernels, which are left out
    sums = [rows @ rows.sum(0) - diagonal for rows, diagonal in zip((one, two), own, strict=True)]  # (N,)
    # Kernels of rows or of features, whichever is smaller: the sum of products is the same.
    small = count < max(one.shape[1], two.shape[1])
    products = ((one @ one.T) * (two @ two.T)).sum() if small else np.square(one.T @ two).sum()
    found = products - own[0] @ own[1] + sums[0].sum() * sums[1].sum() / ((count - 1) * (count - 2))
    return float(found - 2 / (count - 2) * (sums[0] @ sums[1]))


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
