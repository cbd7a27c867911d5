"""The domain critic: it learns to tell source from target, and what it reads learns to leave it in the dark."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from guidebook.data.streams import Stream, require_rows, seed_for
from guidebook.errors import InputError
from guidebook.losses.contract import Counts, Facts, Reads, View
from guidebook.losses.schedules import ramp
from guidebook.losses.task import PooledHead
from guidebook.tasks.heads import Head

EARLY = 0.2
"""Share of the steps after which a critic should have learned something: until then the reversal is weak."""
DEAD = 0.55
"""A critic below this accuracy after the early steps has found nothing."""
GUESSING = math.log(2)
"""Cross-entropy in nats of a critic that guesses."""
ENOUGH = 640
"""Rows that the accuracy of the early steps must rest on before anything is said of it: a standard error of 2 %."""


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, strength: float | Tensor) -> Tensor:
        ctx.strength = strength
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(rows: Tensor, strength: float | Tensor) -> Tensor:
    """Return the rows as they are; their gradient comes back multiplied by -strength.

    Reference: Ganin and Lempitsky 2015, Unsupervised Domain Adaptation by Backpropagation, ICML, section 3.

    >>> rows = torch.ones(2, requires_grad=True)
    >>> reverse_gradient(rows, 0.5).sum().backward()
    >>> rows.grad
    tensor([-0.5000, -0.5000])
    """
    return cast(Tensor, _Reverse.apply(rows, strength))  # type: ignore[no-untyped-call]


class Critic(nn.Module):
    """Logits (B, 2) of source and target from hidden states, in float32 whatever the base runs in.

    It counts its own accuracy over the early steps, in memory only: a resumed stage counts from where it goes on.
    """

    def __init__(self, head: PooledHead) -> None:
        super().__init__()
        self.judge = head
        self._seen, self._right = 0, cast(int | Tensor, 0)  # a GPU's own count is asked for once, at the end
        self._told = False

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (B, 2) logits of hidden states (B, T, H) under their mask (B, T)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return cast(Tensor, self.judge(hidden.float(), mask))

    def watch(self, right: int | Tensor, rows: int, fraction: float) -> None:
        """Count the early verdicts; warn once, after them, if they were no better than guessing."""
        if fraction < EARLY:
            self._seen, self._right = self._seen + rows, self._right + right
        elif not self._told and self._seen >= ENOUGH:
            self._told = True
            if self._right < DEAD * self._seen:
                warnings.warn(
                    f"After {EARLY:.0%} of the steps the domain critic is right about {self._right / self._seen:.0%} "
                    "of the rows, and half is guessing. Either it does not learn (raise method.critic_rate), or the "
                    "two pools look the same to it already: then aligning them can give nothing.",
                    stacklevel=2,
                )


@dataclass(frozen=True)
class Adversarial:
    """Cross-entropy of a domain critic behind a gradient reversal, in equal parts of both domains.

    The critic itself always learns at full strength: the ramp is in the reversal alone. With the ramp as the weight
    of the whole loss the critic would not learn while it is zero.

    The reversal rests in steps in which the critic does worse than guessing. Its cross-entropy has no upper bound: an
    adapter that went on raising it would drive the hidden states ever further, and the task's gradient would drown.
    That is decided by all rows of a step (row by row it does not hold: those that the critic still tells apart go on
    pushing the others), so a step is not cut into parts.

    Raises:
        InputError: a stream with fewer rows than a step.
    """

    source: Stream
    target: Stream
    rows: int = 32
    """Rows of each domain in a step."""
    gamma: float = 10.0
    """How fast the reversal grows with the fraction of steps."""
    rate: float = 10.0
    """Factor of the stage's learning rate for the critic."""

    counts: ClassVar[Counts] = "batches"
    length_in: ClassVar[Literal["tokens", "rows"]] = "tokens"
    layers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for stream in (self.source, self.target):
            require_rows(stream, self.rows)

    @property
    def reads(self) -> Sequence[Reads]:
        """Both pools, equally many rows."""
        return (Reads(self.source, rows=self.rows), Reads(self.target, rows=self.rows))

    @property
    def rates(self) -> Mapping[str, float]:
        """The critic learns faster than the adapters."""
        return MappingProxyType({"critic": self.rate})

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """The critic: two layers on rows that are pooled as the task pools them (mean, where it labels words)."""
        head = Head(facts.hidden_size, 2, "two_layer", dropout=0.0, seed=seed_for(facts.seed, "critic"))
        return {"critic": Critic(PooledHead(head, "mean" if facts.pooling == "tokens" else facts.pooling))}

    def __call__(self, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the mean cross-entropy over the rows of both domains, and the critic's accuracy.

        Raises:
            InputError: the step was cut into parts.
        """
        source, target = views
        if (found := len(source.hidden)) < self.rows:
            raise InputError(
                f"train.micro_batches cuts the {self.rows} rows that the critic judges into sets of {found}. "
                "Set train.micro_batches=1 and one process, and save memory by a smaller max_length."
            )
        critic = cast(Critic, source.modules["critic"])
        hidden, mask = torch.cat([source.hidden, target.hidden]), torch.cat([source.mask, target.mask])  # (S + R, T, H)
        truth = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        truth[len(source.hidden) :] = 1
        with torch.no_grad():
            fooled = functional.cross_entropy(critic(hidden, mask), truth) >= GUESSING
        strength = ramp(source.fraction, self.gamma) * (~fooled).float()  # stays on the device
        logits = critic(reverse_gradient(hidden, strength), mask)
        right = (logits.detach().argmax(1) == truth).sum()
        critic.watch(right, len(logits), source.fraction)
        loss = functional.cross_entropy(logits, truth)
        return {"loss": loss, "accuracy": right / len(logits)}
