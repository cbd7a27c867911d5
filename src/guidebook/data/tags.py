"""Tags of words: the labels of a row are one tag per word, as in IOB2 ("B-person I-person O")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guidebook.errors import InputError, nearest

OUTSIDE = "O"
SHOWN = 5


def words_of(value: object) -> tuple[str, ...]:
    """Return the words (or tags) of a row: a list of them, or a text cut at white space.

    Raises:
        InputError: something else, or a word that is empty or holds white space.

    >>> words_of("the  kettle boils"), words_of(["O", "B-tool", "O"])
    (('the', 'kettle', 'boils'), ('O', 'B-tool', 'O'))
    """
    if isinstance(value, str):
        return tuple(value.split())
    if hasattr(value, "tolist"):  # an array, as data frames hold lists
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise InputError(f"{value!r} is not a list of words or a text.")
    for word in value:
        if not isinstance(word, str) or len(word.split()) != 1:
            raise InputError(f"{word!r} is not a word: expected text without white space.")
    return tuple(value)


def flat(labels: np.ndarray) -> np.ndarray:
    """Return class ids one after the other: of rows (N,), or of the words of rows (an object array of tuples).

    >>> flat(np.array([1, 0])).tolist()
    [1, 0]
    """
    if labels.dtype != object:
        return labels
    return np.array([tag for row in labels for tag in row], dtype=np.int64)


def ragged(rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return an object array (N,) of tuples, whatever their lengths."""
    found = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        found[index] = tuple(row)
    return found


@dataclass(frozen=True)
class TagSet:
    """The tags of a task in their order: "O" first, then by name; a class id is a position in `names`."""

    names: tuple[str, ...]

    @classmethod
    def from_raw(
        cls,
        raw: Sequence[object],
        declared: Sequence[object] | None,
        place: str,
        *,
        lines: Sequence[int] | None = None,
        unit: str = "line",
    ) -> TagSet:
        """Return the tags found in the rows of a source, or the declared ones if they cover those found.

        Raises:
            InputError: fewer than two tags, or a tag that was not declared; with place and line.
        """
        counts = Counter(tag for row in raw for tag in (words_of(row) if row is not None else ()))
        if declared is None:
            names = tuple(sorted(counts, key=lambda tag: (tag != OUTSIDE, tag[2:], tag)))
        else:
            names = tuple(str(tag) for tag in declared)
            numbers = lines if lines is not None else range(1, len(raw) + 1)
            _refuse_unknown(raw, names, place, unit if lines is not None else "row", numbers)
        if len(counts) < 2:
            raise InputError(
                f"{place}: only the tags {sorted(counts)} in {len(raw):,} rows, expected at least two. "
                "Name the column of the tags under columns.label."
            )
        return cls(names)

    def encode(self, raw: Sequence[object]) -> np.ndarray:
        """Return an object array (N,) of tuples of class ids; -1 for an unknown tag, an empty tuple without tags."""
        ids = {name: index for index, name in enumerate(self.names)}
        return ragged([tuple(ids.get(tag, -1) for tag in (words_of(row) if row is not None else ())) for row in raw])

    def unknown(self, raw: Sequence[object]) -> dict[str, int]:
        """Return how many words carry each tag that is not one of `names`, most frequent first."""
        known = set(self.names)
        counts = Counter(tag for row in raw if row is not None for tag in words_of(row) if tag not in known)
        return dict(counts.most_common())


def _refuse_unknown(
    raw: Sequence[object], names: tuple[str, ...], place: str, unit: str, numbers: Sequence[int]
) -> None:
    wrong = [
        (number, tag)
        for number, row in zip(numbers, raw, strict=True)
        for tag in (words_of(row) if row is not None else ())
        if tag not in names
    ]
    if wrong:
        shown = "\n".join(
            f"{place} {unit} {number}: tag {tag!r} is not one of {list(names)}.{nearest(tag, names)}"
            for number, tag in wrong[:SHOWN]
        )
        raise InputError(f"{shown}\n{len(wrong):,} such tags. Fix the rows, or list the tags under task.labels.")
