"""How well a language model predicts documents: bits per byte and perplexity, with intervals over documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guidebook.errors import InputError

Floats = NDArray[np.float64]
DRAWS = 2000
COUNTS = 4_000_000
"""Counts of documents in resamples that are in memory at a time: 32 MB."""
FEWEST = 2
"""Documents from which an interval can be told."""


def likelihood_scores(nats: ArrayLike, tokens: ArrayLike, sizes: ArrayLike, seed: int = 0) -> dict[str, Any]:
    """Return the scores of one model on one set of documents, ready for JSON.

    Args:
        nats: (D,) summed cross-entropy of each document.
        tokens: (D,) tokens of each document.
        sizes: (D,) bytes of each document in UTF-8.
        seed: Seed of the resamples.

    Returns:
        documents, tokens, bytes; bits_per_byte and perplexity (per token) over all of them, each with _low and _high,
        the 95 % bootstrap interval over documents (None for a single document). Bits per byte compare models with
        different tokenizers; perplexities do not.

    Raises:
        InputError: no documents, or one without bytes or tokens.

    >>> scores = likelihood_scores([8.0, 4.0], [4, 2], [12, 6])
    >>> round(scores["perplexity"], 3), round(scores["bits_per_byte"], 3)
    (7.389, 0.962)
    """
    losses, counts, weights = (np.asarray(values, dtype=np.float64) for values in (nats, tokens, sizes))
    _refuse_empty(losses, counts, weights)
    found: dict[str, Any] = {
        "documents": len(losses),
        "tokens": int(counts.sum()),
        "bytes": int(weights.sum()),
        "bits_per_byte": float(losses.sum() / weights.sum() / math.log(2)),
        "perplexity": float(np.exp(losses.sum() / counts.sum())),
    }
    nats_there, bytes_there, tokens_there = _resampled([losses, weights, counts], seed)  # (draws,) each
    bits = _interval(nats_there / bytes_there / math.log(2), len(losses))
    surprise = _interval(np.exp(nats_there / tokens_there), len(losses))
    for name, (low, high) in (("bits_per_byte", bits), ("perplexity", surprise)):
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def likelihood_change(before: ArrayLike, after: ArrayLike, sizes: ArrayLike, seed: int = 0) -> dict[str, Any]:
    """Return bits per byte after minus before on the same documents, with a paired 95 % bootstrap interval over them.

    Args:
        before: (D,) nats of each document under one model.
        after: (D,) nats under the other.
        sizes: (D,) bytes.
        seed: Seed of the resamples.

    Returns:
        estimate, low, high (None for a single document), within_noise. Below zero: the second model predicts better.
    """
    first, second, weights = (np.asarray(values, dtype=np.float64) for values in (before, after, sizes))
    _refuse_empty(first, second, weights)
    difference = second - first
    nats_there, bytes_there = _resampled([difference, weights], seed)
    low, high = _interval(nats_there / bytes_there / math.log(2), len(first))
    return {
        "estimate": float(difference.sum() / weights.sum() / math.log(2)),
        "low": low,
        "high": high,
        "within_noise": low is None or high is None or low <= 0 <= high,
    }


def _resampled(columns: Sequence[Floats], seed: int) -> Floats:
    """Return the sums (K, draws) of K columns (D,) over the documents of each resample, a few resamples at a time."""
    documents = len(columns[0])
    generator, chances = np.random.default_rng(seed), np.full(documents, 1 / documents)
    most = max(1, COUNTS // documents)
    sizes = [min(most, DRAWS - first) for first in range(0, DRAWS, most)]
    values = np.stack(columns, 1)  # (D, K)
    return np.concatenate([generator.multinomial(documents, chances, size) @ values for size in sizes]).T


def _interval(values: Floats, documents: int) -> tuple[float | None, float | None]:
    if documents < FEWEST:
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _refuse_empty(losses: Floats, counts: Floats, weights: Floats) -> None:
    if not len(losses) or not losses.shape == counts.shape == weights.shape:
        raise InputError(
            f"Likelihoods need the same documents in every column, found {losses.shape}, {counts.shape} and "
            f"{weights.shape}. Give at least one document."
        )
    if (weights <= 0).any():
        raise InputError("A document has no bytes. Leave empty documents out.")
