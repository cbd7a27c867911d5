"""Task arithmetic: the task's adapter, plus what the target's text adds, minus what the source's text adds."""

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
class TaskArithmetic:
    """Add the difference of two domain adapters to a task adapter: no training after the sum.

    Reference: Ilharco et al. 2023, Editing Models with Task Arithmetic, ICLR, section 5 (analogies); Chronopoulou et
        al. 2023, Language and Task Arithmetic with Parameter-Efficient Layers for Zero-Shot Summarization,
        arXiv 2311.09344.
    Differs: domains take the place of languages; the scale is a field, the papers choose it on labelled data.
    Reads: source text, target text, source labels.
    Assumes: nothing about the class priors; that the adapters grew out of one (else they are refused).
    """

    scale: float = 0.5
    """Of the difference between the target's adapter and the source's."""

    def plan(self, run: Run) -> Iterator[Stage]:
        """Three adapters from one initialisation, then their sum."""
        yield Stage("read_source", {"lm": LanguageModelling(run.text(("source",)))}, train={"source_domain": None})
        yield Stage("read_target", {"lm": LanguageModelling(run.text(("target",)))}, train={"target_domain": None})
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": None})
        parts = {"task": 1.0, "target_domain": self.scale, "source_domain": -self.scale}
        yield Stage("sum", {}, train={}, combine={"adapted": parts})
