"""Intervals of the study's tables: over cells, over sources, of shares, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from guidebook.evaluation.statistics import Interval, grouped_difference, resampled_means, wilson

Record = dict[str, Any]


def over_cells(values: Sequence[float]) -> Interval:
    """Return the mean with a 95 % percentile bootstrap over cells."""
    means = resampled_means(values, 10_000, np.random.default_rng(0))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.mean(values)), float(low), float(high))


def over_sources(values: Sequence[tuple[str, int, str, float]]) -> Interval:
    """Return the mean over (source, draw, target, value) with Student's interval over sources; bare of one source."""
    if len({source for source, *_ in values}) < 2:
        mean = float(np.mean([value for *_, value in values]))
        return Interval(mean, mean, mean)
    return grouped_difference([(s, draw, target, np.array([value])) for s, draw, target, value in values]).interval


def over_records(records: Sequence[Record], value: Callable[[Record], float]) -> Interval:
    """Return the mean of a value over records, those of one source together."""
    return over_sources(
        [(r["source"], r["draw"], f"{r['target']} {r['method']} {r['labels']}", value(r)) for r in records]
    )


def points(interval: Interval) -> str:
    """Return an interval in points."""
    if interval.low == interval.high:
        return f"{100 * interval.estimate:+.1f}"
    return f"{100 * interval.estimate:+.1f} ({100 * interval.low:+.1f} … {100 * interval.high:+.1f})"


def share(marks: Sequence[bool]) -> str:
    """Return a share in percent with its binomial interval."""
    found = wilson(float(np.mean(marks)), len(marks))
    return f"{100 * found.estimate:.0f} % ({100 * found.low:.0f} … {100 * found.high:.0f})"
