"""How sure a model is on the target."""

from __future__ import annotations

from guidebook.evaluation.seen import Seen, entropies


def entropy(source: Seen, target: Seen) -> float:
    """Mean entropy of the target's predictions, 0..log C nats; lower is better. A collapsed model reaches 0.

    Reference:
        Morerio, Cavazza & Murino 2018, Minimal-Entropy Correlation Alignment, section 3.3.
    """
    return float(entropies(target.probabilities).mean())
