"""Differences of content: how well held-out rows tell their domain by words alone, and by which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

MOST_ROWS = 400  # of each side of one comparison
FEWEST_ROWS = 20
HALVES = 10  # comparisons of two halves of one domain, for each domain
CLEAR = 3.0  # standard deviations of those
SMALLEST_DROP = 0.05  # of the error; less is no difference worth a word
WORDS_SHOWN = 12


@dataclass(frozen=True)
class ContentDifference:
    """What a classifier of domains makes of two of them."""

    verdict: Literal["shift", "no shift", "too few rows"]
    error: float
    """Held-out error of telling the domains apart, 0..0.5 or so; NaN with too few rows."""
    null_low: float
    """Smallest error for two halves of one domain."""
    null_high: float
    """Largest error for two halves of one domain."""
    p_value: float
    """Share of halves that are told apart at least as well."""
    distance: float
    """Proxy A-distance 2 (1 - 2 error); it saturates at 2 for almost any two corpora."""
    source_words: tuple[str, ...]
    """Words that speak for the source, the clearest first."""
    target_words: tuple[str, ...]


def content_difference(source: Sequence[str], target: Sequence[str], seed: int = 0) -> ContentDifference:
    """Return how well two domains are told apart by words, beside how well halves of one domain are.

    Words are read without case, digits and punctuation: what is left of differences in form is small. All comparisons
    are of equally many rows; a word counts once a row.

    Reference:
        Ben-David et al. 2007, Analysis of Representations for Domain Adaptation, section 5 (proxy A-distance).

    Differs:
        The error is held out, and judged by what halves of one domain give, not by its size.
    """
    rows = min(len(source) // 2, len(target) // 2, MOST_ROWS)
    if rows < FEWEST_ROWS:
        nothing = float("nan")
        return ContentDifference("too few rows", nothing, nothing, nothing, nothing, nothing, (), ())
    generator = np.random.default_rng(seed)
    matrix, words = _counts([*source, *target])
    sides = np.arange(len(source)), len(source) + np.arange(len(target))
    error = float(np.mean([_error(matrix, *_drawn(sides, rows, generator)) for _ in range(3)]))
    null = []
    for side in sides:
        for _ in range(HALVES):
            order = generator.permutation(side)
            null.append(_error(matrix, order[:rows], order[rows : 2 * rows]))
    centre, spread = float(np.mean(null)), max(float(np.std(null, ddof=1)), 0.01)
    shifted = error < centre - max(CLEAR * spread, SMALLEST_DROP)
    for_source, for_target = _telling(matrix, _drawn(sides, rows, generator), words)
    return ContentDifference(
        verdict="shift" if shifted else "no shift",
        error=error,
        null_low=min(null),
        null_high=max(null),
        p_value=(1 + sum(value <= error for value in null)) / (1 + len(null)),
        distance=2 * (1 - 2 * error),
        source_words=for_source if shifted else (),
        target_words=for_target if shifted else (),
    )


def _counts(texts: Sequence[str]) -> tuple[Any, np.ndarray]:
    from sklearn.feature_extraction.text import CountVectorizer

    reader = CountVectorizer(token_pattern=r"[^\W\d_]+", binary=True, min_df=2, max_features=10_000, dtype=np.float64)
    try:
        return reader.fit_transform(texts), reader.get_feature_names_out()
    except ValueError:  # no word stands in two rows
        return np.zeros((len(texts), 1)), np.array([""])


def _drawn(
    sides: tuple[np.ndarray, np.ndarray], rows: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    return generator.permutation(sides[0])[:rows], generator.permutation(sides[1])[:rows]


def _error(matrix: Any, first: np.ndarray, second: np.ndarray) -> float:
    """Return the error of telling two sets of rows apart, each half judged by what the other half taught."""
    half = len(first) // 2
    parts = [(first[:half], second[:half]), (first[half:], second[half:])]
    wrong = total = 0
    for learn, judge in (parts, parts[::-1]):
        model = _classifier().fit(matrix[np.concatenate(learn)], np.repeat([0, 1], [len(rows) for rows in learn]))
        for side, rows in enumerate(judge):
            wrong += int((model.predict(matrix[rows]) != side).sum())
            total += len(rows)
    return wrong / total


def _telling(matrix: Any, drawn: tuple[np.ndarray, np.ndarray], words: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """Return the words that speak for the first and for the second side."""
    chosen = matrix[np.concatenate(drawn)]
    model = _classifier().fit(chosen, np.repeat([0, 1], [len(rows) for rows in drawn]))
    share = np.asarray(chosen.mean(0)).ravel()
    weights = model.coef_[0] * np.sqrt(share * (1 - share))
    order = np.argsort(weights)
    sides = order[:WORDS_SHOWN], order[::-1][:WORDS_SHOWN]
    return tuple(
        tuple(str(words[place]) for place in side if sign * weights[place] > 0)
        for side, sign in zip(sides, (-1, 1), strict=True)
    )


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.1, solver="liblinear", max_iter=100)
