"""Guided adaptation: learn alone, fused, and from the adapters' own average; keep what tells most about the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guidebook.errors import InputError
from guidebook.evaluation.seen import Seen
from guidebook.evaluation.validators.information import information
from guidebook.losses.contract import How, Loss
from guidebook.losses.distillation import Distillation
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.mean_teacher import ramp_up
from guidebook.methods.priors import estimated_prior, tilt_towards
from guidebook.methods.stage import Stage, Teacher

if TYPE_CHECKING:
    from guidebook.training.run import Run

HOW: dict[bool, How] = {True: "masked", False: "plain"}
"""The student's view: masked where the base can mask."""
NAMES = {"task": "labels alone", "fused": "fused", "guided": "guided"}
ROWS = 1000
"""Texts of the pool that the choice reads."""


@dataclass(frozen=True)
class Guided:
    """Learn from labels alone, then fused, then guided by the adapters' average; keep what tells most of the target.

    The first model learns the task alone, the second fuses the domains first. The third goes on from the second and
    follows the average of its own adapters, beside the target's language. Kept is the one whose predictions of the
    target's pool have the largest mutual information with its rows: a model that drifts to one class loses it.

    The average (the teacher) reads whole target texts, the student masked ones; one forward of the masked texts serves
    language modelling and the distillation. The teacher's predictions are tilted so that their mean has the class
    shares that calibrated EM estimates for the target: a guard against a teacher that drifts to one class, or to the
    source's shares where the target has others.

    Reference: this project's own recipe: put together from Zhang et al. 2021 (fusion), Karouzos et al. 2021 (task and
        masked LM in one stage), Feng et al. 2023 (whole into masked), Tarvainen and Valpola 2017 (averaged teacher),
        Saerens et al. 2002 (prior), Shi and Sha 2012 (information on the target).
    Differs: it is none of these; see each of `domain_fusion`, `mixed`, `ssd`, `mean_teacher`, `self_training`, and the
        validator `information`.
    Reads: source text and all targets' text; source labels; target pool.
    Assumes: nothing about the class priors in training; of models that are equally sure the choice prefers the one
        with more equal class shares.
    """

    fuse: bool = True
    """Begin with the fusion stage of domain_fusion."""
    lm_weight: float = 0.2
    """Of language modelling on the target in the last stage; 0: none."""
    distil_weight: float = 1.0
    """Of following the teacher, after the ramp."""
    temperature: float = 1.0
    """Of both predictions in the distillation."""
    threshold: float = 0.6
    """Rows that the teacher is less sure of than this are left out."""
    half_life: float = 0.05
    """Of the average, as a share of the steps."""
    ramp: float = 0.2
    """Share of the last stage's steps in which the distillation's weight grows."""
    guard: bool = True
    """Tilt the teacher's predictions towards the estimated class shares of the target."""
    choose: bool = True
    """Keep the best of the three models by mutual information; false: always the last."""

    def __post_init__(self) -> None:
        if self.lm_weight < 0 or min(self.distil_weight, self.temperature, self.half_life) <= 0:
            raise InputError("method.lm_weight is 0 or more; distil_weight, temperature and half_life are above 0.")
        if not 0 <= self.threshold < 1 or not 0 < self.ramp <= 1:
            raise InputError("method.threshold is expected in [0, 1) and method.ramp in (0, 1].")

    def plan(self, run: Run) -> Iterator[Stage]:
        """Learn alone; fuse and learn; follow the average; keep one."""
        told: dict[str, float] = {}
        if self.choose:
            yield Stage("alone", {"task": TaskLoss(run.source)}, train={"task": None})
            told["task"] = _information(run)
        start = None
        if self.fuse:
            start = "domain"
            yield Stage("fuse", {"lm": LanguageModelling(run.text(("source", "targets")))}, train={"domain": None})
        yield Stage("learn", {"task": TaskLoss(run.source)}, train={"fused": start})
        if self.choose:
            told["fused"] = _information(run)
        pool, how = run.pool("target"), HOW[run.corrupts]
        losses: dict[str, Loss] = {
            "task": TaskLoss(run.source),
            "distil": Distillation(pool, how, self.temperature, self.threshold, self._tilt(run)),
        }
        if self.lm_weight:
            losses["lm"] = LanguageModelling(pool)
        yield Stage(
            "guide",
            losses,
            train={"guided": "fused"},
            weights={
                "distil": lambda fraction: self.distil_weight * ramp_up(fraction, self.ramp),
                "lm": lambda fraction: self.lm_weight,
            },
            teacher=Teacher(self.half_life, keep=True),
        )
        if self.choose and not run.planned:
            told["guided"] = _information(run)
            kept = max(told, key=lambda name: told[name])
            values = ", ".join(f"{NAMES[name]} {value:.3f}" for name, value in told.items())
            run.note(f"mutual information with the target's rows: {values}; kept: {NAMES[kept]}")
            if kept != "guided":
                yield Stage("keep", {}, train={}, below=(kept,))

    def _tilt(self, run: Run) -> tuple[float, ...] | None:
        """Return the factors (C,) that give the teacher's mean prediction the estimated class shares."""
        if not self.guard:
            return None
        _, prior, _ = estimated_prior(run)
        tilt = tilt_towards(run.predicted(), prior)
        run.note("estimated class shares of the target: " + ", ".join(f"{share:.2f}" for share in prior))
        return tuple(round(float(value), 6) for value in tilt)


def _information(run: Run) -> float:
    """Return the mutual information of the last model's predictions with rows of the target, in nats."""
    seen = Seen(run.predicted(ROWS))
    return information(seen, seen)
