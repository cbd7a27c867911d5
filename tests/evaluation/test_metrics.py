"""Every metric against a slow loop written from its definition, and against scikit-learn."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from guidebook.errors import InputError, RunError
from guidebook.evaluation.metrics import calibration_error, classification_scores

NAMES = ["apple", "pear", "plum"]


def drawn(seed: int, rows: int, classes: int = 3, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=rows)
    logits = sharpness * generator.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1.0
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True), labels


def slow_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for index in range(bins):
        rows = [
            (max(row), int(np.argmax(row)) == label)
            for row, label in zip(probabilities, labels, strict=True)
            if index / bins < max(row) <= (index + 1) / bins
        ]
        if rows:
            confidence = sum(sure for sure, _ in rows) / len(rows)
            accuracy = sum(right for _, right in rows) / len(rows)
            total += len(rows) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_scores_equal_slow_loop_and_scikit_learn(seed: int, rows: int) -> None:
    probabilities, labels = drawn(seed, rows)
    scores = classification_scores(probabilities, labels, NAMES)
    predicted = probabilities.argmax(axis=1)
    assert scores["rows"] == rows
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores["calibration_error"] == pytest.approx(slow_calibration_error(probabilities, labels))
    assert scores["confusion"] == confusion_matrix(labels, predicted, labels=range(3)).tolist()
    macro = f1_score(labels, predicted, labels=range(3), average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(macro)
    expected = precision_recall_fscore_support(labels, predicted, labels=range(3), zero_division=0)
    for column, key in enumerate(["precision", "recall", "f1", "rows"]):
        found = [scores["per_class"][name][key] for name in NAMES]
        assert found == pytest.approx(list(expected[column]))
    slow = sum(int(a == b) for a, b in zip(predicted, labels, strict=True)) / rows
    assert scores["accuracy"] == pytest.approx(slow)
    assert scores["accuracy_low"] <= scores["accuracy"] <= scores["accuracy_high"]


def test_a_class_without_rows_and_predictions_counts_as_zero_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification_scores([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1]], [0, 1], NAMES)
    assert scores["per_class"]["plum"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_calibration_error_by_hand() -> None:
    assert calibration_error([1.0, 1.0], [True, True]) == 0
    assert calibration_error([1.0, 1.0], [True, False]) == pytest.approx(0.5)
    # 0.75 right at 0.9: one bin; gap 0.15 over all rows.
    assert calibration_error([0.9] * 4, [1, 1, 1, 0]) == pytest.approx(0.15)
    # Gaps in two bins do not cancel.
    assert calibration_error([0.9, 0.6], [0, 1]) == pytest.approx((0.9 + 0.4) / 2)


def test_confidences_on_the_edges_of_bins_fall_below_them() -> None:
    for index in range(1, 16):
        edge = index / 15
        # In the same bin as a confidence just below the edge: there the gaps cancel, else they add up.
        pair = calibration_error([edge, edge - 1e-6], [edge > 0.5, edge <= 0.5])
        assert pair == pytest.approx(abs(2 * edge - 1) / 2, abs=1e-5), edge
    assert calibration_error([0.0], [False]) == 0


def test_scores_are_json() -> None:
    scores = classification_scores(*drawn(0, 9), NAMES)
    assert json.loads(json.dumps(scores)) == scores


def test_half_precision_probabilities_are_read() -> None:
    probabilities, labels = drawn(3, 50)
    half = classification_scores(probabilities.astype(np.float16), labels, NAMES)
    assert half["accuracy"] == classification_scores(probabilities, labels, NAMES)["accuracy"]


@pytest.mark.parametrize(
    ("probabilities", "labels", "error", "message"),
    [
        (np.ones((2, 2)), [0, 1], InputError, r"found \(2, 2\), \(2,\) and 3 names"),
        (np.ones((2, 3)), [0], InputError, r"found \(2, 3\), \(1,\)"),
        (np.ones((0, 3)), [], InputError, "at least one labelled row"),
        (np.ones((2, 3)), [0, 3], InputError, r"Label 3 of row 1 is not one of 0\.\.2"),
        (np.ones((2, 3)), [-1, 0], InputError, "Label -1 of row 0"),
        (np.full((2, 3), np.nan), [0, 1], RunError, "Probabilities of row 0"),
    ],
)
def test_wrong_inputs_are_named(probabilities: object, labels: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        classification_scores(probabilities, labels, NAMES)  # type: ignore[arg-type]
