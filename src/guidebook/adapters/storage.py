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
from guidebook.peft import BottleneckType

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MODEL_FILE = "model.safetensors"
KIND_NAMES = {str(BottleneckType.BOTTLENECK.value): "houlsby", "LORA": "lora"}


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


def read_adapter(folder: Path) -> tuple[PeftConfig | None, dict[str, Tensor]]:
    """Return configuration and tensors of what was written; the configuration is None for a whole model.

    Raises:
        InputError: there is no adapter, its kind is unknown, or a file is damaged.
    """
    if (folder / CONFIG_FILE).is_file():
        return _read_config(folder), _read_tensors(folder / WEIGHTS_FILE)
    if (folder / MODEL_FILE).is_file():
        return None, _read_tensors(folder / MODEL_FILE)
    raise InputError(f"{folder}: there is no adapter here, neither {CONFIG_FILE} nor {MODEL_FILE}.")


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
