"""Information maximisation: sure of each row, undecided over all."""

from __future__ import annotations

from guidebook.evaluation.seen import Seen, entropies


def information(source: Seen, target: Seen) -> float:
    """Mutual information of rows and predicted classes on the target, 0..log C nats; higher is better.

    The entropy of the mean prediction less the mean entropy. It rewards predictions of equal class shares, and so
    misleads where the target's classes are not balanced.

    Reference:
        Krause, Perona & Gomes 2010, Discriminative Clustering by Regularized Information Maximization, equation 5;
        Shi & Sha 2012 for domain adaptation.
    """
    return float(entropies(target.probabilities.mean(0)) - entropies(target.probabilities).mean())
