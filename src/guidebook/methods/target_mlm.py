"""Target language modelling: the adapter reads only the target before it learns the task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class TargetMLM:
    """Language modelling on the target's text alone, then the task from the source's labels.

    Reference: Gururangan et al. 2020, Don't Stop Pretraining (task-adaptive pre-training), ACL.
    Reads: target text; then source labels.
    Assumes: nothing about the class priors.
    """

    def plan(self, run: Run) -> Iterator[Stage]:
        """Read the target, then learn the task."""
        yield Stage("fuse", {"lm": LanguageModelling(run.text(("target",)))}, train={"domain": None})
        if run.has_task:
            yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": "domain"})
