"""LoRA around a linear module as one operation, which keeps no copy of the module's output and passes over it once."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D


class LeanLoRA(PeftLinear):  # type: ignore[misc]
    """PEFT's LoRA layer with the same numbers up to rounding, for the case that nearly all steps are.

    PEFT's own `forward` multiplies by B, scales and adds in three passes over the output, and the gradients of the two
    paths into the input are added in one more. Here B's product is accumulated into the base's, forward and backward.

    Reference: Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models, equation 3.
    Differs: one active adapter on a frozen, unquantised module without hooks; anything else goes PEFT's way, and so
        does code that is compiled, which is fused anyway.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output (..., out) with the update for input features (..., in)."""
        name = None if args or kwargs or torch.compiler.is_compiling() else self._alone(x)
        if name is None:
            found: Tensor = super().forward(x, *args, **kwargs)
            return found
        weight, bias = self.base_layer.weight, self.base_layer.bias
        weight = weight.t() if isinstance(self.base_layer, Conv1D) else weight  # (out, in)
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        if (dtype := autocast_dtype(x)) is not None:
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            down, up = down.to(dtype), up.to(dtype)
        updated: Tensor = _LowRank.apply(x, weight, bias, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return updated

    def _alone(self, x: Tensor) -> str | None:
        """Return the one adapter that acts here, if it and the module are of the plain case."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] in self.lora_variant:
            return None
        base, down, up = self.base_layer, self.lora_A[names[0]], self.lora_B[names[0]]
        if type(base) not in (nn.Linear, Conv1D) or up.bias is not None:
            return None
        if any(parameter.requires_grad for parameter in base.parameters()):
            return None
        if self.training and not isinstance(self.lora_dropout[names[0]], nn.Identity):
            return None
        if any(_watched(module) for module in (base, down, up)):
            return None
        same = x.dtype == base.weight.dtype == down.weight.dtype
        return names[0] if same or autocast_dtype(x) is not None else None


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return what autocast turns these features into; None where it is off."""
    device = x.device.type
    if device == "meta" or not x.is_floating_point() or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def _watched(module: nn.Module) -> bool:
    """Return whether something wants to see the module's call: a hook, or a `forward` of accelerate's that moves it."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def lean(layer: nn.Module) -> None:
    """Make a LoRA layer of PEFT lean, in place: its modules, weights and their names stay."""
    if type(layer) is PeftLinear:
        layer.__class__ = LeanLoRA


class _LowRank(torch.autograd.Function):
    """x W^T + b + scale (x A^T) B^T; W and b are frozen."""

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd passes by place)
        context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, in)
        inner = rows @ down.t()  # (N, r)
        found = torch.nn.functional.linear(rows, weight, bias).addmm_(inner, up.t(), alpha=scale)
        context.save_for_backward(rows, inner, weight, down, up)
        context.scale, context.shape = scale, x.shape
        return found.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, inner, weight, down, up = context.saved_tensors
        slope = slope.reshape(-1, slope.shape[-1])  # (N, out)
        wanted = context.needs_input_grad
        through = (slope @ up).mul_(context.scale)  # (N, r)
        to_x = (slope @ weight).addmm_(through, down).view(context.shape) if wanted[0] else None
        to_down = through.t() @ rows if wanted[3] else None
        to_up = (slope.t() @ inner).mul_(context.scale) if wanted[4] else None
        return to_x, None, None, to_down, to_up, None
