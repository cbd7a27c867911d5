"""Writing in a domain: a causal language model goes on as its texts do. No labels, no head; its settings alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from guidebook.errors import InputError


@dataclass(frozen=True)
class CausalLM:
    """Settings of adapting a generative model to raw text.

    Raises:
        InputError: A setting is outside its range.

    >>> CausalLM(group="company").labelled
    False
    """

    kind: Literal["causal_lm"] = "causal_lm"
    """Name of the task."""
    validation_split_ratio: float = 0.2
    """Share of a domain's documents held out to measure the loss; none of a domain with validation text of its own."""
    split_seed: int = 0
    """Decides which documents are held out."""
    group: str | None = None
    """Column of the targets' files whose values stay together, such as company: those held out are then unseen."""
    max_train_documents: int | None = None
    """Documents of a domain to train on at most."""
    max_validation_documents: int = 200
    """Documents that are measured at most, in each domain."""
    prompts: tuple[str, ...] = ()
    """Texts to go on from before and after training. Empty: the beginnings of three held-out documents."""
    template: ClassVar[None] = None
    labelled: ClassVar[bool] = False
    words: ClassVar[bool] = False
    labels: ClassVar[None] = None
    max_length: ClassVar[int] = 0  # no rows for a head
    pooling: ClassVar[str] = "auto"
    head: ClassVar[str] = "linear"
    dropout: ClassVar[float] = 0.0
    dev: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.validation_split_ratio < 1:
            raise InputError(
                f"task.validation_split_ratio is {self.validation_split_ratio}, expected more than 0 and less than 1."
            )
        for name in ("max_train_documents", "max_validation_documents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"task.{name} is {value}, expected at least 1.")
