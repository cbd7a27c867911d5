"""The task: cross-entropy of the head on labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream
from guidebook.losses.contract import Facts, View
from guidebook.tasks.heads import Head, pool


@dataclass(frozen=True)
class TaskLoss:
    """Cross-entropy in nats of labelled rows, summed."""

    stream: Stream

    @property
    def streams(self) -> Sequence[Stream]:
        """The labelled rows."""
        return (self.stream,)

    @property
    def corrupts(self) -> bool:
        """Its rows are read as they are."""
        return False

    @property
    def length_in(self) -> Literal["tokens", "rows"]:
        """Rows."""
        return "rows"

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """The task head, `head`."""
        head = Head(facts.hidden_size, facts.classes, facts.head, dropout=facts.head_dropout, seed=facts.head_seed)
        return {"head": PooledHead(head, facts.pooling)}

    def items(self, views: Sequence[View]) -> int:
        """Rows."""
        return len(views[0].labels)

    def __call__(self, views: Sequence[View], modules: Mapping[str, nn.Module]) -> Tensor:
        """Return the summed cross-entropy."""
        view = views[0]
        logits = modules["head"](view.hidden, view.mask)  # (B, C)
        return functional.cross_entropy(logits.float(), view.labels, reduction="sum")


class PooledHead(nn.Module):
    """Pooling and head in one: (B, T, H) hidden states and (B, T) mask to (B, C) logits."""

    def __init__(self, head: Head, pooling: str) -> None:
        super().__init__()
        self.head = head
        self.pooling = pooling

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (B, C) logits."""
        rows = pool(hidden, mask, self.pooling)  # (B, T, H) -> (B, H)
        logits: Tensor = self.head(rows.float())
        return logits
