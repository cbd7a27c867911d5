"""An adapter on disk: PEFT's two files, or for `full` a model that transformers loads."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from guidebook.errors import InputError
from guidebook.peft import BottleneckType, InvertibleType

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MODEL_FILE = "model.safetensors"
KIND_NAMES = {
    BottleneckType.BOTTLENECK.value: "houlsby, pfeiffer, parallel, compacter",
    InvertibleType.INVERTIBLE.value: "invertible",
    "LORA": "lora, dora",
    "IA3": "ia3",
}
"""Type of adapter in adapter_config.json -> the kinds that are stored as it."""


def kind_of_config(config: PeftConfig) -> str:
    """Return the kind, as in KINDS, of an adapter's configuration."""
    stored = str(config.peft_type.value)
    if stored == BottleneckType.BOTTLENECK.value:
        return str(config.kind)
    if stored == "LORA":
        return "dora" if config.use_dora else "lora"
    return KIND_NAMES[stored]


def write_adapter(folder: Path, config: PeftConfig, state: Mapping[str, Tensor], model_class: type) -> None:
    """Write an adapter in PEFT's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = copy.copy(config)
    saved.inference_mode = True
    mapping = {"base_model_class": model_class.__name__, "parent_library": model_class.__module__}
    saved.save_pretrained(str(folder), auto_mapping_dict=mapping)
    save_file(dict(state), folder / WEIGHTS_FILE, metadata={"format": "pt"})


def write_model(folder: Path, config: Any, state: Mapping[str, Tensor]) -> None:
    """Write a whole model."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_file(dict(state), folder / MODEL_FILE, metadata={"format": "pt"})


def read_adapter(folder: Path) -> tuple[list[PeftConfig], dict[str, Tensor]]:
    """Return configurations and tensors of what was written: none for a whole model, several for a union.

    Raises:
        InputError: there is no adapter, its kind is unknown, or a file is damaged.
    """
    if (folder / MODEL_FILE).is_file() and not (folder / CONFIG_FILE).is_file():
        return [], _read_tensors(folder / MODEL_FILE)
    places = [path.parent for path in sorted([*folder.glob(CONFIG_FILE), *folder.glob(f"*/{CONFIG_FILE}")])]
    if not places:
        raise InputError(f"{folder}: there is no adapter here, neither {CONFIG_FILE} nor {MODEL_FILE}.")
    configs = [_read_config(place) for place in places]
    tensors: dict[str, Tensor] = {}
    for place in places:
        tensors |= _read_tensors(place / WEIGHTS_FILE)
    return configs, tensors


def _read_config(folder: Path) -> PeftConfig:
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / CONFIG_FILE} is not the configuration of an adapter: {error}.") from error
    if getattr(config.peft_type, "value", None) not in KIND_NAMES:
        raise InputError(f"{folder / CONFIG_FILE}: unknown kind. Known: {', '.join(KIND_NAMES.values())}, full.")
    return config


def _read_tensors(place: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(place))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{place} cannot be read: {error}. Save the adapter again.") from error
