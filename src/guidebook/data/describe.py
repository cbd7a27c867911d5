"""What a reader should know about each domain before training: sizes, cuts, duplicates, overlap, classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guidebook.data.fingerprints import text_keys
from guidebook.data.population import Population
from guidebook.data.tags import flat
from guidebook.data.tokens import Specials, Tokens
from guidebook.errors import RunError


def describe(
    populations: Sequence[Population],
    tokens: Mapping[str, Tokens] | Sequence[Tokens],
    length: int,
    *,
    pairs: Mapping[str, Tokens] | Sequence[Tokens | None] | None = None,
    specials: Specials | None = None,
) -> list[dict[str, Any]]:
    """Return one description per population, ready for JSON.

    Args:
        populations: The rows of each domain.
        tokens: Tokens of the texts of each population, without special tokens: by name, or in order where two
            populations share a name.
        length: Longest row that the task reads, in tokens.
        pairs: Tokens of the second texts, likewise.
        specials: Special tokens that take a part of `length`; None: none do.

    Returns:
        Dictionaries with name, role, path, rows, duplicates (rows that repeat an earlier row), overlap (other domain
        -> rows that also stand there, where there are any), texts_cut, tokens_cut, tokens, fertility (tokens per
        white-space word), classes, dropped, columns, fingerprint. Texts are compared without case and white space.

    Raises:
        RunError: tokens and texts of a population differ in number.
    """
    keys = [text_keys(population.texts, population.text_pairs) for population in populations]
    distinct = [np.unique(of_one) for of_one in keys]
    found = []
    for index, population in enumerate(populations):
        first, second = _own(tokens, index, population), _own(pairs, index, population)
        if first is None or len(first) != len(population.texts):
            raise RunError(
                f"domain {population.name!r}: {len(first or ())} token rows for {len(population.texts)} texts."
            )
        overlap = {
            other.name: int(np.isin(keys[index], distinct[place]).sum())
            for place, other in enumerate(populations)
            if place != index
        }
        found.append(
            {
                "name": population.name,
                "role": population.role,
                "path": population.path,
                "rows": len(population.texts),
                "duplicates": len(keys[index]) - len(distinct[index]),
                "overlap": {name: rows for name, rows in overlap.items() if rows},
                **_token_counts(population, (first, second), length, specials),
                "classes": _class_counts(population),
                "dropped": dict(population.dropped),
                "columns": {key: name for key, name in dataclasses.asdict(population.columns).items() if name},
                "fingerprint": population.fingerprint,
            }
        )
    return found


def _own(
    tokens: Mapping[str, Tokens] | Sequence[Tokens | None] | None, index: int, population: Population
) -> Tokens | None:
    if isinstance(tokens, Mapping):
        return tokens.get(population.name)
    return None if tokens is None else tokens[index]


def _token_counts(
    population: Population, tokens: tuple[Tokens, Tokens | None], length: int, specials: Specials | None
) -> dict[str, float]:
    first, second = tokens
    counts = cut_counts(first, second, length, specials)
    words = sum(len(text.split()) for text in population.texts)
    if second is not None:
        words += sum(len(text.split()) for text in population.text_pairs or ())
    return {**counts, "fertility": counts["tokens"] / max(words, 1)}


def cut_counts(first: Tokens, second: Tokens | None, length: int, specials: Specials | None) -> dict[str, int]:
    """Return how many rows and tokens a length cuts off, and how many tokens there are: texts_cut, tokens_cut, tokens.

    Args:
        first: Tokens of the texts, without special tokens.
        second: Tokens of the second texts, if rows are pairs.
        length: Longest row, in tokens.
        specials: Tokens in every row that take a part of `length`; None: there are none.
    """
    lengths = first.lengths if second is None else first.lengths + second.lengths
    room = length
    if specials is not None:
        room -= len(specials.before) + len(specials.after) + (len(specials.between) if second is not None else 0)
    cut = np.maximum(lengths - room, 0)
    return {"texts_cut": int((cut > 0).sum()), "tokens_cut": int(cut.sum()), "tokens": int(lengths.sum())}


def _class_counts(population: Population) -> dict[str, int] | None:
    if population.labels is None:
        return None
    counts = np.bincount(flat(population.labels), minlength=len(population.label_names))
    return dict(zip(population.label_names, counts.tolist(), strict=True))
