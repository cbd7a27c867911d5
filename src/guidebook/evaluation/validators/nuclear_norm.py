"""The nuclear norm of the predictions: sure and diverse at once."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.seen import Seen


def nuclear_norm(source: Seen, target: Seen) -> float:
    """Nuclear norm of the target's predictions (N, C) over its largest possible value, 0..1; higher is better.

    It rewards predictions of equal class shares, and so misleads where the target's classes are not balanced.

    Reference:
        Cui et al. 2020, Towards Discriminability and Diversity: Batch Nuclear-norm Maximization, equations 6 and 9.

    Differs:
        The norm of all rows at once, not of batches, and divided by sqrt(N min(N, C)), its bound, so that samples of
        unequal size compare.
    """
    rows, classes = target.probabilities.shape
    return float(np.linalg.norm(target.probabilities, ord="nuc") / np.sqrt(rows * min(rows, classes)))
