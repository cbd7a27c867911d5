"""Plans are what they promise: every row, the declared mix, within the budget, the same for the same seed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from guidebook.data.batches import mix, mixture_ratios, padding_share, plan_epochs, plan_rows, plan_tokens
from guidebook.errors import InputError


def lengths_of(rows: int, seed: int = 0, most: int = 128) -> np.ndarray:
    drawn = np.random.default_rng(seed).lognormal(3.6, 0.7, rows).astype(int) + 2
    return np.minimum(drawn, most)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# --- epochs


@pytest.mark.parametrize(
    ("rows", "size", "pool"), [(1000, 32, 128), (1000, 32, 2048), (7, 3, 1), (5, 8, 4), (33, 32, 64)]
)
def test_every_row_once_per_epoch(rows: int, size: int, pool: int) -> None:
    plan = plan_epochs(lengths_of(rows), 3, size, seed=1, pool=pool)
    per_epoch = -(-rows // size)
    assert len(plan) == 3 * per_epoch
    for epoch in range(3):
        batches = plan[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= size
        assert max(sizes) - min(sizes) <= 1


def test_batches_differ_between_epochs_and_seeds_and_are_in_no_order() -> None:
    lengths = lengths_of(640)
    plan = plan_epochs(lengths, 4, 32, seed=0)
    assert same(plan, plan_epochs(lengths, 4, 32, seed=0))
    assert not same(plan, plan_epochs(lengths, 4, 32, seed=1))
    assert same(plan[:20], plan_epochs(lengths, 1, 32, seed=0))
    contents = [frozenset(batch.tolist()) for batch in plan]
    assert len(set(contents)) > 0.9 * len(contents)
    means = [lengths[batch].mean() for batch in plan[:20]]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


def test_part_of_an_epoch_is_that_share_of_its_batches() -> None:
    lengths = lengths_of(320)
    assert len(plan_epochs(lengths, 1.5, 32, seed=0)) == 15
    assert len(plan_epochs(lengths, 0.1, 32, seed=0)) == 1
    assert len(plan_epochs(lengths[:32], 0.5, 32, seed=0)) == 1
    assert plan_epochs(lengths, 0, 32, seed=0) == []
    assert plan_epochs(np.zeros(0, int), 2, 32, seed=0) == []
    with pytest.raises(InputError):
        plan_epochs(lengths, 1, 0, seed=0)


def test_length_buckets_leave_little_padding() -> None:
    lengths = lengths_of(20_000)
    plan = plan_epochs(lengths, 1, 32, seed=0)
    at_random = np.array_split(np.random.default_rng(0).permutation(20_000), len(plan))
    assert padding_share(lengths, at_random) > 0.4
    assert padding_share(lengths, plan) < 0.03


# --- tokens


@pytest.mark.parametrize("ratios", [[0.25, 0.25, 0.5], [0.9, 0.05, 0.05], [1.0, 0.0, 3.0]])
@pytest.mark.parametrize("tokens", [3_000, 200_000])
def test_domains_get_their_share_of_the_tokens_to_within_a_row(ratios: list[float], tokens: int) -> None:
    lengths, owner = lengths_of(1500), np.random.default_rng(1).integers(0, 3, 1500)
    plan = plan_tokens(lengths, owner, np.array(ratios), tokens, tokens_per_batch=1024, seed=0)
    rows = np.concatenate(plan)
    for domain, ratio in enumerate(np.array(ratios) / sum(ratios)):
        planned = lengths[rows[owner[rows] == domain]].sum()
        assert 0 <= planned - tokens * ratio < lengths.max()
    assert lengths[rows].sum() >= tokens
    shares = mix(lengths, owner, plan)
    assert np.abs(shares - np.array(ratios) / sum(ratios)).max() < 3 * 128 / tokens


@pytest.mark.parametrize("rows", [1, 9, 300, 5000])
def test_batches_keep_the_budget_and_no_row_is_read_twice_before_the_others(rows: int) -> None:
    lengths, owner = lengths_of(rows + 50), np.array([0] * rows + [1] * 50)
    plan = plan_tokens(lengths, owner, np.array([0.7, 0.3]), 100_000, tokens_per_batch=1024, seed=0, pool=256)
    assert all(0 < len(batch) * lengths[batch].max() <= 1024 for batch in plan)
    counts = np.bincount(np.concatenate(plan), minlength=rows + 50)
    for domain in (0, 1):
        assert np.ptp(counts[owner == domain]) <= 1


def test_a_row_never_stands_twice_in_a_batch_even_of_small_domains() -> None:
    lengths, owner = lengths_of(960), np.arange(960) % 4
    plan = plan_tokens(lengths, owner, np.array([0.1, 0.2, 0.3, 0.4]), 500_000, tokens_per_batch=2048, seed=0)
    assert all(len(set(batch.tolist())) == len(batch) for batch in plan)


def test_batches_are_well_filled() -> None:
    lengths, owner = lengths_of(20_000), np.zeros(20_000, int)
    plan = plan_tokens(lengths, owner, np.ones(1), 500_000, tokens_per_batch=4096, seed=0)
    filled = np.array([len(batch) * lengths[batch].max() / 4096 for batch in plan])
    assert filled.mean() > 0.9
    assert filled.min() > 0.25
    assert padding_share(lengths, plan) < 0.07


def test_the_mix_holds_all_along() -> None:
    lengths, owner = lengths_of(6000), np.arange(6000) % 2
    ratios = np.array([0.2, 0.8])
    plan = plan_tokens(lengths, owner, ratios, 400_000, tokens_per_batch=1024, seed=0, pool=512)
    for part in np.array_split(np.arange(len(plan)), 8):
        shares = mix(lengths, owner, [plan[step] for step in part])
        assert np.abs(shares - ratios).max() < 0.08


def test_token_plans_follow_the_seed() -> None:
    lengths, owner = lengths_of(500), np.zeros(500, int)

    def plan(seed: int) -> list[np.ndarray]:
        return plan_tokens(lengths, owner, np.ones(1), 20_000, tokens_per_batch=512, seed=seed)

    assert same(plan(2**62 - 1), plan(2**62 - 1))
    assert not same(plan(0), plan(1))


def test_token_plans_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"a row of 9 tokens does not fit into a batch of 8.*train\.tokens_per_batch"):
        plan_tokens(np.array([9]), np.array([0]), np.ones(1), 10, tokens_per_batch=8, seed=0)
    with pytest.raises(InputError, match="domain 1 is given a share"):
        plan_tokens(np.array([9]), np.array([0]), np.ones(2), 10, tokens_per_batch=16, seed=0)
    assert plan_tokens(np.array([9]), np.array([0]), np.ones(1), 0, tokens_per_batch=16, seed=0) == []


def test_a_million_rows_are_planned_in_seconds() -> None:
    lengths = np.random.default_rng(0).integers(4, 128, 1_000_000)
    start = time.process_time()
    plan_tokens(lengths, np.arange(1_000_000) % 3, np.ones(3), 50_000_000, tokens_per_batch=4096, seed=0)
    plan_epochs(lengths, 1, 32, seed=0)
    assert time.process_time() - start < 15


# --- rows


@pytest.mark.parametrize(("rows", "size", "steps"), [(10, 4, 20), (7, 7, 5), (100, 32, 3), (5, 3, 11), (64, 32, 9)])
def test_row_plans_are_passes_of_equal_batches_without_repeats(rows: int, size: int, steps: int) -> None:
    plan = plan_rows(np.ones(rows), size, steps, seed=3)
    assert [len(batch) for batch in plan] == [size] * steps
    assert all(len(set(batch.tolist())) == size for batch in plan)
    drawn = np.concatenate(plan)
    for start in range(0, len(drawn) - rows + 1, rows):
        assert sorted(drawn[start : start + rows].tolist()) == list(range(rows))
    assert same(plan, plan_rows(np.ones(rows), size, steps, seed=3))
    assert not same(plan, plan_rows(np.ones(rows), size, steps, seed=4))


def test_fewer_rows_than_a_batch_are_repeated() -> None:
    plan = plan_rows(np.ones(3), 8, 3, seed=0)
    assert np.ptp(np.bincount(np.concatenate(plan))) <= 1
    assert plan_rows(np.ones(3), 8, 0, seed=0) == []
    with pytest.raises(InputError, match="0 rows"):
        plan_rows(np.zeros(0), 8, 3, seed=0)


# --- shares


def test_padding_and_mix_equal_loops() -> None:
    lengths, owner = lengths_of(50), np.arange(50) % 3
    plan = np.array_split(np.random.default_rng(0).permutation(50), 7)
    padded = real = 0
    by_domain = [0, 0, 0]
    for batch in plan:
        for row in batch:
            padded += max(lengths[batch])
            real += lengths[row]
            by_domain[owner[row]] += lengths[row]
    assert padding_share(lengths, plan) == pytest.approx(1 - real / padded)
    assert mix(lengths, owner, plan) == pytest.approx(np.array(by_domain) / real)
    assert mix(lengths, owner, plan, domains=5).tolist()[3:] == [0, 0]
    assert padding_share(lengths, []) == 0
    assert mix(lengths, owner, []).tolist() == [0, 0, 0]


def test_mixtures() -> None:
    counts = [100, 300, 0]
    assert mixture_ratios(counts, "proportional").tolist() == [0.25, 0.75, 0]
    assert mixture_ratios(counts, "equal").tolist() == [0.5, 0.5, 0]
    assert mixture_ratios(counts, "temperature:1").tolist() == [0.25, 0.75, 0]
    assert mixture_ratios(counts, "temperature:0").tolist() == [0.5, 0.5, 0]
    root = np.sqrt([1, 3])
    assert mixture_ratios(counts, "temperature:0.5")[:2] == pytest.approx(root / root.sum())
    names = ("a", "b", "c")
    assert mixture_ratios(counts, {"a": 3, "b": 1, "c": 0}, names).tolist() == [0.75, 0.25, 0]


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        ("proportionl", "Did you mean 'proportional'"),
        ("temperature", "temperature:0.5"),
        ("temperature:hot", "unknown mixture"),
        ("temperature:-1", "unknown mixture"),
        ({"kitchn": 1}, "Did you mean 'kitchen'"),
        ({"kitchen": 1}, "no share for books"),
        ({"kitchen": -1, "books": 1}, "the share of 'kitchen' is -1"),
        ({"kitchen": 0, "books": 0}, "leaves no text"),
    ],
)
def test_wrong_mixtures_are_refused(mixture: object, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        mixture_ratios([1, 1], mixture, ("kitchen", "books"))
