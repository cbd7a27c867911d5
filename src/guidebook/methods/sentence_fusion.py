"""Sentence fusion: contrastive learning in place of language modelling, for bases without a head for the latter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from guidebook.errors import InputError
from guidebook.losses.contrastive import Contrastive
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class SentenceFusion:
    """Fuse source and target text by telling texts apart under dropout (SimCSE), then learn the task.

    The only method that reads text on a base whose language-modelling head was never trained: sentence encoders.

    Reference: Gao, Yao and Chen 2021, SimCSE: Simple Contrastive Learning of Sentence Embeddings, EMNLP.
    Differs: the adapters move, not the base; while they do, the frozen base's own dropout is on for this stage alone
        (elsewhere it is off), since two equal views teach nothing. Texts are pieces of documents in batches by length.
        TSDAE, the other candidate, needs a decoder trained from scratch, which no adapter of this size pays back.
    Reads: source text and all targets' text; then source labels.
    Assumes: nothing about the class priors.
    """

    scope: Literal["all", "pair"] = "all"
    """all: one stage on the source and every target; pair: one per target."""
    mixture: str = "proportional"
    """Token shares of the domains: proportional, equal, or temperature:0.5."""
    temperature: float = 0.05
    """Of the cosines."""
    dropout: float = 0.1
    """Probability of the frozen base's dropout modules in the contrastive stage."""

    def __post_init__(self) -> None:
        if not 0 < self.dropout < 1 or self.temperature <= 0:
            raise InputError(
                f"method.dropout is {self.dropout}, temperature {self.temperature}; expected a dropout in (0, 1): "
                "without it both views of a text are the same; and a temperature above 0."
            )

    def plan(self, run: Run) -> Iterator[Stage]:
        """Tell texts apart, then learn the task."""
        text = run.text(("source", "target") if self.scope == "pair" else ("source", "targets"), self.mixture)
        apart = Contrastive(text, self.temperature)
        yield Stage("fuse", {"contrast": apart}, train={"domain": None}, base_dropout=self.dropout)
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": "domain"})
