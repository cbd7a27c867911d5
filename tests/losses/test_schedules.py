"""Schedules against loops over the steps that they stand for."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from guidebook.losses.schedules import ramp, ramp_by_batch_size
from guidebook.methods.udapter_joint import SCHEDULES


@pytest.mark.parametrize("gamma", [1.0, 10.0])
def test_the_ramp_is_the_papers_formula_of_the_share_of_steps(gamma: float) -> None:
    """lambda = 2 / (1 + exp(-gamma p)) - 1, which is tanh(gamma p / 2); the number of steps does not matter."""
    for steps in (10, 1000):
        for step in range(0, steps + 1, steps // 10):
            assert ramp(step / steps, gamma) == pytest.approx(math.tanh(gamma * step / steps / 2), abs=1e-12)


def test_the_ramp_starts_at_zero_and_only_grows() -> None:
    values = [ramp(step / 200) for step in range(201)]
    assert values[0] == 0
    assert all(after > before for before, after in pairwise(values))
    assert 0.9999 < values[-1] < 1


@pytest.mark.parametrize(("epochs", "batches", "size"), [(4, 50, 8), (20, 137, 32), (3, 7, 4), (5, 4, 16)])
def test_the_released_schedule_against_a_loop_over_its_batches(epochs: int, batches: int, size: int) -> None:
    """p = (batch + epoch * batch_size) / (epochs * batch_size), batch after batch, as the code counts.

    The last sizes have fewer batches than a batch has rows: there it grows too slowly.
    """
    counted = 0
    for epoch in range(epochs):
        for batch in range(batches):
            p = (batch + epoch * size) / (epochs * size)
            fraction = counted / (epochs * batches)
            found = ramp_by_batch_size(fraction, epochs=epochs, batches_per_epoch=batches, batch_size=size)
            assert found == pytest.approx(2 / (1 + math.exp(-10 * p)) - 1, abs=1e-6)
            counted += 1


def test_the_released_schedule_falls_back_at_every_epoch() -> None:
    """With an epoch of the paper's size: through within the first, then back to where the paper's would be."""
    before, start = ramp_by_batch_size(1 / 20 - 1e-6), ramp_by_batch_size(1 / 20)
    assert before > 0.9999
    assert start == pytest.approx(ramp(1 / 20), abs=1e-6)


def test_the_divergence_lives_through_a_tenth_of_a_run_as_the_paper_has_it_and_not_as_released() -> None:
    left = {name: [1 - share(step / 10_000) for step in range(1000)] for name, share in SCHEDULES.items()}
    assert min(left["paper"]) > 0.5
    gone = next(step for step, value in enumerate(left["as_released"]) if value < 0.1)
    assert gone / 10_000 == pytest.approx(190 / 43_500, abs=2e-4)
