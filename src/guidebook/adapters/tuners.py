"""Adapters inside a base: one tuner of PEFT for each type of adapter, side by side on modules of their own."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import xxhash
from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from guidebook.adapters.modules import bare_modules, bare_name
from guidebook.adapters.storage import kind_of_config
from guidebook.errors import InputError
from guidebook.peft import BASE_ROW, Wrapper, lean

PEFT_ROOT = "base_model.model."  # what PEFT writes before every module name in adapter_model.safetensors
ONE_AT_A_TIME = ("dora", "ia3", "invertible")
"""Kinds whose adapters act on a whole batch: PEFT would drop `adapter_names` without a word, or has no way to do it."""


class Tuners:
    """The adapters that are in a model.

    Every type has a PeftModel of its own around the same model, which is never called itself. A type's modules are its
    own: neither the same as those of another type, nor inside of them, nor around them.

    Attributes:
        peft: Type of adapter as in adapter_config.json -> its PeftModel.
    """

    def __init__(self, model: nn.Module) -> None:
        self.peft: dict[str, Any] = {}
        self._model = model

    def inject(self, name: str, config: PeftConfig, seed: int = 0) -> None:
        """Put an adapter's modules into the model, with what its tuner draws drawn from the seed.

        Raises:
            InputError: the modules are not there, or another adapter stands in the way.
        """
        self._check_room(name, config)
        kind = str(config.peft_type.value)
        with _seeded(seed, next(self._model.parameters()).device), warnings.catch_warnings():
            # PEFT finds adapters by structure now, so a name that is part of the tuner's prefix does no harm.
            warnings.filterwarnings("ignore", message=r"Adapter name .* should not be contained in the prefix")
            warnings.filterwarnings("ignore", message=r".*ensure_weight_tying.*")  # the inverse is the tie
            warnings.filterwarnings("ignore", message=r".*tie_word_embeddings.*")
            warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a deprecated attribute of transformers
            try:
                if kind not in self.peft:
                    self.peft[kind] = PeftModel(self._model, config, adapter_name=name)
                else:
                    self.peft[kind].add_adapter(name, config)
            except (ValueError, InputError) as error:
                self._forget(name, PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type].tuner_layer_cls)
                raise InputError(f"Adapter {name!r} does not fit the base: {error}") from error
            finally:
                if hasattr(self._model, "peft_config"):  # the next type's tuner would take it for its own
                    del self._model.peft_config
        for _, layer in self.layers():
            layer.train(layer.get_base_layer().training)
            lean(layer)

    def remove(self, name: str) -> None:
        """Take an adapter's modules out of the model again."""
        for kind, tuner in list(self.peft.items()):
            if name not in tuner.peft_config:
                continue
            if len(tuner.peft_config) > 1:
                tuner.delete_adapter(name)
                self._unwrap(tuner.base_model.tuner_layer_cls, empty=True)
            else:
                self._unwrap(tuner.base_model.tuner_layer_cls)
                del self.peft[kind]

    def activate(self, stack: Sequence[str], train: Collection[str]) -> None:
        """Make the adapters of `stack` active, bottom first; only the parameters of `train` get gradients."""
        for tuner in self.peft.values():
            tuner.base_model.active_adapter = [name for name in stack if name in tuner.peft_config]
        for _, layer in self.layers():
            layer.enable_adapters(bool(stack))
            layer.set_adapter(list(stack), inference_mode=True)  # PEFT would make all of them trainable
            layer.set_requires_grad(list(train), requires_grad=True)

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Send row i of every batch through the adapter names[i] (None: the base) while the context lasts.

        Raises:
            InputError: an adapter of a kind that cannot.
        """
        with ExitStack() as contexts:
            for tuner in self.peft.values():
                own = [name if name in tuner.peft_config else BASE_ROW for name in names]
                if set(own) == {BASE_ROW}:
                    continue
                for name in sorted({name for name in own if name and name != BASE_ROW}):
                    if (kind := kind_of_config(tuner.peft_config[name])) in ONE_AT_A_TIME:
                        raise InputError(
                            f"Adapter {name!r} is of kind {kind}, which cannot share a batch with rows of other "
                            "adapters. Run each adapter's rows in a batch of their own."
                        )
                tuner.base_model.training = False  # PEFT looks at its own wrapper's mode, which nobody sets
                contexts.enter_context(tuner.base_model._enable_peft_forward_hooks(adapter_names=own))
            yield

    def layers(self) -> Iterator[tuple[str, Any]]:
        """Yield the modules that hold adapters, by their names in the base."""
        for name, module in self._model.named_modules() if self.peft else ():
            if isinstance(module, BaseTunerLayer):
                yield bare_name(name), module

    def parameters(self, name: str, kind: str | None = None) -> dict[str, nn.Parameter]:
        """Return an adapter's parameters by their names in PEFT's file; `kind` None: of all its types."""
        found = {}
        for module, layer in self.layers():
            if kind is not None and not isinstance(layer, self.peft[kind].base_model.tuner_layer_cls):
                continue
            for projection in layer.adapter_layer_names:
                holder = getattr(layer, projection)
                if name not in holder:
                    continue
                place, inner = f"{PEFT_ROOT}{module}.{projection}", holder[name]
                if isinstance(inner, nn.Parameter):
                    found[place] = inner
                elif projection == "lora_magnitude_vector":  # PEFT's file says it without ".weight"
                    found[place] = inner.weight
                else:
                    found.update({f"{place}.{key}": value for key, value in inner.named_parameters()})
        return found

    @torch.no_grad()
    def initialise(self, name: str, seed: int) -> None:
        """Draw each module's input projections from their own generators; the rest stays as the tuner made it.

        So first weights of the kinds that `_bound` knows depend on a module's name, not on the order of modules. What
        it does not know comes from the seed all the same, see `inject`.
        """
        for key, parameter in self.parameters(name).items():
            module, _, role = key.removeprefix(PEFT_ROOT).rpartition(".")
            module, _, projection = module.rpartition(".")
            bound = _bound(projection, role, parameter)
            if bound is None:
                continue
            named = (seed, module, projection) if role == "weight" else (seed, module, projection, role)
            own = xxhash.xxh3_64_intdigest(repr(named).encode()) >> 1
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=torch.Generator().manual_seed(own))
            parameter.copy_(drawn)

    @torch.no_grad()
    def write(self, name: str, values: Mapping[str, Tensor]) -> None:
        """Give an adapter the values of another."""
        for key, parameter in self.parameters(name).items():
            parameter.copy_(values[key])

    def _check_room(self, name: str, config: PeftConfig) -> None:
        """Raise InputError if the adapter needs a module that another type's has, or one inside or around it."""
        there = [(place, self._kind_of(layer)) for place, layer in self.layers()]
        patterns = (config.target_modules, getattr(config, "inverse_modules", None))
        expressions = [re.compile(pattern) for pattern in patterns if there and isinstance(pattern, str)]
        wanted = [place for place, _ in bare_modules(self._model) if any(e.fullmatch(place) for e in expressions)]
        for place in wanted:
            for other, kind in there:
                if place == other and kind == config.peft_type.value:
                    continue
                if f"{place}.".startswith(f"{other}.") or other.startswith(f"{place}."):
                    carried = sorted({kind_of_config(known) for known in self.peft[kind].peft_config.values()})
                    raise InputError(
                        f"Adapter {name!r} is of kind {kind_of_config(config)}, but the base carries "
                        f"{', '.join(carried)} in the same modules ({place}). Remove those adapters first."
                    )

    def _kind_of(self, layer: Any) -> str:
        return next(kind for kind, tuner in self.peft.items() if isinstance(layer, tuner.base_model.tuner_layer_cls))

    def _forget(self, name: str, layer_class: Any) -> None:
        """Take away what an injection left that failed half-way."""
        for module in self._model.modules():
            if isinstance(module, layer_class):
                module.delete_adapter(name)
        self._unwrap(layer_class, empty=True)

    def _unwrap(self, layer_class: Any, empty: bool = False) -> None:
        """Put the base's own modules back where the wrappers of one type are; `empty`: only those without adapters."""
        for _, parent in list(self._model.named_modules()):
            for child, module in list(parent.named_children()):
                if isinstance(module, layer_class) and not (empty and module._all_available_adapter_names()):
                    if isinstance(module, Wrapper):
                        module.release()
                    setattr(parent, child, module.base_layer)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed while the context lasts, and leave the global generators as they were."""
    is_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_gpu else []):
        torch.default_generator.manual_seed(seed % 2**63)
        if is_gpu:
            torch.cuda.manual_seed(seed % 2**63)
        yield


def _bound(projection: str, role: str, parameter: Tensor) -> float | None:
    """Return the range that a parameter is drawn from, or None if it is not drawn."""
    inputs = (
        "guidebook_bottleneck_down",
        "guidebook_invertible_first_down",
        "guidebook_invertible_second_down",
        "lora_A",
    )
    if projection in inputs and role == "weight":
        return 1 / math.sqrt(parameter.shape[1])  # torch's default for a linear layer, (out, in)
    # (N, N, N), (N, in / N, R), (N, R, out / N): together they have the variance of that default
    if projection == "guidebook_bottleneck_rule":
        return math.sqrt(3 / parameter.shape[0])
    if role == "left":
        return 1 / math.sqrt(parameter.shape[0] * parameter.shape[1])
    if role == "right" and projection == "guidebook_bottleneck_down":
        return math.sqrt(3 / parameter.shape[1])
    return None
