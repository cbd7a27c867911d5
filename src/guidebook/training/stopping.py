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
from guidebook.losses.contract import Loss, Reads
from guidebook.methods.stage import Stage
from guidebook.training import processes
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.teacher import evaluating

LOSS = "held_out_loss"
MOST_ROWS = 512
"""Rows of a stream that are held out at most: enough to see a loss fall, few enough to be read twenty times."""
WHERE = "under train.fuse or train.task."
MEASUREMENTS = 20
"""How often the loss is measured in a whole stage."""


def hold_out(stage: Stage, share: float, seed: int) -> tuple[Stage, Stage]:
    """Return the stage on the rows that are trained on, and its first loss on rows held out of them.

    Whole documents are held out: pieces of one stand on one side, and what is held out of the first loss's streams is
    not trained on in any other stream of the stage either. Every domain gives the same share of its rows, at most
    `MOST_ROWS` in all.

    Raises:
        InputError: a stream has too few rows or documents to hold any out.
    """
    reads = {read.stream.name: read for loss in stage.losses.values() for read in loss.reads}
    first, measured = next(iter(stage.losses.items()))
    watched = dict.fromkeys(read.stream.name for read in measured.reads)
    held = {name: held_rows(reads[name].stream, share, seed_for(seed, "held out", name)) for name in watched}
    apart = [ids[held[name]] for name in watched if (ids := reads[name].stream.documents) is not None]
    rest, out = {}, {}
    for name, read in reads.items():
        taken = held.get(name, np.zeros(len(read.stream.tokens), dtype=bool))
        if read.stream.documents is not None and apart:
            taken = taken | np.isin(read.stream.documents, np.concatenate(apart))
        rest[name] = read.stream.take(np.flatnonzero(~taken))
        if name in watched:
            rows = np.flatnonzero(held[name])
            out[name] = read.stream.take(rows[:: -(-len(rows) // MOST_ROWS)])  # of a long document every nth piece
        _check_enough(read, rest[name], out.get(name))
    labels = [stream.labels for stream in out.values() if stream.labels is not None]
    if measured.counts == "labels" and not any((known >= 0).any() for known in labels):
        raise InputError(
            f"None of the rows of {', '.join(map(repr, out))} that early stopping holds out has a label: there is no "
            f"loss to watch. Raise held_out, or leave out patience, {WHERE}"
        )
    return on_streams(stage, rest), on_streams(dataclasses.replace(stage, losses={first: measured}, weights={}), out)


def held_rows(stream: Stream, share: float, seed: int) -> np.ndarray:
    """Return which of the rows (N,) are held out: whole documents, drawn in each domain until its share is full.

    Where every document is longer than that, the shortest one is held out, if it is no more than `share` of all rows.

    Raises:
        InputError: it is more, or there is one document.
    """
    rows = len(stream.tokens)
    ids = np.arange(rows, dtype=np.uint64) if stream.documents is None else stream.documents
    names, of_row, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    capped = min(share, MOST_ROWS / max(rows, 1))
    chosen = np.zeros(len(names), dtype=bool)
    rng = np.random.default_rng(seed)
    for domain in range(len(stream.domains)):
        own = np.unique(of_row[stream.owner == domain])
        room = int(capped * int(sizes[own].sum()))
        drawn = rng.permutation(own[sizes[own] <= room])
        chosen[drawn[np.cumsum(sizes[drawn]) <= room]] = True
    if not chosen.any() and len(names) > 1 and int(sizes.min()) <= share * rows:
        chosen[int(sizes.argmin())] = True
    if not chosen.any():
        raise InputError(
            f"The {rows:,} rows of {stream.name!r}, of {len(names):,} documents, are too few to hold out a share of "
            f"{share:g} for early stopping: whole documents are held out, and the shortest has "
            f"{int(sizes.min(initial=rows)):,} rows. Raise held_out, give more documents, or leave out patience, "
            f"{WHERE}"
        )
    found: np.ndarray = chosen[of_row]
    return found


def _check_enough(read: Reads, rest: Stream, out: Stream | None) -> None:
    """Raise InputError if every step reads more rows of a stream than are left of it, or than were held out of it."""
    needed, rows, name = read.rows or 1, len(read.stream.tokens), read.stream.name
    if (left := len(rest.tokens)) < needed:
        raise InputError(
            f"Early stopping leaves {left:,} of the {rows:,} rows of {name!r} to train on, and every step reads "
            f"{needed} different ones. Lower held_out, give more texts, or leave out patience, {WHERE}"
        )
    if out is not None and (held := len(out.tokens)) < needed:
        raise InputError(
            f"Early stopping holds {held:,} of the {rows:,} rows of {name!r} out, and its loss compares {needed} "
            f"different ones. Raise held_out, give more texts, or leave out patience, {WHERE}"
        )


def on_streams(stage: Stage, streams: Mapping[str, Stream]) -> Stage:
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
    """Measures a stage's first loss on held-out rows at equal distances, keeps the best weights, stops the stage.

    Both the loss and the weights are those that the stage leaves: a teacher's averages, where it keeps them.
    """

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
            self._best = {name: value.detach().clone() for name, value in self._model.kept().items()}
        return {f"best.{name}": value for name, value in self._best.items()}

    def kept(self) -> dict[str, Tensor]:
        """Return the best weights by name: what the stage leaves."""
        return {name.removeprefix("best."): value for name, value in self.best.items()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Measure, remember, decide."""
        if state.global_step % self._every and state.global_step < state.max_steps:
            return control
        with self._model.as_kept():
            loss = held_out_loss(self._model, self._held_out, bf16=args.bf16)
        due = control.should_log
        self.log({LOSS: processes.of_first(loss)})  # processes that round otherwise must not stop at different steps
        control.should_log = due  # a log of any kind takes it for done: the loss of this step would be in no curve
        losses = measured(state.log_history)
        if is_best(losses):
            best = self.best
            with torch.no_grad():
                for name, value in self._model.kept().items():
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
    return total / items if items else float("nan")
