"""The rows of a domain in one role; a target's labels live in `HiddenLabels` and nowhere else."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from guidebook.data.columns import Columns
from guidebook.data.fingerprints import hash_texts, text_keys
from guidebook.data.folder import Numbers
from guidebook.data.texts import take
from guidebook.errors import InputError, RunError

PURPOSES = ("final evaluation", "oracle")


class HiddenLabels:
    """Labels of a target that only `reveal` reads.

    They cannot be iterated, indexed, counted, printed, copied or pickled, and no value is looked at before.

    Attributes:
        reveals: The purpose of every reveal so far.
    """

    __slots__ = ("__labels", "__rows", "reveals")

    def __init__(self, labels: Sequence[object], rows: Sequence[int] | None = None) -> None:
        """Hide labels; `rows` are the positions of those that belong to kept rows (None: all)."""
        self.__labels = labels
        self.__rows = rows
        self.reveals: list[str] = []

    def reveal(self, purpose: str) -> list[object]:
        """Return the raw labels, one per row, and note why they were read.

        Raises:
            RunError: the purpose is not "final evaluation" or "oracle".
        """
        if purpose not in PURPOSES:
            raise RunError(f"target labels were asked for {purpose!r}, expected one of {list(PURPOSES)}. Do without.")
        self.reveals.append(purpose)
        values = list(self.__labels)
        return values if self.__rows is None else [values[row] for row in self.__rows]

    def take(self, rows: Sequence[int]) -> HiddenLabels:
        """Return the hidden labels of some rows; reveals are noted in the same list."""
        taken = HiddenLabels(self.__labels, rows if self.__rows is None else [self.__rows[row] for row in rows])
        taken.reveals = self.reveals
        return taken

    def __repr__(self) -> str:
        return f"HiddenLabels(reveals={self.reveals!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise RunError('target labels are hidden and cannot be copied or pickled. Use reveal("final evaluation").')


@dataclass(frozen=True, eq=False)
class Population:
    """The rows of a domain in one role.

    Attributes:
        name: The domain's name.
        role: "source", "target", "unlabelled" or "general".
        texts: First or only texts, as written.
        text_pairs: Second texts, if the domain has pairs.
        labels: (N,) int64 class ids; sources only. Where words are labelled: (N,) tuples of one id per word.
        hidden: Labels of a target that has any.
        lines: Line of each row in the file, or its number in the texts given in memory, from 1; in a folder both words.
        path: The file, folder or data set; "" for texts in memory.
        columns: Columns of the file that were chosen.
        dropped: Why rows were dropped -> how many.
        fingerprint: Hash of texts and pairs only.
        labels_fingerprint: Hash of the labels of a source.
        label_names: Names of the classes of a source.
        note: What a person should know of how the rows were read.
        division: Where the rows are documents: what divides them, such as "one per file"; else "".
    """

    name: str
    role: str
    texts: Sequence[str]
    text_pairs: Sequence[str] | None
    labels: np.ndarray | None
    hidden: HiddenLabels | None
    lines: Sequence[Any]
    path: str
    columns: Columns
    dropped: dict[str, int]
    fingerprint: str
    labels_fingerprint: str | None = None
    label_names: tuple[str, ...] = ()
    note: str = ""
    division: str = ""


def select_rows(population: Population, rows: Sequence[int] | np.ndarray) -> Population:
    """Return the population with only some rows, in the given order."""
    kept = np.asarray(rows, dtype=np.int64)
    texts = take(population.texts, kept)
    pairs = None if population.text_pairs is None else take(population.text_pairs, kept)
    labels = None if population.labels is None else population.labels[kept]
    return dataclasses.replace(
        population,
        texts=texts,
        text_pairs=pairs,
        labels=labels,
        hidden=population.hidden and population.hidden.take(kept.tolist()),
        lines=_taken(population.lines, kept),
        fingerprint=hash_texts(texts, pairs),
        labels_fingerprint=None if labels is None else hash_labels(labels, population.label_names),
    )


def _taken(lines: Sequence[Any], rows: np.ndarray) -> Sequence[Any]:
    if isinstance(lines, Numbers):
        return lines.take(rows)
    return np.asarray(lines)[rows] if isinstance(lines, array) else [lines[row] for row in rows.tolist()]


def split_rows(population: Population, share: float, seed: int) -> tuple[Population, Population]:
    """Return (rest, held out): a share of the rows of every class is held out, the same for the same seed.

    Rows with the same text stand on the same side, so that no held-out text was trained on; every class keeps a row
    on the first side.

    Raises:
        InputError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(
            f"a share of {share} cannot be held out, expected 0 or more and less than 1. Correct task.dev."
        )
    keys = text_keys(population.texts, population.text_pairs)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    labels = population.labels
    plain = labels is None or labels.dtype == object
    classes = np.zeros(len(first), np.int64) if plain else labels[first]  # type: ignore[index]
    held = _stratified(classes, share, np.random.default_rng((seed, len(first))))[group]
    return select_rows(population, np.flatnonzero(~held)), select_rows(population, np.flatnonzero(held))


def _stratified(classes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which of the rows (N,) are held out: largest remainders give each class its whole number of rows."""
    held = np.zeros(len(classes), dtype=bool)
    order = rng.permutation(len(classes))
    found, counts = np.unique(classes, return_counts=True)
    exact = counts * share
    numbers = np.floor(exact).astype(np.int64)
    missing = round(share * len(classes)) - int(numbers.sum())
    numbers[np.argsort(numbers - exact, kind="stable")[: max(missing, 0)]] += 1
    for label, number in zip(found, np.minimum(numbers, counts - 1), strict=True):
        held[order[classes[order] == label][:number]] = True
    return held


def hash_labels(labels: np.ndarray, names: tuple[str, ...]) -> str:
    """Return the fingerprint of class ids and the names they stand for."""
    return hash_texts(names, [str(label) for label in labels.tolist()])
