"""Settings of the stages, as a recipe's `train:` gives them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FuseTraining:
    """How a stage that models text is trained; its length is counted in tokens."""

    tokens: int | None = None
    """Real tokens to train on. Empty: two million, or three passes over the texts if that is less."""
    learning_rate: float | None = None
    """Peak learning rate. Empty: the adapter kind's own."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises; then it falls to zero on a line."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    mask_rate: float = 0.15
    """Share of the tokens that a masked language model predicts."""


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


@dataclass(frozen=True)
class Training:
    """Settings of both stages."""

    tokens_per_batch: int = 4096
    """Tokens (padding included) per optimiser step of a stage that models text."""
    max_length: int = 128
    """Longest piece of text in tokens; longer documents are cut into pieces for language modelling, never truncated."""
    micro_batches: int = 1
    """Split every step into so many parts to save memory; the gradient is the same."""
    dtype: str = "auto"
    """auto: bf16 autocast where the hardware has it, else float32. Or float32, bfloat16."""
    base_dropout: bool = False
    """Keep the frozen base's own dropout on while training. The kind `full` always keeps it."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints of a stage."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    fuse: FuseTraining = field(default_factory=FuseTraining)
    """Stages that model text."""
    task: TaskTraining = field(default_factory=TaskTraining)
    """Stages that learn the task."""
