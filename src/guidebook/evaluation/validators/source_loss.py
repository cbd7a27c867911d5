"""Loss on held-out source rows."""

from __future__ import annotations

from guidebook.evaluation.seen import Seen, needed, row_losses


def source_loss(source: Seen, target: Seen) -> float:
    """Mean negative log-likelihood of held-out source labels, in nats; lower is better. The target is not read.

    Reference:
        Musgrave, Belongie & Lim 2022, Benchmarking Validation Methods for Unsupervised Domain Adaptation, where it
        stands beside the accuracy.
    """
    return float(row_losses(source.probabilities, needed(source.labels, "source labels")).mean())
