"""What AdapterHub's package and guidebook call the same things."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guidebook.adapters.bases import lm_kind
from guidebook.adapters.placement import Placement, placement_for
from guidebook.errors import InputError, nearest

WEIGHTS = ("adapter.safetensors", "model.safetensors", "pytorch_adapter.bin")
OUTPUT_BLOCKS = ("attention.output", "output")
SUB_LAYERS = ("attention_adapters", "output_adapters")
PLACES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra", "deberta-v2"), OUTPUT_BLOCKS),
    **dict.fromkeys(("distilbert", "gpt2", "gptj", "llama", "mistral"), SUB_LAYERS),
}
"""Architecture -> where inside a layer AdapterHub keeps what comes after attention and after the feed-forward."""
EMBEDDED_ALIKE = (
    *(name for name, places in PLACES.items() if places is OUTPUT_BLOCKS),
    "distilbert",
    "llama",
    "mistral",
)
"""Architectures where AdapterHub's invertible adapters are where ours are; in GPT-2 they come after the positions."""
ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_new", "tanh": "tanh"}
ROLES = {
    "adapter_down.0.weight": "down.weight",
    "adapter_down.0.bias": "down.bias",
    "adapter_up.weight": "up.weight",
    "adapter_up.bias": "up.bias",
    "adapter_down.0.W_left": "down.left",
    "adapter_down.0.W_right": "down.right",
    "adapter_down.0.b": "down.bias",
    "adapter_up.W_left": "up.left",
    "adapter_up.W_right": "up.right",
    "adapter_up.b": "up.bias",
}
MODULES = ("attention", "feed_forward", "norm", "block")
COUPLING = {"F.0": "first_down", "F.2": "first_up", "G.0": "second_down", "G.2": "second_up"}


@dataclass(frozen=True)
class Architecture:
    """Names of one architecture on both sides."""

    model_type: str
    model: Any
    """A model of the architecture without memory, for the names of its modules."""
    row: Placement

    def modules(self, form: str) -> dict[str, str]:
        """Return AdapterHub's place inside a layer -> the module of ours, for a form of adapters; "": the layer."""
        attention, feed_forward = PLACES[self.model_type]
        inside = {role: getattr(self.row, role).replace("\\", "") for role in MODULES}
        if form == "output":
            return {attention: inside["attention"], feed_forward: inside["feed_forward"]}
        return {feed_forward: {"norm": inside["norm"], "layer": ""}.get(form, inside["block"])}

    @property
    def prefix(self) -> str:
        """What the names of the model's layers start with."""
        return f"{self.model.base_model_prefix}."

    def pattern(self, inside: list[str], indices: list[int] | None) -> str:
        """Return the expression for modules inside layers; the module "" is the layer itself."""
        if inside == [""]:
            return self.row.pattern("", indices).removesuffix(r"\.(?:)")
        return self.row.pattern("|".join(re.escape(name) for name in inside), indices)


def check_new(out: Path) -> None:
    """Raise InputError if there is something where an adapter is to be written."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: there is something already. Choose a new --out.")


def form_of(config: Any) -> str:
    """Return the form of an adapter of ours; "layer" for Pfeiffer's where layers normalise before."""
    return "layer" if (config.kind, config.form) == ("pfeiffer", "output") else str(config.form)


def module_in(where: str, modules: Iterable[str]) -> str:
    """Return which of the modules inside a layer the name of a module ends with."""
    return max((module for module in modules if where.endswith(f".{module}" if module else "")), key=len)


def architecture_of(model_type: str, place: Path) -> Architecture:
    """Return the names of an architecture.

    Raises:
        InputError: it is not one whose adapters can be read.
    """
    import transformers

    if model_type not in PLACES:
        raise InputError(
            f"{place}: adapters for the architecture {model_type!r} are not read.{nearest(model_type, PLACES)} "
            f"Known: {', '.join(PLACES)}."
        )
    config = transformers.AutoConfig.for_model(model_type)
    kind = lm_kind(config)
    auto = {"masked": transformers.AutoModelForMaskedLM, "causal": transformers.AutoModelForCausalLM}[kind]
    with torch.device("meta"):
        return Architecture(model_type, auto.from_config(config), placement_for(config))
