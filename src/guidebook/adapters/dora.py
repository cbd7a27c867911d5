"""DoRA: low-rank updates of the direction of weights, with their magnitude trained apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from guidebook.adapters.placement import Placement
from guidebook.adapters.presets import LoRA


@dataclass(frozen=True)
class DoRA:
    """Low-rank updates as in `lora`, applied to the direction of each weight; its length is trained apart.

    Reference:
        Liu et al. 2024, DoRA: Weight-Decomposed Low-Rank Adaptation.

    Differs:
        All linear modules of a layer, where the paper leaves out the attention's output. The rank without one given is
        that of `lora`; the magnitudes come on top.
    """

    kind: Literal["dora"] = "dora"
    """Low-rank updates of direction, by PEFT; slower than lora."""
    rank: int | None = None
    """Rank of the updates. Empty: the rank whose parameter count is nearest to that of houlsby with reduction 16."""
    alpha: float | None = None
    """Updates are multiplied by alpha / rank. Empty: twice the rank."""
    dropout: float = 0.0
    """Share of the input features dropped in training."""
    layers: str | tuple[int, ...] = "all"
    """Layers that get an adapter: all, all but last, top N, bottom N, or a list counted from 0."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Module names by hand, for an architecture without a row: layers, attention, feed_forward, lm_head."""
    learning_rate: ClassVar[float] = 3e-4

    def __post_init__(self) -> None:
        self._plain()

    def _plain(self) -> LoRA:
        return LoRA(rank=self.rank, alpha=self.alpha, dropout=self.dropout, layers=self.layers, modules=self.modules)

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return PEFT's LoraConfig for this base.

        Raises:
            InputError: the layers or modules do not exist in the base.
        """
        config = self._plain().peft_config(model, placement)
        config.use_dora = True
        return config
