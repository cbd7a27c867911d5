"""Fingerprints of tensors: two bases are one if these are equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the xxh3_128 of names, dtypes, shapes and bytes, in the order of the names."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(raw)
    return digest.hexdigest()
