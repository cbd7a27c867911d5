"""Distances of rows: MMD, CKA, strangeness, retention; against loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.abstention import (
    coverage_curve,
    energy,
    gaussian_distance,
    nearest_distance,
    reference,
    strangeness,
)
from guidebook.evaluation.discrepancy import mmd, mmd_test
from guidebook.evaluation.similarity import cka, probe_retention


def normal(rows: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width))


def test_mmd_is_its_loop():
    source, target = normal(9), normal(7, seed=1) + 0.5
    together = np.concatenate([source, target])
    apart = [float(((a - b) ** 2).sum()) for i, a in enumerate(together) for b in together[:i]]
    width = float(np.median(apart))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-float(((a - b) ** 2).sum()) / width)

    slow = sum(kernel(source[i], source[j]) for i in range(9) for j in range(9) if i != j) / (9 * 8)
    slow += sum(kernel(target[i], target[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    slow -= 2 * sum(kernel(a, b) for a in source for b in target) / 63
    assert mmd(source, target) == pytest.approx(slow)


def test_the_permutation_test_sees_a_shift_and_no_shift():
    assert mmd_test(normal(40), normal(40, seed=1) + 1, permutations=50)[1] < 0.05
    chances = [mmd_test(normal(40, seed=s), normal(40, seed=s + 100), permutations=50)[1] for s in range(8)]
    assert min(chances) > 0.01
    assert max(chances) > 0.3


def u_product(one: np.ndarray, two: np.ndarray) -> float:
    centred = []
    for rows in (one, two):
        kernel, n = rows @ rows.T, len(rows)
        np.fill_diagonal(kernel, 0)
        sums = kernel.sum(1)
        kernel = kernel - (sums[:, None] + sums[None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(kernel, 0)
        centred.append(kernel)
    return float((centred[0] * centred[1]).sum())


def test_cka_of_unrelated_rows_is_zero_on_average_however_few_rows_there_are():
    found = [cka(normal(30, 200, seed=2 * draw), normal(30, 100, seed=2 * draw + 1)) for draw in range(100)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 10
    assert np.std(found) < 0.2
    shared = normal(30, 5)
    related = [np.concatenate([3 * shared, normal(30, 100, seed=seed)], 1) for seed in (1, 2)]
    assert cka(*related) > 0.5
    for rows in (3, 0):
        with pytest.raises(InputError, match="at least 4 of them"):
            cka(normal(rows, 5), normal(rows, 5))


@pytest.mark.parametrize("rows", [6, 40])
def test_cka_is_its_loop_and_blind_to_rotation_and_scale(rows):
    one, two = normal(rows, 5), normal(rows, 8, seed=1)
    one_c, two_c = one - one.mean(0), two - two.mean(0)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        """The mean over four different rows of Song et al. 2012, equation 4."""
        fours = list(itertools.permutations(range(min(rows, 7)), 4))
        k, m = a @ a.T, b @ b.T
        return sum(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in fours) / len(fours)

    if rows < 8:
        slow = hsic(one_c, two_c) / math.sqrt(hsic(one_c, one_c) * hsic(two_c, two_c))
    else:  # centred by U-statistics (Székely and Rizzo 2014), of which it is the product
        slow = u_product(one, two) / math.sqrt(u_product(one, one) * u_product(two, two))
    assert cka(one, two) == pytest.approx(slow)
    turned = one @ np.linalg.qr(normal(5, 5, seed=2))[0] * 3 + 1
    assert cka(one, turned) == pytest.approx(1)
    with pytest.raises(InputError, match="the same rows"):
        cka(one, two[1:])


def test_retention_shows_what_was_lost():
    labels = np.arange(80) % 2
    base = normal(80) + 3 * labels[:, None]
    kept = probe_retention(base, base @ np.diag([2.0, 1, 1, 1]), labels)
    lost = probe_retention(base, normal(80, seed=3), labels)
    assert kept["difference"].within_noise
    assert kept["base"].estimate > 0.95
    assert lost["difference"].high < -0.2
    with pytest.raises(InputError, match="two rows of every class"):
        probe_retention(base, base, np.array([1] + [0] * 79))


def test_nearest_distance_is_its_loop():
    rows, known = normal(6), normal(20, seed=1)
    for row, found in zip(rows, nearest_distance(rows, known, 3), strict=True):
        units = [math.dist(row / np.linalg.norm(row), other / np.linalg.norm(other)) for other in known]
        assert found == pytest.approx(sorted(units)[2])


def test_energy_and_gaussian_distance_are_their_loops():
    logits = normal(5, 3)
    assert energy(logits, 2.0) == pytest.approx([-2 * math.log(sum(math.exp(v / 2) for v in row)) for row in logits])
    known, labels = normal(60), np.arange(60) % 2
    means = [known[labels == c].mean(0) for c in (0, 1)]
    covariance = sum(np.outer(r - means[c], r - means[c]) for r, c in zip(known, labels, strict=True)) / 60
    covariance = 0.9 * covariance + 0.1 * np.trace(covariance) / 4 * np.eye(4)
    for row, found in zip(
        logits @ np.ones((3, 4)), gaussian_distance(logits @ np.ones((3, 4)), known, labels), strict=True
    ):
        assert found == pytest.approx(min(float((row - m) @ np.linalg.solve(covariance, row - m)) for m in means))


def test_strange_rows_are_unlike_every_domain_and_known_shares_hold():
    generator = np.random.default_rng(0)
    places = np.eye(16)[:3] * 8
    books, kitchen = (place + generator.normal(size=(400, 16)) for place in places[:2])
    known = [reference(books[:300]), reference(kitchen[:300])]
    assert known[0] is not None
    assert strangeness(places[2] + generator.normal(size=(50, 16)), known).min() > 0.95
    for rows in (books[300:], kitchen[300:]):
        assert 0.01 <= (strangeness(rows, known) > 0.9).mean() <= 0.2
    assert reference(books[:10]) is None, "too few rows to measure"


def test_the_coverage_curve_is_its_loop_whatever_the_order_of_ties():
    right, strange = np.array([1, 0, 1, 1, 0]), np.array([0.1, 0.9, 0.2, 0.3, 0.8])
    coverage, accuracy = coverage_curve(right, strange)
    order = sorted(range(5), key=lambda row: strange[row])
    assert coverage == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert accuracy == pytest.approx([np.mean([right[row] for row in order[: k + 1]]) for k in range(5)])
    tied = [coverage_curve(right[turn], np.ones(5))[1] for turn in (np.arange(5), np.arange(5)[::-1])]
    assert tied[0] == pytest.approx([0.6] * 5)
    assert tied[1] == pytest.approx([0.6] * 5)
