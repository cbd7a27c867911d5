"""Bootstrap weights and percentile intervals, for everything that is a function of weighted rows.

A bootstrap of N rows is drawn as how often each of U groups of rows is in it, U at most `GROUPS`: time and memory do
not grow with N. Up to so many rows every row is a group of its own.
"""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.seen import Floats, Ints
from guidebook.evaluation.statistics import Interval

GROUPS = 2048
"""Groups of rows in a bootstrap; one more or less moves a share of rows by a twentieth of a percent."""


def resample(counts: Ints, draws: int, generator: np.random.Generator) -> Floats:
    """(draws, U) weights of bootstrap resamples of groups of `counts` (U,) rows; every draw sums to 1."""
    rows = int(counts.sum())
    return generator.multinomial(rows, counts / rows, size=draws) / rows


def grouped(values: Floats) -> tuple[Floats, Ints]:
    """Return (U,) means and sizes of groups of neighbouring values (N,); up to `GROUPS` values stay as they are.

    >>> means, sizes = grouped(np.arange(4096.0))
    >>> len(means), float(means[1]), int(sizes[1])
    (2048, 2.5, 2)
    """
    if len(values) <= GROUPS:
        return np.asarray(values, np.float64), np.ones(len(values), np.int64)
    edges = np.linspace(0, len(values), GROUPS + 1).astype(np.int64)
    sizes = np.diff(edges)
    return np.add.reduceat(np.sort(np.asarray(values, np.float64)), edges[:-1]) / sizes, sizes


def resampled_mean(values: Floats, draws: int, generator: np.random.Generator) -> Floats:
    """(draws,) means of bootstrap resamples of values (N,)."""
    means, sizes = grouped(values)
    return np.asarray(resample(sizes, draws, generator) @ means)


def percentiles(estimate: float, values: Floats, level: float) -> Interval:
    """Return an estimate with the middle `level` of resampled values, all cut to 0..1; the estimate lies inside."""
    low, high = np.quantile(np.clip(values, 0, 1), [(1 - level) / 2, (1 + level) / 2])
    estimate = min(max(estimate, 0.0), 1.0)
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))
