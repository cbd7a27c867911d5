"""Cross-entropy of a large vocabulary, some rows at a time: the (M, V) logits never stand in memory together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guidebook.adapters.modules import watched

ROWS = 256
"""Rows of a chunk on a processor, which reads the head's weights from memory once for each chunk and direction: with
fewer it waits for them (21 rows of a vocabulary of 49,152 take twice as long), with more nothing is gained."""
IN_CACHE, ON_GPU = 2**18, 2**24
"""Logits whose softmax is taken together: 1 MB in fp32, which stay in a processor's cache; 64 MB keep a GPU busy."""
MOST = 2**25
"""Logits of a chunk at most, 128 MB in fp32: of very large vocabularies there are fewer rows."""
Finish = Callable[[Tensor], Tensor]
"""What a model does to its logits after the head."""


def rows_together(vocabulary: int, device: str) -> int:
    """Return how many rows go through a head together on a type of device.

    >>> [rows_together(size, "cpu") for size in (500, 49_152, 262_144)]
    [524, 256, 128]
    """
    if device != "cpu":
        return max(1, ON_GPU // vocabulary)
    return max(1, min(max(ROWS, IN_CACHE // vocabulary), MOST // vocabulary))


def unchanged(logits: Tensor) -> Tensor:
    """Return logits as they are."""
    return logits


def finish_of(config: Any) -> Finish:
    """Return what an architecture does to the logits after its head, (M, V) -> (M, V).

    Gemma 2 and 3 cap them softly, Cohere multiplies, Granite divides; everybody else leaves them `unchanged`.
    """
    text = config.get_text_config()
    cap = getattr(text, "final_logit_softcapping", None)
    scale = (getattr(text, "logit_scale", None) or 1.0) / (getattr(text, "logits_scaling", None) or 1.0)
    if cap is not None:
        return lambda logits: torch.tanh(logits / cap) * cap
    return unchanged if scale == 1.0 else lambda logits: logits * scale


def token_losses(hidden: Tensor, targets: Tensor, head: nn.Module, finish: Finish, rows: int | None = None) -> Tensor:
    """Return the cross-entropy in nats of every row (M,), without a gradient.

    Args:
        hidden: (M, H) last hidden states at the predicted positions.
        targets: (M,) token ids.
        head: (m, H) -> (m, V).
        finish: What comes after the head.
        rows: Rows that go through the head together; None: what suits the device.
    """
    if not len(hidden):
        return hidden.new_zeros(0, dtype=torch.float32)
    found = []
    with torch.no_grad():
        size = rows or _rows_for(head, hidden)
        run = _Linear(head, hidden, size) if _is_plain(head) else head
        for part, goals in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
            logits = run(part)  # (m, V)
            few = _at_once(logits)
            for block, aims in zip(torch.split(logits, few), torch.split(goals, few), strict=True):
                found.append(functional.cross_entropy(finish(block).float(), aims, reduction="none"))
    return torch.cat(found)


def chunked_cross_entropy(
    hidden: Tensor, targets: Tensor, head: nn.Module, finish: Finish, rows: int | None = None
) -> Tensor:
    """Return the summed cross-entropy in nats of rows (M, H) with targets (M,), a scalar with its gradient.

    Each chunk's gradient is computed while its logits are there, so nothing is computed twice and only (M, H) is kept.
    A frozen linear head is cast once and writes all chunks to the same place, where logits become their own gradient.
    What moves inside any other head gets its gradient too: the head's own weights, or an adapter's around it.

    Reference:
        Hsu et al. 2024, Liger Kernel, section 3.2 (fused linear cross-entropy).
    """
    moving = [] if _is_plain(head) else _reached(head(hidden.detach()[:0]))
    if not torch.is_grad_enabled() or not (hidden.requires_grad or moving):
        return token_losses(hidden, targets, head, finish, rows).sum()
    total: Tensor = _Chunked.apply(hidden, targets, head, finish, rows, *moving)  # type: ignore[no-untyped-call]
    return total


def _is_plain(head: nn.Module) -> bool:
    """Return whether a head is one frozen matrix and nothing wants to see its calls."""
    return type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters()) and not watched(head)


def _rows_for(head: nn.Module, hidden: Tensor) -> int:
    return rows_together(max((value.shape[0] for value in head.parameters()), default=1), hidden.device.type)


def _at_once(logits: Tensor) -> int:
    """Return of how many rows of logits (m, V) the softmax is taken together."""
    return max(1, (IN_CACHE if logits.device.type == "cpu" else ON_GPU) // logits.shape[1])


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


class _Linear:
    """A frozen linear head in the number type in which it multiplies; every call writes to the same place."""

    def __init__(self, head: Any, hidden: Tensor, rows: int) -> None:
        kind = hidden.device.type
        self.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
        self.weight: Tensor = head.weight.to(self.dtype)  # (V, H)
        self._bias: Tensor | None = None if head.bias is None else head.bias.to(self.dtype)
        self._place = self.weight.new_empty((min(rows, len(hidden)), len(self.weight)))

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the logits (m, V) of rows (m, H); they are overwritten by the next call."""
        rows, place = rows.to(self.dtype), self._place[: len(rows)]
        if self._bias is None:
            return torch.mm(rows, self.weight.t(), out=place)
        return torch.addmm(self._bias, rows, self.weight.t(), out=place)


class _Chunked(torch.autograd.Function):
    """Sum of cross-entropies whose gradient is ready before anyone asks for it."""

    @staticmethod
    def forward(  # noqa: PLR0917
        context: Any,
        hidden: Tensor,
        targets: Tensor,
        head: nn.Module,
        finish: Finish,
        rows: int | None,
        *moving: Tensor,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        wanted, slopes = torch.zeros_like(hidden), [torch.zeros_like(value, dtype=torch.float32) for value in moving]
        size = rows or _rows_for(head, hidden)
        linear = _Linear(head, hidden, size) if _is_plain(head) else None
        for first in range(0, len(hidden), size):
            part, goals = hidden[first : first + size], targets[first : first + size]
            if linear is not None:
                logits = linear(part)
                total += _to_slopes(logits, goals, finish)
                wanted[first : first + size] = logits @ linear.weight
                continue
            with torch.enable_grad():
                inner = part.detach().requires_grad_()
                logits = finish(head(inner))
            slope = logits.detach().to(torch.float32, copy=True)  # what comes after the head may have kept its result
            total += _to_slopes(slope, goals, unchanged)
            found = torch.autograd.grad(logits, [inner, *moving], slope.to(logits.dtype))
            wanted[first : first + size] = found[0]
            for value, more in zip(slopes, found[1:], strict=True):
                value.add_(more)
        context.save_for_backward(wanted, *slopes)
        return total

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        wanted, *slopes = context.saved_tensors
        return (slope * wanted).to(wanted.dtype), None, None, None, None, *(slope * value for value in slopes)


def _to_slopes(logits: Tensor, targets: Tensor, finish: Finish) -> Tensor:
    """Return the summed cross-entropy of a head's logits (m, V), which become its gradient by them, in place."""
    total, few = logits.new_zeros((), dtype=torch.float32), _at_once(logits)
    for block, goals in zip(torch.split(logits, few), torch.split(targets, few), strict=True):
        values = block.float()  # in float32 the block itself
        if finish is unchanged:
            total += _cross_entropy(values, goals)
        else:
            with torch.enable_grad():
                inner = values.detach().clone().requires_grad_()
                finished = finish(inner)
            slope = finished.detach().clone()
            total += _cross_entropy(slope, goals)
            values = torch.autograd.grad(finished, inner, slope)[0]
        if values is not block:
            block.copy_(values)
    return total


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross-entropy of logits z (m, V) in float32, which become its gradient by them, in place.

    With p = softmax(z): the loss is log sum exp z - z of the target, the gradient is p less one at the target.
    """
    goals = targets[:, None]
    top = logits.amax(-1, keepdim=True)
    ahead = logits.gather(1, goals) - top  # (m, 1)
    whole = logits.sub_(top).exp_().sum(-1, keepdim=True)
    loss = whole.log() - ahead
    logits.div_(whole).scatter_(1, goals, (-loss).expm1())
    return loss.sum()
