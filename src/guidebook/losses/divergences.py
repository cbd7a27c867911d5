"""Divergences: label-free distances between two sets of rows, and the loss that brings two domains together."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Concatenate, Literal, ParamSpec

import torch
from torch import Tensor, nn

from guidebook.adapters.placement import layers_to_use
from guidebook.data.streams import Stream, require_rows
from guidebook.errors import InputError, RunError, nearest
from guidebook.losses.contract import Counts, Facts, Reads, View
from guidebook.tasks.heads import pool

Settings = ParamSpec("Settings")
LEAST_ROWS = 32
"""Fewer rows than this, and a divergence measures which rows were drawn."""
COLLAPSED = 2.0
"""Rows of a lower effective rank have become one point, or nearly."""
RANK = "effective_rank"
"""The part of a divergence's log that holds it."""


def in_float32(
    formula: Callable[Concatenate[Tensor, Tensor, Settings], Tensor],
) -> Callable[Concatenate[Tensor, Tensor, Settings], Tensor]:
    """Return the formula with autocast off and half-precision rows widened: in bf16 differences of rows cancel."""

    @functools.wraps(formula)
    def exact(source: Tensor, target: Tensor, /, *args: Settings.args, **settings: Settings.kwargs) -> Tensor:
        half = source.dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(source.device.type, enabled=False):
            rows = (source.float(), target.float()) if half else (source, target)
            return formula(*rows, *args, **settings)

    return exact


def _distances(one: Tensor, two: Tensor) -> Tensor:
    """Return Euclidean distances (S, R), not by way of |x|² + |y|² - 2xy, which cancels; zero has gradient zero."""
    return torch.cdist(one, two, compute_mode="donot_use_mm_for_euclid_dist")


@in_float32
def mmd(
    source: Tensor, target: Tensor, /, *, factors: Sequence[float] = (0.5, 1.0, 2.0), unbiased: bool = False
) -> Tensor:
    """Return the squared maximum mean discrepancy under a sum of Gaussian kernels exp(-d² / (2 σ²)).

    Each σ² is a factor times the mean squared distance of all pairs of the pooled rows (S + R, H), taken as a
    constant: without that, the gradient could shrink the loss by stretching the kernel.

    Args:
        source: (S, H) rows.
        target: (R, H) rows.
        factors: Of the mean squared distance, one for each kernel.
        unbiased: False (biased): in [0, 2 * kernels), above 0 for equal distributions by about 1 / S. True: rows are
            not compared with themselves; right on average, sometimes negative, and what training uses, see
            `TRAINED_ON`.

    Reference: Gretton et al. 2012, A Kernel Two-Sample Test, JMLR 13, equations 3 and 5; Long et al. 2015, Learning
        Transferable Features with Deep Adaptation Networks, ICML.
    Differs: kernels are summed with equal weights, not with optimised ones.

    >>> rows = torch.tensor([[0.0], [1.0]])
    >>> float(mmd(rows, rows)), float(mmd(rows, rows + 9)) > 1
    (0.0, True)
    """
    rows = torch.cat([source, target])
    squared = _distances(rows, rows).pow(2)  # (S + R, S + R)
    mean = squared.detach().mean().clamp(min=torch.finfo(rows.dtype).tiny)
    kernel = torch.stack([torch.exp(-squared / (2 * factor * mean)) for factor in factors]).sum(0)
    count = len(source)
    within = [kernel[:count, :count], kernel[count:, count:]]
    means = [_mean_without_diagonal(block) if unbiased else block.mean() for block in within]
    return means[0] + means[1] - 2 * kernel[:count, count:].mean()


def _mean_without_diagonal(block: Tensor) -> Tensor:
    count = len(block)
    return (block.sum() - block.diagonal().sum()) / (count * (count - 1))


@in_float32
def linear_mmd(source: Tensor, target: Tensor, /, *, unbiased: bool = False) -> Tensor:
    """Return the squared distance of the two means: the maximum mean discrepancy under the kernel x·y.

    Args:
        source: (S, H) rows.
        target: (R, H) rows.
        unbiased: False (biased): at least 0, above it for equal distributions by the variance of the two means. True:
            less that variance, which is the mean of x·y over different rows; right on average, sometimes negative.

    Reference: Gretton et al. 2012, A Kernel Two-Sample Test, JMLR 13, equations 3 and 5.
    """
    squared = (source.mean(0) - target.mean(0)).pow(2).sum()
    if not unbiased:
        return squared
    return squared - sum(rows.var(0).sum() / len(rows) for rows in (source, target))


@in_float32
def coral(source: Tensor, target: Tensor, /, *, unbiased: bool = False) -> Tensor:
    """Return the squared Frobenius distance of the two covariances, divided by 4 H².

    The division makes it orders of magnitude smaller than the others: it needs a weight of its own.

    Args:
        source: (S, H) rows, with `unbiased` at least four.
        target: (R, H) rows, with `unbiased` at least four.
        unbiased: False (biased): at least 0, above it for equal distributions. True: tr Σ² of each domain and
            tr Σₛ Σₜ are estimated from different rows; right on average, sometimes negative.

    Reference: Sun and Saenko 2016, Deep CORAL, ECCV Workshops, equation 1; unbiased: Li and Chen 2012, Two Sample Tests
        for High-Dimensional Covariance Matrices, Annals of Statistics 40, section 2.
    Differs: the paper trains on the biased form.
    """
    if unbiased:
        one, two = (rows - rows.mean(0) for rows in (source, target))
        across = (one @ two.T).pow(2).sum() / ((len(one) - 1) * (len(two) - 1))  # tr Cₛ Cₜ
        distance = _squared_covariance(one) + _squared_covariance(two) - 2 * across
    else:
        distance = (_covariance(source) - _covariance(target)).pow(2).sum()  # (H, H)
    return distance / (4 * source.shape[1] ** 2)


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / (len(rows) - 1)


def _squared_covariance(centred: Tensor) -> Tensor:
    """Return the unbiased estimate of tr Σ² from centred rows (N, H): tr C² counts products of a row with itself.

    Reference: Himeno and Yamada 2014, Estimations for some functions of covariance matrix in high dimension under
        non-normality, Journal of Multivariate Analysis 130, equation 2.3: the mean of ((xᵢ - xⱼ)·(xₖ - xₗ))² / 4 over
        four different rows, without the loop.
    """
    count = len(centred)
    products = centred @ centred.T  # (N, N)
    own = products.diagonal()
    found = (count - 1) * (count - 2) * products.pow(2).sum() + own.sum().pow(2)
    found = found - count * (count - 1) * own.pow(2).sum()
    return found / ((count - 1) * count * (count - 2) * (count - 3))


@in_float32
def cmd(
    source: Tensor,
    target: Tensor,
    /,
    *,
    moments: int = 5,
    bounds: tuple[float, float] = (-1.0, 1.0),
    unbiased: bool = False,
) -> Tensor:
    """Return the central moment discrepancy: distances of means and of central moments up to order `moments`.

    Args:
        source: (S, H) rows, with `unbiased` at least 2 * `moments`.
        target: (R, H) rows, with `unbiased` at least 2 * `moments`.
        moments: The highest order.
        bounds: What the values lie between.
        unbiased: False (biased): the paper's sum of norms, at least 0, above it for equal distributions. True: the sum
            of *squared* norms, from two halves of the rows; right on average, sometimes negative.

    Reference: Zellinger et al. 2017, Central Moment Discrepancy for Domain-Invariant Representation Learning, ICLR.
    Differs: with `unbiased`, which is what training uses, norms are squared. A norm of a difference has no unbiased
        estimate, and its gradient has the same length however near zero it is. A squared norm has one: the product of
        the differences that two halves of the rows (every other row) show, each made of unbiased estimates of the
        central moments (Fisher's h-statistics).

    Raises:
        InputError: a value lies outside the bounds, which the moments are scaled by (looked for in the biased form
            alone: training squashes its rows first, and a GPU would be waited for in every layer).
    """
    low, high = bounds
    width = high - low
    if unbiased:
        halves = [_moments(source[start::2], moments) - _moments(target[start::2], moments) for start in (0, 1)]
        squares = (halves[0] * halves[1]).sum(1)  # (K, H) -> (K,)
        widths = [width ** (2 * order) for order in range(1, moments + 1)]
        return torch.stack([square / scale for square, scale in zip(squares, widths, strict=True)]).sum()
    least, most = torch.stack(torch.cat([source.detach(), target.detach()]).aminmax()).tolist()
    if least < low or most > high:
        raise InputError(
            f"cmd compares bounded rows, and the values go from {least:.3g} to {most:.3g}, outside {low} to {high}. "
            "Squash them first, for example with tanh, or give their bounds."
        )
    means = source.mean(0), target.mean(0)
    parts = [torch.linalg.vector_norm(means[0] - means[1]) / width]
    for order in range(2, moments + 1):
        one, two = ((rows - mean).pow(order).mean(0) for rows, mean in zip((source, target), means, strict=True))
        parts.append(torch.linalg.vector_norm(one - two) / width**order)
    return torch.stack(parts).sum()


def _moments(rows: Tensor, most: int) -> Tensor:
    """Return unbiased estimates of the mean and of the central moments of order 2 to `most`: (N, H) -> (most, H).

    That of order k is the mean of (xᵢ - x_j1) … (xᵢ - x_jk) over different rows i and j1 … jk. Products of different
    rows are made of power sums alone, with Newton's identities.
    """
    count, mean = len(rows), rows.mean(0)
    centred = rows - mean  # the estimates stay the same, powers stay small, and the first power sum is zero
    powers = [centred.pow(order).sum(0) for order in range(most + 1)]
    products = [torch.ones_like(mean), torch.zeros_like(mean)]  # per order: summed products of that many different rows
    found = [mean]
    for order in range(2, most + 1):
        terms = [(-1) ** (i - 1) * products[order - i] * powers[i] for i in range(2, order + 1)]
        products.append(torch.stack(terms).sum(0) / order)
        parts = [m for m in range(order + 1) if 1 not in (m, order - m)]
        factors = [
            (-1) ** m * sum(math.perm(order, n) / math.perm(count, n + 1) for n in range(m, order + 1)) for m in parts
        ]
        terms = [factor * products[m] * powers[order - m] for m, factor in zip(parts, factors, strict=True)]
        found.append(torch.stack(terms).sum(0))
    return torch.stack(found)


@in_float32
def energy(source: Tensor, target: Tensor, /, *, unbiased: bool = False) -> Tensor:
    """Return the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, at least 0, without any bandwidth.

    With `unbiased`, rows are not compared with themselves: right on average, and sometimes negative.

    Reference: Székely and Rizzo 2013, Energy statistics, Journal of Statistical Planning and Inference 143.
    """
    within = [_distances(rows, rows) for rows in (source, target)]
    means = [_mean_without_diagonal(block) if unbiased else block.mean() for block in within]
    return 2 * _distances(source, target).mean() - means[0] - means[1]


DIVERGENCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"mmd": mmd, "linear_mmd": linear_mmd, "coral": coral, "cmd": cmd, "energy": energy}
)
TRAINED_ON: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "mmd": functools.partial(mmd, unbiased=True),
        "linear_mmd": functools.partial(linear_mmd, unbiased=True),
        "coral": functools.partial(coral, unbiased=True),
        "cmd": functools.partial(cmd, unbiased=True),
        "energy": functools.partial(energy, unbiased=True),
    }
)
"""What a loss trains on: unbiased estimates. The biased ones are positive even for equal distributions, and that excess
falls when all rows shrink together. So step by step they pull both domains into one point, also when they are equal
already, and with a bandwidth that follows the rows (mmd) the pull never ends; the task does not hold against that."""
SQUASHED = frozenset({"cmd"})
"""Divergences that assume bounded values: their rows go through tanh first."""


@torch.no_grad()
def effective_rank(rows: Tensor) -> Tensor:
    """Return exp of the entropy of the singular values of rows (..., N, H) as shares of their sum, 1..min(N, H).

    Rows are not centred, so that rows that all became one point have rank 1, as rows on one line through 0 have.

    Reference: Roy and Vetterli 2007, The effective rank, EUSIPCO; Garrido et al. 2023, RankMe, ICML.

    >>> round(float(effective_rank(torch.eye(4))), 3), round(float(effective_rank(torch.ones(4, 4))), 3)
    (4.0, 1.0)
    """
    with torch.autocast(rows.device.type, enabled=False):
        values = _singular_values(rows) if rows.device.type == "cuda" else torch.linalg.svdvals(rows.float())
        shares = values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
        return torch.exp(torch.special.entr(shares).sum(-1))


def _singular_values(rows: Tensor) -> Tensor:
    """Return those of rows (..., N, H) by way of rows · rowsᵀ, in float64 since that squares them.

    A GPU is slow at decomposing so small a matrix, and a square of at most N by N is cheap on a processor.
    """
    wide = rows.double() if rows.shape[-2] <= rows.shape[-1] else rows.double().mT
    squares: Tensor = torch.linalg.eigvalsh((wide @ wide.mT).cpu())
    return squares.clamp(min=0).sqrt().float().to(rows.device)


@dataclass(frozen=True)
class Divergence:
    """A divergence between mean-pooled rows of two domains, summed over layers.

    Both streams are pools of unlabelled texts: labelled rows and pools of one domain may differ in form, and a
    divergence would align the form. Every step compares equally many rows of both; padding is not pooled.

    Raises:
        InputError: an unknown divergence, too few rows in a step or in a stream.
    """

    source: Stream
    target: Stream
    name: str = "mmd"
    which: str | tuple[int, ...] = "all"
    """Layers that are compared: all, all but last, top N, bottom N, or a list counted from 0."""
    rows: int = LEAST_ROWS
    """Rows of each domain in a step."""
    least_rank: float = 0.0
    """The stage fails when the effective rank of the compared rows falls below this in a layer; 0: never."""

    counts: ClassVar[Counts] = "batches"
    length_in: ClassVar[Literal["tokens", "rows"]] = "tokens"
    layers: ClassVar[bool] = True
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})

    def __post_init__(self) -> None:
        if self.name not in DIVERGENCES:
            raise InputError(
                f"unknown divergence {self.name!r}.{nearest(self.name, DIVERGENCES)} Known: {', '.join(DIVERGENCES)}."
            )
        if self.rows < LEAST_ROWS:
            raise InputError(f"A divergence of {self.rows} rows is mostly noise. Compare at least {LEAST_ROWS}.")
        for stream in (self.source, self.target):
            require_rows(stream, self.rows)

    @property
    def reads(self) -> Sequence[Reads]:
        """Both pools, equally many rows."""
        return (Reads(self.source, rows=self.rows), Reads(self.target, rows=self.rows))

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """None; the layers are checked against the base's."""
        layers_to_use(self.which, facts.layers, "the divergence's layers")
        return {}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the divergence summed over the layers, and the lowest effective rank of a layer's rows.

        Raises:
            InputError: the step was cut into parts that are too small to compare.
            RunError: the rows collapsed, which is the optimum of a divergence that nothing else holds against.
        """
        source, target = views
        if (found := min(len(view.hidden) for view in views)) < LEAST_ROWS:
            raise InputError(
                f"train.micro_batches cuts the {self.rows} rows that a divergence compares into sets of {found}. "
                f"Compare at least {LEAST_ROWS} in each: raise method.rows, or set train.micro_batches to 1."
            )
        parts, pooled = [], []
        for layer in layers_to_use(self.which, len(source.states) - 1):
            rows = [pool(view.states[layer + 1], view.mask, "mean") for view in (source, target)]  # (S, H), (R, H)
            pooled.append(torch.cat(rows).detach())
            rows = [row.tanh() for row in rows] if self.name in SQUASHED else rows
            parts.append(TRAINED_ON[self.name](rows[0], rows[1]))
        rank = effective_rank(torch.stack(pooled)).min()  # of all layers at once: a GPU is waited for once a step
        if self.least_rank and float(rank) < self.least_rank:
            raise RunError(
                f"The compared rows have collapsed: their effective rank is {float(rank):.2f}, below "
                f"{self.least_rank}, {source.fraction:.0%} through the stage. Equal rows have no divergence and carry "
                "nothing. Lower the learning rate, shorten the stage (train.fuse.tokens), or train the divergence "
                "together with the task (udapter_joint, joint)."
            )
        return {"loss": torch.stack(parts).sum(), RANK: rank}


def collapse(losses: Mapping[str, Mapping[str, float]]) -> str:
    """Return what is to be said of a trained stage whose compared rows became one point, or "".

    Args:
        losses: First and last mean of every named part of its loss.
    """
    ranks = [value for name, value in losses.items() if name.endswith(f"/{RANK}")]
    fell = [rank for rank in ranks if rank["last"] < COLLAPSED <= rank["first"]]
    if not fell:
        return ""
    return (
        f"the divergence pulled all rows into one point: their effective rank fell from {fell[0]['first']:.1f} to "
        f"{fell[0]['last']:.1f}, and such rows tell the task nothing. Lower the learning rate, or the divergence's "
        "weight."
    )
