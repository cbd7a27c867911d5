"""DANN: a critic learns to tell the domains apart, and the adapter learns the task while leaving it in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from guidebook.losses.adversarial import Adversarial
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class DANN:
    """Learn the task against a domain critic: gradient reversal makes source and target rows indistinguishable.

    Reference: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, JMLR 17.
    Differs: the critic has a tanh layer of the base's width, runs in float32 and learns at its own rate; the
        adapters of a frozen base are what is turned against it; the reversal rests in steps in which the
        critic does worse than guessing.
    Reads: source labels, source pool, target pool.
    Assumes: equal class priors in both domains; where they differ, a deceived critic costs accuracy.
    """

    rows: int = 32
    """Rows of each domain that the critic judges in a step."""
    gamma: float = 10.0
    """How fast the reversal grows: 2 / (1 + exp(-gamma p)) - 1 of the fraction p of steps."""
    critic_rate: float = 10.0
    """Learning rate of the critic, as a factor of the adapter's."""

    assumes_equal_priors: ClassVar[bool] = True

    def plan(self, run: Run) -> Iterator[Stage]:
        """One stage."""
        critic = Adversarial(run.pool("source"), run.pool("target"), self.rows, self.gamma, self.critic_rate)
        yield Stage("task", {"task": TaskLoss(run.source), "critic": critic}, train={"task": None})
