"""An adapter of ours becomes one of AdapterHub's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from guidebook.adapters.adapterhub.names import (
    ACTIVATIONS,
    COUPLING,
    ROLES,
    WEIGHTS,
    Architecture,
    architecture_of,
    check_new,
    form_of,
    module_in,
)
from guidebook.adapters.storage import CONFIG_FILE, kind_of_config, read_adapter
from guidebook.adapters.tuners import PEFT_ROOT
from guidebook.errors import InputError
from guidebook.peft import BottleneckConfig, InvertibleConfig

MOST_LAYERS = 256
"""Layers below this are named as left out where not every layer has an adapter: no file says how many there are."""


def export_adapterhub(folder: Path, out: Path, name: str = "guidebook") -> Path:
    """Write an adapter of ours as AdapterHub's package saves one; `load_adapter(out, use_safetensors=True)` reads it.

    Raises:
        InputError: no adapter is there, or one of a kind that AdapterHub's package does not have.
    """
    check_new(out)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"{name!r} cannot name an adapter: letters, digits, - and _ only.")
    configs, state = read_adapter(folder)
    known = {type(config): config for config in configs}
    bottlenecks, coupling = known.pop(BottleneckConfig, None), known.pop(InvertibleConfig, None)
    if known or bottlenecks is None:
        kinds = ", ".join(kind_of_config(config) for config in configs) or "full"
        raise InputError(
            f"{folder}: an adapter of kind {kinds} has no like in AdapterHub's package. Export houlsby, pfeiffer, "
            "parallel or compacter, alone or together with invertible."
        )
    model_class = (bottlenecks.auto_mapping or {}).get("base_model_class")
    found = architecture_of(_model_type_of(model_class, folder), folder / CONFIG_FILE)
    if bottlenecks.form == "parallel" and not found.row.norm:
        raise InputError(f"{folder}: AdapterHub's parallel adapters read another hidden state in {found.model_type}.")
    theirs = _exported(state, bottlenecks, found, name)
    facts = {
        "config": _exported_settings(bottlenecks, coupling, theirs),
        "hidden_size": next(
            value.shape[0] for key, value in theirs.items() if key.endswith(("adapter_up.bias", "up.b"))
        ),
        "model_class": model_class,
        "model_name": bottlenecks.base_model_name_or_path,
        "model_type": found.model_type,
        "name": name,
        "version": "adapters.1.3.0",
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf8")
    save_file(theirs, out / WEIGHTS[0], metadata={"format": "pt"})
    return out


def _exported(state: Mapping[str, Tensor], config: Any, found: Architecture, name: str) -> dict[str, Tensor]:
    places = {module: place for place, module in found.modules(form_of(config)).items()}
    roles = {ours: theirs for theirs, ours in ROLES.items() if theirs.endswith(("weight", "bias")) != bool(config.phm)}
    couplings = {ours: theirs for theirs, ours in COUPLING.items()}
    theirs: dict[str, Tensor] = {}
    for key, tensor in state.items():
        where, _, part = key.removeprefix(PEFT_ROOT).partition(".guidebook_")
        kind, _, role = part.partition("_")
        if kind == "invertible":
            projection, _, end = role.partition(".")
            theirs[f"{found.prefix}invertible_adapters.{name}.{couplings[projection]}.{end}"] = tensor
        elif role == "rule.weight":
            theirs[f"{found.prefix}shared_parameters.{name}.phm_rule"] = tensor
        else:
            module = module_in(where, places)
            layer = where.removesuffix(f".{module}" if module else "")
            theirs[f"{layer}.{places[module]}.adapters.{name}.{roles[role]}"] = tensor
    return theirs


def _exported_settings(config: Any, coupling: Any, theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the configuration in the package's words; what it says of drawing first weights is its default."""
    named = {ours: name for name, ours in ACTIVATIONS.items() if name != "silu"}
    if coupling is not None and coupling.activation != config.activation:
        raise InputError(
            f"AdapterHub's package has one activation for an adapter, found {config.activation} in the bottlenecks and "
            f"{coupling.activation} at the embeddings."
        )
    hidden = next(value.shape[0] for key, value in theirs.items() if re.search(r"adapter_up\.(bias|b)$", key))
    exact = hidden / config.width
    layers = {int(match[1]) for key in theirs if (match := re.search(r"\.(\d+)\.[a-z_.]*adapters\.", key))}
    return {
        "mh_adapter": config.form == "output" and any(_is_attention(key) for key in theirs),
        "output_adapter": any(not _is_attention(key) for key in theirs if ".adapters." in key),
        "reduction_factor": exact if int(hidden // exact) == config.width else hidden / (config.width + 0.5),
        "non_linearity": named[config.activation],
        "original_ln_before": config.form == "norm" or config.kind == "pfeiffer",
        "original_ln_after": True,
        "residual_before_ln": True,
        "adapter_residual_before_ln": False,
        "ln_before": False,
        "ln_after": False,
        "is_parallel": config.form in ("residual", "parallel"),
        "scaling": float(config.scaling),
        "dropout": float(config.dropout),
        "use_gating": False,
        "cross_adapter": False,
        "leave_out": [] if r"\d+" in config.target_modules else sorted(set(range(MOST_LAYERS)) - layers),
        "inv_adapter": "nice" if coupling is not None else None,
        "inv_adapter_reduction_factor": coupling.reduction if coupling is not None else None,
        "phm_layer": bool(config.phm),
        "phm_dim": config.phm or 4,
        "phm_rank": config.phm_rank,
        "phm_bias": True,
        "learn_phm": True,
        "shared_phm_rule": True,
        "factorized_phm_rule": False,
        "factorized_phm_W": True,
        "shared_W_phm": False,
        "phm_c_init": "normal",
        "phm_init_range": 0.0001,
        "hypercomplex_nonlinearity": "glorot-uniform",
        "init_weights": "mam_adapter" if config.form in ("residual", "parallel") else "bert",
        "init_weights_seed": None,
        "stochastic_depth": 0.0,
    }


def _is_attention(name: str) -> bool:
    return ".attention.output.adapters." in name or ".attention_adapters." in name


def _model_type_of(model_class: str | None, folder: Path) -> str:
    import transformers

    made = getattr(transformers, model_class or "", None)
    if made is None or not hasattr(made, "config_class"):
        raise InputError(f"{folder / CONFIG_FILE} does not say which model it was made for (base_model_class).")
    return str(made.config_class.model_type)
