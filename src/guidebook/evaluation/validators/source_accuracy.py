"""Accuracy on held-out source rows."""

from __future__ import annotations

from guidebook.evaluation.seen import Seen, needed


def source_accuracy(source: Seen, target: Seen) -> float:
    """Share of held-out source rows that are right, 0..1; higher is better. The target is not read.

    Reference:
        Musgrave, Belongie & Lim 2022, Benchmarking Validation Methods for Unsupervised Domain Adaptation: a strong
        baseline.
    """
    return float((source.probabilities.argmax(1) == needed(source.labels, "source labels")).mean())
