"""Scores of a finished guidebook on labelled rows: the named, final evaluation of a domain."""

from __future__ import annotations

from typing import Any

import numpy as np

from guidebook.account import scores
from guidebook.artifact import Guidebook
from guidebook.data.domains import Domain, LabelSet, load_target
from guidebook.data.tags import TagSet, flat
from guidebook.errors import InputError


def evaluate(book: Guidebook, domain: Domain, which: str | None = None) -> dict[str, Any]:
    """Return the scores of a guidebook on labelled rows of a domain, by variant.

    Args:
        book: One guidebook.
        domain: Labelled rows.
        which: A target it serves, to score only what serves that target; otherwise every variant is scored.

    Raises:
        InputError: no labels, or none that the guidebook knows.
    """
    words = book.meta["task"]["pooling"] == "tokens"
    population = load_target(domain, words=words)
    if population.hidden is None:
        raise InputError(f"{population.path or domain.name}: no label column, so there is nothing to score against.")
    labels = TagSet(tuple(book.labels)) if words else LabelSet(tuple(book.labels))
    raw = population.hidden.reveal("final evaluation")
    gold = labels.encode(raw)
    if not (flat(gold) >= 0).any():
        raise InputError(f"{population.path or domain.name}: none of its labels is one of {book.labels}.")
    found = {}
    for variant in [book.meta["serves"].get(which, which)] if which else list(book.meta["variants"]):
        probabilities = book.predict_proba(population.texts, population.text_pairs, domain=variant)
        found[variant] = scores(np.concatenate(list(probabilities)) if words else probabilities, gold, labels.names)
    return {"rows": int((flat(gold) >= 0).sum()), "unknown_labels": labels.unknown(raw), "scores": found}
