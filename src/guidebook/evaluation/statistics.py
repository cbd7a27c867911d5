"""How sure a number is: intervals of accuracies and of differences between two models. All 95 %, two-sided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guidebook.errors import InputError

Z95 = NormalDist().inv_cdf(0.975)
Floats = NDArray[np.float64]
Cell = tuple[str, int, str, ArrayLike]
"""(source, draw, target, differences (R,)): per row of the target, score of one model minus score of the other."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, in the unit of the estimate."""

    estimate: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the interval of a difference covers zero."""
        return self.low <= 0 <= self.high

    @property
    def standard_error(self) -> float:
        """The standard error of a normal estimate with this interval's width."""
        return (self.high - self.low) / (2 * Z95)


FEW = 3
"""Degrees of freedom below which Welch and Satterthwaite's approximation covers too little."""


@dataclass(frozen=True)
class GroupedDifference:
    """A mean difference over many directions and the two kinds of chance in it.

    Its interval is Student's with the degrees of freedom of the summed variance. That holds the truth in 93.6 % of
    simulated cases or more from three degrees of freedom on (four sources), but in 87 % with one (two sources), where
    the model error may come out far too small. Below three the two half-widths are added as squares instead, each
    with its own quantile, which covers 95 % or more (up to 98.7 %).

    Reference: Satterthwaite 1946, An Approximate Distribution of Estimates of Variance Components, Biometrics
        Bulletin 2; Welch 1947, The Generalization of Student's Problem, Biometrika 34.
    """

    estimate: float
    model_error: float
    """Standard error from the trained models; 0 where the claim is about these models alone."""
    freedom: int
    """Degrees of freedom of the model error."""
    row_error: float
    """Standard error from the test rows."""

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        half = self._half_width(0.05)
        return Interval(self.estimate, self.estimate - half, self.estimate + half)

    @property
    def p_value(self) -> float:
        """The two-sided p-value that goes with the interval: the level at which it would just touch zero."""
        if self.estimate == 0:  # also where nothing scatters: two models with the same answers
            return 1.0
        if self._pooled_freedom is not None:
            return 2 * _tail(abs(self.estimate) / self._error, self._pooled_freedom)
        low, high = 0.0, 1.0
        for _ in range(60):  # the half-width falls as the level rises
            middle = (low + high) / 2
            if self._half_width(middle) > abs(self.estimate):
                low = middle
            else:
                high = middle
        return high

    @property
    def _error(self) -> float:
        return math.hypot(self.model_error, self.row_error)

    @property
    def _pooled_freedom(self) -> float | None:
        """Degrees of freedom of the summed variance, of which the rows' part is known well; None: too few to pool."""
        if self.freedom < FEW or not self.model_error:
            return None
        return self.freedom * min(self._error / self.model_error, 1e3) ** 4  # 1e12: the normal distribution

    def _half_width(self, level: float) -> float:
        if self._pooled_freedom is not None:
            return student(self._pooled_freedom, level) * self._error
        by_models = student(self.freedom, level) * self.model_error if self.model_error else 0.0
        by_rows = -NormalDist().inv_cdf(level / 2) * self.row_error if self.row_error else 0.0
        return math.hypot(by_models, by_rows)


def accuracy_interval(correct: ArrayLike) -> Interval:
    """Wilson's interval of an accuracy, from (N,) right or wrong.

    It stays inside 0..1 and keeps its coverage near 0 and 1, where estimate ± 1.96 standard errors does not.

    Raises:
        InputError: No rows.

    Reference:
        Wilson 1927; Brown, Cai & DasGupta 2001, Interval Estimation for a Binomial Proportion, equation 4.

    >>> interval = accuracy_interval([True] * 9 + [False])
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.596, 0.982)
    """
    right = np.asarray(correct, dtype=bool)
    if right.size == 0:
        raise InputError("An accuracy needs at least one row, found none.")
    return wilson(float(right.mean()), right.size)


def wilson(share: float, rows: float) -> Interval:
    """Wilson's interval of a share that so many rows show; the number of rows may be an effective one."""
    spread = Z95**2 / rows
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    # Exact at the ends: rounding may put the bound 1e-17 on the wrong side of an accuracy of 0 or 1.
    return Interval(share, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike, seed: int = 0, draws: int = 10_000) -> Interval:
    """Accuracy of a minus accuracy of b on the same N rows, with a paired bootstrap over the rows.

    Rows are not resampled one by one: a resample of N rows is a multinomial draw of how many fall into each of the
    cells {only a right, only b right, the same}, which has the same distribution and costs three numbers, not N.

    Args:
        correct_a: (N,) whether a was right.
        correct_b: (N,) whether b was right, on the same rows in the same order.
        seed: Seed of the resamples.
        draws: Number of resamples.

    Raises:
        InputError: No rows, or unequal numbers of rows.
    """
    right_a, right_b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if right_a.shape != right_b.shape or right_a.ndim != 1 or right_a.size == 0:
        raise InputError(
            f"A paired difference needs the same rows for both models, found {right_a.shape} and {right_b.shape}."
        )
    differences = right_a.astype(np.float64) - right_b
    means = resampled_means(differences, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(differences.mean()), float(low), float(high))


def resampled_means(values: ArrayLike, draws: int, generator: np.random.Generator) -> Floats:
    """(draws,) means of bootstrap resamples of `values` (N,), drawn as counts of each distinct value."""
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)  # (U,), (U,)
    return _drawn(distinct, counts, draws, generator) / float(counts.sum())


def resampled_sums(values: ArrayLike, draws: int, generator: np.random.Generator) -> Floats:
    """(draws, K) sums of bootstrap resamples of the rows of `values` (N, K), drawn as counts of each distinct row."""
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), axis=0, return_counts=True)  # (U, K), (U,)
    return _drawn(distinct, counts, draws, generator)


def _drawn(distinct: Floats, counts: NDArray[np.int64], draws: int, generator: np.random.Generator) -> Floats:
    total = int(counts.sum())
    slices = max(1, draws * len(distinct) // 4_000_000)  # at most 32 MB of counts at a time
    sizes = [len(part) for part in np.array_split(np.empty(draws), slices)]
    return np.concatenate([generator.multinomial(total, counts / total, size) @ distinct for size in sizes])


def bootstrap_groups(cells: Sequence[Cell], over: Literal["sources", "draws"] = "sources") -> Interval:
    """Mean difference over many directions, with a bootstrap over trained models and one over test rows.

    Targets weigh the same inside a draw, draws inside a source, sources in the mean. Two kinds of chance add up:

    - *models*: whole sources are resampled (`over="sources"`, a claim about new sources like these), or the draws
      inside each source (`over="draws"`, a claim about these sources with new samples of labels). A method that does
      not look at the target is one model per source and draw: its targets move together, they are no extra evidence.
    - *rows*: test rows are resampled inside each target. Every source and draw is tested on the same rows of a target,
      so one resample of the rows serves them all.

    Differs:
        Nothing is drawn. The bootstrap of a mean has a known standard error, reached with infinitely many resamples; a
        seed would only add noise. Percentiles of a bootstrap over few groups are too narrow, so the interval is
        estimate ± t sqrt(e_models² + e_rows²) with the standard error of n groups times sqrt(n/(n-1)) and Student's t,
        between 3.2 and 1.96 for 4 sources, see `GroupedDifference`. A source carries its draws with it: resampling
        these too would count their scatter twice (Davison & Hinkley 1997, Bootstrap Methods, section 3.8). What
        scatters by row and model alone is in both errors, so the interval is a little too wide where test rows are few.

    Args:
        cells: One per trained model and target. Rows of one target stand in the same order in all of its cells.
        over: What the interval speaks about, see above.

    Raises:
        InputError: No cells, a cell twice, unequal rows of one target, or nothing to resample (one source, one draw).
    """
    return grouped_difference(cells, over).interval


def grouped_difference(
    cells: Sequence[Cell], over: Literal["sources", "draws", "rows"] = "sources"
) -> GroupedDifference:
    """What `bootstrap_groups` makes its interval from, for tests beside it; "rows": a claim about these models alone.

    Raises:
        InputError: as `bootstrap_groups`.
    """
    groups, rows = _grouped(cells)
    estimate = float(np.mean([group.mean() for group in groups]))
    row_error = math.sqrt(sum(float(values.var()) / len(values) for values in rows.values()))
    if over == "rows":
        return GroupedDifference(estimate, 0.0, 1, row_error)
    model_error, freedom = _source_error(groups) if over == "sources" else _draw_error(groups)
    return GroupedDifference(estimate, model_error, freedom, row_error)


def smallest_detectable(standard_error: float, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided 5 % test finds with probability `power`, in the unit given.

    >>> round(smallest_detectable(0.5), 2)
    1.4
    """
    return (Z95 + NormalDist().inv_cdf(power)) * standard_error


def _grouped(cells: Sequence[Cell]) -> tuple[list[Floats], dict[str, Floats]]:
    """Per source the mean of each draw (D,); per target each row's sum (R,) whose mean is its part of the estimate."""
    if not cells:
        raise InputError("An interval over directions needs at least one cell (source, draw, target, differences).")
    table: dict[str, dict[int, dict[str, Floats]]] = defaultdict(lambda: defaultdict(dict))
    sizes: dict[str, int] = {}
    for source, draw, target, differences in cells:
        values = np.asarray(differences, dtype=np.float64)
        if target in table[source][draw]:
            raise InputError(f"Cell (source {source!r}, draw {draw}, target {target!r}) is there twice. Keep one.")
        if values.ndim != 1 or values.size == 0 or sizes.setdefault(target, values.size) != values.size:
            raise InputError(
                f"Cell (source {source!r}, draw {draw}, target {target!r}) has differences of shape {values.shape}, "
                f"expected the {sizes.get(target)} rows of that target, the same in all of its cells."
            )
        table[source][draw][target] = values
    rows = {target: np.zeros(size) for target, size in sizes.items()}
    for by_draw in table.values():
        for by_target in by_draw.values():
            for target, values in by_target.items():
                rows[target] += values / (len(table) * len(by_draw) * len(by_target))
    groups = [
        np.array([np.mean([values.mean() for values in by_target.values()]) for by_target in by_draw.values()])
        for by_draw in table.values()
    ]
    return groups, rows


def _source_error(groups: list[Floats]) -> tuple[float, int]:
    """Standard error of the mean over sources, resampled whole, and its degrees of freedom."""
    count = len(groups)
    if count < 2:
        raise InputError('Found one source; an interval over sources needs two. Ask for over="draws".')
    return float(np.std([group.mean() for group in groups], ddof=1)) / math.sqrt(count), count - 1


def _draw_error(groups: list[Floats]) -> tuple[float, int]:
    """Standard error of the mean over the given sources, draws resampled in each, and its degrees of freedom."""
    short = sum(len(group) < 2 for group in groups)
    if short:
        raise InputError(f"{short} of {len(groups)} sources have one draw; an interval over draws needs two of each.")
    variance = sum(float(group.var(ddof=1)) / len(group) for group in groups)
    return math.sqrt(variance) / len(groups), sum(len(group) - 1 for group in groups)


def student(freedom: float, level: float = 0.05) -> float:
    """The upper point of Student's t that a two-sided test at `level` needs."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, level / 2))


def _tail(value: float, freedom: float) -> float:
    """The chance that Student's t is above a value."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -value))
