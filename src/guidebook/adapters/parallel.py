"""Parallel adapters: a bottleneck beside the feed-forward sub-layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from guidebook.adapters.choice import check_range, chosen, placed, require_modules, width_for
from guidebook.adapters.modules import hidden_size
from guidebook.adapters.placement import Placement


@dataclass(frozen=True)
class Parallel:
    """One bottleneck adapter a layer, which reads what the feed-forward sub-layer reads and adds to what it returns.

    Reference:
        He et al. 2022, Towards a Unified View of Parameter-Efficient Transfer Learning, sections 3.3 and 4.6 (the
        scaled parallel adapter beside the feed-forward network).

    Differs:
        The paper's width is 512 for every base; here it is the hidden size over `reduction`, as AdapterHub has it.
    """

    kind: Literal["parallel"] = "parallel"
    """Bottleneck adapters beside the feed-forward sub-layers."""
    reduction: float | None = 2.0
    """Hidden size of the base divided by the width of the bottleneck."""
    width: int | None = None
    """Units of the bottleneck; takes the place of `reduction`."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "relu"
    """Non-linearity between the two projections."""
    layers: str | tuple[int, ...] = "all"
    """Layers that get an adapter: all, all but last, top N, bottom N, or a list counted from 0."""
    dropout: float = 0.0
    """Share of the bottleneck's units dropped in training."""
    scaling: float = 4.0
    """Factor of what the adapter adds to the sub-layer's output."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Module names by hand, for an architecture without a row: layers, attention, feed_forward, block, lm_head."""
    learning_rate: ClassVar[float] = 3e-4

    def __post_init__(self) -> None:
        check_range("dropout", self.dropout, 0 <= self.dropout < 1, "0 <= dropout < 1")
        width_for(self, 1)

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the feed-forward sub-layers.

        Raises:
            InputError: the architecture's feed-forward sub-layer is no module of its own.
        """
        row = placed(self, placement)
        pattern = row.pattern(row.block or "(?!)", chosen(self, model, placement))
        why = "its feed-forward sub-layer is no module of its own. Choose houlsby or pfeiffer, or name it by hand: adapter.modules.block."  # noqa: E501  fmt: skip
        return require_modules(self.kind, model, pattern, why)

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return the configuration of the bottleneck tuner for this base.

        Raises:
            InputError: the layers or modules do not exist in the base.
        """
        from guidebook.peft import BottleneckConfig

        row = placed(self, placement)
        return BottleneckConfig(
            target_modules=self.targets(model, placement),
            width=width_for(self, hidden_size(model)),
            activation=self.activation,
            dropout=self.dropout,
            scaling=self.scaling,
            # a block that ends with its own layer norm adds the residual itself: what goes into that sum is changed
            form="residual" if row.norm.startswith(rf"{row.block}\.") else "parallel",
            kind=self.kind,
        )
