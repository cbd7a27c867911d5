"""Bottleneck adapters as a PEFT tuner. Importing this module is what makes PEFT load them.

The one file on PEFT's internals: `register_peft_method` accepts only names of PEFT's own enumeration, so the tuner
enters PEFT's three mappings directly. That is why `peft` is pinned; `tests/adapters/test_tuner.py` is the canary.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

from guidebook.adapters.bottleneck import ACTIVATIONS, bottleneck
from guidebook.errors import InputError, nearest

BASE_ROW = "__base__"  # PEFT's own word in `adapter_names` for a row that goes through the base alone


class BottleneckType(str, enum.Enum):  # noqa: UP042  (PEFT's own members are str enumerations and it reads .value)
    """The name under which PEFT finds the tuner, also in adapter_config.json."""

    BOTTLENECK = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """Configuration of bottleneck adapters, stored as adapter_config.json."""

    target_modules: str | list[str] | None = field(
        default=None, metadata={"help": "Modules whose output goes through the adapter: a regex or name endings."}
    )
    exclude_modules: str | list[str] | None = field(default=None, metadata={"help": "Modules to leave out."})
    width: int = field(default=64, metadata={"help": "Units of the bottleneck."})
    activation: str = field(default="gelu", metadata={"help": f"One of {', '.join(ACTIVATIONS)}."})
    dropout: float = field(default=0.0, metadata={"help": "Share of the bottleneck's units dropped in training."})
    scaling: float = field(default=1.0, metadata={"help": "Factor of what the adapter adds."})

    def __post_init__(self) -> None:
        """Raise InputError for values that no bottleneck has."""
        super().__post_init__()
        self.peft_type = BottleneckType.BOTTLENECK
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"Unknown activation {self.activation!r}.{nearest(self.activation, ACTIVATIONS)} "
                f"Known: {', '.join(ACTIVATIONS)}."
            )
        if self.width < 1:
            raise InputError(f"A bottleneck has at least one unit, found width {self.width}.")


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A module whose output goes through the active adapters, bottom first."""

    adapter_layer_names: tuple[str, ...] = ("guidebook_bottleneck_down", "guidebook_bottleneck_up")
    other_param_names: tuple[str, ...] = ("settings",)

    def __init__(self, base_layer: nn.Module, features: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.features = features
        self.guidebook_bottleneck_down = nn.ModuleDict()
        self.guidebook_bottleneck_up = nn.ModuleDict()
        self.settings: dict[str, BottleneckConfig] = {}
        self.row_adapters: Sequence[str] | None = None
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: list[str] = []
        self.train(base_layer.training)

    def update_layer(self, name: str, config: BottleneckConfig) -> None:
        """Add an adapter; its up projection is zero, so the module computes what it did before."""
        weight = next(self.base_layer.parameters(), None)
        down = nn.Linear(self.features, config.width, dtype=torch.float32)
        up = nn.Linear(config.width, self.features, dtype=torch.float32)
        for tensor in (down.bias, up.weight, up.bias):
            nn.init.zeros_(tensor)
        if weight is not None and "meta" not in (weight.device.type, down.weight.device.type):
            down, up = down.to(weight.device), up.to(weight.device)
        self.guidebook_bottleneck_down[name] = down
        self.guidebook_bottleneck_up[name] = up
        self.settings[name] = config
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)  # type: ignore[operator]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:
        """Raise InputError: see `refuse_merge`."""
        refuse_merge()

    def unmerge(self) -> None:
        """Do nothing: nothing is ever merged."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the wrapped module's output after the active adapters; of a tuple, its first entry goes through."""
        output = self.base_layer(*args, **kwargs)
        if self.row_adapters is None and (self.disable_adapters or not self.active_adapters):
            return output
        if isinstance(output, tuple):
            return (self._adapted(output[0]), *output[1:])
        return self._adapted(output)

    def _adapted(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        if self.row_adapters is not None:
            return self._mixed(hidden, self.row_adapters).to(dtype)
        active: list[str] = self.active_adapters  # type: ignore[assignment]
        for name in active:
            if name in self.settings:
                config, weights = self.settings[name], self._weights(name)
                activation, hidden = self._activation(config), _cast(hidden, weights[0])
                hidden = bottleneck(hidden, *weights, activation=activation, scaling=config.scaling)
        return hidden.to(dtype)

    def _weights(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        down, up = self.guidebook_bottleneck_down[name], self.guidebook_bottleneck_up[name]
        return down.weight, down.bias, up.weight, up.bias  # type: ignore[return-value]

    def _activation(self, config: BottleneckConfig) -> Any:
        activation = ACTIVATIONS[config.activation]
        if config.dropout and self.training:
            return lambda inner: functional.dropout(activation(inner), config.dropout)
        return activation

    def _mixed(self, hidden: Tensor, rows: Sequence[str]) -> Tensor:
        """Return hidden (B, ..., H) with each row through its own adapter: one batched product per projection."""
        if len(rows) != hidden.shape[0]:
            raise InputError(
                f"adapter_names has {len(rows)} entries, but a module saw a batch of {hidden.shape[0]}. Give one "
                f"name per row ({BASE_ROW!r}: the base). Beam search and modules that flatten the batch cannot."
            )
        names = sorted({name for name in rows if name in self.settings})
        if not names:
            return hidden
        activations = {self.settings[name].activation for name in names}
        if len(activations) > 1:
            raise InputError(f"One batch cannot mix adapters with the activations {', '.join(sorted(activations))}.")
        width = max(self.settings[name].width for name in names)
        stacks = [torch.stack(parts) for parts in zip(*(self._padded(name, width) for name in names), strict=True)]
        scalings = [0.0, *(self.settings[name].scaling for name in names)]  # id 0 is the base
        ids = torch.tensor([names.index(row) + 1 if row in names else 0 for row in rows], device=hidden.device)
        chosen = (ids - 1).clamp(min=0)
        hidden = _cast(hidden, stacks[0])
        scaling = torch.tensor(scalings, device=hidden.device, dtype=hidden.dtype)[ids]  # (B,)
        down, down_bias, up, up_bias = (stack.index_select(0, chosen) for stack in stacks)  # (K, ...) -> (B, ...)
        activation = ACTIVATIONS[activations.pop()]
        mixed = bottleneck(hidden, down, down_bias, up, up_bias, activation=activation, scaling=scaling)
        return torch.where((ids > 0).reshape(-1, *[1] * (hidden.dim() - 1)), mixed, hidden)

    def _padded(self, name: str, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the weights with zero units added up to `width`: their up columns are zero, so they add nothing."""
        down, down_bias, up, up_bias = self._weights(name)
        missing = width - down.shape[0]
        pad = functional.pad
        return pad(down, (0, 0, 0, missing)), pad(down_bias, (0, missing)), pad(up, (0, missing)), up_bias


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """The tuner: puts a `BottleneckLayer` around every target module."""

    prefix = "guidebook_bottleneck_"  # long: PEFT's delete_adapter skips every module whose name contains it
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        **_: Any,
    ) -> None:
        if not isinstance(target, BottleneckLayer):
            wrapped = BottleneckLayer(target, _features(target, self.model))
            self._replace_module(parent, target_name, wrapped, target)
            target = wrapped
        target.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            target.set_requires_grad(adapter_name, requires_grad=False)  # type: ignore[operator]

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Swap a module, without PEFT's copying of `.weight`, which a wrapped block does not have."""
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> NoReturn:
        refuse_merge()

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Send each row of the batch through the adapter that `adapter_names` gives it, while the context lasts."""
        rows = kwargs.pop("adapter_names", None)
        if rows is None:
            yield
            return
        unknown = sorted(set(rows) - set(self.peft_config) - {BASE_ROW})
        if unknown:
            raise InputError(
                f"adapter_names names the adapter {unknown[0]!r}.{nearest(unknown[0], self.peft_config)} "
                f"Known: {', '.join(self.peft_config)}, and {BASE_ROW} for the base."
            )
        if self.model.training:
            raise InputError("adapter_names works in evaluation mode only. Call model.eval() first.")
        layers = [module for module in self.model.modules() if isinstance(module, BottleneckLayer)]
        for layer in layers:
            layer.row_adapters = list(rows)
        try:
            yield
        finally:
            for layer in layers:
                layer.row_adapters = None


def _cast(hidden: Tensor, weight: Tensor) -> Tensor:
    """Return hidden in the adapter's dtype, which is fp32 whatever the base's is; autocast does it by itself."""
    return hidden if torch.is_autocast_enabled(hidden.device.type) else hidden.to(weight.dtype)


def refuse_merge() -> NoReturn:
    """Raise InputError with the reason and the alternative."""
    raise InputError(
        "Bottleneck adapters cannot be merged into the base: there is a non-linearity between their two projections. "
        "Train the adapter kind `lora`, which can be merged, or keep the adapter separate."
    )


def _features(module: nn.Module, model: nn.Module) -> int:
    """Return H of a module's output: a linear layer's own, GPT-2's Conv1D's `nf`, else the model's hidden size."""
    for attribute in ("out_features", "nf"):
        if isinstance(getattr(module, attribute, None), int):
            return int(getattr(module, attribute))
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if not hasattr(text, "hidden_size"):
        raise InputError(
            f"Cannot tell how many features {type(module).__name__} returns. Target its last linear layer."
        )
    return int(text.hidden_size)


PEFT_TYPE_TO_CONFIG_MAPPING[BottleneckType.BOTTLENECK] = BottleneckConfig
PEFT_TYPE_TO_TUNER_MAPPING[BottleneckType.BOTTLENECK] = BottleneckModel
PEFT_TYPE_TO_PREFIX_MAPPING[BottleneckType.BOTTLENECK] = BottleneckModel.prefix
