"""Bootstrap weights and percentile intervals, for everything that is a function of weighted rows."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.seen import Floats
from guidebook.evaluation.statistics import Interval


def resample(rows: int, draws: int, generator: np.random.Generator) -> Floats:
    """(draws, rows) weights of bootstrap resamples; every draw sums to 1."""
    return generator.multinomial(rows, np.full(rows, 1 / rows), size=draws) / rows


def percentiles(estimate: float, values: Floats, level: float) -> Interval:
    """Return an estimate with the middle `level` of resampled values, all cut to 0..1; the estimate lies inside."""
    low, high = np.quantile(np.clip(values, 0, 1), [(1 - level) / 2, (1 + level) / 2])
    estimate = min(max(estimate, 0.0), 1.0)
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))
