"""The placebo: the same two stages with general text in place of the domains' text."""

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
class GeneralMLM:
    """What more training of the adapter gives without any knowledge of the domains.

    Only `domain_fusion` minus this method shows that the domains' text helped.

    Reads: general text; then source labels.
    Assumes: nothing about the target.
    """

    def plan(self, run: Run) -> Iterator[Stage]:
        """Read general text, then learn the task."""
        yield Stage("fuse", {"lm": LanguageModelling(run.text(("general",)))}, train={"domain": None})
        if run.has_task:
            yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": "domain"})
