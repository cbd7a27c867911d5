"""The critic behind its reversal: signs, strength over time, precision, learning rate, what it logs."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from test_divergences import rows, stream
from torch.nn import functional

from guidebook.errors import InputError
from guidebook.losses.adversarial import Adversarial, Critic, reverse_gradient
from guidebook.losses.contract import Facts, View
from guidebook.losses.schedules import ramp

FACTS = Facts(hidden_size=8, layers=2, pooling="mean", classes=2, head="linear", head_dropout=0.0, head_seed=0, seed=0)


def views(loss: Adversarial, fraction: float, modules: Any) -> list[View]:
    nothing = torch.zeros(0)
    found = []
    for seed in (1, 2):
        hidden = rows(seed, 32 * 3, 8).float().reshape(32, 3, 8).requires_grad_()
        mask = torch.ones(32, 3, dtype=torch.bool)
        found.append(View(hidden, mask, nothing, nothing, nothing, nothing, (), modules, fraction))
    return found


def teach(critic: Any, truth: torch.Tensor) -> None:
    """Let a critic learn by heart what it is told of the views' rows."""
    optimiser = torch.optim.Adam(critic.parameters(), lr=0.05)
    given = views(Adversarial(stream("a"), stream("b")), 0.0, {})
    hidden, mask = (torch.cat([getattr(view, name) for view in given]).detach() for name in ("hidden", "mask"))
    for _ in range(100):
        optimiser.zero_grad()
        functional.cross_entropy(critic(hidden, mask), truth).backward()
        optimiser.step()
    critic.zero_grad()


@pytest.mark.parametrize(("fraction", "knows"), [(0.0, True), (0.3, True), (1.0, True), (1.0, False)])
def test_the_rows_get_the_critics_gradient_reversed_by_the_ramp_and_the_critic_its_own(
    fraction: float, knows: bool
) -> None:
    truth = torch.tensor([0] * 32 + [1] * 32)
    loss = Adversarial(stream("a"), stream("b"))
    modules = loss.modules(FACTS)
    teach(modules["critic"], truth if knows else 1 - truth)
    seen = views(loss, fraction, modules)
    out = loss(seen)
    out["loss"].backward()
    plain = views(loss, fraction, modules)
    hidden = torch.cat([view.hidden for view in plain])
    critic: Any = modules["critic"]
    own = [parameter.grad.clone() for parameter in critic.parameters()]
    critic.zero_grad()
    logits = critic(hidden, torch.cat([view.mask for view in plain]))
    functional.cross_entropy(logits, truth).backward()
    strength = ramp(fraction) if knows else 0.0  # at rest while the critic is worse than guessing
    for reversed_view, view in zip(seen, plain, strict=True):
        assert reversed_view.hidden.grad is not None
        assert view.hidden.grad is not None
        torch.testing.assert_close(reversed_view.hidden.grad, -strength * view.hidden.grad)
    for gradient, parameter in zip(own, critic.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)  # always at full strength
    assert float(out["accuracy"]) == pytest.approx(float((logits.argmax(1) == truth).float().mean()))


def test_the_critic_runs_in_float32_and_learns_at_its_own_rate() -> None:
    loss = Adversarial(stream("a"), stream("b"), rate=7.0)
    critic = loss.modules(FACTS)["critic"]
    with torch.autocast("cpu", torch.bfloat16):
        logits = critic(torch.randn(4, 3, 8).bfloat16(), torch.ones(4, 3, dtype=torch.bool))
    assert logits.dtype == torch.float32
    assert dict(loss.rates) == {"critic": 7.0}


def test_domains_are_balanced_in_every_step() -> None:
    loss = Adversarial(stream("a", 40), stream("b", 100), rows=36)
    assert [read.rows for read in loss.reads] == [36, 36]
    with pytest.raises(InputError, match="has 40 texts"):
        Adversarial(stream("a", 40), stream("b"), rows=64)


def test_a_critic_that_learned_nothing_early_on_is_told_once() -> None:
    critic = Adversarial(stream("a"), stream("b")).modules(FACTS)["critic"]
    assert isinstance(critic, Critic)
    for _ in range(20):
        critic.watch(32, 64, 0.1)
    with pytest.warns(UserWarning, match="half is guessing"):
        critic.watch(32, 64, 0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        critic.watch(32, 64, 0.3)


def test_reversal_leaves_values_alone() -> None:
    values = rows(0, 4).float()
    assert torch.equal(reverse_gradient(values, 3.0), values)
