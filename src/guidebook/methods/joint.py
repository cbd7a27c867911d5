"""Joint training: the task's cross-entropy and a divergence between the domains in one stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from guidebook.losses.divergences import Divergence
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run

WEIGHTS = {"mmd": 1.0, "linear_mmd": 0.05, "coral": 3000.0, "cmd": 0.2, "energy": 0.2}
"""Weight of a divergence beside the cross-entropy: a start, chosen so that on the packaged base its gradient is of the
cross-entropy's size. Sizes differ by orders of magnitude, for coral between bases too: look at the gradient shares."""


@dataclass(frozen=True)
class Joint:
    """Learn the task while a divergence between source and target rows is kept small.

    Reference: Long et al. 2015, Learning Transferable Features with Deep Adaptation Networks, ICML (mmd);
        Sun and Saenko 2016, Deep CORAL, ECCV Workshops (coral); Zellinger et al. 2017, Central Moment Discrepancy
        for Domain-Invariant Representation Learning, ICLR (cmd).
    Differs: the layers of a frozen base with an adapter take the place of the top layers of a network that moves as a
        whole; rows are mean-pooled states; for cmd they go through tanh, which bounds them; all are the
        unbiased estimates, for cmd of the sum of squared norms.
    Reads: source labels, source pool, target pool.
    Assumes: equal class priors in both domains.
    """

    divergence: Literal["mmd", "linear_mmd", "coral", "cmd", "energy"] = "mmd"
    """Distance between the two sets of rows: mmd (several Gaussian kernels), linear_mmd, coral, cmd or energy."""
    layers: str | tuple[int, ...] = "top 2"
    """Layers whose rows are compared: all, all but last, top N, bottom N, or a list counted from 0."""
    weight: float | None = None
    """Of the divergence beside the cross-entropy. Empty: what suits this divergence, see `WEIGHTS`."""
    rows: int = 32
    """Rows of each domain that are compared in a step, at least 32."""

    assumes_equal_priors: ClassVar[bool] = True

    def plan(self, run: Run) -> Iterator[Stage]:
        """One stage."""
        weight = WEIGHTS[self.divergence] if self.weight is None else self.weight
        between = Divergence(run.pool("source"), run.pool("target"), self.divergence, self.layers, self.rows)
        yield Stage(
            "task",
            {"task": TaskLoss(run.source), "divergence": between},
            train={"task": None},
            weights={"divergence": lambda fraction: weight},
        )
