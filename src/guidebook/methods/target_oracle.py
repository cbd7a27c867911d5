"""The oracle: what target labels would give. It reads them, and its name says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class TargetOracle:
    """Cross-fitted training inside the target: every row is predicted by a model that did not train on it.

    Reads: target labels: an upper bound, not a method to ship.
    Assumes: nothing.
    """

    folds: int = 5
    """Number of parts the target's labelled rows are cut into."""

    label_free: ClassVar[bool] = False

    def plan(self, run: Run) -> Iterator[Stage]:
        """One stage per fold."""
        for fold in range(self.folds):
            stream, held_out = run.oracle_fold(fold, self.folds)
            yield Stage(f"fold{fold}", {"task": TaskLoss(stream)}, train={"task": None})
            run.submit_rows(held_out)
