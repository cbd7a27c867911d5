"""Mean teacher: the model agrees with the average of its own past, on the target's pool."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from guidebook.errors import InputError
from guidebook.losses.contract import How
from guidebook.losses.distillation import Distillation
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage, Teacher

if TYPE_CHECKING:
    from guidebook.training.run import Run


def ramp_up(fraction: float, length: float) -> float:
    """Return exp(-5 (1 - p / length)²) up to `length`, then 1.

    Reference: Laine and Aila 2017, Temporal Ensembling for Semi-Supervised Learning, ICLR, section 2.1.

    >>> round(ramp_up(0.0, 0.4), 4), ramp_up(0.4, 0.4), ramp_up(1.0, 0.4)
    (0.0067, 1.0, 1.0)
    """
    return math.exp(-5 * (1 - min(fraction / length, 1.0)) ** 2)


@dataclass(frozen=True)
class MeanTeacher:
    """Learn the task while predictions on noisy target rows follow those of the adapters' average on whole rows.

    Reference: French, Mackiewicz and Fisher 2018, Self-Ensembling for Visual Domain Adaptation, ICLR (with the
        confidence threshold); Tarvainen and Valpola 2017, Mean Teachers Are Better Role Models, NeurIPS.
    Differs: only adapters and head are averaged, the base is frozen; the decay is a half-life in the stage's steps;
        noise is masked tokens (or the adapters' and head's dropout) in place of image augmentation; the divergence is
        Kullback-Leibler's, where the papers take squared differences; no class-balance loss, which would assume equal
        priors. The average is what is kept.
    Reads: source labels, target pool; with `start: domain_fusion` also source text and all targets' text.
    Assumes: nothing about the class priors.
    """

    half_life: float = 0.05
    """Of the average, as a share of the steps."""
    weight: float = 1.0
    """Of the consistency beside the cross-entropy, after the ramp."""
    ramp: float = 0.4
    """Share of the steps in which that weight grows."""
    threshold: float = 0.8
    """Rows that the teacher is less sure of than this are left out."""
    noise: Literal["masks", "dropout"] = "masks"
    """What the student's view lacks: masks (a share of the tokens, where the base has a mask), or dropout alone."""
    start: Literal["source_only", "domain_fusion"] = "source_only"
    """source_only: from a new adapter; domain_fusion: from a copy of the fused one."""

    def __post_init__(self) -> None:
        if not (self.half_life > 0 and 0 < self.ramp <= 1 and 0 <= self.threshold < 1 and self.weight > 0):
            raise InputError(
                f"method.half_life is {self.half_life}, ramp {self.ramp}, threshold {self.threshold}, weight "
                f"{self.weight}; expected half_life and weight above 0, ramp in (0, 1] and threshold in [0, 1)."
            )

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse if asked to, then one stage with a teacher."""
        start = None
        if self.start == "domain_fusion":
            start = "domain"
            yield Stage("fuse", {"lm": LanguageModelling(run.text(("source", "targets")))}, train={"domain": None})
        noisy: How = "masked" if self.noise == "masks" and run.corrupts else "plain"
        follow = Distillation(run.pool("target"), how=noisy, threshold=self.threshold)
        yield Stage(
            "task",
            {"task": TaskLoss(run.source), "consistency": follow},
            train={"task": start},
            weights={"consistency": lambda fraction: self.weight * ramp_up(fraction, self.ramp)},
            teacher=Teacher(self.half_life, keep=True),
        )
