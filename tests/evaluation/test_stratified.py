"""What a few labels say: estimators against loops, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.prediction_powered import prediction_powered
from guidebook.evaluation.stratified import (
    allocate,
    rows_needed,
    strata_of,
    stratified_accuracy,
    stratified_difference,
)


def world(generator: np.random.Generator, rows: int, gain: float) -> dict[str, np.ndarray]:
    """Two models of two classes on rows of a domain: confidence, guesses, what each says, whether each is right."""
    hard = generator.beta(2, 5, rows)
    adapted = generator.random(rows) < 1 - hard * (1 - gain)
    twin = np.where(generator.random(rows) < 0.7, adapted, generator.random(rows) < 1 - hard)
    return {
        "confidence": np.clip(1 - 0.6 * hard + generator.normal(size=rows) * 0.05, 0.5, 1),
        "disagrees": adapted != twin,  # of two classes, two models say the same where both are right or both wrong
        "adapted": adapted,
        "twin": twin,
    }


def audited(generator: np.random.Generator, pool: dict[str, np.ndarray], labels: int):
    strata = strata_of(pool["confidence"], pool["disagrees"])
    sizes = np.bincount(strata)
    settled = np.array([not pool["disagrees"][strata == s].any() for s in range(len(sizes))]).astype(np.int64)
    counts = np.zeros_like(sizes)
    half = min(labels // 2, int(sizes[settled == 0].sum()))
    counts[settled == 0] = allocate(sizes[settled == 0], np.ones((settled == 0).sum()), half)
    counts[settled == 1] = allocate(sizes[settled == 1], np.full((settled == 1).sum(), 0.4), labels - half)
    chosen = np.concatenate(
        [generator.permutation(np.flatnonzero(strata == s))[:n] for s, n in enumerate(counts)]
    ).astype(np.int64)
    return chosen, strata, sizes, settled


def coverage(runs: int, rows: int, labels: int, gain: float) -> dict[str, float]:
    truth = world(np.random.default_rng(99), 400_000, gain)
    expected = truth["adapted"].mean(), truth["adapted"].mean() - truth["twin"].mean()
    held = {"accuracy": 0, "difference": 0, "powered": 0, "powered difference": 0}
    for run in range(runs):
        generator = np.random.default_rng((run, 3))
        pool = world(generator, rows, gain)
        chosen, strata, sizes, settled = audited(generator, pool, labels)
        right, twin = pool["adapted"][chosen], pool["twin"][chosen]
        of_rows = strata[chosen]
        values = right.astype(float) - twin
        guesses = np.where(pool["disagrees"], 2 * pool["confidence"] - 1, 0.0)
        intervals = {
            "accuracy": stratified_accuracy(right, of_rows, sizes, settled),
            "difference": stratified_difference(right, twin, of_rows, sizes, settled),
            "powered": prediction_powered(
                right.astype(float), pool["confidence"][chosen], of_rows, pool["confidence"], strata, groups=settled
            ),
            "powered difference": prediction_powered(
                values, guesses[chosen], of_rows, guesses, strata, groups=settled, known=settled
            ),
        }
        for name, interval in intervals.items():
            value = expected["difference" in name]
            held[name] += interval.low <= value <= interval.high
    return {name: count / runs for name, count in held.items()}


@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_intervals_hold_the_truth_of_the_domain(gain):
    for name, share in coverage(250, rows=800, labels=100, gain=gain).items():
        assert share >= 0.915, f"{name} covers {share:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "labels", "gain"), [(300, 40, 0.3), (2000, 200, 0.9), (800, 100, 0.95)])
def test_intervals_hold_the_truth_in_many_runs(rows, labels, gain):
    for name, share in coverage(1500, rows, labels, gain).items():
        assert share >= 0.93, f"{name} covers {share:.3f}"


def test_estimates_are_their_loops():
    generator = np.random.default_rng(1)
    pool = world(generator, 300, 0.4)
    chosen, strata, sizes, settled = audited(generator, pool, 60)
    accuracy = difference = 0.0
    for stratum, size in enumerate(sizes):
        rows = [row for row in chosen if strata[row] == stratum]
        accuracy += size / 300 * np.mean([pool["adapted"][row] for row in rows])
        difference += size / 300 * np.mean([float(pool["adapted"][row]) - pool["twin"][row] for row in rows])
    right, twin = pool["adapted"][chosen], pool["twin"][chosen]
    assert stratified_accuracy(right, strata[chosen], sizes, settled).estimate == pytest.approx(accuracy)
    found = stratified_difference(right, twin, strata[chosen], sizes, settled)
    assert found.estimate == pytest.approx(difference)


def test_one_stratum_is_wilson_up_to_its_smoothing_and_all_labels_are_no_certainty():
    right = np.arange(100) < 80
    found = stratified_accuracy(right, np.zeros(100, np.int64), np.array([1_000_000]), np.zeros(1))
    assert (found.low, found.high) == pytest.approx((0.711, 0.867), abs=0.004)
    whole = stratified_accuracy(right, np.zeros(100, np.int64), np.array([100]), np.zeros(1))
    assert whole.high - whole.low > 0.1, "another pool of the domain would give another accuracy"
    assert stratified_accuracy(np.ones(20, bool), np.zeros(20, np.int64), np.array([500]), np.zeros(1)).low < 0.9


def test_useless_guesses_are_not_trusted_and_good_ones_narrow():
    generator = np.random.default_rng(2)
    truth = generator.random(4000) < 0.8
    noise, strata = generator.random(4000), np.zeros(4000, np.int64)
    chosen = generator.permutation(4000)[:120]
    values = truth[chosen].astype(float)
    blind = prediction_powered(values, noise[chosen], strata[chosen], noise, strata)
    good = np.where(truth, 0.9, 0.2)
    sharp = prediction_powered(values, good[chosen], strata[chosen], good, strata)
    assert sharp.high - sharp.low < 0.5 * (blind.high - blind.low)
    assert blind.estimate == pytest.approx(values.mean(), abs=0.03)
    # trust 1 is the formula of the paper: mean guess over the pool plus the mean correction
    assert sharp.estimate == pytest.approx(good.mean() + (values - good[chosen]).mean(), abs=5e-3)


def test_allocation_takes_every_stratum_and_no_row_twice():
    sizes = np.array([100, 3, 50])
    counts = allocate(sizes, np.array([0.1, 0.5, 0.5]), 40)
    assert counts.sum() == 40
    assert (counts >= 2).all()
    assert (counts <= sizes).all()
    assert counts[2] > counts[0], "twice as many rows, a fifth of the scatter"
    assert counts[0] / counts[2] == pytest.approx(100 * 0.1 / (50 * 0.5), abs=0.1), "Neyman's proportions"
    assert allocate(sizes, np.ones(3), 1000).tolist() == [100, 3, 50]


def test_strata_keep_agreement_apart_and_rise_with_confidence():
    confidence = np.linspace(0.5, 1, 40)
    disagrees = np.arange(40) % 4 == 0
    strata = strata_of(confidence, disagrees)
    assert set(strata[disagrees]).isdisjoint(strata[~disagrees])
    means = [confidence[strata == s].mean() for s in range(strata.max() + 1) if not disagrees[strata == s].any()]
    assert means == sorted(means)
    assert strata_of(confidence, np.zeros(40, bool)).max() == 3


def test_equal_models_differ_by_nothing_and_gaps_are_refused():
    settled = np.array([1, 1])
    found = stratified_difference([True, False], [True, False], np.array([0, 1]), np.array([10, 10]), settled)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    with pytest.raises(InputError, match="without gaps"):
        stratified_accuracy([True], np.array([0]), np.array([5, 5]), np.zeros(2))
    with pytest.raises(InputError, match="No labelled rows"):
        stratified_accuracy([], np.zeros(0, np.int64), np.array([5, 5]), np.zeros(2))
    assert (
        rows_needed(
            stratified_difference([True] * 4, [False] * 4, np.zeros(4, np.int64), np.array([9]), np.zeros(1)), 0.0, 4
        )
        is None
    )
