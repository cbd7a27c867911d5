"""A padded batch laid out in bins: documents side by side that do not see each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from guidebook.data.packing import fill
from guidebook.methods.stage import Stage

PACKS = frozenset(
    (
        *("gpt2", "gptj", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"),
        *("gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo2"),
    )
)
"""Architectures that keep packed rows apart when their positions start again, without a mask and without a cache.

A test proves it for each: losses and gradients of packed rows equal those of rows by themselves. OPT and Falcon read
across rows without a word, Bloom has no positions; what is not in this table is not packed.
"""


def may_pack(model_type: str, stage: Stage) -> bool:
    """Return whether a stage may be packed: the architecture keeps rows apart, and no loss looks at whole rows."""
    return model_type in PACKS and only_predicts(stage)


def only_predicts(stage: Stage) -> bool:
    """Return whether all losses of a stage only read one stream's predicted tokens."""
    reads = [read for loss in stage.losses.values() for read in loss.reads]
    counted = all(loss.counts == "positions" and not loss.layers for loss in stage.losses.values())
    return counted and all(read.how == "masked" for read in reads) and len({read.key for read in reads}) == 1


def packed(batch: dict[str, Any], width: int, pad: int) -> dict[str, Any]:
    """Return a batch of one view with its rows (B, T) in bins (K, W), W at most `width`.

    Each row's positions start from 0. The rest of a bin is padding that starts from 0 too, a row of its own that is
    never predicted. There is no attention mask: any mask, also one of ones, would make rows see each other.
    """
    ids: Tensor = batch["inputs"]["input_ids"]
    mask = batch["inputs"]["attention_mask"].bool()
    lengths = mask.sum(1)
    bins = fill(lengths.numpy(), width)
    count, kept = int(bins[-1]) + 1 if len(bins) else 0, len(bins)
    starts = np.zeros(kept, np.int64)  # of each row in its bin
    used = np.zeros(count, np.int64)
    for row, place in enumerate(bins.tolist()):
        starts[row], used[place] = used[place], used[place] + int(lengths[row])
    wide = int(used.max(initial=1))
    row, column = mask.nonzero(as_tuple=True)  # real tokens
    target = torch.from_numpy(bins * wide + starts)[row] + column
    made = torch.full((count * wide,), pad)
    made[target] = ids[row, column]
    places = _rest(used, wide)
    places[target] = column
    real = torch.zeros(count * wide, dtype=torch.bool)
    real[target] = True
    moved = torch.zeros(ids.numel(), dtype=torch.long)
    moved[row * ids.shape[1] + column] = target
    (key,) = batch["rows"]
    return {
        **batch,
        "inputs": {"input_ids": made.view(count, wide), "position_ids": places.view(count, wide), "use_cache": False},
        "mask": real.view(count, wide),
        "positions": moved[batch["positions"]],
        "labels": torch.full((count,), -1),
        "owner": torch.zeros(count, dtype=torch.long),
        "rows": {key: (0, count)},
    }


def _rest(used: np.ndarray, wide: int) -> Tensor:
    """Return positions (K * W,) that count from the end of what each bin uses."""
    places = np.arange(wide)[None] - used[:, None]  # (K, W)
    return torch.from_numpy(np.maximum(places, 0).reshape(-1))


def packed_padding(lengths: np.ndarray, plan: list[np.ndarray], width: int) -> float:
    """Return the share of padding among all tokens of a packed plan's bins, in [0, 1)."""
    total = real = 0
    for rows in plan:
        bins = fill(lengths[rows], width)
        used = np.bincount(bins, weights=lengths[rows])
        total, real = total + len(used) * int(used.max()), real + int(used.sum())
    return 1 - real / total if total else 0.0
