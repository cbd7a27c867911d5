"""Soft neighbourhood density (SND): do rows have many neighbours that are predicted alike?"""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.seen import Floats, Seen, entropies

TEMPERATURE = 0.05
MOST_ROWS = 2048  # the similarities of so many rows stand in memory at once


def neighbourhood(source: Seen, target: Seen) -> float:
    """Mean entropy of each target row's soft neighbours, in nats, at most log(N - 1); higher is better.

    It grows with N: compare models on the same rows only. A collapsed model reaches the maximum.

    Reference:
        Saito et al. 2021, Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft Neighborhood
        Density, equations 2 to 4, temperature 0.05, on softmax outputs.

    Differs:
        Of more than 2,048 rows the first so many are read.
    """
    return density(target.probabilities[:MOST_ROWS], TEMPERATURE)


def density(features: Floats, temperature: float) -> float:
    """Return the soft neighbourhood density of features (N, D), which are scaled to length 1."""
    if len(features) < 2:
        return 0.0
    rows = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similar = rows @ rows.T / temperature  # (N, N)
    np.fill_diagonal(similar, -np.inf)
    similar -= similar.max(1, keepdims=True)
    shares = np.exp(similar)
    shares /= shares.sum(1, keepdims=True)
    return float(entropies(shares).mean())
