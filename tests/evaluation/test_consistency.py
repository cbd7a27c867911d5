from __future__ import annotations

import numpy as np
import pytest

from guidebook.evaluation.consistency import Doubt, doubt_of, expected_disagreement


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(("first", "second"), [(0.9, 0.7), (0.5, 0.5), (1.0, 0.4)])
def test_the_expected_disagreement_is_that_of_independent_errors(first: float, second: float, classes: int) -> None:
    random, rows = np.random.default_rng(0), 200_000

    def answers(accuracy: float) -> np.ndarray:
        wrong = random.integers(1, classes, rows)  # the true class is 0
        return np.where(random.random(rows) < accuracy, 0, wrong)

    found = (answers(first) != answers(second)).mean()
    assert found == pytest.approx(expected_disagreement(first, second, classes), abs=0.005)


def says(answers: np.ndarray) -> np.ndarray:
    return np.eye(2)[answers]


def test_a_model_that_disagrees_more_than_its_guess_allows_is_doubted() -> None:
    gold = np.arange(200) % 2
    words = np.where(np.arange(200) % 10 < 2, 1 - gold, gold)  # right on 80 %
    lost = np.where(np.arange(200) % 20 < 10, 1 - gold, gold)  # right on 50 %
    found = doubt_of(says(lost), says(words), 0.9, 0.8)
    assert isinstance(found, Doubt)
    assert found.disagreement == pytest.approx(np.mean(lost != words))
    assert found.disagreement > found.expected


def test_a_guess_that_is_right_is_not_doubted_where_errors_are_shared() -> None:
    gold = np.arange(200) % 2
    words = np.where(np.arange(200) % 10 < 3, 1 - gold, gold)
    good = np.where(np.arange(200) % 10 < 1, 1 - gold, gold)
    assert doubt_of(says(good), says(words), 0.9, 0.7) is None
