"""Invertible adapters as a tuner of PEFT: at the embeddings, and inverted before the tied output embeddings."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn

from guidebook.adapters.bottleneck import ACTIVATIONS
from guidebook.adapters.coupling import couple, uncouple
from guidebook.errors import InputError, nearest
from guidebook.peft.wrapper import BASE_ROW, Wrapper, WrapperModel, cast, features_of

PROJECTIONS = ("first_down", "first_up", "second_down", "second_up")


class InvertibleType(str, enum.Enum):  # noqa: UP042  (as in BottleneckType)
    """The name under which PEFT finds the tuner, also in adapter_config.json."""

    INVERTIBLE = "INVERTIBLE"


@dataclass
class InvertibleConfig(PeftConfig):  # type: ignore[misc]
    """Configuration of invertible adapters, stored as adapter_config.json."""

    target_modules: str | list[str] | None = field(
        default=None, metadata={"help": "The module that returns the embedded text, as a regex over its name."}
    )
    exclude_modules: str | list[str] | None = field(default=None, metadata={"help": "Modules to leave out."})
    inverse_modules: str | None = field(
        default=None,
        metadata={"help": "The output embeddings, whose input goes through the inverse; none: no inverse."},
    )
    reduction: float = field(default=2.0, metadata={"help": "Features a coupling reads divided by its hidden units."})
    activation: str = field(default="relu", metadata={"help": f"One of {', '.join(ACTIVATIONS)}."})

    def __post_init__(self) -> None:
        """Raise InputError for values that no coupling has."""
        super().__post_init__()
        self.peft_type = InvertibleType.INVERTIBLE
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"Unknown activation {self.activation!r}.{nearest(self.activation, ACTIVATIONS)} "
                f"Known: {', '.join(ACTIVATIONS)}."
            )


class InvertibleLayer(Wrapper):
    """The embeddings with their output coupled, or the output embeddings with their input uncoupled."""

    adapter_layer_names: tuple[str, ...] = tuple(f"guidebook_invertible_{name}" for name in PROJECTIONS)
    other_param_names: tuple[str, ...] = ("settings",)

    def __init__(self, base_layer: nn.Module, features: int, inverse: bool = False) -> None:
        super().__init__(base_layer)
        self.features = features
        self.inverse = inverse
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ModuleDict())
        self.owner: list[InvertibleLayer] = []  # whose weights an inverse uses; a list keeps it out of the parameters
        self.train(base_layer.training)

    def update_layer(self, name: str, config: InvertibleConfig) -> None:
        """Add an adapter; its couplings add zero. The output embeddings use the weights at the embeddings."""
        self.settings[name] = config
        if not self.inverse:
            low = self.features // 2
            high = self.features - low
            for which, reads, writes in (("first", high, low), ("second", low, high)):
                units = max(1, int(reads // config.reduction))
                down = nn.Linear(reads, units, dtype=torch.float32)
                up = nn.Linear(units, writes, dtype=torch.float32)
                for tensor in (down.bias, up.weight, up.bias):
                    nn.init.zeros_(tensor)
                self.place(down, up)
                getattr(self, f"guidebook_invertible_{which}_down")[name] = down
                getattr(self, f"guidebook_invertible_{which}_up")[name] = up
        self.switch_on(config)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return coupled embeddings, or logits of uncoupled hidden states: the inverse takes the stack from the top."""
        if self.inverse:
            hidden = args[0]
            for name in reversed(self.running):
                hidden = self._changed(uncouple, hidden, name)
            return self.base_layer(hidden, *args[1:], **kwargs)
        output = self.base_layer(*args, **kwargs)
        for name in self.running:
            output = self._changed(couple, output, name)
        return output

    def _changed(self, change: Any, hidden: Tensor, name: str) -> Tensor:
        holder = self.owner[0] if self.inverse else self
        layers = [getattr(holder, projection)[name] for projection in self.adapter_layer_names]
        weights = [(down.weight, down.bias, up.weight, up.bias) for down, up in (layers[:2], layers[2:])]
        activation = ACTIVATIONS[self.settings[name].activation]
        changed: Tensor = change(cast(hidden, layers[0].weight), *weights, activation=activation)
        return changed.to(hidden.dtype)


class InvertibleModel(WrapperModel):
    """The tuner: wraps the embeddings, and the output embeddings where the configuration names them."""

    prefix = "guidebook_invertible_"
    tuner_layer_cls = InvertibleLayer

    def _check_target_module_exists(self, peft_config: InvertibleConfig, key: str) -> Any:
        inverse = peft_config.inverse_modules
        if inverse is not None and re.fullmatch(inverse, key):
            return True
        return super()._check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: InvertibleConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        *,
        current_key: str,
    ) -> None:
        inverse = peft_config.inverse_modules is not None and bool(
            re.fullmatch(peft_config.inverse_modules, current_key)
        )
        if not isinstance(target, InvertibleLayer):
            wrapped = InvertibleLayer(target, 0 if inverse else _embedded_features(target, self.model), inverse)
            self._replace_module(parent, target_name, wrapped, target)
            target = wrapped
        layers = [module for module in self.model.modules() if isinstance(module, InvertibleLayer)]
        for layer in layers:  # whichever of the two comes first in the model
            if layer.inverse and not layer.owner:
                layer.owner += [other for other in layers if not other.inverse]
        target.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            target.set_requires_grad(adapter_name, requires_grad=False)  # type: ignore[operator]

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Refuse rows with their own adapters: the language-modelling head may be handed rows of many texts at once."""
        rows = kwargs.pop("adapter_names", None)
        if rows is not None and set(rows) != {BASE_ROW}:
            raise InputError("Invertible adapters cannot send rows of one batch through adapters of their own.")
        yield


def _embedded_features(module: nn.Module, model: nn.Module) -> int:
    """Return the features of embedded text: of a block of embeddings, those of its token embeddings."""
    inner = next((part for part in module.modules() if isinstance(part, nn.Embedding)), module)
    return features_of(inner, model)
