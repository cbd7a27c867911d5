"""The simplest guess: as good as on the source."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.resampling import percentiles, resampled_mean
from guidebook.evaluation.seen import Seen, needed
from guidebook.evaluation.statistics import Interval


def same_as_source(source: Seen, target: Seen, *, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Accuracy on held-out source rows: what every other guess has to beat. The target is not read."""
    right = source.probabilities.argmax(1) == needed(source.labels, "source labels")
    means = resampled_mean(right, draws, np.random.default_rng(seed))
    return percentiles(float(right.mean()), means, level)
