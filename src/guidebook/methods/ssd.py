"""Self-supervised distillation: what the model says of a whole target text, it learns to say of the masked one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from guidebook.errors import InputError
from guidebook.losses.contract import Loss
from guidebook.losses.distillation import Distillation
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage, Teacher

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class SSD:
    """Read the domains, learn the task, then distil whole target texts into masked ones beside the task.

    The prediction on the whole text is made without gradient and without dropout by the model itself as it is at that
    step; one forward of the masked text serves the distillation and, if asked for, language modelling.

    Reference: Feng et al. 2023, A Two-Stage Framework with Self-Supervised Distillation For Cross-Domain Text
        Classification, arXiv 2304.09820.
    Differs: adapters of a frozen base and a head, where the paper trains all weights of a prompted masked LM; its first
        stage (cross-entropy and masked LM together on the source) is fusion on source and target text, then the task;
        the source's cross-entropy stays in the last stage (`keep_source: false` leaves it out, as in the paper).
    Reads: source text, target text; source labels; then the target pool.
    Assumes: nothing about the class priors; that the first task stage is right more often than not.
    """

    fuse_on: Literal["source+targets", "target", "nothing"] = "source+targets"
    """Text of the first stage: source+targets (the stage of domain_fusion), the target alone, or no such stage."""
    temperature: float = 1.0
    """Of both predictions in the distillation."""
    weight: float = 1.0
    """Of the distillation."""
    lm_weight: float = 0.0
    """Of masked language modelling on the same masked target texts; 0: none."""
    keep_source: bool = True
    """Keep the source's cross-entropy in the last stage."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.weight <= 0 or self.lm_weight < 0:
            raise InputError(
                f"method.temperature is {self.temperature}, weight {self.weight}, lm_weight {self.lm_weight}; expected "
                "temperature and weight above 0, lm_weight 0 or more."
            )

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse, learn the task, distil."""
        if not run.corrupts:
            raise InputError(
                "method ssd distils whole texts into masked ones, and this base does not mask single tokens. Choose an "
                "encoder, or mean_teacher, whose noise can be dropout."
            )
        start = None
        if self.fuse_on != "nothing":
            start = "domain"
            text = run.text(("target",) if self.fuse_on == "target" else ("source", "targets"))
            yield Stage("fuse", {"lm": LanguageModelling(text)}, train={"domain": None})
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": start})
        pool = run.pool("target")
        losses: dict[str, Loss] = {"task": TaskLoss(run.source)} if self.keep_source else {}
        losses["distil"] = Distillation(pool, temperature=self.temperature)
        if self.lm_weight:
            losses["lm"] = LanguageModelling(pool)
        yield Stage(
            "distil",
            losses,
            train={"adapted": "task"},
            weights={"distil": lambda fraction: self.weight, "lm": lambda fraction: self.lm_weight},
            teacher=Teacher(),
        )
