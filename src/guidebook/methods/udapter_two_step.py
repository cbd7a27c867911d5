"""UDApter in two steps: a domain adapter that makes the domains look alike, a task adapter on top of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from guidebook.errors import InputError
from guidebook.losses.divergences import Divergence
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class UDApterTwoStep:
    """Train a domain adapter on a divergence alone, freeze it, and learn the task with an adapter stacked on it.

    Reference: Malik et al. 2023, UDApter: Efficient Domain Adaptation Using Adapters, EACL.
    Differs: padding is not pooled (the released code pools it); MK-MMD is the unbiased estimate, since the biased one
        pulls all rows into one point; sizes, lengths and the task's learning rate are the recipe's (the paper:
        reduction 32 for both, 10 epochs, then 1e-4); the stage fails when its rows collapse all the same.
    Reads: source pool, target pool; then source labels.
    Assumes: equal class priors in both domains.
    """

    divergence: Literal["mmd", "linear_mmd", "coral", "cmd", "energy"] = "mmd"
    """Distance between the two sets of rows: mmd (the paper), linear_mmd, coral, cmd or energy."""
    layers: str | tuple[int, ...] = "all"
    """Layers whose divergences are summed: all (the paper), all but last, top N, bottom N, or a list from 0."""
    rows: int = 32
    """Rows of each domain that are compared in a step, at least 32."""
    least_rank: float = 2.0
    """The first stage fails when the effective rank of a layer's rows falls below this: 1 is one point, or one line."""

    align_rate: float = 1e-5
    """Learning rate of the first stage (the paper's). A divergence alone has its optimum where all rows are one, and
    the rates that suit language modelling get there."""

    assumes_equal_priors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.align_rate <= 0:
            raise InputError(f"method.align_rate is {self.align_rate}, expected more than 0.")

    def plan(self, run: Run) -> Iterator[Stage]:
        """Align, then learn the task on top."""
        source, target = run.pool("source"), run.pool("target")
        between = Divergence(source, target, self.divergence, self.layers, self.rows, self.least_rank)
        yield Stage("align", {"divergence": between}, train={"domain": None}, learning_rate=self.align_rate)
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": None}, below=("domain",))
