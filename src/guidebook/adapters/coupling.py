"""Additive coupling: a function of the embeddings that can be undone exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from guidebook.adapters.bottleneck import Activation, bottleneck

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""down, down_bias, up, up_bias of a bottleneck"""


def couple(hidden: Tensor, first: Weights, second: Weights, *, activation: Activation) -> Tensor:
    """Return hidden (..., H) with each half changed by a bottleneck that reads the other half.

    With halves a and b: a' = a + first(b), b' = b + second(a').

    Reference:
        Dinh et al. 2015, NICE: Non-linear Independent Components Estimation, section 3.2; Pfeiffer et al. 2020, MAD-X,
        section 3.3, equations 4 and 5.
    """
    low, high = _halves(hidden)
    low = bottleneck(high, *first, activation=activation, residual=low)
    return torch.cat((low, bottleneck(low, *second, activation=activation, residual=high)), dim=-1)


def uncouple(hidden: Tensor, first: Weights, second: Weights, *, activation: Activation) -> Tensor:
    """Return what `couple` with the same weights was given: its inverse, up to rounding."""
    low, high = _halves(hidden)
    high = bottleneck(low, *second, activation=activation, residual=high, scaling=-1.0)
    return torch.cat((bottleneck(high, *first, activation=activation, residual=low, scaling=-1.0), high), dim=-1)


def _halves(hidden: Tensor) -> tuple[Tensor, Tensor]:
    return hidden[..., : hidden.shape[-1] // 2], hidden[..., hidden.shape[-1] // 2 :]
