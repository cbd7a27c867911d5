"""Which candidate would have been taken, by which rule, and what that rule costs against the best one.

A candidate is a trained model of one cell: one source, one target, one draw of labels. All rules but the oracle are
blind to target labels; the oracle chooses on one half of the test rows and is scored on the other, since the best of
thirty candidates on the rows that chose it looks better than it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guidebook.errors import InputError

SOURCE, FLAGSHIP, RANDOM, ORACLE = "source accuracy", "always the flagship", "random", "oracle"


@dataclass(frozen=True)
class Candidate:
    """One trained model of a cell, as its record tells it."""

    name: str
    correct: NDArray[Any]
    """(N,) whether it was right on each test row of the target; of texts with tags, each one's part in entity F1."""
    source_accuracy: float | None
    """On labelled source rows that were not trained on: accuracy, or entity F1 where words are tagged."""
    scores: Mapping[str, float]
    """Label-free scores, higher is better (see `oriented`)."""


@dataclass(frozen=True)
class Pick:
    """What a rule gets in one cell."""

    accuracy: float
    """Of the candidate that the rule takes, the mean over candidates that tie; 0..1."""
    regret: float
    """Accuracy of the oracle minus this one. Below 0: the rule beat what half of the labels chose."""
    names: tuple[str, ...]
    """What it takes; several where they tie, and for `random`."""


def picks(candidates: Sequence[Candidate], flagship: str, seed: int = 0) -> dict[str, Pick]:
    """What every rule gets in one cell: label-free scores, source accuracy, the flagship, random, oracle.

    A rule that cannot be applied (a score that a candidate lacks, no flagship among them) is left out.

    Args:
        candidates: Two or more, right or wrong on the same rows in the same order.
        flagship: Name of the candidate that "always the flagship" takes.
        seed: Draws the halves.

    Raises:
        InputError: fewer than two candidates, names that repeat, unequal or fewer than two rows.
    """
    _check(candidates)
    rules: dict[str, Sequence[float | None]] = {}
    for name in dict.fromkeys(name for candidate in candidates for name in candidate.scores):
        rules[name] = [candidate.scores.get(name) for candidate in candidates]
    rules[SOURCE] = [candidate.source_accuracy for candidate in candidates]
    chosen = {name: _best(values) for name, values in rules.items() if all(value is not None for value in values)}
    chosen[FLAGSHIP] = [index for index, candidate in enumerate(candidates) if candidate.name == flagship]
    chosen[RANDOM] = list(range(len(candidates)))

    right = np.stack([candidate.correct for candidate in candidates])  # (K, N)
    oracle, taken = oracle_accuracy(right, seed)
    found = {
        name: Pick(
            float(right[indices].mean()),
            oracle - float(right[indices].mean()),
            tuple(candidates[index].name for index in indices),
        )
        for name, indices in chosen.items()
        if indices
    }
    found[ORACLE] = Pick(oracle, 0.0, tuple(dict.fromkeys(candidates[index].name for index in taken)))
    return found


def oracle_accuracy(correct: ArrayLike, seed: int = 0) -> tuple[float, list[int]]:
    """Accuracy of the candidate that one half of the test rows chooses, on the other half; mean of both ways round.

    Args:
        correct: (K, N) whether each of K candidates was right on each of N rows, or another score of each row.
        seed: Draws the halves; the same for every candidate.

    Returns:
        The accuracy, 0..1, weighted by rows, and the candidates that were chosen.
    """
    right = np.asarray(correct, dtype=np.float64)
    order = np.random.default_rng(seed).permutation(right.shape[1])
    halves = np.array_split(order, 2)
    hits, taken = 0.0, []
    for choose, score in (halves, halves[::-1]):
        best = _best(right[:, choose].mean(axis=1).tolist())
        hits += float(right[best][:, score].mean()) * len(score)
        taken += best
    return hits / right.shape[1], taken


def oriented(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Scores of a record turned so that higher is better; those that could not be computed are left out.

    >>> oriented({"entropy": {"value": 0.3, "higher_is_better": False}})
    {'entropy': -0.3}
    """
    return {
        name: score["value"] if score["higher_is_better"] else -score["value"]
        for name, score in scores.items()
        if score["value"] is not None
    }


def _best(values: Sequence[float | None]) -> list[int]:
    """Return every index whose value is the largest."""
    known = [-np.inf if value is None or np.isnan(value) else value for value in values]
    return [index for index, value in enumerate(known) if value == max(known)]


def _check(candidates: Sequence[Candidate]) -> None:
    names = [candidate.name for candidate in candidates]
    sizes = {candidate.correct.shape for candidate in candidates}
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"A choice needs two or more candidates of different names, found {names}.")
    if len(sizes) != 1 or min(sizes)[0] < 2:
        raise InputError(f"Candidates of a cell share their test rows, two or more; found {sorted(sizes)}.")
