"""What a person should see of a source's classes before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from guidebook.data.labels import spellings
from guidebook.data.population import Population
from guidebook.data.schemes import scheme_of
from guidebook.data.tags import flat

MOST = 20
"""Classes that are listed one by one."""
SEPARATORS = ("|", ";", ",", "/")


def class_notes(populations: Sequence[Population]) -> list[str]:
    """Return lines on the classes of labelled populations: how many rows each has, and what is odd about them.

    Where words are labelled they count words, and say in which scheme the tags spell entities.
    """
    labelled = [population for population in populations if population.labels is not None]
    if not labelled:
        return []
    names = labelled[0].label_names
    words = labelled[0].labels is not None and labelled[0].labels.dtype == object
    ids = np.concatenate([flat(population.labels) for population in labelled if population.labels is not None])
    counts = dict(zip(names, np.bincount(ids, minlength=len(names)).tolist(), strict=True))
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:MOST])
    more = f" and {len(names) - MOST:,} more" if len(names) > MOST else ""
    line = f"{'tags (words)' if words else 'classes'}: {shown}{more}"
    return [line, *(_about_tags(names) if words else _about_labels(counts))]


def _about_labels(counts: Mapping[str, int]) -> list[str]:
    empty = [name for name, count in counts.items() if not count]
    notes = [f"no row has the label {', '.join(empty)}"] if empty else []
    for same in spellings(counts).values():
        if len(same) > 1:
            notes.append(f"the labels {', '.join(same)} are classes of their own, though they are one number")
    for sign in SEPARATORS:
        if found := lists_of_labels(counts, sign):
            notes.append(
                f"{len(found):,} labels such as {found[0]!r} look like several labels with {sign!r} between them. "
                "Every row has one class: each combination is learned as a class of its own."
            )
            break
    return notes


def lists_of_labels(labels: Mapping[str, int] | Sequence[str], sign: str) -> list[str]:
    """Return the labels that a sign divides into parts which are, or are in, other labels too.

    >>> lists_of_labels(["clean", "clean|food", "food|price"], "|"), lists_of_labels(["a,b", "c,d"], ",")
    (['clean|food', 'food|price'], [])
    """
    parts = {label: {part.strip() for part in label.split(sign)} - {""} for label in labels}
    where = Counter(part for found in parts.values() for part in found)
    return [label for label, found in parts.items() if len(found) > 1 and any(where[part] > 1 for part in found)]


def _about_tags(names: Sequence[str]) -> list[str]:
    scheme = scheme_of(names)
    if not scheme.form:
        return ["the tags mark no beginning of an entity (B-, I-): every word with a tag but O is scored by itself"]
    found = {"IOB2": "IOB", "IOB1": "IOB"}.get(scheme.name, scheme.name)
    plain = ", ".join(scheme.plain[:MOST])
    odd = f"; words with a tag that is none of its marks are scored one by one: {plain}" if plain else ""
    return [f"the tags spell entities as {found} does; they are learned as they are, and scored by entity{odd}"]
