"""The task on rows whose labels are only probable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream
from guidebook.losses.contract import Counts, Facts, Reads, View
from guidebook.losses.task import task_head


@dataclass(frozen=True, repr=False, eq=False)
class Chances:
    """Probabilities (N, C), a row per text; shown as their hash, which is what enters a stage's key."""

    values: np.ndarray
    _on: dict[torch.device, Tensor] = field(default_factory=dict, init=False)

    def on(self, device: torch.device) -> Tensor:
        """Return them (N, C) in float32 on a device, copied there once and not in every step."""
        if device not in self._on:
            self._on[device] = torch.from_numpy(self.values).float().to(device)
        return self._on[device]

    def __repr__(self) -> str:
        return f"Chances({xxhash.xxh3_128_hexdigest(np.ascontiguousarray(self.values, np.float64).tobytes())})"


def soft_cross_entropy(logits: Tensor, chances: Tensor) -> Tensor:
    """Return -Σ_c p_c log softmax(logits)_c in nats of every row: (B, C), (B, C) -> (B,)."""
    return -(chances * functional.log_softmax(logits.float(), dim=-1)).sum(-1)


@dataclass(frozen=True)
class SoftTaskLoss:
    """Cross-entropy of the head with given probabilities, summed over rows."""

    stream: Stream
    """Its labels are the numbers of the rows in `chances`."""
    chances: Chances

    counts: ClassVar[Counts] = "rows"
    length_in: ClassVar[Literal["tokens", "rows"]] = "rows"
    layers: ClassVar[bool] = False
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})

    @property
    def reads(self) -> Sequence[Reads]:
        """The rows, as they are."""
        return (Reads(self.stream),)

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """The task head, `head`."""
        return {"head": task_head(facts)}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the summed cross-entropy."""
        view = views[0]
        logits = view.modules["head"](view.hidden, view.mask)  # (B, C)
        chances = self.chances.on(logits.device)[view.labels]  # (N, C) -> (B, C)
        return {"loss": soft_cross_entropy(logits, chances).sum()}
