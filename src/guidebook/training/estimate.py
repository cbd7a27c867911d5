"""What a run will cost, measured on one batch of each kind of stage before it starts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from guidebook.data.streams import seed_for
from guidebook.training.engine import Engine, Trained
from guidebook.training.layers import running
from guidebook.training.memory import peak_megabytes
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.trainer import chosen_dtype


def estimate_stages(engine: Engine, plans: Sequence[tuple[str, str, Trained]]) -> dict[str, Any]:
    """Return stages with tokens, steps and seconds; equal stages of several targets appear once.

    Args:
        engine: The loaded base and its settings.
        plans: (arm, target, planned stage) in the order of the run.
    """
    stages: dict[str, dict[str, Any]] = {}
    speeds: dict[tuple[str, ...], float] = {}
    trainable = 0
    for arm, target, planned in plans:
        if planned.key in stages:
            stages[planned.key]["targets"].append(target)
            continue
        if planned.stage.combine:
            stages[planned.key] = _without_training(arm, target, planned)
            continue
        plan = engine.plan(planned.stage)
        shape = tuple(type(loss).__name__ for loss in planned.stage.losses.values())
        if not planned.cached and shape not in speeds:
            speeds[shape], moving = _measure(engine, plan)
            trainable = max(trainable, moving)
        seconds = 0.0 if planned.cached else plan.tokens / speeds[shape]
        stages[planned.key] = {
            "arm": arm,
            "name": planned.stage.name,
            "targets": [target],
            "tokens": plan.tokens,
            "steps": plan.steps,
            "seconds": round(seconds, 1),
            "cached": planned.cached,
        }
    found = list(stages.values())
    return {
        "stages": found,
        "seconds": round(sum(stage["seconds"] for stage in found), 1),
        "tokens": sum(stage["tokens"] for stage in found if not stage["cached"]),
        "parameters": engine.host.base_parameters,
        "trainable_parameters": trainable,
        "memory_megabytes": peak_megabytes(),
    }


def _without_training(arm: str, target: str, planned: Trained) -> dict[str, Any]:
    """Return the entry of a stage that adds adapters: no tokens, no steps, no time worth a number."""
    nothing = {"tokens": 0, "steps": 0, "seconds": 0.0}
    return {"arm": arm, "name": planned.stage.name, "targets": [target], **nothing, "cached": planned.cached}


def _measure(engine: Engine, plan: StagePlan, least: int = 3) -> tuple[float, int]:
    """Return real tokens per second of forward and backward on typical batches, and the number of moving weights.

    The adapters are identities on a scratch copy; nothing that a run trains is touched.
    """
    stage = plan.stage
    engine.clear()
    for name in (*stage.below, *stage.train):
        engine.host.add(name, engine.adapter, seed_for(engine.seed, "adapter"))
    engine.host.activate((*stage.below, *stage.train), train=tuple(stage.train))
    device = next(engine.host.model.parameters()).device
    model = StageModel(engine.host, stage, engine.new_heads(stage), plan.steps).to(device)
    sizes = plan.step_tokens
    typical = int(np.argsort(sizes)[len(sizes) // 2])
    model.train()
    times = []
    bf16 = chosen_dtype(engine.train.dtype) == "bfloat16"
    layers = running(engine.host, dataclasses.replace(engine.train, compile=False))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), layers:
        for _ in range(least):
            batch = moved(plan.batch(typical), device)
            tokens = batch["tokens"] + int(
                batch["teacher"]["inputs"]["attention_mask"].sum() if "teacher" in batch else 0
            )
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = model(batch)["loss"]
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
            model.zero_grad(set_to_none=True)
    moving = sum(p.numel() for p in model.parameters() if p.requires_grad)
    engine.clear()
    return tokens / min(times[1:] or times), moving


def moved(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(inner, device) for key, inner in value.items()}
    return value
