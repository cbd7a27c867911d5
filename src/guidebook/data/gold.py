"""The revealed labels of a target's rows, as ids of the task's classes, for its final evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guidebook.data.labels import LabelSet
from guidebook.data.population import Population
from guidebook.data.tags import UNTAGGED, TagSet, flat, per_word


@dataclass(frozen=True)
class Gold:
    """The true labels of the rows of a population.

    Attributes:
        rows: (N,) int64 class ids, -1 without a known label; where words are labelled (N,) tuples of one id per word,
            -1 with an unknown tag and `UNTAGGED` in rows without tags.
        unknown: Label that is not one of the classes -> how many rows, or words, carry it.
        without: Number of rows that have no label, or no tags.
        tags: Where words are labelled, the tags of every row in the scheme of the source's; () without tags.
    """

    rows: np.ndarray
    unknown: dict[str, int]
    without: int
    tags: list[tuple[str, ...]] | None = None

    @property
    def items(self) -> np.ndarray:
        """(N,) class ids of rows, or (W,) of words one after the other; below 0 without a known label."""
        return flat(self.rows)

    @property
    def known(self) -> np.ndarray:
        """Which of the items have a known label."""
        return self.items >= 0

    @property
    def labelled(self) -> np.ndarray:
        """(N,) which rows have a known label, or any tags."""
        if self.rows.dtype != object:
            return self.rows >= 0
        return np.array([row[0] != UNTAGGED for row in self.rows], dtype=bool)


def reveal_gold(population: Population, labels: LabelSet | TagSet, purpose: str = "final evaluation") -> Gold | None:
    """Return the labels of a population that has hidden ones, else None.

    Raises:
        RunError: the purpose is none for which target labels may be read.
    """
    if population.hidden is None:
        return None
    raw = population.hidden.reveal(purpose)
    ids, unknown = labels.encode(raw), labels.unknown(raw)
    if isinstance(labels, TagSet):
        rows = per_word(ids, population.texts)
        return Gold(rows, unknown, sum(row[0] == UNTAGGED for row in rows), labels.written(raw))
    return Gold(ids, unknown, int((ids < 0).sum()) - sum(unknown.values()))
