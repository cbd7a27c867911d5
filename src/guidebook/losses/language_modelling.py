"""Language modelling: masked or causal, whichever the base was pre-trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream
from guidebook.losses.contract import Counts, Facts, Reads, View


@dataclass(frozen=True)
class LanguageModelling:
    """Cross-entropy in nats at the predicted positions, summed."""

    stream: Stream

    counts: ClassVar[Counts] = "positions"
    length_in: ClassVar[Literal["tokens", "rows"]] = "tokens"
    layers: ClassVar[bool] = False
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})
    in_chunks: ClassVar[bool] = True  # it needs the sum alone, never the logits

    @property
    def reads(self) -> Sequence[Reads]:
        """The text, masked."""
        return (Reads(self.stream, "masked"),)

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """None: the head is the base's own, frozen."""
        return {}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the summed cross-entropy."""
        view = views[0]
        if view.summed is not None:
            return {"loss": view.summed()}
        return {"loss": functional.cross_entropy(view.logits.float(), view.targets, reduction="sum")}
