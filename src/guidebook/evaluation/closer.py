"""What a closer look at a model computes: calibration bins, a flat map of rows, words whose guesses changed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BINS = 10
SHOWN = 15
SEEN = 3
"""Times a word must have been guessed to be shown."""


def calibration_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> list[dict[str, float]]:
    """Rows, mean confidence and accuracy of every bin ((m-1)/bins, m/bins] of confidence that has rows.

    Args:
        probabilities: (N, C).
        labels: (N,) class ids.
        bins: Number of bins of equal width over 0..1.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == np.asarray(labels)
    bin_of = np.searchsorted(np.arange(1, bins) / bins, sure, side="left")  # (N,) 0..bins-1
    return [
        {
            "rows": int((bin_of == place).sum()),
            "confidence": round(float(sure[bin_of == place].mean()), 4),
            "accuracy": round(float(right[bin_of == place].mean()), 4),
        }
        for place in range(bins)
        if (bin_of == place).any()
    ]


def project(rows: ArrayLike) -> tuple[Floats, float]:
    """Rows (N, H) on their two main axes, (N, 2) with the larger spread first, and the share of variance they hold.

    Scaled so that the points have a root mean square distance of 1 from their centre.
    """
    values = np.asarray(rows, dtype=np.float64)
    centred = values - values.mean(axis=0)
    left, strength, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(values), 2))
    kept = min(2, len(strength))
    flat[:, :kept] = left[:, :kept] * strength[:kept]
    total = float((strength**2).sum())
    share = float((strength[:2] ** 2).sum()) / total if total else 0.0
    size = float(np.sqrt((flat**2).sum(axis=1).mean()))
    return flat / size if size else flat, share


def align(points: ArrayLike, reference: ArrayLike) -> Floats:
    """Points (N, 2) turned and mirrored, not stretched, to lie as near as can be to the reference (N, 2).

    Reference:
        Schönemann 1966, A Generalized Solution of the Orthogonal Procrustes Problem, Psychometrika 31.
    """
    moved, fixed = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    left, _, right = np.linalg.svd(moved.T @ fixed)
    turned: Floats = moved @ left @ right
    return turned


def changed_words(tokens: ArrayLike, followers: ArrayLike, change: ArrayLike, tokenizer: Any) -> dict[str, Any]:
    """Whole words by how much their log-probability changed over all the times they were guessed.

    Args:
        tokens: (M,) ids of what was guessed.
        followers: (M,) ids of the tokens after them, -1 where there is none.
        change: (M,) log-probability after minus before, in nats.
        tokenizer: Tells words from parts of words.

    Returns:
        gained and lost, each a list of {word, times, change (mean, nats)}, the largest sum first.
    """
    pieces = cast(Any, tokenizer).convert_ids_to_tokens
    ids, after, moved = (np.asarray(values) for values in (tokens, followers, change))
    names: dict[int, str] = {token: pieces(token) for token in map(int, {*ids.tolist(), *after.tolist()}) if token >= 0}
    wordpiece = any(token.startswith("##") for token in tokenizer.get_vocab())
    found: dict[str, list[float]] = defaultdict(list)
    for token, follower, value in zip(ids.tolist(), after.tolist(), moved.tolist(), strict=True):
        goes_on = follower >= 0 and continues(names[follower], wordpiece)
        word = tokenizer.decode([token]).strip()
        if word.isalpha() and not continues(names[token], wordpiece) and not goes_on:
            found[word].append(value)
    sums = sorted(((sum(values), word) for word, values in found.items() if len(values) >= SEEN), reverse=True)

    def lines(chosen: list[tuple[float, str]]) -> list[dict[str, Any]]:
        return [
            {"word": word, "times": len(found[word]), "change": round(total / len(found[word]), 3)}
            for total, word in chosen
        ]

    return {
        "gained": lines([item for item in sums if item[0] > 0][:SHOWN]),
        "lost": lines([item for item in reversed(sums) if item[0] < 0][:SHOWN]),
    }


def continues(piece: str, wordpiece: bool) -> bool:
    """Whether a token goes on with the word before it.

    >>> [continues(piece, True) for piece in ("##ing", "ing")]
    [True, False]
    >>> [continues(piece, False) for piece in ("ing", "Ġing", ",")]
    [True, False, False]
    """
    if wordpiece:
        return piece.startswith("##")
    return piece[:1].isalnum() and not piece.startswith(("Ġ", "▁"))  # by which others mark the start of a word
