"""Conditions on rows: the values that a column may have, compared as labels are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from guidebook.data.labels import NUMBER, WORDS, normalise


@dataclass
class Condition:
    """The values that one column of a kept row may have.

    Attributes:
        values: Their labels; "" stands for a missing value.
        numbers: Those given as fractions and not as text, by value: 1.1 may be spelled "1.10" in the column.
        spelled: Spellings that the column has of each of these numbers, as far as rows were compared.
    """

    values: set[str]
    numbers: set[float] = field(default_factory=set)
    spelled: dict[float, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, value: object) -> Condition:
        """Return the condition that a value, or a list of values, of `where` stands for."""
        values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        fractions = [item for item in values if isinstance(item, float) and not item.is_integer()]
        return cls({comparable(item) for item in values}, set(fractions))

    def holds(self, label: str) -> bool:
        """Return whether a cell, as `comparable` writes it, is one of the values."""
        if self.numbers and NUMBER.fullmatch(label) and (number := float(label)) in self.numbers:
            self.spelled.setdefault(number, set()).add(label)
            return True
        return label in self.values

    def ambiguous(self) -> Iterable[list[str]]:
        """Yield the spellings of every number that the column spells in several ways, such as 1.1 and 1.10."""
        return (sorted(found) for found in self.spelled.values() if len(found) > 1)


def comparable(value: object) -> str:
    """Return a value as a label, true and false always as 1 and 0, missing and nested values as nothing.

    >>> comparable(True), comparable("1.0"), comparable("1.10"), comparable(-1), comparable(None)
    ('1', '1', '1.10', '-1', '')
    """
    label = None if isinstance(value, list | dict) else normalise(value)
    return "" if label is None else WORDS.get(label.casefold(), label)
