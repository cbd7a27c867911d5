"""From the last hidden states of the base to logits: pooling and the head."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from guidebook.errors import InputError, nearest

POOLINGS = ("mean", "cls", "last")


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """One row per text from its unmasked tokens, whatever the padding side.

    Half-precision states are pooled in fp32: a bf16 sum over 128 tokens keeps two digits.

    Args:
        hidden: (B, T, H) last hidden states. Values at masked positions are never read, not even if they are NaN.
        mask: (B, T), true or 1 at tokens of the text, special tokens included.
        how: "mean" of the tokens, "cls" (the first one) or "last" (the last one).

    Returns:
        (B, H). A text without any unmasked token gives zeros.

    Raises:
        InputError: `how` is not one of the three.

    >>> pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]), "mean")
    tensor([[2.]])
    """
    if how not in POOLINGS:
        raise InputError(f"pooling is {how!r}, expected one of {list(POOLINGS)}.{nearest(how, POOLINGS)}")
    seen = mask.bool()  # (B, T)
    states = hidden.float() if hidden.dtype in (torch.bfloat16, torch.float16) else hidden
    if how == "mean":
        total = states.masked_fill(~seen[:, :, None], 0).sum(dim=1)  # (B, T, H) -> (B, H)
        return total / seen.sum(dim=1, keepdim=True).clamp(min=1)
    positions = torch.arange(seen.shape[1], device=seen.device)
    beyond = seen.shape[1] if how == "cls" else -1
    candidates = torch.where(seen, positions, beyond)  # (B, T)
    place = candidates.amin(dim=1) if how == "cls" else candidates.amax(dim=1)  # (B,)
    place = place.clamp(0, seen.shape[1] - 1)
    rows = states[torch.arange(len(states), device=states.device), place]  # (B, T, H) -> (B, H)
    return rows.masked_fill(~seen.any(dim=1, keepdim=True), 0)


class Head(nn.Module):
    """Logits of C classes from pooled rows.

    Weights are uniform in ±1/sqrt(H), biases zero, drawn on the CPU from `seed` alone: the global random state is
    neither read nor moved, so every arm of a comparison starts from the same head.

    Args:
        hidden: H, the width of a pooled row.
        classes: C.
        kind: "linear" or "two_layer" (a tanh layer of width H first, as in BERT's and RoBERTa's own heads).
        dropout: Probability before each linear layer.
        seed: The only source of the first weights.

    Raises:
        InputError: `kind` is not one of the two.
    """

    def __init__(self, hidden: int, classes: int, kind: str = "two_layer", dropout: float = 0.1, seed: int = 0) -> None:
        super().__init__()
        if kind not in ("linear", "two_layer"):
            raise InputError(f"head is {kind!r}, expected 'linear' or 'two_layer'.")
        generator = torch.Generator("cpu").manual_seed(seed)
        self.dropout = nn.Dropout(dropout)
        self.inner = _linear(hidden, hidden, generator) if kind == "two_layer" else None
        self.output = _linear(hidden, classes, generator)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, H) -> (B, C) logits; rows of any floating type are read in the head's own."""
        rows = self.dropout(rows.to(self.output.weight.dtype))
        if self.inner is not None:
            rows = self.dropout(torch.tanh(self.inner(rows)))  # (B, H) -> (B, H)
        return cast(Tensor, self.output(rows))  # (B, H) -> (B, C)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    # By way of the meta device: the ordinary constructor would draw from, and so move, the global random state.
    layer = nn.Linear(inputs, outputs, device="meta", dtype=torch.float32).to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer
