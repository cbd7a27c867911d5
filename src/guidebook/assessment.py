"""Scores of a finished guidebook on labelled rows: the named, final evaluation of a domain."""

from __future__ import annotations

from typing import Any

import numpy as np

from guidebook.artifact import Guidebook
from guidebook.data.domains import Domain, LabelSet, load_target
from guidebook.data.gold import reveal_gold
from guidebook.data.overlap import overlaps
from guidebook.data.population import Population
from guidebook.data.tags import TagSet
from guidebook.errors import InputError
from guidebook.evaluation.task_scores import scores


def evaluate(book: Guidebook, domain: Domain, which: str | None = None) -> dict[str, Any]:
    """Return the scores of a guidebook on labelled rows of a domain, by variant.

    Args:
        book: One guidebook.
        domain: Labelled rows.
        which: A target it serves, to score only what serves that target; otherwise every variant is scored.

    Raises:
        InputError: no labels, or none that the guidebook knows.
    """
    words = book.words
    population = load_target(domain, words=words, labels_needed=True)
    names, how = tuple(book.labels), book.meta["task"].get("tags") or {}
    labels = TagSet(names, **how) if words else LabelSet(names)
    gold = reveal_gold(population, labels)
    if gold is None:
        raise InputError(f"{population.path or domain.name}: no label column, so there is nothing to score against.")
    if not gold.known.any():
        others = ", ".join(map(repr, list(gold.unknown)[:5])) or "missing"
        raise InputError(
            f"{population.path or domain.name}: none of its labels is one of {book.labels}; they are {others}. "
            "Name them as the guidebook does, or name another column under columns.label."
        )
    results = {}
    for variant in [book.meta["serves"].get(which, which)] if which else list(book.meta["variants"]):
        found = book.predict_proba(population.texts, population.text_pairs, domain=variant)
        flattened = np.concatenate(list(found)) if words else found
        results[variant] = scores(flattened, gold.rows, labels.names, gold.tags)
    return {
        "rows": int(gold.known.sum()),
        "texts": int(gold.labelled.sum()),
        "unknown_labels": gold.unknown,
        "without_label": gold.without,
        "overlap": _overlap(book, population),
        "scores": results,
    }


def _overlap(book: Guidebook, population: Population) -> dict[str, Any] | None:
    """Return how many rows stand in what the guidebook was trained on; None where that cannot be read any more."""
    from guidebook.preparation import read
    from guidebook.recipe import recipe_from

    try:
        corpus = read(recipe_from({**book.meta["recipe"], "general": []}))
    except InputError:  # texts that were in memory, or files that are not there
        return None
    known = {domain["fingerprint"] for domain in book.meta["domains"]}
    trained = {"targets": corpus.targets, "source": corpus.sources, "unlabelled": corpus.unlabelled}
    if any(part.fingerprint not in known for parts in trained.values() for part in parts):
        return None  # the files have changed since
    return overlaps([population], trained)[0].plain()
