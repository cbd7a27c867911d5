"""GELU by tanh as transformers writes it out, with the same bits and a fraction of its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation


class LeanGELU(nn.Module):
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which keeps x alone for its gradient.

    `NewGELUActivation` of transformers, in GPT-2, GPT-J and their like, keeps the results of its single operations. The
    values here are the same operations in the same order, so equal bit for bit; the gradient is torch's own of the
    formula.

    Reference: Hendrycks and Gimpel 2016, Gaussian Error Linear Units, arXiv 1606.08415 (the approximation by tanh).
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the activation of features of any shape, in their shape."""
        activated: Tensor = _LeanGELU.apply(features)  # type: ignore[no-untyped-call]
        return activated


class _LeanGELU(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        inner = x.pow(3.0).mul_(0.044715).add_(x).mul_(math.sqrt(2.0 / math.pi)).tanh_().add_(1.0)
        return inner.mul_(0.5 * x)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = context.saved_tensors
        found: Tensor = torch.ops.aten.gelu_backward(slope, x.to(slope.dtype), approximate="tanh")
        return found.to(x.dtype)


@contextmanager
def lean_activations(model: nn.Module) -> Iterator[None]:
    """Put `LeanGELU` where a model has `NewGELUActivation` while the context lasts."""
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, NewGELUActivation)
    ]
    try:
        for parent, name, _ in places:
            setattr(parent, name, LeanGELU())
        yield
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)
