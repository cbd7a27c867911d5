"""Holm's correction and ranks against slow definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.ranking import holm, rank_correlation, ranks


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm as the closure of Bonferroni: a test's p is the largest Bonferroni p of all sets of tests it is in."""
    count = len(p_values)
    found = []
    for index in range(count):
        largest = 0.0
        for size in range(1, count + 1):
            for chosen in itertools.combinations(range(count), size):
                if index in chosen:
                    largest = max(largest, min(1.0, size * min(p_values[test] for test in chosen)))
        found.append(largest)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_closure_of_bonferroni(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p_values = rng.choice([0.001, 0.01, 0.013, 0.02, 0.05, 0.3, 1.0, 0.0], size=rng.integers(1, 8)).tolist()
    np.testing.assert_allclose(holm(p_values), closed_testing(p_values), rtol=1e-12)


def test_holm_keeps_the_chance_of_any_false_alarm() -> None:
    rng = np.random.default_rng(0)
    alarms = [holm(rng.random(8)).min() < 0.05 for _ in range(4000)]
    raw = [rng.random(8).min() < 0.05 for _ in range(4000)]
    assert 0.035 < np.mean(alarms) < 0.065  # 1 - (1 - 0.05 / 8) ** 8 = 0.049
    assert np.mean(raw) > 0.3


def test_holm_of_nothing_and_of_what_is_no_p_value() -> None:
    assert holm([]).tolist() == []
    for wrong in ([0.5, 1.1], [-0.1], [float("nan")], [[0.1]]):
        with pytest.raises(InputError, match="between 0 and 1"):
            holm(wrong)


def slow_ranks(row: list[float]) -> list[float]:
    """The mean of the places that a model takes over all orders in which its equals could stand."""
    found = []
    for score in row:
        before = sum(other > score for other in row)
        equals = sum(other == score for other in row)
        found.append(sum(range(before + 1, before + equals + 1)) / equals)
    return found


@pytest.mark.parametrize("seed", range(10))
def test_ranks_against_counting(seed: int) -> None:
    table = np.random.default_rng(seed).integers(0, 5, size=(6, 7)) / 4
    np.testing.assert_allclose(ranks(table), [slow_ranks(row.tolist()) for row in table])
    np.testing.assert_allclose(ranks(table).sum(1), 7 * 8 / 2)


def test_ranks_refuse_gaps() -> None:
    for wrong in ([0.5, 0.6], [[0.5, float("nan")]]):
        with pytest.raises(InputError, match="without gaps"):
            ranks(wrong)


def test_rank_correlation_against_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 6, size=(2, 9)) / 5
        assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([3, 2, 1], [1, 2, 3]) == -1.0
