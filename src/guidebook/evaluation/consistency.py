"""Whether a guessed accuracy fits how often the model disagrees with another one of a different kind.

A guess such as ATC reads one model's confidence, and a model that a shift misleads is often as confident as before. How
often it disagrees with a model of word counts on the same rows is a fact that needs no label: when both are as accurate
as guessed, there is a limit to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from guidebook.evaluation.seen import Floats

OTHER = "tfidf"
"""The model that guesses are held against: it shares nothing with the base."""
SLACK = -0.02
"""Surplus from which a guess is doubted. Below zero: models that learned from the same rows share some errors and so
disagree less than independent ones. Chosen on the screening directions of benchmarks/catalogue."""


@dataclass(frozen=True)
class Doubt:
    """How often two models disagree on rows of the target, and how often they should."""

    disagreement: float
    """Share of rows, 0..1, on which the two predict different classes."""
    expected: float
    """The share that the guessed accuracies give if the two err independently."""
    other: str = OTHER
    """The model that was compared with."""


def expected_disagreement(first: float, second: float, classes: int) -> float:
    """Return how often two models of these accuracies disagree if they err independently, 0..1.

    Wrong answers are taken to be spread evenly over the other classes.

    >>> round(expected_disagreement(0.9, 0.8, 2), 2)
    0.26
    >>> expected_disagreement(1.0, 1.0, 5)
    0.0
    """
    return 1 - first * second - (1 - first) * (1 - second) / (classes - 1)


def doubt_of(mine: Floats, others: Floats, guess: float, other_accuracy: float) -> Doubt | None:
    """Return why a model's guessed accuracy is doubted; None where it fits.

    Args:
        mine: (N, C) probabilities of the model on rows of the target.
        others: (N, C) probabilities of the other model on the same rows.
        guess: Guessed accuracy of the model there, 0..1.
        other_accuracy: Accuracy of the other model on held-out rows of the source, 0..1: it hardly does better in the
            target, so that the expected disagreement is rather too small than too large.

    >>> import numpy as np
    >>> sure, words = np.array([[0.9, 0.1]] * 4), np.array([[0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]])
    >>> doubt_of(sure, words, 0.95, 0.75).disagreement
    0.75
    """
    disagreement = float((mine.argmax(1) != others.argmax(1)).mean())
    expected = expected_disagreement(guess, other_accuracy, mine.shape[1])
    return Doubt(disagreement, expected) if disagreement > expected + SLACK else None
