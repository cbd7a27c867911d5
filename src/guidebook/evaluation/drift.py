"""Whether an adapted model has lost sight of the target, told without labels from its predictions there."""

from __future__ import annotations

from collections.abc import Mapping

TWIN = "source_only"
SCORE = "information"
LEAST = 0.01
"""Nats that a model must have lost: less is nothing, and does not show where two decimals are told."""


def drift(validators: Mapping[str, Mapping[str, float]], arm: str) -> tuple[float, float] | None:
    """Return the mutual information with the target's rows of a model and of its source-only twin, where it is lower.

    A model that adapting drove to one class, or made unsure, tells its twin's rows apart less well. That is a sign and
    no proof: a model that rightly found one class to be frequent tells less too.

    Args:
        validators: Model -> score -> value.
        arm: The adapted model.

    Returns:
        (the model's, the twin's) in nats, or None: no such sign, or one of the two has no score.

    >>> drift({"dann": {"information": 0.1}, "source_only": {"information": 0.3}}, "dann")
    (0.1, 0.3)
    >>> drift({"dann": {"information": 0.431}, "source_only": {"information": 0.434}}, "dann")
    """
    mine, twins = (validators.get(name, {}).get(SCORE) for name in (arm, TWIN))
    if mine is None or twins is None or twins - mine < LEAST:
        return None
    return mine, twins
