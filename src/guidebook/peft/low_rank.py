"""LoRA around a linear module as one operation, which keeps no copy of the module's output and passes over it once."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from guidebook.adapters.modules import watched
from guidebook.peft.wrapper import autocast_dtype


class LeanLoRA(PeftLinear):  # type: ignore[misc]
    """PEFT's LoRA layer with the same numbers up to rounding, for the case that nearly all steps are.

    PEFT's own `forward` multiplies by B, scales and adds in three passes over the output for every adapter, and the
    gradients of the paths into the input are added in one more. Here the active adapters are one of their ranks
    together, and B's product is accumulated into the base's, forward and backward.

    Reference: Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models, equation 3.
    Differs: a frozen, unquantised module without hooks, no dropout; anything else goes PEFT's way, and so does code
        that is compiled, which is fused anyway.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output (..., out) with the updates for input features (..., in)."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if args or kwargs or torch.compiler.is_compiling() or not names or not self._plain(x, names):
            found: Tensor = super().forward(x, *args, **kwargs)
            return found
        weight, bias = self.base_layer.weight, self.base_layer.bias
        weight = weight.t() if isinstance(self.base_layer, Conv1D) else weight  # (out, in)
        scales = [self.scaling[name] for name in names]
        scale = scales[0] if len(set(scales)) == 1 else 1.0  # one for all costs no pass over anything
        down = _joined([self.lora_A[name].weight for name in names], 0)  # (r, in)
        ups = [self.lora_B[name].weight for name in names]
        up = _joined([B if of == scale else B * of for B, of in zip(ups, scales, strict=True)], 1)  # (out, r)
        if (dtype := autocast_dtype(x)) is not None:
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            down, up = down.to(dtype), up.to(dtype)
        rows = x.reshape(-1, x.shape[-1])  # (..., in) -> (N, in)
        updated: Tensor = _LowRank.apply(rows, weight, bias, down, up, scale)  # type: ignore[no-untyped-call]
        # not inside the function: autograd refuses to change a view made there in place, as Longformer does
        return updated.view(*x.shape[:-1], updated.shape[-1])

    def _plain(self, x: Tensor, names: list[str]) -> bool:
        """Return whether these adapters on this module, with these features, are the plain case."""
        base: nn.Module = self.base_layer
        if self.disable_adapters or self.merged or type(base) not in (nn.Linear, Conv1D):
            return False
        if any(parameter.requires_grad for parameter in base.parameters()):
            return False
        for name in names:
            down, up = self.lora_A[name], self.lora_B[name]
            drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
            if drops or name in self.lora_variant or up.bias is not None or watched(down) or watched(up):
                return False
        same = all(x.dtype == held.dtype for held in (base.weight, *(self.lora_A[name].weight for name in names)))
        return not watched(base) and (same or autocast_dtype(x) is not None)


def _joined(weights: list[Tensor], axis: int) -> Tensor:
    return weights[0] if len(weights) == 1 else torch.cat(weights, axis)


def lean(layer: nn.Module) -> None:
    """Make a LoRA layer of PEFT lean, in place: its modules, weights and their names stay."""
    if type(layer) is PeftLinear:
        layer.__class__ = LeanLoRA


class _LowRank(torch.autograd.Function):
    """x W^T + b + s (x A^T) B^T for rows x (N, in); W and b are frozen."""

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd passes by place)
        context: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        inner = rows @ down.t()  # (N, r)
        found = torch.nn.functional.linear(rows, weight, bias).addmm_(inner, up.t(), alpha=scale)
        context.save_for_backward(rows, inner, weight, down, up)
        context.scale = scale
        return found

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, inner, weight, down, up = context.saved_tensors
        scale = context.scale
        wanted = context.needs_input_grad
        through = slope @ up  # (N, r)
        to_x = (slope @ weight).addmm_(through, down, alpha=scale) if wanted[0] else None
        to_down = _product(through.t(), rows, scale) if wanted[3] else None
        to_up = _product(slope.t(), inner, scale) if wanted[4] else None
        return to_x, None, None, to_down, to_up, None


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Return a matrix product times a number, in one pass."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scale)
