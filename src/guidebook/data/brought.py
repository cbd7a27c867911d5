"""What a user brings for a target by hand: a few labelled rows, in a file of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guidebook.data.columns import Columns
from guidebook.data.domains import Domain, load_source
from guidebook.data.fingerprints import text_keys
from guidebook.data.population import Population
from guidebook.errors import InputError


def labelled_by_hand(
    path: str, label: str | None, target: Population, test: Population, names: Sequence[str]
) -> Population:
    """Return labelled rows of a target from a file that the user names.

    Args:
        path: The file; `{target}` in it stands for the target's name.
        label: Its label column; None: found by alias.
        target: The target's pool.
        test: The rows of its final evaluation.
        names: The classes of the task.

    Raises:
        InputError: what a source's file is refused for, or rows that are also tested on.
    """
    place = path.replace("{target}", target.name)
    population, _ = load_source(Domain(target.name, path=place, columns=Columns(label=label)), names)
    if (population.text_pairs is None) != (target.text_pairs is None):
        raise InputError(f"{place}: of this file and its target, one has pairs of texts. Give both the same columns.")
    if test.hidden is not None:
        tested = text_keys(test.texts, test.text_pairs)
        both = int(np.isin(text_keys(population.texts, population.text_pairs), tested).sum())
        if both:
            raise InputError(
                f"{place}: {both} of {len(population.texts)} rows are also rows of the final evaluation, which would "
                f"be tested on labels it was trained on. Give the target {target.name} other rows: `test:`."
            )
    return population
