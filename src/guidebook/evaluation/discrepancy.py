"""Maximum mean discrepancy of two sets of rows, with a permutation test."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.seen import Floats


def mmd(source: Floats, target: Floats) -> float:
    """Unbiased squared MMD of rows (S, H) and (R, H) under a Gaussian kernel; 0 in the mean where nothing differs.

    The bandwidth is the median distance of all rows. It may be slightly negative.

    Reference:
        Gretton et al. 2012, A Kernel Two-Sample Test, equation 3 and section 8 (median heuristic).
    """
    kernel = _kernel(np.concatenate([source, target]))
    return float(_unbiased(kernel, np.arange(len(kernel)) < len(source)))


def mmd_test(source: Floats, target: Floats, permutations: int = 200, seed: int = 0) -> tuple[float, float]:
    """Return the squared MMD and the share of permuted domains that are at least as far apart, a p-value."""
    kernel = _kernel(np.concatenate([source, target]))
    first = np.arange(len(kernel)) < len(source)
    found = _unbiased(kernel, first)
    generator = np.random.default_rng(seed)
    beyond = sum(_unbiased(kernel, generator.permutation(first)) >= found for _ in range(permutations))
    return float(found), (1 + int(beyond)) / (1 + permutations)


def _kernel(rows: Floats) -> Floats:
    squares = (rows**2).sum(1)
    distances = np.clip(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0, None)  # (N, N)
    upper = distances[np.triu_indices(len(rows), 1)]
    return np.asarray(np.exp(-distances / max(float(np.median(upper)), 1e-12)))


def _unbiased(kernel: Floats, first: np.ndarray) -> float:
    sides = np.stack([first, ~first]).astype(np.float64)  # (2, N)
    sums = sides @ kernel @ sides.T  # (2, 2), the diagonal of ones still inside
    counts = sides.sum(1)
    within = (np.diag(sums) - counts) / (counts * (counts - 1))
    return float(within.sum() - 2 * sums[0, 1] / (counts[0] * counts[1]))
