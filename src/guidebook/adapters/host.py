"""The host: a frozen base with named adapters, of which a stack is active and some may train."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from guidebook.adapters.bases import Base, fingerprint_of, lm_kind, load_base
from guidebook.adapters.full import WholeCopies
from guidebook.adapters.placement import NONE, placement_for
from guidebook.adapters.presets import Full, Kind, hidden_size, layer_count
from guidebook.adapters.storage import KIND_NAMES, read_adapter, write_adapter, write_model
from guidebook.errors import InputError, RunError, nearest
from guidebook.peft import BASE_ROW

PEFT_ROOT = "base_model.model."  # what PEFT writes before every module name in adapter_model.safetensors


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
        layers: L.
    """

    def __init__(self, base: Base, modules: Mapping[str, str] = NONE) -> None:
        self.model, self.tokenizer = base.model, base.tokenizer
        self.base_id, self.base_path = base.id, base.path
        self.config: Any = base.model.config
        self.placement = replace(placement_for(base.model, modules), kind=lm_kind(base.config))
        self.hidden_size = hidden_size(base.model)
        self.layers = layer_count(base.model)
        self.lm_head = self.placement.head_of(base.model)
        self._base = base
        self._whole = WholeCopies(base.model)
        self._peft: Any = None
        self._configs: dict[str, PeftConfig | None] = {}  # None: kind full
        self._stack: tuple[str, ...] = ()
        self._train: frozenset[str] = frozenset()
        self._module_names = {part for name, _ in base.model.named_modules() for part in name.split(".")}
        base.model.requires_grad_(False)
        base.model.register_forward_pre_hook(_refuse_adapter_names, with_kwargs=True)
        self.fingerprint = self.measure_base()

    @classmethod
    def load(cls, base: str, dtype: str = "float32", dropout: bool = False, modules: Mapping[str, str] = NONE) -> Host:
        """Return the base "mini", of a folder, or of the Hub, under its language-modelling class, without adapters.

        Args:
            base: "mini", a folder, or a Hub id.
            dtype: Of the weights in memory, whatever they are stored in.
            dropout: Keep the base's own dropout; without it every dropout probability is set to zero.
            modules: Module names by hand, for an architecture without a row in PLACEMENTS.

        Raises:
            InputError: no such base, no connection, no language-modelling class or head, an unknown architecture.
        """
        return cls(load_base(base, dtype, dropout), modules)

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
            self._whole.add(name)
            return
        self._inject(name, config)
        self._initialise(name, seed)

    def copy(self, name: str, new: str) -> None:
        """Add the adapter `new` with exactly the configuration and values of `name`; it is not active."""
        config = self._config(name)
        self._check_new(new, config)
        if config is None:
            self._configs[new] = None
            self._whole.add(new, start=name)
            return
        self._inject(new, copy.deepcopy(config))
        self._write(new, self._parameters(name))

    def remove(self, name: str) -> None:
        """Remove an adapter; if it is active, it leaves the stack first. The last one leaves the bare base."""
        config = self._config(name)
        self.activate([other for other in self._stack if other != name], self._train - {name})
        del self._configs[name]
        if config is None:
            self._whole.remove(name)
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
        return sum(parameter.numel() for parameter in self._whole.parameters().values())

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
        self._whole.put(fulls[0] if fulls else None)
        within = [] if fulls else list(stack)
        if self._peft is not None:
            self._peft.base_model.active_adapter = within
        for _, layer in self._layers():
            layer.enable_adapters(bool(within))
            layer.set_adapter(within, inference_mode=True)  # PEFT would make all of them trainable
            layer.set_requires_grad(list(self._train), requires_grad=True)
        for parameter in self._whole.parameters().values():
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
            InputError: an unknown name or one of kind full, a model in training mode; inside, a batch of another size.
        """
        used = sorted({name for name in names if name is not None})
        if fulls := [name for name in used if self._config(name) is None]:
            raise InputError(f"Adapter {fulls[0]!r} is a whole copy of the base and cannot share a batch.")
        if self.model.training:
            raise InputError("Rows of one batch can have their own adapters in evaluation mode only.")
        stack, train = self._stack, self._train
        self.activate(used)
        try:
            if not used:
                yield
                return
            self._peft.base_model.training = False  # PEFT looks at its own wrapper's mode, which nobody sets
            with self._peft.base_model._enable_peft_forward_hooks(adapter_names=[name or BASE_ROW for name in names]):
                yield
        finally:
            self.activate(stack, train)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that get gradients now, by their names in `model`; tied ones once."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def measure_base(self) -> str:
        """Return the fingerprint of the base's tensors as they are in memory now, without any adapter."""
        return fingerprint_of(self._whole.tensors(None))

    def check_base(self) -> None:
        """Raise RunError if a tensor of the base is not what was loaded."""
        if self.measure_base() != self.fingerprint:
            raise RunError(
                f"The frozen base {self.base_id} has changed in memory since it was loaded. Adapters trained on it fit "
                "no base that others load. Load the base again, and do not train its parameters."
            )

    def check_length(self, length: int) -> None:
        """Raise InputError if rows of `length` tokens are longer than the base has positions."""
        positions = getattr(self.config, "max_position_embeddings", None)
        if self.config.model_type in ("roberta", "xlm-roberta", "camembert") and positions:
            positions -= self.config.pad_token_id + 1  # these families count positions from there
        if positions and length > positions:
            raise InputError(
                f"Rows of {length} tokens are longer than the {positions} positions of {self.base_id}. Set "
                f"train.max_length and task.max_length to {positions} or less; longer texts are read in pieces."
            )

    # States

    def state(self, name: str) -> dict[str, Tensor]:
        """Return copies of the adapter's tensors under the names of PEFT's file; for `full`, all of the base's."""
        values: Mapping[str, Tensor] = (
            self._whole.tensors(name) if self._config(name) is None else self._parameters(name)
        )
        return {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in sorted(values.items())}

    def load_state(self, name: str, kind: Kind, state: Mapping[str, Tensor]) -> None:
        """Give the adapter the values of a state; add it first if it is not there.

        Raises:
            InputError: the state's names or shapes are not those of this kind on this base.
        """
        if new := name not in self._configs:
            self.add(name, kind, seed=0)
        self._fill(name, state, f"The state for adapter {name!r}", remove=new)

    def save(self, name: str, folder: Path | str) -> None:
        """Write the adapter in PEFT's layout; for `full`, a model that transformers loads."""
        config = self._config(name)
        if config is None:
            return write_model(Path(folder), self._base.config_in_memory(), self.state(name))
        return write_adapter(Path(folder), config, self.state(name), type(self.model))

    def load_adapter(self, name: str, folder: Path | str) -> None:
        """Add the adapter that `save` wrote, whatever its kind; it is not active.

        Raises:
            InputError: no adapter is there, or not one for this base.
        """
        config, state = read_adapter(Path(folder))
        self._check_new(name, config)
        if config is None:
            self.add(name, Full(), seed=0)
        else:
            self._inject(name, config)
        self._fill(name, state, str(folder), remove=True)

    # Inside

    def _check_new(self, name: str, config: PeftConfig | None) -> None:
        if name in self._configs:
            raise InputError(f"There is an adapter {name!r} already. Remove it first, or choose another name.")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict, name):
            raise InputError(f"{name!r} cannot name an adapter: reserved, or not only letters, digits, - and _.")
        if name in self._module_names:
            raise InputError(f"{name!r} cannot name an adapter: a module of the base has that name. Choose another.")
        others = {self.kind_of(other) for other in self.names} - {"full"}
        if config is not None and (kind := KIND_NAMES[config.peft_type.value]) and others - {kind}:
            raise InputError(
                f"Adapter {name!r} is of kind {kind}, but the base carries {', '.join(sorted(others))}. "
                "One base carries one kind at a time: remove the others first."
            )

    def _config(self, name: str) -> PeftConfig | None:
        if name not in self._configs:
            known = ", ".join(self._configs) or "none"
            raise InputError(f"There is no adapter {name!r}.{nearest(name, self._configs)} Known: {known}.")
        return self._configs[name]

    def _inject(self, name: str, config: PeftConfig) -> None:
        config.base_model_name_or_path, config.inference_mode = self.base_id, False
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # PEFT finds adapters by structure now, so a name that is part of the tuner's prefix does no harm.
            warnings.filterwarnings("ignore", message=r"Adapter name .* should not be contained in the prefix")
            warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a deprecated attribute of transformers
            try:
                if self._peft is None:
                    self._peft = PeftModel(self.model, config, adapter_name=name)
                else:
                    self._peft.add_adapter(name, config)
            except ValueError as error:
                raise InputError(f"Adapter {name!r} does not fit the base {self.base_id}: {error}") from error
        self._configs[name] = config
        for _, layer in self._layers():
            layer.train(layer.get_base_layer().training)
        self.activate(self._stack, self._train)

    def _initialise(self, name: str, seed: int) -> None:
        """Draw each module's input projection from its own generator; everything else is zero."""
        values = {}
        for key, parameter in self._parameters(name).items():
            module, _, role = key.removeprefix(PEFT_ROOT).rpartition(".")
            module, _, projection = module.rpartition(".")
            values[key] = torch.zeros(parameter.shape)
            if role == "weight" and projection in ("guidebook_bottleneck_down", "lora_A"):
                own = xxhash.xxh3_64_intdigest(repr((seed, module, projection)).encode()) >> 1
                bound = 1 / math.sqrt(parameter.shape[1])  # torch's default for a linear layer, (out, in)
                values[key].uniform_(-bound, bound, generator=torch.Generator().manual_seed(own))
        self._write(name, values)

    def _layers(self) -> Iterator[tuple[str, Any]]:
        for name, module in self.model.named_modules() if self._peft is not None else ():
            if isinstance(module, BaseTunerLayer):
                yield name, module

    def _parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Return the adapter's parameters by their names in PEFT's file, found by structure and not by name."""
        found = {}
        for module, layer in self._layers():
            for projection in layer.adapter_layer_names:
                holder = getattr(layer, projection)
                if name in holder:
                    inner = holder[name].named_parameters()
                    found.update({f"{PEFT_ROOT}{module}.{projection}.{key}": value for key, value in inner})
        return found

    @torch.no_grad()
    def _write(self, name: str, values: Mapping[str, Tensor]) -> None:
        for key, parameter in self._parameters(name).items():
            parameter.copy_(values[key])

    @torch.no_grad()
    def _fill(self, name: str, state: Mapping[str, Tensor], place: str, remove: bool) -> None:
        """Copy a state in after checking names and shapes; where it does not fit, take the adapter away again."""
        expected: Mapping[str, Tensor] = (
            self._whole.values(name) if self._config(name) is None else self._parameters(name)
        )
        buffers = self._whole.tensors(name).keys() if self._config(name) is None else ()
        wrong = sorted((expected.keys() - state.keys()) | (state.keys() - expected.keys() - set(buffers)))
        wrong += sorted(key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape)
        if wrong:
            if remove:
                self.remove(name)
            raise InputError(
                f"{place} does not fit the base {self.base_id}: {len(wrong)} tensors are missing, superfluous or of "
                f"another shape, first {wrong[0]!r}. Load it on the base it was trained on, with the same settings."
            )
        for key, tensor in expected.items():
            tensor.copy_(state[key])


def _refuse_adapter_names(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    """Families take any keyword argument, so the base would drop `adapter_names` without a word."""
    if "adapter_names" in kwargs:
        raise InputError("Pass adapter names through host.rows(names), not as a keyword argument of the model.")
