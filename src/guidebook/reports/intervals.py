"""Intervals as rows of a table with a positioned bar and dot.

They need no plotting library, follow the reader's colours and font size, and stay readable on a phone, where a picture
would shrink.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from guidebook.evaluation.statistics import Interval
from guidebook.evaluation.task_scores import primary
from guidebook.reports.summary import Facts, arm_name, outcome_of, percent, points


@dataclass(frozen=True)
class Scale:
    """A horizontal axis in percent; everything is placed on it as a share of its width."""

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Iterable[float]) -> Scale:
        """The axis with round ends that holds `values` and has three to six steps.

        >>> Scale.around([62.3, 88.1])
        Scale(low=60.0, high=90.0, step=10.0)
        """
        found = list(values) or [0.0, 1.0]
        span = max(max(found) - min(found), 1e-3)
        size = 10.0 ** math.floor(math.log10(span))
        step = next(size * factor for factor in (0.5, 1.0, 2.0, 5.0) if span / (size * factor) <= 5)
        return cls(math.floor(min(found) / step) * step, math.ceil(max(found) / step) * step, step)

    def place(self, value: float) -> float:
        """Where a value stands, in percent of the width from the left."""
        width = max(self.high - self.low, 1e-9)
        return round(min(max(100 * (value - self.low) / width, 0.0), 100.0), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label) of every step."""
        count = round((self.high - self.low) / self.step)
        values = (self.low + index * self.step for index in range(count + 1))
        return [(self.place(value), f"{value:g}") for value in (round(value, 9) for value in values)]


@dataclass(frozen=True)
class Mark:
    """One interval of a plot."""

    name: str
    value: str
    interval: str
    at: float
    left: float
    right: float
    look: str


def accuracy_mark(arm: str, scores: Facts, scale: Scale, method: str) -> Mark:
    """The mark of one model's accuracy, or of its entity F1 where words are tagged."""
    found = primary(scores)
    low, high = found.low, found.high
    return Mark(
        arm_name(arm),
        percent(found.estimate),
        f"{percent(low)} to {percent(high)}",
        scale.place(100 * found.estimate),
        scale.place(100 * low),
        scale.place(100 * high),
        "method" if arm == method else "oracle" if "oracle" in arm else "other",
    )


def difference_mark(name: str, difference: Interval, scale: Scale) -> Mark:
    """The mark of one difference in points, in the colour of what it says."""
    return Mark(
        name,
        points(difference.estimate),
        f"{points(difference.low)} to {points(difference.high)}",
        scale.place(100 * difference.estimate),
        scale.place(100 * difference.low),
        scale.place(100 * difference.high),
        outcome_of(difference),
    )
