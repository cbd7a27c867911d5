"""Deep embedded validation (DEV): the source loss, weighted to look like the target, with a control variate."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.seen import Floats, Seen, needed, row_losses

FOLDS = 5


def weighted_risk(source: Seen, target: Seen) -> float:
    """Estimated loss on the target, in nats, if only the texts differ and not what they mean; lower is better.

    Reference:
        You et al. 2019, Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, algorithm 1.

    Differs:
        The rows are those of the frozen base, the same for every model that is compared, and the two domains are told
        apart by cross-fitting on the same rows that are weighted: no row is weighted by a classifier that saw it.
    """
    losses = row_losses(source.probabilities, needed(source.labels, "source labels"))
    weights = density_ratios(needed(source.rows, "pooled rows"), needed(target.rows, "pooled rows"))
    return controlled_mean(losses, weights)


def controlled_mean(losses: Floats, weights: Floats) -> float:
    """Return the weighted mean of losses (N,) with the mean weight, known to be 1, as a control variate."""
    weighted = weights * losses
    variance = weights.var(ddof=1) if len(weights) > 1 else 0.0
    if variance == 0:
        return float(weighted.mean())
    slope = -np.cov(weighted, weights, ddof=1)[0, 1] / variance
    return float(weighted.mean() + slope * weights.mean() - slope)


def density_ratios(source: Floats, target: Floats, folds: int = FOLDS) -> Floats:
    """Return how much more likely each source row (S, H) is in the target (R, H) than in the source, (S,).

    The odds of a logistic regression that tells the domains apart, times S / R; each fold's rows are judged by the
    classifier of the others.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = min(folds, len(source), len(target))
    if folds < 2:
        return np.ones(len(source))
    place = np.random.default_rng(0)
    fold_s, fold_t = place.permutation(len(source)) % folds, place.permutation(len(target)) % folds
    found = np.empty(len(source))
    for fold in range(folds):
        seen_s, seen_t = source[fold_s != fold], target[fold_t != fold]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        model.fit(np.concatenate([seen_s, seen_t]), np.repeat([0, 1], [len(seen_s), len(seen_t)]))
        odds = np.exp(np.clip(model.decision_function(source[fold_s == fold]), -12, 12))
        found[fold_s == fold] = odds * len(seen_s) / len(seen_t)
    return found
