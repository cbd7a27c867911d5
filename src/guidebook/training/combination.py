"""A stage that adds adapters instead of training: its weights, heads and figures, from what earlier stages left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor

from guidebook.adapters.averaging import check_ancestor, require_sum, sum_folders, sum_linear
from guidebook.adapters.host import Host
from guidebook.errors import InputError
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.engine import Trained

HEADS = "heads.safetensors"


def check_combination(stage: Stage, made: Mapping[str, Trained], kind: str) -> None:
    """Raise InputError if a stage's sums mean nothing: a kind without one, no common ancestor, wrong weights."""
    if stage.combine:
        require_sum(kind.split("+"))
    for parts in stage.combine.values():
        check_ancestor({name: made[name].lineage[name] for name in parts}, parts)


def lineage_of(stage: Stage, made: Mapping[str, Trained], key: str, root: str) -> dict[str, tuple[str, ...]]:
    """Return, for every adapter that a stage leaves, what it grew out of: its initialisation first, this stage last.

    Adapters of one kind and one seed share their initialisation, `root`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, start in stage.train.items():
        found[name] = (*(made[start].lineage.get(start, ()) if start else (root,)), key)
    for name, parts in stage.combine.items():
        first, *others = (made[part].lineage[part] for part in parts)
        found[name] = (*(step for step in first if all(step in other for other in others)), key)
    return found


def combine(host: Host, stage: Stage, made: Mapping[str, Trained], folder: Path) -> None:
    """Write the sums of adapters and of their heads, and the stage's figures, into its folder."""
    began = time.monotonic()
    parameters = 0
    for name, parts in stage.combine.items():
        places = {made[part].places[part]: weight for part, weight in parts.items()}
        parameters += sum_folders(places, folder / "adapters" / name, type(host.model))
    if heads := summed_heads(stage, made):
        save_file(heads, folder / HEADS)
    figures = {
        "tokens": 0,
        "steps": 0,
        "seconds": round(time.monotonic() - began, 3),
        "tokens_per_second": 0.0,
        "padding_share": 0.0,
        "losses": {},
        "gradient_shares": {},
        "mix": {},
        "resumed_from_step": 0,
        "process": os.getpid(),
        "trainable_parameters": parameters,
        "combines": {name: dict(parts) for name, parts in stage.combine.items()},
    }
    (folder / "stage.json").write_text(json.dumps(figures, indent=1), encoding="utf8")


def summed_heads(stage: Stage, made: Mapping[str, Trained]) -> dict[str, Tensor]:
    """Return the weighted mean of the task heads of those parts that have one.

    Raises:
        InputError: the weights of the parts with a head sum to zero.
    """
    weights: dict[Path, float] = {}
    for parts in stage.combine.values():
        for name, weight in parts.items():
            place = made[name].folder / HEADS
            if place.exists() and any(key.startswith("head.") for key in load_file(place)):
                weights[place] = weights.get(place, 0.0) + weight
    if not weights:
        return {}
    total = sum(weights.values())
    if abs(total) < 1e-6:
        raise InputError(f"Stage {stage.name}: the weights of the adapters with a task head sum to zero. Change them.")
    states = [{key: v for key, v in load_file(place).items() if key.startswith("head.")} for place in weights]
    return sum_linear(states, [weight / total for weight in weights.values()])
