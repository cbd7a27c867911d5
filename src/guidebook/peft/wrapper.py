"""What the tuners share: a module around a module of the base, and the tuner that puts it there."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from guidebook.errors import InputError

BASE_ROW = "__base__"  # PEFT's own word in `adapter_names` for a row that goes through the base alone


class Wrapper(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A module of the base with adapters around it; whatever it does not know itself, the module of the base answers.

    Layers of transformers are asked for more than their output (`attention_type`, for one), hence the last point.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.settings: dict[str, Any] = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: list[str] = []
        self.train(base_layer.training)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(super().__getattr__("base_layer"), name)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:
        """Raise InputError: see `refuse_merge`."""
        refuse_merge()

    def unmerge(self) -> None:
        """Do nothing: nothing is ever merged."""

    def release(self) -> None:
        """Leave the base's module as it was; called when it takes this module's place again."""

    def place(self, *modules: nn.Module) -> None:
        """Move an adapter's new modules to where the base's module is."""
        weight = next(self.base_layer.parameters(), None)
        for module in modules:
            own = next(module.parameters())
            if weight is not None and "meta" not in (weight.device.type, own.device.type):
                module.to(weight.device)

    def switch_on(self, config: Any) -> None:
        """Bring the state of a new adapter in line with what is active."""
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)  # type: ignore[operator]

    @property
    def running(self) -> list[str]:
        """The active adapters that this module has, bottom first; none while adapters are disabled."""
        active: list[str] = [] if self.disable_adapters else self.active_adapters  # type: ignore[assignment]
        return [name for name in active if name in self.settings]


class WrapperModel(BaseTuner):  # type: ignore[misc]
    """A tuner that wraps modules, with or without weights of their own, and never merges."""

    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Swap a module, without PEFT's copying of `.weight`, which a wrapped block does not have."""
        if isinstance(child, Wrapper):
            child.release()
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> NoReturn:
        refuse_merge()


def autocast_dtype(hidden: Tensor) -> torch.dtype | None:
    """Return the dtype that autocast gives to features (..., H); None where it is off."""
    device = hidden.device.type  # "meta" has no autocast to ask for
    return torch.get_autocast_dtype(device) if device != "meta" and torch.is_autocast_enabled(device) else None


def cast(hidden: Tensor, weight: Tensor) -> Tensor:
    """Return hidden in the adapter's dtype, which is fp32 whatever the base's is; autocast does it by itself."""
    return hidden if autocast_dtype(hidden) is not None else hidden.to(weight.dtype)


def features_of(module: nn.Module, model: nn.Module) -> int:
    """Return H of a module's output: a linear layer's own, GPT-2's Conv1D's `nf`, else the model's hidden size."""
    for attribute in ("out_features", "nf", "embedding_dim"):
        if isinstance(getattr(module, attribute, None), int):
            return int(getattr(module, attribute))
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if not hasattr(text, "hidden_size"):
        raise InputError(
            f"Cannot tell how many features {type(module).__name__} returns. Target its last linear layer."
        )
    return int(text.hidden_size)


def refuse_merge() -> NoReturn:
    """Raise InputError with the reason and the alternative."""
    raise InputError(
        "Bottleneck adapters cannot be merged into the base: there is a non-linearity between their two projections. "
        "Train the adapter kind `lora`, which can be merged, or keep the adapter separate."
    )
