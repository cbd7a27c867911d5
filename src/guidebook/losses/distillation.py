"""Distillation: a prediction that is taken for granted is learned from another view of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream
from guidebook.losses.contract import Counts, Facts, How, Reads, View
from guidebook.losses.task import task_head


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return τ² · KL(softmax(teacher / τ) ‖ softmax(student / τ)) in nats of every row: (B, C), (B, C) -> (B,).

    Its gradient is that of the cross-entropy with soft targets, and its minimum is 0. τ² keeps the gradient's size the
    same for every temperature.

    Reference: Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network, section 2.
    """
    goal = functional.log_softmax(teacher.float() / temperature, dim=-1)  # (B, C)
    found = functional.log_softmax(student.float() / temperature, dim=-1)  # (B, C)
    return temperature**2 * (goal.exp() * (goal - found)).sum(-1)


@dataclass(frozen=True)
class Distillation:
    """The teacher's prediction on whole rows, distilled into the model's prediction on another view of them.

    Rows that the teacher is less sure of than `threshold` count nothing; they stay in the number that the sum is
    divided by, so that a step with few sure rows is a small step.
    """

    stream: Stream
    how: How = "masked"
    """The student's view: masked, or plain (its own dropout is the only difference)."""
    temperature: float = 1.0
    threshold: float = 0.0
    rows: int | None = None

    counts: ClassVar[Counts] = "rows"
    length_in: ClassVar[Literal["tokens", "rows"]] = "rows"
    layers: ClassVar[bool] = False
    rates: ClassVar[Mapping[str, float]] = MappingProxyType({})

    @property
    def reads(self) -> Sequence[Reads]:
        """The rows as the student sees them, then whole, through the teacher."""
        return (Reads(self.stream, self.how, self.rows), Reads(self.stream, "teacher", self.rows))

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """The task head, `head`, shared with the task's loss."""
        return {"head": task_head(facts)}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the summed divergence, and the share of rows that the teacher is sure of."""
        student, teacher = (view.modules["head"](view.hidden, view.mask).float() for view in views)  # (B, C)
        if student.dim() == 3:  # words: (B, T, C); views differ in padding
            width = min(student.shape[1], teacher.shape[1])
            student, teacher = student[:, :width], teacher[:, :width]
        goal = teacher.detach()
        sure = (goal.softmax(-1).amax(-1) >= self.threshold).float()  # (B,), (B, T) for words
        each = distillation(student, goal, self.temperature) * sure
        if each.dim() == 2:  # words: a row counts with the mean over its tokens
            mask = views[0].mask[:, : each.shape[1]].float()
            each, sure = ((value * mask).sum(1) / mask.sum(1).clamp(min=1) for value in (each, sure))  # (B, T) -> (B,)
        return {"loss": each.sum(), "sure": sure.mean()}
