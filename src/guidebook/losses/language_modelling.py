"""Language modelling: masked or causal, whichever the base was pre-trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream
from guidebook.losses.contract import Facts, View


@dataclass(frozen=True)
class LanguageModelling:
    """Cross-entropy in nats at the predicted positions, summed."""

    stream: Stream

    @property
    def streams(self) -> Sequence[Stream]:
        """The text."""
        return (self.stream,)

    @property
    def corrupts(self) -> bool:
        """Its rows are masked."""
        return True

    @property
    def length_in(self) -> Literal["tokens", "rows"]:
        """Tokens."""
        return "tokens"

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """None: the head is the base's own, frozen."""
        return {}

    def items(self, views: Sequence[View]) -> int:
        """Predicted positions."""
        return len(views[0].targets)

    def __call__(self, views: Sequence[View], modules: Mapping[str, nn.Module]) -> Tensor:
        """Return the summed cross-entropy."""
        return functional.cross_entropy(views[0].logits.float(), views[0].targets, reduction="sum")
