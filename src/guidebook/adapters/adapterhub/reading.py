"""An adapter of AdapterHub's becomes one of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from guidebook.adapters.adapterhub.names import (
    ACTIVATIONS,
    COUPLING,
    EMBEDDED_ALIKE,
    PLACES,
    ROLES,
    WEIGHTS,
    Architecture,
    architecture_of,
    check_new,
    module_in,
)
from guidebook.adapters.invertible import Invertible, output_embeddings
from guidebook.adapters.storage import CONFIG_FILE, kind_of_config, write_adapter
from guidebook.adapters.tuners import PEFT_ROOT
from guidebook.adapters.union import joined
from guidebook.errors import InputError, nearest
from guidebook.peft import BottleneckConfig

LEGACY = re.compile(r"\b(?:attention|layer)_text_(?:task|lang)_adapters\b")
BEFORE_VERSIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
"""What activations were called in files that name no version."""
REQUIRED = {
    "ln_before": False,
    "ln_after": False,
    "use_gating": False,
    "cross_adapter": False,
    "original_ln_after": True,
}
REQUIRED_OF_PHM = {
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "factorized_phm_w": True,
    "shared_w_phm": False,
    "phm_bias": True,
}


def import_adapterhub(folder: Path, out: Path) -> str:
    """Write an adapter of AdapterHub's in PEFT's layout, as `Host.load_adapter` reads it; return its kind.

    Heads in the folder are left where they are. Nothing in a `.bin` file is run.

    Raises:
        InputError: not such a folder, a damaged file, or an adapter that computes what no kind of ours does.
    """
    check_new(out)
    facts = _read_config(folder)
    found = architecture_of(str(facts.get("model_type")), folder / CONFIG_FILE)
    tensors = {LEGACY.sub("adapters", name): value.float() for name, value in _read_weights(folder).items()}
    tensors = {
        name.replace("invertible_lang_adapters", "invertible_adapters"): value for name, value in tensors.items()
    }
    config = _settings(facts, folder)
    used: set[str] = set()
    parts: list[tuple[Any, dict[str, Tensor]]] = []
    for convert in (_bottlenecks, _couplings):
        made, ours, names = convert(tensors, config, found, folder)
        used |= names
        if made is not None:
            parts.append((made, ours))
    if not parts or (left := sorted(tensors.keys() - used)):
        what = (
            f"{left[0]!r} is no part of an adapter that guidebook knows" if parts else "it holds no bottleneck adapter"
        )
        raise InputError(f"{folder}: {what}. Import bottleneck and invertible adapters; train the others again.")
    for made, state in parts:
        made.base_model_name_or_path = facts.get("model_name") or ""
        place = out / kind_of_config(made) if len(parts) > 1 else out
        write_adapter(place, made, state, type(found.model))
    return joined(kind_of_config(made) for made, _ in parts)


def _bottlenecks(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], found: Architecture, folder: Path
) -> tuple[Any, dict[str, Tensor], set[str]]:
    form = _form(config, found, folder)
    modules = found.modules(form)
    places = "|".join(re.escape(place) for place in PLACES[found.model_type])
    theirs = re.compile(rf"(?:{re.escape(found.prefix)})?(.*\.(\d+))\.({places})\.adapters\.[^.]+\.(.+)")
    rule = re.compile(r"(?:.*\.)?shared_parameters\.[^.]+\.phm_rule")
    ours: dict[str, Tensor] = {}
    used, layers, filled = set(), set(), set()
    for name, tensor in tensors.items():
        match = theirs.fullmatch(name)
        if match and match[3] in modules and match[4] in ROLES:
            where = f"{found.prefix}{match[1]}.{modules[match[3]]}".removesuffix(".")
            ours[f"{PEFT_ROOT}{where}.guidebook_bottleneck_{ROLES[match[4]]}"] = tensor
            layers.add(int(match[2]))
            filled.add(match[3])
            used.add(name)
    if not ours:
        return None, {}, set()
    for name, tensor in tensors.items():
        if rule.fullmatch(name):  # ours lies in the first module of the base that has an adapter
            ours[f"{_first_module(ours, modules)}.guidebook_bottleneck_rule.weight"] = tensor
            used.add(name)
    widths = {tensor.shape[0] for name, tensor in ours.items() if name.endswith("down.bias")}
    if len(widths) > 1:
        raise InputError(f"{folder}: its layers have the widths {sorted(widths)}. Only adapters of one width are read.")
    made = BottleneckConfig(
        target_modules=found.pattern(
            [modules[place] for place in modules if place in filled],
            sorted(layers) if config.get("leave_out") else None,
        ),
        width=widths.pop(),
        activation=_activation(config, folder),
        dropout=float(config.get("dropout", 0.0)),
        scaling=_scaling(config, folder),
        form="output" if form == "layer" else form,
        phm=int(config.get("phm_dim", 4)) if config.get("phm_layer") else 0,
        phm_rank=int(config.get("phm_rank", 1)),
        kind={
            "norm": "pfeiffer",
            "layer": "pfeiffer",
            "output": "compacter" if config.get("phm_layer") else "houlsby",
        }.get(form, "parallel"),
    )
    return made, ours, used


def _couplings(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], found: Architecture, folder: Path
) -> tuple[Any, dict[str, Tensor], set[str]]:
    theirs = re.compile(r"(?:.*\.)?invertible_adapters\.[^.]+\.([FG]\.[02])\.(weight|bias)")
    matches = [match for name in tensors if (match := theirs.fullmatch(name))]
    if not matches:
        return None, {}, set()
    if config.get("inv_adapter") != "nice" or found.model_type not in EMBEDDED_ALIKE:
        raise InputError(
            f"{folder}: invertible adapters of type {config.get('inv_adapter')!r} in {found.model_type} compute what "
            "no kind of guidebook does."
        )
    kind = Invertible(
        reduction=float(config.get("inv_adapter_reduction_factor") or 2.0), activation=_activation(config, folder)
    )
    made = kind.peft_config(found.model, found.row)
    made.inverse_modules = output_embeddings(found.model)  # the package inverts whether embeddings are tied or not
    place = f"{PEFT_ROOT}{_embeddings(made)}.guidebook_invertible_"
    ours = {f"{place}{COUPLING[match[1]]}.{match[2]}": tensors[match[0]] for match in matches}
    return made, ours, {match[0] for match in matches}


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / CONFIG_FILE).read_text(encoding="utf8"))
        if not isinstance(facts["config"], dict):
            raise TypeError("its config has no settings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / CONFIG_FILE} is not the configuration of an AdapterHub adapter: {error!r}. Name the folder "
            "that `save_adapter` wrote."
        ) from error
    return dict(facts)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    place = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if place is None:
        raise InputError(f"{folder}: there are no weights, none of {', '.join(WEIGHTS)}.")
    try:
        if place.suffix == ".safetensors":
            return dict(load_file(place))
        return dict(torch.load(place, map_location="cpu", weights_only=True))
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise InputError(f"{place} cannot be read: {error}. Copy the file again.") from error
    except Exception as error:  # torch.load raises pickle's own errors for what is not plain tensors
        raise InputError(
            f"{place} holds more than tensors, and nothing of it was run: {type(error).__name__}."
        ) from error


def _settings(facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings under the names of today, after refusing what no kind of ours computes."""
    config = {key.lower(): value for key, value in facts["config"].items()}  # old files write MH_Adapter
    if isinstance(nested := config.get("invertible_adapter"), dict):
        config["inv_adapter"] = nested.get("block_type")
        config["inv_adapter_reduction_factor"] = nested.get("reduction_factor")
    if "version" not in facts:
        config["non_linearity"] = BEFORE_VERSIONS.get(str(config.get("non_linearity")), config.get("non_linearity"))
    required = {**REQUIRED, **(REQUIRED_OF_PHM if config.get("phm_layer") else {})}
    for key, value in required.items():
        if key in config and bool(config[key]) != value:
            raise InputError(f"{folder / CONFIG_FILE}: {key} is {config[key]!r}, which no kind of guidebook computes.")
    return config


def _form(config: Mapping[str, Any], found: Architecture, folder: Path) -> str:
    """Return the form of our bottlenecks that computes what the settings say."""
    if config.get("is_parallel"):
        if not found.row.norm or config.get("mh_adapter"):
            raise InputError(
                f"{folder}: parallel adapters like these in {found.model_type} are none of guidebook's kinds."
            )
        return "residual" if found.row.norm.startswith(rf"{found.row.block}\.") else "parallel"
    if not config.get("original_ln_before"):
        return "output"
    if config.get("mh_adapter") or config.get("residual_before_ln", True) is not True:
        raise InputError(
            f"{folder}: adapters after the layer norm as in this configuration are none of guidebook's kinds."
        )
    return "norm" if found.row.norm else "layer"


def _activation(config: Mapping[str, Any], folder: Path) -> Any:
    named = str(config.get("non_linearity"))
    if named not in ACTIVATIONS:
        raise InputError(
            f"{folder / CONFIG_FILE}: unknown non_linearity {named!r}.{nearest(named, ACTIVATIONS)} "
            f"Known: {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[named]


def _scaling(config: Mapping[str, Any], folder: Path) -> float:
    scaling = config.get("scaling", 1.0)
    if isinstance(scaling, str):
        raise InputError(f"{folder / CONFIG_FILE}: scaling is {scaling!r}; guidebook's adapters have a fixed factor.")
    return float(scaling)


def _first_module(names: Iterable[str], modules: Mapping[str, str]) -> str:
    """Return the module of the base, among those in the names of tensors, that comes first in the model."""
    order = list(modules.values())

    def position(name: str) -> tuple[int, int]:
        where = name.partition(".guidebook_")[0]
        index = re.search(r"\.(\d+)(?:\.|$)", where)
        return int(index[1]) if index else 0, order.index(module_in(where, order))

    return min(names, key=position).partition(".guidebook_")[0]


def _embeddings(config: Any) -> str:
    return str(config.target_modules).replace("\\", "")
