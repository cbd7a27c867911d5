"""Cross-entropy of a large vocabulary, a few rows at a time: the (M, V) logits never stand in memory together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IN_CACHE, ON_GPU = 2**20, 2**24
"""Logits that are computed together: 4 MB in fp32, which stay in a processor's cache; 64 MB, which keep a GPU busy."""
Finish = Callable[[Tensor], Tensor]
"""What a model does to its logits after the head."""


def elements_on(device: str) -> int:
    """Return how many logits are computed together on a type of device."""
    return IN_CACHE if device == "cpu" else ON_GPU


def finish_of(config: Any) -> Finish:
    """Return what an architecture does to the logits after its head, (M, V) -> (M, V).

    Gemma 2 and 3 cap them softly, Cohere multiplies, Granite divides; everybody else leaves them alone.
    """
    text = config.get_text_config()
    cap = getattr(text, "final_logit_softcapping", None)
    scale = (getattr(text, "logit_scale", None) or 1.0) / (getattr(text, "logits_scaling", None) or 1.0)
    if cap is not None:
        return lambda logits: torch.tanh(logits / cap) * cap
    if scale != 1.0:
        return lambda logits: logits * scale
    return lambda logits: logits


def token_losses(
    hidden: Tensor, targets: Tensor, head: nn.Module, finish: Finish, elements: int | None = None
) -> Tensor:
    """Return the cross-entropy in nats of every row (M,), without a gradient.

    Args:
        hidden: (M, H) last hidden states at the predicted positions.
        targets: (M,) token ids.
        head: (m, H) -> (m, V).
        finish: What comes after the head.
        elements: Logits that are computed together; None: what suits the device.
    """
    with torch.no_grad():
        parts = [
            functional.cross_entropy(finish(head(rows)).float(), goals, reduction="none")
            for rows, goals in _chunks(hidden, targets, head, elements)
        ]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)


def chunked_cross_entropy(
    hidden: Tensor, targets: Tensor, head: nn.Module, finish: Finish, elements: int | None = None
) -> Tensor:
    """Return the summed cross-entropy in nats of rows (M, H) with targets (M,), a scalar with its gradient.

    Each chunk's gradient is computed while its logits are there, so nothing is computed twice and only (M, H) is kept.
    What moves inside the head gets its gradient too: the head's own weights, or an adapter's around it.

    Reference:
        Hsu et al. 2024, Liger Kernel, section 3.2 (fused linear cross-entropy).
    """
    moving = _reached(head(hidden.detach()[:0]))
    if not torch.is_grad_enabled() or not (hidden.requires_grad or moving):
        return token_losses(hidden, targets, head, finish, elements).sum()
    total: Tensor = _Chunked.apply(hidden, targets, head, finish, elements, *moving)  # type: ignore[no-untyped-call]
    return total


def _reached(output: Tensor) -> list[Tensor]:
    """Return the leaves that a result depends on and that want a gradient, wherever they are held."""
    found: dict[int, Tensor] = {}
    seen, ahead = set(), [output.grad_fn]
    while ahead:
        node: Any = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        ahead += [following for following, _ in node.next_functions]
    return list(found.values())


class _Chunked(torch.autograd.Function):
    """Sum of cross-entropies whose gradient is ready before anyone asks for it."""

    @staticmethod
    def forward(  # noqa: PLR0917
        context: Any,
        hidden: Tensor,
        targets: Tensor,
        head: nn.Module,
        finish: Finish,
        elements: int | None,
        *moving: Tensor,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        wanted, slopes = torch.zeros_like(hidden), [torch.zeros_like(value, dtype=torch.float32) for value in moving]
        start = 0
        for rows, goals in _chunks(hidden, targets, head, elements):
            with torch.enable_grad():
                inner = rows.detach().requires_grad_()
                logits = finish(head(inner))
            loss, slope_of_logits = _cross_entropy(logits.detach().float(), goals)
            found = torch.autograd.grad(logits, [inner, *moving], slope_of_logits.to(logits.dtype))
            wanted[start : start + len(rows)] = found[0]
            for slope, part in zip(slopes, found[1:], strict=True):
                slope.add_(part)
            total += loss
            start += len(rows)
        context.save_for_backward(wanted, *slopes)
        return total

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        wanted, *slopes = context.saved_tensors
        return (slope * wanted).to(wanted.dtype), None, None, None, None, *(slope * value for value in slopes)


def _cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of logits z (m, V) and its gradient by them (m, V).

    With p = softmax(z): the loss is max z - log max p - z of the target, the gradient is p less one at the target.
    """
    shares = logits.softmax(-1)
    top, place = logits.max(-1, keepdim=True)  # the largest share is at least 1/V: its logarithm is always there
    loss = top - shares.gather(1, place).log() - logits.gather(1, targets[:, None])
    return loss.sum(), shares.scatter_add_(1, targets[:, None], torch.full_like(loss, -1.0))


def _chunks(hidden: Tensor, targets: Tensor, head: nn.Module, elements: int | None) -> Sequence[tuple[Tensor, Tensor]]:
    vocabulary = max((value.shape[0] for value in head.parameters()), default=1)
    rows = max(1, (elements or elements_on(hidden.device.type)) // vocabulary)
    return list(zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)) if len(hidden) else []
