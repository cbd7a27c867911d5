"""How a stage runs the base's layers while it trains: lean, checkpointed to save memory, compiled to save time."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from guidebook.adapters.feasible import check_training
from guidebook.adapters.host import Host
from guidebook.errors import InputError
from guidebook.training import processes
from guidebook.training.frozen import frozen_in
from guidebook.training.lean_gelu import lean_activations
from guidebook.training.lean_norm import lean_norms
from guidebook.training.settings import Training
from guidebook.training.trainer import chosen_dtype


def check_layers(host: Host, train: Training) -> None:
    """Refuse, before anything is trained, what this base or this machine cannot do.

    Raises:
        InputError: transformers has no checkpointing for this family; no compiler on this machine.
    """
    check_training(host.dtype, host.quantise, train.dtype, compiled=train.compile)
    if train.gradient_checkpointing and not getattr(host.model, "supports_gradient_checkpointing", False):
        raise InputError(
            f"train.gradient_checkpointing: transformers offers none for {host.config.model_type}. Leave it out; "
            "train.micro_batches saves memory on every base."
        )
    if train.compile and (missing := missing_compiler()):
        raise InputError(f"train.compile: {missing} Leave train.compile out, or install it.")


def missing_compiler() -> str:
    """Return what torch.compile lacks on this machine, or ""."""
    if torch.cuda.is_available():
        return "" if find_spec("triton") is not None else "torch compiles for the GPU with triton, which is missing."
    known = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    found = any(shutil.which(name) for name in known if name)
    return "" if found else "torch compiles with a C++ compiler, and there is no g++ or clang++ on the path."


@contextmanager
def running(host: Host, train: Training) -> Iterator[None]:
    """Run the host's layers as the settings say while the context lasts; afterwards they run as they always do.

    Checkpointing keeps each layer's input and computes the rest again in the backward pass, with the same dropout: the
    gradients are the same. Compiling is layer by layer, so that all layers share one compilation, for any number of
    rows and tokens; sums are taken in another order, so gradients differ by rounding. The tap stays outside. Without a
    compiler, which sees to it by itself, activations and norms that are written out keep their input alone. Where a
    stage multiplies in bf16, frozen matrices are held in it; not in several processes, which may share a sharded model,
    whose parameters have one type.
    """
    model: Any = host.model
    layers = layers_of(host) if train.compile else []
    casts = chosen_dtype(train.dtype) == "bfloat16" and processes.count() == 1
    dtype = torch.bfloat16 if casts else torch.float32
    if train.gradient_checkpointing:
        _newest(model, "enable")({"use_reentrant": False})
        # transformers lets the embeddings require a gradient, for reentrant checkpointing, and never takes it back:
        # every layer below the lowest adapter would be computed again, and its gradient, in later stages too.
        model.disable_input_require_grads()
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        with _lean(model) if not train.compile else nullcontext(), frozen_in(model, dtype):
            yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None  # what `compile` sets; torch has no method that takes it away
        if layers:
            torch._dynamo.reset()  # the next stage has other adapters: stale code would count as recompilations
        if train.gradient_checkpointing:
            _newest(model, "disable")()


@contextmanager
def _lean(model: nn.Module) -> Iterator[None]:
    with lean_activations(model), lean_norms(model):
        yield


def _newest(model: Any, what: str) -> Any:
    """Return the method that enables or disables checkpointing, which transformers is renaming."""
    return getattr(model, f"activation_checkpointing_{what}", None) or getattr(model, f"gradient_checkpointing_{what}")


def layers_of(host: Host) -> list[nn.Module]:
    """Return the base's layers, in the model's order."""
    expression = re.compile(host.placement.layers)
    return [module for name, module in host.model.named_modules() if expression.fullmatch(name)]
