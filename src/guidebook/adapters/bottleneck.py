"""The bottleneck adapter as one pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "gelu": functional.gelu,
        "gelu_new": partial(functional.gelu, approximate="tanh"),
        "relu": functional.relu,
        "silu": functional.silu,
        "tanh": torch.tanh,
    }
)


def bottleneck(
    hidden: Tensor,
    down: Tensor,
    down_bias: Tensor,
    up: Tensor,
    up_bias: Tensor,
    *,
    activation: Activation,
    scaling: float | Tensor = 1.0,
    residual: Tensor | None = None,
) -> Tensor:
    """Return residual + scaling · (up · activation(down · hidden + down_bias) + up_bias).

    `residual` is `hidden` itself where it is not given.

    Without an adapter axis: hidden (..., H), down (W, H), down_bias (W,), up (H, W), up_bias (H,), scaling a number.
    With one: hidden (A, ..., H), down (A, W, H), down_bias (A, W), up (A, H, W), up_bias (A, H), scaling a number
    or (A,); slice a of `hidden` goes through adapter a, in one batched product per projection.

    Reference:
        Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, section 2.1.

    >>> hidden = torch.ones(2, 3)
    >>> down, up = torch.ones(1, 3), torch.ones(3, 1)
    >>> bottleneck(hidden, down, torch.zeros(1), up, torch.zeros(3), activation=torch.relu, scaling=0.5)
    tensor([[2.5000, 2.5000, 2.5000],
            [2.5000, 2.5000, 2.5000]])
    """
    residual = hidden if residual is None else residual
    if down.dim() == 2:
        inner = activation(functional.linear(hidden, down, down_bias))  # (..., H) -> (..., W)
        delta = functional.linear(inner, up, up_bias)  # (..., W) -> (..., H)
        return residual + (delta if isinstance(scaling, float) and scaling == 1.0 else scaling * delta)
    rows = hidden.reshape(hidden.shape[0], -1, hidden.shape[-1])  # (A, ..., H) -> (A, N, H)
    inner = activation(torch.baddbmm(down_bias.unsqueeze(1), rows, down.mT))  # (A, N, H) -> (A, N, W)
    delta = torch.baddbmm(up_bias.unsqueeze(1), inner, up.mT).reshape(residual.shape)  # (A, N, W) -> (A, ..., H)
    if isinstance(scaling, Tensor):
        scaling = scaling.reshape(-1, *[1] * (hidden.dim() - 1))
    return residual + scaling * delta
