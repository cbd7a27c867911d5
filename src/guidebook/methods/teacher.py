"""Noisy labels of the target from a rule or another model, learned beside the source's. Not a label-free method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.soft_task import Chances, SoftTaskLoss
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class GivenTeacher:
    """Learn the task from the source's labels and from probabilities that somebody else gives for the target's rows.

    Reference: Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network, section 2 (soft targets).
    Differs: the teacher is whatever wrote the file: a rule, a larger model, a crowd; the temperature is 1.
    Reads: source labels, target pool and the file; with `start: domain_fusion` also source text and targets' text.
    Assumes: that the file's rows are the target's, in order.
    """

    path: str
    """File of JSON lines, one per row of the target: label to probability; `{target}` stands for the target's name."""
    weight: float = 1.0
    """Of the taught rows beside the source's."""
    start: Literal["source_only", "domain_fusion"] = "domain_fusion"
    """source_only: from a new adapter; domain_fusion: from a copy of the fused one."""

    label_free: ClassVar[bool] = False

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse if asked to, then learn from both."""
        if run.labels_words:
            raise InputError("method teacher reads probabilities of whole texts; this task labels words.")
        chances, start = run.probable(self.path), None
        every = np.arange(len(chances))
        if self.start == "domain_fusion":
            start = "domain"
            yield Stage("fuse", {"lm": LanguageModelling(run.text(("source", "targets")))}, train={"domain": None})
        taught = SoftTaskLoss(run.pseudo_labelled("taught", every, every), Chances(chances))
        yield Stage(
            "task",
            {"task": TaskLoss(run.source), "teacher": taught},
            train={"task": start},
            weights={"teacher": lambda fraction: self.weight},
        )
