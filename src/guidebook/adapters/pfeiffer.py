"""Pfeiffer adapters: one bottleneck a layer, on what the layer has added up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from guidebook.adapters.choice import check_range, chosen, placed, width_for
from guidebook.adapters.modules import hidden_size, matched
from guidebook.adapters.placement import Placement


@dataclass(frozen=True)
class Pfeiffer:
    """One bottleneck adapter a layer, which reads the normalised sum of feed-forward output and residual.

    With x the residual, h the feed-forward output after its dropout and LN the layer's own last layer norm, the layer
    returns LN(h + f(LN(h + x)) + x). Where layers normalise before their sub-layers, the adapter reads and changes
    the sum itself: x + h + f(x + h).

    Reference:
        Pfeiffer et al. 2021, AdapterFusion: Non-Destructive Task Composition for Transfer Learning, section 3.2.1, as
        the configuration `seq_bn` of AdapterHub computes it.

    Differs:
        The up projection starts at exactly zero, so a new adapter changes no bit of the output.
    """

    kind: Literal["pfeiffer"] = "pfeiffer"
    """Pfeiffer's bottleneck adapters."""
    reduction: float | None = 16.0
    """Hidden size of the base divided by the width of the bottleneck."""
    width: int | None = None
    """Units of the bottleneck; takes the place of `reduction`."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "relu"
    """Non-linearity between the two projections."""
    layers: str | tuple[int, ...] = "all"
    """Layers that get an adapter: all, all but last, top N, bottom N, or a list counted from 0."""
    dropout: float = 0.0
    """Share of the bottleneck's units dropped in training."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Module names by hand, for an architecture without a row: layers, attention, feed_forward, norm, lm_head."""
    learning_rate: ClassVar[float] = 3e-4

    def __post_init__(self) -> None:
        check_range("dropout", self.dropout, 0 <= self.dropout < 1, "0 <= dropout < 1")
        width_for(self, 1)

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the modules that get an adapter: layer norms, or whole layers."""
        row, indices = placed(self, placement), chosen(self, model, placement)
        if row.norm:
            return row.pattern(row.norm, indices)
        inside = re.compile(row.pattern(".*", indices)[: -len(r"\.(?:.*)")])
        found = (inside.match(name) for name, _ in matched(model, row.pattern(row.feed_forward, indices)))
        return "|".join(re.escape(match.group()) for match in found if match)

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return the configuration of the bottleneck tuner for this base.

        Raises:
            InputError: the layers or modules do not exist in the base.
        """
        from guidebook.peft import BottleneckConfig

        return BottleneckConfig(
            target_modules=self.targets(model, placement),
            width=width_for(self, hidden_size(model)),
            activation=self.activation,
            dropout=self.dropout,
            form="norm" if placed(self, placement).norm else "output",
            kind=self.kind,
        )
