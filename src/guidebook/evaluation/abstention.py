"""Rows unlike both domains: how far each stands from known rows, and what leaving the farthest out gains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from guidebook.evaluation.seen import Floats

NEIGHBOUR = 5
SMALLEST_HALF = 8  # rows; of fewer, distances say nothing


@dataclass(frozen=True, eq=False)
class Reference:
    """Known rows of one domain, and how far other rows of the same domain stand from them."""

    rows: Floats
    """(N, H) of length 1."""
    distances: Floats
    """(M,) rising: distances of further rows of the domain, which are not among `rows`."""


def reference(rows: Floats, most: int = 256, seed: int = 0) -> Reference | None:
    """Return a reference made of pooled rows (N, H) of a domain: one half is kept, the other measured against it.

    None where there are too few rows.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    kept, others = order[: min(most, len(rows) // 2)], order[min(most, len(rows) // 2) :]
    if len(kept) < SMALLEST_HALF:
        return None
    known = _unit(rows[kept])
    return Reference(known, np.sort(nearest_distance(rows[others], known)))


def nearest_distance(rows: Floats, known: Floats, neighbour: int = NEIGHBOUR) -> Floats:
    """(N, H) rows, (M, H) known rows -> (N,) Euclidean distance to the `neighbour`-th nearest, all scaled to length 1.

    Reference:
        Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors, section 3.
    """
    similar = _unit(rows) @ _unit(known).T  # (N, M)
    place = len(known) - min(neighbour, len(known))
    return np.asarray(np.sqrt(np.clip(2 - 2 * np.partition(similar, place, axis=1)[:, place], 0, None)))


def strangeness(rows: Floats, references: list[Reference]) -> Floats:
    """(N, H) pooled rows -> (N,): the share of known rows that stand nearer, in the domain where it is smallest.

    A row like those of some domain is near 0.5, one unlike all of them near 1: about a share a of the rows of a domain
    are stranger than 1 - a.
    """
    shares = [
        np.searchsorted(known.distances, nearest_distance(rows, known.rows), side="left") / len(known.distances)
        for known in references
    ]
    return np.asarray(np.min(shares, axis=0))


def energy(logits: Floats, temperature: float = 1.0) -> Floats:
    """(N, C) logits -> (N,) free energies; higher is stranger.

    Reference:
        Liu et al. 2020, Energy-based Out-of-distribution Detection, equation 4.
    """
    scaled = logits / temperature
    most = scaled.max(1)
    return np.asarray(-temperature * (most + np.log(np.exp(scaled - most[:, None]).sum(1))))


def gaussian_distance(rows: Floats, known: Floats, labels: ArrayLike | None = None, shrink: float = 0.1) -> Floats:
    """(N, H) rows, (M, H) known rows -> (N,) squared Mahalanobis distance to the nearest class mean.

    Args:
        rows: What is measured.
        known: Rows of the domain.
        labels: (M,) their classes, which share one covariance; None: one class.
        shrink: Share of the covariance that is replaced by its mean variance, so that it can be inverted.

    Reference:
        Lee et al. 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples, equations 1 and 2.
    """
    classes = np.zeros(len(known), np.int64) if labels is None else np.asarray(labels)
    names = np.unique(classes)
    means = np.stack([known[classes == name].mean(0) for name in names])  # (C, H)
    centred = known - means[np.searchsorted(names, classes)]
    covariance = centred.T @ centred / len(known)
    variance = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    covariance = (1 - shrink) * covariance + shrink * variance * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    apart = rows[:, None, :] - means  # (N, C, H)
    return np.asarray(np.einsum("nch,hk,nck->nc", apart, inverse, apart, optimize=True).min(1))


def coverage_curve(correct: ArrayLike, strange: ArrayLike) -> tuple[Floats, Floats]:
    """Return coverage (N,) and accuracy (N,) of answering only the least strange rows, one more row at each place.

    Rows that are equally strange share the accuracy that they have together, whatever their order.

    Reference:
        Geifman & El-Yaniv 2017, Selective Classification for Deep Neural Networks, equations 1 and 2.
    """
    right, scores = np.asarray(correct, np.float64), np.asarray(strange, np.float64)
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    expected = (np.bincount(group, right[order]) / np.bincount(group))[group]
    counts = np.arange(1, len(right) + 1)
    return counts / len(right), np.cumsum(expected) / counts


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
