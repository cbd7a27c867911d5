"""The frozen base's own dropout, at another probability while a stage needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from guidebook.errors import InputError


@contextmanager
def base_dropout(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Give every dropout module of the base a probability while the context lasts; None leaves them as they are.

    Dropout of adapters is theirs. Modules are dropout only in training mode, so a teacher's view and predictions have
    none either way.

    Raises:
        InputError: the base has no dropout modules.
    """
    found = [module for name, module in model.named_modules() if isinstance(module, nn.Dropout) and "lora_" not in name]
    if probability is not None and not found:
        raise InputError(
            f"{type(model).__name__} has no dropout modules, so a text has no two different views. "
            "Choose a base with dropout (BERT, RoBERTa and relatives), or another method."
        )
    before = [module.p for module in found]
    for module in found:
        module.p = module.p if probability is None else probability
    try:
        yield
    finally:
        for module, old in zip(found, before, strict=True):
            module.p = old
