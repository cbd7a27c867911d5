"""The host: a frozen base with named adapters, of which a stack is active and some may train."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn

from guidebook.adapters.bases import PACKAGED, Base, lm_kind, load_base, positions_of
from guidebook.adapters.feasible import check_base
from guidebook.adapters.fingerprints import fingerprint_of
from guidebook.adapters.full import WholeCopies
from guidebook.adapters.modules import hidden_size, layer_count
from guidebook.adapters.placement import NONE, placement_for
from guidebook.adapters.presets import Full, Kind
from guidebook.adapters.quantised import Quantised, count
from guidebook.adapters.storage import kind_of_config, read_adapter, write_adapter, write_model
from guidebook.adapters.tuners import Tuners
from guidebook.adapters.union import joined, parts_of
from guidebook.errors import InputError, RunError, nearest


class Host:
    """A frozen base, its tokenizer, and adapters by name.

    `model` stays the same object whatever is added: call it with `input_ids`, `attention_mask` and, where the family
    has them, `token_type_ids`. At first no adapter is active and nothing trains.

    Attributes:
        model: The base under its language-modelling class.
        tokenizer: The base's tokenizer.
        config: The model's configuration.
        placement: Where adapters go.
        modules: What was named by hand of it.
        base_id: The name that loads this base anywhere: "mini", a Hub id, or the folder as it was given.
        base_path: Where the base was loaded from.
        dtype: Of the base's weights in memory that are not quantised; adapters are float32 whatever it is.
        quantise: How the base's linear layers are held, if not in `dtype`.
        has_lm_head: Whether a trained language-modelling head is stored with the base.
        quantised_from: Type of most tensors of the GGUF file the base was unpacked from; None for other bases.
        fingerprint: xxh3 of the base's tensors when it was loaded; see `check_base`.
        hidden_size: H of the last hidden state.
        hidden_scale: What its values are times what `lm_head` receives: 1 nearly everywhere.
        layers: L.
    """

    def __init__(self, base: Base, modules: Mapping[str, str] = NONE) -> None:
        self.model, self.tokenizer = base.model, base.tokenizer
        self.base_id, self.base_path = base.id, base.path
        self.dtype, self.quantise, self.has_lm_head = base.dtype, base.quantise, base.has_lm_head
        self.quantised_from = base.quantised_from
        self.config: Any = base.model.config
        self.modules = dict(modules)
        self.placement = placement_for(base.model, modules).trained_as(lm_kind(base.config), modules)
        self._head = self.placement.head_name(base.model)
        self.layers, self.hidden_scale = layer_count(base.model), base.hidden_scale()
        width = getattr(self.lm_head, "in_features", None)  # OPT-350m's head reads fewer features than its layers have
        self.hidden_size = width if isinstance(width, int) else hidden_size(base.model)
        self._base = base
        self._whole = WholeCopies(base.model)
        self._tuners = Tuners(base.model)
        self._configs: dict[str, tuple[PeftConfig, ...]] = {}  # several: a union; none: kind full
        self._stack: tuple[str, ...] = ()
        self._train: frozenset[str] = frozenset()
        self._in_force: tuple[tuple[str, ...], frozenset[str]] | None = None  # what every module has been told
        self._module_names = {part for name, _ in base.model.named_modules() for part in name.split(".")}
        base.model.requires_grad_(False)
        base.model.register_forward_pre_hook(_refuse_adapter_names, with_kwargs=True)
        self.fingerprint = self.measure_base()

    @classmethod
    def load(
        cls,
        base: str,
        dtype: str = "float32",
        dropout: bool = False,
        modules: Mapping[str, str] = NONE,
        *,
        quantise: Quantised | None = None,
        needs_lm_head: bool = True,
    ) -> Host:
        """Return the base "mini", of a folder, or of the Hub, under its language-modelling class, without adapters.

        Args:
            base: "mini", a folder, or a Hub id.
            dtype: Of the weights in memory, whatever they are stored in.
            dropout: Keep the base's own dropout; without it every dropout probability is set to zero.
            modules: Module names by hand, for an architecture without a row in PLACEMENTS.
            quantise: Hold the linear layers in 8 or 4 bits.
            needs_lm_head: Refuse a base whose language-modelling head is not stored with it.

        Raises:
            InputError: no such base, no connection, no language-modelling class or head, an unknown architecture.
        """
        return cls(load_base(base, dtype, dropout, quantise=quantise, needs_lm_head=needs_lm_head), modules)

    @property
    def lm_head(self) -> nn.Module:
        """The module whose forward pre-hook sees the last hidden state (B, T, H) as first argument, as it is now."""
        return self.model.get_submodule(self._head)

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
        check_base(self.dtype, self.quantise, kind.kind)
        configs = [part.peft_config(self.model, self.placement) for part in parts_of(kind)]
        self._check_new(name)
        if configs == [None]:
            self._configs[name] = ()
            self._whole.add(name)
            return
        self._inject(name, configs, seed)
        self._tuners.initialise(name, seed)

    def copy(self, name: str, new: str) -> None:
        """Add the adapter `new` with exactly the configuration and values of `name`; it is not active."""
        configs = self._config(name)
        self._check_new(new)
        if not configs:
            self._configs[new] = ()
            self._whole.add(new, start=name)
            return
        self._inject(new, copy.deepcopy(configs))
        self._tuners.write(new, self._parameters(name))

    def remove(self, name: str) -> None:
        """Remove an adapter; if it is active, it leaves the stack first. The last one leaves the bare base."""
        configs = self._config(name)
        self.activate([other for other in self._stack if other != name], self._train - {name})
        del self._configs[name]
        if not configs:
            self._whole.remove(name)
            return
        self._tuners.remove(name)
        self._in_force = None
        self.activate(self._stack, self._train)

    def kind_of(self, name: str) -> str:
        """Return the adapter's kind as in KINDS; those of a union with a plus between them."""
        return joined(kind_of_config(config) for config in self._config(name)) or "full"

    def parameters_of(self, name: str) -> int:
        """Return how many parameters the adapter has; for `full`, the whole base's, tied ones once."""
        if not self._config(name):
            return self.base_parameters
        return sum(parameter.numel() for parameter in self._parameters(name).values())

    @property
    def base_parameters(self) -> int:
        """How many parameters the base has, tied ones once."""
        return sum(count(parameter) for parameter in self._whole.parameters().values())

    @property
    def base_bytes(self) -> int:
        """How much memory the base's parameters take."""
        return sum(value.numel() * value.element_size() for value in self._whole.parameters().values())

    # What is active, what moves

    def activate(self, stack: Sequence[str], train: Collection[str] = ()) -> None:
        """Make the adapters of `stack` active, bottom first; only the parameters of `train` get gradients.

        An empty stack is the base, bit for bit.

        Raises:
            InputError: an unknown name, one twice, one that trains but is not active, `full` together with others.
        """
        stack = tuple(stack)
        fulls = [name for name in stack if not self._config(name)]
        if len(set(stack)) != len(stack) or (fulls and len(stack) > 1):
            raise InputError(f"Cannot stack {list(stack)}: every adapter once, and one of kind full only by itself.")
        if idle := sorted(set(train) - set(stack)):
            raise InputError(f"Adapter {idle[0]!r} cannot train: it is not in the stack {list(stack)}.")
        if self._in_force == (stack, frozenset(train)):
            return
        self._in_force = None
        self._stack, self._train = stack, frozenset(train)
        self._whole.put(fulls[0] if fulls else None)
        self._tuners.activate(() if fulls else stack, () if fulls else self._train)
        for parameter in self._whole.parameters().values():
            parameter.requires_grad_(bool(fulls) and bool(train))
        self._in_force = (stack, self._train)

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
            InputError: an unknown name, an adapter of kind full, dora, ia3 or invertible, a model
                in training mode; inside, a batch of another size.
        """
        used = sorted({name for name in names if name is not None})
        if fulls := [name for name in used if not self._config(name)]:
            raise InputError(f"Adapter {fulls[0]!r} is a whole copy of the base and cannot share a batch.")
        if self.model.training:
            raise InputError("Rows of one batch can have their own adapters in evaluation mode only.")
        stack, train = self._stack, self._train
        self.activate(used)
        try:
            with self._tuners.rows(names):
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

    @property
    def base_folder(self) -> str | None:
        """The absolute path of a base on disk; None for a packaged one or one of the Hub, which its name finds."""
        path = Path(self.base_path)
        return str(path.resolve()) if self.base_id not in PACKAGED and path.exists() else None

    @property
    def positions(self) -> int | None:
        """The tokens of the longest row that the base has positions for; None where there is no limit."""
        return positions_of(self.model)

    def check_length(self, length: int) -> None:
        """Raise InputError if rows of `length` tokens are longer than the base has positions."""
        self._base.check_length(length)

    # States

    def state(self, name: str) -> dict[str, Tensor]:
        """Return copies of the adapter's tensors under the names of PEFT's file; for `full`, all of the base's."""
        values: Mapping[str, Tensor] = self._parameters(name) if self._config(name) else self._whole.tensors(name)
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
        configs, folder, state = self._config(name), Path(folder), self.state(name)
        if not configs:
            write_model(folder, self._base.config_in_memory(), state)
        for config in configs:
            place = folder / kind_of_config(config) if len(configs) > 1 else folder
            own = self._tuners.parameters(name, str(config.peft_type.value))
            write_adapter(place, config, {key: state[key] for key in sorted(own)}, type(self.model))

    def load_adapter(self, name: str, folder: Path | str) -> None:
        """Add the adapter that `save` wrote, whatever its kind; it is not active.

        Raises:
            InputError: no adapter is there, or not one for this base.
        """
        configs, state = read_adapter(Path(folder))
        self._check_new(name)
        if configs:
            self._inject(name, configs)
        else:
            self.add(name, Full(), seed=0)
        self._fill(name, state, str(folder), remove=True)

    # Inside

    def _check_new(self, name: str) -> None:
        if name in self._configs:
            raise InputError(f"There is an adapter {name!r} already. Remove it first, or choose another name.")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict, name):
            raise InputError(f"{name!r} cannot name an adapter: reserved, or not only letters, digits, - and _.")
        if name in self._module_names:
            raise InputError(f"{name!r} cannot name an adapter: a module of the base has that name. Choose another.")

    def _config(self, name: str) -> tuple[PeftConfig, ...]:
        if name not in self._configs:
            known = ", ".join(self._configs) or "none"
            raise InputError(f"There is no adapter {name!r}.{nearest(name, self._configs)} Known: {known}.")
        return self._configs[name]

    def _inject(self, name: str, configs: Sequence[PeftConfig], seed: int = 0) -> None:
        try:
            for config in configs:
                config.base_model_name_or_path, config.inference_mode = self.base_id, False
                self._tuners.inject(name, config, seed)
        except InputError:
            self._tuners.remove(name)
            raise
        finally:
            self.activate(self._stack, self._train)
        self._configs[name] = tuple(configs)

    def _parameters(self, name: str) -> dict[str, nn.Parameter]:
        return self._tuners.parameters(name)

    @torch.no_grad()
    def _fill(self, name: str, state: Mapping[str, Tensor], place: str, remove: bool) -> None:
        """Copy a state in after checking names and shapes; where it does not fit, take the adapter away again."""
        expected: Mapping[str, Tensor] = self._parameters(name) if self._config(name) else self._whole.values(name)
        buffers = () if self._config(name) else self._whole.tensors(name).keys()
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
