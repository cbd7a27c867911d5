"""Prediction-powered inference: labels of a few rows, helped by the model's own guesses on all of them."""

from __future__ import annotations

import math

import numpy as np

from guidebook.errors import InputError
from guidebook.evaluation.seen import Floats, Ints
from guidebook.evaluation.statistics import Interval, student


def prediction_powered(
    values: Floats,
    guesses: Floats,
    strata: Ints,
    pool: Floats,
    of_pool: Ints,
    *,
    groups: Ints | None = None,
    known: Ints | None = None,
) -> Interval:
    """Return the mean of a value over a domain, 95 %: the mean guess over the pool, corrected on labelled rows.

    Valid whatever the guesses are worth; good ones make it narrower. How far they are trusted (0..1) is tuned.

    Args:
        values: (n,) the value of each labelled row, such as right or wrong.
        guesses: (n,) what was guessed of it before.
        strata: (n,) stratum of each labelled row.
        pool: (N,) guesses for all rows of the pool, the labelled ones among them.
        of_pool: (N,) stratum of each row of the pool.
        groups: (H,) strata of one number share their scatter, so that a few rows without any error claim no certainty;
            None: all do.
        known: (H,) 1 for strata in which the value is 0 without any label.

    Reference:
        Angelopoulos et al. 2023, Prediction-Powered Inference, section 2; Angelopoulos, Duchi & Zrnic 2023, PPI++,
        section 6 (tuning).

    Differs:
        Labelled rows are a stratified sample of the pool itself: corrections are weighted by strata, and the chance in
        the pool as a whole is that of the value, not of the guess. Two errors more than were seen are in the scatter of
        each group.

    Raises:
        InputError: no labelled row in a stratum that has rows.
    """
    sizes = np.bincount(of_pool)
    counts = np.bincount(strata, minlength=len(sizes))
    if ((counts == 0) & (sizes > 0)).any():
        raise InputError("A stratum has no labelled row. Label rows from the top of the file downwards, without gaps.")
    weights = sizes / len(pool)
    alike = (np.zeros_like(sizes) if groups is None else groups, np.zeros_like(sizes) if known is None else known)
    trust = _trust(values, guesses, strata, (weights, counts))
    residuals = values - trust * guesses
    means = _means(residuals, strata, counts)
    estimate = float(trust * pool.mean() + weights @ means)
    within = _scatter(residuals, strata, counts, alike)
    own_means, own = _means(values, strata, counts), _scatter(values, strata, counts, alike)
    from_pool = weights**2 @ np.clip(within * (1 / np.maximum(counts, 1) - 1 / np.maximum(sizes, 1)), 0, None)
    total = weights @ own + weights @ (own_means - weights @ own_means) ** 2
    freedom = max(len(values) - int((counts > 0).sum()), 1)
    half = student(freedom) * math.sqrt(float(from_pool + total / len(pool)))
    return Interval(estimate, estimate - half, estimate + half)


def _trust(values: Floats, guesses: Floats, strata: Ints, parts: tuple[Floats, Ints]) -> float:
    """Return the factor of the guesses, 0..1, with which the residuals scatter least."""
    weights, counts = parts
    left = guesses - _means(guesses, strata, counts)[strata]
    right = values - _means(values, strata, counts)[strata]
    each = (weights**2 / np.maximum(counts * (counts - 1), 1))[strata]
    spread = float(each @ left**2)
    return float(np.clip(each @ (left * right) / spread, 0, 1)) if spread > 0 else 0.0


def _means(values: Floats, strata: Ints, counts: Ints) -> Floats:
    return np.asarray(np.bincount(strata, values, minlength=len(counts)) / np.maximum(counts, 1))


def _scatter(values: Floats, strata: Ints, counts: Ints, alike: tuple[Ints, Ints]) -> Floats:
    """Variance inside the strata of each group, (H,); 0 where the value is known."""
    groups, known = alike
    left = (values - _means(values, strata, counts)[strata]) ** 2
    squares = np.bincount(strata, left, minlength=len(counts))
    found = np.zeros(len(counts))
    for group in np.unique(groups):
        inside = (groups == group) & (known == 0)
        freedom = int(np.maximum(counts[inside] - 1, 0).sum())
        found[inside] = (squares[inside].sum() + 2) / (freedom + 2)
    return found
