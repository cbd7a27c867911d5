"""RMS norm as Llama and its like write it out, in a third of the passes over the features, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from guidebook.adapters.modules import bare_modules, watched

TRIED = 3
"""Rows on which a norm is tried before it is replaced."""


class _RMSNorm(torch.autograd.Function):
    """w * x / sqrt(mean(x^2) + e) over the last axis, of which x and one number a row are kept; w is frozen.

    With r = 1 / sqrt(mean(x^2) + e) and s the slope times w, the gradient by x is r s - r^3 x mean(x s).

    Reference: Zhang and Sennrich 2019, Root Mean Square Layer Normalization, equation 4.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        inverse = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()  # (..., 1)
        context.save_for_backward(x, weight, inverse)
        normed: Tensor = (x * inverse).mul_(weight)
        return normed

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, inverse = context.saved_tensors
        scaled = slope * weight
        along = torch.linalg.vecdot(scaled, x).unsqueeze(-1)
        return scaled.addcmul_(x, along * inverse.square() / -x.shape[-1]).mul_(inverse), None, None


def _lean(module: Any, written_out: Any, hidden: Tensor) -> Tensor:
    """Return the normalised features (..., H), the module's own way where they are not plain float32."""
    plain = hidden.dtype == module.weight.dtype == torch.float32 and not module.weight.requires_grad
    if not plain or not (torch.is_grad_enabled() and hidden.requires_grad):
        found: Tensor = written_out(hidden)
        return found
    normed: Tensor = _RMSNorm.apply(hidden, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def _is_written_out(module: Any) -> bool:
    """Return whether a module computes this formula; it is tried, because names and attributes are no proof."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, nn.Parameter) or not isinstance(epsilon, float) or watched(module):
        return False
    if weight.dim() != 1 or weight.dtype != torch.float32 or getattr(module, "bias", None) is not None:
        return False
    size = torch.linspace(0.1, 3.0, TRIED * len(weight), device=weight.device).view(TRIED, len(weight))
    rows = size * torch.sin(7 * size) + 0.5
    with torch.no_grad():
        expected = weight * rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + epsilon)
        return torch.allclose(module(rows), expected, rtol=1e-5, atol=1e-6)


@contextmanager
def lean_norms(model: nn.Module) -> Iterator[None]:
    """Let the RMS norms of a base run lean while the context lasts, where their weight is frozen and float32."""
    found = [module for _, module in bare_modules(model) if _is_written_out(module)]
    try:
        for module in found:
            module.forward = partial(_lean, module, module.forward)
        yield
    finally:
        for module in found:
            del module.forward
