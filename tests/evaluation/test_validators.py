"""Label-free scores and guesses: every formula against a loop written from its paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.estimates import ESTIMATES, estimates
from guidebook.evaluation.seen import Seen
from guidebook.evaluation.validators import VALIDATORS, best, validate
from guidebook.evaluation.validators.neighbourhood import density
from guidebook.evaluation.validators.weighted_risk import controlled_mean, density_ratios

GENERATOR = np.random.default_rng(0)


def chances(rows: int, classes: int = 3, sharp: float = 2.0, seed: int = 0) -> np.ndarray:
    logits = sharp * np.random.default_rng(seed).normal(size=(rows, classes))
    found = np.exp(logits)
    return found / found.sum(1, keepdims=True)


SOURCE = Seen(
    chances(40, seed=1),
    labels=np.random.default_rng(2).integers(0, 3, 40),
    rows=np.random.default_rng(3).normal(size=(40, 4)),
    total=200,
)
TARGET = Seen(
    chances(50, seed=4),
    rows=np.random.default_rng(5).normal(size=(50, 4)) + np.eye(4)[0],
    total=600,
    lm_loss=2.5,
    candidates=np.stack([chances(50, seed=4), chances(50, seed=6), chances(50, seed=7)]),
    seeds=chances(50, seed=8)[None],
)


def slow_entropy(row: np.ndarray) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def test_all_scores_are_there_and_say_which_way_is_better():
    assert set(validate(SOURCE, TARGET)) == set(VALIDATORS)
    assert set(estimates(SOURCE, TARGET, draws=20)) == set(ESTIMATES)
    bare = validate(Seen(SOURCE.probabilities), Seen(TARGET.probabilities))
    assert set(bare) == {"entropy", "information", "nuclear_norm", "neighbourhood"}
    assert not estimates(Seen(SOURCE.probabilities), Seen(TARGET.probabilities))


@pytest.mark.parametrize("name", ["information", "nuclear_norm", "entropy", "source_loss", "source_accuracy"])
def test_a_sure_right_and_diverse_model_is_better_than_a_blind_one(name):
    labels = np.arange(30) % 3
    sure = np.eye(3)[labels] * 0.94 + 0.02
    blind = np.full((30, 3), 1 / 3) + np.array([0.0, 0.01, -0.01])
    scores = {
        model: VALIDATORS[name](Seen(found, labels=labels), Seen(found))
        for model, found in (("blind", blind), ("sure", sure))
    }
    assert best(name, scores) == "sure"


def test_source_scores_and_mixed_loss_are_their_loops():
    loss = np.mean([-math.log(row[label]) for row, label in zip(SOURCE.probabilities, SOURCE.labels, strict=True)])
    right = np.mean([row.argmax() == label for row, label in zip(SOURCE.probabilities, SOURCE.labels, strict=True)])
    found = validate(SOURCE, TARGET)
    assert found["source_loss"] == pytest.approx(loss)
    assert found["source_accuracy"] == pytest.approx(right)
    assert found["mixed_loss"] == pytest.approx(0.25 * loss + 0.75 * 2.5)


def test_entropy_information_and_ensemble_are_their_loops():
    rows = TARGET.probabilities
    mean = np.mean([slow_entropy(row) for row in rows])
    found = validate(SOURCE, TARGET)
    assert found["entropy"] == pytest.approx(mean)
    assert found["information"] == pytest.approx(slow_entropy(rows.mean(0)) - mean)
    same = 0
    for row in range(50):
        together = sum(candidate[row] for candidate in TARGET.candidates)
        same += together.argmax() == rows[row].argmax()
    assert found["ensemble"] == pytest.approx(same / 50)


def test_the_nuclear_norm_is_the_sum_of_singular_values_and_reaches_one():
    rows = TARGET.probabilities
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(rows.T @ rows), 0, None)).sum()
    assert VALIDATORS["nuclear_norm"](SOURCE, TARGET) == pytest.approx(singular / math.sqrt(50 * 3))
    assert VALIDATORS["nuclear_norm"](SOURCE, Seen(np.eye(3)[np.arange(30) % 3])) == pytest.approx(1)


def test_neighbourhood_density_is_its_loop():
    rows = TARGET.probabilities[:12]
    total = 0.0
    for i in range(12):
        units = [row / math.sqrt(sum(row**2)) for row in rows]
        weights = {j: math.exp(float(units[i] @ units[j]) / 0.05) for j in range(12) if j != i}
        total += slow_entropy(np.array(list(weights.values())) / sum(weights.values()))
    assert VALIDATORS["neighbourhood"](SOURCE, Seen(rows)) == pytest.approx(total / 12)
    assert density(np.ones((9, 2)), 0.05) == pytest.approx(math.log(8)), "a collapsed model reaches the maximum"


def test_the_controlled_mean_is_its_loop_and_less_noisy():
    losses, weights = GENERATOR.random(30), GENERATOR.random(30) * 2
    weighted = [w * loss for w, loss in zip(weights, losses, strict=True)]
    mean, mean_w = sum(weighted) / 30, sum(weights) / 30
    covariance = sum((a - mean) * (w - mean_w) for a, w in zip(weighted, weights, strict=True)) / 29
    variance = sum((w - mean_w) ** 2 for w in weights) / 29
    eta = -covariance / variance
    assert controlled_mean(losses, weights) == pytest.approx(mean + eta * mean_w - eta)
    assert controlled_mean(losses, np.ones(30)) == pytest.approx(losses.mean())


def test_density_ratios_find_the_rows_that_look_like_the_target():
    generator = np.random.default_rng(9)
    source, target = generator.normal(size=(300, 3)), generator.normal(size=(300, 3)) + 1.5 * np.eye(3)[0]
    ratios = density_ratios(source, target)
    assert np.corrcoef(np.log(ratios), source[:, 0])[0, 1] > 0.9
    # True ratios: log r = 1.5 x - 1.125, mean 1. A ridge draws them toward 1, the less the more rows there are.
    assert ratios.mean() == pytest.approx(0.77, abs=0.07)  # 0.77 +- 0.02 over draws
    more, there = generator.normal(size=(4000, 3)), generator.normal(size=(4000, 3)) + 1.5 * np.eye(3)[0]
    slopes = [np.polyfit(rows[:, 0], np.log(density_ratios(rows, there)), 1)[0] for rows in (source, more)]
    assert 0.4 < np.polyfit(source[:, 0], np.log(ratios), 1)[0] < slopes[1]
    assert slopes[1] == pytest.approx(1.26, abs=0.08)  # 1.26 +- 0.02 over draws
    same = density_ratios(source, generator.normal(size=(300, 3)))
    assert np.abs(np.log(same)).max() < 1.5


def test_doc_atc_and_gde_are_their_loops():
    found = estimates(SOURCE, TARGET, draws=50)
    right = np.array([row.argmax() == label for row, label in zip(SOURCE.probabilities, SOURCE.labels, strict=True)])
    gap = np.mean([max(row) for row in SOURCE.probabilities]) - np.mean([max(row) for row in TARGET.probabilities])
    assert found["confidence_difference"].estimate == pytest.approx(right.mean() - gap)
    for name, score in (("threshold_confidence", max), ("threshold_entropy", lambda row: -slow_entropy(row))):
        errors = int((~right).sum())
        scores = sorted(score(row) for row in SOURCE.probabilities)
        threshold = scores[errors]  # so that exactly the share of the errors lies below
        assert np.mean([value < threshold for value in scores]) == pytest.approx(errors / 40)
        share = np.mean([score(row) >= threshold for row in TARGET.probabilities])
        assert found[name].estimate == pytest.approx(share)
    agree = [a.argmax() == b.argmax() for a, b in zip(TARGET.probabilities, TARGET.seeds[0], strict=True)]
    assert found["seed_agreement"].estimate == pytest.approx(np.mean(agree))


def test_estimates_lie_in_their_intervals_which_shrink_with_rows_and_level():
    for name, interval in estimates(SOURCE, TARGET, draws=200).items():
        assert 0 <= interval.low <= interval.estimate <= interval.high <= 1, name
        narrow = ESTIMATES[name](SOURCE, TARGET, draws=200, level=0.5)
        assert narrow.high - narrow.low < interval.high - interval.low, name
        times = 8
        many = Seen(np.tile(SOURCE.probabilities, (times, 1)), labels=np.tile(SOURCE.labels, times))
        there = Seen(np.tile(TARGET.probabilities, (times, 1)), seeds=np.tile(TARGET.seeds, (1, times, 1)))
        larger = ESTIMATES[name](many, there, draws=200)
        assert larger.high - larger.low < 0.6 * (interval.high - interval.low), name


def test_atc_is_right_under_a_shift_of_what_is_hard():
    generator = np.random.default_rng(10)

    def rows(hard: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        truth = np.where(generator.random(count) < hard, 0.6, 0.95)
        labels = generator.integers(0, 2, count)
        right = generator.random(count) < truth
        said = np.where(right, labels, 1 - labels)
        found = np.full((count, 2), 0.0)
        found[np.arange(count), said] = truth + generator.normal(size=count) * 0.01
        found[np.arange(count), 1 - said] = 1 - found[np.arange(count), said]
        return found, labels

    (found, labels), (there, truth) = rows(0.2, 4000), rows(0.7, 4000)
    accuracy = (there.argmax(1) == truth).mean()
    guesses = estimates(Seen(found, labels=labels), Seen(there), draws=50)
    assert guesses["confidence_difference"].estimate == pytest.approx(accuracy, abs=0.02)
    assert abs(guesses["same_as_source"].estimate - accuracy) > 0.1


def test_mistakes_are_named():
    with pytest.raises(InputError, match="of at least one row"):
        Seen(np.zeros((0, 2)))
    with pytest.raises(InputError, match="one per row"):
        Seen(np.full((3, 2), 0.5), labels=np.zeros(2, np.int64))
    with pytest.raises(InputError, match="the same rows"):
        Seen(np.full((3, 2), 0.5), seeds=np.zeros((1, 2, 2)))
    with pytest.raises(InputError, match="Did you mean 'entropy'"):
        best("entropi", {"a": 1.0})
    with pytest.raises(InputError, match="needs source labels"):
        VALIDATORS["source_loss"](Seen(np.full((3, 2), 0.5)), TARGET)
