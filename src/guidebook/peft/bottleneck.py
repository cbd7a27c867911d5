"""Bottleneck adapters as a tuner of PEFT: after a module, around a layer norm, or beside a sub-layer."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from guidebook.adapters.bottleneck import ACTIVATIONS, bottleneck
from guidebook.adapters.phm import phm_matrix
from guidebook.errors import InputError, nearest
from guidebook.peft.wrapper import BASE_ROW, Wrapper, WrapperModel, cast, features_of

Adapt = Callable[[Tensor, Tensor], Tensor]
"""(what the bottleneck reads, what its result is added to) -> the sum"""

FORMS = ("output", "norm", "residual", "parallel")


class BottleneckType(str, enum.Enum):  # noqa: UP042  (PEFT's own members are str enumerations and it reads .value)
    """The name under which PEFT finds the tuner, also in adapter_config.json."""

    BOTTLENECK = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """Configuration of bottleneck adapters, stored as adapter_config.json."""

    target_modules: str | list[str] | None = field(
        default=None, metadata={"help": "Modules that get an adapter: a regex or name endings."}
    )
    exclude_modules: str | list[str] | None = field(default=None, metadata={"help": "Modules to leave out."})
    width: int = field(default=64, metadata={"help": "Units of the bottleneck."})
    activation: str = field(default="gelu", metadata={"help": f"One of {', '.join(ACTIVATIONS)}."})
    dropout: float = field(default=0.0, metadata={"help": "Share of the bottleneck's units dropped in training."})
    scaling: float = field(default=1.0, metadata={"help": "Factor of what the adapter adds."})
    form: str = field(
        default="output",
        metadata={
            "help": "output: the module's output goes through the adapter. norm: the module is a layer norm, and the "
            "adapter reads its output and changes its input. residual: the module takes a residual as its second "
            "input, which goes through the adapter. parallel: the adapter reads the module's first input and adds to "
            "its output."
        },
    )
    phm: int = field(default=0, metadata={"help": "Kronecker products that make up a projection; 0: a full matrix."})
    phm_rank: int = field(default=1, metadata={"help": "Rank of the larger factor of each Kronecker product."})
    kind: str = field(default="houlsby", metadata={"help": "What guidebook calls adapters like this."})

    def __post_init__(self) -> None:
        """Raise InputError for values that no bottleneck has."""
        super().__post_init__()
        self.peft_type = BottleneckType.BOTTLENECK
        for name, value, known in (("activation", self.activation, ACTIVATIONS), ("form", self.form, FORMS)):
            if value not in known:
                raise InputError(f"Unknown {name} {value!r}.{nearest(value, known)} Known: {', '.join(known)}.")
        if self.width < 1:
            raise InputError(f"A bottleneck has at least one unit, found width {self.width}.")
        if self.phm and self.width % self.phm:
            raise InputError(f"A bottleneck of {self.phm} Kronecker products has a width that {self.phm} divides, "
                             f"found width {self.width}.")  # fmt: skip


class PHMLinear(nn.Module):
    """The factors of a projection by parametrised hypercomplex multiplication; the shared rule lies elsewhere."""

    def __init__(self, inputs: int, outputs: int, terms: int, rank: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(terms, inputs // terms, rank) / inputs**0.5)
        self.right = nn.Parameter(torch.randn(terms, rank, outputs // terms))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def weight_by(self, rule: Tensor) -> Tensor:
        """Return the projection as a linear layer's weight (out, in)."""
        return phm_matrix(rule, self.left, self.right).mT


class PHMRule(nn.Module):
    """The small matrices (N, N, N) that all projections of one adapter share."""

    def __init__(self, terms: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(terms, terms, terms) / terms**0.5)


class BottleneckLayer(Wrapper):
    """A module of the base whose input or output goes through the active adapters, bottom first."""

    adapter_layer_names: tuple[str, ...] = (
        "guidebook_bottleneck_down",
        "guidebook_bottleneck_up",
        "guidebook_bottleneck_rule",
    )
    other_param_names: tuple[str, ...] = ("settings", "owners")

    def __init__(self, base_layer: nn.Module, features: int) -> None:
        super().__init__(base_layer)
        self.features = features
        self.guidebook_bottleneck_down = nn.ModuleDict()
        self.guidebook_bottleneck_up = nn.ModuleDict()
        self.guidebook_bottleneck_rule = nn.ModuleDict()
        self.owners: dict[str, BottleneckLayer] = {}  # adapter -> the module that holds the rule it shares
        self.row_adapters: Sequence[str] | None = None
        # A whole layer is adapted by a hook on itself, the first, so that whoever else has hooks there (transformers
        # collects hidden states with some) sees what the next layer sees.
        self.is_whole = isinstance(base_layer, GradientCheckpointingLayer)
        self._hook = base_layer.register_forward_hook(self._after, prepend=True) if self.is_whole else None
        self.train(base_layer.training)

    def release(self) -> None:
        """Take the hook off the base's layer."""
        if self._hook is not None:
            self._hook.remove()

    def update_layer(self, name: str, config: BottleneckConfig, owner: BottleneckLayer | None = None) -> None:
        """Add an adapter; its up projection is zero, so the module computes what it did before.

        Args:
            name: Of the adapter.
            config: Its configuration.
            owner: The module that holds the rule which this one shares; none: this one.
        """
        down: nn.Module
        up: nn.Module
        if config.phm:
            if self.features % config.phm:
                raise InputError(f"{config.phm} Kronecker products need a hidden size that {config.phm} divides, found "
                                 f"{self.features}. Choose another adapter.products.")  # fmt: skip
            down = PHMLinear(self.features, config.width, config.phm, config.phm_rank)
            up = PHMLinear(config.width, self.features, config.phm, config.phm_rank)
            nn.init.zeros_(up.right)
            if owner is None:
                self.guidebook_bottleneck_rule[name] = PHMRule(config.phm)
                self.place(self.guidebook_bottleneck_rule[name])
            self.owners[name] = owner or self
        else:
            down = nn.Linear(self.features, config.width, dtype=torch.float32)
            up = nn.Linear(config.width, self.features, dtype=torch.float32)
            for tensor in (down.bias, up.weight, up.bias):
                nn.init.zeros_(tensor)
        self.place(down, up)
        self.guidebook_bottleneck_down[name] = down
        self.guidebook_bottleneck_up[name] = up
        self.settings[name] = config
        self.switch_on(config)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the wrapped module's output with the active adapters; of a tuple, its first entry is adapted."""
        turns = self._turns()
        for form, adapt in turns:
            if form == "residual":
                args = (args[0], adapt(args[1], args[1]), *args[2:])
            elif form == "norm":
                args = (adapt(self.base_layer(args[0]), args[0]), *args[1:])
        output = self.base_layer(*args, **kwargs)
        return output if self.is_whole else self._changed(turns, args, output)

    def _after(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return self._changed(self._turns(), args, output)

    @staticmethod
    def _changed(turns: list[tuple[str, Adapt]], args: tuple[Any, ...], output: Any) -> Any:
        for form, adapt in turns:
            if form in ("output", "parallel"):
                hidden = output[0] if isinstance(output, tuple) else output
                hidden = adapt(args[0] if form == "parallel" else hidden, hidden)
                output = (hidden, *output[1:]) if isinstance(output, tuple) else hidden
        return output

    def _turns(self) -> list[tuple[str, Adapt]]:
        """Return what happens here, in order: one turn for each active adapter, or one for all rows' own adapters."""
        if self.row_adapters is None:
            return [(self.settings[name].form, self._alone(name)) for name in self.running]
        names = sorted({name for name in self.row_adapters if name in self.settings})
        for what in ("form", "activation"):
            if len(found := sorted({getattr(self.settings[name], what) for name in names})) > 1:
                raise InputError(f"One batch cannot mix adapters with the {what}s {', '.join(found)}.")
        return [(self.settings[names[0]].form, self._mixed(names, self.row_adapters))] if names else []

    def _alone(self, name: str) -> Adapt:
        config, weights = self.settings[name], self._weights(name)
        activation = self._activation(config)

        def adapt(hidden: Tensor, residual: Tensor) -> Tensor:
            inner, outer = cast(hidden, weights[0]), cast(residual, weights[0])
            adapted = bottleneck(inner, *weights, activation=activation, scaling=config.scaling, residual=outer)
            return adapted.to(residual.dtype)

        return adapt

    def _weights(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        down: Any = self.guidebook_bottleneck_down[name]
        up: Any = self.guidebook_bottleneck_up[name]
        if name in self.owners:
            rule: Any = self.owners[name].guidebook_bottleneck_rule[name]
            return down.weight_by(rule.weight), down.bias, up.weight_by(rule.weight), up.bias
        return down.weight, down.bias, up.weight, up.bias

    def _activation(self, config: BottleneckConfig) -> Any:
        activation = ACTIVATIONS[config.activation]
        if config.dropout and self.training:
            return lambda inner: functional.dropout(activation(inner), config.dropout)
        return activation

    def _mixed(self, names: Sequence[str], rows: Sequence[str]) -> Adapt:
        """Return what sends each row through its own adapter: one batched product per projection."""
        width = max(self.settings[name].width for name in names)
        stacks = [torch.stack(parts) for parts in zip(*(self._padded(name, width) for name in names), strict=True)]
        scalings = [0.0, *(self.settings[name].scaling for name in names)]  # id 0 is the base
        activation = ACTIVATIONS[self.settings[names[0]].activation]

        def adapt(hidden: Tensor, residual: Tensor) -> Tensor:
            if len(rows) != hidden.shape[0]:
                raise InputError(
                    f"adapter_names has {len(rows)} entries, but a module saw a batch of {hidden.shape[0]}. Give one "
                    f"name per row ({BASE_ROW!r}: the base). Beam search and modules that flatten the batch cannot."
                )
            ids = torch.tensor([names.index(row) + 1 if row in names else 0 for row in rows], device=hidden.device)
            chosen = (ids - 1).clamp(min=0)
            inner, outer = cast(hidden, stacks[0]), cast(residual, stacks[0])
            scaling = torch.tensor(scalings, device=inner.device, dtype=inner.dtype)[ids]  # (B,)
            own = (stack.index_select(0, chosen) for stack in stacks)  # (K, ...) -> (B, ...)
            mixed = bottleneck(inner, *own, activation=activation, scaling=scaling, residual=outer)
            kept = torch.where((ids > 0).reshape(-1, *[1] * (hidden.dim() - 1)), mixed, outer)
            return kept.to(residual.dtype)

        return adapt

    def _padded(self, name: str, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the weights with zero units added up to `width`: their up columns are zero, so they add nothing."""
        down, down_bias, up, up_bias = self._weights(name)
        missing = width - down.shape[0]
        pad = functional.pad
        return pad(down, (0, 0, 0, missing)), pad(down_bias, (0, missing)), pad(up, (0, missing)), up_bias


class BottleneckModel(WrapperModel):
    """The tuner: puts a `BottleneckLayer` around every target module."""

    prefix = "guidebook_bottleneck_"  # long: PEFT's delete_adapter skips every module whose name contains it
    tuner_layer_cls = BottleneckLayer

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
            wrapped = BottleneckLayer(target, features_of(target, self.model))
            self._replace_module(parent, target_name, wrapped, target)
            target = wrapped
        layers = self._layers() if peft_config.phm else ()
        owner = next((layer for layer in layers if adapter_name in layer.guidebook_bottleneck_rule), None)
        target.update_layer(adapter_name, peft_config, owner)
        if adapter_name not in self.active_adapters:
            target.set_requires_grad(adapter_name, requires_grad=False)  # type: ignore[operator]

    def _layers(self) -> Iterator[BottleneckLayer]:
        return (module for module in self.model.modules() if isinstance(module, BottleneckLayer))

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
        layers = list(self._layers())
        for layer in layers:
            layer.row_adapters = list(rows)
        try:
            yield
        finally:
            for layer in layers:
                layer.row_adapters = None
