"""The modules of a base under the names that they have without adapters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def bare_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and module of every module of the base, each once, as if no adapter were around any of them."""
    yield from _walk("", model, set())


def _walk(name: str, module: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    while "base_layer" in getattr(module, "_modules", {}):
        module = module.base_layer
    if id(module) in seen:
        return
    seen.add(id(module))
    yield name, module
    for child, inner in module.named_children():
        yield from _walk(f"{name}.{child}" if name else child, inner, seen)


def bare_name(name: str) -> str:
    """Return a module's or parameter's name as if no adapter were around anything.

    >>> bare_name("encoder.layer.0.output.base_layer.dense.base_layer.weight")
    'encoder.layer.0.output.dense.weight'
    """
    return re.sub(r"(^|\.)base_layer(?=\.|$)", "", name)


def watched(module: Any) -> bool:
    """Return whether something wants to see a module's call: a hook, or a `forward` of accelerate's that moves it."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def matched(model: Any, pattern: str) -> Iterator[tuple[str, Any]]:
    """Yield the base's modules whose whole name matches."""
    expression = re.compile(pattern)
    return ((name, module) for name, module in bare_modules(model) if expression.fullmatch(name))


def linear_features(module: Any) -> tuple[int, int] | None:
    """Return (in, out) of a linear module, GPT-2's Conv1D included, or None."""
    if isinstance(getattr(module, "in_features", None), int):
        return module.in_features, module.out_features
    return (module.nx, module.nf) if type(module).__name__ == "Conv1D" else None


def is_transposed(module: Any) -> bool:
    """Return whether a linear module keeps its weight as (in, out), as GPT-2's Conv1D does."""
    return type(module).__name__ == "Conv1D"


def hidden_size(model: Any) -> int:
    """Return H, whatever the architecture calls it."""
    return int(model.config.get_text_config().hidden_size)


def layer_count(model: Any) -> int:
    """Return L, the number of layers of a model; of the decoder, where it has two stacks."""
    config = model.config.get_text_config()
    names = ("num_decoder_layers", "decoder_layers", "num_hidden_layers")
    return int(next(value for name in names if (value := getattr(config, name, None)) is not None))
