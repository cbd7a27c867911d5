"""Agreement with the mean of all candidates (EnsV)."""

from __future__ import annotations

from guidebook.evaluation.seen import Seen, needed


def ensemble(source: Seen, target: Seen) -> float:
    """Share of target rows on which a model says what the mean of all candidates says, 0..1; higher is better.

    Reference:
        Hu et al. 2024, Towards Reliable Model Selection for Unsupervised Domain Adaptation: An Empirical Study and A
        Certified Baseline: the mean of the candidates' predictions is the role model.
    """
    together = needed(target.candidates, "the candidates' probabilities").mean(0)  # (K, N, C) -> (N, C)
    return float((target.probabilities.argmax(1) == together.argmax(1)).mean())
