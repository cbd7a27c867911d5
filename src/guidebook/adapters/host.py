"""The host: a frozen base with named adapters, of which a stack is active and some may train."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import xxhash
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guidebook.adapters.placement import NONE, PLACEMENTS, placement_for
from guidebook.adapters.presets import Full, Houlsby, Kind, LoRA, hidden_size
from guidebook.errors import InputError, RunError, nearest
from guidebook.peft import BASE_ROW, BottleneckType

PACKAGED = ("mini",)
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FULL_FILE = "model.safetensors"
PEFT_ROOT = "base_model.model."  # what PEFT writes before every module name in adapter_model.safetensors
KIND_NAMES = {str(BottleneckType.BOTTLENECK.value): "houlsby", "LORA": "lora"}


class Host:
    """A frozen base, its tokenizer, and adapters by name.

    `model` stays the same object whatever is added: call it with `input_ids`, `attention_mask` and, where the family
    has them, `token_type_ids`. At first no adapter is active and nothing trains.

    Attributes:
        model: The base under its language-modelling class.
        tokenizer: The base's tokenizer.
        config: The model's configuration.
        placement: Where adapters go.
        base_id: The name that loads this base anywhere: "mini", a Hub id, or the folder as it was given.
        base_path: Where the base was loaded from.
        fingerprint: xxh3 of the base's tensors when it was loaded; see `check_base`.
        lm_head: The module whose forward pre-hook sees the last hidden state (B, T, H) as first argument.
        hidden_size: H.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, base_id: str, base_path: str, modules: Mapping[str, str] = NONE
    ) -> None:
        self.model, self.tokenizer, self.base_id, self.base_path = model, tokenizer, base_id, base_path
        self.config: Any = model.config
        self.placement = replace(placement_for(model, modules), kind=_lm_kind(self.config))
        self.hidden_size = hidden_size(model)
        self.lm_head = _find(model, self.placement.lm_head)
        self._peft: Any = None
        self._configs: dict[str, PeftConfig | None] = {}  # None: kind full
        self._stack: tuple[str, ...] = ()
        self._train: frozenset[str] = frozenset()
        self._swapped: str | None = None  # the full adapter whose values are in the base's parameters now
        self._parked: dict[str | None, dict[str, Tensor]] = {}  # values that are not in the parameters; None: the base
        model.requires_grad_(False)
        parameters = {name for name, _ in model.named_parameters()}  # tied ones once, under the embeddings' name
        tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - parameters
        self._base_names = sorted(set(model.state_dict()) - tied)
        self._module_names = {part for name, _ in model.named_modules() for part in name.split(".")}
        model.register_forward_pre_hook(_refuse_adapter_names, with_kwargs=True)
        self.fingerprint = self.measure_base()

    @classmethod
    def load(
        cls, base: str, dtype: str = "float32", dropout: bool = False, modules: Mapping[str, str] = NONE
    ) -> Host:
        """Return the base "mini", of a folder, or of the Hub, under its language-modelling class.

        Args:
            base: "mini", a folder, or a Hub id.
            dtype: Of the weights in memory, whatever they are stored in.
            dropout: Keep the base's own dropout; without it every dropout probability is set to zero.
            modules: Module names by hand, for an architecture without a row in PLACEMENTS.

        Raises:
            InputError: no such base, no connection, no language-modelling class or head, an unknown architecture.
        """
        location, base_id = resolve_base(base)
        model, tokenizer = _load(location, base, dtype, dropout)
        return cls(model, tokenizer, base_id, location, modules)

    # Adapters by name

    @property
    def names(self) -> list[str]:
        """Names of the adapters, in the order in which they were added."""
        return list(self._configs)

    @property
    def stack(self) -> tuple[str, ...]:
        """Names of the active adapters, bottom first."""
        return self._stack

    def add(self, name: str, kind: Kind, seed: int) -> None:
        """Add an adapter that changes nothing yet, initialised from the seed alone; it is not active.

        Raises:
            InputError: the name is taken or unusable, or adapters of another kind are there.
        """
        config = kind.peft_config(self.model, self.placement)
        self._check_new(name, config)
        if config is None:
            self._configs[name] = None
            self._parked[name] = {key: tensor.detach().clone() for key, tensor in self._base_values().items()}
            return
        self._inject(name, config)
        self._initialise(name, seed)

    def copy(self, name: str, new: str) -> None:
        """Add the adapter `new` with exactly the configuration and values of `name`; it is not active."""
        config = self._config(name)
        self._check_new(new, config)
        if config is None:
            self._configs[new] = None
            self._parked[new] = {key: tensor.detach().clone() for key, tensor in self._full_values(name).items()}
            return
        self._inject(new, copy.deepcopy(config))
        self._write(new, self._read(name))

    def remove(self, name: str) -> None:
        """Remove an adapter; if it is active, it leaves the stack first. The last one leaves the bare base."""
        config = self._config(name)
        self.activate([other for other in self._stack if other != name], self._train - {name})
        del self._configs[name]
        if config is None:
            del self._parked[name]
        elif any(other is not None for other in self._configs.values()):
            self._peft.delete_adapter(name)
            self.activate(self._stack, self._train)
        else:
            self._peft.unload()
            self._peft = None

    def kind_of(self, name: str) -> str:
        """Return the adapter's kind as in KINDS."""
        config = self._config(name)
        return "full" if config is None else KIND_NAMES[config.peft_type.value]

    def parameters_of(self, name: str) -> int:
        """Return how many parameters the adapter has; for `full`, the whole base's, tied ones once."""
        if self._config(name) is None:
            return self.base_parameters
        return sum(parameter.numel() for parameter in self._parameters(name).values())

    @property
    def base_parameters(self) -> int:
        """How many parameters the base has, tied ones once."""
        return sum(parameter.numel() for parameter in self._base_values().values())

    # What is active, what moves

    def activate(self, stack: Sequence[str], train: Collection[str] = ()) -> None:
        """Make the adapters of `stack` active, bottom first; only the parameters of `train` get gradients.

        An empty stack is the base, bit for bit.

        Raises:
            InputError: an unknown name, one twice, one that trains but is not active, `full` together with others.
        """
        stack = tuple(stack)
        fulls = [name for name in stack if self._config(name) is None]
        if len(set(stack)) != len(stack) or (fulls and len(stack) > 1):
            raise InputError(f"Cannot stack {list(stack)}: every adapter once, and one of kind full only by itself.")
        if idle := sorted(set(train) - set(stack)):
            raise InputError(f"Adapter {idle[0]!r} cannot train: it is not in the stack {list(stack)}.")
        self._stack, self._train = stack, frozenset(train)
        self._swap(fulls[0] if fulls else None)
        within = [] if fulls else list(stack)
        if self._peft is not None:
            self._peft.base_model.active_adapter = within
        for _, layer in self._layers():
            layer.enable_adapters(bool(within))
            layer.set_adapter(within, inference_mode=True)  # PEFT would make all of them trainable
            layer.set_requires_grad(list(self._train), requires_grad=True)
        for parameter in self._parameters_of_base().values():
            parameter.requires_grad_(bool(fulls) and bool(train))

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Make the model the base, bit for bit, while the context lasts."""
        stack, train = self._stack, self._train
        self.activate(())
        try:
            yield
        finally:
            self.activate(stack, train)

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Send row i of every batch through the adapter names[i] (None: the base) while the context lasts.

        Raises:
            InputError: an unknown name or one of kind full, a model in training mode, or inside, a batch of another
                size.
        """
        used = sorted({name for name in names if name is not None})
        if fulls := [name for name in used if self._config(name) is None]:
            raise InputError(f"Adapter {fulls[0]!r} is a whole copy of the base and cannot share a batch.")
        if self.model.training:
            raise InputError("Rows of one batch can have their own adapters in evaluation mode only.")
        stack, train = self._stack, self._train
        self.activate(used)
        try:
            if self._peft is None:
                yield
                return
            self._peft.base_model.training = False  # PEFT looks at its own wrapper's mode, which nobody sets
            per_row = [BASE_ROW if name is None else name for name in names]
            with self._peft.base_model._enable_peft_forward_hooks(adapter_names=per_row):
                yield
        finally:
            self.activate(stack, train)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that get gradients now, by their names in `model`; tied ones once."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def measure_base(self) -> str:
        """Return the fingerprint of the base's tensors as they are in memory now, without any adapter."""
        return fingerprint_of(self._base_tensors())

    def check_base(self) -> None:
        """Raise RunError if a tensor of the base is not what was loaded."""
        if self.measure_base() != self.fingerprint:
            raise RunError(
                f"The frozen base {self.base_id} has changed in memory since it was loaded. Adapters trained on it do "
                "not fit the base that others load. Load the base again, and do not train its parameters."
            )

    # States

    def state(self, name: str) -> dict[str, Tensor]:
        """Return copies of the adapter's tensors under the names of PEFT's file; for `full`, all of the base's."""
        if self._config(name) is None:
            values = {**self._base_tensors(), **self._full_values(name)}
        else:
            values = self._read(name)
        return {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in sorted(values.items())}

    def load_state(self, name: str, kind: Kind, state: Mapping[str, Tensor]) -> None:
        """Give the adapter the values of a state; add it first if it is not there.

        Raises:
            InputError: the state's names or shapes are not those of this kind on this base.
        """
        new = name not in self._configs
        if new:
            self.add(name, kind, seed=0)
        self._fill(name, state, f"The state for adapter {name!r}", remove=new)

    def save(self, name: str, folder: Path | str) -> None:
        """Write the adapter in PEFT's layout; for `full`, a model that transformers loads."""
        folder, config = Path(folder), self._config(name)
        folder.mkdir(parents=True, exist_ok=True)
        weights = FULL_FILE if config is None else WEIGHTS_FILE
        save_file(self.state(name), folder / weights, metadata={"format": "pt"})
        if config is None:
            saved: Any = copy.deepcopy(self.config)
            for key, value in getattr(self.config, "_guidebook_dropout", {}).items():
                setattr(saved, key, value)
            saved.save_pretrained(folder)
            return
        saved = copy.copy(config)
        saved.inference_mode = True
        mapping = {"base_model_class": type(self.model).__name__, "parent_library": type(self.model).__module__}
        saved.save_pretrained(str(folder), auto_mapping_dict=mapping)

    def load(self, name: str, folder: Path | str) -> None:  # type: ignore[no-redef]
        """Add the adapter that `save` wrote."""


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the xxh3_128 of names, dtypes, shapes and bytes, in the order of the names."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
