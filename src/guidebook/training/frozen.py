"""Frozen matrices held in the number type of a stage's products: cast once a stage, not at every use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from guidebook.adapters.modules import bare_modules

MULTIPLIES = (nn.Linear, Conv1D)
"""Modules of which autocast casts every parameter, whatever reads it: what they compute stays the same to the bit."""


@contextmanager
def frozen_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Hold a model's frozen float32 matrices in another number type while the context lasts.

    Autocast keeps its casts of weights that are trained, and casts frozen ones again at every use: of a large
    vocabulary's head that takes longer than its products. Adapters stay as they are, and so do embeddings: where a head
    shares their weight, the head alone has the cast one. Afterwards the same parameters as before are in place.

    Args:
        model: The base, with whatever adapters are around its modules.
        dtype: What autocast multiplies in; float32 changes nothing.
    """
    found = [
        (module, name, value)
        for _, module in bare_modules(model)
        if type(module) in MULTIPLIES
        for name, value in module.named_parameters(recurse=False)
        if value.dtype == torch.float32 and dtype != torch.float32 and not value.requires_grad
    ]
    try:
        for module, name, value in found:
            setattr(module, name, nn.Parameter(value.detach().to(dtype), requires_grad=False))
        yield
    finally:
        for module, name, value in found:
            setattr(module, name, value)
