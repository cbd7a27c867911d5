"""Self-training: the surest predictions on the target become labels, round after round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.priors import balanced_choice, estimated_prior
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class SelfTraining:
    """Label the target's surest rows with the model itself and learn from them beside the source, in rounds.

    Every round trusts a larger share of the pool and starts anew from where the first task stage started, so that what
    was learned from wrong labels is not carried on. Of every class as many rows are trusted as its estimated share.

    Reference: Zou et al. 2018, Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
        Self-Training, ECCV (growing shares, balanced by class); Lee 2013, Pseudo-Label, ICML Workshops.
    Differs: classes are balanced by their share in the target as estimated from the predictions (calibrated EM), where
        the paper gives every class the same portion of its own predictions; every round trains a fresh copy; source
        and pseudo-labelled rows stand side by side in a step, equally many.
    Reads: source labels, target pool; with `start: domain_fusion` also source text and all targets' text.
    Assumes: that the surest predictions are right; equal class priors only with `balance: source` or `equal`.
    """

    rounds: int = 2
    """Rounds of labelling and training after the first task stage."""
    share: float = 0.5
    """Share of the pool that the last round may trust; earlier rounds trust their part of it."""
    threshold: float = 0.7
    """Least calibrated probability of a row that is trusted."""
    balance: Literal["estimated", "source", "equal"] = "estimated"
    """Class shares of the trusted rows: estimated (of the target, by EM), those of the source, or equal."""
    start: Literal["source_only", "domain_fusion"] = "source_only"
    """source_only: from a new adapter; domain_fusion: from a copy of the fused one."""
    weight: float = 1.0
    """Of the pseudo-labelled rows beside the source's."""

    calibrates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 < self.share <= 1 or not 0 <= self.threshold <= 1 or self.weight <= 0:
            raise InputError(
                f"method.rounds is {self.rounds}, share {self.share}, threshold {self.threshold}, weight "
                f"{self.weight}; expected 1 round or more, share in (0, 1], threshold in [0, 1] and weight above 0."
            )

    @property
    def assumes_equal_priors(self) -> bool:
        """Whether the target is taken to have the source's class shares, or equal ones."""
        return self.balance != "estimated"

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse if asked to, learn the task, then trust, learn again, trust more."""
        start = None
        if self.start == "domain_fusion":
            start = "domain"
            yield Stage("fuse", {"lm": LanguageModelling(run.text(("source", "targets")))}, train={"domain": None})
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": start})
        for number in range(1, self.rounds + 1):
            source, target, pool = estimated_prior(run)
            prior = {"estimated": target, "source": source, "equal": np.full_like(source, 1 / len(source))}[
                self.balance
            ]
            rows, labels = balanced_choice(pool, prior, self.share * number / self.rounds, self.threshold)
            shares = ", ".join(f"{value:.2f}" for value in prior)
            whose = "source" if self.balance == "estimated" and target is source else self.balance
            run.note(f"round {number} trusts {len(rows):,} of {len(pool):,} rows; class shares {whose}: {shares}")
            if not len(rows):
                break
            trusted = run.pseudo_labelled(f"pseudo {number}", rows, labels)
            yield Stage(
                f"round{number}",
                {"task": TaskLoss(run.source), "pseudo": TaskLoss(trusted)},
                train={"task": start},
                weights={"pseudo": lambda fraction: self.weight},
            )
