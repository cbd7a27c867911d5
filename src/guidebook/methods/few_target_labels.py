"""A few labels of the target that somebody made, learned beside the source's. Not a label-free method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class FewTargetLabels:
    """Learn the task from the source's labels and a few of the target's, which stand in a file of their own.

    The target's other labels stay hidden. Rows of the file that are also rows of the final evaluation are refused.

    Reference: Daumé III 2007, Frustratingly Easy Domain Adaptation, ACL, section 3.1 (the WEIGHTED baseline).
    Differs: every step holds as many labelled target rows as source rows, repeated in shuffled passes, at `weight`.
    Reads: source labels, the file's labels; with `start: domain_fusion` also source text and all targets' text.
    Assumes: nothing about the class priors of the unlabelled rows.
    """

    path: str
    """File of labelled target rows; `{target}` stands for the target's name."""
    label: str | None = None
    """Its label column. Empty: found by name."""
    weight: float = 1.0
    """Of the target's rows beside the source's."""
    start: Literal["source_only", "domain_fusion"] = "domain_fusion"
    """source_only: from a new adapter; domain_fusion: from a copy of the fused one."""

    label_free: ClassVar[bool] = False

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse if asked to, then learn from both."""
        if run.labels_words:
            raise InputError("method few_target_labels reads labels of whole texts; this task labels words.")
        few, start = run.labelled_by_hand(self.path, self.label), None
        if self.start == "domain_fusion":
            start = "domain"
            yield Stage("fuse", {"lm": LanguageModelling(run.text(("source", "targets")))}, train={"domain": None})
        yield Stage(
            "task",
            {"task": TaskLoss(run.source), "target": TaskLoss(few)},
            train={"task": start},
            weights={"target": lambda fraction: self.weight},
        )
