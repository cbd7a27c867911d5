"""Mixed training: the task on source rows and language modelling on target rows, in one stage and one forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class Mixed:
    """Learn the task from source labels while going on to model the target's text.

    The loss is w·cross-entropy + (1 - w)·language modelling with w = n / (n + m), for n labelled source rows and m
    target texts. Source rows are read as they are, target rows masked, in one batch.

    Reference: Karouzos et al. 2021, UDALM: Unsupervised Domain Adaptation through Language Modeling, NAACL;
        MixedPEFT 2026, arXiv 2606.22272 (with adapters).
    Differs: a step holds as many target rows as source rows, and w alone carries their numbers. With `start: fusion`
        the stage before reads source and targets, the very stage of `domain_fusion` (UDALM: the target alone).
    Reads: source labels, target text; with `start: fusion` also source text and all targets' text.
    Assumes: nothing about the class priors.
    """

    start: Literal["none", "fusion"] = "none"
    """none: from a new adapter; fusion: from a copy of the adapter that domain_fusion fuses."""
    task_weight: float | None = None
    """w, the weight of the cross-entropy, between 0 and 1. Empty: by the numbers of rows, as in the paper."""

    def __post_init__(self) -> None:
        if self.task_weight is not None and not 0 < self.task_weight < 1:
            raise InputError(f"method.task_weight is {self.task_weight}, expected more than 0 and less than 1.")

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse if asked to, then learn the task and the target's language together."""
        if self.start == "fusion":
            fused = LanguageModelling(run.text(("source", "targets")))
            yield Stage("fuse", {"lm": fused}, train={"domain": None})
        weight = self.task_weight or share_of_source(len(run.source.tokens), len(run.pool("target").tokens))
        yield Stage(
            "task",
            {"task": TaskLoss(run.source), "lm": LanguageModelling(run.text(("target",)))},
            train={"task": "domain" if self.start == "fusion" else None},
            weights={"task": lambda fraction: weight, "lm": lambda fraction: 1 - weight},
        )


def share_of_source(labelled: int, unlabelled: int) -> float:
    """Return n / (n + m).

    >>> share_of_source(200, 600)
    0.25
    """
    return labelled / (labelled + unlabelled)
