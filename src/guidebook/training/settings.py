"""Settings of the stages, as a recipe's `train:` gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from guidebook.errors import InputError


@dataclass(frozen=True)
class FuseTraining:
    """How a stage that models text is trained; its length is counted in tokens."""

    tokens: int | None = None
    """Real tokens to train on. Empty: two million, or three passes over the texts if that is less."""
    epochs: float | None = None
    """Passes over the texts (over those that are through first, where they are mixed), instead of `tokens`."""
    learning_rate: float | None = None
    """Peak learning rate. Empty: the adapter kind's own."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises; then it falls to zero on a line."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    mask_rate: float = 0.15
    """Share of the tokens that a masked language model predicts."""
    patience: int | None = None
    """Stop early when the loss on held-out text has not fallen for so many of its 20 measurements, and keep the best
    weights. Empty: train to the end of the schedule and keep the last."""
    held_out: float = 0.05
    """Share of the text, in whole documents, that is not trained on and of which at most 512 pieces tell when to stop;
    only with `patience`."""

    def __post_init__(self) -> None:
        _check("fuse.tokens", self.tokens, self.tokens is None or self.tokens >= 1, "at least 1")
        _check("fuse.epochs", self.epochs, self.epochs is None or self.epochs > 0, "more than 0")
        _check("fuse.epochs", self.epochs, self.epochs is None or self.tokens is None, "nothing beside fuse.tokens")
        _check("fuse.mask_rate", self.mask_rate, 0 < self.mask_rate < 1, "more than 0 and less than 1")
        _check_schedule("fuse", self)


@dataclass(frozen=True)
class TaskTraining:
    """How a stage that learns the task is trained; its length is counted in passes over the labelled rows."""

    epochs: float = 5.0
    """Passes over the labelled rows."""
    rows_per_batch: int = 32
    """Rows per optimiser step."""
    learning_rate: float | None = None
    """Peak learning rate. Empty: the adapter kind's own."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises; then it falls to zero on a line."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    patience: int | None = None
    """Stop early when the loss on held-out source rows has not fallen for so many of its 20 measurements, and keep the
    best weights. Empty: train to the end of the schedule and keep the last."""
    held_out: float = 0.1
    """Share of the labelled rows, at most 512, that is not trained on and tells when to stop; only with `patience`."""

    def __post_init__(self) -> None:
        _check("task.epochs", self.epochs, self.epochs > 0, "more than 0")
        _check("task.rows_per_batch", self.rows_per_batch, self.rows_per_batch >= 1, "at least 1")
        _check_schedule("task", self)


@dataclass(frozen=True)
class Training:
    """Settings of both stages."""

    tokens_per_batch: int = 4096
    """Tokens (padding included) per optimiser step of a stage that models text."""
    max_length: int = 128
    """Longest piece of text in tokens; longer documents are cut into pieces for language modelling, never truncated."""
    packing: bool = True
    """Put several texts into one row for causal bases that are known to keep them apart; others get rows by length."""
    micro_batches: int = 1
    """Split every step into so many parts to save memory; the gradient is the same."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bf16 autocast where this machine multiplies it faster, else float32. Or float32, bfloat16."""
    base_dropout: bool = False
    """Keep the frozen base's own dropout on while training. The kind `full` always keeps it."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input and compute the layer again for the gradient: less memory, a third more time."""
    compile: bool = False
    """Compile the base's layers for training (torch.compile): a minute at the start of a stage, then faster steps."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints of a stage."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    fuse: FuseTraining = field(default_factory=FuseTraining)
    """Stages that model text."""
    task: TaskTraining = field(default_factory=TaskTraining)
    """Stages that learn the task."""

    def __post_init__(self) -> None:
        _check("max_length", self.max_length, self.max_length >= 4, "at least 4")
        _check("tokens_per_batch", self.tokens_per_batch, self.tokens_per_batch >= 1, "at least 1")
        _check("micro_batches", self.micro_batches, self.micro_batches >= 1, "at least 1")
        _check("checkpoint_seconds", self.checkpoint_seconds, self.checkpoint_seconds >= 0, "0 or more")
        _check("max_grad_norm", self.max_grad_norm, self.max_grad_norm >= 0, "0 (no clipping) or more")


def _check_schedule(name: str, settings: FuseTraining | TaskTraining) -> None:
    rate = settings.learning_rate
    _check(f"{name}.learning_rate", rate, rate is None or 0 < rate < float("inf"), "more than 0")
    _check(f"{name}.warmup", settings.warmup, 0 <= settings.warmup <= 1, "a share, from 0 to 1")
    _check(f"{name}.weight_decay", settings.weight_decay, settings.weight_decay >= 0, "0 or more")
    patience = settings.patience
    _check(f"{name}.patience", patience, patience is None or patience >= 1, "at least 1")
    _check(f"{name}.held_out", settings.held_out, 0 < settings.held_out < 1, "more than 0 and less than 1")


def _check(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise InputError(f"train.{name} is {value!r}, expected {expected}. Correct it.")
