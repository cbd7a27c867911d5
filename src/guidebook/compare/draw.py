"""Labelled source rows as a comparison uses them: held-out rows first, then so many of the rest, by draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guidebook.data.domains import Domain, Population, load_sources, split_rows
from guidebook.errors import InputError
from guidebook.recipe import Recipe


def drawn_source(source: Domain, rows: int | None, draw: int, recipe: Recipe) -> Domain:
    """Return a source with `rows` of its labelled rows, its test rows those that no draw trains on.

    The held-out rows are the source's own `test`, else a share `task.dev` of its rows that is the same for all draws,
    so that the source accuracies of all candidates are measured on the same rows.

    Raises:
        InputError: what reading refuses, or more rows are asked for than there are.
    """
    (population,), _ = load_sources([source], recipe.task.labels, words=recipe.task.words)
    test = source.test
    if test is None and recipe.task.dev > 0:
        population, held_out = split_rows(population, recipe.task.dev, recipe.seed)
        test = _in_memory(held_out, f"{source.name} held out") if len(held_out.texts) else None
    assert population.labels is not None
    if rows is not None:
        strata = np.zeros(len(population.texts), np.int64) if recipe.task.words else population.labels
        chosen = draw_rows(strata, rows, draw, source.name)
        return _in_memory(population, source.name, chosen, test)
    return _in_memory(population, source.name, None, test)


def draw_rows(labels: np.ndarray, count: int, draw: int, name: str = "the source") -> np.ndarray:
    """Return `count` row ids in rising order, every class in its share, drawn by the draw's number alone.

    Raises:
        InputError: there are fewer rows, or too few to keep one of every class.

    >>> draw_rows(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 4, draw=0).tolist()
    [1, 2, 4, 5]
    """
    classes, counts = np.unique(labels, return_counts=True)
    if count > len(labels) or count < len(classes):
        raise InputError(
            f"compare.rows: {count:,} of {len(labels):,} rows of {name} with {len(classes)} classes cannot be drawn. "
            "Ask for fewer, or for more than there are classes; null takes all."
        )
    exact = counts * count / len(labels)
    numbers = np.maximum(np.floor(exact).astype(np.int64), 1)
    while numbers.sum() != count:  # largest remainders, upwards or (where a class was lifted to one) downwards
        step = 1 if numbers.sum() < count else -1
        gap = np.where((numbers + step >= 1) & (numbers + step <= counts), step * (exact - numbers), -np.inf)
        numbers[gap.argmax()] += step
    random = np.random.default_rng((draw, count))
    picked = [random.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, numbers, strict=True)]
    return np.sort(np.concatenate(picked))


def _in_memory(population: Population, name: str, rows: np.ndarray | None = None, test: Domain | None = None) -> Domain:
    assert population.labels is not None
    chosen: list[int] = list(range(len(population.texts))) if rows is None else rows.tolist()
    pairs = population.text_pairs
    return Domain(
        name,
        [population.texts[row] for row in chosen],
        None if pairs is None else [pairs[row] for row in chosen],
        labels=[_named(label, population.label_names) for label in population.labels[chosen]],
        test=test,
    )


def _named(label: Any, names: Sequence[str]) -> object:
    """Return the name of a row's class, or the tags of its words."""
    return [names[int(tag)] for tag in label] if isinstance(label, tuple) else names[int(label)]
