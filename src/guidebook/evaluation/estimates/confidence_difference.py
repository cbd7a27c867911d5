"""Difference of confidences (DoC): what confidence is lost, accuracy is lost."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.resampling import percentiles, resampled_mean
from guidebook.evaluation.seen import Seen, needed
from guidebook.evaluation.statistics import Interval


def confidence_difference(
    source: Seen, target: Seen, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Source accuracy less the drop in mean confidence from source to target, 0..1.

    Reference:
        Guillory et al. 2021, Predicting with Confidence on Unseen Distributions, section 3 (difference of
        confidences, used directly).

    Differs:
        No regression on other shifts: one source and one target are all there is.
    """
    right = source.probabilities.argmax(1) == needed(source.labels, "source labels")
    calm, there = source.probabilities.max(1), target.probabilities.max(1)
    generator = np.random.default_rng(seed)
    on_source = resampled_mean(right - calm, draws, generator)
    on_target = resampled_mean(there, draws, generator)
    estimate = float((right - calm).mean() + there.mean())
    return percentiles(estimate, on_source + on_target, level)
