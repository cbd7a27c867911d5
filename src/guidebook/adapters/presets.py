"""The kinds of adapter, as they stand in a recipe: what is trained inside the base, and how large it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from guidebook.adapters.choice import check_range, chosen, placed, width_for
from guidebook.adapters.modules import hidden_size, is_transposed, linear_features, matched
from guidebook.adapters.placement import INDEX, Placement
from guidebook.errors import InputError

KINDS = {
    "houlsby": "guidebook.adapters.presets:Houlsby",
    "pfeiffer": "guidebook.adapters.pfeiffer:Pfeiffer",
    "parallel": "guidebook.adapters.parallel:Parallel",
    "compacter": "guidebook.adapters.compacter:Compacter",
    "invertible": "guidebook.adapters.invertible:Invertible",
    "lora": "guidebook.adapters.presets:LoRA",
    "dora": "guidebook.adapters.dora:DoRA",
    "ia3": "guidebook.adapters.ia3:IA3",
    "full": "guidebook.adapters.presets:Full",
}


class Kind(Protocol):
    """What every kind of adapter offers."""

    @property
    def kind(self) -> str:
        """Name in KINDS."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate where the recipe gives none."""

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return PEFT's configuration for this base, or None where no module is added."""


@dataclass(frozen=True)
class Houlsby:
    """Bottleneck adapters after the attention output and after the feed-forward output of each layer.

    Reference:
        Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, section 2.1.

    Differs:
        The up projection starts at exactly zero (the paper: near zero), so a new adapter changes no bit of the
        output. The adapter sits before the sub-layer's dropout, which a frozen base runs without. Layer norms stay
        frozen.
    """

    kind: Literal["houlsby"] = "houlsby"
    """Houlsby's bottleneck adapters."""
    reduction: float | None = 16.0
    """Hidden size of the base divided by the width of the bottleneck."""
    width: int | None = None
    """Units of the bottleneck; takes the place of `reduction`."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Non-linearity between the two projections."""
    layers: str | tuple[int, ...] = "all"
    """Layers that get an adapter: all, all but last, top N, bottom N, or a list counted from 0."""
    dropout: float = 0.0
    """Share of the bottleneck's units dropped in training."""
    scaling: float = 1.0
    """Factor of what the adapter adds to the hidden state."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Module names by hand, for an architecture without a row: layers, attention, feed_forward, lm_head."""
    learning_rate: ClassVar[float] = 3e-4

    def __post_init__(self) -> None:
        check_range("dropout", self.dropout, 0 <= self.dropout < 1, "0 <= dropout < 1")
        width_for(self, 1)

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the modules that get an adapter."""
        row = placed(self, placement)
        return row.pattern(f"{row.attention}|{row.feed_forward}", chosen(self, model, placement))

    def parameters(self, model: Any, placement: Placement) -> int:
        """Return how many parameters the adapter has on this base."""
        width, hidden = width_for(self, hidden_size(model)), hidden_size(model)
        places = sum(1 for _ in matched(model, self.targets(model, placement)))
        return places * (2 * hidden * width + hidden + width)

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
            scaling=self.scaling,
        )


@dataclass(frozen=True)
class LoRA:
    """Low-rank updates of every linear module of the layers: attention and feed-forward, nothing outside the layers.

    The twin of `houlsby` at equal parameter count, and the kind that merges into the base.

    Reference:
        Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models.

    Differs:
        All linear modules of a layer, where the paper adapts query and value.
    """

    kind: Literal["lora"] = "lora"
    """Low-rank updates, by PEFT."""
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
        check_range("dropout", self.dropout, 0 <= self.dropout < 1, "0 <= dropout < 1")
        if self.rank is not None:
            check_range("rank", self.rank, self.rank >= 1, "at least 1")

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the modules that are updated."""
        row = placed(self, placement)
        layer = re.compile(row.layers.replace(INDEX, r"\d+") + r"\.")
        linear = (name for name, module in matched(model, row.pattern(".*")) if linear_features(module) is not None)
        inside = {name[match.end() :] for name in linear if (match := layer.match(name))}
        if not inside:
            raise InputError(f"{type(model).__name__} has no linear module inside {row.layers!r}.")
        return row.pattern("|".join(re.escape(name) for name in sorted(inside)), chosen(self, model, placement))

    def rank_for(self, model: Any, placement: Placement) -> int:
        """Return the rank: the given one, or the one nearest to Houlsby(reduction=16) in parameters."""
        if self.rank is not None:
            return self.rank
        twin = Houlsby(layers=self.layers, modules=self.modules).parameters(model, placement)
        return max(1, round(twin / self._parameters_per_rank(model, placement)))

    def parameters(self, model: Any, placement: Placement) -> int:
        """Return how many parameters the adapter has on this base."""
        return self.rank_for(model, placement) * self._parameters_per_rank(model, placement)

    def _parameters_per_rank(self, model: Any, placement: Placement) -> int:
        return sum(sum(linear_features(module) or ()) for _, module in matched(model, self.targets(model, placement)))

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return PEFT's LoraConfig for this base.

        Raises:
            InputError: the layers or modules do not exist in the base.
        """
        from peft import LoraConfig

        rank, targets = self.rank_for(model, placement), self.targets(model, placement)
        return LoraConfig(
            r=rank,
            lora_alpha=2 * rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            fan_in_fan_out=any(is_transposed(module) for _, module in matched(model, targets)),
        )


@dataclass(frozen=True)
class Full:
    """All weights of the base move: a whole copy of the model for every domain."""

    kind: Literal["full"] = "full"
    """Full fine-tuning."""
    learning_rate: ClassVar[float] = 5e-5

    def peft_config(self, model: Any, placement: Placement) -> None:
        """Return None: nothing is added to the base."""
