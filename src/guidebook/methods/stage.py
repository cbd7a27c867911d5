"""A stage is data: what is trained on which losses, starting from what. It has no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from guidebook.losses.contract import Loss

Schedule = Callable[[float], float]
"""The weight of a loss as a function of the fraction of steps done, 0..1."""


@dataclass(frozen=True)
class Teacher:
    """A second set of a stage's weights that "teacher" views are made with."""

    half_life: float = 0.0
    """Of the exponential average of what is trained, as a share of the steps; 0: the teacher is the model itself."""
    keep: bool = False
    """True: the average is what the stage leaves, not the last weights."""


@dataclass(frozen=True)
class Stage:
    """One training phase of a method."""

    name: str
    """Unique within the method."""
    losses: Mapping[str, Loss]
    """Named parts of the objective. The first one's rows decide how long the stage is. None at all: nothing is
    trained, the adapters `below` are put together as a new stack under the head of the top one."""
    train: Mapping[str, str | None]
    """Adapter that moves -> adapter it starts as a copy of (None: identity). Empty: only heads move."""
    below: tuple[str, ...] = ()
    """Frozen adapters under the trained ones, bottom first."""
    weights: Mapping[str, Schedule] = field(default_factory=dict)
    """Weight of a loss over time; 1 where nothing is said."""
    teacher: Teacher | None = None
    """Makes the views that a loss reads as "teacher"."""
    combine: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """New adapter -> weight of every earlier adapter in it: a stage that adds adapters and trains nothing. Their common
    ancestor is checked, heads are averaged too. Such a stage has neither losses nor anything in `train`."""
    base_dropout: float | None = None
    """Probability of the frozen base's own dropout modules in this stage; None: as the recipe says."""
    learning_rate: float | None = None
    """Peak learning rate; None: the recipe's for this kind of stage, else the adapter kind's own."""

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the adapters that the stage leaves, trained or combined."""
        return (*self.train, *self.combine)
