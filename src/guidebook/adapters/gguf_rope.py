"""Rotary positions of a GGUF file that are stretched for long texts: transformers drops what the file says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from guidebook.adapters.gguf_header import Header
from guidebook.errors import InputError

FACTORS = "rope_freqs.weight"
"""Tensor of divisors of the frequencies, as llama.cpp writes for Llama 3.1 and later."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of every Llama whose GGUF files have divisors; the files do not say them, so they are checked with the divisors."""
USUAL = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Factors to try; the largest divisor is it, unless no frequency is low enough."""


def stretched(path: Path, header: Header, config: Any) -> dict[str, Any]:
    """Return what the model's `rope_parameters` lack: nothing where the positions are plain.

    Args:
        path: The GGUF file.
        header: Its header.
        config: The configuration that transformers made of it.

    Raises:
        InputError: stretched in a way that cannot be told from the file.
    """
    facts, start = header.metadata, f"{header.architecture}.rope.scal"
    kind = str(facts.get(f"{start}ing.type", "none"))
    factor = facts.get(f"{start}ing.factor", facts.get(f"{start}e_linear", 1.0))
    if header.architecture == "gpt-oss":
        return {}  # transformers reads these itself
    divisors = next((tensor for tensor in header.tensors if tensor.name == FACTORS), None)
    if divisors is not None:
        if divisors.kind != "F32":
            raise InputError(_unknown(path, f"divisors of type {divisors.kind}"))
        values = np.fromfile(path, "<f4", count=int(np.prod(divisors.shape)), offset=divisors.offset)
        return _llama3(path, values.astype(np.float64), config)
    if any(tensor.name.startswith("rope_factors_") for tensor in header.tensors):
        raise InputError(_unknown(path, "longrope"))
    if kind == "yarn":
        original = facts.get(f"{start}ing.original_context_length")
        if original is None:
            raise InputError(_unknown(path, "yarn without the original context length"))
        return {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": int(original)}
    if kind not in ("none", "linear"):
        raise InputError(_unknown(path, kind))
    return {} if float(factor) in (0.0, 1.0) else {"rope_type": "linear", "factor": float(factor)}


def llama3_divisors(theta: float, factor: float, dimensions: int) -> np.ndarray:
    """Return by what Llama 3.1's positions divide each frequency (dimensions / 2,).

    Differs: from transformers' formula only in giving the divisors, not the frequencies.
    """
    frequencies = theta ** (-np.arange(0, dimensions, 2) / dimensions)
    turns = LLAMA3["original_max_position_embeddings"] * frequencies / (2 * np.pi)  # in the original context
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divisors: np.ndarray = 1 / ((1 - smooth) / factor + smooth)
    return divisors


def _llama3(path: Path, values: np.ndarray, config: Any) -> dict[str, Any]:
    if np.allclose(values, 1.0):
        return {}
    theta = float(config.rope_parameters["rope_theta"])
    for factor in (float(values.max()), *USUAL):
        if np.allclose(values, llama3_divisors(theta, factor, 2 * len(values)), rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor, **LLAMA3}
    raise InputError(_unknown(path, "divisors that are not Llama 3's"))


def _unknown(path: Path, what: str) -> str:
    return (
        f"{path}: its rotary positions are stretched for long texts ({what}), which cannot be told from a GGUF file: "
        "the model would read positions it was not trained with. Name a folder with the original model instead."
    )
