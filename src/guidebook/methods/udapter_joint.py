"""UDApter, joint: one adapter, the weight goes from the divergence to the task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from guidebook.losses.divergences import Divergence
from guidebook.losses.schedules import ramp, ramp_by_batch_size
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Schedule, Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run

SCHEDULES: dict[str, Schedule] = {"paper": ramp, "as_released": ramp_by_batch_size}


@dataclass(frozen=True)
class UDApterJoint:
    """Train one adapter on a·cross-entropy + (1 - a)·MK-MMD, with a going from 0 to 1.

    Reference: Malik et al. 2023, UDApter: Efficient Domain Adaptation Using Adapters, EACL.
    Differs: padding is not pooled (the released code pools it); MK-MMD is the unbiased estimate, since the biased one
        pulls all rows into one point; learning rate, size and length are the recipe's (the paper: reduction 16, 1e-4,
        20 epochs); the last step is kept and nothing is selected. The released code counts an epoch as as many
        batches as a batch has rows: `schedule: as_released` is that one.
    Reads: source labels, source pool, target pool.
    Assumes: equal class priors in both domains.
    """

    schedule: Literal["paper", "as_released"] = "paper"
    """How a grows: paper (over the whole stage), or as_released (the divergence is gone after a few batches)."""
    layers: str | tuple[int, ...] = "top 2"
    """Layers whose divergences are summed: top 2 (the paper), all, all but last, top N, bottom N, or a list from 0."""
    rows: int = 32
    """Rows of each domain that are compared in a step, at least 32."""

    assumes_equal_priors: ClassVar[bool] = True

    def plan(self, run: Run) -> Iterator[Stage]:
        """One stage."""
        share = SCHEDULES[self.schedule]
        between = Divergence(run.pool("source"), run.pool("target"), "mmd", self.layers, self.rows)
        yield Stage(
            "task",
            {"task": TaskLoss(run.source), "divergence": between},
            train={"task": None},
            weights={"task": share, "divergence": lambda fraction: 1 - share(fraction)},
        )
