"""Accuracies from a few labelled rows: which rows to label, and valid intervals from stratified samples of them.

The pool's N rows are a sample of the domain; the labelled ones are drawn from the pool, stratum by stratum. Both
draws are in the variance (sampling in two phases), so the interval speaks of the domain and not of the pool alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from guidebook.errors import InputError
from guidebook.evaluation.seen import Floats, Ints
from guidebook.evaluation.statistics import Interval, student, wilson

AGREEING, DISAGREEING = 4, 2  # strata by confidence
LEAST = 2  # rows of each stratum, so that its scatter can be told


def strata_of(confidence: Floats, disagrees: np.ndarray) -> Ints:
    """Return the stratum (N,) of each row: where two models agree by rising confidence, then where they do not.

    Strata are quarters (halves where the models disagree) of the rows in order of confidence; small groups have fewer.
    """
    found = np.zeros(len(confidence), np.int64)
    first = 0
    for group, most in ((~disagrees, AGREEING), (disagrees, DISAGREEING)):
        rows = np.flatnonzero(group)
        parts = np.array_split(rows[np.argsort(confidence[rows], kind="stable")], max(1, min(most, len(rows) // 4)))
        for part in parts if len(rows) else ():
            found[part] = first
            first += 1
    return found


def allocate(sizes: Ints, scatter: Floats, rows: int) -> Ints:
    """Return how many rows (H,) to label of strata of given sizes (H,): two each, then where one row helps most.

    Args:
        sizes: Rows of each stratum.
        scatter: Guessed standard deviation of what is measured inside each stratum.
        rows: Rows to label in all; more than there are means all.

    Reference:
        Wright 2012, The Equivalence of Neyman Optimum Allocation for Sampling and Equal Proportions for Apportioning
        the U.S. House of Representatives (the priorities make Neyman's allocation exact in whole rows).
    """
    found = np.zeros_like(sizes)
    for _ in range(min(rows, int(sizes.sum()))):
        gain = sizes * np.maximum(scatter, 0.05) / np.sqrt(np.maximum(found, 0.5) * (found + 1))
        gain[found < LEAST] += sizes.sum() * 10.0
        gain[found >= sizes] = -1.0
        found[int(gain.argmax())] += 1
    return found


def stratified_accuracy(correct: ArrayLike, strata: Ints, sizes: Ints, groups: Ints) -> Interval:
    """Return an accuracy from labelled rows of a pool, 95 %, each group's Wilson interval recovered into one.

    Where a model is nearly always right, a few strata without any error would claim a variance of nearly nothing. So
    strata are not judged one by one: those of a group share one Wilson interval, with as many rows as their unequal
    weights leave, and the distances from estimate to limits of the groups add up in squares.

    Args:
        correct: (n,) whether the model was right on each labelled row.
        strata: (n,) stratum of each.
        sizes: (H,) rows of the pool in each stratum.
        groups: (H,) number of the group of each stratum, 0 or 1: whether both models say the same there.

    Reference:
        Zou & Donner 2008, Construction of Confidence Limits About Effect Measures: A General Approach (recovery of
        variances); Kish 1965, Survey Sampling, section 11.2 (rows that weights leave); Cochran 1977, Sampling
        Techniques, section 12.2 (two phases).

    Raises:
        InputError: no labelled rows, or none of a stratum that has rows.
    """
    right = np.asarray(correct, np.float64)
    counts = _counts(right, strata, sizes)
    means = np.bincount(strata, right, minlength=len(sizes)) / np.maximum(counts, 1)
    estimate = float(sizes @ means / sizes.sum())
    below = above = 0.0
    for group in np.unique(groups[sizes > 0]):
        inside = (groups == group) & (sizes > 0)
        rows = sizes[inside].sum()
        share = float(sizes[inside] @ means[inside] / rows)
        left = float(rows**2 / (sizes[inside] ** 2 / counts[inside]).sum())
        limits = wilson(share, left)
        part = (rows / sizes.sum()) ** 2 * max(1 - counts[inside].sum() / rows, 0.0)
        below += part * (share - limits.low) ** 2
        above += part * (limits.high - share) ** 2
    pool = wilson(estimate, float(sizes.sum()))
    low = estimate - math.sqrt(below + (estimate - pool.low) ** 2)
    high = estimate + math.sqrt(above + (pool.high - estimate) ** 2)
    return Interval(estimate, max(low, 0.0), min(high, 1.0))


def stratified_difference(first: ArrayLike, second: ArrayLike, strata: Ints, sizes: Ints, settled: Ints) -> Interval:
    """Return accuracy of the first model minus the second's, 95 %, from labelled rows of a pool.

    Where the two models say the same, the difference is 0 without any label; only the other strata scatter.

    Args:
        first: (n,) whether the first model was right.
        second: (n,) whether the second was.
        strata: (n,) stratum of each row.
        sizes: (H,) rows of the pool in each stratum.
        settled: (H,) 1 for strata in which both models say the same on every row.

    Reference:
        Cochran 1977, Sampling Techniques, section 12.2; Agresti & Min 2005, Simple Improved Confidence Intervals for
        Comparing Matched Proportions (pseudo-counts of the two kinds of disagreement).

    Raises:
        InputError: no labelled row in a stratum where the models disagree.
    """
    values = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    open_ = settled == 0
    if not sizes[open_].sum():
        return Interval(0.0, 0.0, 0.0)
    kept = open_[strata]
    counts = _counts(values[kept], strata[kept], np.where(open_, sizes, 0))
    better, worse = (np.bincount(strata[kept], sign * values[kept] > 0, minlength=len(sizes)) for sign in (1, -1))
    total = counts.sum()
    means = np.where(open_, (better - worse) / np.maximum(counts, 1), 0.0)
    estimate = float(sizes @ means / sizes.sum())
    wins, losses = (
        np.where(open_, (part + 2 * (part.sum() + 1) / (total + 2)) / (counts + 2), 0.0) for part in (better, worse)
    )
    scatter = np.clip(wins + losses, 0, 1) - (wins - losses) ** 2
    variance = _two_phases(scatter * _unbiasing(counts), wins - losses, counts, sizes)
    half = student(max(int(total - (counts > 0).sum()), 1)) * math.sqrt(variance)
    return Interval(estimate, max(estimate - half, -1.0), min(estimate + half, 1.0))


def rows_needed(difference: Interval, half: float, labelled: int) -> int | None:
    """Return how many more rows would bring a difference's interval to ± half; None if no number of rows would.

    >>> rows_needed(Interval(0.02, -0.02, 0.06), 0.02, 50)
    150
    """
    now = (difference.high - difference.low) / 2
    if half <= 0 or not labelled:
        return None
    return max(0, math.ceil(labelled * ((now / half) ** 2 - 1)))


def _two_phases(within: Floats, means: Floats, counts: Ints, sizes: Ints) -> float:
    """Variance of a stratified mean: rows drawn from the pool inside strata, and the pool drawn from the domain."""
    rows = int(sizes.sum())
    weights = sizes / rows
    from_pool = np.where(counts > 0, within * (1 / np.maximum(counts, 1) - 1 / np.maximum(sizes, 1)), 0.0)
    middle = weights @ means
    total = weights @ within + weights @ (means - middle) ** 2
    return float(weights**2 @ np.clip(from_pool, 0, None) + total / rows)


def _unbiasing(counts: Ints) -> Floats:
    return np.asarray(counts / np.maximum(counts - 1, 1))


def _counts(values: Floats, strata: Ints, sizes: Ints) -> Ints:
    if not len(values):
        raise InputError("No labelled rows. Fill the label column of at least some rows.")
    counts = np.bincount(strata, minlength=len(sizes))
    bare = np.flatnonzero((counts == 0) & (sizes > 0))
    if len(bare):
        raise InputError(
            f"{len(bare)} of {int((sizes > 0).sum())} strata have no labelled row, so nothing is known of "
            f"{int(sizes[bare].sum())} of the pool's rows. Label rows from the top of the file downwards, without gaps."
        )
    return counts
