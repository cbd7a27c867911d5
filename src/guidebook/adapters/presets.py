"""The kinds of adapter, as they stand in a recipe: what is trained inside the base, and how large it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from guidebook.adapters.placement import INDEX, Placement, layers_to_use
from guidebook.errors import InputError

if TYPE_CHECKING:
    from torch import nn

KINDS = {
    "houlsby": "guidebook.adapters.presets:Houlsby",
    "lora": "guidebook.adapters.presets:LoRA",
    "full": "guidebook.adapters.presets:Full",
}


class Kind(Protocol):
    """What every kind of adapter offers."""

    learning_rate: ClassVar[float]

    @property
    def kind(self) -> str:
        """Name in KINDS."""

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
        _check_range("dropout", self.dropout, self.dropout >= 0 and self.dropout < 1, "0 <= dropout < 1")
        if self.width is not None:
            _check_range("width", self.width, self.width >= 1, "at least 1")
        elif self.reduction is None:
            raise InputError("adapter: neither reduction nor width is given. Give one, for example reduction: 16.")
        else:
            _check_range("reduction", self.reduction, self.reduction >= 1, "at least 1")

    def width_for(self, hidden: int) -> int:
        """Return the bottleneck's width for a base of that hidden size."""
        return self.width if self.width is not None else max(1, round(hidden / (self.reduction or 1.0)))

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the modules that get an adapter."""
        return _placed(self, placement).pattern(
            f"{_placed(self, placement).attention}|{_placed(self, placement).feed_forward}",
            _chosen(self, model, placement),
        )

    def parameters(self, model: Any, placement: Placement) -> int:
        """Return how many parameters the adapter has on this base."""
        width, hidden = self.width_for(hidden_size(model)), hidden_size(model)
        places = sum(1 for _ in _matched(model, self.targets(model, placement)))
        return places * (2 * hidden * width + hidden + width)

    def peft_config(self, model: Any, placement: Placement) -> Any:
        """Return the configuration of the bottleneck tuner for this base.

        Raises:
            InputError: the layers or modules do not exist in the base.
        """
        from guidebook.peft import BottleneckConfig

        return BottleneckConfig(
            target_modules=self.targets(model, placement),
            width=self.width_for(hidden_size(model)),
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
        _check_range("dropout", self.dropout, self.dropout >= 0 and self.dropout < 1, "0 <= dropout < 1")
        if self.rank is not None:
            _check_range("rank", self.rank, self.rank >= 1, "at least 1")

    def targets(self, model: Any, placement: Placement) -> str:
        """Return the expression for the modules that are updated."""
        row = _placed(self, placement)
        layer = re.compile(row.layers.replace(INDEX, r"\d+") + r"\.")
        linear = (name for name, module in _matched(model, row.pattern(".*")) if _features(module) is not None)
        inside = {name[match.end() :] for name in linear if (match := layer.match(name))}
        if not inside:
            raise InputError(f"{type(model).__name__} has no linear module inside {row.layers!r}.")
        return row.pattern("|".join(re.escape(name) for name in sorted(inside)), _chosen(self, model, placement))

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
        return sum(sum(_features(module) or ()) for _, module in _matched(model, self.targets(model, placement)))

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
            fan_in_fan_out=any(type(module).__name__ == "Conv1D" for _, module in _matched(model, targets)),
        )


@dataclass(frozen=True)
class Full:
    """All weights of the base move: a whole copy of the model for every domain."""

    kind: Literal["full"] = "full"
    """Full fine-tuning."""
    learning_rate: ClassVar[float] = 5e-5

    def peft_config(self, model: Any, placement: Placement) -> None:
        """Return None: nothing is added to the base."""


def hidden_size(model: Any) -> int:
    """Return H, whatever the architecture calls it."""
    return int(model.config.get_text_config().hidden_size)


def layer_count(model: Any) -> int:
    """Return L, the number of layers of a model (of the encoder, where it has two stacks)."""
    return int(model.config.get_text_config().num_hidden_layers)


def _placed(kind: Houlsby | LoRA, placement: Placement) -> Placement:
    return replace(placement, **kind.modules)  # type: ignore[arg-type]


def _chosen(kind: Houlsby | LoRA, model: Any, placement: Placement) -> Sequence[int] | None:
    indices = _placed(kind, placement).indices(model)
    positions = layers_to_use(kind.layers, len(indices))
    return None if len(positions) == len(indices) else [indices[position] for position in positions]


def _matched(model: Any, pattern: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the base's modules that match, under their own names also where an adapter already wraps them."""
    expression = re.compile(pattern)
    wrapped: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(outer) for outer in wrapped):
            continue
        if hasattr(module, "base_layer"):
            wrapped.append(f"{name}.")
            module = module.get_base_layer()  # noqa: PLW2901
        if expression.fullmatch(name):
            yield name, module


def _features(module: Any) -> tuple[int, int] | None:
    """Return (in, out) of a linear module, GPT-2's Conv1D included, or None."""
    if isinstance(getattr(module, "in_features", None), int):
        return module.in_features, module.out_features
    return (module.nx, module.nf) if type(module).__name__ == "Conv1D" else None


def _check_range(name: str, value: float, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"adapter.{name} is {value}, expected {expected}.")
