"""Source only: the task alone, learned from the source's labels. The twin that every method is measured against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class SourceOnly:
    """Train a task adapter on labelled source rows; the target is never looked at.

    Reads: source labels.
    Assumes: nothing about the target.
    """

    def plan(self, run: Run) -> Iterator[Stage]:
        """One stage."""
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": None})
