"""Sums of adapters: weighted averages and arithmetic of several trained ones, without any training."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from guidebook.adapters.storage import CONFIG_FILE, MODEL_FILE, kind_of_config, read_adapter, write_adapter
from guidebook.errors import InputError

LINEAR = ("houlsby", "pfeiffer", "parallel", "invertible", "ia3")
"""Kinds whose tensors are averaged one by one, given a common ancestor."""
State = Mapping[str, Tensor]
SMALLEST = 1e-6
"""Singular values below this share of the largest are rounding errors of float32 weights."""


def sum_linear(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted sum of states tensor by tensor, summed in float64; whole numbers are those of the first.

    The sum of equal states under weights that sum to one is that state, bit for bit.

    Raises:
        InputError: the states hold other tensors or shapes.

    >>> sum_linear([{"w": torch.ones(2)}, {"w": torch.zeros(2)}], [0.25, 0.75])["w"]
    tensor([0.2500, 0.2500])
    """
    _check_same(states)
    found = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            found[name] = first.clone()
            continue
        total = torch.zeros(first.shape, dtype=torch.float64)
        for state, weight in zip(states, weights, strict=True):
            total += weight * state[name].double()
        found[name] = total.to(first.dtype)
    return found


def sum_low_rank(
    states: Sequence[State], weights: Sequence[float], scales: Sequence[float]
) -> tuple[dict[str, Tensor], int]:
    """Return a LoRA state whose updates are the weighted sums of the given ones, and its rank; its scale is 1.

    The updates scale · B · A are added, never A and B apart: mean(B) · mean(A) is not mean(B · A). Their factors are
    put side by side and brought back to the rank that the sum really has, by a singular value decomposition of the
    small core: exact but for rounding. Modules of a smaller rank than the largest are filled up with zeros.

    Args:
        states: Tensors under PEFT's names, `….lora_A.weight` (r, in) and `….lora_B.weight` (out, r).
        weights: (K,) weight of every state.
        scales: (K,) lora_alpha / r of every state.

    Raises:
        InputError: the states do not belong to the same modules.
    """
    modules = [{name.partition(".lora_A.")[0] for name in state if ".lora_A." in name} for state in states]
    if any(names != modules[0] for names in modules) or not modules[0]:
        raise InputError("LoRA adapters of different modules cannot be added. Train them with the same settings.")
    factors = {}
    for module in sorted(modules[0]):
        up = torch.cat(
            [
                weight * scale * state[f"{module}.lora_B.weight"].double()
                for state, weight, scale in zip(states, weights, scales, strict=True)
            ],
            dim=1,
        )  # (out, K r)
        down = torch.cat([state[f"{module}.lora_A.weight"].double() for state in states])  # (K r, in)
        factors[module] = _refactored(up, down)
    rank = max(1, *(len(down) for _, down in factors.values()))
    found = {}
    for module, (up, down) in factors.items():
        missing = rank - len(down)
        found[f"{module}.lora_A.weight"] = torch.nn.functional.pad(down, (0, 0, 0, missing)).float().contiguous()
        found[f"{module}.lora_B.weight"] = torch.nn.functional.pad(up, (0, missing)).float().contiguous()
    return found, rank


def _refactored(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Return (out, r) and (r, in) of the same product, r its numerical rank, the values shared out evenly."""
    left, left_core = torch.linalg.qr(up)
    right, right_core = torch.linalg.qr(down.mT)
    rotate, values, back = torch.linalg.svd(left_core @ right_core.mT, full_matrices=False)
    rank = int((values > SMALLEST * values.max().clamp(min=1e-30)).sum())
    root = values[:rank].sqrt()
    return left @ rotate[:, :rank] * root, root[:, None] * (right @ back.mT[:, :rank]).mT


def sum_folders(parts: Mapping[Path, float], into: Path, model_class: type) -> int:
    """Write the weighted sum of stored adapters and return how many numbers it holds; a union is summed by parts.

    Raises:
        InputError: adapters of different kinds or shapes, or of a kind that has no sum.
    """
    first, weights = next(iter(parts)), list(parts.values())
    inner = sorted(path.parent.name for path in first.glob(f"*/{CONFIG_FILE}"))
    if inner:
        return sum(sum_folders({p / name: w for p, w in parts.items()}, into / name, model_class) for name in inner)
    read = [read_adapter(folder) for folder in parts]
    states = [state for _, state in read]
    kinds = [kind_of_config(configs[0]) if configs else "full" for configs, _ in read]
    if len(set(kinds)) > 1:
        raise InputError("Adapters of different kinds cannot be added. Train them with the same `adapter:`.")
    if kinds[0] == "full":
        state = sum_linear(states, weights)
        shutil.copytree(first, into)
        save_file(state, into / MODEL_FILE, metadata={"format": "pt"})
    else:
        config, state = _summed(kinds[0], [configs[0] for configs, _ in read], states, weights)
        write_adapter(into, config, state, model_class)
    return sum(tensor.numel() for tensor in state.values())


def _summed(
    kind: str, configs: Sequence[Any], states: Sequence[State], weights: Sequence[float]
) -> tuple[Any, dict[str, Tensor]]:
    if kind == "lora":
        state, rank = sum_low_rank(states, weights, [config.lora_alpha / config.r for config in configs])
        config = copy.deepcopy(configs[0])
        config.r = config.lora_alpha = rank
        return config, state
    require_sum([kind])
    return configs[0], sum_linear(states, weights)


def require_sum(kinds: Iterable[str]) -> None:
    """Raise InputError if one of the kinds has no sum that is of that kind."""
    for kind in kinds:
        if kind not in (*LINEAR, "lora", "full"):
            raise InputError(
                f"Adapters of kind {kind} have no sum that is one of them: what they add is not linear in their "
                f"weights. Use {', '.join((*LINEAR, 'lora', 'full'))} with this method."
            )


def check_ancestor(lineages: Mapping[str, Sequence[str]], weights: Mapping[str, float]) -> None:
    """Raise InputError unless all adapters grew out of one and the weights sum to one.

    Hidden units of two adapters that were initialised apart stand in no relation: unit 3 of one may do what unit 7 of
    the other does, and with a non-linearity between the two projections their average does neither.

    Args:
        lineages: Adapter -> keys of what it grew out of, its initialisation first.
        weights: Adapter -> its weight.
    """
    shared = set.intersection(*(set(line) for line in lineages.values()))
    if not shared:
        raise InputError(
            f"The adapters {', '.join(lineages)} have no common ancestor: they were initialised apart, so their hidden "
            "units do not correspond and their sum means nothing. Start them as copies of one, or from one seed."
        )
    total = sum(weights.values())
    if abs(total - 1) > 1e-6:
        raise InputError(
            f"The weights of {', '.join(weights)} sum to {total:g}, expected 1: a sum of differences from the common "
            "ancestor keeps the ancestor once. Correct the weights."
        )


def _check_same(states: Sequence[State]) -> None:
    for state in states[1:]:
        same = state.keys() == states[0].keys()
        if not same or any(state[name].shape != value.shape for name, value in states[0].items()):
            raise InputError("Adapters of different shapes cannot be added. Train them with the same settings.")
