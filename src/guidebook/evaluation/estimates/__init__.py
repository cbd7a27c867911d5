"""Estimates: label-free guesses of a model's accuracy on the target. One file, one guess, one line.

Their intervals hold the chance in the rows alone: how far another sample of rows would move the guess. Whether the
guess fits the shift at hand is no matter of chance, and no interval of the rows covers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from guidebook.evaluation.seen import Seen, has
from guidebook.evaluation.statistics import Interval

_HERE = "guidebook.evaluation.estimates"


@dataclass(frozen=True)
class Estimate:
    """One line of the table."""

    place: str
    """"module:function" of the pure function `f(source, target, *, draws, seed, level) -> Interval`."""
    needs: tuple[str, ...] = ("source.labels",)
    """What must be known of source or target, as "source.labels"."""

    def __call__(
        self, source: Seen, target: Seen, *, draws: int = 1000, seed: int = 0, level: float = 0.95
    ) -> Interval:
        """Return the guessed accuracy with the interval that chance in the rows gives it."""
        module, _, name = self.place.partition(":")
        found: Interval = getattr(import_module(module), name)(source, target, draws=draws, seed=seed, level=level)
        return found


ESTIMATES: dict[str, Estimate] = {
    "same_as_source": Estimate(f"{_HERE}.same_as_source:same_as_source"),
    "confidence_difference": Estimate(f"{_HERE}.confidence_difference:confidence_difference"),
    "threshold_confidence": Estimate(f"{_HERE}.threshold:threshold_confidence"),
    "threshold_entropy": Estimate(f"{_HERE}.threshold:threshold_entropy"),
    "seed_agreement": Estimate(f"{_HERE}.seed_agreement:seed_agreement", ("target.seeds",)),
}
"""Name -> estimate. DoC is `confidence_difference`, ATC `threshold_…`, GDE `seed_agreement`."""


def estimates(
    source: Seen, target: Seen, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Return every guess whose needs are met, by name."""
    return {
        name: guess(source, target, draws=draws, seed=seed, level=level)
        for name, guess in ESTIMATES.items()
        if has(source, target, guess.needs)
    }
