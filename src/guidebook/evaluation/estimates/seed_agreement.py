"""Agreement of two seeds: the generalisation disagreement equality (GDE)."""

from __future__ import annotations

import numpy as np

from guidebook.evaluation.resampling import percentiles, resampled_mean
from guidebook.evaluation.seen import Seen, needed
from guidebook.evaluation.statistics import Interval


def seed_agreement(source: Seen, target: Seen, *, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Share of target rows on which two trainings that differ in their seed alone say the same, 0..1.

    Of more than one other seed, the mean over them.

    Reference:
        Jiang et al. 2022, Assessing Generalization of SGD via Disagreement, theorem 4.1 (it holds if the ensemble of
        the seeds is calibrated).
    """
    others = needed(target.seeds, "predictions of other seeds")  # (K, N, C)
    same = (others.argmax(2) == target.probabilities.argmax(1)).mean(0)  # (N,)
    means = resampled_mean(same, draws, np.random.default_rng(seed))
    return percentiles(float(same.mean()), means, level)
