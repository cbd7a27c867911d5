"""Scores of probabilities against labels, in numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guidebook.errors import InputError, RunError
from guidebook.evaluation.statistics import accuracy_interval

CALIBRATION_BINS = 15


def classification_scores(probabilities: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> dict[str, Any]:
    """All scores of one model on one labelled domain, ready for JSON.

    Args:
        probabilities: (N, C), rows sum to 1. The prediction is the largest; of equals, the first.
        labels: (N,) classes 0..C-1. Rows without a label must be dropped before.
        names: (C,) label names in the order of the classes.

    Returns:
        rows; accuracy with accuracy_low and accuracy_high (95 %, Wilson); macro_f1 over all C classes;
        calibration_error; per_class {name: {precision, recall, f1, rows}}; confusion, a list of C lists (row: true,
        column: predicted). All shares are 0..1.

    Raises:
        InputError: Shapes do not fit, no rows, or a label outside 0..C-1.
        RunError: A probability is not a finite number.

    >>> scores = classification_scores([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], ["no", "yes"])
    >>> round(scores["accuracy"], 3), scores["confusion"]
    (0.667, [[1, 0], [1, 1]])
    """
    chances, truth = _checked(probabilities, labels, names)  # (N, C), (N,)
    predicted = chances.argmax(axis=1)  # (N, C) -> (N,)
    matrix = confusion(predicted, truth, len(names))
    precision, recall, f1 = precision_recall_f1(matrix)
    interval = accuracy_interval(predicted == truth)
    return {
        "rows": len(truth),
        "accuracy": interval.estimate,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "macro_f1": float(f1.mean()),
        "calibration_error": calibration_error(chances.max(axis=1), predicted == truth),
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "rows": int(matrix[index].sum()),
            }
            for index, name in enumerate(names)
        },
        "confusion": matrix.tolist(),
    }


def confusion(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(N,), (N,) -> (C, C) counts; row: true class, column: predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(
    matrix: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each class, three times (C,), from a confusion matrix (C, C).

    A class that was never predicted has precision 0, one without rows has recall 0, one with neither has F1 0.
    """
    hits = np.diag(matrix).astype(np.float64)
    predicted, true = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(true, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + true, 1)


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error, 0..1: the mean gap between confidence and accuracy over equal-width bins.

    Args:
        confidence: (N,) probability of the predicted class, 0..1.
        correct: (N,) whether the prediction was right.
        bins: Number of bins ((m-1)/bins, m/bins]; a confidence of 0 falls into the first.

    Reference:
        Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    sure = np.asarray(confidence, dtype=np.float64)  # (N,)
    right = np.asarray(correct, dtype=np.float64)
    # Edges are compared as numbers: ceil(confidence * bins) puts 0.2 into the wrong one of 15 bins.
    bin_of = np.searchsorted(np.arange(1, bins) / bins, sure, side="left")  # (N,) 0..bins-1
    gaps = np.bincount(bin_of, weights=sure - right, minlength=bins)  # (bins,) rows x (confidence - accuracy)
    return float(np.abs(gaps).sum() / len(sure))


def _checked(
    probabilities: ArrayLike, labels: ArrayLike, names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    chances, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if chances.ndim != 2 or chances.shape[1] != len(names) or truth.shape != chances.shape[:1]:
        raise InputError(
            f"Scores need probabilities (N, C), labels (N,) and C names; "
            f"found {chances.shape}, {truth.shape} and {len(names)} names {list(names)}."
        )
    if len(truth) == 0:
        raise InputError(
            "Scores need at least one labelled row, found none. Add labels, or leave the domain unlabelled."
        )
    outside = np.flatnonzero((truth < 0) | (truth >= len(names)))
    if len(outside):
        found = truth[outside[0]]
        raise InputError(
            f"Label {found} of row {outside[0]} is not one of 0..{len(names) - 1} ({list(names)}); {len(outside)} such "
            f"rows. Drop rows without a known label before scoring."
        )
    broken = np.flatnonzero(~np.isfinite(chances).all(axis=1))
    if len(broken):
        raise RunError(
            f"Probabilities of row {broken[0]} are {chances[broken[0]].tolist()}, expected finite numbers; "
            f"{len(broken)} such rows. The model diverged: lower the learning rate."
        )
    return chances, truth.astype(np.int64)
