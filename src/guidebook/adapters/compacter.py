"""Compacter: Houlsby's adapters with projections made of Kronecker products that share their small factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from guidebook.adapters.choice import check_range, chosen, placed, width_for
from guidebook.adapters.modules import hidden_size
from guidebook.adapters.placement import Placement


@dataclass(frozen=True)
class Compacter:
    """Bottleneck adapters where Houlsby has them, with a small share of their parameters.

    Each projection is a sum of Kronecker products: small matrices that all projections of the adapter share, times
    products of low rank that are its own.

    Reference:
        Mahabadi et al. 2021, Compacter: Efficient Low-Rank Hypercomplex Adapter Layers, sections 3 and 4.

    Differs:
        The right factor of every up projection starts at zero, so a new adapter changes no bit of the output; the other
        factors are drawn so that a projection has the variance of a linear layer. Layer norms stay frozen.
    """

    kind: Literal["compacter"] = "compacter"
    """Bottleneck adapters with hypercomplex projections."""
    reduction: float | None = 32.0
    """Hidden size of the base divided by the width of the bottleneck, which is rounded to a multiple of `products`."""
    width: int | None = None
    """Units of the bottleneck; takes the place of `reduction`."""
    products: int = 4
    """Kronecker products in a projection; the hidden size must be a multiple."""
    rank: int = 1
    """Rank of the larger factor of each product."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Non-linearity between the two projections."""
    layers: str | tuple[int, ...] = "all"
    """Layers that get an adapter: all, all but last, top N, bottom N, or a list counted from 0."""
    dropout: float = 0.0
    """Share of the bottleneck's units dropped in training."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Module names by hand, for an architecture without a row: layers, attention, feed_forward, lm_head."""
    learning_rate: ClassVar[float] = 3e-3

    def __post_init__(self) -> None:
        check_range("dropout", self.dropout, 0 <= self.dropout < 1, "0 <= dropout < 1")
        check_range("products", self.products, self.products >= 1, "at least 1")
        check_range("rank", self.rank, self.rank >= 1, "at least 1")
        width_for(self, 1)

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the modules that get an adapter."""
        row = placed(self, placement)
        return row.pattern(f"{row.attention}|{row.feed_forward}", chosen(self, model, placement))

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return the configuration of the bottleneck tuner for this base.

        Raises:
            InputError: the layers or modules do not exist in the base, or `products` does not divide its hidden size.
        """
        from guidebook.peft import BottleneckConfig

        hidden = hidden_size(model)
        check_range("products", self.products, hidden % self.products == 0, f"a number that divides {hidden}")
        width = width_for(self, hidden)
        return BottleneckConfig(
            target_modules=self.targets(model, placement),
            width=max(1, round(width / self.products)) * self.products,
            activation=self.activation,
            dropout=self.dropout,
            phm=self.products,
            phm_rank=self.rank,
            kind=self.kind,
        )
