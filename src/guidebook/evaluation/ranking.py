"""Many models at once: ranks, and p-values that stay honest when several comparisons are made."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guidebook.errors import InputError

Floats = NDArray[np.float64]


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p-values (K,) of K tests, in the order given; 0.05 then bounds the chance of *any* false alarm.

    The smallest is multiplied by K, the next by K - 1, and so on; none is smaller than one before it, none above 1.

    Raises:
        InputError: a p-value is outside 0..1.

    Reference:
        Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    found = np.asarray(p_values, dtype=np.float64)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
        raise InputError(f"Holm's correction takes p-values between 0 and 1, found {found.tolist()}.")
    order = np.argsort(found, kind="stable")
    factors = len(found) - np.arange(len(found))  # K, K - 1, …, 1
    stepped = np.maximum.accumulate(found[order] * factors)
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def ranks(scores: ArrayLike) -> Floats:
    """Ranks (R, K) of K models in each of R cells, 1 for the highest score; equal scores share their mean rank.

    Args:
        scores: (R, K), higher is better.

    Raises:
        InputError: not a table, or a score that is not a number.

    >>> ranks([[0.9, 0.7, 0.9]]).tolist()
    [[1.5, 3.0, 1.5]]
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or np.isnan(table).any():
        raise InputError(f"Ranks need a table of scores, cells by models, without gaps; found the shape {table.shape}.")
    higher = (table[:, None, :] > table[:, :, None]).sum(axis=2)  # (R, K, K) -> (R, K)
    equal = (table[:, None, :] == table[:, :, None]).sum(axis=2)  # itself included
    found: Floats = higher + (equal + 1) / 2
    return found


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's correlation of two scores of the same K models, -1..1; None where one of them never differs.

    >>> rank_correlation([0.1, 0.5, 0.9], [1, 2, 40])
    1.0
    """
    places = ranks(np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)]))  # (2, K)
    apart = places - places.mean(axis=1, keepdims=True)
    spread = np.sqrt((apart**2).sum(axis=1))
    if not spread.all():
        return None
    return round(float((apart[0] * apart[1]).sum() / spread.prod()), 12)
