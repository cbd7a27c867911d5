"""Bases whose linear layers are held in 8 or 4 bits by bitsandbytes, pinned so that a frozen base stays frozen."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from guidebook.errors import InputError

Quantised = Literal["8bit", "4bit"]
MODULES = ("Linear8bitLt", "Linear4bit")


def saved_quantisation(base: str, config: Any, wanted: Quantised | None) -> Quantised | None:
    """Return how a base's weights were quantised when it was saved, None where they were not.

    Args:
        base: As the user named it.
        config: Its stored configuration.
        wanted: How the recipe wants it to be held.

    Raises:
        InputError: by something other than bitsandbytes, otherwise than wanted, or bitsandbytes is not installed.
    """
    found = getattr(config, "quantization_config", None)
    if not found:
        return None
    stored = found if isinstance(found, dict) else found.to_dict()
    method = str(getattr(stored.get("quant_method"), "value", stored.get("quant_method")) or "bitsandbytes")
    saved: Quantised | None = "4bit" if stored.get("load_in_4bit") else "8bit" if stored.get("load_in_8bit") else None
    if not method.startswith("bitsandbytes") or saved is None:
        raise InputError(
            f"Base {base!r} was saved quantised ({method}; quantization_config in its config.json), and guidebook "
            "trains adapters only on bases that bitsandbytes quantised. Choose the checkpoint that is not quantised, "
            "with quantise: 4bit or 8bit if memory is short."
        )
    if wanted not in (None, saved):
        raise InputError(
            f"Base {base!r} was saved in {saved}, found quantise: {wanted}. Set quantise: {saved}, or choose the "
            "checkpoint that is not quantised."
        )
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"Base {base!r} was saved in {saved} by bitsandbytes, which is not installed: "
            "pip install 'guidebook[quant]'."
        )
    _hush()
    return saved


def quantisation(how: Quantised, dtype: torch.dtype) -> Any:
    """Return transformers' configuration: 8bit is LLM.int8(), 4bit is NF4; both multiply in `dtype`.

    Reference:
        Dettmers et al. 2022, LLM.int8(); Dettmers et al. 2023, QLoRA (NF4, section 3).

    Differs:
        The quantisation constants are not quantised once more.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise InputError(f"quantise: {how} needs bitsandbytes, which is not installed: pip install 'guidebook[quant]'.")
    from transformers import BitsAndBytesConfig

    _hush()
    if how == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _hush() -> None:
    for name in ("autograd._functions", "backends.cpu.ops"):  # they report every product of every layer
        logging.getLogger(f"bitsandbytes.{name}").setLevel(logging.ERROR)


def pin(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep every quantised layer from changing its own tensors as it runs.

    bitsandbytes casts a layer's bias to the dtype of whatever it is fed (autocast feeds it several), takes its compute
    dtype from the first batch, and on processors with AVX512-BF16 repacks 4-bit weights when it first predicts.
    """
    for module in model.modules():
        if type(module).__name__ not in MODULES:
            continue
        pinned: Any = module
        pinned.register_forward_pre_hook(lambda _, inputs: (_cast(inputs[0], dtype), *inputs[1:]))
        if type(module).__name__ == "Linear4bit":
            pinned.compute_dtype, pinned.compute_type_is_set = dtype, True  # a saved base may name another
            pinned.support_avx512bf16_for_cpu = False


def _cast(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return hidden.to(dtype)


def count(parameter: nn.Parameter) -> int:
    """Return how many numbers a parameter stands for; two of 4 bits share a byte."""
    packed = type(parameter).__name__ == "Params4bit"
    return parameter.numel() * parameter.element_size() * 2 if packed else parameter.numel()
