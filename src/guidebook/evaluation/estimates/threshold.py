"""Average thresholded confidence (ATC): the share of target rows above the source's threshold."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.resampling import GROUPS, grouped, percentiles, resample
from guidebook.evaluation.seen import Floats, Ints, Seen, entropies, needed
from guidebook.evaluation.statistics import Interval


def threshold_confidence(
    source: Seen, target: Seen, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Guess by the largest probability of each row (ATC-MC), 0..1.

    Reference:
        Garg et al. 2022, Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, equations 1 and 2.
    """
    right = source.probabilities.argmax(1) == needed(source.labels, "source labels")
    return _above(right, source.probabilities.max(1), target.probabilities.max(1), (draws, seed, level))


def threshold_entropy(source: Seen, target: Seen, *, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Guess by the negative entropy of each row (ATC-NE), 0..1; of two classes the same as by confidence.

    Reference:
        Garg et al. 2022, Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, equations 1 and 2.
    """
    right = source.probabilities.argmax(1) == needed(source.labels, "source labels")
    sure, there = -entropies(source.probabilities), -entropies(target.probabilities)
    return _above(right, sure, there, (draws, seed, level))


def _above(right: np.ndarray, sure: Floats, there: Floats, how: tuple[int, int, float]) -> Interval:
    draws, seed, level = how
    order = np.argsort(sure, kind="stable")
    whole = float((there >= _threshold(sure[order], np.full(len(right), 1 / len(right)), 1 - right.mean())).mean())
    generator = np.random.default_rng(seed)
    scores, hits, sizes = _cells(right, sure)
    far, far_sizes = grouped(there)
    on_source = resample(sizes, draws, generator)  # (draws, U)
    on_target = resample(far_sizes, draws, generator)
    errors = on_source @ (~hits)
    order = np.argsort(scores, kind="stable")
    shares = np.empty(draws)
    for draw in range(draws):
        cut = _threshold(scores[order], on_source[draw][order], errors[draw])
        shares[draw] = on_target[draw] @ (far >= cut)
    return percentiles(whole, shares, level)


def _cells(right: np.ndarray, sure: Floats) -> tuple[Floats, np.ndarray, Ints]:
    """Return scores, whether they are right, and sizes (U,) of groups of rows; few rows stay as they are."""
    if len(right) <= GROUPS:
        return sure, right, np.ones(len(right), np.int64)
    (hits, many), (misses, few) = grouped(sure[right]), grouped(sure[~right])
    return (
        np.concatenate([hits, misses]),
        np.concatenate([np.ones(len(hits), bool), np.zeros(len(misses), bool)]),
        np.concatenate([many, few]),
    )


def _threshold(rising: Floats, weights: Floats, error: float) -> float:
    """Return the cut (a score of `rising`, or infinity) below which the weights sum to the error."""
    below = np.searchsorted(np.cumsum(weights), error + 1e-9, side="right")
    return float(rising[below]) if below < len(rising) else np.inf
