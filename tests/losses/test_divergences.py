"""Every divergence against a slow loop written from its paper, and the traps of using one as a loss."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens
from guidebook.errors import InputError, RunError
from guidebook.losses.contract import View
from guidebook.losses.divergences import (
    DIVERGENCES,
    TRAINED_ON,
    Divergence,
    cmd,
    collapse,
    coral,
    effective_rank,
    energy,
    linear_mmd,
    mmd,
)


def rows(seed: int, count: int, width: int = 3, shift: float = 0.0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


SOURCE, TARGET = rows(0, 7), rows(1, 5, shift=0.7)  # unequal sizes


def distance(one: Tensor, two: Tensor) -> float:
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(one, two, strict=True)))


@pytest.mark.parametrize("unbiased", [False, True])
def test_mmd(unbiased: bool) -> None:
    every = [*SOURCE, *TARGET]
    mean = sum(distance(a, b) ** 2 for a in every for b in every) / len(every) ** 2

    def kernel(a: Tensor, b: Tensor) -> float:
        return sum(math.exp(-(distance(a, b) ** 2) / (2 * factor * mean)) for factor in (0.5, 1.0, 2.0))

    def within(group: Tensor) -> float:
        pairs = [(i, j) for i in range(len(group)) for j in range(len(group)) if not (unbiased and i == j)]
        return sum(kernel(group[i], group[j]) for i, j in pairs) / len(pairs)

    across = sum(kernel(a, b) for a in SOURCE for b in TARGET) / (len(SOURCE) * len(TARGET))
    slow = within(SOURCE) + within(TARGET) - 2 * across
    assert float(mmd(SOURCE, TARGET, unbiased=unbiased)) == pytest.approx(slow, rel=1e-9)


def pairs_of(one: Tensor, two: Tensor, same: bool) -> list[tuple[Tensor, Tensor]]:
    return [(a, b) for i, a in enumerate(one) for j, b in enumerate(two) if not (same and i == j)]


def test_unbiased_linear_mmd_is_the_mean_over_different_rows() -> None:
    def mean(one: Tensor, two: Tensor, same: bool) -> float:
        products = [float((a * b).sum()) for a, b in pairs_of(one, two, same)]
        return sum(products) / len(products)

    slow = mean(SOURCE, SOURCE, True) + mean(TARGET, TARGET, True) - 2 * mean(SOURCE, TARGET, False)
    assert float(linear_mmd(SOURCE, TARGET, unbiased=True)) == pytest.approx(slow, rel=1e-9)


def test_unbiased_coral_is_the_mean_over_four_different_rows() -> None:
    """Li and Chen 2012: tr Σ² as the mean of ((xᵢ - xⱼ)·(xₖ - xₗ))² / 4 over all four different rows."""

    def within(group: Tensor) -> float:
        fours = list(itertools.permutations(group, 4))
        return sum(float(((a - b) * (c - d)).sum()) ** 2 for a, b, c, d in fours) / (4 * len(fours))

    pairs = [(a - b, c - d) for a, b in pairs_of(SOURCE, SOURCE, True) for c, d in pairs_of(TARGET, TARGET, True)]
    across = sum(float((one * two).sum()) ** 2 for one, two in pairs) / (4 * len(pairs))
    slow = (within(SOURCE) + within(TARGET) - 2 * across) / (4 * 3**2)
    assert float(coral(SOURCE, TARGET, unbiased=True)) == pytest.approx(slow, rel=1e-9)


def test_unbiased_cmd_is_the_product_of_what_two_halves_show() -> None:
    source, target = rows(0, 13).tanh(), rows(1, 11).tanh()

    def moment(group: Tensor, order: int) -> np.ndarray:
        """The mean over different rows of (xᵢ - x_j1) … (xᵢ - x_jk), of which each factor has its own j."""
        if order == 1:
            return group.mean(0).numpy()
        found = [
            np.prod([(x[0] - other).numpy() for other in x[1:]], axis=0)
            for x in itertools.permutations(group, order + 1)
        ]
        return np.mean(found, axis=0)

    slow = 0.0
    for order in range(1, 5):
        one, two = (moment(source[start::2], order) - moment(target[start::2], order) for start in (0, 1))
        slow += float((one * two).sum()) / 2 ** (2 * order)
    assert float(cmd(source, target, moments=4, unbiased=True)) == pytest.approx(slow, rel=1e-9)


def test_linear_mmd() -> None:
    slow = sum(
        (sum(float(r[h]) for r in SOURCE) / len(SOURCE) - sum(float(r[h]) for r in TARGET) / len(TARGET)) ** 2
        for h in range(3)
    )
    assert float(linear_mmd(SOURCE, TARGET)) == pytest.approx(slow, rel=1e-9)


def test_coral_is_its_own_formula() -> None:
    def covariance(group: Tensor) -> np.ndarray:
        ones = np.ones((1, len(group)))
        values = group.numpy()  # equation 2 of the paper, as it stands there
        return (values.T @ values - (ones @ values).T @ (ones @ values) / len(group)) / (len(group) - 1)

    slow = ((covariance(SOURCE) - covariance(TARGET)) ** 2).sum() / (4 * 3**2)
    assert float(coral(SOURCE, TARGET)) == pytest.approx(float(slow), rel=1e-9)


def test_cmd() -> None:
    source, target = SOURCE.tanh(), TARGET.tanh()

    def moment(group: Tensor, order: int) -> list[float]:
        mean = [sum(float(r[h]) for r in group) / len(group) for h in range(3)]
        if order == 1:
            return mean
        return [sum((float(r[h]) - mean[h]) ** order for r in group) / len(group) for h in range(3)]

    slow = sum(math.dist(moment(source, order), moment(target, order)) / 2**order for order in range(1, 6))
    assert float(cmd(source, target)) == pytest.approx(slow, rel=1e-9)
    with pytest.raises(InputError, match="outside -1"):
        cmd(SOURCE * 10, TARGET)


@pytest.mark.parametrize("unbiased", [False, True])
def test_energy(unbiased: bool) -> None:
    def within(group: Tensor) -> float:
        pairs = [(i, j) for i in range(len(group)) for j in range(len(group)) if not (unbiased and i == j)]
        return sum(distance(group[i], group[j]) for i, j in pairs) / len(pairs)

    across = sum(distance(a, b) for a in SOURCE for b in TARGET) / (len(SOURCE) * len(TARGET))
    slow = 2 * across - within(SOURCE) - within(TARGET)
    assert float(energy(SOURCE, TARGET, unbiased=unbiased)) == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize("sizes", [(32, 32), (33, 48)])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_what_is_trained_on_does_not_pull_equal_domains_into_one_point(name: str, sizes: tuple[int, int]) -> None:
    """The slope of a divergence along a common shrinking of all rows, over many draws of one skewed distribution."""
    slopes: dict[str, list[float]] = {"biased": [], "trained on": []}
    for draw in range(200):
        one, two = ((rows(2 * draw + i, size).exp() / 9).clamp(max=1) for i, size in enumerate(sizes))
        for which, table in (("biased", DIVERGENCES), ("trained on", TRAINED_ON)):
            scale = torch.ones((), dtype=torch.float64, requires_grad=True)
            if name == "cmd":  # its rows stay inside of the bounds
                table[name](one * (2 - scale), two * (2 - scale)).backward()
            else:
                table[name](one * scale, two * scale).backward()
            assert scale.grad is not None
            slopes[which].append(float(scale.grad) * (-1 if name == "cmd" else 1))
    error = {which: np.std(found) / math.sqrt(len(found)) for which, found in slopes.items()}
    assert np.mean(slopes["biased"]) > 10 * error["biased"]  # smaller rows, smaller divergence
    assert abs(np.mean(slopes["trained on"])) < 3 * error["trained on"]


@pytest.mark.parametrize("name", ["linear_mmd", "coral", "cmd"])
def test_unbiased_estimates_are_right_on_average_for_unequal_domains_too(name: str) -> None:
    """Against the squared distance of the two distributions' own moments: uniform rows, the target's shrunk."""
    shrink, width = 0.6, 3
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(600):
        one, two = (torch.rand(16, width, generator=generator, dtype=torch.float64) for _ in range(2))
        found.append(float(TRAINED_ON[name](one, two * shrink)))
    mean = (1 - shrink) / 2
    central = {2: 1 / 12, 3: 0.0, 4: 1 / 80, 5: 0.0}
    truth = {
        "linear_mmd": width * mean**2,
        "coral": width * (central[2] * (1 - shrink**2)) ** 2 / (4 * width**2),
        "cmd": width * mean**2 / 4 + width * sum((m * (1 - shrink**k)) ** 2 / 4**k for k, m in central.items()),
    }[name]
    assert abs(np.mean(found) - truth) < 3 * np.std(found) / math.sqrt(len(found))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_equal_sets_have_none_and_gradients_are_finite(name: str) -> None:
    one, two = rows(0, 6).tanh().requires_grad_(), rows(0, 6).tanh()
    value = DIVERGENCES[name](one, two)
    assert float(value.detach()) == pytest.approx(0, abs=1e-7)
    value.backward()
    assert one.grad is not None
    assert torch.isfinite(one.grad).all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_autocast_changes_nothing(name: str) -> None:
    one, two = (SOURCE.tanh().float() + 0.01, TARGET.tanh().float() * 0.9)
    plain = DIVERGENCES[name](one, two)
    with torch.autocast("cpu", torch.bfloat16):
        inside = DIVERGENCES[name](one, two)
    assert inside.dtype == torch.float32
    assert torch.equal(plain, inside)


def test_the_bandwidth_is_a_constant_of_the_gradient() -> None:
    """Rows that are stretched away from each other must not look nearer because the kernel stretches with them."""
    one = SOURCE.clone().requires_grad_()
    mmd(one, TARGET).backward()
    every = torch.cat([SOURCE, TARGET])
    mean = torch.cdist(every, every).pow(2).mean()
    two = SOURCE.clone().requires_grad_()
    together = torch.cat([two, TARGET])
    squared = (together[:, None] - together[None]).pow(2).sum(-1)
    kernel = sum(torch.exp(-squared / (2 * factor * mean)) for factor in (0.5, 1.0, 2.0))
    assert isinstance(kernel, Tensor)
    (kernel[:7, :7].mean() + kernel[7:, 7:].mean() - 2 * kernel[:7, 7:].mean()).backward()
    assert one.grad is not None
    assert two.grad is not None
    torch.testing.assert_close(one.grad, two.grad)


def test_effective_rank_falls_to_one_where_rows_collapse() -> None:
    spread, point = rows(3, 40, 8).float(), torch.ones(40, 8) + 1e-6 * rows(4, 40, 8).float()
    assert float(effective_rank(spread)) > 5
    assert float(effective_rank(point)) == pytest.approx(1, abs=1e-2)


def stream(name: str, count: int = 40) -> Stream:
    offsets = np.arange(count + 1, dtype=np.int64) * 3
    return Stream(
        name, Tokens(np.ones(3 * count, np.int32), offsets, name), np.zeros(count, np.int64), (name,), np.ones(1)
    )


def view(states: Tensor, mask: Tensor) -> View:
    nothing = torch.zeros(0)
    return View(states, mask, nothing, nothing, nothing, nothing, (states, states * 2), {}, 0.5)


def views(garbage: float = 0.0, spread: float = 1.0) -> list[View]:
    found = []
    for seed in (5, 6):
        states = spread * rows(seed, 32 * 4, 8).float().reshape(32, 4, 8) + (1 - spread)
        mask = torch.ones(32, 4, dtype=torch.bool)
        mask[:, 3] = False
        states[:, 3] = garbage
        found.append(view(states, mask))
    return found


def test_padding_is_not_pooled_and_layers_are_summed() -> None:
    loss = Divergence(stream("a"), stream("b"), "linear_mmd", which="all")
    clean, padded = loss(views()), loss(views(garbage=1e6))
    assert torch.equal(clean["loss"], padded["loss"])
    source, target = (v.hidden[:, :3].mean(1) for v in views())
    slow = linear_mmd(2 * source, 2 * target, unbiased=True)  # the one layer above the embeddings
    torch.testing.assert_close(clean["loss"], slow)


def test_a_collapse_fails_loudly() -> None:
    loss = Divergence(stream("a"), stream("b"), "mmd", which="all", least_rank=2.0)
    assert float(loss(views())["effective_rank"]) > 2
    with pytest.raises(RunError, match="collapsed"):
        loss(views(spread=1e-5))


def test_what_is_said_of_rows_that_became_one_point() -> None:
    def losses(first: float, last: float) -> dict[str, dict[str, float]]:
        return {"task": {"first": 1.1, "last": 1.1}, "divergence/effective_rank": {"first": first, "last": last}}

    assert "from 12.4 to 1.0" in collapse(losses(12.42, 1.04))
    for first, last in ((12.4, 2.0), (12.4, 8.0), (1.5, 1.2)):  # the last: one point before anything was trained
        assert not collapse(losses(first, last))
    assert not collapse({"task": {"first": 1.1, "last": 0.1}})
    assert not collapse({})


def test_both_pools_are_read_in_equal_and_sufficient_numbers() -> None:
    loss = Divergence(stream("a", 40), stream("b", 90))
    assert [read.rows for read in loss.reads] == [32, 32]
    with pytest.raises(InputError, match="at least 32"):
        Divergence(stream("a"), stream("b"), rows=8)
    with pytest.raises(InputError, match="has 20 texts"):
        Divergence(stream("a", 20), stream("b"))
    with pytest.raises(InputError, match="Did you mean 'coral'"):
        Divergence(stream("a"), stream("b"), "corral")


def test_micro_batches_too_small_to_compare_are_refused() -> None:
    small: list[Any] = [view(v.hidden[:8], v.mask[:8]) for v in views()]
    with pytest.raises(InputError, match="micro_batches"):
        Divergence(stream("a"), stream("b"), which="all")(small)


def test_the_biased_mmd_is_never_negative_and_the_unbiased_one_is() -> None:
    pairs = [(rows(2 * draw, 32), rows(2 * draw + 1, 32)) for draw in range(20)]
    biased, unbiased = ([float(mmd(*pair, unbiased=flag)) for pair in pairs] for flag in (False, True))
    assert min(biased) > 0.01  # two draws of one distribution: it never reaches 0
    assert min(unbiased) < 0
    assert abs(np.mean(unbiased)) < 0.1 * np.mean(biased)


def test_coral_is_orders_of_magnitude_smaller_than_mmd() -> None:
    source, target = rows(0, 64, width=256), rows(1, 64, width=256, shift=0.5)
    source, target = source / 5, target / 5
    assert float(mmd(source, target)) > 1000 * float(coral(source, target))


def test_cmd_as_a_loss_squashes_its_rows() -> None:
    source, target = (v.hidden[:, :3].mean(1) for v in views())
    found = Divergence(stream("a"), stream("b"), "cmd", which="all")(views())["loss"]
    torch.testing.assert_close(found, cmd((2 * source).tanh(), (2 * target).tanh(), unbiased=True))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_rows_in_half_precision_are_widened_before_anything_is_subtracted(name: str) -> None:
    one, two = SOURCE.tanh().bfloat16(), TARGET.tanh().bfloat16()
    found = DIVERGENCES[name](one, two)
    assert found.dtype == torch.float32
    assert torch.equal(found, DIVERGENCES[name](one.float(), two.float()))


def test_layers_are_chosen_counted_from_the_first_above_the_embeddings_and_summed() -> None:
    def deep(found: View) -> Any:
        states = tuple(found.hidden * factor for factor in (100.0, 1.0, 2.0, 3.0))  # embeddings, then three layers
        return View(found.hidden, found.mask, *[torch.zeros(0)] * 4, states, {}, 0.5)

    source, target = (found.hidden[:, :3].mean(1) for found in views())
    each = [factor**2 * float(linear_mmd(source, target, unbiased=True)) for factor in (1.0, 2.0, 3.0)]
    for which, layers in (("all", (0, 1, 2)), ("top 2", (1, 2)), ("all but last", (0, 1)), ((1,), (1,))):
        loss = Divergence(stream("a"), stream("b"), "linear_mmd", which=which)([deep(found) for found in views()])
        assert float(loss["loss"]) == pytest.approx(sum(each[layer] for layer in layers), rel=1e-5)


def test_states_in_half_precision_are_pooled_in_full() -> None:
    half: list[Any] = []
    whole: list[Any] = []
    for found in views():
        states = found.hidden.bfloat16()
        half.append(view(states, found.mask))
        whole.append(
            View(states.float(), found.mask, *[torch.zeros(0)] * 4, (states.float(), (states * 2).float()), {}, 0)
        )
    loss = Divergence(stream("a"), stream("b"), "energy", which="all")
    found, slow = loss(half), loss(whole)
    assert torch.equal(found["loss"], slow["loss"])
    assert torch.equal(found["effective_rank"], slow["effective_rank"])


def test_the_effective_rank_against_its_definition() -> None:
    """exp of the entropy of the shares of the singular values, which are the roots of the Gram matrix's eigenvalues."""
    group = rows(7, 9, 4)
    roots = [math.sqrt(value) for value in np.linalg.eigvalsh((group.T @ group).numpy())]
    shares = [root / sum(roots) for root in roots]
    slow = math.exp(-sum(share * math.log(share) for share in shares))
    assert float(effective_rank(group)) == pytest.approx(slow, rel=1e-5)
    layers = torch.stack([group, 2 * group.flip(0), group.exp()]).float()
    assert torch.equal(effective_rank(layers), torch.stack([effective_rank(layer) for layer in layers]))
    line = torch.arange(1.0, 10.0)[:, None] * torch.tensor([[1.0, -2.0, 3.0]])
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-3)
    assert float(effective_rank(torch.zeros(5, 3))) == pytest.approx(1, abs=1e-6)  # a collapse onto 0 is one too


@pytest.mark.parametrize("name", DIVERGENCES)
def test_both_domains_move_and_padding_does_not(name: str) -> None:
    """The gradient of the loss against that of the formula on rows that are pooled by hand."""
    found: list[Any] = [view(v.hidden.clone().requires_grad_(), v.mask) for v in views()]
    Divergence(stream("a"), stream("b"), name, which="all")(found)["loss"].backward()
    slow = [v.hidden.clone().requires_grad_() for v in views()]
    pooled = [2 * states[:, :3].sum(1) / 3 for states in slow]
    pooled = [row.tanh() for row in pooled] if name == "cmd" else pooled
    TRAINED_ON[name](*pooled).backward()
    for v, states in zip(found, slow, strict=True):
        assert v.hidden.grad is not None
        assert float(v.hidden.grad[:, :3].abs().min()) > 0
        assert not v.hidden.grad[:, 3].any()
        torch.testing.assert_close(v.hidden.grad, states.grad)
