"""The bottleneck against loops written from the paper."""

from __future__ import annotations

import math

import pytest
import torch

from guidebook.adapters.bottleneck import ACTIVATIONS, bottleneck

H, W = 5, 3


def weights(*lead: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(W, H), (W,), (H, W), (H,)]
    return tuple(torch.randn(*lead, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


def slowly(hidden, parts, scaling):
    """One number at a time: h + s (U gelu(D h + b) + c)."""
    (down, down_bias, up, up_bias), out = parts, []
    for h in hidden.tolist():
        inner = [sum(down[w][i] * h[i] for i in range(H)) + down_bias[w] for w in range(W)]
        inner = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in inner]
        out.append([h[i] + scaling * (sum(up[i][w] * inner[w] for w in range(W)) + up_bias[i]) for i in range(H)])
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("scaling", [1.0, 0.3])
def test_equals_the_slow_loop(scaling):
    hidden, parts = torch.randn(4, H, dtype=torch.float64), weights()
    expected = slowly(hidden, [part.tolist() for part in parts], scaling)
    torch.testing.assert_close(bottleneck(hidden, *parts, activation=ACTIVATIONS["gelu"], scaling=scaling), expected)
    wide = bottleneck(hidden.reshape(2, 2, H), *parts, activation=ACTIVATIONS["gelu"], scaling=scaling)
    torch.testing.assert_close(wide.reshape(4, H), expected)


@pytest.mark.parametrize("lead", [(3,), (3, 2), (3, 2, 4)])
def test_adapter_axis_is_one_adapter_per_slice(lead):
    hidden, parts = torch.randn(*lead, H, dtype=torch.float64), weights(3)
    scaling = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    together = bottleneck(hidden, *parts, activation=torch.relu, scaling=scaling)
    for a in range(3):
        alone = bottleneck(hidden[a], *(part[a] for part in parts), activation=torch.relu, scaling=float(scaling[a]))
        torch.testing.assert_close(together[a], alone)


def test_zero_up_projection_is_the_identity():
    down, down_bias, up, up_bias = weights()
    hidden = torch.randn(7, H, dtype=torch.float64)
    out = bottleneck(hidden, down, down_bias, 0 * up, 0 * up_bias, activation=torch.tanh)
    assert torch.equal(out, hidden)


def test_gradients_are_those_of_the_formula():
    hidden = torch.randn(2, H, dtype=torch.float64, requires_grad=True)
    parts = [part.requires_grad_() for part in weights()]
    assert torch.autograd.gradcheck(lambda *a: bottleneck(*a, activation=torch.tanh, scaling=0.7), (hidden, *parts))
