"""What a task must offer: its settings and a head on the pooled rows of the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


class Task(Protocol):
    """Settings of a task, a frozen dataclass; everything here is importable without torch until a head is made."""

    @property
    def kind(self) -> str:
        """Name under which the task stands in `TASKS` and in a recipe."""

    @property
    def words(self) -> bool:
        """True if labels belong to words, False if to whole rows."""

    @property
    def labelled(self) -> bool:
        """Whether it is learned from a source's labels; else modelling text is all."""

    @property
    def max_length(self) -> int:
        """Tokens a row keeps, special tokens included."""

    @property
    def dev(self) -> float:
        """Share of the source rows held out of training to measure source accuracy, 0 < dev < 1."""

    def pooling_on(self, default: str) -> str:
        """How hidden states become one row: the task's own choice, or `default`, the one that fits the base."""

    def make_head(self, hidden: int, classes: int, seed: int) -> nn.Module:
        """A head (B, hidden) -> (B, classes) whose first weights follow from `seed` alone."""
