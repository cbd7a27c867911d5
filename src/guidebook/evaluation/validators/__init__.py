"""Validators: label-free scores of a trained model, to choose methods and settings by. One file, one score, one line.

They read held-out *source* rows with labels and *pool* rows of the target without; never the rows of the final test.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from guidebook.errors import InputError, nearest
from guidebook.evaluation.seen import Seen, has

_HERE = "guidebook.evaluation.validators"


@dataclass(frozen=True)
class Validator:
    """One line of the table."""

    place: str
    """"module:function" of the pure function `f(source, target) -> float`."""
    higher_is_better: bool
    needs: tuple[str, ...] = ()
    """What must be known of source or target, as "source.labels"."""
    likes_balance: bool = False
    """Whether it rewards equal class shares as such, which misleads where the target's classes are not balanced."""

    def __call__(self, source: Seen, target: Seen) -> float:
        """Return the score of one model from what it says of source and target rows."""
        module, _, name = self.place.partition(":")
        return float(getattr(import_module(module), name)(source, target))


VALIDATORS: dict[str, Validator] = {
    "source_loss": Validator(f"{_HERE}.source_loss:source_loss", False, ("source.labels",)),
    "source_accuracy": Validator(f"{_HERE}.source_accuracy:source_accuracy", True, ("source.labels",)),
    "entropy": Validator(f"{_HERE}.entropy:entropy", False),
    "information": Validator(f"{_HERE}.information:information", True, likes_balance=True),
    "nuclear_norm": Validator(f"{_HERE}.nuclear_norm:nuclear_norm", True, likes_balance=True),
    "neighbourhood": Validator(f"{_HERE}.neighbourhood:neighbourhood", True),
    "weighted_risk": Validator(
        f"{_HERE}.weighted_risk:weighted_risk", False, ("source.labels", "source.rows", "target.rows")
    ),
    "ensemble": Validator(f"{_HERE}.ensemble:ensemble", True, ("target.candidates",)),
    "mixed_loss": Validator(f"{_HERE}.mixed_loss:mixed_loss", False, ("source.labels", "target.lm_loss")),
}
"""Name -> validator. SND is `neighbourhood`, DEV `weighted_risk`, EnsV `ensemble`, BNM's norm `nuclear_norm`."""


def validate(source: Seen, target: Seen) -> dict[str, float]:
    """Return every score whose needs are met, by name."""
    return {name: score(source, target) for name, score in VALIDATORS.items() if has(source, target, score.needs)}


def best(name: str, scores: dict[str, float]) -> str:
    """Return the model that a validator would choose from {model: score}; of equals, the first.

    Raises:
        InputError: no such validator, or nothing to choose from.

    >>> best("entropy", {"dann": 0.4, "source_only": 0.2}), best("source_accuracy", {"dann": 0.8, "source_only": 0.7})
    ('source_only', 'dann')
    """
    if name not in VALIDATORS:
        raise InputError(f"There is no validator {name!r}.{nearest(name, VALIDATORS)} Known: {', '.join(VALIDATORS)}.")
    if not scores:
        raise InputError(f"{name} has no scores to choose from. Score at least one model.")
    return (max if VALIDATORS[name].higher_is_better else min)(scores, key=lambda model: scores[model])
