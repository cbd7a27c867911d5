"""The task: cross-entropy of the head on labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream
from guidebook.losses.contract import Counts, Facts, Reads, View
from guidebook.tasks.heads import Head, pool


@dataclass(frozen=True)
class TaskLoss:
    """Cross-entropy in nats of the labels of rows, or of words, summed."""

    stream: Stream

    counts: ClassVar[Counts] = "labels"
    length_in: ClassVar[Literal["tokens", "rows"]] = "rows"
    layers: ClassVar[bool] = False
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})

    @property
    def reads(self) -> Sequence[Reads]:
        """The labelled rows, as they are."""
        return (Reads(self.stream),)

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """The task head, `head`."""
        return {"head": task_head(facts)}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the summed cross-entropy."""
        view = views[0]
        logits = view.modules["head"](view.hidden, view.mask)  # (B, C), or (B, T, C) for words
        flat, labels = logits.flatten(0, -2).float(), view.labels.flatten()  # (N, C), (N,)
        return {"loss": functional.cross_entropy(flat, labels, ignore_index=-1, reduction="sum")}


def task_head(facts: Facts) -> PooledHead:
    """Return a fresh task head, the same for the same seed."""
    head = Head(facts.hidden_size, facts.classes, facts.head, dropout=facts.head_dropout, seed=facts.head_seed)
    return PooledHead(head, facts.pooling)


class PooledHead(nn.Module):
    """Pooling and head in one: (B, T, H) hidden states and (B, T) mask to (B, C) logits, (B, T, C) for words."""

    def __init__(self, head: Head, pooling: str) -> None:
        super().__init__()
        self.head = head
        self.pooling = pooling

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (B, C) logits; with the pooling "tokens" (B, T, C)."""
        rows = hidden if self.pooling == "tokens" else pool(hidden, mask, self.pooling)  # (B, T, H) -> (B, H)
        logits: Tensor = self.head(rows.float())
        return logits
