"""Intervals against slow loops, closed forms, and their coverage in small simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from guidebook.errors import InputError
from guidebook.evaluation.statistics import (
    GroupedDifference,
    Interval,
    accuracy_interval,
    bootstrap_groups,
    grouped_difference,
    paired_difference,
    resampled_means,
    smallest_detectable,
)


def test_wilson_solves_its_equation() -> None:
    # The bounds are the shares p at which |observed - p| is exactly 1.96 standard errors *at p*.
    for right, rows in [(1, 10), (9, 10), (430, 500), (37, 61)]:
        interval = accuracy_interval([True] * right + [False] * (rows - right))
        for bound in (interval.low, interval.high):
            assert abs(right / rows - bound) == pytest.approx(
                1.959964 * math.sqrt(bound * (1 - bound) / rows), rel=1e-5
            )


def test_wilson_keeps_its_ends() -> None:
    none, every = accuracy_interval([False] * 20), accuracy_interval([True] * 20)
    assert (none.estimate, none.low) == (0.0, 0.0)
    assert (every.estimate, every.high) == (1.0, 1.0)
    assert none.high == pytest.approx(1 - every.low)
    assert 0.1 < none.high < 0.2


def test_wilson_covers_exactly_summed() -> None:
    # Coverage summed over the binomial, no simulation: near 95 % on average over true accuracies.
    rows = 60
    intervals = [accuracy_interval([True] * k + [False] * (rows - k)) for k in range(rows + 1)]
    coverages = []
    for true in np.linspace(0.02, 0.98, 97):
        mass = [math.comb(rows, k) * true**k * (1 - true) ** (rows - k) for k in range(rows + 1)]
        coverages.append(sum(m for m, i in zip(mass, intervals, strict=True) if i.low <= true <= i.high))
    assert 0.945 < np.mean(coverages) < 0.965
    assert min(coverages) > 0.88


def slow_paired_bootstrap(a: np.ndarray, b: np.ndarray, seed: int, draws: int) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        rows = generator.integers(len(a), size=len(a))
        means.append(a[rows].mean() - b[rows].mean())
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("rows", [40, 400])
def test_paired_difference_equals_the_naive_loop(rows: int) -> None:
    generator = np.random.default_rng(rows)
    a = generator.random(rows) < 0.85
    b = np.where(generator.random(rows) < 0.8, a, ~a)
    interval = paired_difference(a, b, seed=1)
    low, high = slow_paired_bootstrap(a, b, seed=2, draws=10_000)
    assert interval.estimate == pytest.approx(a.mean() - b.mean())
    # Two independent bootstraps of 10,000 draws: ends agree to a few Monte-Carlo errors and one row.
    tolerance = 0.06 * interval.standard_error * math.sqrt(10) + 1 / rows
    assert interval.low == pytest.approx(low, abs=tolerance)
    assert interval.high == pytest.approx(high, abs=tolerance)


def test_paired_difference_is_reproducible_signed_and_knows_noise() -> None:
    a = np.array([True] * 90 + [False] * 10)
    b = np.array([True] * 70 + [False] * 30)
    forward, back = paired_difference(a, b, seed=3), paired_difference(b, a, seed=3)
    assert forward == paired_difference(a, b, seed=3)
    assert forward.estimate == pytest.approx(0.2)
    assert not forward.within_noise
    assert back.estimate == pytest.approx(-0.2)
    assert paired_difference(a, a) == Interval(0.0, 0.0, 0.0)
    assert paired_difference(a, a).within_noise


def test_paired_difference_covers() -> None:
    generator = np.random.default_rng(0)
    cells, differences = [0.07, 0.04, 0.89], np.array([1.0, -1.0, 0.0])
    inside = 0
    for trial in range(400):
        a_minus_b = generator.choice(differences, p=cells, size=300)
        interval = paired_difference(a_minus_b == 1, a_minus_b == -1, seed=trial, draws=1000)
        inside += interval.low <= 0.03 <= interval.high
    assert 0.92 < inside / 400 < 0.98


def test_resampled_means_have_the_bootstrap_moments_in_slices_too() -> None:
    values = np.random.default_rng(5).normal(size=900)
    means = resampled_means(values, 9000, np.random.default_rng(1))  # 900 distinct values: three slices
    assert means.shape == (9000,)
    assert means.mean() == pytest.approx(values.mean(), abs=0.002)
    assert means.std() == pytest.approx(values.std() / math.sqrt(900), rel=0.04)


def slow_group_errors(cells: list, draws: int) -> tuple[float, float, float, float]:
    """Estimate and the bootstrap errors of sources, draws and rows, by plain loops."""
    generator = np.random.default_rng(11)
    table = {(s, k, t): np.asarray(v, dtype=float) for s, k, t, v in cells}
    sources = sorted({s for s, _, _ in table})
    draws_of = {s: sorted({k for s2, k, _ in table if s2 == s}) for s in sources}
    targets_of = {(s, k): sorted(t for s2, k2, t in table if (s2, k2) == (s, k)) for s in sources for k in draws_of[s]}
    sizes = {t: len(v) for (_, _, t), v in table.items()}

    def mean(chosen: list[tuple[str, list[int]]], rows: dict[str, np.ndarray]) -> float:
        return float(
            np.mean(
                [
                    np.mean([np.mean([table[s, k, t][rows[t]].mean() for t in targets_of[s, k]]) for k in ks])
                    for s, ks in chosen
                ]
            )
        )

    given = [(s, draws_of[s]) for s in sources]
    every = {t: np.arange(n) for t, n in sizes.items()}
    by_source, by_draw, by_rows = [], [], []
    for _ in range(draws):
        picked = [sources[i] for i in generator.integers(len(sources), size=len(sources))]
        by_source.append(mean([(s, draws_of[s]) for s in picked], every))
        resampled = [
            (s, [draws_of[s][i] for i in generator.integers(len(draws_of[s]), size=len(draws_of[s]))]) for s in sources
        ]
        by_draw.append(mean(resampled, every))
        by_rows.append(mean(given, {t: generator.integers(n, size=n) for t, n in sizes.items()}))
    return mean(given, every), float(np.std(by_source)), float(np.std(by_draw)), float(np.std(by_rows))


def study(
    seed: int, *, sources: int, draws: int, rows: int, source_sd: float, draw_sd: float, row_sd: float = 0.3
) -> list[tuple[str, int, str, np.ndarray]]:
    """Differences with mean 0.02: every source is a target of the others, tested on the target's own rows."""
    generator = np.random.default_rng(seed)
    names = [f"domain{i}" for i in range(sources)]
    row_effect = {t: generator.normal(scale=row_sd / 2, size=rows) for t in names}
    cells = []
    for source in names:
        of_source = source_sd * generator.normal()
        for draw in range(draws):
            of_draw = draw_sd * generator.normal()
            for target in names:
                if target != source:
                    noise = generator.normal(scale=row_sd, size=rows)
                    cells.append((source, draw, target, 0.02 + of_source + of_draw + row_effect[target] + noise))
    return cells


def test_bootstrap_groups_equals_plain_loops() -> None:
    cells = study(1, sources=4, draws=3, rows=50, source_sd=0.03, draw_sd=0.03)
    estimate, by_source, by_draw, by_rows = slow_group_errors(cells, draws=1500)
    sources, draws = bootstrap_groups(cells), bootstrap_groups(cells, "draws")
    assert sources.estimate == draws.estimate == pytest.approx(estimate)
    for found, models, freedom in ((sources, math.sqrt(4 / 3) * by_source, 3), (draws, math.sqrt(3 / 2) * by_draw, 8)):
        variance = models**2 + by_rows**2
        pooled = variance**2 / (models**4 / freedom)  # Satterthwaite 1946, with the rows' variance known
        half = stats.t.ppf(0.975, pooled) * math.sqrt(variance)
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_bootstrap_groups_weighs_draws_inside_sources_and_targets_inside_draws() -> None:
    cells = [
        ("a", 0, "x", [1.0, 0.0]),
        ("a", 0, "y", [0.0]),
        ("a", 1, "x", [1.0, 1.0]),
        ("b", 0, "y", [-1.0]),
    ]
    # a: mean of draws (0.5 + 0) / 2 and 1; b: -1.
    assert bootstrap_groups(cells).estimate == pytest.approx(((0.25 + 1) / 2 - 1) / 2)


@pytest.mark.parametrize(
    ("over", "design", "widest"),
    [
        ("sources", {"sources": 4, "draws": 3, "rows": 100, "source_sd": 0.03, "draw_sd": 0.02}, 0.985),
        ("sources", {"sources": 4, "draws": 5, "rows": 400, "source_sd": 0.0, "draw_sd": 0.03}, 0.985),
        ("sources", {"sources": 2, "draws": 1, "rows": 400, "source_sd": 0.03, "draw_sd": 0.0}, 0.985),
        ("draws", {"sources": 4, "draws": 3, "rows": 100, "source_sd": 0.0, "draw_sd": 0.04}, 0.985),
        ("draws", {"sources": 2, "draws": 5, "rows": 60, "source_sd": 0.0, "draw_sd": 0.0}, 1.0),
    ],
)
def test_bootstrap_groups_covers(over: str, design: dict, widest: float) -> None:
    intervals = [bootstrap_groups(study(trial, **design), over) for trial in range(400)]
    inside = sum(interval.low <= 0.02 <= interval.high for interval in intervals) / len(intervals)
    assert 0.93 <= inside <= widest  # 95 % less two standard errors of 400 trials; see "a little too wide"


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("freedom", [1, 2, 3, 7])
def test_grouped_intervals_hold_the_truth_as_often_as_they_say(freedom: int, ratio: float) -> None:
    """Simulated: a model error estimated with few degrees of freedom beside a row error that is known."""
    generator = np.random.default_rng(freedom)
    trials = 6000
    estimates = generator.normal(scale=math.hypot(ratio, 1.0), size=trials)
    errors = ratio * np.sqrt(generator.chisquare(freedom, trials) / freedom)
    cases = [GroupedDifference(e, m, freedom, 1.0) for e, m in zip(estimates.tolist(), errors.tolist(), strict=True)]
    intervals = [case.interval for case in cases]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.93 < covered < (0.96 if freedom >= 3 else 0.995)
    rejected = np.mean([case.p_value < 0.05 for case in cases[:500]])
    assert rejected == pytest.approx(1 - np.mean([i.low <= 0 <= i.high for i in intervals[:500]]))


def test_a_source_is_one_piece_of_evidence_however_many_targets_it_has() -> None:
    # The sources differ, rows do not: repeating targets must not shrink the interval.
    few = [(s, 0, "t0", [v] * 5) for s, v in [("a", 0.0), ("b", 0.02), ("c", 0.06)]]
    many = [(s, d, f"t{t}", v) for (s, d, _, v), t in itertools.product(few, range(10))]
    one, ten = bootstrap_groups(few), bootstrap_groups(many)
    assert ten.high - ten.low == pytest.approx(one.high - one.low)


def test_rows_are_shared_by_all_cells_of_a_target() -> None:
    # Cells that differ only by shared rows: the interval is that of the rows once, not of rows x cells.
    values = np.random.default_rng(2).normal(size=400)
    cells = [(s, 0, "t", values) for s in "abcdefgh"]
    interval = bootstrap_groups(cells)
    assert interval.standard_error == pytest.approx(values.std() / 20, rel=0.05)


@pytest.mark.parametrize(
    ("cells", "over", "message"),
    [
        ([], "sources", "at least one cell"),
        ([("a", 0, "t", [1.0])], "sources", 'over="draws"'),
        ([("a", 0, "t", [1.0]), ("b", 0, "t", [1.0])], "draws", "2 of 2 sources have one draw"),
        ([("a", 0, "t", [1.0]), ("b", 0, "t", [1.0, 0.0])], "sources", "expected the 1 rows of that target"),
        ([("a", 0, "t", [1.0]), ("a", 0, "t", [1.0])], "sources", "is there twice"),
    ],
)
def test_designs_that_say_nothing_are_refused(cells: list, over: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bootstrap_groups(cells, over)


def test_smallest_detectable_is_found_with_its_power() -> None:
    error = 0.7
    true = smallest_detectable(error, power=0.8)
    found = np.abs(np.random.default_rng(0).normal(true, error, size=100_000)) > 1.959964 * error
    assert found.mean() == pytest.approx(0.8, abs=0.006)
    assert smallest_detectable(error, power=0.9) > true


def test_the_p_value_goes_with_the_interval() -> None:
    """One test without row noise is Student's, one without model noise is the normal test; mixed, p = 0.05 at 95 %."""
    only_models = GroupedDifference(0.02, 0.008, 3, 0.0)
    assert only_models.p_value == pytest.approx(2 * stats.t.sf(0.02 / 0.008, 3), abs=1e-9)
    only_rows = GroupedDifference(-0.02, 0.0, 1, 0.009)
    assert only_rows.p_value == pytest.approx(2 * stats.norm.sf(0.02 / 0.009), abs=1e-9)
    for estimate in (0.001, 0.02, 0.05, 0.2):
        found = GroupedDifference(estimate, 0.01, 4, 0.012)
        assert found.interval.within_noise == (found.p_value >= 0.05)
        few = GroupedDifference(estimate, 0.01, 1, 0.012)
        assert few.interval.within_noise == (few.p_value >= 0.05)
    for freedom in (1, 2, 3, 4, 40):
        half = GroupedDifference(0.0, 0.01, freedom, 0.012).interval.high
        assert GroupedDifference(half, 0.01, freedom, 0.012).p_value == pytest.approx(0.05, abs=1e-9)
    assert GroupedDifference(0.03, 1e-300, 4, 0.012).p_value == pytest.approx(2 * stats.norm.sf(2.5))
    assert GroupedDifference(0.0, 0.01, 4, 0.0).p_value == 1.0
    assert GroupedDifference(0.0, 0.0, 4, 0.0).p_value == 1.0


def test_a_claim_about_these_models_alone_needs_no_second_draw() -> None:
    rng = np.random.default_rng(0)
    differences = rng.choice([-1.0, 0.0, 0.0, 1.0], size=400)
    found = grouped_difference([("books", 0, "dvd", differences)], "rows")
    resampled = resampled_means(differences, 20_000, rng)
    assert found.row_error == pytest.approx(resampled.std(), rel=0.03)
    assert found.estimate == pytest.approx(differences.mean())
    with pytest.raises(InputError, match="one source"):
        grouped_difference([("books", 0, "dvd", differences)])
