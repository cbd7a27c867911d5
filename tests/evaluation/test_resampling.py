"""Bootstraps of many rows: bounded in memory, and the same as row by row."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from guidebook.evaluation import likelihood, prior, resampling
from guidebook.evaluation.estimates import ESTIMATES, threshold
from guidebook.evaluation.likelihood import likelihood_change, likelihood_scores
from guidebook.evaluation.prior import estimated_priors
from guidebook.evaluation.seen import Seen

MANY = 60_000


def said(rows: int, seed: int, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (rows, 3) of a middling model, and the classes (rows,)."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, rows, p=[0.5, 0.3, 0.2])
    logits = sharpness * np.eye(3)[labels] * generator.uniform(0, 1, (rows, 1)) + generator.normal(size=(rows, 3))
    chances = np.exp(logits)
    return chances / chances.sum(1, keepdims=True), labels


def peak(work: Callable[[], Any]) -> tuple[Any, float]:
    """What work returns, and the most megabytes it held."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates_of_many_rows_take_little_memory_and_are_those_row_by_row(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source, labels), (target, _) = said(5000, 0), said(6000, 1, sharpness=2.0)
    seeds = np.stack([np.roll(target, 1, 0)])
    here, there = Seen(source, labels), Seen(target, seeds=seeds)
    found = ESTIMATES[name](here, there, draws=2000, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(resampling, "GROUPS", 10_000)
        patch.setattr(threshold, "GROUPS", 10_000)
        slow = ESTIMATES[name](here, there, draws=2000, seed=1)
    assert found.estimate == slow.estimate
    # The ends of 2000 other draws differ by chance with a standard deviation of 2 % of the interval's width.
    assert found.low == pytest.approx(slow.low, abs=0.1 * (slow.high - slow.low))
    assert found.high == pytest.approx(slow.high, abs=0.1 * (slow.high - slow.low))
    assert found.high - found.low > 5e-3
    (source, labels), (target, _) = said(MANY, 0), said(MANY, 1)
    many, most = Seen(source, labels), Seen(target, seeds=target[None])
    _, megabytes = peak(lambda: ESTIMATES[name](many, most, seed=1))
    assert megabytes < 100, "1000 draws of every row are 480 MB"


def test_class_shares_of_many_rows_take_little_memory_and_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    (source, labels), (target, _) = said(9000, 0), said(5000, 1)
    target = target[np.argsort(target[:, 0])][1000:]
    found = estimated_priors(source, labels, target, draws=200)
    monkeypatch.setattr(prior, "ROWS", 100_000)
    slow = estimated_priors(source, labels, target, draws=200)
    for name in ("em", "confusion"):
        assert found[name].estimate == pytest.approx(slow[name].estimate, abs=1e-12)
        # Fewer rows are resampled than there are: intervals are rather too wide, and their ends scatter.
        width = slow[name].high - slow[name].low
        ratio = (found[name].high - found[name].low) / width
        assert ((ratio > 0.8) & (ratio < 1.5)).all()
        assert (abs(found[name].low - slow[name].low) < width / 3).all()
        assert (abs(found[name].high - slow[name].high) < width / 3).all()
    monkeypatch.undo()
    (source, labels), (target, _) = said(MANY, 0), said(MANY, 1)
    _, megabytes = peak(lambda: estimated_priors(source, labels, target, draws=20))
    assert megabytes < 300


def test_a_rare_class_is_in_every_sample() -> None:
    source, labels = said(9000, 0)
    labels[labels == 2] = 0
    labels[:2] = 2
    found = estimated_priors(source, labels, source[:500], draws=10)
    assert np.isfinite(found["em"].high).all()


def test_resamples_of_many_documents_are_drawn_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    nats, tokens = generator.uniform(5, 9, 3000), generator.integers(3, 9, 3000)
    work = (
        lambda: likelihood_scores(nats, tokens, 5 * tokens),
        lambda: likelihood_change(nats, nats[::-1], 5 * tokens),
    )
    monkeypatch.setattr(likelihood, "COUNTS", 2000 * 3000)
    at_once = [do() for do in work]
    monkeypatch.setattr(likelihood, "COUNTS", 100_000)
    for do, whole in zip(work, at_once, strict=True):
        found, megabytes = peak(do)
        assert found == pytest.approx(whole)
        assert megabytes < 10
