"""Early stopping: a stage ends when the loss on rows held out of it has stopped falling, and keeps its best weights.

What is held out are rows of the stage's own streams, unlabelled text or labelled source rows, so no target label takes
part. When to stop is a pure function of the losses that the trainer's state carries, and the best weights are in every
checkpoint: a resumed stage stops where an undisturbed one does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from guidebook.data.streams import Stream, seed_for
from guidebook.errors import InputError
from guidebook.losses.contract import Loss
from guidebook.methods.stage import Stage
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.teacher import evaluating

LOSS = "held_out_loss"
MOST_ROWS = 512
"""Rows of a stream that are held out at most: enough to see a loss fall, few enough to be read twenty times."""
MEASUREMENTS = 20
"""How often the loss is measured in a whole stage."""


def hold_out(stage: Stage, share: float, seed: int) -> tuple[Stage, Stage]:
    """Return the stage on the rows that are trained on, and the same stage on a share of its rows held out of them.

    Every stream gives the same share of each of its domains, at most `MOST_ROWS` rows in all.

    Raises:
        InputError: a stream has too few rows to hold any out.
    """
    streams = {read.stream.name: read.stream for loss in stage.losses.values() for read in loss.reads}
    held = {name: held_rows(stream, share, seed_for(seed, "held out", name)) for name, stream in streams.items()}
    rest = {name: stream.take(np.flatnonzero(~held[name])) for name, stream in streams.items()}
    out = {name: stream.take(np.flatnonzero(held[name])) for name, stream in streams.items()}
    return _on(stage, rest), _on(stage, out)


def held_rows(stream: Stream, share: float, seed: int) -> np.ndarray:
    """Return which of the rows (N,) are held out."""
    rows = len(stream.tokens)
    share = min(share, MOST_ROWS / max(rows, 1))
    held = np.zeros(rows, dtype=bool)
    rng = np.random.default_rng(seed)
    for domain in range(len(stream.domains)):
        own = np.flatnonzero(stream.owner == domain)
        held[rng.permutation(own)[: int(share * len(own))]] = True
    if not held.any():
        raise InputError(
            f"The {rows:,} rows of {stream.name!r} are too few to hold out a share of {share:g} for early stopping. "
            "Raise held_out, or leave out patience, under train.fuse or train.task."
        )
    return held


def _on(stage: Stage, streams: Mapping[str, Stream]) -> Stage:
    """Return the stage with its losses reading other streams of the same names."""
    losses: dict[str, Loss] = {}
    for name, loss in stage.losses.items():
        fields = [(item.name, getattr(loss, item.name)) for item in dataclasses.fields(loss)]  # type: ignore[arg-type]
        changed = {field: streams[value.name] for field, value in fields if isinstance(value, Stream)}
        losses[name] = dataclasses.replace(loss, **changed)  # type: ignore[type-var]
    return dataclasses.replace(stage, losses=losses)


def is_best(losses: Sequence[float]) -> bool:
    """Return whether the last loss is lower than all before it.

    >>> is_best([2.0, 1.5]), is_best([2.0, 1.5, 1.5]), is_best([float("nan")])
    (True, False, False)
    """
    return losses[-1] == losses[-1] and all(not losses[-1] >= other for other in losses[:-1])


def waited(losses: Sequence[float]) -> int:
    """Return how many measurements lie behind the best one.

    >>> waited([2.0, 1.5, 1.6, 1.5])
    2
    """
    best = [index for index in range(len(losses)) if is_best(losses[: index + 1])]
    return len(losses) - 1 - best[-1] if best else len(losses)


class EarlyStopping(TrainerCallback):  # type: ignore[misc]
    """Measures a stage's first loss on held-out rows at equal distances, keeps the best weights, stops the stage."""

    def __init__(self, model: StageModel, held_out: StagePlan, patience: int, steps: int) -> None:
        self.log: Callable[[dict[str, float]], None]  # set by the trainer
        self._model = model
        self._held_out = held_out
        self._patience = patience
        self._every = max(1, steps // MEASUREMENTS)
        self._best: dict[str, Tensor] = {}

    @property
    def best(self) -> dict[str, Tensor]:
        """The weights at the lowest loss so far, for checkpoints; before the first measurement, those at the start."""
        if not self._best:
            self._best = {name: value.detach().clone() for name, value in self._model.trainable().items()}
        return {f"best.{name}": value for name, value in self._best.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best weights back into the model."""
        best = self.best
        for name, value in self._model.trainable().items():
            value.copy_(best[f"best.{name}"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Measure, remember, decide."""
        if state.global_step % self._every and state.global_step < state.max_steps:
            return control
        self.log({LOSS: held_out_loss(self._model, self._held_out, bf16=args.bf16)})
        losses = measured(state.log_history)
        if is_best(losses):
            best = self.best
            with torch.no_grad():
                for name, value in self._model.trainable().items():
                    best[f"best.{name}"].copy_(value)
        if waited(losses) >= self._patience:
            control.should_training_stop = True
        return control


def measured(history: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the losses on held-out rows in a trainer's history, oldest first."""
    return [entry[LOSS] for entry in history if LOSS in entry]


def held_out_loss(model: StageModel, plan: StagePlan, *, bf16: bool) -> float:
    """Return the first loss of a stage on a plan's rows: the mean over their items, dropout off, masks fixed."""
    name = next(iter(plan.stage.losses))
    device = next(model.parameters()).device
    total = items = 0.0
    with evaluating(model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for step in range(plan.steps):
            batch = send_to_device(plan.batch(step), device)
            count = float(batch["scale"][name])
            total += float(model(batch)["parts"][name]) * count
            items += count
    return total / max(items, 1.0)
