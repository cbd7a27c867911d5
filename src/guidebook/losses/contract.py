"""What a loss is: streams it reads, modules it brings, and a sum over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from guidebook.data.streams import Stream


@dataclass(frozen=True)
class View:
    """The rows of one stream in one step, as a loss sees them after the forward pass."""

    hidden: Tensor
    """(B, T, H) last hidden state."""
    mask: Tensor
    """(B, T) True where there is a token."""
    logits: Tensor
    """(M, V) of the language-modelling head, only at the positions that are predicted."""
    targets: Tensor
    """(M,) token ids to predict."""
    labels: Tensor
    """(B,) class ids, or empty."""


@dataclass(frozen=True)
class Facts:
    """What a loss may know when it builds its modules."""

    hidden_size: int
    pooling: str
    classes: int
    head: str
    head_dropout: float
    head_seed: int


class Loss(Protocol):
    """A part of a stage's objective.

    The value is a *sum*; `StageModel` divides by the number of items of the whole optimiser step, so that a step
    in several micro-batches or on several devices has the same gradient as in one.
    """

    @property
    def streams(self) -> Sequence[Stream]:
        """Streams it reads, in the order of the views it is given."""

    @property
    def corrupts(self) -> bool:
        """True if its rows are masked and run through the language-modelling head."""

    @property
    def length_in(self) -> Literal["tokens", "rows"]:
        """What a stage's length is counted in when this loss is the stage's first."""

    def modules(self, facts: Facts) -> Mapping[str, nn.Module]:
        """New trainable modules by name; two losses that name the same module share it."""

    def items(self, views: Sequence[View]) -> int:
        """Number of items its sum runs over."""

    def __call__(self, views: Sequence[View], modules: Mapping[str, nn.Module]) -> Tensor:
        """Return the sum over items, a scalar."""
